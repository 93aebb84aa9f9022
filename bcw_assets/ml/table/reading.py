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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, islice
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
FEW = 1 << 6  # rows of a Parquet file that are read without pyarrow, if it cannot read them all
HEAD = 1 << 13  # bytes by which a kind of file is known
SAMPLE = 1000  # rows by which columns without names are known
LONGEST_LINE = 1 << 20  # bytes
LINE_FEED = ord("\n")
GZIP, PARQUET, OLD_EXCEL, ZIPS = b"\x1f\x8b", b"PAR1", b"\xd0\xcf\x11\xe0", (b"PK\3\4", b"PK\5\6")
ENDS_WITH_INDEX = (PARQUET, OLD_EXCEL, *ZIPS)
"""How files begin that can only be read from a stream that is seekable."""
UTF_8_MARK, UTF_16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")
UCI_TABLE = "wdbc.data"  # in UCI's archive, beside a description
SPREADSHEET = {"[Content_Types].xml", "mimetype"}  # members that tell Excel's and LibreOffice's files from other zips
LARGEST_SPREADSHEET = 1 << 30  # bytes, unpacked: it is read whole
QUOTED = re.compile(rb'(?<![^,;\t\n])"([^",;\t\n]*+)"(?![^,;\t\n])')  # a whole field, the same without its quotes
SEPARATORS = (b"\t", b";", b"|", b",", b" ")  # the first of them that a first line has often
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
        reason = str(error).partition("\n")[0]
        raise TableError(
            f"Its first bytes say what it is, but it cannot be read as that ({reason}); get it again, or save it as CSV"
        ) from error


def _open(stream: BinaryIO, *, is_packed: bool) -> tuple[Form, Iterator[Rows]]:
    """Find out by its first bytes what a stream is."""
    head = stream.getvalue()[:HEAD] if isinstance(stream, io.BytesIO) else cast(io.BufferedReader, stream).peek(HEAD)
    if head.startswith(PARQUET):
        return _read_parquet(stream)
    if head.startswith(OLD_EXCEL):
        return _read_spreadsheet(stream)
    archive = zipfile.ZipFile(stream) if head.startswith(ZIPS) else None
    if archive and not SPREADSHEET.isdisjoint(archive.namelist()):
        if sum(member.file_size for member in archive.infolist()) > LARGEST_SPREADSHEET:
            raise TableError(f"It is a spreadsheet of more than {LARGEST_SPREADSHEET:,} bytes; save it as CSV")
        return _read_spreadsheet(stream)
    if is_packed and head.startswith((GZIP, *ZIPS)):
        raise TableError("It is packed twice; unpack it once")
    if archive:
        return _open(_open_member(archive), is_packed=True)
    if head.startswith(GZIP):
        return _open(cast(BinaryIO, gzip.GzipFile(fileobj=stream)), is_packed=True)
    forms.refuse_other_files(head)
    if head.startswith(UTF_16_MARKS):
        return _read_text(cast(BinaryIO, codecs.EncodedFile(stream, "utf-8", "utf-16")))
    return _read_text(stream)


def _open_member(archive: zipfile.ZipFile) -> BinaryIO:
    names = {name: name.rpartition("/")[2] for name in archive.namelist() if not name.startswith("__MACOSX/")}
    files = [name for name, last in names.items() if last and not last.startswith(".")]
    tables = [name for name in files if names[name] == UCI_TABLE] or files
    if len(tables) != 1:
        first = f" ({forms.list_names(files)})" if files else ""
        raise TableError(f"It is a zip with {len(files)} files{first}; allowed is one: unpack it and give the table")
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
    if len(first.content) < HEAD:  # a last line without an end comes by itself
        first = Block(first.content + b"".join(block.content for block in islice(blocks, 1)), first.line)
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
        line += int(np.count_nonzero(np.frombuffer(content, np.uint8, end) == LINE_FEED))  # faster than bytes.count
        if len(rest) > LONGEST_LINE:
            raise TableError(f"Line {line} is longer than {LONGEST_LINE:,} bytes, which are allowed; a line is a row")
    if rest:
        yield Block(rest.removesuffix(b"\r"), line)


