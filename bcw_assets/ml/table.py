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
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bcw_assets.errors import TableError
from bcw_assets.ml import columns, rules
from bcw_assets.ml.findings import Findings

UCI_FINGERPRINT = "ae5f3663df59b8d56b571fb9ff28b36cfba023a6075f2d98c2d5a9e76a6499b2"
"""The fingerprint of the 569 rows that UCI has served since 1995, in any of their forms."""

# Only what Python's float() and C's strtod agree on: no 1_000, no nan, no digits of other scripts.
NUMBER_CHARACTERS = frozenset("0123456789+-.eE")
FEWEST_OF_A_DIAGNOSIS = 10  # the ten folds of the cross-validation need one patient of each diagnosis in each
LONGEST_ID = 100
LONGEST_SHOWN = 60  # characters of a value in a message
ID_IS = f"a printable text on one line, of at most {LONGEST_ID} characters, that no other row has"
LARGEST_UNPACKED = 2**30  # bytes: a gzip file of a megabyte may hold a thousand
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


@dataclass(frozen=True)
class LookAlike:
    """Another table that is easily taken for this one, and how its first line gives it away."""

    name: str
    has: str
    is_it: Callable[[list[str]], bool]


def _names(*words: str) -> Callable[[list[str]], bool]:
    return lambda first: bool(set(words) & set(first))


def _is_original(first: list[str]) -> bool:
    scores = [field == "?" or (field.isdecimal() and 1 <= int(field) <= 10) for field in first[-10:-1]]
    return len(first) in (10, 11) and first[-1] in ("2", "4", "2.0", "4.0", "benign", "malignant") and all(scores)


def _is_prognostic(first: list[str]) -> bool:
    has_outcome = len(first) >= 33 and ({"n", "r"} & set(first[:2])) and sum(map(_is_finite, first)) > 30
    return bool(has_outcome) or _names("outcome", "lymph_node_status", "tumor_size")(first)


LOOK_ALIKES = (
    LookAlike(
        "the Original Wisconsin table",
        "699 rows of nine scores from 1 to 10 and the class 2 or 4",
        lambda first: _is_original(first) or _names("clump_thickness", "cl.thickness", "clump")(first),
    ),
    LookAlike(
        "the Prognostic Wisconsin table (WPBC)",
        "198 malignant rows with the outcome N or R and the time to it, 139 of them patients of this table too",
        _is_prognostic,
    ),
    LookAlike(
        "the Ljubljana breast cancer table",
        "286 rows of categories and whether the cancer recurred",
        _names("recurrence-events", "no-recurrence-events", "deg-malig", "inv-nodes"),
    ),
    LookAlike("the Coimbra breast cancer table", "116 rows of blood values", _names("resistin", "adiponectin")),
)


@dataclass(frozen=True, eq=False)
class Parsed:
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


def read(content: bytes, where: str) -> pd.DataFrame:
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
        parsed = parse(content)
        _require_diagnoses(parsed)
        _require_different_rows(parsed)
        in_the_file = np.argsort(parsed.lines)
        rules.require(parsed.table.iloc[in_the_file], lambda row: parsed.name(in_the_file[row]))
    except TableError as error:
        raise TableError(f"{error}. {where} cannot be used", error.rows) from error
    return parsed.table


def parse(content: bytes) -> Parsed:
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
    return Parsed(
        table.iloc[order].reset_index(drop=True),
        [numbers[row] for row in order],
        has_ids=columns.ID in form.columns,
        has_diagnoses=columns.DIAGNOSIS in form.columns,
    )


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
        (f"the labels are {', '.join(sorted(map(str, diagnoses)))}, not M and B", diagnoses != set(columns.LABELS)),
        ("an id is empty or no text", not all(isinstance(one, str) and one for one in ids)),
        ("an id stands twice", len(set(ids)) != len(ids)),
        ("the rows are not sorted by id", list(map(str, ids)) != sorted(map(str, ids))),
        ("a measurement is not finite", not np.isfinite(numeric.to_numpy()).all()),
        rows=len(raw_data),
        malignant=int((raw_data[columns.DIAGNOSIS] == columns.MALIGNANT).sum()) if diagnoses else 0,
    )


def is_from_uci_or_named(raw_data: pd.DataFrame, facts: Mapping[str, object]) -> Findings:
    """Find a table that stands in for UCI's, or that is another than UCI's although nobody named a source."""
    named, found = bool(facts.get("source_is_named")), fingerprint(raw_data)
    return Findings.of(
        ("nothing is recorded of where the table is from", not facts),
        (f"UCI could not be reached, and {facts.get('source')} stands in", bool(facts.get("fallback"))),
        (
            f"it is not UCI's table (fingerprint {found[:12]}…), and nobody named it",
            not named and found != UCI_FINGERPRINT,
        ),
        source=str(facts.get("source")),
        source_is_named=named,
        fingerprint=found,
        fingerprint_of_uci=UCI_FINGERPRINT,
    )


