"""The rules of the house that no type checker knows."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bcw_assets.ml import columns
from bcw_assets_tests.conftest import CHECKOUT

PACKAGE = CHECKOUT / "bcw_assets"
MODULES = {
    ".".join(("bcw_assets", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
# Whose modules a module may import, beside those of its own row. Arrows point down the table.
MAY_IMPORT = {
    "bcw_assets.cli": {
        "settings",
        "errors",
        "refresh",
        "check_report",
        "release_report",
        "releases",
        "predict",
        "copying",
        "messengers",
        "storage",
        "exporter",
    },
    "bcw_assets.exporter": {"", "assets", "checks", "deadline", "errors", "history", "settings", "vitals"},
    "bcw_assets.vitals": {"alerts", "check_report", "errors", "history", "releases", "storage"},
    "bcw_assets.copying": {"assets", "checks", "errors", "history", "releases", "settings", "storage"},
    "bcw_assets.refresh": {"", "errors", "checks", "history", "places", "releases", "ml"},
    "bcw_assets.check_report": {"", "assets", "checks", "errors", "history", "settings", "storage", "terminal"},
    "bcw_assets.release_report": {"errors", "releases", "scoring", "storage", "terminal", "ml"},
    "bcw_assets.history": {"errors", "settings"},
    "bcw_assets": {"definitions"},
    "bcw_assets.definitions": {"settings", "assets", "automation", "checks", "incidents", "storage"},
    "bcw_assets.assets": {"checks", "failures", "source", "settings", "stages", "releases", "report", "storage", "ml"},
    "bcw_assets.checks": {"errors", "failures", "releases", "storage", "ml"},
    "bcw_assets.releases": {"documents", "errors", "report", "scoring", "storage", "ml"},
    "bcw_assets.predict": {"errors", "places", "settings", "scoring", "releases", "storage", "ml"},
    "bcw_assets.scoring": {"documents", "errors", "ml"},
    "bcw_assets.automation": {"alerts", "assets", "checks", "errors", "housekeeping", "incidents", "settings"},
    "bcw_assets.housekeeping": {"checks", "history", "storage"},
    "bcw_assets.alerts": {"incidents", "messengers", "places", "settings"},
    "bcw_assets.incidents": {"errors", "history"},
    "bcw_assets.messengers": {"deadline", "errors", "settings"},
    "bcw_assets.stages": {"failures", "storage"},
    "bcw_assets.source": {"deadline", "errors", "settings"},
    "bcw_assets.report": {"ml"},
    "bcw_assets.storage": {"deadline", "documents", "errors", "failures", "places", "ml"},
    "bcw_assets.failures": {"errors"},
    "bcw_assets.settings": {"errors", "places"},
    "bcw_assets.ml": {"errors"},
    "bcw_assets.deadline": set(),
    "bcw_assets.documents": set(),
    "bcw_assets.places": set(),
    "bcw_assets.terminal": set(),
    "bcw_assets.errors": set(),
}


def row(module: str) -> str:
    """Return the row of the table that a module belongs to: the longest that it begins with."""
    return max((one for one in MAY_IMPORT if module == one or module.startswith(f"{one}.")), key=len)


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
    allowed = {f"bcw_assets.{name}".rstrip(".") for name in MAY_IMPORT[row(module)]} | {row(module)}
    ours = {name for name in imported(MODULES[module]) if name.split(".")[0] == "bcw_assets"}
    assert {name for name in ours if row(name) not in allowed} == set()


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("bcw_assets.ml")])
def test_knowledge_knows_no_machinery(module: str) -> None:
    roots = {name.split(".")[0] for name in imported(MODULES[module])}
    assert roots & {"dagster", "boto3", "os", "pathlib", "requests", "urllib3", "socket", "click"} == set()


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"bcw_assets.ml.columns", "bcw_assets.ml.rules"}))
def test_only_columns_and_rules_name_a_measurement(module: str) -> None:
    names = "|".join(family.name for family in columns.FAMILIES)
    assert re.findall(rf"\b(?:{names})_(?:mean|se|worst)\b", MODULES[module].read_text()) == []


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"bcw_assets.settings"}))
def test_only_settings_reads_the_environment(module: str) -> None:
    assert re.findall(r"os\.environ|getenv|load_dotenv", MODULES[module].read_text()) == []


# The output of predict is a stream into the file that its user names, and no key of a store.
@pytest.mark.parametrize("module", sorted(set(MODULES) - {"bcw_assets.storage.stores", "bcw_assets.predict"}))
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
        ("bcw_assets.cli", {"dagster", "pandas", "sklearn"}),
        ("bcw_assets.ml.performance", {"dagster", "requests", "matplotlib", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.ml.rules", {"dagster", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.scoring", {"dagster", "sklearn", "pandas", "scipy", "pyarrow"}),
        ("bcw_assets.predict", {"dagster", "sklearn", "pandas", "scipy", "pyarrow", "boto3"}),
        ("bcw_assets.storage.s3", {"dagster", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.release_report", {"dagster", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.releases.upkeep", {"dagster", "sklearn", "pandas", "scipy"}),
        ("bcw_assets.definitions", {"sklearn.datasets", "matplotlib.pyplot", "boto3", "dagster_aws", "apprise"}),
    ],
)
def test_an_import_brings_no_more_than_it_needs(module: str, without: set[str]) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert set(done.stdout.split()) & without == set()
