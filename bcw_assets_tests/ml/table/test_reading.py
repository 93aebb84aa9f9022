"""Rows one by one: the forms of the table, what spoils a row, and that the fast way gives what the exact one does."""

import gzip
import io
import re
from collections.abc import Iterable
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bcw_assets.errors import TableError
from bcw_assets.ml.table import canonical, columns, reading
from bcw_assets.ml.table.reading import Rows
from bcw_assets_tests.ml.table.test_canonical import (
    FORMS,
    REFUSED,
    TWO_ROWS,
    WITHOUT_DIAGNOSES,
    csv_of,
    row,
    scikit_learn,
)
from bcw_assets_tests.ml.table.test_properties import try_examples
from bcw_assets_tests.tables import uci_form


class Pipe(io.BytesIO):
    """What cannot be sought in."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation


def join(chunks: Iterable[Rows]) -> Rows:
    """Return the rows of all chunks together."""
    rows = list(chunks)
    starts = np.cumsum([0, *map(len, rows)])
    return Rows(
        [name for chunk in rows for name in chunk.ids],
        np.concatenate([np.zeros(0, "<U1"), *(chunk.diagnoses for chunk in rows)]),
        np.hstack([np.zeros((30, 0)), *(chunk.measurements for chunk in rows)]),
        any(chunk.has_diagnoses for chunk in rows),
        {
            row + start: texts
            for chunk, start in zip(rows, starts, strict=False)
            for row, texts in chunk.problems.items()
        },
        {
            row + start: texts
            for chunk, start in zip(rows, starts, strict=False)
            for row, texts in chunk.warnings.items()
        },
    )


def read(content: bytes, kind: type[io.BytesIO] = io.BytesIO) -> Rows:
    return join(reading.read_chunks(kind(content)))


def read_exactly(content: bytes) -> Rows:
    """Read without pyarrow."""
    with mock.patch.object(reading, "SMALL", 1 << 30):
        return read(content)


def read_fast(content: bytes) -> Rows:
    """Read everything by pyarrow that it can read."""
    with mock.patch.object(reading, "SMALL", -1):
        return read(content)


def assert_same(rows: Rows, expected: Rows) -> None:
    assert rows.ids == expected.ids
    assert rows.diagnoses.tolist() == expected.diagnoses.tolist()
    assert rows.measurements.tobytes() == expected.measurements.tobytes()
    assert (rows.problems, rows.warnings) == (expected.problems, expected.warnings)


def numbers_of(rows: Rows) -> list[tuple[str, ...]]:
    return sorted(zip(rows.ids, rows.diagnoses.tolist(), *rows.measurements.tolist(), strict=True))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_rows_of_the_table(raw: pd.DataFrame, name: str) -> None:
    for kind in (io.BytesIO, Pipe):
        rows = read(FORMS[name](raw), kind)
        assert numbers_of(rows) == [tuple(row) for row in raw.to_numpy().tolist()]
        assert (rows.problems, rows.warnings) == ({}, {})


def test_scikit_learns_target_is_the_diagnosis(raw: pd.DataFrame) -> None:
    rows = read(scikit_learn(raw))
    assert rows.diagnoses.tolist() == raw["diagnosis"].tolist()
    assert (rows.ids[0], rows.ids[-1]) == ("row-0001", "row-0569")


@pytest.mark.parametrize("name", WITHOUT_DIAGNOSES)
def test_a_table_without_diagnoses_gives_rows_without(raw: pd.DataFrame, name: str) -> None:
    rows = read(WITHOUT_DIAGNOSES[name](raw))
    assert (raw.iloc[:, 2:].to_numpy() == rows.measurements.T).all()
    assert (rows.has_diagnoses, set(rows.diagnoses.tolist())) == (False, {""})


def test_a_column_of_probabilities_is_not_read(raw: pd.DataFrame) -> None:
    with_it = csv_of(raw.assign(probability_malignant="yes"))
    assert numbers_of(read(with_it)) == numbers_of(read(uci_form()))
    pd.testing.assert_frame_equal(canonical.read_table(with_it, "example.csv"), raw)


def test_a_header_alone_has_no_rows() -> None:
    assert list(reading.read_chunks(io.BytesIO(",".join(columns.RAW).encode()))) == []


OF_A_ROW = (
    *("a NUL byte", "an open quote", "a short row", "a long row", "an underscore", "a decimal comma", "too large"),
    *("other digits", "Latin-1"),
)
OF_THE_WHOLE = (
    *("empty", "an empty gzip", "HTML", "JSON", "zip", "a damaged gzip", "UTF-16", "semicolons", "another table"),
    *("a missing column", "two diagnoses", "an unknown column", "a repeated column", "no last column", "no ids"),
    *("scikit-learn's numbers and target", "Original", "Original, with a header", "Prognostic"),
    *("Prognostic, with a header", "a column too many of another study"),
)


def test_what_is_not_the_table_is_refused_in_the_same_words() -> None:
    for name in OF_THE_WHOLE:
        content, says = REFUSED[name]
        with pytest.raises(TableError, match=re.escape(says)):
            read(content)


def test_what_refuses_a_whole_table_spoils_its_own_row_here_in_the_same_words() -> None:
    for name in OF_A_ROW:
        content, says = REFUSED[name]
        for rows in (read(content + b"\n" + TWO_ROWS), read_fast(content + b"\n" + TWO_ROWS)):
            ((row, problems),) = rows.problems.items()
            assert re.sub(", id [^:]*", "", says) in problems[0]
            rest = np.delete(rows.measurements, row, axis=1)
            assert np.isnan(rows.measurements[:, row]).all(), name
            assert np.isfinite(rest).all(), name
            assert rest.shape[1] >= 3, name


def test_an_id_that_is_none_spoils_its_row() -> None:
    rows = read(TWO_ROWS.replace(b"2,M", b",M", 1))
    assert rows.problems == {
        0: ["Line 1: id is ''; allowed is a printable text on one line, of at most 100 characters"]
    }


def test_a_label_that_is_none_is_a_warning_and_an_empty_one_is_not() -> None:
    rows = read(TWO_ROWS.replace(b"M", b"m").replace(b"B", b""))
    assert (rows.problems, rows.diagnoses.tolist()) == ({}, ["", ""])
    assert rows.warnings == {0: ["diagnosis is 'm'; allowed is M or B"]}


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_a_stray_quote_spoils_one_line_whatever_ends_it(end: bytes) -> None:
    rows = read((TWO_ROWS + b'"' + TWO_ROWS.replace(b"2,M", b"3,M")).replace(b"\n", end))
    assert list(rows.problems) == [2]
    assert rows.ids == ["2", "10", "", "10"]


def test_a_line_too_long_is_refused_by_its_number() -> None:
    with pytest.raises(TableError, match="Line 3 is longer than 1,048,576 bytes"):
        read(TWO_ROWS + b"9" * 3_000_000 + b"\n" + TWO_ROWS)


def test_an_unpacked_stream_that_breaks_off_gives_its_rows_first() -> None:
    content = gzip.compress(uci_form() * 20)
    stream = reading.read_chunks(io.BytesIO(content[:-20_000]))
    assert len(next(stream)) > 100
    with pytest.raises(TableError, match="damaged gzip"):
        list(stream)


SPOILT = (b"abc", b"", b"nan", b"inf", b"1_0", b"0x1", b"1e400", b'"1', b'1"', b"1,5", b"\0", b"\xe9", b"+-1", b" ")


def test_bad_rows_among_many_are_the_same_by_both_ways() -> None:
    lines = (uci_form() * 3).splitlines(keepends=True)
    for number, text in enumerate(SPOILT):
        place = 400 + 50 * number
        fields = lines[place].split(b",")
        lines[place] = b",".join([*fields[:4], text, *fields[5:]])
    content = b"".join(lines)
    rows = read(content)
    assert sorted(rows.problems) == [400 + 50 * number for number in range(len(SPOILT))]
    assert_same(rows, read_exactly(content))
    assert [problems[0].partition(" ")[0] for problems in rows.problems.values()].count("Line") == len(SPOILT) - 1


FIELDS = st.one_of(
    st.floats(allow_nan=False).map(repr).map(str.encode),
    st.sampled_from(
        [
            *(*SPOILT, b"-0.0", b"+1.5", b" 1.5", b"1.5\t", b"\xc2\xa01.5", b"1.", b".5"),
            *(b"1E+5", b"1e-400", b"5e-324"),
            *(b'"1.5"', b'" 1.5 "', b'"1""5"', b'"1,5"', b"\xef\xbb\xbf1", b"NULL", b"NaN", b"1\x0b", b"\x1f1", b"++1"),
        ]
    ),
    st.binary(max_size=4),
)
IDS = st.one_of(
    st.sampled_from([b"1", b"", b" x ", b'"a,b"', b'"q"', b"\xef\xbb\xbf7", b"y" * 101]), st.binary(max_size=5)
)


@try_examples
@given(
    changes=st.lists(st.tuples(st.integers(0, 19), st.integers(0, 33), FIELDS), max_size=6),
    ids=st.lists(IDS, min_size=20, max_size=20),
    labels=st.lists(st.sampled_from([b"M", b"B", b" M", b"", b"m", b'"B"', b"\xe9"]), min_size=20, max_size=20),
    keeps_ids=st.booleans(),
    end=st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b",\n"]),
)
def test_the_fast_way_gives_exactly_the_rows_of_the_exact_one(
    changes: list[tuple[int, int, bytes]], ids: list[bytes], labels: list[bytes], keeps_ids: bool, end: bytes
) -> None:
    lines = [line.split(b",") for line in uci_form().splitlines()[:20]]
    for line, identifier, label in zip(lines, ids, labels, strict=True):
        if not keeps_ids:
            line[:2] = [identifier, label]
    for number, place, content in changes:
        lines[number][place : place + 1] = [content]
    header = ",".join(columns.RAW).encode()
    whole = end.join([header, *map(b",".join, lines)])
    assert_same(read_fast(whole), read_exactly(whole))


def parquet(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    pa_parquet.write_table(pa.Table.from_pandas(frame, preserve_index=False), file)
    return file.getvalue()


def test_parquet_with_any_names_and_types_gives_the_rows_of_the_table(raw: pd.DataFrame) -> None:
    for frame in (
        raw,
        raw.rename(columns=str.upper),
        raw.astype({"id": "int64"}),
        raw.astype({"diagnosis": "category"}),
        raw.assign(target=(raw["diagnosis"] == "B").astype(int)).drop(columns="diagnosis"),
    ):
        assert numbers_of(read(parquet(frame))) == [tuple(row) for row in raw.to_numpy().tolist()]


def test_what_is_missing_in_parquet_spoils_its_row(raw: pd.DataFrame) -> None:
    table = raw.head(4).copy()
    table.loc[1, "area_se"] = np.nan
    table.loc[2, "id"] = None
    rows = read(parquet(table))
    assert rows.problems == {
        1: ["Row 2: area_se is 'nan'; allowed is a finite decimal number with a point, like 17.99"],
        2: ["Row 3: id is ''; allowed is a printable text on one line, of at most 100 characters"],
    }
    assert np.isnan(rows.measurements[:, [1, 2]]).all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PAR1rest", "It is a damaged Parquet file"),
        (parquet(pd.DataFrame({"a": [1.0], "b": ["x"]})), "it begins 'a,b'; allowed is UCI's file"),
        (parquet(pd.DataFrame([["x"] * 32], columns=list(columns.RAW))), "'radius_mean' is of the type"),
    ],
)
def test_parquet_that_is_not_the_table_is_refused(content: bytes, says: str) -> None:
    with pytest.raises(TableError, match=says):
        read(content)


def test_a_parquet_file_cut_in_the_middle_is_refused(raw: pd.DataFrame) -> None:
    content = bytearray(parquet(raw))
    content[200:9000] = bytes(8800)
    with pytest.raises(TableError, match="damaged Parquet"):
        read(bytes(content))


def test_names_of_rows_go_on_from_block_to_block(raw: pd.DataFrame) -> None:
    content = csv_of(raw.iloc[:, 2:], header=False) * 3
    assert read(content).ids == [f"row-{number:04}" for number in range(1, 1708)]


def test_a_spoilt_row_without_ids_keeps_its_name() -> None:
    without = b"".join(line.split(b",", 2)[2] for line in TWO_ROWS.splitlines(keepends=True))
    assert read(without + b"1,2\n" + without).ids == ["row-0001", "row-0002", "row-0003", "row-0004", "row-0005"]


def test_an_empty_line_is_no_row() -> None:
    assert read(b"\n" + TWO_ROWS.replace(b"\n", b"\n , \n\n")).ids == ["2", "10"]
    assert row(1, "M").count(",") == 31