def _recognise(block: Block) -> tuple["_Reader", Block]:
    """Return a reader of the form that the input has, and the lines of its first block that are rows."""
    lines = block.content.split(b"\n")
    filled = [place for place, line in enumerate(lines) if FILLED.search(line)]
    excel_line = re.fullmatch(rb'"?sep=([\t -~])"?', lines[filled[0]])
    filled = filled[bool(excel_line) : SAMPLE] or [0]
    unquoted = re.sub(rb'"[^"]*"', b"", lines[filled[0]])
    mark = excel_line[1] if excel_line else next((sign for sign in SEPARATORS if unquoted.count(sign) > 4), b",")
    separator = mark.decode()
    first, *more = (_split_line(block.line + place, lines[place], separator) for place in filled)
    try:
        if first.problem:
            raise TableError(first.problem)
        if separator == " " and b"  " in unquoted.strip():
            raise TableError("several blanks separate its fields; allowed is one, or a comma, semicolon, tab or |")
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
        problem = f"it holds the byte 0x{line[error.start]:02x}, which is not UTF-8; save it as CSV in UTF-8"
    except csv.Error as error:
        problem = f"it is not CSV: {error}; one line is one row"
    else:
        if b"\0" not in line:
            return Record(number, [text.strip() for text in fields])
        problem = "it holds a NUL byte: it is binary, or UTF-16 without a mark of it; allowed is CSV in UTF-8"
    return Record(number, (), problem)


Problems = dict[int, str]  # row → why it cannot be read
Texts = tuple[np.ndarray, list[str]]  # a column: for every row the place of its text, and the texts


