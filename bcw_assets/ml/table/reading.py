"""Reads any form of the table row by row, in constant memory: what cannot be read spoils its own row only.

What belongs here is the stream: blocks, lines, fields. `canonical` reads the table of a training, as a whole.
"""

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO, cast

import numpy as np

from bcw_assets.errors import TableError
from bcw_assets.ml.table import columns, forms
from bcw_assets.ml.table.forms import Form

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = 1 << 16  # bytes that are read without pyarrow, whose import takes longer than they do
LARGE = 1 << 22  # bytes that are read at once
BATCH = 1 << 14  # rows of a Parquet file that are read at once
LONGEST_LINE = 1 << 20  # bytes
LONGEST_FIELD = 1 << 17  # characters that Python's csv reads
GZIP, PARQUET, BYTE_ORDER_MARK = b"\x1f\x8b", b"PAR1", b"\xef\xbb\xbf"
COUNT = len(columns.MEASUREMENTS)

# Lines that pyarrow reads as we do. Any other line is read by us, so these need not cover all that is allowed.
PLAIN_TEXT = rb'[^,"\x00-\x1f\x7f-\xff]*+'
PLAIN_NUMBER = rb"-?+[0-9]++(?:\.[0-9]*+)?+(?:[eE][-+]?+[0-9]{1,2}+)?+"
QUOTED = re.compile(rb'(?<![^,\n])"([^",\n]*+)"(?![^,\n])')  # a whole field that would be the same without its quotes


