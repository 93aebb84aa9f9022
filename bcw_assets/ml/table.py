"""Reads the forms in which the table exists, writes the canonical one, and says when two tables are the same.

What belongs here is the file: encoding, columns, labels, numbers, ids. Whether the numbers make sense does not.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bcw_assets.errors import TableError
from bcw_assets.ml import columns
from bcw_assets.ml.findings import Findings

# Only what Python's float() and C's strtod agree on: no 1_000, no nan, no digits of other scripts.
NUMBER_CHARACTERS = frozenset("0123456789+-.eE")


@dataclass(frozen=True)
class Form:
    """One way of writing the table: its columns in the file, by our names, and its labels."""

    name: str
    columns: tuple[str, ...]
    labels: dict[str, str]
    has_header: bool


OUR_LABELS = {columns.MALIGNANT: columns.MALIGNANT, columns.BENIGN: columns.BENIGN}
UCI = Form("UCI's wdbc.data", columns.RAW, OUR_LABELS, has_header=False)
OURS = Form("raw_data.csv", columns.RAW, OUR_LABELS, has_header=True)
SCIKIT_LEARN = Form(
    "scikit-learn's copy",
    (*columns.SCIKIT_LEARN.values(), columns.DIAGNOSIS),
    columns.SCIKIT_LEARN_LABELS,
    has_header=True,
)
HEADERS = {
    columns.RAW: OURS,
    (*columns.SCIKIT_LEARN, columns.SCIKIT_LEARN_TARGET): SCIKIT_LEARN,
}


@dataclass(frozen=True)
class _Line:
    """One line of the file: its number (1-based), its fields as text, and the form that names them."""

    number: int
    fields: list[str]
    form: Form

    def refuse(self, column: str, allowed: str) -> TableError:
        """Return the error that names this line, its id if it has one, the column and the value."""
        value = self.fields[self.form.columns.index(column)]
        who = ""
        if columns.ID in self.form.columns and column != columns.ID:
            who = f", id {self.fields[self.form.columns.index(columns.ID)]}"
        return TableError(f"Line {self.number}{who}: {column} is {value!r}; allowed is {allowed}")


def read(content: bytes, where: str) -> pd.DataFrame:
    """Return the canonical table that `content` holds.

    The form is recognised by content: UCI's file without a header, our own `raw_data.csv`, or scikit-learn's names
    with a target. Rows come back sorted by id as text; a table without ids keeps its order and gets `row-0001`,
    `row-0002`, … as ids.

    Args:
        content: the bytes of a CSV file in UTF-8.
        where: the file's name or address, for messages.

    Returns:
        n rows × 32 columns (`columns.RAW`): id and diagnosis as text, 30 measurements as float64.

    Raises:
        TableError: anything else, naming the line, the id, the column, the value and what is allowed.
    """
    try:
        return _canonical(_lines(content))
    except TableError as error:
        raise TableError(f"{where} is not a table that can be used. {error}.") from error


def write(table: pd.DataFrame) -> bytes:
    """Return a canonical table as CSV: a header, LF, every float by the shortest text that gives it back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows([identifier, *rest] for identifier, rest in zip(table[columns.ID], _texts(table), strict=True))
    return text.getvalue().encode()


def row_fingerprints(table: pd.DataFrame) -> list[str]:
    """Return, row by row, the SHA-256 of the row's line in `raw_data.csv` after the id.

    The id is left out: one patient has one fingerprint whatever a file calls them.
    """
    return [hashlib.sha256(",".join(texts).encode()).hexdigest() for texts in _texts(table)]


