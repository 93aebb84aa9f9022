"""Rows a part at a time: what spoils a row, and that the fast way gives what the exact one does."""

import gzip
import io
import re
import zipfile
from functools import partial
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
from bcw_assets.ml.table.forms import COMMA_NUMBER_IS, NUMBER_IS
from bcw_assets.ml.table.reading import Rows
from bcw_assets_tests.ml.table.test_forms import WITH_IDS, parquet, table
from bcw_assets_tests.ml.table.test_properties import try_examples
from bcw_assets_tests.tables import uci_form

TWO_ROWS = b"2,M,17.99," + b"1.5," * 28 + b"1.5\n10,B,1001," + b"1.5," * 28 + b"1.5\n"


class Pipe(io.BytesIO):
    """What cannot be sought in."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation


def read(content: bytes, *, from_pipe: bool = False, small: int = reading.SMALL) -> Rows:
    """Return the rows of all parts together; pyarrow reads what has more than `small` bytes."""
    stream = io.BufferedReader(Pipe(content)) if from_pipe else io.BytesIO(content)
    with mock.patch.object(reading, "SMALL", small):
        parts = list(reading.read_rows(stream)[1])
    whole = Rows([], np.zeros(0, "<U1"), np.zeros((30, 0)), lines=[])
    for rows in parts:
        whole.problems |= {row + len(whole): texts for row, texts in rows.problems.items()}
        whole.warnings |= {row + len(whole): texts for row, texts in rows.warnings.items()}
        whole.diagnoses = np.concatenate([whole.diagnoses, rows.diagnoses])
        whole.measurements = np.hstack([whole.measurements, rows.measurements])
        whole.lines, whole.ids = [*whole.lines, *rows.lines], whole.ids + rows.ids
    return whole


read_exactly, read_fast = partial(read, small=1 << 30), partial(read, small=-1)


def assert_same(rows: Rows, expected: Rows) -> None:
    assert rows.ids == expected.ids
    assert rows.diagnoses.tolist() == expected.diagnoses.tolist()
    assert rows.measurements.tobytes() == expected.measurements.tobytes()
    assert (rows.problems, rows.warnings) == (expected.problems, expected.warnings)
    assert list(rows.lines) == list(expected.lines)


FAST = ("UCI's file", "Kaggle", "semicolons, decimal commas", "tabs", "Excel's Unicode text", "with probabilities")


@pytest.mark.parametrize("name", FAST)
def test_clean_rows_are_the_same_by_both_ways_and_from_a_pipe(raw: pd.DataFrame, name: str) -> None:
    content = WITH_IDS[name](raw)
    exact = read_exactly(content)
    with mock.patch.object(reading._Reader, "gather", side_effect=AssertionError("it was not read by pyarrow")):
        fast = read_fast(content)
    assert_same(fast, exact)
    assert_same(read(content, from_pipe=True), exact)
    assert (exact.ids, exact.problems, exact.warnings) == (raw["id"].tolist(), {}, {})


def test_a_header_alone_has_no_rows() -> None:
    form, parts = reading.read_rows(io.BytesIO(",".join(columns.RAW).encode()))
    assert list(parts) == []
    assert form.labels


SPOILS: dict[str, tuple[bytes, str]] = {
    "a NUL byte": (b"3,M\0", "Line 3: it holds a NUL byte"),
    "an open quote": (b'3,"M', "Line 3: it is not CSV: unexpected end of data; one line is one row"),
    "a short row": (b"3,M,1.5", "Line 3: it has 3 fields; allowed are 32"),
    "a long row": (
        TWO_ROWS.partition(b"\n")[0] + b",1.5",
        "Line 3: it has '1.5' after its 32 fields; allowed is nothing there",
    ),
    "an underscore": (
        b"3,M,1_5.7" + b",1.5" * 29,
        "Line 3, id 3: radius_mean is '1_5.7'; allowed is a finite decimal number",
    ),
    "a decimal comma": (b'3,M,"17,9"' + b",1.5" * 29, "Line 3, id 3: radius_mean is '17,9'"),
    "too large": (b"3,M,1e999" + b",1.5" * 29, "Line 3, id 3: radius_mean is '1e999'"),
    "other digits": (b"3,M," + "١٧".encode() + b",1.5" * 29, "Line 3, id 3: radius_mean is '١٧'"),
    "Latin-1": (b"3,\xe9", "Line 3: it holds the byte 0xe9, which is not UTF-8; save it as CSV in UTF-8"),
    "no id": (b",M" + b",1.5" * 30, "Line 3: id is ''; allowed is a printable text on one line, of at most 100"),
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_cannot_be_read_spoils_its_own_row(name: str) -> None:
    line, says = SPOILS[name]
    for rows in (read(TWO_ROWS + line + b"\n" + TWO_ROWS), read_fast(TWO_ROWS + line + b"\n" + TWO_ROWS)):
        assert list(rows.problems) == [2]
        assert rows.problems[2][0].startswith(says)
        assert np.isnan(rows.measurements[:, 2]).all()
        assert np.isfinite(np.delete(rows.measurements, 2, axis=1)).all()
        assert rows.ids[:2] + rows.ids[3:] == ["2", "10", "2", "10"]


def test_with_decimal_commas_a_point_further_on_spoils_its_row(raw: pd.DataFrame) -> None:
    head, _, tail = WITH_IDS["semicolons, decimal commas"](raw).rpartition(b",")
    ((row, (problem,)),) = read(head + b"." + tail).problems.items()
    assert row == 568
    assert problem.endswith(f"is '0.07039'; allowed is {COMMA_NUMBER_IS}")


def test_a_label_that_is_none_is_a_warning_and_an_empty_one_is_not() -> None:
    rows = read(TWO_ROWS + TWO_ROWS.replace(b"M", b"X").replace(b"B", b""))
    assert (rows.problems, rows.diagnoses.tolist()) == ({}, ["M", "B", "", ""])
    assert rows.warnings == {2: ["Line 3, id 2: diagnosis is 'X'; allowed is M or B"]}


def test_two_labels_that_differ_are_a_warning_and_none_is_believed(raw: pd.DataFrame) -> None:
    labels = raw["diagnosis"].where(raw.index != 400, "B")
    for read_it in (read_fast, read_exactly):
        rows = read_it(table(assign={"target": labels.tolist()})(raw))
        assert rows.warnings == {
            400: ["Line 402, id 7806: diagnosis says M and target says B; allowed is the same in both"]
        }
        assert np.flatnonzero(rows.diagnoses == "").tolist() == [400]


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_a_stray_quote_spoils_one_line_whatever_ends_it(end: bytes) -> None:
    rows = read((TWO_ROWS + b'"' + TWO_ROWS.replace(b"2,M", b"3,M")).replace(b"\n", end))
    assert list(rows.problems) == [2]
    assert rows.ids == ["2", "10", "", "10"]


def test_a_line_without_an_end_is_refused_by_its_number() -> None:
    with pytest.raises(TableError, match="Line 3 is longer than 1,048,576 bytes"):
        read(TWO_ROWS + b"9" * 3_000_000)


def test_an_unpacked_stream_that_breaks_off_gives_its_rows_first() -> None:
    content = gzip.compress(uci_form() * 20)
    _, parts = reading.read_rows(io.BytesIO(content[:-20_000]))
    assert len(next(parts)) > 100
    with pytest.raises(TableError, match="Its first bytes say what it is"):
        list(parts)


SPOILT = (b"abc", b"", b"nan", b"inf", b"1_0", b"0x1", b"1e400", b'"1', b'1"', b"1,5", b"\0", b"\xe9", b"+-1", b" ")


def test_bad_rows_among_many_are_the_same_by_both_ways() -> None:
    lines = (uci_form() * 3).splitlines(keepends=True)
    for number, text in enumerate(SPOILT):
        fields = lines[400 + 50 * number].split(b",")
        lines[400 + 50 * number] = b",".join([*fields[:4], text, *fields[5:]])
    rows = read(b"".join(lines))
    assert list(rows.problems) == [400 + 50 * number for number in range(len(SPOILT))]
    assert_same(rows, read_exactly(b"".join(lines)))


UNUSUAL = (
    *(b"-0.0", b"+1.5", b" 1.5", b"1.5\t", b"\xc2\xa01.5", b"1.", b".5", b"1E+5", b"1e-400", b"5e-324", b'"1.5"'),
    *(b'" 1.5 "', b'"1""5"', b'"1,5"', b"\xef\xbb\xbf1", b"NULL", b"NaN", b"1\x0b", b"\x1f1", b"++1"),
)
FIELDS = st.one_of(
    st.floats(allow_nan=False).map(repr).map(str.encode),
    st.sampled_from(SPOILT + UNUSUAL),
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


def test_what_is_missing_in_parquet_spoils_its_row(raw: pd.DataFrame) -> None:
    gaps = {"area_se": raw["area_se"].where(raw.index != 1), "id": raw["id"].where(raw.index != 2)}
    rows = read(parquet(raw.assign(**gaps).head(4)))
    assert rows.problems == {
        1: ["Row 2, id 10016: area_se is ''; allowed is a finite decimal number with a point, like 17.99"],
        2: ["Row 3: id is ''; allowed is a printable text on one line, of at most 100 characters"],
    }
    assert np.isnan(rows.measurements[:, [1, 2]]).all()


def test_a_text_that_is_no_number_spoils_its_row_of_parquet(raw: pd.DataFrame) -> None:
    texts = raw["area_se"].map(repr).where(raw.index != 300, "?")
    rows = read(parquet(raw.assign(area_se=texts)))
    assert rows.problems == {300: [f"Row 301, id {raw['id'][300]}: area_se is '?'; allowed is {NUMBER_IS}"]}
    assert_same(read(parquet(raw.drop(index=300))), read(parquet(raw.assign(area_se=texts).drop(index=300))))


def test_an_index_of_pandas_that_only_counts_is_the_id_if_it_is_called_so(raw: pd.DataFrame) -> None:
    index = pd.RangeIndex(5000, 5000 + 2 * len(raw), 2, name="id")
    rows = read(parquet(raw.drop(columns="id").set_index(index), index=None))
    assert rows.ids == [str(number) for number in index]


@pytest.mark.parametrize("count", [1, 20])
def test_under_a_header_that_is_too_short_no_column_moves(raw: pd.DataFrame, count: int) -> None:
    measurements = raw[list(columns.MEASUREMENTS)].head(count)
    header, *lines = measurements.to_csv(index=False).encode().splitlines()
    named = read(b"\n".join([header, *(b"%d,%s" % line for line in enumerate(lines, 1))]))  # as R names rows
    assert (named.problems, named.measurements.T.tolist()) == ({}, measurements.to_numpy().tolist())
    longer = read(b"\n".join([header, *(line + b",7" for line in lines)]))
    says = "it has '7' after its 30 fields; allowed is nothing there"
    assert longer.problems == {row: [f"Line {row + 2}: {says}"] for row in range(count)}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("header", [True, False])
def test_patients_may_be_called_1_and_2(raw: pd.DataFrame, count: int, header: bool) -> None:
    few = raw.head(count).drop(columns="diagnosis").assign(id=range(1, count + 1))
    assert read(few.to_csv(index=False, header=header).encode()).ids == ["1", "2"][:count]


TIMES = {"date of no end": (2**31 - 1, pa.date32()), "where nobody is": (0, pa.timestamp("ms", "Mars/Olympus"))}
"""Of a column of PostgreSQL or DuckDB: what Python cannot hold."""


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("row", [0, 1400])
def test_a_time_that_python_cannot_hold_spoils_no_row_of_parquet(raw: pd.DataFrame, name: str, row: int) -> None:
    long = pd.concat([raw] * 3, ignore_index=True).head(1500)
    long.loc[1499, "area_se"] = None
    times = pa.array([None] * row + [TIMES[name][0]] + [None] * (1499 - row), TIMES[name][1])
    pa_parquet.write_table(pa.Table.from_pandas(long).append_column(name, times), file := io.BytesIO())
    rows = read(file.getvalue())
    assert [*rows.problems] == [1499]
    assert_same(rows, read(parquet(long)))


def test_a_text_of_another_encoding_spoils_its_row_of_parquet(raw: pd.DataFrame) -> None:
    for name, says in (("id", ""), ("diagnosis", r"diagnosis is 'M\\xfc'")):
        texts = pa.array([*raw[name].head(568).str.encode("utf-8"), b"M\xfc"], pa.binary())
        odd = pa.StringArray.from_buffers(len(texts), texts.buffers()[1], texts.buffers()[2])  # looks into no text
        whole = pa.Table.from_pandas(raw)
        place = whole.schema.get_field_index(name)
        pa_parquet.write_table(whole.set_column(place, name, odd), file := io.BytesIO())
        rows = read(file.getvalue())
        assert rows.ids[:568] == raw["id"].head(568).tolist()
        assert rows.diagnoses[:568].tolist() == raw["diagnosis"].head(568).tolist()
        assert (rows.ids[568] == r"M\xfc") == (name == "id")
        assert says in "".join(rows.warnings.get(568, [""]))


def test_whole_ids_of_parquet_have_no_exponent_and_a_missing_one_is_none(raw: pd.DataFrame) -> None:
    rows = read(parquet(raw.head(3).assign(id=[8.5e16, 7.0, float("nan")])))
    assert rows.ids == ["85000000000000000", "7", ""]
    assert "id is ''" in rows.problems[2][0]


def test_a_parquet_file_cut_in_the_middle_is_refused(raw: pd.DataFrame) -> None:
    content = bytearray(parquet(raw))
    content[200:9000] = bytes(8800)
    with pytest.raises(TableError, match="Its first bytes say what it is"):
        read(bytes(content))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_zip_is_refused_however_it_is_packed(method: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("table.csv", uci_form())
    content = stream.getvalue()
    with pytest.raises(TableError, match="Its first bytes say what it is"):
        read(content[:60] + bytes(5000) + content[5060:])


def test_names_of_rows_go_on_from_block_to_block_and_over_a_spoilt_row(raw: pd.DataFrame) -> None:
    content = raw.iloc[:, 2:].to_csv(index=False, header=False).encode()
    assert read(content + b"1,2\n" + content * 2).ids == [f"row-{number:04}" for number in range(1, 1709)]


def test_an_empty_line_is_no_row_and_the_next_keeps_its_number() -> None:
    rows = read(b"\n" + TWO_ROWS.replace(b"\n", b"\n , \n\n"))
    assert (rows.ids, list(rows.lines)) == (["2", "10"], [2, 5])


def test_one_row_of_any_form_is_enough(raw: pd.DataFrame) -> None:
    for make in (canonical.write_table, table(header=False), table(["diagnosis"]), parquet):
        assert read(make(raw.head(1))).ids == raw["id"].head(1).tolist()
    assert re.match(r"row-0001", read(table(["id"])(raw.head(1))).ids[0])