class _Reader:
    """Reads rows of one form: most lines by pyarrow, and those near one that it refuses or would misread, exactly."""

    def __init__(self, form: Form, separator: str = "") -> None:
        self.form = form
        self._separator = separator

    def read(self, block: Block) -> Iterator[Rows]:
        """Return the rows of a block, which is divided until what pyarrow cannot read is in small parts."""
        content = block.content
        middle = content.find(b"\n", len(content) // 2) + 1
        batch = self._parse_by_arrow(content) if len(content) > SMALL else None
        if batch and (rows := self.take_columns(batch, block.line)):
            yield rows
        elif len(content) <= SMALL or middle in (0, len(content)):
            lines = enumerate(content.removesuffix(b"\n").split(b"\n"), block.line)
            records = (_split_line(number, line, self._separator) for number, line in lines)
            yield self.gather([record for record in records if record.problem or any(record.fields)])
        else:
            yield from self.read(Block(content[:middle], block.line))
            yield from self.read(Block(content[middle:], block.line + content.count(b"\n", 0, middle)))

    def gather(self, records: Sequence[Record]) -> Rows:
        """Return rows given by the texts of their fields."""
        form = self.form
        problems: Problems = {}
        numbers = np.full((COUNT, len(records)), np.nan)
        fields: list[Sequence[str]] = [[""] * form.width] * len(records)
        for row, (_, texts, problem) in enumerate(records):
            if not (problem := problem or form.explain_count(texts)):
                fields[row] = texts
                problem = self._parse(texts, numbers[:, row])
            if problem:
                problems[row] = problem
        ids = [texts[form.id] for texts in fields] if form.id is not None else [""] * len(fields)
        labels = [(np.arange(len(fields)), [texts[label.place] for texts in fields]) for label in form.labels]
        return self._finish([record.line for record in records], ids, labels, numbers, problems)

    def _parse(self, fields: Sequence[str], numbers: np.ndarray) -> str:
        """Fill in the measurements of a row, or return what is wrong with the first that is none."""
        texts, has_commas = [fields[place] for place in self.form.measurements], self.form.has_decimal_commas
        if has_commas:
            texts = [text.replace(".", "_").replace(",", ".") for text in texts]
        wrong = [place for place, text in zip(self.form.measurements, texts, strict=True) if not forms.is_finite(text)]
        if wrong:
            name = columns.MEASUREMENTS[self.form.measurements.index(min(wrong))]
            allowed = forms.COMMA_NUMBER_IS if has_commas else forms.NUMBER_IS
            return forms.explain_value(name, fields[min(wrong)], allowed)
        numbers[:] = list(map(float, texts))
        return ""

    def _finish(
        self, lines: Sequence[int], ids: list[str], labels: Sequence[Texts], numbers: np.ndarray, problems: Problems
    ) -> Rows:
        """Return rows given by their columns, with what is wrong with ids and labels."""
        is_plain = "".join(ids).isprintable() and all(ids) and max(map(len, ids), default=0) <= forms.LONGEST_ID
        if self.form.id is not None and not is_plain:
            for row, identifier in enumerate(ids):
                if not (identifier and identifier.isprintable() and len(identifier) <= forms.LONGEST_ID):
                    problems.setdefault(row, forms.explain_value(columns.ID, identifier, forms.PRINTABLE))
                    ids[row] = ""
        numbers += 0.0  # -0.0 and 0.0 are one number
        numbers[:, list(problems)] = np.nan
        rows = Rows(ids, np.zeros(len(ids), "<U1"), numbers, lines=lines)
        for label, (places, texts) in zip(self.form.labels, labels, strict=True):
            for row, problem in self._add_label(rows, label, places, texts):
                rows.warnings.setdefault(row, []).append(f"{self.form.name_row(lines[row], ids[row])}: {problem}")
        for row, problem in problems.items():
            rows.problems[row] = [f"{self.form.name_row(lines[row], ids[row])}: {problem}"]
        return rows

    def _add_label(self, rows: Rows, label: Label, places: np.ndarray, texts: list[str]) -> Iterator[tuple[int, str]]:
        """Fill in the diagnoses that a column says, and return what is wrong with some."""
        meanings = [label.meanings.get(text.lower(), "") for text in texts]
        unknown = [place for place, text in enumerate(texts) if text and not meanings[place]]
        for row in np.flatnonzero(np.isin(places, unknown)).tolist() if unknown else ():
            allowed = forms.LABEL_IS if label.meanings is columns.WORDS else forms.TARGET_IS
            yield row, forms.explain_value(label.name, texts[places[row]], allowed)
        before, rows.diagnoses = rows.diagnoses, np.array(meanings, dtype="<U1")[places]
        if label is not self.form.labels[0]:
            now = np.where(rows.diagnoses == "", before, rows.diagnoses)
            differs = (before != now) & (before != "")
            for row in np.flatnonzero(differs).tolist():
                both = f"{self.form.labels[0].name} says {before[row]} and {label.name} says {now[row]}"
                yield row, f"{both}; allowed is the same in both"
            rows.diagnoses = np.where(differs, "", now)

    def take_columns(self, batch: "pa.RecordBatch", line: int) -> Rows | None:
        """Return rows given by their columns; None if a measurement is missing, or no finite number."""
        import pyarrow as pa  # 0.05 s, which a short table does without

        form = self.form
        try:  # of numbers with 17 digits the last may be lost
            floats = [batch.column(place).cast(pa.float64(), safe=False) for place in form.measurements]
            coded = [batch.column(label.place).cast(pa.string()).dictionary_encode("encode") for label in form.labels]
        except pa.ArrowException:
            return None
        if any(column.null_count for column in floats):
            return None
        numbers = np.stack([np.from_dlpack(column) for column in floats])
        if not np.isfinite(numbers).all():
            return None
        labels = [(np.from_dlpack(column.indices), _format_cells(column.dictionary)) for column in coded]
        ids = [""] * batch.num_rows if form.id is None else _format_cells(batch.column(form.id))
        return self._finish(range(line, line + batch.num_rows), ids, labels, numbers, {})

    def _parse_by_arrow(self, content: bytes) -> "pa.RecordBatch | None":
        """Return the columns of lines by pyarrow; None if it would read any otherwise than we, or not at all."""
        import pyarrow as pa
        import pyarrow.csv as pa_csv

        content = QUOTED.sub(rb"\1", content) if b'"' in content else content
        if b'"' in content or b"\0" in content or content.startswith(UTF_8_MARK):
            return None
        width = max(content.count(self._separator.encode(), 0, content.find(b"\n")) + 1, self.form.width)
        types = dict.fromkeys(range(width), pa.string()) | dict.fromkeys(self.form.measurements, pa.float64())
        kinds, point = {str(place): kind for place, kind in types.items()}, ".,"[self.form.has_decimal_commas]
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(content),
                # In one piece, without copies; with threads of its own, a process that ends at once may abort.
                pa_csv.ReadOptions(column_names=list(kinds), block_size=len(content), use_threads=False),
                pa_csv.ParseOptions(delimiter=self._separator, quote_char=False, ignore_empty_lines=False),
                pa_csv.ConvertOptions(column_types=kinds, null_values=[], decimal_point=point),
                pa.system_memory_pool(),  # its own keeps more memory, the longer the input
            )
        except pa.ArrowInvalid:
            return None
        after = {text.strip().lower() for column in table.columns[self.form.width :] for text in column.to_pylist()}
        return table.to_batches()[0] if after <= forms.BLANK else None


