"""Scores a file with a release: what `bcw predict` reads, writes and says. Without Dagster, scikit-learn and pandas.

The only module beside `storage.folder` that writes a file: the one that its user names.
"""

import os
import secrets
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache
from io import BufferedReader
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click
import numpy as np

from bcw_assets import settings
from bcw_assets.cli import scoring
from bcw_assets.cli.scoring import RowPredictions, Tally, TrainingRows
from bcw_assets.errors import ScoringError, StorageError, TableError
from bcw_assets.locations import S3, TEMPORARY
from bcw_assets.ml.evaluation.scores import SCORES, compute_wilson
from bcw_assets.ml.model.numbers import Scorer
from bcw_assets.ml.table import columns
from bcw_assets.ml.table.forms import Form
from bcw_assets.ml.table.reading import ENDS_WITH_INDEX, Rows, read_rows
from bcw_assets.releases.access import Release, open_release
from bcw_assets.releases.bundle import load_scorer
from bcw_assets.report.formatting import format_estimate, format_interval, format_probability, format_score
from bcw_assets.storage.store import open_store

if TYPE_CHECKING:
    from bcw_assets.storage.s3 import S3Store

STANDARD = "-"  # the name of standard input and standard output
SOME_NOT_SCORED = 3  # exit code
CALL = "malignant"  # a column: 1 from the threshold on
HEADER = (columns.ID, columns.PROBABILITY, CALL, "release", "problems")
CONTRIBUTIONS = tuple(f"contribution_{number}" for number in range(1, scoring.MOST_CONTRIBUTIONS + 1))
TABLE_ROW = "{:<16} {:>9}  {:<10}  {}\n"
TABLE_HEADER = TABLE_ROW.format(columns.ID, "malignant", "call", "what moves it most, in log odds")
open_once = cache(open_store)  # boto3 takes 0.1 s for a client
NO_DEVICE = "This is no medical device: nothing here may decide about a patient."


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    source: str  # a path, an `s3://` URI, or `-` for standard input
    target: str  # a path, `-`, or a folder with / at its end; of a file of a folder, the key of its output
    release: str | None  # the first characters of a release's id, or all of them; None for the champion
    threshold: float  # the probability from which a row is called malignant
    explain: bool  # whether to add the largest contributions


def score_file(request: Request) -> int:
    """Score the rows of a file and return the exit code: 0, or 3 if some rows were not scored.

    An input that cannot be used raises a TableError; a release or an output, another BcwError.
    """
    release = open_release(open_store(settings.read_environment().releases_place), request.release)
    scorer = load_scorer(release.files)
    with open_input(request.source) as source, _open_output(request, source) as target, ExitStack() as stack:
        with explain_input(request.source):
            form, parts = read_rows(source)
        tally = Tally(TrainingRows.load(release.files) if form.labels else None)  # unlabelled, nobody asks for them
        chunks = stack.enter_context(closing(_read_ahead(parts, source, request.source)))
        first = next(chunks, None)  # an input that is refused at once leaves nothing on standard output
        say(describe_release(release), NO_DEVICE, *_describe_form(form))
        try:
            is_for_person = request.target == STANDARD and sys.stdout.isatty()
            header = TABLE_HEADER if is_for_person else f"{','.join(list_columns(request))}\n"
            target.write(header.encode())
            format_part = _format_lines if is_for_person else format_rows
            for rows in chain([first] if first else [], chunks):
                predictions = scoring.score_rows(scorer, rows)
                tally.add(rows, predictions, request.threshold)
                target.write(format_part(rows, predictions, scorer, release.id, request))
            target.flush()
        except BrokenPipeError:
            _forget_standard_output()
            return 0
    say(*_summarise(tally, request.threshold))
    return SOME_NOT_SCORED if tally.not_scored else 0


def describe_release(release: Release) -> str:
    """Return which model that is, and how good."""
    champion = "the champion" if release.is_champion else "not the champion"
    values = ", ".join(
        f"{profile.title} {format_estimate(release.headline[name])}"
        for name, profile in SCORES.items()
        if profile.is_brief and name in release.headline
    )
    quality = f"; cross-validated {values}, with 95 % intervals" if values else ""
    return f"Release {release.id}, {champion}, made {release.made}{quality}"


def _describe_form(form: Form) -> Iterator[str]:
    if form.codes:
        yield f"The input has no diagnoses that say who was malignant: {form.codes}"
    if form.left_out:
        yield f"Left out, because the model has no use for it: {form.left_out}"


