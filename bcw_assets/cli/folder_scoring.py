"""Scores files into a folder or prefix, each as a piece of work of its own, which any `Executor` may do.

Any number of commands may share it: an output is written whole, by put-if-absent, and what is there is left alone.
"""

import json
import random
import re
import signal
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import CancelledError, Executor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from io import BytesIO
from operator import add
from pathlib import Path

import click
import numpy as np

from bcw_assets import settings
from bcw_assets.cli import predict, scoring
from bcw_assets.cli.executors import list_fatal_errors, open_executor
from bcw_assets.cli.predict import Request
from bcw_assets.errors import KeyMissing, KeyRefused, KeyTooLarge, ScoringError, StorageUnavailable, TableError
from bcw_assets.locations import CSV_SUFFIX, GZIP_SUFFIX, PARQUET_SUFFIX
from bcw_assets.ml.model.numbers import Scorer
from bcw_assets.ml.table import columns
from bcw_assets.ml.table.reading import read_rows
from bcw_assets.releases.access import Release, open_release
from bcw_assets.releases.bundle import load_scorer
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store, open_store

MARK = "_scores.json"  # in the output: what all of it was scored with
HIDDEN = (".", "_")  # how names begin that are no tables, by the custom of Spark, Arrow and Hive
WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class FolderSummary:
    """What became of files: those that are not scored now and have no problem had their output."""

    files: int = 0
    scored: int = 0
    rows: int = 0  # of the files that are scored now
    not_scored: int = 0  # of these rows
    problems: list[str] = field(default_factory=list)  # of files

    def __add__(self, other: "FolderSummary") -> "FolderSummary":
        return FolderSummary(*map(add, vars(self).values(), vars(other).values()))


def score_folder(sources: Sequence[str], request: Request, workers: int, scheduler: str | None) -> int:
    """Score files into the folder that is the request's target, and return the exit code.

    It is 0; 3 if some files or rows were not scored; 2 if no file can be.
    """
    release = open_release(open_store(settings.read_environment().releases_place), request.release)
    predict.say(predict.describe_release(release), predict.NO_DEVICE)
    start = time.monotonic()
    with open_executor(workers, scheduler) as executor:
        try:
            summary = score_files(
                executor, release, sources, request.target, request.threshold, explain=request.explain
            )
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has been heard
            raise
    count = len(summary.problems)
    predict.say(
        *summary.problems,
        f"{summary.files:,} files: {summary.scored:,} scored, {summary.files - summary.scored - count:,} were there, "
        f"{count:,} cannot be scored",
        f"{summary.rows:,} rows, {summary.not_scored:,} of them not scored; "
        f"{summary.rows / (time.monotonic() - start):,.0f} rows a second",
    )
    if count == summary.files:
        return 2
    return predict.SOME_NOT_SCORED if count or summary.not_scored else 0


