"""Reads every form in which the table exists, writes the canonical one, and says when two tables are the same.

What belongs here is the file: encoding, columns, labels, numbers, ids. Whether the numbers make sense is for `rules`.
"""

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bcw_assets.errors import TableError
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.table import columns, forms, rules
from bcw_assets.ml.table.forms import Form

UCI_FINGERPRINT = "ae5f3663df59b8d56b571fb9ff28b36cfba023a6075f2d98c2d5a9e76a6499b2"
"""The fingerprint of the 569 rows that UCI has served since 1995, in any of their forms."""

FEWEST_OF_A_DIAGNOSIS = 10  # the ten folds of the cross-validation need one patient of each diagnosis in each
LARGEST_UNPACKED = 2**30  # bytes: a gzip file of a megabyte may hold a thousand


@dataclass(frozen=True, eq=False)
class ParsedTable:
    """A table as a file has it.

    Attributes:
        table: n rows × 32 columns (`columns.RAW`), sorted by id; the diagnosis is empty if the file has none.
        lines: the line of the file that each row stands in, beginning with 1.
        has_ids: whether the file has ids; otherwise rows are called row-0001 and so on.
        has_diagnoses: whether the file says who was malignant.
    """

    table: pd.DataFrame
    lines: list[int]
    has_ids: bool
    has_diagnoses: bool

    def name(self, row: int) -> str:
        """Return where a row of the table is in the file, and whose it is."""
        return f"Line {self.lines[row]}" + (f", id {self.table[columns.ID].iloc[row]}" if self.has_ids else "")


def read_table(content: bytes, where: str) -> pd.DataFrame:
    """Return the canonical table that `content` holds, once it can be trained on.

    The form is recognised by content: UCI's file without a header, our own `raw_data.csv`, UCI's API, Kaggle's file,
    scikit-learn's names; any of them gzipped. Rows come back sorted by id as text; a table without ids keeps its order
    and gets `row-0001`, `row-0002`, … as ids.

    Args:
        content: the bytes of a CSV file in UTF-8, perhaps gzipped.
        where: the file's name or address, for messages.

    Returns:
        n rows × 32 columns (`columns.RAW`): id and diagnosis as text, 30 measurements as float64.

    Raises:
        TableError: anything else, naming the line, the id, the column, the value and what is allowed.
    """
    try:
        parsed = parse_table(content)
        _require_diagnoses(parsed)
        _require_different_patients(parsed)
        order = np.argsort(parsed.lines)  # of the file
        rules.require(parsed.table.iloc[order], lambda row: parsed.name(order[row]))
    except TableError as error:
        raise TableError(f"{error}. {where} cannot be used", error.rows) from error
    return parsed.table


def parse_table(content: bytes) -> ParsedTable:
    """Return the rows of any form of the table, with or without diagnoses, whatever their numbers.

    Raises:
        TableError: it is no form of this table, or a field is not what its column holds.
    """
    form, numbers, rows = _fields(_text(content))
    ids = _ids(form, numbers, rows)
    diagnoses = _diagnoses(form, numbers, rows)
    table = pd.DataFrame(_measurements(form, numbers, rows), columns=list(columns.MEASUREMENTS))
    table.insert(0, columns.ID, pd.Series(ids, dtype="str"))
    table.insert(1, columns.DIAGNOSIS, pd.Series(diagnoses, dtype="str"))
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return ParsedTable(
        table.iloc[order].reset_index(drop=True),
        [numbers[row] for row in order],
        has_ids=columns.ID in form.columns,
        has_diagnoses=columns.DIAGNOSIS in form.columns,
    )


def write_table(table: pd.DataFrame) -> bytes:
    """Return a canonical table as CSV: a header, LF, every float by the shortest text that gives it back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows((identifier, *row) for identifier, row in zip(table[columns.ID], _format_rows(table), strict=True))
    return text.getvalue().encode()


def row_fingerprints(table: pd.DataFrame) -> list[str]:
    """Return, row by row, the SHA-256 of the row's line in `raw_data.csv` after the id.

    The id is left out: one patient has one fingerprint whatever a file calls them.
    """
    return [forms.hash_row(row) for row in _format_rows(table)]


def fingerprint(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the row fingerprints in the table's order, one a line."""
    return hashlib.sha256("".join(f"{row}\n" for row in row_fingerprints(table)).encode()).hexdigest()


