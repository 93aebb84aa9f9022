"""Recognises the form of a table by its first lines, and refuses by name what is easily taken for it.

What belongs here is which column is what, and what is said of a field. `reading` gets the lines out of a file.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import NamedTuple

import numpy as np

from bcw_assets.errors import TableError
from bcw_assets.ml.table import columns, rules
from bcw_assets.ml.table.columns import squeeze_name

# Only what Python's float() and C's strtod agree on: no 1_000, no nan, no digits of other scripts.
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LONGEST_ID = 100
LONGEST_QUOTE = 60  # characters of a value in a message
MOST_NAMES = 10  # of files or columns in a message
PRINTABLE = f"a printable text on one line, of at most {LONGEST_ID} characters"
NUMBER_IS = "a finite decimal number with a point, like 17.99"
COMMA_NUMBER_IS = "a finite decimal number with a comma and without points, like 1001,5"
LABEL_IS = "M or B"
TARGET_IS = "0, which is malignant here, or 1"
EMPTY = "It is empty; allowed is a table with one row a patient"
COUNT = len(columns.MEASUREMENTS)
NAMED = f"names like {', '.join(columns.MEASUREMENTS[:: COUNT // 3])}, those of UCI's API or those of scikit-learn"
ALL_THIRTY = f"this model needs all thirty measurements, with {NAMED}"
BLANK = frozenset(("", "na", "nan"))
OUTPUT = squeeze_name(columns.PROBABILITY)
FEW_ROWS, FEW_VALUES = 10, 3  # from how many rows a column of so few values is no id

OTHER_FILES = rules.read_data("other_files.csv")  # how a file begins, without marks and blanks before a text
LOOK_ALIKES = rules.read_data("look_alikes.csv")  # squeezed names that other tables have, and how their rows begin


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
    codes: str = ""  # why a column is not read that may be of diagnoses
    left_out: str = ""  # the names of columns that the model has no use for, for people
    unit: str = "Row"  # what a row is for people, or Line
    has_header: bool = True  # whether the first line has the names of the columns
    has_decimal_commas: bool = False  # whether numbers are written like 17,99

    def name_row(self, number: int, identifier: str) -> str:
        """Say which row is meant, and whose it is if that is known."""
        return f"{self.unit} {number}" + (f", id {identifier}" if identifier else "")

    def explain_count(self, fields: Sequence[str]) -> str:
        """Return what is wrong with the number of fields; nothing if only empty ones follow the last column."""
        if len(fields) < self.width:
            return f"it has {len(fields)} fields; allowed are {self.width}"
        more = [text for text in fields[self.width :] if text.lower() not in BLANK]
        return f"it has {quote(more[0])} after its {self.width} fields; allowed is nothing there" if more else ""


class _Column(NamedTuple):
    place: int
    title: str  # what the first line says
    name: str  # the same without what writers differ in; empty without a header
    texts: list[str]  # in lower case and with decimal points; empty where a row is too short
    values: set[str]  # the different texts, without the empty one

    @property
    def is_distinct(self) -> bool:
        return len(self.values) == len(self.texts)

    @property
    def has_few(self) -> bool:
        return len(self.texts) >= FEW_ROWS and len(self.values) <= FEW_VALUES


def recognise(lines: Sequence[Sequence[str]], separator: str = "") -> Form:
    """Return the form of a table that begins with these lines, or raise a TableError that says what it is instead.

    The lines are given by their fields without spaces around them: the first, and more, since what has no name is known
    by its values. Where the separator is a comma, none is decimal; what is no text has none.
    """
    first, has_header = lines[0], not _is_data(lines[0])
    rows = lines[has_header:]
    if not has_header or all(len(row) <= len(first) for row in rows):
        return _try_header(first, rows, separator, has_header=has_header)
    # R has names of rows, and none for their column; or a row has a field too many. In the wrong reading all columns
    # are moved by one, and rows break rules.
    readings = []
    for header in (first, ["", *first]):
        with suppress(TableError):
            readings.append(_try_header(header, rows, separator, has_header=True))
    if not readings:
        return _try_header(first, rows, separator, has_header=True)  # raises what is wrong
    return min(readings, key=lambda form: _count_breaches(form, rows))


def _try_header(header: Sequence[str], rows: Sequence[Sequence[str]], separator: str, *, has_header: bool) -> Form:
    table = []
    for place, title in enumerate(header):
        texts = [row[place].lower() if place < len(row) else "" for row in rows]
        texts = texts if separator == "," else [text.replace(",", ".") for text in texts]
        table.append(_Column(place, title, squeeze_name(title) if has_header else "", texts, {*texts} - {""}))
    while table and re.fullmatch(r"(unnamed\d+)?", table[-1].name) and table[-1].values <= BLANK:
        table.pop()  # Kaggle's header ends with a comma, and the lines of others do
    if not table:
        raise TableError("it has no columns; allowed is a table with one row a patient")
    names = [column.name for column in table]
    two_rows = "\n".join(map(",".join, islice(zip(*(column.texts for column in table), strict=True), 2)))
    is_complete = set(columns.MEASUREMENTS) <= {columns.ALIASES.get(name) for name in names}
    for other in LOOK_ALIKES:
        has_name = not set(names).isdisjoint(other["names"].split())
        if not is_complete and (has_name or re.match(other["rows"], two_rows, re.MULTILINE)):
            raise TableError(f"this is {other['table']}")
    has_names = any(name in columns.ALIASES or columns.STEMS.search(name) for name in names)
    form = _read_names(table) if has_names else _read_order(table, has_header=has_header)
    numbers = [row[place] for row in rows for place in form.measurements if place < len(row)]
    commas, points = sum("," in text for text in numbers), sum("." in text and "," not in text for text in numbers)
    has_commas, unit = separator != "," and commas > points, "Line" if separator else "Row"
    return replace(form, unit=unit, has_header=has_header, has_decimal_commas=has_commas)


def _count_breaches(form: Form, rows: Sequence[Sequence[str]]) -> int:
    """Return how often rows break a hard rule; what is no number breaks all."""
    texts = [[row[place].replace(",", ".") if place < len(row) else "" for row in rows] for place in form.measurements]
    numbers = np.array([[float(text) if is_finite(text) else math.nan for text in column] for column in texts])
    values = dict(zip(columns.MEASUREMENTS, numbers, strict=True))
    return sum(int(rule.is_broken(values).sum()) for rule in rules.HARD)


def _find_start(texts: Sequence[str]) -> int | None:
    """Return where whole numbers begin that count up by one; None if the texts are others."""
    if not all(re.fullmatch(r"[0-9]{1,18}(\.0)?", text) for text in texts):
        return None
    starts = {int(text.removesuffix(".0")) - place for place, text in enumerate(texts)} or {0}
    return starts.pop() if len(starts) == 1 else None


def _is_index(column: _Column) -> bool:
    return column.name in columns.INDEX_NAMES and _find_start(column.texts) in (0, 1)


def _is_data(first: Sequence[str]) -> bool:
    """Say whether a first line is a patient, and not the names of columns, which may be consecutive numbers."""
    whole = [text for text in first if _find_start([text]) is not None]
    if len(whole) >= FEW_ROWS and _find_start(whole) is not None:
        return False
    values = [text.lower().replace(",", ".") for text in first[1:] if text.lower() not in BLANK | {"?"}]
    numbers = sum(map(is_finite, values))
    is_patient = numbers > 0 and all(is_finite(text) or text in columns.WORDS for text in values)
    return is_patient or numbers >= max(FEW_ROWS, len(first) / 2)


def _read_names(table: list[_Column]) -> Form:
    names = [column.name for column in table]
    count = Counter(columns.ALIASES[name] for name in names if name in columns.ALIASES)
    if twice := [name for name in count if count[name] > 1]:
        raise TableError(f"the column {twice[0]} stands {count[twice[0]]} times; allowed is once")
    missing = [name for name in columns.MEASUREMENTS if name not in count]
    has_means = all(family.name.replace("_", "") in {*names, *count} for family in columns.FAMILIES)
    if missing == [*columns.MEASUREMENTS[COUNT // 3 :]] or (has_means and not count):
        raise TableError(f"it has the ten means alone; {ALL_THIRTY}")
    others = [column for column in table if column.name not in columns.ALIASES]
    if missing:
        unknown = list_names(column.title for column in others if columns.STEMS.search(column.name))
        unclear = f", and has {unknown}: write names without units and other words" if unknown else ""
        lacks = f"it lacks {len(missing)} of the {COUNT} measurements: {', '.join(missing)}"
        raise TableError(f"{lacks}{unclear}; allowed are {NAMED}")
    others = [column for column in others if (column.name or column.values - BLANK) and not _is_index(column)]
    identifier = _find_id(others)
    others = [column for column in others if column is not identifier]
    labels, codes = _find_labels(others, has_target=columns.SCIKIT_LEARN.issubset(names))
    used = {*(label.place for label in labels), codes.place if codes else None}
    left_out = [column for column in others if column.place not in used and column.name != OUTPUT]
    places = {columns.ALIASES.get(name): place for place, name in enumerate(names)}
    return Form(
        len(table),
        tuple(places[name] for name in columns.MEASUREMENTS),
        identifier.place if identifier else None,
        labels,
        _explain_codes(f"the column {quote(codes.title)}", codes.values) if codes else "",
        list_names(column.title for column in left_out),
    )


def _find_id(table: list[_Column]) -> _Column | None:
    """Return the ids: a column called so, with many values; another name than id has one a row."""
    ids = [column for column in table if column.name in columns.ID_NAMES]
    ids = [column for column in ids if column.is_distinct or (column.name == columns.ID and not column.has_few)]
    return min(ids, key=lambda column: columns.ID_NAMES.index(column.name), default=None)


def _find_labels(table: list[_Column], *, has_target: bool) -> tuple[tuple[Label, ...], _Column | None]:
    """Return the columns of diagnoses, or without any one that may be of them.

    A column is of diagnoses if it is called so and holds nothing else; by any name if it has both, or a whole word: all
    patients may be of one sex, M, or one side of the body, B.
    """
    both = [column for column in table if {*map(columns.WORDS.get, column.values)}.issuperset(columns.LABELS)]
    only = [column for column in table if column.values <= columns.WORDS.keys()]
    named = [column for column in table if column.name in columns.LABEL_NAMES]
    codes = [column for column in (*named, *table) if column.values and column.values <= columns.CODES]
    sure = [column for column in named if column.name == columns.DIAGNOSIS and column not in codes]
    words = [column for column in named if column in (*both, *(sure or only))]
    targets = [column for column in named if column.name == columns.TARGET and has_target]
    targets = [column for column in targets if column.values & columns.TARGET_CODES.keys()]
    if not words and not targets:
        words = [column for column in only if column in both or not column.values.isdisjoint(columns.WHOLE_WORDS)]
    readable = [*((column, columns.WORDS) for column in words), *((column, columns.TARGET_CODES) for column in targets)]
    for column, (other, meanings) in product(codes, readable):
        pairs = set(zip(column.texts, map(meanings.get, other.texts), strict=True))
        if column.name == columns.DIAGNOSIS and sum(map(all, pairs)) > len(column.values):  # a code beside both
            return (), column
    labels = tuple(Label(column.place, column.title or columns.DIAGNOSIS, meanings) for column, meanings in readable)
    return labels, codes[0] if codes and not readable else None


def _read_order(table: list[_Column], *, has_header: bool) -> Form:
    """Find the columns by UCI's order: perhaps an id, perhaps the diagnosis, 30 measurements; or the diagnosis last."""
    start = int(has_header and table[0].name in columns.INDEX_NAMES)
    first, *rest = table[start:] or table
    layout = ["L" if column.values and column.values <= columns.WORDS.keys() else "#" for column in (first, *rest)]
    if rest and not any(map(is_finite, rest[0].values)):  # beside an id, any text is a diagnosis, perhaps a wrong one
        layout[1] = "L"
    fits = re.fullmatch(f"(#?)L?#{{{COUNT}}}L?", "".join(layout)) if first.texts else None
    has_id = bool(fits and fits[1])
    codes = [column for column in (first, *rest[:1], *rest[-1:]) if column.values and column.values <= columns.CODES]
    if has_id and first.is_distinct:  # the first patients may be called 1 and 2
        codes = [column for column in codes if column is not first]
    is_number = has_id and "L" not in layout and (codes or any("." in text for text in first.values))
    if fits and not is_number and not (has_id and first.has_few):
        places = [start + place for place, kind in enumerate(layout) if kind == "#"]
        labels = [start + place for place, kind in enumerate(layout) if kind == "L"]
        return Form(
            len(table),
            tuple(places[-COUNT:]),
            start if has_id else None,
            tuple(Label(place, columns.DIAGNOSIS, columns.WORDS) for place in labels),
            left_out=list_names(column.title for column in table[:start] if not _is_index(column)),
        )
    if codes and COUNT < len(layout) <= COUNT + 2:
        where = f"the column {quote(codes[0].title)}" if has_header else f"field {codes[0].place + 1} of every line"
        raise TableError(_explain_codes(where, codes[0].values))
    if re.fullmatch("#?L#{10}", "".join(layout)):
        raise TableError(f"it has the ten means alone; {ALL_THIRTY}")
    begins = f"it begins {quote(','.join(column.title for column in table))}"
    raise TableError(
        f"{begins}, {len(layout)} fields without a name of a measurement; allowed are {NAMED}, or UCI's order: an id, "
        f"M or B, and {COUNT} measurements; id or diagnosis may be missing"
    )