@dataclass(eq=False)
class Rows:
    """A part of a table's rows, in the order of the input.

    Attributes:
        ids: empty where a row has none that can be read.
        diagnoses: n texts, M or B, empty where none is known.
        measurements: 30 × n, in the order of `columns.MEASUREMENTS`; not a number in rows that cannot be read.
        has_diagnoses: whether the input has a column that says who was malignant.
        problems: row → why it cannot be read.
        warnings: row → what is wrong with it although it can.
    """

    ids: list[str]
    diagnoses: np.ndarray
    measurements: np.ndarray
    has_diagnoses: bool
    problems: dict[int, list[str]] = field(default_factory=dict)
    warnings: dict[int, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Block:
    """Whole lines, each ended by a line feed but perhaps the last, and the number of the first."""

    content: bytes
    line: int

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Return each line with its number."""
        return enumerate(self.content.removesuffix(b"\n").split(b"\n"), self.line)


@dataclass(frozen=True)
class Record:
    """One line."""

    identifier: str = ""
    diagnosis: str = ""
    measurements: Sequence[float] = (np.nan,) * COUNT
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_chunks(stream: BinaryIO) -> Iterator[Rows]:
    """Return the rows of any form of the table, a part at a time.

    The form is recognised by content, once: those of `canonical.read_table`, with or without diagnoses, and Parquet
    with the same names of columns. One line is one row. Rows of a form without ids are called row-0001 and so on.
    Ids and rows that stand twice are not looked for: that would need memory for all of them.

    Args:
        stream: bytes; Parquet has its table of contents at its end, so a stream of it must be seekable.

    Raises:
        TableError: it is no form of this table, or damaged as a whole; also after some rows, where gzip or Parquet is
            damaged further on, or a line is too long.
    """
    head = stream.read(len(PARQUET))
    if stream.seekable():
        stream.seek(-len(head), io.SEEK_CUR)
        whole = stream
    else:
        whole = io.BufferedReader(_Prefixed(head, stream), LARGE)
    if head == PARQUET:
        yield from _of_parquet(whole)
    elif head.startswith(GZIP):
        yield from _of_text(cast(BinaryIO, gzip.GzipFile(fileobj=whole)))
    else:
        yield from _of_text(whole)


class _Prefixed(io.RawIOBase):
    """What was read already, and then the rest."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the type of a C buffer has no name yet
        content = self._head or self._rest.read(len(buffer))
        content, self._head = content[: len(buffer)], content[len(buffer) :]
        buffer[: len(content)] = content
        return len(content)


def _of_text(stream: BinaryIO) -> Iterator[Rows]:
    reader, count = None, 0
    for block in _blocks(stream):
        if reader is None:
            form, block = _recognise(block)
            reader = form and _Reader(form)
        if reader and block.content:
            rows = reader.read(block, count + 1)
            count += len(rows)
            if rows:
                yield rows
    if reader is None:
        raise TableError(forms.EMPTY)


def _blocks(stream: BinaryIO) -> Iterator[Block]:
    """Return the lines of a stream, the first block small; every line end is a line feed."""
    rest, line, size = b"", 1, SMALL
    while piece := _read(stream, size):
        is_last, content = len(piece) < size, rest + piece
        cut = content.endswith(b"\r") and not is_last  # a line feed may follow
        content = content[: len(content) - cut]
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in content else content
        end = len(content) if is_last else content.rfind(b"\n") + 1
        rest = content[end:] + b"\r" * cut
        _require_short_lines(content, line)
        if end:
            yield Block(content[:end], line)
        line, size = line + content.count(b"\n"), LARGE
    if rest:
        yield Block(rest.removesuffix(b"\r"), line)


def _read(stream: BinaryIO, size: int) -> bytes:
    try:
        return stream.read(size)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(f"It is a damaged gzip file ({error})") from error


def _require_short_lines(content: bytes, line: int) -> None:
    position = _longer(content, LONGEST_LINE)
    if position is not None:
        number = line + content.count(b"\n", 0, position)
        raise TableError(f"Line {number} is longer than {LONGEST_LINE:,} bytes, which are allowed; one line is one row")


def _longer(content: bytes, limit: int) -> int | None:
    """Return where a line longer than the limit begins; None without one."""
    position = 0
    while len(content) - position > limit:
        end = content.rfind(b"\n", position, position + limit + 1)
        if end < 0:
            return position
        position = end + 1
    return None


def _recognise(block: Block) -> tuple[Form | None, Block]:
    """Return the form of the input that begins with this block, and its lines after the header; None if it is blank."""
    content = block.content
    if block.line == 1:
        forms.refuse_other_files(content)
        content = content.removeprefix(BYTE_ORDER_MARK)
    for number, line in Block(content, block.line).lines():
        fields = _first_fields(number, line, content)
        if any(fields):
            try:
                form = forms.recognise(fields)
            except TableError as error:
                raise TableError(f"Line {number}: {error}") from error
            rest = content.partition(line)[2].removeprefix(b"\n") if form.has_header else content
            return form, Block(rest, number + 1 if form.has_header else block.line)
    return None, block


def _first_fields(number: int, line: bytes, content: bytes) -> list[str]:
    """Return the fields of a line from which the form is recognised; without them nothing can be."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise TableError(forms.not_utf8(number, line[error.start])) from error
    if "\0" in text:
        raise TableError(forms.holds_nul(number))
    forms.refuse_other_texts(content.decode(errors="replace") if text.strip() else "")
    try:
        return _split(text)
    except csv.Error as error:
        raise TableError(forms.not_csv(number, error)) from error


def _split(text: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([text], strict=True), [])]


class _Reader:
    """Reads blocks of one form: most lines by pyarrow, and those that it refuses, or would read otherwise, exactly."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._positions = [form.position(name) for name in columns.MEASUREMENTS]
        self._has_diagnoses = columns.DIAGNOSIS in form.columns
        self._labels = " or ".join(form.labels)

    def read(self, block: Block, first: int) -> Rows:
        """Return the rows of a block, the first of which is the `first` of the input."""
        rows = None
        if len(block.content) > SMALL:
            rows = self._read_by_arrow(block.content) or self._read_mixed(block)
        rows = rows or self._merge([self._read_record(number, line) for number, line in block.lines()])
        if columns.ID not in self._form.columns:
            rows.ids = name_rows(first, len(rows))
        return rows

    def _read_record(self, number: int, line: bytes) -> Record | None:
        """Return one line as exactly as `canonical` reads it; None for an empty one."""
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            return Record(problems=(forms.not_utf8(number, line[error.start]),))
        if "\0" in text:
            return Record(problems=(forms.holds_nul(number),))
        try:
            fields = _split(text)
        except csv.Error as error:
            return Record(problems=(forms.not_csv(number, error),))
        if not any(fields):
            return None
        if forms.has_wrong_count(fields, self._form):
            return Record(problems=(forms.wrong_count(number, len(fields), self._form),))
        return self._read_fields(f"Line {number}", fields)

    def _read_fields(self, where: str, fields: list[str]) -> Record:
        identifier, problems = self._read_id(where, fields)
        texts = [fields[position] for position in self._positions]
        wrong = [name for name, text in zip(columns.MEASUREMENTS, texts, strict=True) if not forms.is_finite(text)]
        if wrong:
            first = min(wrong, key=self._form.position)
            problems.append(
                f"{where}: {forms.explain_value(first, fields[self._form.position(first)], forms.NUMBER_IS)}"
            )
        text = fields[self._form.position(columns.DIAGNOSIS)] if self._has_diagnoses else ""
        return Record(
            identifier,
            self._form.labels.get(text, ""),
            Record.measurements if problems else [float(text) + 0.0 for text in texts],
            tuple(problems),
            tuple(self.check_label(text)),
        )

    def _read_id(self, where: str, fields: list[str]) -> tuple[str, list[str]]:
        if columns.ID not in self._form.columns:
            return "", []
        identifier = fields[self._form.position(columns.ID)]
        if forms.is_id(identifier):
            return identifier, []
        return "", [f"{where}: {forms.explain_value(columns.ID, identifier, forms.PRINTABLE)}"]

    def check_label(self, diagnosis: str) -> list[str]:
        """Return the warning of a label that is none: without it the row can be scored all the same."""
        if diagnosis in self._form.labels or not diagnosis:
            return []
        return [forms.explain_value(columns.DIAGNOSIS, diagnosis, self._labels)]

    def _read_mixed(self, block: Block) -> Rows | None:
        """Return the rows of a block in which pyarrow refuses some lines; None if it refuses plain ones."""
        records: list[Record | None] = []
        plain: list[bytes] = []
        for number, line in block.lines():
            if self._plain.fullmatch(line):
                plain.append(line)
                records.append(None)
            elif record := self._read_record(number, line):
                records.append(record)
        if not plain:
            return self._merge(records)
        rows = self._read_by_arrow(b"\n".join(plain))
        return rows and self._merge(records, rows)

    def _merge(self, records: Sequence[Record | None], plain: Rows | None = None) -> Rows:
        """Return records, and in the places of those that are None the plain rows or, without any, nothing."""
        if plain is None:
            records = [record for record in records if record]
        n = len(records)
        merged = Rows([""] * n, np.zeros(n, dtype="<U1"), np.empty((COUNT, n)), self._has_diagnoses)
        for row, record in enumerate(records):
            if record:
                merged.ids[row], merged.diagnoses[row] = record.identifier, record.diagnosis
                merged.measurements[:, row] = record.measurements
                if record.problems:
                    merged.problems[row] = list(record.problems)
                if record.warnings:
                    merged.warnings[row] = list(record.warnings)
        if plain:
            places = [row for row, record in enumerate(records) if record is None]
            merged.diagnoses[places], merged.measurements[:, places] = plain.diagnoses, plain.measurements
            for place, identifier in zip(places, plain.ids, strict=True):
                merged.ids[place] = identifier
            merged.warnings |= {places[row]: warnings for row, warnings in plain.warnings.items()}
        return merged

    @cached_property
    def _plain(self) -> re.Pattern[bytes]:
        kinds = [PLAIN_NUMBER if name in columns.MEASUREMENTS else PLAIN_TEXT for name in self._form.columns]
        return re.compile(b",".join(kinds) + rb",*+")

    def _read_by_arrow(self, content: bytes) -> Rows | None:
        """Return the rows that pyarrow reads as we would; None if it would read any otherwise, or not at all."""
        content = content.lstrip(b"\n")
        if b'"' in content:
            content = QUOTED.sub(rb"\1", content)
        if b'"' in content or b"\0" in content or content.startswith(BYTE_ORDER_MARK) or not content:
            return None
        if _longer(content, LONGEST_FIELD) is not None:
            return None
        table = self._parse_by_arrow(content)
        if table is None:
            return None
        measurements = np.empty((COUNT, table.num_rows))
        for row, name in enumerate(columns.MEASUREMENTS):
            np.add(_array(table[name].combine_chunks()), 0.0, out=measurements[row])  # -0.0 and 0.0 are one number
        ids = _ids(table[columns.ID].combine_chunks()) if columns.ID in self._form.columns else [""] * table.num_rows
        if ids is None or not np.isfinite(measurements).all():
            return None
        return self._fill_in_diagnoses(
            Rows(ids, np.zeros(len(ids), dtype="<U1"), measurements, self._has_diagnoses), table
        )

    def _parse_by_arrow(self, content: bytes) -> "pa.Table | None":
        import pyarrow as pa  # 0.05 s, which a short table does without
        import pyarrow.csv as pa_csv

        count = len(self._form.columns)
        more = content.partition(b"\n")[0].count(b",") + 1 - count
        if more < 0:
            return None
        extra = [f"extra_{number}" for number in range(more)]  # empty fields at the end of a line
        names = [*self._form.columns, *extra]
        types = dict.fromkeys(names, pa.string()) | dict.fromkeys(columns.MEASUREMENTS, pa.float64())
        types |= {columns.DIAGNOSIS: pa.dictionary(pa.int32(), pa.string())}
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(content),
                pa_csv.ReadOptions(column_names=names, block_size=len(content)),  # in one piece: no copies
                pa_csv.ParseOptions(quote_char=False),
                pa_csv.ConvertOptions(column_types=types, null_values=[]),
                pa.system_memory_pool(),  # its own keeps more memory, the longer the input
            )
        except pa.ArrowInvalid:
            return None
        filled = any(any(table[name].to_pylist()) for name in extra)
        return None if filled else table

    def _fill_in_diagnoses(self, rows: Rows, table: "pa.Table") -> Rows:
        if self._has_diagnoses:
            column = table[columns.DIAGNOSIS].unify_dictionaries().combine_chunks()
            texts = [text.strip() for text in column.dictionary.to_pylist()]
            places = _array(column.indices)
            rows.diagnoses = np.array([self._form.labels.get(text, "") for text in texts], dtype="<U1")[places]
            for place, text in enumerate(texts):
                if warnings := self.check_label(text):
                    rows.warnings |= {row: list(warnings) for row in np.flatnonzero(places == place).tolist()}
        return rows


