"""The rules: true of every real row, each able to speak alone, and together able to tell what was done to a table."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, islice

import jinja2
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from bcw_assets.errors import TableError
from bcw_assets.ml.table import columns, rules
from bcw_assets_tests.conftest import CHECKOUT
from bcw_assets_tests.releases.candidates import flipped

MEASUREMENTS = list(columns.MEASUREMENTS)


def scale(column: str, factor: float, row: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return what multiplies one value of a table."""

    return lambda raw: raw.assign(**{column: raw[column].where(raw.index != row, raw[column] * factor)})


# R1 cannot stand alone: what is not finite is not positive either (R2).
ALONE: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "R2": scale("texture_se", 0, 38),
    "R3": scale("texture_mean", 1.05, 38),
    "R4": scale("concavity_mean", 0.3, 12),
    "R5": scale("radius_mean", 1.1, 1),
    "R6": scale("radius_mean", 0.9, 0),
    "R7": scale("area_mean", 1.05, 16),
    "R8": scale("perimeter_mean", 1.05, 0),
    "R9": scale("concavity_se", 0, 38),
    "R10": scale("texture_mean", 0.5, 44),
    "R11": scale("texture_mean", 0.1, 0),
    "R12": scale("radius_se", 0.3, 0),
    "R13": scale("symmetry_worst", 2, 78),
    "F2": lambda raw: raw.assign(diagnosis=raw["diagnosis"].where(raw.index > 0, "X")),
    "F4": lambda raw: raw.assign(id=raw["id"].where(raw.index > 0, raw["id"].iloc[1])),
    "F5": lambda raw: pd.concat([raw, raw.head(1).assign(id="another")], ignore_index=True),
    "F6": lambda raw: raw.assign(diagnosis=raw["diagnosis"].map({"M": "B", "B": "M"})),
}
ADVICE_ALONE: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "R14": scale("texture_mean", 10, 0),
    "F3": lambda raw: raw.assign(diagnosis=raw["diagnosis"].mask(raw["perimeter_worst"] > 98, "M")),
    "F6b": lambda raw: flipped(raw, 42),
    "F7": lambda raw: raw.assign(smoothness_mean=raw["smoothness_mean"].round(3)),
    "F8": lambda raw: raw.assign(texture_mean=raw["texture_mean"] * 1.3),
}


def codes(table: pd.DataFrame, *, is_hard: bool) -> set[str]:
    """Return the codes of the rules that a table breaks, as the problems name them."""
    findings = rules.check_invariants(table) if is_hard else rules.check_plausibility(table)
    return {code for problem in findings.problems for code in re.findall(r"\(([RF]\d+b?)[:)]", problem)}


CODES = {rule.code for rule in rules.ROWS} | {rule.code for rule in rules.FILES}


@pytest.mark.parametrize("code", sorted(CODES - {"R1"}))
def test_a_rule_speaks_of_a_table_where_no_other_does(raw: pd.DataFrame, code: str) -> None:
    is_hard = code in ALONE
    changed = (ALONE if is_hard else ADVICE_ALONE)[code](raw)
    assert codes(changed, is_hard=is_hard) == {code}
    if is_hard:
        with pytest.raises(TableError, match=rf"\({code}[:)]"):
            rules.require(changed, str)


def test_what_is_not_finite_breaks_r1(raw: pd.DataFrame) -> None:
    for value in (np.nan, np.inf, -np.inf):
        assert "R1" in codes(raw.assign(area_mean=raw["area_mean"].where(raw.index > 0, value)), is_hard=True)


def test_on_the_real_table_no_rule_is_broken(raw: pd.DataFrame) -> None:
    assert codes(raw, is_hard=True) | codes(raw, is_hard=False) == set()
    rules.require(raw, str)


