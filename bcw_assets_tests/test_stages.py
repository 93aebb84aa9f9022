"""The code version of an asset: it changes with the sources that make it, and with no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bcw_assets import assets
from bcw_assets.assets import ResamplingConfig
from bcw_assets.ml.model import preparation
from bcw_assets.ml.table import canonical
from bcw_assets.stages import DATA, find_modules, hash_sources


@pytest.mark.parametrize(
    ("name", "uses", "spares"),
    [
        ("raw_data", "source", "ml.model.preparation"),
        ("ready_data", "ml.table.canonical", "ml.model.training"),
        ("model", "ml.model.numbers", "ml.model.resampling"),
        ("cross_validation", "ml.model.training", "ml.evaluation.report"),
        ("metrics", "ml.evaluation.influence", "source"),
    ],
)
def test_an_asset_uses_what_makes_it_and_no_more(name: str, uses: str, spares: str) -> None:
    function: Callable[..., Any] = getattr(assets, name).op.compute_fn.decorated_fn.__wrapped__
    modules = {module.__name__.removeprefix("bcw_assets.") for module in find_modules(function)}
    assert uses in modules
    assert modules & {spares, "assets", "storage.io_manager"} == set()


def test_the_version_changes_with_the_function_its_config_and_what_it_uses() -> None:
    def first() -> object:
        return canonical

    def second() -> object:
        return preparation

    def second_with_config(config: ResamplingConfig) -> object:
        return preparation

    versions = [hash_sources(function) for function in (first, second, second_with_config) * 2]
    assert len(set(versions[:3])) == 3
    assert versions[:3] == versions[3:]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("raw_data", ".csv"), ("raw_data", ".json"), ("metrics", ".j2"), ("metrics", ".mplstyle")),
        *(("release", ".css"), ("release", ".js"), ("release", ".sql"), ("release", ".txt")),
    ],
)
def test_the_version_changes_with_the_data_beside_the_modules(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    function: Callable[..., Any] = getattr(assets, name).op.compute_fn.decorated_fn.__wrapped__
    before, read = hash_sources(function), Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: read(path, **how) + "." * (path.suffix == kind))
    assert hash_sources(function) != before


def test_of_what_is_beside_the_modules_that_make_an_asset_every_kind_counts() -> None:
    package = Path(assets.__file__).parent
    kinds = {path.suffix for room in ("ml", "report") for path in (package / room).rglob("*.*") if path.is_file()}
    assert kinds - {".py", ".pyc"} <= set(DATA)