def _summarise(tally: Tally, threshold: float) -> Iterator[str]:
    yield f"{_format_count(tally.scored)} scored, {tally.malignant:,} of them malignant at a threshold of {threshold:g}"
    if tally.not_scored:
        ((code, count),) = tally.codes.most_common(1)
        yield f"{_format_count(tally.not_scored)} not scored, most often because of {code} ({_format_count(count)})"
    if tally.with_warnings:
        yield f"{_format_count(tally.with_warnings)} with warnings"
    if tally.confusion.total:
        shares = tally.confusion.proportions
        if all(right < total / 2 for right, total in (shares["sensitivity"], shares["specificity"])):
            yield "The diagnoses of the input look inverted: most of them are the other than the model's"
        right, total = shares["accuracy"]
        yield (
            f"Agreement with the diagnoses of the input: {format_score(right / total)} "
            f"({format_interval(compute_wilson(right, total))}), with its 95 % interval, of "
            f"{_format_count(int(total))}; {_describe_training(tally)}"
        )


def _describe_training(tally: Tally) -> str:
    if tally.training_rows is None:
        return "it is not known how many of them this release was trained on, so that may be no evaluation"
    evaluation = ", so that is not an evaluation" if tally.in_training else ""
    return f"this release was trained on {tally.in_training:,} of them{evaluation}"


def _format_count(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def say(*lines: str) -> None:
    """Write lines to standard error."""
    for line in lines:
        click.echo(line, err=True)


def open_input(source: str) -> AbstractContextManager[BinaryIO]:
    """Give the bytes of a path, of `s3://bucket/key`, or of standard input; a TableError says why there are none."""
    if source == STANDARD:
        if sys.stdin is None:
            raise TableError("Standard input is closed; give the path of a file")
        return _make_seekable(sys.stdin.buffer)
    if _is_on_s3(source):
        return _download(source)
    if "://" in source:
        raise TableError(f"{source} cannot be read: no address is, but s3://bucket/key. Download it and give the file")
    try:
        return _make_seekable(open(source, "rb"))
    except OSError as error:
        raise TableError(
            f"{source} cannot be read: {error.strerror}. Give a file, or s3://bucket/key; or a folder, with -o FOLDER/"
        ) from error


@contextmanager
def _download(uri: str) -> Iterator[BinaryIO]:
    """Give a temporary copy of an object on S3: rows are needed as they come, and an answer may break off."""
    with tempfile.TemporaryFile() as copy:
        name, _, key = uri.partition("://")[2].partition("/")
        try:
            cast("S3Store", open_once(uri[: len(S3)] + name)).download(key, cast(BinaryIO, copy))
        except StorageError as error:
            raise TableError(f"{uri} cannot be read: {error}") from error
        except OSError as error:
            raise ScoringError(
                f"{uri} does not fit into the temporary folder {tempfile.gettempdir()}: {error.strerror}. Set TMPDIR "
                f"to a larger one"
            ) from error
        copy.seek(0)
        yield cast(BinaryIO, copy)


def _is_on_s3(name: str) -> bool:
    return name.lower().startswith("s3:")


@contextmanager
def _make_seekable(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Give a stream, which is closed at the end; of what comes through a pipe, a copy if it ends with its index."""
    with stream, ExitStack() as stack:
        if not stream.seekable() and cast(BufferedReader, stream).peek().startswith(ENDS_WITH_INDEX):
            copy = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(stream, copy)
            copy.seek(0)
            stream = cast(BinaryIO, copy)
        yield stream


@contextmanager
def explain_input(source: str) -> Iterator[None]:
    """Say whose fault it is that a table cannot be read."""
    name = "Standard input" if source == STANDARD else source
    try:
        yield
    except TableError as error:
        raise TableError(f"{error}. {name} cannot be scored") from error
    except OSError as error:
        raise TableError(f"{name} cannot be read: {error.strerror or error}") from error


def _read_ahead(parts: Iterator[Rows], stream: BinaryIO, source: str) -> Generator[Rows]:
    """Read some rows while those before are scored and written: pyarrow works without Python's lock."""
    with explain_input(source), ExitStack() as stack:
        if not stream.seekable():  # a thread that waits for a pipe could not be interrupted
            yield from parts
            return
        pool = stack.enter_context(ThreadPoolExecutor(1))
        coming = pool.submit(next, parts, None)
        while (rows := coming.result()) is not None:
            coming = pool.submit(next, parts, None)
            yield rows


@contextmanager
def _open_output(request: Request, source: BinaryIO) -> Iterator[BinaryIO]:
    """Give what takes the output: standard output, or a file that gets its name when all is written."""
    if request.target == STANDARD:
        if sys.stdout is None:
            raise ScoringError("Standard output is closed; give a file to -o")
        try:
            yield sys.stdout.buffer
        except OSError as error:
            _forget_standard_output()
            raise ScoringError(f"Standard output cannot be written: {error.strerror}; give a file to -o") from error
        return
    if _is_on_s3(request.target):
        raise ScoringError(
            f"{request.target} is on S3; allowed for -o is the path of a file, or a folder or prefix that ends with /"
        )
    path = Path(request.target)
    try:
        if path.is_file() and os.path.samestat(path.stat(), os.fstat(source.fileno())):
            raise ScoringError(f"{request.target} is the input, which is never written to; give another file to -o")
        is_special = path.exists() and not path.is_file()  # a device or a pipe; a folder, which is refused
        with open(path, "wb") if is_special else _replace(Path(os.path.realpath(path))) as file:  # a link stays a link
            yield file
    except OSError as error:
        raise ScoringError(
            f"{request.target} cannot be written: {error.strerror or error}. What was there before is unchanged"
        ) from error


@contextmanager
def _replace(path: Path) -> Iterator[BinaryIO]:
    """Give a new file, which takes the name at the end; on any error, and on a signal, it is gone."""
    temporary = path.with_name(f".{secrets.token_hex(8)}{TEMPORARY}")
    ends = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda number, _: sys.exit(128 + number)) for number in ends}
    try:
        # O_EXCL and 0o666: never follows a link, and the umask decides who may read.
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            if path.exists():  # who may read it stays as it was
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        for number, handler in before.items():
            signal.signal(number, handler)


