"""The rules of the house that no type checker knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bcw_assets.ml.table import columns
from bcw_assets_tests.conftest import CHECKOUT

PACKAGE = CHECKOUT / "bcw_assets"
MODULES = {
    ".".join(("bcw_assets", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# Whose modules a room may import, beside its own; arrows point down. `errors` is everybody's.
BASE = {"settings", "locations", "documents", "deadline", "stages"}
MAY_IMPORT = {
    "cli": {"", "assets", "checks", "operations", "releases", "report", "storage", "ml"} | BASE,
    "": {"definitions"},
    "definitions": {"assets", "checks", "automation", "operations", "storage"} | BASE,
    "automation": {"assets", "checks", "operations", "storage"} | BASE,
    "assets": {"checks", "releases", "report", "source", "storage", "ml"} | BASE,
    "operations": {"releases", "storage"} | BASE,
    "checks": {"releases", "storage", "ml"} | BASE,
    "releases": {"report", "storage", "ml"} | BASE,
    "source": BASE,
    "report": {"ml"},
    "storage": {"ml"} | BASE,
    "ml": set(),
    "settings": {"locations"},
    "stages": set(),
    "documents": set(),
    "deadline": set(),
    "locations": set(),
    "errors": set(),
}


def room(module: str) -> str:
    """Return the room of a module: what stands behind the name of the package."""
    return module.removeprefix("bcw_assets").removeprefix(".").partition(".")[0]


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            found |= {
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module or ""
                for alias in node.names
            }
    return found


@pytest.mark.parametrize("module", MODULES)
def test_arrows_of_import_point_one_way(module: str) -> None:
    allowed = MAY_IMPORT[room(module)] | {room(module), "errors"}
    ours = {name for name in imported(MODULES[module]) if name.split(".")[0] == "bcw_assets"}
    assert {name for name in ours if room(name) not in allowed} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("bcw_assets.ml")])
def test_knowledge_knows_no_machinery(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(MODULES[module])}
    assert roots & {"dagster", "boto3", "os", "pathlib", "requests", "urllib3", "socket", "click"} == set()


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"bcw_assets.ml.table.columns", "bcw_assets.ml.table.rules"}))
def test_only_columns_and_rules_name_a_measurement(module: str) -> None:
    names = "|".join(family.name for family in columns.FAMILIES)
    assert re.findall(rf"\b(?:{names})_(?:mean|se|worst)\b", MODULES[module].read_text()) == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"bcw_assets.settings"}))
def test_only_settings_reads_the_environment(module: str) -> None:
    assert re.findall(r"os\.environ|getenv|load_dotenv", MODULES[module].read_text()) == []


# The output of predict is a stream into the file that its user names, and no key of a store.
@pytest.mark.parametrize("module", sorted(set(MODULES) - {"bcw_assets.storage.folder", "bcw_assets.cli.predict"}))
def test_only_stores_write_files(module: str) -> None:
    assert re.findall(r"write_bytes|write_text|\bopen\(\"|os\.replace|to_csv\([^i]", MODULES[module].read_text()) == []


def test_nothing_unpickles() -> None:
    assert [
        name for name, path in MODULES.items() if re.search(r"pickle\.loads?\b|Unpickler|joblib", path.read_text())
    ] == []


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("bcw_assets", {"dagster", "pandas", "sklearn"}),
        ("bcw_assets.cli.main", {"dagster", "pandas", "sklearn"}),
        ("bcw_assets.ml.evaluation.scores", {"dagster", "requests", "matplotlib", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.ml.table.rules", {"dagster", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.cli.scoring", {"dagster", "sklearn", "pandas", "scipy", "pyarrow"}),
        ("bcw_assets.cli.predict", {"dagster", "sklearn", "pandas", "scipy", "pyarrow", "boto3"}),
        ("bcw_assets.storage.s3", {"dagster", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.cli.releases", {"dagster", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.releases.access", {"dagster", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.definitions", {"sklearn.datasets", "matplotlib.pyplot", "boto3", "dagster_aws", "apprise"}),
    ],
)
def test_an_import_brings_no_more_than_it_needs(module: str, without: set[str]) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert set(done.stdout.split()) & without == set()
