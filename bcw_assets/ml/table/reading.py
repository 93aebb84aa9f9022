"""Reads any form of the table, some rows at a time: what cannot be read spoils its own row only.

What belongs here are containers, lines and fields. Which column is what is for `forms`, sense for `rules`.
"""

import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from lzma import LZMAError
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np

from bcw_assets.errors import TableError
from bcw_assets.ml.table import columns, forms
from bcw_assets.ml.table.forms import COUNT, Form, Label

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = 1 << 16  # bytes that are read without pyarrow, whose import takes longer than they do
BLOCK = 1 << 22  # bytes that are read at once
BATCH = 1 << 14  # rows of a Parquet file or a spreadsheet that are read at once
HEAD = 1 << 13  # bytes by which a kind of file is known
SAMPLE = 1000  # rows by which columns without names are known
LONGEST_LINE = 1 << 20  # bytes
GZIP, PARQUET, ZIP, OLD_EXCEL = b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\xd0\xcf\x11\xe0"
ENDS_WITH_INDEX = (PARQUET, ZIP, OLD_EXCEL)
"""How files begin that can only be read from a stream that is seekable."""
UTF_8_MARK, UTF_16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
UCI_TABLE = "wdbc.data"  # in UCI's archive, beside a description
SPREADSHEET = {"[Content_Types].xml", "mimetype"}  # members that tell Excel's and LibreOffice's files from other zips
LARGEST_SPREADSHEET = 1 << 30  # bytes, unpacked: it is read whole
QUOTED = re.compile(rb'(?<![^,;\t\n])"([^",;\t\n]*+)"(?![^,;\t\n])')  # a whole field, the same without its quotes
FILLED = re.compile(rb'[^\s,;"]')  # what a line that is not empty has
DAMAGES = (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError, RuntimeError, UnicodeError)  # of packed files


@dataclass(eq=False)
class Rows:
    """A part of a table's rows, in the order of the input."""

    ids: list[str]  # empty where a row has none that can be read
    diagnoses: np.ndarray  # n texts, M or B, empty where none is known
    measurements: np.ndarray  # 30 × n, in the order of `columns.MEASUREMENTS`; NaN in rows that cannot be read
    problems: dict[int, list[str]] = field(default_factory=dict)  # row → why it cannot be read
    warnings: dict[int, list[str]] = field(default_factory=dict)  # row → what is wrong with it although it can
    lines: Sequence[int] = ()  # where each row stands in the input, counted from 1

    def __len__(self) -> int:
        return len(self.ids)


class Block(NamedTuple):
    """Whole lines, each ended by a line feed but perhaps the last, and the number of the first."""

    content: bytes
    line: int


class Record(NamedTuple):
    """The fields of a row without spaces around them, where it stands, and why it has none."""

    line: int
    fields: Sequence[str]
    problem: str = ""


Texts = tuple[np.ndarray, list[str]]
"""A column: for every row the place of its text, and the texts."""


def read_rows(stream: BinaryIO) -> tuple[Form, Iterator[Rows]]:
    """Return the form of a table, recognised by content, and its rows, a part at a time.

    CSV with commas, semicolons or tabs, in UTF-8 or UTF-16, as it is or in gzip or a zip; Parquet; Excel and ODS. One
    line is one row. Rows of a form without ids are called row-0001 and so on. Ids and rows that stand twice are not
    looked for: that would need memory for all of them. The stream must be seekable if it begins as `ENDS_WITH_INDEX`
    says. What is no form of this table, or damaged, raises TableError, and a damage further on does in the iterator.
    """
    with _explain_damage():
        form, parts = _open(stream, is_packed=False)
    return form, _name_rows(form, parts)


@contextmanager
def _explain_damage(*more: type[Exception]) -> Iterator[None]:
    failures: tuple[type[Exception], ...] = (*DAMAGES, *more)
    try:
        yield
    except failures as error:
        if isinstance(error, OSError) and error.errno:  # the input could not be read, whatever is in it
            raise
        raise TableError(f"It cannot be read as what it begins as ({str(error).partition(chr(10))[0]})") from error