def _require_diagnoses(parsed: Parsed) -> None:
    if not parsed.has_diagnoses:
        raise TableError("It has no diagnoses, so no model can be trained on it; allowed is a column with M and B")
    count = Counter(parsed.table[columns.DIAGNOSIS])
    if min(count[columns.MALIGNANT], count[columns.BENIGN]) < FEWEST_OF_A_DIAGNOSIS:
        raise TableError(
            f"It has {count[columns.MALIGNANT]} malignant and {count[columns.BENIGN]} benign rows; allowed are at "
            f"least {FEWEST_OF_A_DIAGNOSIS} of each, because each of ten folds needs one of each"
        )


def _require_different_rows(parsed: Parsed) -> None:
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
    content = _unpacked(content)
    if not content.strip():
        raise TableError("It is empty; allowed is a CSV file with one row a patient")
    for mark, what in BINARIES.items():
        if content.startswith(mark):
            raise TableError(f"It is {what}; allowed is CSV in UTF-8, perhaps gzipped")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", content[: error.start])) + 1
        raise TableError(
            f"Line {line} holds the byte 0x{content[error.start]:02x}, which is not UTF-8; save it as CSV in UTF-8"
        ) from error
    if "\0" in text:
        line = len(re.findall(r"\r\n|\r|\n", text[: text.index("\0")])) + 1
        raise TableError(f"Line {line} holds a NUL byte: it is binary, or UTF-16; allowed is CSV in UTF-8")
    start = text.lstrip()[:1]
    if start == "<":
        title = re.search(r"<title[^>]*>\s*(.{1,80}?)\s*</title>", text[:10_000], flags=re.IGNORECASE | re.DOTALL)
        titled = f" titled {' '.join(title[1].split())!r}" if title else ""
        raise TableError(f"It is an HTML or XML page{titled}, and no CSV file")
    if start in ("{", "["):
        raise TableError("It is JSON, and no CSV file")
    return text


def _unpacked(content: bytes) -> bytes:
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
        raise TableError(f"The row that begins in line {begins} is not CSV: {error}") from error
    if not lines:
        raise TableError("It is empty; allowed is a CSV file with one row a patient")
    try:
        form = _recognise(lines[0][1])
    except TableError as error:
        raise TableError(f"Line {lines[0][0]}: {error}") from error
    count = len(form.columns)
    rows = []
    for number, fields in lines[form.has_header :]:
        if len(fields) < count or any(fields[count:]):  # empty fields at the end are Kaggle's
            raise TableError(f"Line {number} has {len(fields)} fields; allowed are {count}, as the first line has")
        rows.append(fields[:count])
    return form, [number for number, _ in lines[form.has_header :]], rows


def _recognise(first: list[str]) -> Form:
    """Return the form of the file whose first line has these fields."""
    filled = len(first) - (first[-1] == "")  # a comma at the end of every line adds an empty field
    for names in HEADERLESS:
        if len(names) in (len(first), filled) and _may_be(first, names):
            return Form(names, columns.LABELS, has_header=False)
    names_there = [re.sub(r"\s+", "_", field.lower()) for field in first[:filled]]
    ours = {columns.ALIASES.get(name) for name in names_there}
    is_complete = ours.issuperset((*columns.MEASUREMENTS, columns.DIAGNOSIS))  # with columns too many, perhaps
    for other in LOOK_ALIKES:
        if not is_complete and other.is_it(names_there):
            raise TableError(f"this is {other.name}, which has {other.has}; {DIAGNOSTIC}")
    if len(ours) > 1 and not any(map(_is_finite, first)):
        return _header(first, names_there)
    raise TableError(_unknown(first, filled))


def _header(first: list[str], names: list[str]) -> Form:
    while names[-1] == "" or re.fullmatch(r"unnamed:_\d+", names[-1]):  # Kaggle's header ends with a comma
        names.pop()
    if names[0] in ("", "unnamed:_0"):
        raise TableError("the first column has no name: it is pandas' index, write the file with index=False")
    unknown = [field for field, name in zip(first, names, strict=False) if name not in columns.ALIASES]
    if unknown:
        raise TableError(f"the column {_shown(unknown[0])} is unknown; allowed are id, diagnosis and the measurements")
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


