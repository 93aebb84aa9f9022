"""The forms of the table: what they give, and what is said of others."""

import gzip
import hashlib
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer

from bcw_assets.errors import TableError
from bcw_assets.ml.table import canonical, columns
from bcw_assets_tests.tables import shuffled, uci_form


def row(identifier: object, diagnosis: str, *numbers: object) -> str:
    """Return a line of UCI's form; missing numbers are 1.5."""
    return ",".join(map(str, [identifier, diagnosis, *numbers, *["1.5"] * (30 - len(numbers))])) + "\n"


TWO_ROWS = (row(2, "M", 17.99) + row(10, "B", 1001)).encode()
NUMBERS = {"mean": 1, "se": 2, "worst": 3}


def csv_of(frame: pd.DataFrame, **options: bool) -> bytes:
    return frame.to_csv(index=False, **options).encode()  # type: ignore[call-overload, no-any-return]


def uci_api(raw: pd.DataFrame) -> bytes:
    """Return the CSV that UCI's API serves: its names, the diagnosis last."""
    names = {name: f"{name.rpartition('_')[0]}{NUMBERS[name.rpartition('_')[2]]}" for name in columns.MEASUREMENTS}
    renamed = raw.rename(columns=names | {"id": "ID", "diagnosis": "Diagnosis"})
    return csv_of(renamed[["ID", *names.values(), "Diagnosis"]])


def kaggle(raw: pd.DataFrame) -> bytes:
    """Return Kaggle's file: quotes, spaces in some names, CRLF, and a header with a comma too many."""
    names = [f'"{name.replace("concave_points", "concave points")}"' for name in columns.RAW]
    rows = canonical.write_table(raw).decode().splitlines()[1:]
    return ("\r\n".join([",".join(names) + ",", *rows]) + "\r\n").encode()


def scikit_learn(raw: pd.DataFrame) -> bytes:
    return csv_of(load_breast_cancer(as_frame=True).frame)


def in_another_order(raw: pd.DataFrame) -> bytes:
    return csv_of(raw[[*np.random.default_rng(0).permutation(raw.columns)]])


FORMS: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "UCI's file": lambda raw: uci_form(),
    "UCI's file, gzipped": lambda raw: gzip.compress(uci_form()),
    "UCI's API": uci_api,
    "Kaggle's file": kaggle,
    "ours": canonical.write_table,
    "columns in another order": in_another_order,
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + uci_form(),
    "CRLF": lambda raw: uci_form().replace(b"\n", b"\r\n"),
    "blank last lines": lambda raw: uci_form() + b"\n \n",
    "spaces round values": lambda raw: uci_form().replace(b",", b" , "),
    "quotes": lambda raw: re.sub(rb"[^,\n]+", rb'"\g<0>"', uci_form()),
    "rows in another order": lambda raw: shuffled(uci_form()),
    "a comma at the end of every row": lambda raw: uci_form().replace(b"\n", b",\n"),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_canonical_table(raw: pd.DataFrame, name: str) -> None:
    pd.testing.assert_frame_equal(canonical.read_table(FORMS[name](raw), name), raw)


def test_scikit_learns_columns_and_target_are_ours_under_other_names(raw: pd.DataFrame) -> None:
    copy = load_breast_cancer(as_frame=True)
    table = canonical.read_table(scikit_learn(raw), "embedded")
    pd.testing.assert_frame_equal(table.drop(columns="id"), raw.drop(columns="id"))
    assert (table["concave_points_worst"] == copy.data["worst concave points"]).all()
    assert (table["area_se"] == copy.data["area error"]).all()
    assert canonical.malignant(table).sum() == 212
    assert canonical.fingerprint(table) == canonical.UCI_FINGERPRINT


WITHOUT_DIAGNOSES: dict[str, Callable[[pd.DataFrame], bytes]] = {
    "scikit-learn's data": lambda raw: csv_of(load_breast_cancer(as_frame=True).data),
    "ours": lambda raw: csv_of(raw.drop(columns="diagnosis")),
    "UCI's file": lambda raw: csv_of(raw.drop(columns="diagnosis"), header=False),
    "only numbers": lambda raw: csv_of(raw.iloc[:, 2:], header=False),
}


@pytest.mark.parametrize("name", WITHOUT_DIAGNOSES)
def test_a_table_without_diagnoses_is_recognised_and_refused_for_training(raw: pd.DataFrame, name: str) -> None:
    content = WITHOUT_DIAGNOSES[name](raw)
    parsed = canonical.parse_table(content)
    assert not parsed.has_diagnoses
    pd.testing.assert_frame_equal(parsed.table.iloc[:, 2:], raw.iloc[:, 2:])
    with pytest.raises(TableError, match="It has no diagnoses, so no model can be trained on it"):
        canonical.read_table(content, name)


