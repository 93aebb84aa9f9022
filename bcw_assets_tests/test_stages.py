"""The code version of an asset: it changes with the sources that make it, and with no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bcw_assets import assets
from bcw_assets.assets import ResamplingConfig
from bcw_assets.ml.model import preparation, resampling
from bcw_assets.ml.table import canonical
from bcw_assets.stages import find_modules, hash_sources

TABLE = {"errors", "ml.findings", "ml.table.canonical", "ml.table.columns", "ml.table.identity"}
READER = {f"ml.table.{name}" for name in ("admission", "forms", "ranks", "reading", "rules")}
KNOWLEDGE = TABLE | {"ml.table.ranks"} | {"ml.model.preparation", "ml.model.training"}

EVALUATION = ("calibration", "curves", "influence", "patients", "report", "scores", "utility")
REPORT = {f"ml.evaluation.{name}" for name in EVALUATION} | {
    "ml.model.coefficients", "ml.model.resampling", "report.tables",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "uses"),
    [
        ("raw_data", TABLE | READER | {"deadline", "locations", "settings", "source", "stages"}),
        ("ready_data", KNOWLEDGE - {"ml.model.training"}),
        ("model", KNOWLEDGE | {"ml.model.numbers", "stages"}),
        ("cross_validation", KNOWLEDGE | {"ml.model.resampling"}),
        ("metrics", KNOWLEDGE | REPORT | {"report.card", "report.figure", "report.formatting"}),
    ],
)
def test_an_asset_uses_these_modules(name: str, uses: set[str]) -> None:
    function: Callable[..., Any] = getattr(assets, name).op.compute_fn.decorated_fn.__wrapped__
    assert {module.__name__.removeprefix("bcw_assets.") for module in find_modules(function)} == uses


def test_the_version_changes_with_the_function_its_config_and_what_it_uses() -> None:
    def first() -> object:
        return canonical

    def second() -> object:
        return preparation

    def second_with_config(config: ResamplingConfig) -> object:
        return preparation

    def third() -> object:
        return preparation, resampling

    versions = [hash_sources(function) for function in (first, second, second_with_config, third)]
    assert len(set(versions)) == 4
    assert versions == [hash_sources(function) for function in (first, second, second_with_config, third)]


def test_the_version_of_the_metrics_changes_with_the_text_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    function: Callable[..., Any] = assets.metrics.op.compute_fn.decorated_fn.__wrapped__
    before, read = hash_sources(function), Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **how: read(path, **how) + "." * (path.suffix == ".j2"))
    assert hash_sources(function) != before