def _explain_codes(where: str, values: set[str]) -> str:
    texts = " and ".join(sorted(values)[:FEW_VALUES])
    return (
        f"{where} holds {texts}, which stand for either diagnosis, one way in some tables and the other in others; "
        f"write M for malignant and B for benign"
    )


def quote(value: str) -> str:
    """Return a received value for a message, which it must not fill."""
    return repr(value if len(value) <= LONGEST_QUOTE else f"{value[:LONGEST_QUOTE]}…")


def list_names(names: Iterable[str]) -> str:
    """Return received names for a message, the first of them."""
    quoted = [quote(name) if name else "a column without a name" for name in names]
    more = [f"and {len(quoted) - MOST_NAMES:,} more"] if len(quoted) > MOST_NAMES else []
    return ", ".join(quoted[:MOST_NAMES] + more)


def is_finite(text: str) -> bool:
    """Say whether a field is a number as the table's are."""
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def refuse_other_files(content: bytes) -> None:
    """Refuse by name, in a TableError, what people and servers send instead of a table, by its first bytes."""
    content = content.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    begins = "|".join(f"({file['begins']})" for file in OTHER_FILES).encode()
    if kind := re.match(begins, content, re.DOTALL):
        file = OTHER_FILES[(kind.lastindex or 0) - 1]
        raise TableError(f"It is {file['what']}: {file['remedy']}")


def explain_value(column: str, value: str, allowed: str) -> str:
    """Say that a column has a value that is not allowed."""
    return f"{column} is {quote(value)}; allowed is {allowed}"
