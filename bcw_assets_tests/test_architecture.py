"""The rules of the house that no type checker knows."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

from bcw_assets.ml.table import columns
from bcw_assets_tests.conftest import CHECKOUT

PACKAGE = CHECKOUT / "bcw_assets"
MODULES = {
    ".".join(("bcw_assets", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
MAY_IMPORT = yaml.safe_load(Path(__file__).with_name("arrows.yaml").read_text())

# The beginnings of names that say what was done, or nothing, and not what a function does.
NO_VERBS = re.compile(
    r"([a-z]+ed|told|found|shown|made|taken|given|kept|held|broken|written|known|[a-z]+ing|one|some|others|everybody)(_|$)"
)
NOUNS = {"automation.housekeeping_job"}  # that only look like participles


def room(module: str) -> str:
    return [*module.split("."), "root"][1]


def imported(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name in MODULES else str(node.module) for name in names}
    return modules


def list_names(body: Iterable[ast.stmt]) -> Iterator[str]:
    """Return the names that a module or a class binds: functions, classes, constants, aliases of types."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))


def test_arrows_of_import_point_one_way() -> None:
    wrong = {
        (module, name)
        for module, path in MODULES.items()
        for name in imported(path)
        if name.split(".")[0] == "bcw_assets"
        and room(name) not in [*MAY_IMPORT.get(room(module), []), room(module), "errors"]
    }
    assert wrong == set()


def test_knowledge_knows_no_machinery() -> None:
    names = {name.split(".")[0] for module, path in MODULES.items() if room(module) == "ml" for name in imported(path)}
    assert names & {"dagster", "boto3", "os", "pathlib", "requests", "urllib3", "socket", "click"} == set()


FAMILIES = "|".join(family.name for family in columns.FAMILIES)


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        (rf"\b(?:{FAMILIES})_(?:mean|se|worst)\b", {"ml.table.columns", "ml.table.rules"}),  # names of measurements
        (r"os\.environ|getenv|load_dotenv", {"settings"}),
        # The output of predict is a stream into the file that its user names, and no key of a store.
        (r"write_bytes|write_text|\bopen\(\"|os\.replace|to_csv\([^i]", {"storage.folder", "cli.predict"}),
        (r"pickle\.loads?\b|Unpickler|joblib", set()),
    ],
)
def test_only_these_modules_hold_this(pattern: str, allowed: set[str]) -> None:
    holders = {name for name, path in MODULES.items() if re.search(pattern, path.read_text())}
    assert {name.removeprefix("bcw_assets.") for name in holders} <= allowed


def test_a_public_function_is_called_by_a_verb_and_no_participle() -> None:
    names = set()
    for module, path in MODULES.items():
        nodes = ast.parse(path.read_text()).body
        nodes += [node for each in nodes if isinstance(each, ast.ClassDef) for node in each.body]
        functions = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
        names |= {f"{module.removeprefix('bcw_assets.')}.{name}" for name in functions if NO_VERBS.match(name)}
    assert names - NOUNS == set()


def test_no_name_of_a_module_has_a_meaning_in_another_too() -> None:
    bodies = [ast.parse(path.read_text()).body for path in MODULES.values()]
    homes = Counter(name for body in bodies for name in set(list_names(body)) if not name.startswith("__"))
    assert {name for name, count in homes.items() if count > 1} == set()


@pytest.mark.parametrize(
    ("modules", "without"),
    [
        (
            "errors cli.main cli.predict cli.scoring cli.releases releases.access ml.table.rules ml.evaluation.scores",
            "dagster pandas sklearn scipy pyarrow boto3 matplotlib",
        ),
        ("storage.s3", "dagster sklearn pandas scipy"),
        ("definitions", "sklearn.datasets matplotlib.pyplot boto3 dagster_aws apprise"),
    ],
)
def test_an_import_brings_no_more_than_it_needs(modules: str, without: str) -> None:
    names = ", ".join(f"bcw_assets.{name}" for name in modules.split())
    program = f"import sys, {names}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert set(done.stdout.split()) & set(without.split()) == set()