def name_rows(first: int, count: int) -> list[str]:
    """Return the names of rows without ids.

    >>> name_rows(9, 2)
    ['row-0009', 'row-0010']
    """
    return [f"row-{number:04}" for number in range(first, first + count)]


def _ids(array: "pa.StringArray") -> list[str] | None:
    """Return the ids of a column; None if one is not allowed."""
    ids: list[str] = array.to_pylist()
    text = "".join(ids)
    if text.isascii() and text.isprintable() and " " not in text:
        are_ids = min(map(len, ids)) > 0 and max(map(len, ids)) <= forms.LONGEST_ID
    else:
        ids = [identifier.strip() for identifier in ids]
        are_ids = all(map(forms.is_id, ids))
    return ids if are_ids else None


def _of_parquet(stream: BinaryIO) -> Iterator[Rows]:
    import pyarrow as pa  # 0.2 s, which other tables do without
    import pyarrow.parquet as pa_parquet

    try:
        table = pa_parquet.ParquetFile(stream)
        form = _columns(table.schema_arrow)
        count = 0
        for batch in table.iter_batches(BATCH):
            yield _of_batch(form, batch.rename_columns(form.columns), count + 1)
            count += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"It is a damaged Parquet file ({str(error).partition(chr(10))[0]})") from error