def _read_parquet(stream: BinaryIO) -> tuple[Form, Iterator[Rows]]:
    import pyarrow as pa  # 0.2 s, which other tables do without
    import pyarrow.parquet as pa_parquet

    with _explain_damage(pa.ArrowException):
        file = pa_parquet.ParquetFile(stream)
        sample = next(_read_batches(file, SAMPLE), file.schema_arrow.empty_table())
        names = [name.strip() for name in sample.schema.names]
        form = forms.recognise([names, *zip(*map(_format_cells, sample.columns), strict=True)])
    if columns.squeeze_name(names[form.measurements[0]]) not in columns.ALIASES:
        raise TableError(f"Its columns have no names of measurements; allowed are {forms.NAMED}")
    return form, _read_columns(_Reader(form), file)


def _read_batches(file: "pa.parquet.ParquetFile", size: int) -> Iterator["pa.RecordBatch"]:
    """Return some rows at a time, with the indices of pandas that have a name and no column, since they count."""
    import pyarrow as pa

    ranges, count = {}, 0
    with suppress(LookupError, TypeError, ValueError):  # anybody may write anything there
        indices = [index for index in file.schema_arrow.pandas_metadata["index_columns"] if isinstance(index, dict)]
        ranges = {
            index["name"]: range(index["start"], index["stop"], index["step"]) for index in indices if index["name"]
        }
    for batch in file.iter_batches(size, use_threads=False):
        for name, numbers in ranges.items():
            batch = batch.append_column(name, pa.array(numbers[count : count + batch.num_rows]))
        count += batch.num_rows
        yield batch


def _read_columns(reader: _Reader, file: "pa.parquet.ParquetFile") -> Iterator[Rows]:
    import pyarrow as pa

    line = 1
    with _explain_damage(pa.ArrowException):
        for batch in _read_batches(file, BATCH):
            yield from _divide(reader, batch, line)
            line += batch.num_rows


def _divide(reader: _Reader, batch: "pa.RecordBatch", line: int) -> Iterator[Rows]:
    """Return the rows of a batch, which is divided until what is no number is in small parts."""
    half = batch.num_rows // 2
    if rows := reader.take_columns(batch, line):
        yield rows
    elif batch.num_rows <= FEW:
        cells = zip(*map(_format_cells, batch.columns), strict=True)
        yield reader.gather([Record(number, fields) for number, fields in enumerate(cells, line)])
    else:
        yield from _divide(reader, batch.slice(0, half), line)
        yield from _divide(reader, batch.slice(half), line + half)


def _format_cells(column: "pa.Array") -> list[str]:
    try:
        cells = column.to_pylist()
    except UnicodeDecodeError:  # a text of another encoding, which spoils its own row only
        cells = column.cast("binary").to_pylist()
    except (ArithmeticError, LookupError, ValueError):  # a time that Python cannot hold, which no column of ours has
        cells = [None] * len(column)
    return list(map(str.strip if {*map(type, cells)} == {str} else _format_cell, cells))  # nearly all are texts


def _format_cell(cell: object) -> str:
    """Return what stands in a cell as text: whole numbers without a point, as ids are."""
    if isinstance(cell, bytes):
        return cell.decode(errors="backslashreplace").strip()
    if isinstance(cell, float) and cell.is_integer():
        return f"{cell:.0f}"
    return "" if cell is None or cell != cell else str(cell).strip()


def _read_spreadsheet(stream: BinaryIO) -> tuple[Form, Iterator[Rows]]:
    """Read the first sheet that has the columns."""
    import python_calamine as calamine

    stream.seek(0)
    refusals = []
    with _explain_damage(calamine.CalamineError):
        book = calamine.CalamineWorkbook.from_filelike(stream)
        sheets = {name: book.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in book.sheet_names}
    for name, cells in sheets.items():
        texts = (Record(line, list(map(_format_cell, row))) for line, row in enumerate(cells, 1))
        if records := [record for record in texts if any(record.fields)]:
            try:
                form = forms.recognise([record.fields for record in records[:SAMPLE]])
            except TableError as error:
                refusals.append(f"Sheet {forms.quote(name)}: {error}")
            else:
                reader, starts = _Reader(form), range(int(form.has_header), len(records), BATCH)
                return form, (reader.gather(records[start : start + BATCH]) for start in starts)
    raise TableError(refusals[0] if refusals else forms.EMPTY)