def list_columns(request: Request) -> tuple[str, ...]:
    """Return the names of the columns of the output."""
    return HEADER + (CONTRIBUTIONS if request.explain else ())


def format_rows(rows: Rows, predictions: RowPredictions, scorer: Scorer, release: str, request: Request) -> bytes:
    """Return rows as lines of CSV, with the id of the release that scored them."""
    ids = list(map(_quote, rows.ids)) if _needs_quotes("".join(rows.ids)) else rows.ids
    calls = np.where(predictions.probability >= request.threshold, "1", "0").tolist()
    fields = zip(ids, predictions.probability.tolist(), calls, strict=True)
    lines = [f"{identifier},{number!r},{call},{release}," for identifier, number, call in fields]
    for row in np.flatnonzero(~predictions.is_scored).tolist():
        lines[row] = f"{ids[row]},,,{release},"
    for row, remarks in predictions.remarks.items():
        lines[row] += _quote("; ".join(remarks))
    if request.explain:
        contributions = zip(*scoring.explain_rows(scorer, rows.measurements, predictions.is_scored), strict=True)
        lines = [",".join((line, *texts)) for line, texts in zip(lines, contributions, strict=True)]
    return ("\n".join(lines) + "\n").encode()


def _format_lines(rows: Rows, predictions: RowPredictions, scorer: Scorer, _: str, request: Request) -> bytes:
    lines = []
    contributions = zip(*scoring.explain_rows(scorer, rows.measurements, predictions.is_scored), strict=True)
    fields = zip(rows.ids, predictions.probability.tolist(), predictions.is_scored.tolist(), contributions, strict=True)
    for row, (identifier, probability, is_scored, reasons) in enumerate(fields):
        call = ("malignant" if probability >= request.threshold else "benign") if is_scored else "not scored"
        percent = format_probability(probability) if is_scored else ""
        remarks = [*(reasons if is_scored else ()), *predictions.remarks.get(row, ())]
        lines.append(TABLE_ROW.format(identifier, percent, call, ", ".join(remarks)))
    return "".join(lines).encode()


def _quote(text: str) -> str:
    """Return a field of CSV.

    >>> _quote("a,b")
    '"a,b"'
    """
    return '"' + text.replace('"', '""') + '"' if _needs_quotes(text) else text


def _needs_quotes(text: str) -> bool:
    return any(mark in text for mark in '",\r\n')


def _forget_standard_output() -> None:
    """Let the interpreter flush what nobody takes into nothing when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