def test_a_row_is_named_by_its_line_in_the_file_and_its_id() -> None:
    parsed = canonical.parse_table(b"\n" + TWO_ROWS)
    assert [parsed.name(0), parsed.name(1)] == ["Line 3, id 10", "Line 2, id 2"]
    without_ids = canonical.parse_table(
        b"\n".join(line.partition(b",")[2].partition(b",")[2] for line in TWO_ROWS.splitlines())
    )
    assert [without_ids.name(0), without_ids.table["id"].iloc[0]] == ["Line 1", "row-0001"]


def test_rows_come_sorted_by_id_as_text_with_their_numbers() -> None:
    table = canonical.parse_table(TWO_ROWS).table
    assert list(table.columns) == list(columns.RAW)
    assert table["id"].tolist() == ["10", "2"]
    assert table["diagnosis"].tolist() == ["B", "M"]
    assert table["radius_mean"].tolist() == [1001.0, 17.99]
    assert table["area_worst"].tolist() == [1.5, 1.5]


def test_without_its_header_the_written_table_is_ucis_file_byte_for_byte(raw: pd.DataFrame) -> None:
    header, _, rest = canonical.write_table(raw).partition(b"\n")
    assert header.decode() == ",".join(columns.RAW)
    assert rest == uci_form()


def test_an_id_with_a_comma_survives_writing() -> None:
    table = canonical.parse_table(TWO_ROWS.replace(b"10,", b'"a,1",')).table
    assert canonical.parse_table(canonical.write_table(table)).table["id"].tolist() == ["2", "a,1"]


def test_a_row_fingerprint_is_the_hash_of_the_line_after_the_id(raw: pd.DataFrame) -> None:
    first = uci_form().partition(b"\n")[0].partition(b",")[2]
    assert canonical.row_fingerprints(raw)[0] == hashlib.sha256(first).hexdigest()


def test_the_fingerprint_knows_rows_and_not_ids(raw: pd.DataFrame) -> None:
    assert canonical.fingerprint(raw) == canonical.UCI_FINGERPRINT
    assert canonical.fingerprint(raw.assign(id=raw["id"] + "0")) == canonical.UCI_FINGERPRINT
    assert canonical.fingerprint(raw.iloc[1:]) != canonical.UCI_FINGERPRINT
    assert canonical.fingerprint(raw.assign(area_se=raw["area_se"].shift(fill_value=1))) != canonical.UCI_FINGERPRINT


def test_minus_zero_is_zero() -> None:
    zeros = [canonical.parse_table(TWO_ROWS.replace(b"17.99", text)).table for text in (b"0", b"-0.0", b"0e5")]
    assert len({canonical.fingerprint(table) for table in zeros}) == 1


def header(*names: str) -> bytes:
    return ",".join(names).encode() + b"\n"


ORIGINAL = b"1000025,5,1,1,1,2,1,3,1,1,2\n1002945,5,4,4,5,7,10,3,2,1,2\n"
PROGNOSTIC = (",".join(["119513", "N", "31", *["1.5"] * 30, "5", "5"]) + "\n").encode()

REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "It is empty; allowed is a CSV file with one row a patient"),
    "an empty gzip": (gzip.compress(b""), "It is empty"),
    "HTML": (b"<!DOCTYPE html>\n<title>404\nNot Found</title>", "an HTML or XML page titled '404 Not Found'"),
    "JSON": (b'{"data": []}', "It is JSON, and no CSV file"),
    "zip": (b"PK\x03\x04rest", "It is a zip file (or Excel's, which is one); allowed is CSV in UTF-8"),
    "Parquet": (b"PAR1rest", "It is a Parquet file"),
    "a damaged gzip": (gzip.compress(uci_form())[:5000], "It is a damaged gzip file"),
    "UTF-16": (uci_form().decode().encode("utf-16"), "It is UTF-16"),
    "Latin-1": (TWO_ROWS + "é".encode("latin-1"), "Line 3 holds the byte 0xe9, which is not UTF-8"),
    "a NUL byte": (TWO_ROWS + b"\0\0", "Line 3 holds a NUL byte"),
    "an open quote": (TWO_ROWS + b'3,"M', "The row that begins in line 3 is not CSV: unexpected end of data"),
    "a short row": (TWO_ROWS + b"3,M,1.5\n", "Line 3 has 3 fields; allowed are 32, as the first line has"),
    "a long row": (TWO_ROWS + row(3, "M").replace("\n", ",1.5\n").encode(), "Line 3 has 33 fields; allowed are 32"),
    "semicolons": (TWO_ROWS.replace(b",", b";"), "and is separated by semicolons; allowed are commas"),
    "another table": (b"a,b,c\n1,2,3\n", "Line 1: it begins 'a,b,c'; allowed is UCI's file (32 fields, the second"),
    "a missing column": (
        header(*columns.RAW[:-1]),
        "the column fractal_dimension_worst is missing; allowed are all 30",
    ),
    "an unknown column": (header(*columns.RAW, "age"), "Line 1: the column 'age' is unknown"),
    "a repeated column": (header(*columns.RAW, "radius1"), "Line 1: the column radius_mean stands 2 times"),
    "two diagnoses": (header(*columns.RAW, "target"), "Line 1: the column diagnosis stands 2 times"),
    "an underscore": (TWO_ROWS.replace(b"17.99", b"1_5.70"), "Line 1, id 2: radius_mean is '1_5.70'; allowed"),
    "a decimal comma": (TWO_ROWS.replace(b"17.99", b'"17,99"'), "Line 1, id 2: radius_mean is '17,99'; allowed is"),
    "too large": (TWO_ROWS.replace(b"17.99", b"1e999"), "Line 1, id 2: radius_mean is '1e999'"),
    "other digits": (TWO_ROWS.replace(b"17.99", "١٧".encode()), "Line 1, id 2: radius_mean is '١٧'"),
    "a label in lower case": (TWO_ROWS.replace(b"M", b"m"), "Line 1, id 2: diagnosis is 'm'; allowed is M or B"),
    "an empty id": (TWO_ROWS.replace(b"2,M", b",M"), "Line 1: id is ''; allowed is a printable text on one line, of"),
    "a line break in an id": (TWO_ROWS.replace(b"2,M", b'"a\nb",M'), "id is 'a\\nb'; allowed is a printable text"),
    "a repeated id": (TWO_ROWS.replace(b"10,B", b"2,B"), "Line 2: id is '2'; allowed is each id once (line 1 has it"),
    "one diagnosis": (uci_form().replace(b",B,", b",M,"), "It has 569 malignant and 0 benign rows"),
    "too few rows": (TWO_ROWS, "1 malignant and 1 benign rows; allowed are at least 10 of each, because"),
    "Original": (ORIGINAL, "2 or 4; the Diagnostic one has 30 measurements of cell nuclei and the diagnoses M and B"),
    "Original, with a header": (b"ID,Clump_thickness,Class\n", "Line 1: this is the Original Wisconsin table"),
    "Prognostic": (PROGNOSTIC, "Line 1: this is the Prognostic Wisconsin table (WPBC), which has 198 malignant rows"),
    "Prognostic, with a header": (
        b"ID,Outcome,Time,radius1\n",
        "Line 1: this is the Prognostic Wisconsin table (WPBC)",
    ),
    "a column too many of another study": (header(*columns.RAW, "outcome"), "Line 1: the column 'outcome' is unknown"),
    "no last column": (re.sub(rb",[^,\n]+\n", b"\n", uci_form()), "31 fields and no header; allowed are 32"),
    "no ids": (re.sub(rb"(?m)^[^,]+,", b"", uci_form()), "Line 1: it has 31 fields and no header; allowed are 32"),
    "scikit-learn's numbers and target": (
        re.sub(rb"(?m)^([^,]+),([MB]),(.*)$", rb"\3,0", uci_form()),
        "Line 1: it has 31 fields and no header",
    ),
    "a repeated row": (
        uci_form() + b"zzz," + uci_form().partition(b"\n")[0].partition(b",")[2],
        "Line 570, id zzz: its 30 measurements are those of Line 1, id 10003 again; allowed is each patient once (F5)",
    ),
    "a row that no nucleus has": (
        uci_form().replace(b",1001,0.1184,", b",501,0.1184,", 1),
        "Line 1, id 10003: area_mean is 501 but radius_mean 17.99 makes about 1017",
    ),
    "inverted labels": (
        uci_form().replace(b",M,", b",X,").replace(b",B,", b",M,").replace(b",X,", b",B,"),
        "the diagnoses look inverted or mixed up",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_the_table_is_refused_with_the_reason(name: str) -> None:
    content, says = REFUSED[name]
    with pytest.raises(TableError) as error:
        canonical.read_table(content, "some.csv")
    assert says in str(error.value)
    assert str(error.value).endswith(". some.csv cannot be used")


def test_the_first_row_that_breaks_a_rule_is_the_first_in_the_file() -> None:
    lines = uci_form().splitlines(keepends=True)
    lines[6], lines[300] = (
        re.sub(rb"^([^,]+,[MB],[^,]+,[^,]+,[^,]+),[^,]+,", rb"\1,1,", lines[row]) for row in (300, 6)
    )
    with pytest.raises(TableError, match=r"^Line 7, id .*\(2 rows break R\d+, this is the first\)"):
        canonical.read_table(b"".join(lines), "wdbc.data")