def score_files(
    executor: Executor, release: Release, sources: Sequence[str], target: str,
    threshold: float = 0.5, *, explain: bool = False,
) -> FolderSummary:  # fmt: skip
    """Score files into a folder or prefix by any Executor whose workers reach both; a bad file ends up in the summary.

    A TableError says which sources cannot be taken together, a ScoringError that something else is in the folder.
    """
    place = _make_absolute(target)
    inputs, store = find_inputs(sources, place), open_store(place)
    load_scorer(release.files)  # refuses a model that no worker could use
    model = release.files["model.json"].decode()
    mark = json.dumps({"release": release.id, "threshold": threshold, "explain": explain})
    _claim(store, place, mark.encode(), inputs)
    requests = [Request(inputs[key], key, release.id, threshold, explain) for key in inputs]
    random.shuffle(requests)  # commands that share the folder are seldom at the same file
    futures = {executor.submit(score_input, place, model, request): request.source for request in requests}
    summary, finished = FolderSummary(), as_completed(futures)
    try:
        with click.progressbar(finished, len(futures), "files", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
            for future in bar:
                try:
                    summary += future.result()
                except list_fatal_errors():
                    why = "every process that tried it was killed; divide it, or give more memory"
                    summary += FolderSummary(1, problems=[f"{futures[future]} cannot be scored: {why}"])
    except CancelledError as error:
        raise ScoringError("The scheduler was lost. Start it, and then this command again, which goes on") from error
    finally:
        for future in futures:
            future.cancel()
    if isinstance(store, FolderStore):
        with suppress(KeyRefused, OSError):  # a link out of the folder, or too long a name: it is among the problems
            store.remove_leftovers(inputs)
    return summary


def find_inputs(sources: Sequence[str], place: str) -> dict[str, str]:
    """Return output → input of all files that the sources name: files, folders, patterns, prefixes.

    An output has the name of its input, without .gz, and with .csv if it does not end with that or with .parquet.
    Below a folder or a pattern it keeps the sub-folders. What is in the output is no input.
    """
    inputs: dict[str, str] = {}
    for source in sources:
        paths = {name: path for name, path in _expand(source) if not path.startswith(f"{place}/")}
        if not paths:
            raise TableError(
                f"There is no file to score in {source}; allowed are a file, a folder, a pattern like 'in/*.csv', and "
                f"s3://bucket/folder/. Names that begin with . or _ and files in {place} are left out"
            )
        for name, path in paths.items():
            key = name[: -len(GZIP_SUFFIX)] if name.lower().endswith(GZIP_SUFFIX) else name
            key += "" if key.lower().endswith((CSV_SUFFIX, PARQUET_SUFFIX)) else CSV_SUFFIX
            if inputs.setdefault(key, path) != path:
                raise TableError(
                    f"Both {inputs[key]} and {path} would become {place}/{key}; score them into two folders"
                )
    return inputs


def _expand(source: str) -> Iterator[tuple[str, str]]:
    """Return of each file that a source names the part of the path that its output keeps, and the whole path."""
    if source in ("", predict.STANDARD):
        raise TableError(f"{source!r} has no name for an output in a folder; allowed are files, folders and patterns")
    path, is_local = _make_absolute(source), "://" not in source
    if source.endswith("/") or (is_local and Path(path).is_dir()):
        folder, pattern = path, ""
    elif WILDCARD.search(path) and not (is_local and Path(path).exists()):
        folder = WILDCARD.split(path, maxsplit=1)[0].rpartition("/")[0]
        pattern = path.removeprefix(f"{folder}/")
    else:
        yield path.rpartition("/")[2], path
        return
    for key in open_store(folder).list(WILDCARD.split(pattern, maxsplit=1)[0]):
        names, patterns = key.split("/"), pattern.split("/")
        is_match = not pattern or (len(names) == len(patterns) and all(map(fnmatchcase, names, patterns)))
        is_pipe = is_local and (Path(folder, key).is_fifo() or Path(folder, key).is_socket())
        if is_match and not is_pipe and not any(name.startswith(HIDDEN) for name in names):
            yield key, f"{folder}/{key}"


def _make_absolute(path: str) -> str:
    """Return a path that is the same in every working folder; a link to a file keeps its own name."""
    if "://" in path:
        return path.rstrip("/")
    whole = Path(path).absolute()
    return str(whole.resolve() if whole.is_dir() else whole.parent.resolve() / whole.name)


def _claim(store: Store, place: str, mark: bytes, keys: Collection[str]) -> None:
    """Mark an output with its settings, or refuse one of other settings, or of none."""
    before = set(store.list("")).intersection(keys)
    if before and MARK not in store.list(MARK):  # asked for after the outputs, which nobody writes before
        raise ScoringError(f"{place}/{min(before)} is there, and no {MARK} that says what scored it; empty the folder")
    store.create(MARK, mark)
    if (other := store.read(MARK)) != mark:
        raise ScoringError(
            f"{place} has scores of {other[:200].decode(errors='replace')}, not of {mark.decode()}; give another "
            f"folder to -o, or the same --release, --threshold and --explain"
        )


def score_input(place: str, model: str, request: Request) -> FolderSummary:
    """Score a file with the text of a `model.json`, unless its output is there; errors of the output are raised."""
    store, scorer = predict.open_once(place), Scorer.load(json.loads(model))
    rows, not_scored, parts = 0, 0, [f"{','.join(predict.list_columns(request))}\n".encode()]
    try:
        if _is_stored(store, request.target):
            return FolderSummary(1)
        with predict.open_input(request.source) as stream, predict.explain_input(request.source):
            for chunk in read_rows(stream)[1]:
                predictions = scoring.score_rows(scorer, chunk)
                parts.append(predict.format_rows(chunk, predictions, scorer, str(request.release), request))
                rows += len(chunk)
                not_scored += int(np.count_nonzero(~predictions.is_scored))
        is_parquet = request.target.lower().endswith(PARQUET_SUFFIX)
        content = _convert_to_parquet(b"".join(parts), request) if is_parquet else b"".join(parts)
        return FolderSummary(1, 1, rows, not_scored) if store.create(request.target, content) else FolderSummary(1)
    except KeyRefused as error:  # of the output's name
        return FolderSummary(1, problems=[f"{request.source} cannot be scored: {error}"])
    except TableError as error:
        if isinstance(error.__cause__, StorageUnavailable):  # which is no fault of the file
            raise error.__cause__ from None
        return FolderSummary(1, problems=[str(error)])


def _is_stored(store: Store, key: str) -> bool:
    """Say whether an output is there; an empty one is deleted: its writer was killed, where links are not possible."""
    try:
        with suppress(KeyMissing):
            store.read(key, at_most=0)
            store.delete(key)
    except KeyTooLarge:
        return True
    return False


def _convert_to_parquet(lines: bytes, request: Request) -> bytes:
    import pyarrow as pa  # 0.2 s, which CSV does without
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pa_parquet

    types = dict.fromkeys(predict.list_columns(request), pa.string())
    types |= {columns.PROBABILITY: pa.float64(), predict.CALL: pa.int8()}
    parsing, conversion = pa_csv.ParseOptions(newlines_in_values=True), pa_csv.ConvertOptions(column_types=types)
    table = pa_csv.read_csv(BytesIO(lines), pa_csv.ReadOptions(use_threads=False), parsing, conversion)
    metadata = {"release": str(request.release), "threshold": str(request.threshold)}
    pa_parquet.write_table(table.replace_schema_metadata(metadata), content := BytesIO())
    return content.getvalue()