def _unknown(first: list[str], filled: int) -> str:
    """Say what is wrong with a first line that is no form's."""
    begins = ",".join(first)
    for mark, what in {";": "semicolons", "\t": "tabs"}.items():
        if begins.count(mark) > 1:
            return f"it begins {_shown(begins)} and is separated by {what}; allowed are commas"
    if sum(map(_is_finite, first)) > len(first) / 2:
        return (
            f"it has {filled} fields and no header; allowed are {len(columns.RAW)} as in UCI's file (id, M or B, 30 "
            f"measurements), or 31 or 30 without the diagnosis"
        )
    return (
        f"it begins {_shown(begins)}; allowed is UCI's file ({len(columns.RAW)} fields, the second M or B), or a "
        f"header with the names of raw_data.csv, of UCI's API, of Kaggle's file or of scikit-learn"
    )


def _shown(value: str) -> str:
    """Return a received value for a message, which it must not fill.

    >>> _shown("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'"
    """
    return repr(value if len(value) <= LONGEST_SHOWN else f"{value[:LONGEST_SHOWN]}…")


def _may_be(first: list[str], names: tuple[str, ...]) -> bool:
    """Say whether the first line of a file without a header can be what the names say, by the kinds of its fields.

    A diagnosis is no number; an id beside numbers only is no diagnosis, no fraction, and not scikit-learn's 0 or 1.
    """
    fields = dict(zip(names, first, strict=False))
    measured = sum(_is_finite(fields[name]) for name in columns.MEASUREMENTS)
    if columns.DIAGNOSIS in fields:
        return not _is_finite(fields[columns.DIAGNOSIS]) and measured > 0
    is_id = not re.fullmatch(r"[01MB]|\d*\.\d*", fields.get(columns.ID, "id"))
    return is_id and measured == len(columns.MEASUREMENTS)


def _refused(form: Form, number: int, fields: list[str], column: str, allowed: str) -> TableError:
    """Return the error that names the line, its id if it has one, the column, the value and what is allowed."""
    who = f", id {fields[form.position(columns.ID)]}" if columns.ID in form.columns and column != columns.ID else ""
    return TableError(f"Line {number}{who}: {column} is {_shown(fields[form.position(column)])}; allowed is {allowed}")


def _ids(form: Form, numbers: list[int], rows: list[list[str]]) -> list[str]:
    if columns.ID not in form.columns:
        width = max(4, len(str(len(rows))))
        return [f"row-{row:0{width}}" for row in range(1, len(rows) + 1)]
    position = form.position(columns.ID)
    first: dict[str, int] = {}
    for number, fields in zip(numbers, rows, strict=True):
        identifier = fields[position]
        if not identifier or not identifier.isprintable() or len(identifier) > LONGEST_ID:
            raise _refused(form, number, fields, columns.ID, ID_IS)
        if identifier in first:
            allowed = f"each id once (line {first[identifier]} has it already)"
            raise _refused(form, number, fields, columns.ID, allowed)
        first[identifier] = number
    return list(first)


def _diagnoses(form: Form, numbers: list[int], rows: list[list[str]]) -> list[str]:
    if columns.DIAGNOSIS not in form.columns:
        return [""] * len(rows)
    position = form.position(columns.DIAGNOSIS)
    for number, fields in zip(numbers, rows, strict=True):
        if fields[position] not in form.labels:
            raise _refused(form, number, fields, columns.DIAGNOSIS, " or ".join(form.labels))
    return [form.labels[fields[position]] for fields in rows]


def _measurements(form: Form, numbers: list[int], rows: list[list[str]]) -> np.ndarray:
    positions = [form.position(name) for name in columns.MEASUREMENTS]
    texts = [[fields[position] for position in positions] for fields in rows]
    try:
        if not NUMBER_CHARACTERS.issuperset("".join(map("".join, texts))):
            raise ValueError
        values = np.array([[float(text) for text in row] for row in texts]).reshape(len(rows), len(positions))
        if not np.isfinite(values).all():
            raise ValueError
    except ValueError:
        raise _first_that_is_no_number(form, numbers, rows) from None
    return values + 0.0  # -0.0 and 0.0 are one number and must have one fingerprint


def _first_that_is_no_number(form: Form, numbers: list[int], rows: list[list[str]]) -> TableError:
    return next(
        _refused(form, number, fields, name, "a finite decimal number with a point, like 17.99")
        for number, fields in zip(numbers, rows, strict=True)
        for name, text in zip(form.columns, fields, strict=True)
        if name in columns.MEASUREMENTS and not _is_finite(text)
    )


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