def _open(stream: BinaryIO, *, is_packed: bool) -> tuple[Form, Iterator[Rows]]:
    """Find out by its first bytes what a stream is."""
    head = _peek(stream)
    if head.startswith(PARQUET):
        return _read_parquet(stream)
    if head.startswith(OLD_EXCEL):
        return _read_spreadsheet(stream)
    if head.startswith((ZIP, GZIP)) and is_packed:
        raise TableError("It is packed twice; unpack it once")
    if head.startswith(ZIP):
        archive = zipfile.ZipFile(stream)
        if SPREADSHEET.isdisjoint(archive.namelist()):
            return _open(_open_member(archive), is_packed=True)
        if sum(member.file_size for member in archive.infolist()) > LARGEST_SPREADSHEET:
            raise TableError(f"It is a spreadsheet of more than {LARGEST_SPREADSHEET:,} bytes; save it as CSV")
        return _read_spreadsheet(stream)
    if head.startswith(GZIP):
        return _open(cast(BinaryIO, gzip.GzipFile(fileobj=stream)), is_packed=True)
    forms.refuse_other_files(head)
    if head.startswith(UTF_16_MARKS):
        return _read_text(cast(BinaryIO, codecs.EncodedFile(stream, "utf-8", "utf-16")))
    return _read_text(stream)


def _peek(stream: BinaryIO) -> bytes:
    if hasattr(stream, "peek"):
        return bytes(stream.peek(HEAD))
    head = stream.read(HEAD)
    stream.seek(-len(head), io.SEEK_CUR)
    return head


def _open_member(archive: zipfile.ZipFile) -> BinaryIO:
    """Open the one table in a zip."""
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    tables = [name for name in names if name == UCI_TABLE] or names
    if len(tables) != 1:
        first = forms.list_names(names)
        raise TableError(f"It is a zip with {len(names)} files ({first}); allowed is one: unpack it and give the table")
    return cast(BinaryIO, archive.open(tables[0]))


def _name_rows(form: Form, parts: Iterable[Rows]) -> Iterator[Rows]:
    count = 0
    with _explain_damage():
        for rows in parts:
            if form.id is None:
                rows.ids = [f"row-{number:04}" for number in range(count + 1, count + len(rows) + 1)]
            count += len(rows)
            if rows:
                yield rows


def _read_text(stream: BinaryIO) -> tuple[Form, Iterator[Rows]]:
    blocks = _split_blocks(stream)
    first = next((block for block in blocks if FILLED.search(block.content)), None)
    if first is None:
        raise TableError(forms.EMPTY)
    reader, rest = _recognise(first)
    return reader.form, chain.from_iterable(map(reader.read, chain([rest], blocks)))


def _split_blocks(stream: BinaryIO) -> Iterator[Block]:
    """Return the lines of a stream, the first block small; every line end is a line feed."""
    rest, line, size = b"", 1, SMALL
    while piece := stream.read(size):
        content = rest + (piece if size == BLOCK else piece.removeprefix(UTF_8_MARK))
        cut = len(content) - content.endswith(b"\r")  # a line feed may follow
        content, after, size = content[:cut], content[cut:], BLOCK
        if b"\r" in content:
            content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = content.rfind(b"\n") + 1
        rest = content[end:] + after
        if end:
            yield Block(content[:end], line)
        line += content.count(b"\n", 0, end)
        if len(rest) > LONGEST_LINE:
            raise TableError(f"Line {line} is longer than {LONGEST_LINE:,} bytes, which are allowed; a line is a row")
    if rest:
        yield Block(rest.removesuffix(b"\r"), line)


def _recognise(block: Block) -> tuple["_Reader", Block]:
    """Return a reader of the form that the input has, and the lines of its first block that are rows."""
    lines = block.content.split(b"\n")
    filled = [place for place, line in enumerate(lines) if FILLED.search(line)]
    mark = re.fullmatch(rb'"?sep=(.)"?', lines[filled[0]])  # Excel's line
    filled = filled[bool(mark) : SAMPLE] or [0]
    unquoted = re.sub(rb'"[^"]*"', b"", lines[filled[0]])
    separator = mark[1].decode() if mark else next((each for each in "\t;" if unquoted.count(each.encode()) > 4), ",")
    first, *more = (_split_line(block.line + place, lines[place], separator) for place in filled)
    if first.problem:
        raise TableError(first.problem)
    try:
        form = forms.recognise([first.fields, *(record.fields for record in more if any(record.fields))], separator)
    except TableError as error:
        raise TableError(f"Line {first.line}: {error}") from error
    start = filled[0] + form.has_header
    return _Reader(form, separator), Block(b"\n".join(lines[start:]), block.line + start)