def _columns(schema: "pa.Schema") -> Form:
    """Return the form that the names of a Parquet file's columns are, once their types can be used."""
    import pyarrow as pa

    form = forms.recognise([name.strip() for name in schema.names] or [""])
    if not form.has_header:
        raise TableError("its columns have no names; allowed are those of raw_data.csv")
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
    texts = (pa.types.is_integer, pa.types.is_string, pa.types.is_large_string, pa.types.is_dictionary)
    for name, column in zip(form.columns, schema, strict=False):
        allowed = numbers if name in columns.MEASUREMENTS else texts
        if name != columns.PROBABILITY and not any(is_kind(column.type) for is_kind in allowed):
            what = "numbers" if name in columns.MEASUREMENTS else "texts or whole numbers"
            raise TableError(f"the column {forms.quote(column.name)} is of the type {column.type}; allowed are {what}")
    return form


def _of_batch(form: Form, batch: "pa.RecordBatch", first: int) -> Rows:
    reader = _Reader(form)
    numbers = np.array([_numbers(batch[name]) for name in columns.MEASUREMENTS]).reshape(COUNT, -1) + 0.0
    ids = _texts(batch[columns.ID]) if columns.ID in form.columns else name_rows(first, batch.num_rows)
    labels = _texts(batch[columns.DIAGNOSIS]) if columns.DIAGNOSIS in form.columns else [""] * len(ids)
    diagnoses = [form.labels.get(label, "") for label in labels]
    rows = Rows(ids, np.array(diagnoses, dtype="<U1"), numbers, columns.DIAGNOSIS in form.columns)
    rows.warnings = {row: warning for row, label in enumerate(labels) if (warning := reader.check_label(label))}
    return _note_problems(rows, first)


