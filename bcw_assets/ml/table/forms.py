"""Recognises the form of a table by its first lines, and refuses by name what is easily taken for it.

What belongs here is which column is what, and what is said of a field. `reading` gets the lines out of a file.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bcw_assets.errors import TableError
from bcw_assets.ml.table import columns
from bcw_assets.ml.table.columns import squeeze_name

# Only what Python's float() and C's strtod agree on: no 1_000, no nan, no digits of other scripts.
NUMBER_CHARACTERS = frozenset("0123456789+-.eE")
LONGEST_ID = 100
LONGEST_QUOTE = 60  # characters of a value in a message
MOST_NAMES = 10  # of files or columns in a message
PRINTABLE = f"a printable text on one line, of at most {LONGEST_ID} characters"
NUMBER_IS = "a finite decimal number with a point, like 17.99"
COMMA_NUMBER_IS = "a finite decimal number with a comma, like 17,99"
LABEL_IS = "M or B"
TARGET_IS = "0, which is malignant here, or 1"
EMPTY = "It is empty; allowed is a table with one row a patient"
DIAGNOSTIC = "the Diagnostic one has 30 measurements of cell nuclei and the diagnoses M and B"
COUNT = len(columns.MEASUREMENTS)
NAMED = f"names like {', '.join(columns.MEASUREMENTS[:: COUNT // 3])}, those of UCI's API or those of scikit-learn"
ALL_THIRTY = f"this model needs all thirty measurements, with {NAMED}"
BLANK = frozenset(("", "na", "nan"))
FEW_ROWS, FEW_VALUES = 10, 3  # from how many rows a column of so few values is no id

UNPACK = "unpack it, or pack it with gzip"
PANDAS = "read it with pandas and write it as CSV with index=False"
OTHER_FILES = {
    (b"BZh",): ("a bz2 file", UNPACK),
    (b"\xfd7zXZ",): ("an xz file", UNPACK),
    (b"\x28\xb5\x2f\xfd",): ("a zstd file", UNPACK),
    (b"ARROW1", b"FEA1"): ("a feather file", PANDAS),
    (b"\x89HDF",): ("an HDF5 file", PANDAS),
    (b"%PDF",): ("a PDF file", "copy its table into a spreadsheet"),
    (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5"): ("a pickle, which may execute anything and is not opened", PANDAS),
    (b"<",): ("an HTML or XML page", "give the file itself, or save it as CSV"),
    (b"{", b"["): ("JSON", PANDAS),
    (b"@", b"%"): ("an ARFF file", "in Weka, save it as CSV"),
}
"""How a file begins, marks and blanks before a text left out → what it is, and what to do."""


class Label(NamedTuple):
    """A column that says who was malignant: its place, its name, and what its texts mean, in lower case."""

    place: int
    name: str
    meanings: Mapping[str, str]


@dataclass(frozen=True)
class Form:
    """One way of writing the table."""

    width: int  # fields of a row; what follows is empty
    measurements: tuple[int, ...]  # the place of each measurement among the fields, in our order
    id: int | None  # the place of the id; None without ids
    labels: tuple[Label, ...]  # the columns of diagnoses; several must agree
    has_header: bool  # whether the first line has the names of the columns
    has_decimal_commas: bool  # whether numbers are written like 17,99
    codes: str  # why a column is not read that may be of diagnoses
    left_out: str  # the names of columns that the model has no use for, for people

    def has_wrong_count(self, fields: Sequence[str]) -> bool:
        """Say whether a row has fields too few, or too many that are not empty."""
        return len(fields) < self.width or any(text.lower() not in BLANK for text in fields[self.width :])


Parts = tuple[tuple[int, ...], int | None, tuple[Label, ...], str, str]
"""Which column is what: measurements, id, labels, codes and what is left out, as in `Form`."""


def recognise(lines: Sequence[Sequence[str]], separator: str = "") -> Form:
    """Return the form of a table that begins with these lines, or raise a TableError that says what it is instead.

    The lines are given by their fields without spaces around them: the first, and more, since what has no name is known
    by its values. Where the separator is a comma, none is decimal.
    """
    texts = lines if separator == "," else [[text.replace(",", ".") for text in line] for line in lines]
    has_header = not _is_data(texts[0])
    header, rows = list(lines[0]), texts[has_header:]
    names = [squeeze_name(text) if has_header else "" for text in header]
    while names and re.fullmatch(r"(unnamed\d+)?", names[-1]) and _collect_values(rows, len(names) - 1) <= BLANK:
        names.pop()  # Kaggle's header ends with a comma, and the lines of others do
    if not names:
        raise TableError("it has no columns; allowed is a table with one row a patient")
    if has_header and rows and all({*map(str.lower, row[len(names) :])} - BLANK for row in rows):
        header, names = ["", *header], ["", *names]  # R has names of rows, and none for their column
    if not has_header and not header[0] and len(rows) > 1 and rows[1][0] == "0":
        raise TableError(
            "its first row has a patient where the names of the columns should be: pandas read UCI's file without "
            "header=None; read it again with it"
        )
    values = [_collect_values(rows, place) - {""} for place in range(len(names))]
    has_names = any(name in columns.ALIASES or any(stem in name for stem in columns.STEMS) for name in names)
    is_complete = set(columns.MEASUREMENTS) <= {columns.ALIASES.get(name) for name in names}
    for table, is_it in LOOK_ALIKES.items():
        if not is_complete and is_it(names, [text.lower() for text in rows[0]] if rows else []):
            raise TableError(f"this is {table}; {DIAGNOSTIC}")
    read = _read_names if has_names else _read_order
    measurements, identifier, labels, codes, left_out = read(header, names, values, len(rows), has_header=has_header)
    numbers = [line[place] for line in lines[has_header:] for place in measurements if place < len(line)]
    has_commas = separator != "," and any("," in text for text in numbers) and not any("." in text for text in numbers)
    return Form(len(names), measurements, identifier, labels, has_header, has_commas, codes, left_out)


def _collect_values(rows: Sequence[Sequence[str]], place: int) -> set[str]:
    return {row[place].lower() for row in rows if place < len(row)}


def _is_data(first: Sequence[str]) -> bool:
    """Say whether a first line is a patient, and not the names of columns, which may be consecutive numbers."""
    whole = [int(text.removesuffix(".0")) for text in first if re.fullmatch(r"[0-9]{1,18}(\.0)?", text)]
    if len(whole) >= FEW_ROWS and whole == list(range(whole[0], whole[0] + len(whole))):
        return False
    values = [text.lower().replace(",", ".") for text in first[1:] if text.lower() not in BLANK | {"?"}]
    numbers = sum(map(is_finite, values))
    is_patient = numbers > 0 and all(is_finite(text) or text in columns.WORDS for text in values)
    return is_patient or numbers >= max(FEW_ROWS, len(first) / 2)


def _is_original(names: list[str], row: list[str]) -> bool:
    scores = [text == "?" or (text.isdecimal() and 1 <= int(text) <= 10) for text in row[-10:-1]]
    has_classes = row[-1:] in (["2"], ["4"], ["2.0"], ["4.0"], ["benign"], ["malignant"])
    return (len(row) in (10, 11) and has_classes and all(scores)) or not {
        "clumpthickness", "clthickness", "clump",
    }.isdisjoint(names)  # fmt: skip


def _is_prognostic(names: list[str], row: list[str]) -> bool:
    has_rows = len(row) >= 33 and not {"n", "r"}.isdisjoint(row[:2]) and sum(map(is_finite, row)) > COUNT
    return has_rows or not {"outcome", "lymphnodestatus", "tumorsize"}.isdisjoint(names)


LOOK_ALIKES = {
    "the Original Wisconsin table, which has 699 rows of nine scores from 1 to 10 and the class 2 or 4": _is_original,
    "the Prognostic Wisconsin table (WPBC), which has 198 malignant rows with the outcome N or R and the time to it, "
    "139 of them patients of this table too": _is_prognostic,
}
"""Another table that is easily taken for this one → whether squeezed names, or a row in lower case, are of it."""


def _read_names(header: list[str], names: list[str], values: list[set[str]], rows: int, **_: bool) -> Parts:
    """Find the columns by their names."""
    known = {place: columns.ALIASES[name] for place, name in enumerate(names) if name in columns.ALIASES}
    count = Counter(known.values())
    if twice := [name for name in count if count[name] > 1]:
        raise TableError(f"the column {twice[0]} stands {count[twice[0]]} times; allowed is once")
    missing = [name for name in columns.MEASUREMENTS if name not in count]
    has_means = all(family.name.replace("_", "") in {*names, *count} for family in columns.FAMILIES)
    if missing == [*columns.MEASUREMENTS[COUNT // 3 :]] or (has_means and not count):
        raise TableError(f"it has the ten means alone; {ALL_THIRTY}")
    if missing:
        raise TableError(f"it lacks {len(missing)} of the 30 measurements: {', '.join(missing)}; allowed are {NAMED}")
    passed = {0, *known} if names[0] in columns.INDEX_NAMES else known
    others = [place for place, name in enumerate(names) if place not in passed and (name or values[place] - BLANK)]
    labels, codes = _find_labels(header, names, values, others)
    used = {*codes, *(label.place for label in labels)}
    identifier = _find_id(names, values, rows, [place for place in others if place not in used])
    used |= {place for place in others if place == identifier or names[place] == squeeze_name(columns.PROBABILITY)}
    places = {name: place for place, name in known.items()}
    return (
        tuple(places[name] for name in columns.MEASUREMENTS),
        identifier,
        labels,
        "; ".join(_explain_codes(f"the column {quote(header[place])}", values[place]) for place in codes),
        list_names(header[place] for place in others if place not in used),
    )


def _find_labels(
    header: list[str], names: list[str], values: list[set[str]], places: list[int]
) -> tuple[tuple[Label, ...], list[int]]:
    """Return the columns of diagnoses, or without any the place of one that may be of them."""
    words, targets = columns.WORDS.keys(), columns.TARGET_CODES.keys() if set(names) >= columns.SCIKIT_LEARN else set()
    named = [place for place in places if names[place] in columns.LABEL_NAMES]
    of_target = [place for place in named if names[place] == columns.TARGET and values[place] & targets]
    of_words = (
        [place for place in named if values[place] & words]
        or [place for place in places if values[place] and values[place] <= words and not of_target]
        or [place for place in named if not (values[place] and values[place] <= columns.CODES)]
    )
    meanings = dict.fromkeys(of_words, columns.WORDS) | dict.fromkeys(of_target, columns.TARGET_CODES)
    codes = [place for place in (*named, *places) if values[place] and values[place] <= columns.CODES]
    return tuple(Label(place, header[place], meanings[place]) for place in meanings), [] if meanings else codes[:1]


def _find_id(names: list[str], values: list[set[str]], rows: int, places: list[int]) -> int | None:
    """Return the place of the ids: a column called so, with many values; another name than id has one a row."""
    for name in columns.ID_NAMES:
        for place in places:
            has_ids = len(values[place]) == rows or (name == columns.ID and not _has_few(values[place], rows))
            if names[place] == name and has_ids:
                return place
    return None


def _has_few(values: set[str], rows: int) -> bool:
    return rows >= FEW_ROWS and len(values) <= FEW_VALUES


def _read_order(header: list[str], names: list[str], values: list[set[str]], rows: int, *, has_header: bool) -> Parts:
    """Find the columns by UCI's order: perhaps an id, perhaps the diagnosis, 30 measurements; or the diagnosis last."""
    start = int(has_header and names[0] in columns.INDEX_NAMES)
    of_labels = [bool(texts) and texts <= columns.WORDS.keys() for texts in values[start:]]
    if len(of_labels) > 1:  # beside an id, any text is a diagnosis, perhaps a wrong one
        of_labels[1] |= not any(map(is_finite, values[start + 1]))
    layout = "".join("L" if is_label else "#" for is_label in of_labels)
    fits = re.fullmatch(f"(#?)L?#{{{COUNT}}}L?", layout) if rows else None
    has_id = bool(fits and fits[1])
    ends = [place for place in (start, start + 1, len(names) - 1) if place < len(names)]
    codes = [place for place in ends if values[place] and values[place] <= columns.CODES]
    is_number = has_id and "L" not in layout and (codes or any("." in text for text in values[start]))
    if fits and not is_number and not (has_id and _has_few(values[start], rows)):
        places = [start + place for place, kind in enumerate(layout) if kind == "#"]
        labels = [start + place for place, kind in enumerate(layout) if kind == "L"]
        meant = tuple(Label(place, columns.DIAGNOSIS, columns.WORDS) for place in labels)
        return tuple(places[-COUNT:]), places[0] if has_id else None, meant, "", ""
    if codes and COUNT < len(layout) <= COUNT + 2:
        where = f"the column {quote(header[codes[0]])}" if has_header else f"field {codes[0] + 1} of every line"
        raise TableError(_explain_codes(where, values[codes[0]]))
    if re.fullmatch("#?L#{10}", layout):
        raise TableError(f"it has the ten means alone; {ALL_THIRTY}")
    begins = f"it begins {quote(','.join(header))}, {len(layout)} fields without a name of a measurement"
    raise TableError(
        f"{begins}; allowed are {NAMED}, or UCI's order: an id, M or B, and {COUNT} measurements; id or diagnosis may "
        f"be missing"
    )