def _split_line(number: int, line: bytes, separator: str) -> Record:
    """Return the fields of a line, or what is wrong with it."""
    try:
        fields = next(csv.reader([line.decode()], strict=True, delimiter=separator), [])
    except UnicodeDecodeError as error:
        problem = f"holds the byte 0x{line[error.start]:02x}, which is not UTF-8; save it as CSV in UTF-8"
    except csv.Error as error:
        problem = f"is not CSV: {error}; one line is one row"
    else:
        if b"\0" not in line:
            return Record(number, [text.strip() for text in fields])
        problem = "holds a NUL byte: it is binary, or UTF-16 without a mark of it; allowed is CSV in UTF-8"
    return Record(number, (), f"Line {number} {problem}")


class _Reader:
    """Reads rows of one form: most lines by pyarrow, and those near one that it refuses or would misread, exactly."""

    def __init__(self, form: Form, separator: str = "") -> None:
        self.form = form
        self._separator = separator

    def read(self, block: Block) -> Iterator[Rows]:
        """Return the rows of a block, which is divided until what pyarrow cannot read is in small parts."""
        content = block.content
        middle = content.find(b"\n", len(content) // 2) + 1
        if len(content) > SMALL and (rows := self._read_by_arrow(block)):
            yield rows
        elif len(content) <= SMALL or middle in (0, len(content)):
            lines = enumerate(content.removesuffix(b"\n").split(b"\n"), block.line)
            records = (_split_line(number, line, self._separator) for number, line in lines)
            yield self.gather("Line", [record for record in records if record.problem or any(record.fields)])
        else:
            yield from self.read(Block(content[:middle], block.line))
            yield from self.read(Block(content[middle:], block.line + content.count(b"\n", 0, middle)))

    def gather(self, what: str, records: Sequence[Record]) -> Rows:
        """Return rows given by the texts of their fields; `what` a number of them counts."""
        form = self.form
        problems: dict[int, list[str]] = {}
        numbers = np.full((len(records), COUNT), np.nan)
        fields: list[Sequence[str]] = [[""] * form.width] * len(records)
        for row, (line, texts, problem) in enumerate(records):
            if not problem and form.has_wrong_count(texts):
                problem = f"{what} {line} has {len(texts)} fields; allowed are {form.width}, as in the first line"
            elif not problem:
                fields[row] = texts
                try:
                    numbers[row] = self._parse(texts)
                except ValueError as error:
                    problem = f"{what} {line}{name_id(texts[form.id]) if form.id is not None else ''}: {error}"
            if problem:
                problems[row] = [problem]
        return self.finish(
            what,
            [record.line for record in records],
            [texts[form.id] for texts in fields] if form.id is not None else [""] * len(fields),
            [(np.arange(len(fields)), [texts[label.place] for texts in fields]) for label in form.labels],
            np.ascontiguousarray(numbers.T) + 0.0,  # -0.0 and 0.0 are one number
            problems,
        )

    def _parse(self, fields: Sequence[str]) -> list[float]:
        """Return the measurements of a row; raise what is wrong with the first that is none."""
        texts, has_commas = [fields[place] for place in self.form.measurements], self.form.has_decimal_commas
        if has_commas:
            texts = [text.replace(".", "_").replace(",", ".") for text in texts]
        wrong = [place for place, text in zip(self.form.measurements, texts, strict=True) if not forms.is_finite(text)]
        if wrong:
            name = columns.MEASUREMENTS[self.form.measurements.index(min(wrong))]
            allowed = forms.COMMA_NUMBER_IS if has_commas else forms.NUMBER_IS
            raise ValueError(forms.explain_value(name, fields[min(wrong)], allowed))
        return list(map(float, texts))

    def finish(
        self,
        what: str,
        lines: Sequence[int],
        ids: list[str],
        labels: Iterable[Texts],
        numbers: np.ndarray,
        problems: dict[int, list[str]],
    ) -> Rows:
        """Return rows given by their columns, with what is wrong with ids and labels."""
        rows = Rows(ids, np.zeros(len(ids), "<U1"), numbers, problems, {}, lines)
        if self.form.id is not None and not _are_plain_ids(ids):
            for row, identifier in enumerate(ids):
                ids[row] = identifier.strip()
                if not forms.is_id(ids[row]):
                    value = forms.explain_value(columns.ID, ids[row], forms.PRINTABLE)
                    problems.setdefault(row, [f"{what} {lines[row]}: {value}"])
                    ids[row] = ""
        for label, (places, texts) in zip(self.form.labels, labels, strict=True):
            for row, problem in self._add_label(rows, label, places, [text.strip() for text in texts]):
                rows.warnings.setdefault(row, []).append(f"{what} {lines[row]}{name_id(ids[row])}: {problem}")
        numbers[:, list(problems)] = np.nan
        return rows

    def _add_label(self, rows: Rows, label: Label, places: np.ndarray, texts: list[str]) -> Iterator[tuple[int, str]]:
        """Fill in the diagnoses that a column says, and return what is wrong with some."""
        meanings = [label.meanings.get(text.lower(), "") for text in texts]
        unknown = [place for place, text in enumerate(texts) if text and not meanings[place]]
        for row in np.flatnonzero(np.isin(places, unknown)).tolist() if unknown else ():
            allowed = forms.LABEL_IS if label.meanings is columns.WORDS else forms.TARGET_IS
            yield row, forms.explain_value(label.name, texts[places[row]], allowed)
        diagnoses = np.array(meanings, dtype="<U1")[places]
        differs = (rows.diagnoses != diagnoses) & (rows.diagnoses != "") & (diagnoses != "")
        for row in np.flatnonzero(differs).tolist():
            first = f"{self.form.labels[0].name} says {rows.diagnoses[row]}"
            yield row, f"{first} and {label.name} says {diagnoses[row]}; allowed is the same in both"
        rows.diagnoses = np.where(differs, "", np.where(rows.diagnoses == "", diagnoses, rows.diagnoses))

    def _read_by_arrow(self, block: Block) -> Rows | None:
        """Return the rows of a block by pyarrow; None if it would read any otherwise than we, or not at all."""
        content = QUOTED.sub(rb"\1", block.content) if b'"' in block.content else block.content
        if b'"' in content or b"\0" in content or content.startswith(UTF_8_MARK):
            return None
        table = self._parse_by_arrow(content)
        if table is None:
            return None
        numbers = np.empty((COUNT, table.num_rows))
        for row, place in enumerate(self.form.measurements):
            np.add(np.from_dlpack(table.column(place).chunk(0)), 0.0, out=numbers[row])
        if not np.isfinite(numbers).all():
            return None
        ids = [""] * table.num_rows if self.form.id is None else table.column(self.form.id).to_pylist()
        coded = [table.column(label.place).chunk(0) for label in self.form.labels]
        labels = [(np.from_dlpack(column.indices), column.dictionary.to_pylist()) for column in coded]
        return self.finish("Line", range(block.line, block.line + table.num_rows), ids, labels, numbers, {})

    def _parse_by_arrow(self, content: bytes) -> "pa.Table | None":
        import pyarrow as pa  # 0.05 s, which a short table does without
        import pyarrow.csv as pa_csv

        width = max(content.partition(b"\n")[0].count(self._separator.encode()) + 1, self.form.width)
        types = dict.fromkeys(range(width), pa.string()) | dict.fromkeys(self.form.measurements, pa.float64())
        types |= {label.place: pa.dictionary(pa.int32(), pa.string()) for label in self.form.labels}
        kinds = {str(place): kind for place, kind in types.items()}
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(content),
                # In one piece, without copies; with threads of its own, a process that ends at once may abort.
                pa_csv.ReadOptions(column_names=list(kinds), block_size=len(content), use_threads=False),
                pa_csv.ParseOptions(delimiter=self._separator, quote_char=False, ignore_empty_lines=False),
                pa_csv.ConvertOptions(
                    column_types=kinds, null_values=[], decimal_point="," if self.form.has_decimal_commas else "."
                ),
                pa.system_memory_pool(),  # its own keeps more memory, the longer the input
            )
        except pa.ArrowInvalid:
            return None
        after = {
            text.strip().lower() for place in range(self.form.width, width) for text in table.column(place).to_pylist()
        }
        return table if after <= forms.BLANK else None