def _note_problems(rows: Rows, first: int) -> Rows:
    """Note what is wrong with ids and numbers."""
    for row, identifier in enumerate(rows.ids):
        if not forms.is_id(identifier):
            rows.ids[row] = ""
            rows.problems[row] = [f"Row {first + row}: {forms.explain_value(columns.ID, identifier, forms.PRINTABLE)}"]
    wrong = ~np.isfinite(rows.measurements)
    for row in np.flatnonzero(wrong.any(axis=0)).tolist():
        place = int(wrong[:, row].argmax())
        problem = forms.explain_value(columns.MEASUREMENTS[place], str(rows.measurements[place, row]), forms.NUMBER_IS)
        rows.problems.setdefault(row, []).append(f"Row {first + row}: {problem}")
    rows.measurements[:, list(rows.problems)] = np.nan
    return rows


def _numbers(column: "pa.Array") -> np.ndarray:
    """Return a column as floats; what is missing is not a number."""
    import pyarrow as pa

    floats = column.cast(pa.float64(), safe=False)  # a whole number of 17 digits may lose its last
    return np.array(floats.to_pylist(), dtype=np.float64) if floats.null_count else _array(floats)


def _array(column: "pa.Array") -> np.ndarray:
    """Return a column without missing values as it is in memory; to_numpy would import pandas, which takes 0.4 s."""
    return np.from_dlpack(column) if len(column) else np.zeros(0)


def _texts(column: "pa.Array") -> list[str]:
    """Return a column as texts; what is missing is empty."""
    import pyarrow as pa

    return [(text or "").strip() for text in column.cast(pa.string()).to_pylist()]