def malignant(table: pd.DataFrame) -> np.ndarray:
    """Return 1 for each malignant row of a canonical table and 0 for each benign one, as int64 of shape (n,)."""
    return (table[columns.DIAGNOSIS] == columns.MALIGNANT).to_numpy(dtype=np.int64)


def check_schema(raw_data: pd.DataFrame) -> Findings:
    """Find where a table is not canonical: columns, types, ids and their order, finite numbers."""
    ids = raw_data[columns.ID].tolist() if columns.ID in raw_data else []
    numeric = raw_data.select_dtypes("float64")
    return Findings.of(
        ("the columns are not id, diagnosis and the 30 measurements in order", list(raw_data) != list(columns.RAW)),
        ("not every measurement is a float", set(columns.MEASUREMENTS) != set(numeric)),
        ("an id is empty or no text", not all(isinstance(name, str) and name for name in ids)),
        ("the rows are not sorted by id", list(map(str, ids)) != sorted(map(str, ids))),
        ("a measurement is not finite", not np.isfinite(numeric.to_numpy()).all()),
        rows=len(raw_data),
        malignant=int(malignant(raw_data).sum()) if columns.DIAGNOSIS in raw_data else 0,
    )


def check_source(raw_data: pd.DataFrame, facts: Mapping[str, object]) -> Findings:
    """Find a table that stands in for UCI's, or that is another than UCI's although nobody named a source."""
    is_named, its_fingerprint = bool(facts.get("source_is_named")), fingerprint(raw_data)
    return Findings.of(
        ("nothing is recorded of where the table is from", not facts),
        (f"UCI could not be reached, and {facts.get('source')} stands in", bool(facts.get("fallback"))),
        (
            f"it is not UCI's table (fingerprint {its_fingerprint[:12]}…), and nobody named it",
            not is_named and its_fingerprint != UCI_FINGERPRINT,
        ),
        source=str(facts.get("source")),
        source_is_named=is_named,
        fingerprint=its_fingerprint,
        fingerprint_of_uci=UCI_FINGERPRINT,
    )


def _require_diagnoses(parsed: ParsedTable) -> None:
    if not parsed.has_diagnoses:
        raise TableError("It has no diagnoses, so no model can be trained on it; allowed is a column with M and B")
    count = Counter(parsed.table[columns.DIAGNOSIS])
    if min(count[columns.MALIGNANT], count[columns.BENIGN]) < FEWEST_OF_A_DIAGNOSIS:
        raise TableError(
            f"It has {count[columns.MALIGNANT]} malignant and {count[columns.BENIGN]} benign rows; allowed are at "
            f"least {FEWEST_OF_A_DIAGNOSIS} of each, because each of ten folds needs one of each"
        )


def _require_different_patients(parsed: ParsedTable) -> None:
    first: dict[tuple[float, ...], int] = {}
    measurements = parsed.table[list(columns.MEASUREMENTS)].to_numpy().tolist()
    for row in np.argsort(parsed.lines).tolist():
        values = tuple(measurements[row])
        if values in first:
            raise TableError(
                f"{parsed.name(row)}: its 30 measurements are those of {parsed.name(first[values])} again; allowed is "
                f"each patient once (F5)"
            )
        first[values] = row