def name_id(identifier: str) -> str:
    """Return whose a row is, for a message, if that is known."""
    return f", id {identifier}" if identifier else ""


def _are_plain_ids(ids: list[str]) -> bool:
    """Say whether all ids are allowed, and without spaces around them, as nearly all are."""
    text = "".join(ids)
    is_plain = text.isascii() and text.isprintable() and " " not in text
    return is_plain and all(ids) and max(map(len, ids), default=0) <= forms.LONGEST_ID


def _read_parquet(stream: BinaryIO) -> tuple[Form, Iterator[Rows]]:
    import pyarrow as pa  # 0.2 s, which other tables do without
    import pyarrow.parquet as pa_parquet

    with _explain_damage(pa.ArrowException):
        file = pa_parquet.ParquetFile(stream)
        names = [name.strip() for name in file.schema_arrow.names]
        sample = next(file.iter_batches(SAMPLE), None)
        form = forms.recognise([names, *(zip(*map(_format_column, sample.columns), strict=True) if sample else ())])
    if columns.squeeze_name(names[form.measurements[0]]) not in columns.ALIASES:
        raise TableError(f"Its columns have no names of measurements; allowed are {forms.NAMED}")
    return form, _read_batches(_Reader(form), file)


def _read_batches(reader: _Reader, file: "pa.parquet.ParquetFile") -> Iterator[Rows]:
    import pyarrow as pa

    form, count = reader.form, 0
    with _explain_damage(pa.ArrowException):
        for batch in file.iter_batches(BATCH):
            numbers = np.empty((COUNT, batch.num_rows))
            for row, place in enumerate(form.measurements):
                floats = batch.column(place).cast(pa.float64(), safe=False)  # of 17 digits the last may be lost
                np.add(np.from_dlpack(floats.fill_null(np.nan)), 0.0, out=numbers[row])
            problems = {}
            for row in np.flatnonzero(~np.isfinite(numbers).all(axis=0)).tolist():
                place = int(np.isfinite(numbers[:, row]).argmin())
                value = forms.explain_value(columns.MEASUREMENTS[place], str(numbers[place, row]), forms.NUMBER_IS)
                problems[row] = [f"Row {count + row + 1}: {value}"]
            lines = range(count + 1, count + batch.num_rows + 1)
            ids = [""] * batch.num_rows if form.id is None else _format_column(batch.column(form.id))
            labels = [(np.arange(len(ids)), _format_column(batch.column(label.place))) for label in form.labels]
            yield reader.finish("Row", lines, ids, labels, numbers, problems)
            count += batch.num_rows


