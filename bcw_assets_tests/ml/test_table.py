"""The forms of the table: what they give, and what is said of others."""

import hashlib

import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from bcw_assets.errors import TableError
from bcw_assets.ml import columns, table
from bcw_assets_tests.tables import shuffled, uci_form


def row(identifier: object, diagnosis: str, *numbers: object) -> str:
    """Return a line of UCI's form; missing numbers are 1.5."""
    return ",".join(map(str, [identifier, diagnosis, *numbers, *["1.5"] * (30 - len(numbers))])) + "\n"


TWO_ROWS = (row(2, "M", 17.99) + row(10, "B", 1001)).encode()


def test_rows_come_sorted_by_id_as_text_with_their_numbers() -> None:
    found = table.read(TWO_ROWS, "two rows")
    assert list(found.columns) == list(columns.RAW)
    assert found["id"].tolist() == ["10", "2"]
    assert found["diagnosis"].tolist() == ["B", "M"]
    assert found["radius_mean"].tolist() == [1001.0, 17.99]
    assert found["area_worst"].tolist() == [1.5, 1.5]


def test_scikit_learns_columns_and_target_are_ours_under_other_names(raw: pd.DataFrame) -> None:
    copy = load_breast_cancer(as_frame=True)
    found = table.read(copy.frame.to_csv(index=False).encode(), "embedded")
    pd.testing.assert_frame_equal(found.drop(columns="id"), raw.drop(columns="id"))
    assert (found["concave_points_worst"] == copy.data["worst concave points"]).all()
    assert (found["area_se"] == copy.data["area error"]).all()
    assert table.malignant(found).sum() == 212


def test_without_its_header_the_written_table_is_ucis_file_byte_for_byte(raw: pd.DataFrame) -> None:
    header, _, rest = table.write(raw).partition(b"\n")
    assert header.decode() == ",".join(columns.RAW)
    assert rest == uci_form()


def test_what_is_written_is_read_unchanged(raw: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(table.read(table.write(raw), "raw_data.csv"), raw)


def test_an_id_with_a_comma_survives_writing() -> None:
    found = table.read(TWO_ROWS.replace(b"10,", b'"a,1",'), "quoted")
    assert table.read(table.write(found), "again")["id"].tolist() == ["2", "a,1"]


def test_a_row_fingerprint_is_the_hash_of_the_line_after_the_id(raw: pd.DataFrame) -> None:
    first = uci_form().partition(b"\n")[0].partition(b",")[2]
    assert table.row_fingerprints(raw)[0] == hashlib.sha256(first).hexdigest()


def test_the_fingerprint_knows_rows_and_not_ids_or_order(raw: pd.DataFrame) -> None:
    same = table.read(shuffled(uci_form()), "shuffled")
    assert table.fingerprint(same) == table.fingerprint(raw)
    assert table.fingerprint(raw.assign(id=raw["id"] + "0")) == table.fingerprint(raw)
    assert table.fingerprint(raw.iloc[1:]) != table.fingerprint(raw)
    assert table.fingerprint(raw.assign(area_se=raw["area_se"].shift(fill_value=1))) != table.fingerprint(raw)


def test_minus_zero_is_zero() -> None:
    zeros = [table.read(TWO_ROWS.replace(b"17.99", text), "zeros") for text in (b"0", b"-0.0", b"0e5")]
    assert len({table.fingerprint(one) for one in zeros}) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + TWO_ROWS,
        TWO_ROWS.replace(b"\n", b"\r\n"),
        TWO_ROWS + b"\n\n",
        TWO_ROWS.replace(b",", b" , "),
        TWO_ROWS.replace(b"17.99", b'"17.99"'),
        TWO_ROWS.rstrip(),
    ],
    ids=["byte order mark", "CRLF", "blank last lines", "spaces", "quotes", "no last line end"],
)
def test_spelling_makes_no_difference(content: bytes) -> None:
    pd.testing.assert_frame_equal(table.read(content, "spelling"), table.read(TWO_ROWS, "two rows"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "It is empty; allowed is a CSV file with one row a patient"),
        (b" \n \n", "It is empty"),
        (b"<!DOCTYPE html>\n<html></html>", "Line 1 begins '<!DOCTYPE html>'; allowed is UCI's file (32 fields"),
        (b'{"data": []}', "Line 1 begins"),
        (uci_form().decode().encode("utf-16"), "Byte 1 is not UTF-8"),
        (b"\x1f\x8b\x08\x00", "Byte 2 is not UTF-8"),
        (TWO_ROWS + b"\0\0", "Line 3 holds a NUL byte"),
        (TWO_ROWS + b'3,"M', "Line 3 is not CSV: unexpected end of data"),
        (TWO_ROWS + b"3,M,1.5\n", "Line 3 has 3 fields; UCI's wdbc.data has 32"),
        (TWO_ROWS.replace(b"17.99", b"1_7.99"), "Line 1, id 2: radius_mean is '1_7.99'; allowed is a finite decimal"),
        (TWO_ROWS.replace(b"17.99", b"?"), "Line 1, id 2: radius_mean is '?'"),
        (TWO_ROWS.replace(b"17.99", b"nan"), "Line 1, id 2: radius_mean is 'nan'"),
        (TWO_ROWS.replace(b"17.99", b"1e999"), "Line 1, id 2: radius_mean is '1e999'"),
        (TWO_ROWS.replace(b"17.99", "١٧".encode()), "Line 1, id 2: radius_mean is '١٧'"),
        (TWO_ROWS.replace(b"17.99", b""), "Line 1, id 2: radius_mean is ''"),
        (TWO_ROWS.replace(b"M", b"m"), "Line 1, id 2: diagnosis is 'm'; allowed is M or B"),
        (
            TWO_ROWS.replace(b"2,M", b",M"),
            "Line 1: id is ''; allowed is a printable text on one line that no other row has",
        ),
        (TWO_ROWS.replace(b"2,M", b'"a\nb",M'), "id is 'a\\nb'; allowed is a printable text on one line"),
        (TWO_ROWS.replace(b"10,B", b"2,B"), "Line 2: id is '2'; allowed is each id once (line 1 has it already)"),
        (TWO_ROWS.replace(b"B", b"M"), "Its 2 rows have M as diagnosis; allowed is a table with malignant and"),
        (",".join(columns.RAW).encode(), "Its 0 rows have nothing as diagnosis"),
        (",".join(columns.RAW[:-1]).encode(), "Line 1 begins 'id,diagnosis,"),
    ],
)
def test_what_is_not_the_table_is_refused_by_line_column_and_value(content: bytes, says: str) -> None:
    with pytest.raises(TableError) as error:
        table.read(content, "some.csv")
    assert str(error.value).startswith("some.csv is not a table that can be used. ")
    assert says in str(error.value)