def _text(content: bytes) -> str:
    """Return the text of a file that may hold a CSV table; refuse by name what people and servers send instead."""
    content = _unpack(content)
    if not content.strip():
        raise TableError(forms.EMPTY)
    forms.refuse_other_files(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
        raise TableError(forms.not_utf8(line, content[error.start])) from error
    if "\0" in text:
        line = len(re.findall(r"\r\n|\r|\n", text[: text.index("\0")])) + 1
        raise TableError(forms.holds_nul(line))
    forms.refuse_other_texts(text)
    return text


def _unpack(content: bytes) -> bytes:
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(LARGEST_UNPACKED + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"It is a damaged gzip file ({error})") from error
    if len(unpacked) > LARGEST_UNPACKED:
        raise TableError(f"It is a gzip file of more than {LARGEST_UNPACKED:,} bytes, which is allowed at most")
    return unpacked


def _fields(text: str) -> tuple[Form, list[int], list[list[str]]]:
    """Return the form, and the line number and the fields of every row."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    lines: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if any(fields):
                lines.append((reader.line_num, fields))
    except csv.Error as error:
        begins = lines[-1][0] + 1 if lines else 1
        raise TableError(forms.not_csv(begins, error)) from error
    if not lines:
        raise TableError(forms.EMPTY)
    try:
        form = forms.recognise(lines[0][1])
    except TableError as error:
        raise TableError(f"Line {lines[0][0]}: {error}") from error
    rows = []
    for number, fields in lines[form.has_header :]:
        if forms.has_wrong_count(fields, form):
            raise TableError(forms.wrong_count(number, len(fields), form))
        rows.append(fields[: len(form.columns)])
    return form, [number for number, _ in lines[form.has_header :]], rows


def _refuse(form: Form, number: int, fields: list[str], column: str, allowed: str) -> TableError:
    """Return the error that names the line, its id if it has one, the column, the value and what is allowed."""
    who = f", id {fields[form.position(columns.ID)]}" if columns.ID in form.columns and column != columns.ID else ""
    return TableError(f"Line {number}{who}: {forms.explain_value(column, fields[form.position(column)], allowed)}")


def _ids(form: Form, numbers: list[int], rows: list[list[str]]) -> list[str]:
    if columns.ID not in form.columns:
        width = max(4, len(str(len(rows))))
        return [f"row-{row:0{width}}" for row in range(1, len(rows) + 1)]
    position = form.position(columns.ID)
    first: dict[str, int] = {}
    for number, fields in zip(numbers, rows, strict=True):
        identifier = fields[position]
        if not forms.is_id(identifier):
            raise _refuse(form, number, fields, columns.ID, forms.ID_IS)
        if identifier in first:
            allowed = f"each id once (line {first[identifier]} has it already)"
            raise _refuse(form, number, fields, columns.ID, allowed)
        first[identifier] = number
    return list(first)


def _diagnoses(form: Form, numbers: list[int], rows: list[list[str]]) -> list[str]:
    if columns.DIAGNOSIS not in form.columns:
        return [""] * len(rows)
    position = form.position(columns.DIAGNOSIS)
    for number, fields in zip(numbers, rows, strict=True):
        if fields[position] not in form.labels:
            raise _refuse(form, number, fields, columns.DIAGNOSIS, " or ".join(form.labels))
    return [form.labels[fields[position]] for fields in rows]


def _measurements(form: Form, numbers: list[int], rows: list[list[str]]) -> np.ndarray:
    positions = [form.position(name) for name in columns.MEASUREMENTS]
    texts = [[fields[position] for position in positions] for fields in rows]
    try:
        if not forms.NUMBER_CHARACTERS.issuperset("".join(map("".join, texts))):
            raise ValueError
        values = np.array([[float(text) for text in row] for row in texts]).reshape(len(rows), len(positions))
        if not np.isfinite(values).all():
            raise ValueError
    except ValueError:
        raise _find_first_wrong_number(form, numbers, rows) from None
    return values + 0.0  # -0.0 and 0.0 are one number and must have one fingerprint


def _find_first_wrong_number(form: Form, numbers: list[int], rows: list[list[str]]) -> TableError:
    return next(
        _refuse(form, number, fields, name, forms.NUMBER_IS)
        for number, fields in zip(numbers, rows, strict=True)
        for name, text in zip(form.columns, fields, strict=True)
        if name in columns.MEASUREMENTS and not forms.is_finite(text)
    )


def _format_rows(table: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Return each row's diagnosis and numbers as texts; a number that a column has often is formatted once."""
    texts = [table[columns.DIAGNOSIS].tolist()]
    for name in columns.MEASUREMENTS:
        codes, numbers = pd.factorize(table[name].to_numpy() + 0.0, use_na_sentinel=False)  # -0 is 0
        texts.append(np.array(list(map(forms.format_number, numbers.tolist())), dtype=object)[codes].tolist())
    return zip(*texts, strict=True)
