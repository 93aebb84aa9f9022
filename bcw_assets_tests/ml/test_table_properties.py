"""What holds of every table and of every string of bytes, tried on those that hypothesis thinks of.

`make fuzz` tries for longer.
"""

import contextlib
import os
import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bcw_assets.errors import TableError
from bcw_assets.ml import columns, rules, table
from bcw_assets_tests.tables import uci_form

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
tried = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
IDS = st.lists(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=8),
    min_size=60,
    unique=True,
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@tried
@given(ids=IDS, rows=st.permutations(range(569)), labels=st.booleans())
def test_an_accepted_table_survives_write_and_read_unchanged(
    raw: pd.DataFrame, ids: list[str], rows: list[int], labels: bool
) -> None:
    some = raw.iloc[rows[: len(ids)]].assign(id=ids).sort_values("id", key=lambda one: one.map(list))
    try:
        accepted = table.read(table.write(some.reset_index(drop=True)), "first")
    except TableError:
        return  # too few of a diagnosis, or a spelling that has another meaning
    pd.testing.assert_frame_equal(table.read(table.write(accepted), "again"), accepted)
    assert accepted["id"].tolist() == sorted(accepted["id"])


@tried
@given(number=FLOATS)
def test_any_finite_number_survives_write_and_read_unchanged(raw: pd.DataFrame, number: float) -> None:
    some = raw.head(30).assign(area_se=number + 0.0)
    assert table.parse(table.write(some)).table["area_se"].tolist() == [number + 0.0] * 30


@tried
@given(row=st.integers(0, 568), rule=st.sampled_from(rules.ROWS), number=FLOATS)
def test_any_change_of_a_cell_beyond_the_bounds_of_a_rule_is_refused_or_flagged(
    raw: pd.DataFrame, row: int, rule: rules.Rule, number: float
) -> None:
    changed = raw.assign(**{rule.subject: raw[rule.subject].where(raw.index != row, number)})
    values = {name: changed[name].to_numpy()[row : row + 1] for name in columns.MEASUREMENTS}
    if rule.is_broken(values)[0]:
        assert rules.invariants(changed).problems or rules.plausibility(changed).problems


def only_its_own_error(content: bytes) -> None:
    with contextlib.suppress(TableError):
        table.read(content, "fuzz")


@tried
@given(content=st.binary(max_size=2000))
def test_the_reader_raises_nothing_but_its_own_error_on_any_bytes(content: bytes) -> None:
    only_its_own_error(content)


@tried
@given(content=st.text(st.sampled_from(string.printable + "é٣\u2028\ufeff"), max_size=2000))
def test_the_reader_raises_nothing_but_its_own_error_on_any_text(content: str) -> None:
    only_its_own_error(content.encode())


@tried
@given(seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 20))
def test_the_reader_raises_nothing_but_its_own_error_on_a_damaged_table(seed: int, changes: int) -> None:
    random = np.random.default_rng(seed)
    content = bytearray(uci_form()[:20_000])
    for position in random.integers(0, len(content), changes):
        content[position] = random.integers(0, 256)
    start, end = sorted(random.integers(0, len(content), 2).tolist())
    only_its_own_error(bytes(content[start:end] + content[:end]))


@pytest.mark.parametrize("name", columns.MEASUREMENTS)
def test_any_column_of_minus_one_is_refused(raw: pd.DataFrame, name: str) -> None:
    with pytest.raises(TableError, match="R2"):
        rules.require(raw.assign(**{name: -1.0}), str)