def spoil(raw: pd.DataFrame) -> dict[str, Iterator[pd.DataFrame]]:
    """Return what people and programs do to a table, by kind."""
    mean, worst = ([name for name in MEASUREMENTS if name.endswith(statistic)] for statistic in ("_mean", "_worst"))
    exchange = dict(zip([*mean, *worst], [*worst, *mean], strict=True))
    order = list(columns.RAW)
    pairs = combinations(MEASUREMENTS, 2)
    return {
        "two columns exchanged": (raw.rename(columns={first: last, last: first})[order] for first, last in pairs),
        "a column times 10": (raw.assign(**{name: raw[name] * 10}) for name in MEASUREMENTS),
        "a column in inches": (raw.assign(**{name: raw[name] / 25.4}) for name in MEASUREMENTS),
        "mean and worst exchanged": iter([raw.rename(columns=exchange)[order]]),
        "labels inverted": iter([raw.assign(diagnosis=raw["diagnosis"].map({"M": "B", "B": "M"}))]),
        "labels permuted": iter([raw.assign(diagnosis=np.random.default_rng(0).permutation(raw["diagnosis"]))]),
    }


@pytest.mark.parametrize("most", [3, pytest.param(435, marks=pytest.mark.sweep)])
def test_whatever_is_done_to_a_whole_table_is_refused(raw: pd.DataFrame, most: int) -> None:
    for kind, tables in spoil(raw).items():
        for table in islice(tables, most):
            assert codes(table, is_hard=True), kind


def test_the_rule_that_most_rows_break_is_named_first_with_its_count_and_first_row(raw: pd.DataFrame) -> None:
    changed = raw.assign(radius_se=raw["radius_se"].where(raw.index % 2 == 0, raw["radius_se"] * 0.3))
    changed = scale("area_mean", 0.5, 3)(changed)
    with pytest.raises(TableError) as error:
        rules.require(changed, lambda row: f"Line {row + 1}, id {changed['id'].iloc[row]}")
    first, *rest = str(error.value).splitlines()
    assert first.startswith("Line 2, id 10016: ")
    assert "(R12: " in first
    assert "rows break R12, this is the first)" in first
    assert Counter("R6: " in line for line in rest)[True] == 1
    assert len(error.value.rows) == rules.MOST_ROWS


def test_advice_about_whole_tables_is_for_tables_of_full_size(raw: pd.DataFrame) -> None:
    half = raw[raw["diagnosis"] == "M"]
    assert not any(code.startswith("F") for code in codes(half, is_hard=False))


def test_an_expression_names_its_subject_and_columns_only() -> None:
    for rule in rules.ROWS:
        names = set(rule.program.co_names)
        assert rule.subject in names
        assert names <= {*MEASUREMENTS, "pi", "abs"}


def test_the_documentation_of_the_rules_is_the_table() -> None:
    template = jinja2.Template((CHECKOUT / "docs/rules.md.j2").read_text(), trim_blocks=True)
    assert (CHECKOUT / "docs/rules.md").read_text() == template.render(rules=rules), "run: make docs"


def test_the_area_under_the_curve_is_scikit_learns(raw: pd.DataFrame) -> None:
    for table in (raw, flipped(raw, 84), raw.assign(perimeter_worst=raw["perimeter_worst"].round(-1))):
        expected = roc_auc_score(table["diagnosis"] == "M", table["perimeter_worst"])
        assert rules._measure_auc_of_outlines(table) == pytest.approx(expected, rel=1e-12)


def test_the_known_values_are_those_of_the_real_table(raw: pd.DataFrame) -> None:
    known = {name: (raw[name].min(), raw[name].median(), raw[name].max()) for name in MEASUREMENTS}
    assert known == rules.KNOWN


def test_concave_values_that_are_zero_alone_are_named_together(raw: pd.DataFrame) -> None:
    with pytest.raises(TableError, match=r"concavity_mean is 0\.\d+, among .*concavity_se 0.* \(R9: the six"):
        rules.require(ALONE["R9"](raw), str)