def _explain_codes(where: str, values: set[str]) -> str:
    texts = " and ".join(sorted(values)[:FEW_VALUES])
    return (
        f"{where} holds {texts}, which stand for either diagnosis, one way in some tables and the other in others; "
        f"write M for malignant and B for benign"
    )


def quote(value: str) -> str:
    """Return a received value for a message, which it must not fill.

    >>> quote("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'"
    """
    return repr(value if len(value) <= LONGEST_QUOTE else f"{value[:LONGEST_QUOTE]}…")


def list_names(names: Iterable[str]) -> str:
    """Return received names for a message, the first of them.

    >>> list_names(["age", "Y"])
    "'age', 'Y'"
    """
    quoted = list(map(quote, names))
    more = [f"and {len(quoted) - MOST_NAMES:,} more"] if len(quoted) > MOST_NAMES else []
    return ", ".join(quoted[:MOST_NAMES] + more)


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
    """Refuse by name, in a TableError, what people and servers send instead of a table, by its first bytes."""
    content = content.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    for begins, (what, remedy) in OTHER_FILES.items():
        if content.startswith(begins):
            text = content[:10_000].decode(errors="replace")
            title = re.search(r"<title[^>]*>\s*(.{1,80}?)\s*</title>", text, flags=re.IGNORECASE | re.DOTALL)
            titled = f" titled {' '.join(title[1].split())!r}" if title else ""
            raise TableError(f"It is {what}{titled}: {remedy}")


def explain_value(column: str, value: str, allowed: str) -> str:
    """Say that a column has a value that is not allowed."""
    return f"{column} is {quote(value)}; allowed is {allowed}"