def fingerprint(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the row fingerprints in the table's order, one a line."""
    return hashlib.sha256("".join(f"{row}\n" for row in row_fingerprints(table)).encode()).hexdigest()


def malignant(table: pd.DataFrame) -> np.ndarray:
    """Return 1 for each malignant row of a canonical table and 0 for each benign one, as int64 of shape (n,)."""
    return (table[columns.DIAGNOSIS] == columns.MALIGNANT).to_numpy(dtype=np.int64)


def schema(raw_data: pd.DataFrame) -> Findings:
    """Find where a table is not canonical: columns, types, labels, ids and their order, finite numbers."""
    ids = raw_data[columns.ID].tolist() if columns.ID in raw_data else []
    diagnoses = set(raw_data[columns.DIAGNOSIS]) if columns.DIAGNOSIS in raw_data else set()
    numeric = raw_data.select_dtypes("float64")
    return Findings.of(
        ("the columns are not id, diagnosis and the 30 measurements in order", list(raw_data) != list(columns.RAW)),
        ("not every measurement is a float", set(columns.MEASUREMENTS) != set(numeric)),
        (f"the labels are {', '.join(sorted(map(str, diagnoses)))}, not M and B", diagnoses != set(OUR_LABELS)),
        ("an id is empty or no text", not all(isinstance(one, str) and one for one in ids)),
        ("an id stands twice", len(set(ids)) != len(ids)),
        ("the rows are not sorted by id", list(map(str, ids)) != sorted(map(str, ids))),
        ("a measurement is not finite", not np.isfinite(numeric.to_numpy()).all()),
        rows=len(raw_data),
        malignant=int((raw_data[columns.DIAGNOSIS] == columns.MALIGNANT).sum()) if diagnoses else 0,
    )


def _lines(content: bytes) -> list[_Line]:
    """Return the lines of the file that hold a row, each with as many fields as the form has columns."""
    if not content.strip():
        raise TableError("It is empty; allowed is a CSV file with one row a patient")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"Byte {error.start + 1} is not UTF-8; allowed is a CSV file in UTF-8") from error
    if "\0" in text:
        raise TableError(f"Line {text[: text.index(chr(0))].count(chr(10)) + 1} holds a NUL byte; it is no text file")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, [field.strip() for field in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise TableError(f"Line {reader.line_num} is not CSV: {error}") from error
    form = _recognise(rows[0][1])
    for number, fields in rows:
        if len(fields) != len(form.columns):
            raise TableError(f"Line {number} has {len(fields)} fields; {form.name} has {len(form.columns)}")
    return [_Line(number, fields, form) for number, fields in rows[form.has_header :]]


def _recognise(first: Sequence[str]) -> Form:
    form = HEADERS.get(tuple(first))
    if form:
        return form
    if len(first) == len(UCI.columns) and any(map(_is_finite, first[2:])):
        return UCI
    begins = ",".join(first)[:60]
    raise TableError(
        f"Line 1 begins {begins!r}; allowed is UCI's file ({len(UCI.columns)} fields without a header, the second "
        f"{columns.MALIGNANT} or {columns.BENIGN}), or the header of raw_data.csv or of scikit-learn's copy"
    )


def _canonical(lines: list[_Line]) -> pd.DataFrame:
    form = lines[0].form if lines else OURS
    position = form.columns.index
    numbers = _numbers(lines, [position(name) for name in columns.MEASUREMENTS])
    diagnoses = _diagnoses(lines, position(columns.DIAGNOSIS))
    ids = _ids(lines)
    table = pd.DataFrame(numbers, columns=list(columns.MEASUREMENTS))
    table.insert(0, columns.ID, pd.Series(ids, dtype="str"))
    table.insert(1, columns.DIAGNOSIS, pd.Series(diagnoses, dtype="str"))
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return table.iloc[order].reset_index(drop=True)


def _ids(lines: list[_Line]) -> list[str]:
    if columns.ID not in lines[0].form.columns:
        width = max(4, len(str(len(lines))))
        return [f"row-{row:0{width}}" for row in range(1, len(lines) + 1)]
    first: dict[str, int] = {}
    for line in lines:
        identifier = line.fields[line.form.columns.index(columns.ID)]
        if not identifier.isprintable() or not identifier:
            raise line.refuse(columns.ID, "a printable text on one line that no other row has")
        if identifier in first:
            raise line.refuse(columns.ID, f"each id once (line {first[identifier]} has it already)")
        first[identifier] = line.number
    return list(first)


def _diagnoses(lines: list[_Line], position: int) -> list[str]:
    for line in lines:
        if line.fields[position] not in line.form.labels:
            raise line.refuse(columns.DIAGNOSIS, " or ".join(line.form.labels))
    diagnoses = [line.form.labels[line.fields[position]] for line in lines]
    if len(set(diagnoses)) < len(OUR_LABELS):
        raise TableError(
            f"Its {len(lines)} rows have {' and '.join(set(diagnoses)) or 'nothing'} as diagnosis; allowed is a table "
            f"with malignant and benign rows, since a model learns the difference between them"
        )
    return diagnoses


def _numbers(lines: list[_Line], positions: list[int]) -> np.ndarray:
    texts = [[line.fields[position] for position in positions] for line in lines]
    try:
        if not NUMBER_CHARACTERS.issuperset("".join(map("".join, texts))):
            raise ValueError
        numbers = np.array([[float(text) for text in row] for row in texts]).reshape(len(lines), len(positions))
        if not np.isfinite(numbers).all():
            raise ValueError
    except ValueError:
        raise next(line.refuse(*wrong) for line in lines if (wrong := _not_a_number(line))) from None
    return numbers + 0.0  # -0.0 and 0.0 are one number and must have one fingerprint


def _not_a_number(line: _Line) -> tuple[str, str] | None:
    """Return the first measurement of the line that is no finite number, and what is allowed; None if all are."""
    for name, text in zip(line.form.columns, line.fields, strict=True):
        if name in columns.MEASUREMENTS and not _is_finite(text):
            return name, "a finite decimal number with a point, like 17.99"
    return None


def _is_finite(text: str) -> bool:
    try:
        return NUMBER_CHARACTERS.issuperset(text) and bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _texts(table: pd.DataFrame) -> list[list[str]]:
    """Return each row's fields after the id as they stand in `raw_data.csv`: the diagnosis, then UCI's digits."""
    numbers = table[list(columns.MEASUREMENTS)].to_numpy().tolist()
    return [
        [diagnosis, *(repr(number).removesuffix(".0") for number in row)]
        for diagnosis, row in zip(table[columns.DIAGNOSIS], numbers, strict=True)
    ]