def _format_column(column: "pa.Array") -> list[str]:
    return list(map(_format_cell, column.to_pylist()))


def _format_cell(cell: object) -> str:
    """Return what stands in a cell as text: whole numbers without a point, as ids are."""
    text = "" if cell is None else str(cell).strip()
    return text.removesuffix(".0") if isinstance(cell, float) else text


def _read_spreadsheet(stream: BinaryIO) -> tuple[Form, Iterator[Rows]]:
    """Read the first sheet that has the columns."""
    import python_calamine as calamine

    stream.seek(0)
    with _explain_damage(calamine.CalamineError):
        book = calamine.CalamineWorkbook.from_filelike(stream)
        sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    refusals = []
    for name, cells in sheets.items():
        texts = (Record(line, list(map(_format_cell, row))) for line, row in enumerate(cells, 1))
        if records := [record for record in texts if any(record.fields)]:
            try:
                form = forms.recognise([record.fields for record in records[:SAMPLE]])
            except TableError as error:
                refusals.append(f"Sheet {forms.quote(name)}: {error}")
            else:
                reader, starts = _Reader(form), range(int(form.has_header), len(records), BATCH)
                return form, (reader.gather("Row", records[start : start + BATCH]) for start in starts)
    raise TableError(refusals[0] if refusals else forms.EMPTY)
