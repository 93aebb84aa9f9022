"""Recognises the forms of the table by their first line, and refuses by name what is easily taken for it.

What belongs here is what a line says, without pandas: `canonical` reads a table as a whole, `reading` row by row.
"""

import csv
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bcw_assets.errors import TableError
from bcw_assets.ml.table import columns

# Only what Python's float() and C's strtod agree on: no 1_000, no nan, no digits of other scripts.
NUMBER_CHARACTERS = frozenset("0123456789+-.eE")
LONGEST_ID = 100
LONGEST_QUOTED = 60  # characters of a value in a message
PRINTABLE = f"a printable text on one line, of at most {LONGEST_ID} characters"
ID_IS = f"{PRINTABLE}, that no other row has"
NUMBER_IS = "a finite decimal number with a point, like 17.99"
EMPTY = "It is empty; allowed is a CSV file with one row a patient"
DIAGNOSTIC = "the Diagnostic one has 30 measurements of cell nuclei and the diagnoses M and B"

HEADERLESS = (columns.RAW, (columns.ID, *columns.MEASUREMENTS), columns.MEASUREMENTS)

BINARIES = {
    b"PK\x03\x04": "a zip file (or Excel's, which is one)",
    b"PAR1": "a Parquet file",
    b"%PDF": "a PDF file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


@dataclass(frozen=True)
class Form:
    """One way of writing the table: our name of each field, its labels, and whether the first line is a header."""

    columns: tuple[str, ...]
    labels: dict[str, str]
    has_header: bool

    def position(self, name: str) -> int:
        """Return the place of a column among the fields."""
        return self.columns.index(name)


def _is_original(first: list[str]) -> bool:
    scores = [field == "?" or (field.isdecimal() and 1 <= int(field) <= 10) for field in first[-10:-1]]
    has_classes = first[-1] in ("2", "4", "2.0", "4.0", "benign", "malignant")
    has_rows = len(first) in (10, 11) and has_classes and all(scores)
    return has_rows or not {"clump_thickness", "cl.thickness", "clump"}.isdisjoint(first)


def _is_prognostic(first: list[str]) -> bool:
    has_rows = len(first) >= 33 and not {"n", "r"}.isdisjoint(first[:2]) and sum(map(is_finite, first)) > 30
    return has_rows or not {"outcome", "lymph_node_status", "tumor_size"}.isdisjoint(first)


LOOK_ALIKES = {
    "the Original Wisconsin table, which has 699 rows of nine scores from 1 to 10 and the class 2 or 4": _is_original,
    "the Prognostic Wisconsin table (WPBC), which has 198 malignant rows with the outcome N or R and the time to it, "
    "139 of them patients of this table too": _is_prognostic,
}
"""Another table that is easily taken for this one → whether a first line is one of it."""


def recognise(first: list[str]) -> Form:
    """Return the form of the file whose first line has these fields, without spaces around them.

    Raises:
        TableError: it is another table, or a header that is not the table's.
    """
    filled = len(first) - (first[-1] == "")  # a comma at the end of every line adds an empty field
    for headerless in HEADERLESS:
        if len(headerless) in (len(first), filled) and _may_be(first, headerless):
            return Form(headerless, columns.LABELS, has_header=False)
    names = [re.sub(r"\s+", "_", field.lower()) for field in first[:filled]]
    ours = {columns.ALIASES.get(name) for name in names}
    is_complete = ours.issuperset((*columns.MEASUREMENTS, columns.DIAGNOSIS))  # with columns too many, perhaps
    for table, is_it in LOOK_ALIKES.items():
        if not is_complete and is_it(names):
            raise TableError(f"this is {table}; {DIAGNOSTIC}")
    if len(ours) > 1 and not any(map(is_finite, first)):
        return _read_header(first, names)
    raise TableError(_explain_first_line(first, filled))


def _read_header(first: list[str], names: list[str]) -> Form:
    while names[-1] == "" or re.fullmatch(r"unnamed:_\d+", names[-1]):  # Kaggle's header ends with a comma
        names.pop()
    if names[0] in ("", "unnamed:_0"):
        raise TableError("the first column has no name: it is pandas' index, write the file with index=False")
    unknown = [field for field, name in zip(first, names, strict=False) if name not in columns.ALIASES]
    if unknown:
        raise TableError(f"the column {quote(unknown[0])} is unknown; allowed are id, diagnosis and the measurements")
    known = [columns.ALIASES[name] for name in names]
    repeated = [name for name, count in Counter(known).items() if count > 1]
    if repeated:
        raise TableError(f"the column {repeated[0]} stands {known.count(repeated[0])} times; allowed is once")
    missing = [name for name in columns.MEASUREMENTS if name not in known]
    if missing:
        more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise TableError(f"the column {missing[0]}{more} missing; allowed are all 30 measurements")
    labels = columns.TARGET_LABELS if columns.TARGET in names else columns.LABELS
    return Form(tuple(known), labels, has_header=True)


def _explain_first_line(first: list[str], filled: int) -> str:
    """Say what is wrong with a first line that is no form's."""
    begins = ",".join(first)
    for mark, what in {";": "semicolons", "\t": "tabs"}.items():
        if begins.count(mark) > 1:
            return f"it begins {quote(begins)} and is separated by {what}; allowed are commas"
    if sum(map(is_finite, first)) > len(first) / 2:
        return (
            f"it has {filled} fields and no header; allowed are {len(columns.RAW)} as in UCI's file (id, M or B, 30 "
            f"measurements), or 31 or 30 without the diagnosis"
        )
    return (
        f"it begins {quote(begins)}; allowed is UCI's file ({len(columns.RAW)} fields, the second M or B), or a "
        f"header with the names of raw_data.csv, of UCI's API, of Kaggle's file or of scikit-learn"
    )


def quote(value: str) -> str:
    """Return a received value for a message, which it must not fill.

    >>> quote("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'"
    """
    return repr(value if len(value) <= LONGEST_QUOTED else f"{value[:LONGEST_QUOTED]}…")


def _may_be(first: list[str], names: tuple[str, ...]) -> bool:
    """Say whether the first line of a file without a header can be what the names say, by the kinds of its fields.

    A diagnosis is no number; an id beside numbers only is no diagnosis, no fraction, and not scikit-learn's 0 or 1.
    """
    fields = dict(zip(names, first, strict=False))
    numbers = sum(is_finite(fields[name]) for name in columns.MEASUREMENTS)
    if columns.DIAGNOSIS in fields:
        return not is_finite(fields[columns.DIAGNOSIS]) and numbers > 0
    is_id = not re.fullmatch(r"[01MB]|\d*\.\d*", fields.get(columns.ID, "id"))
    return is_id and numbers == len(columns.MEASUREMENTS)


def is_finite(text: str) -> bool:
    """Say whether a field is a number as the table's are."""
    try:
        return NUMBER_CHARACTERS.issuperset(text) and math.isfinite(float(text))
    except ValueError:
        return False


def is_id(text: str) -> bool:
    """Say whether a field can be somebody's id."""
    return bool(text) and text.isprintable() and len(text) <= LONGEST_ID


def refuse_other_files(content: bytes) -> None:
    """Refuse by name what people and servers send instead of CSV, by its first bytes.

    Raises:
        TableError: it is another kind of file.
    """
    for mark, what in BINARIES.items():
        if content.startswith(mark):
            raise TableError(f"It is {what}; allowed is CSV in UTF-8, perhaps gzipped")


def refuse_other_texts(text: str) -> None:
    """Refuse by name a text that is no CSV, by how it begins.

    Raises:
        TableError: it is HTML, XML or JSON.
    """
    start = text.lstrip()[:1]
    if start == "<":
        title = re.search(r"<title[^>]*>\s*(.{1,80}?)\s*</title>", text[:10_000], flags=re.IGNORECASE | re.DOTALL)
        titled = f" titled {' '.join(title[1].split())!r}" if title else ""
        raise TableError(f"It is an HTML or XML page{titled}, and no CSV file")
    if start in ("{", "["):
        raise TableError("It is JSON, and no CSV file")


def not_utf8(line: int, byte: int) -> str:
    """Say that a line holds a byte that is no text."""
    return f"Line {line} holds the byte 0x{byte:02x}, which is not UTF-8; save it as CSV in UTF-8"


def holds_nul(line: int) -> str:
    """Say that a line holds a NUL byte."""
    return f"Line {line} holds a NUL byte: it is binary, or UTF-16; allowed is CSV in UTF-8"


def not_csv(line: int, error: csv.Error) -> str:
    """Say that a row is no CSV."""
    return f"The row that begins in line {line} is not CSV: {error}"


def wrong_count(line: int, count: int, form: Form) -> str:
    """Say that a row has not the fields of the first."""
    return f"Line {line} has {count} fields; allowed are {len(form.columns)}, as the first line has"


def has_wrong_count(fields: list[str], form: Form) -> bool:
    """Say whether a row has fields too few, or too many that are not empty: empty ones at the end are Kaggle's."""
    count = len(form.columns)
    return len(fields) < count or any(fields[count:])


def explain_value(column: str, value: str, allowed: str) -> str:
    """Say that a column has a value that is not allowed."""
    return f"{column} is {quote(value)}; allowed is {allowed}"


def format_number(number: float) -> str:
    """Return a number as it stands in `raw_data.csv`: UCI's digits, the fewest that give it back."""
    return repr(number).removesuffix(".0")


def hash_row(texts: Iterable[str]) -> str:
    """Return the SHA-256 of a row's line in `raw_data.csv` after the id: one patient has one, whatever the id."""
    return hashlib.sha256(",".join(texts).encode()).hexdigest()


def row_fingerprint(diagnosis: str, numbers: Iterable[float]) -> str:
    """Return the fingerprint of a row of this diagnosis and these measurements."""
    return hash_row([diagnosis, *map(format_number, numbers)])
