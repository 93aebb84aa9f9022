"""What holds of every table and of every string of bytes, tried on those that hypothesis thinks of.

`make fuzz` tries for longer.
"""

import contextlib
import io
import os
import string

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bcw_assets.errors import TableError
from bcw_assets.ml.table import admission, canonical, columns, reading, rules
from bcw_assets_tests.tables import uci_form

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "15"))
try_examples = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
IDS = st.lists(
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=8),
    min_size=60,
    unique=True,
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@try_examples
@given(ids=IDS, rows=st.permutations(range(569)))
def test_an_accepted_table_survives_write_and_read_unchanged(
    raw: pd.DataFrame, ids: list[str], rows: list[int]
) -> None:
    table = raw.iloc[rows[: len(ids)]].assign(id=ids)
    accepted = admission.read_table(canonical.write_table(table), "first")
    pd.testing.assert_frame_equal(admission.read_table(canonical.write_table(accepted), "again"), accepted)
    assert accepted["id"].tolist() == sorted(ids)


@try_examples
@given(number=FLOATS)
def test_any_finite_number_survives_write_and_read_unchanged(raw: pd.DataFrame, number: float) -> None:
    table = raw.head(30).assign(area_se=number + 0.0)
    _, parts = reading.read_rows(io.BytesIO(canonical.write_table(table)))
    assert [value for rows in parts for value in rows.measurements[13].tolist()] == [number + 0.0] * 30


@try_examples
@given(
    row=st.integers(0, 568), name=st.sampled_from(columns.MEASUREMENTS), factor=st.floats(1.001, 1e6), up=st.booleans()
)
def test_any_cell_beyond_half_and_twice_of_what_is_known_is_refused_or_flagged_by_its_id(
    raw: pd.DataFrame, row: int, name: str, factor: float, up: bool
) -> None:
    smallest, largest = raw[name].min(), raw[name].max()
    number = largest * 2 * factor if up else smallest / 2 / factor - (smallest == 0)
    changed = raw.assign(**{name: raw[name].where(raw.index != row, number)})
    problems = rules.check_invariants(changed).problems + rules.check_plausibility(changed).problems
    assert any(f"id {raw['id'].iloc[row]}: " in problem for problem in problems)


def read_or_refuse(content: bytes) -> None:
    with contextlib.suppress(TableError):
        admission.read_table(content, "fuzz")


TEXTS = st.text(st.sampled_from(string.printable + "é٣\u2028\ufeff"), max_size=2000)


@try_examples
@given(content=st.one_of(st.binary(max_size=2000), TEXTS.map(str.encode)))
def test_the_reader_raises_nothing_but_its_own_error_on_any_bytes(content: bytes) -> None:
    read_or_refuse(content)


@try_examples
@given(seed=st.integers(0, 2**32 - 1), changes=st.integers(1, 20))
def test_the_reader_raises_nothing_but_its_own_error_on_a_damaged_table(seed: int, changes: int) -> None:
    random = np.random.default_rng(seed)
    content = bytearray(uci_form()[:20_000])
    for position in random.integers(0, len(content), changes):
        content[position] = random.integers(0, 256)
    start, end = sorted(random.integers(0, len(content), 2).tolist())
    read_or_refuse(bytes(content[start:end] + content[:end]))
