"""A value and its files: what each type looks like as bytes.

A table is CSV, which people can read, up to a number of rows, and Parquet beyond. A value of several files has a JSON
document last, which holds the SHA-256 of the others: a mixed pair is refused.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.pipeline import Pipeline

from bcw_assets import documents
from bcw_assets.errors import BcwError
from bcw_assets.locations import CSV_SUFFIX, PARQUET_SUFFIX
from bcw_assets.ml.evaluation.report import METRICS_VERSION, Evaluation, Report
from bcw_assets.ml.model import numbers, preparation, resampling
from bcw_assets.ml.table import canonical, columns

HASHES = "sha256"
TEXT_COLUMNS = (columns.ID, columns.DIAGNOSIS, preparation.SPLIT)  # columns that are no numbers
MOST_ROWS_OF_CSV = 50_000  # Parquet is read in a twentieth of the time
SUFFIX_RULE = f"CSV up to {MOST_ROWS_OF_CSV:,} rows, Parquet beyond"


class FormatError(BcwError):
    """Stored bytes are not what this project writes."""


class Format(NamedTuple):
    """How one type is stored."""

    names: tuple[str, ...]  # of its files, {} standing for the asset's; the last one speaks for all of them
    dump: Callable[[Any], tuple[pd.DataFrame | bytes | documents.Document, ...]]  # value → what is in each
    load: Callable[..., Any]  # the same back to the value


def dump(value: object, key: str) -> dict[str, bytes]:
    """Return the files of a value stored under `key`: keys → bytes, in the order in which they must be written."""
    contents, files = FORMATS[type(value)].dump(value), dict[str, bytes]()
    is_large = any(isinstance(content, pd.DataFrame) and len(content) > MOST_ROWS_OF_CSV for content in contents)
    keys = list_keys(type(value), key, PARQUET_SUFFIX if is_large else CSV_SUFFIX)
    for file, content in zip(keys, contents, strict=True):
        if isinstance(content, pd.DataFrame):
            # A table that is the value itself is raw_data, which has UCI's digits.
            write = _format_parquet if is_large else canonical.write_table if content is value else format_csv
            files[file] = write(content)
        else:
            files[file] = content if isinstance(content, bytes) else documents.encode(content | {HASHES: _hash(files)})
    return files


def list_keys(kind: type, key: str, suffix: str = CSV_SUFFIX) -> list[str]:
    """Return the keys of the files of a value of type `kind` stored under `key`; the last speaks for all."""
    folder, _, asset = key.rpartition("/")
    return [f"{folder}/{name.format(asset).replace(CSV_SUFFIX, suffix)}" for name in FORMATS[kind].names]


def cut_suffix(address: str) -> str:
    """Return the address of a table without the suffix, which may be another in every run."""
    return address.removesuffix(CSV_SUFFIX).removesuffix(PARQUET_SUFFIX)


def load(kind: type, files: Mapping[str, bytes]) -> Any:
    """Return the value of type `kind` that the files (`list_keys` → bytes) hold, or raise a FormatError."""
    try:
        contents = [_read_content(file, files) for file in reversed(list(files))]  # the document vouches for the others
        return FORMATS[kind].load(*reversed(contents))
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, pa.ArrowException) as error:
        raise FormatError(f"{' or '.join(files)} is not what this project writes ({error})") from error


def _read_content(file: str, files: Mapping[str, bytes]) -> pd.DataFrame | bytes | documents.Document:
    """Return what is in a file as it stands there, mending nothing: what it is worth is for the checks to say."""
    content = files[file]
    if cut_suffix(file) == file:
        return _read_document(file, files) if file.endswith(".json") else content
    if file.endswith(CSV_SUFFIX):
        return pd.read_csv(io.BytesIO(content), dtype=dict.fromkeys(TEXT_COLUMNS, "str"), keep_default_na=False)
    table = pq.read_table(pa.BufferReader(content), use_threads=False)
    return cast(pd.DataFrame, table.to_pandas(use_threads=False, ignore_metadata=True))


def _read_document(file: str, files: Mapping[str, bytes]) -> documents.Document:
    try:
        document = documents.parse(files[file])
    except ValueError as error:
        raise FormatError(f"{file}: {error}") from error
    hashes = _hash({other: content for other, content in files.items() if other != file})
    if document.pop(HASHES, None) != hashes:
        raise FormatError(f"{', '.join(hashes)} and {file} are not of one run: the SHA-256 there is another")
    return document


def _hash(files: Mapping[str, bytes]) -> dict[str, str]:
    return {file.rpartition("/")[2]: documents.digest(content) for file, content in files.items()}


def format_csv(frame: pd.DataFrame) -> bytes:
    """Return a table as CSV, every float by the shortest text that gives it back."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _format_parquet(frame: pd.DataFrame) -> bytes:
    texts = [name for name in TEXT_COLUMNS if name in frame]
    sink = pa.BufferOutputStream()
    # Numbers hardly repeat, so that a dictionary of them takes time for nothing.
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), sink, use_dictionary=texts)
    return bytes(sink.getvalue())


def _require_columns(frame: pd.DataFrame, expected: list[str]) -> None:
    if list(frame.columns) != expected:
        raise ValueError(f"the columns are {list(frame.columns)}, not {expected}")


def _load_table(frame: pd.DataFrame) -> pd.DataFrame:
    _require_columns(frame, list(columns.RAW))
    # A column of 1 and 2 is one of floats too. Of others `astype` would part the block in which they lie in memory.
    whole = frame[list(columns.MEASUREMENTS)].select_dtypes(exclude="float64").columns
    return frame.astype(dict.fromkeys(whole, "float64")) if len(whole) else frame


def _dump_prepared(value: preparation.Prepared) -> tuple[pd.DataFrame, documents.Document]:
    how = {"split": asdict(value.split), "scaler": numbers.dump_scaler(value.scaler)}
    return value.rows, {"fingerprint": value.fingerprint, **how}


def _load_prepared(rows: pd.DataFrame, document: documents.Document) -> preparation.Prepared:
    split = preparation.Split(**document["split"])
    _require_columns(rows, list(preparation.READY_DESCRIPTIONS))
    return preparation.Prepared(rows, numbers.load_scaler(document["scaler"]), split, document["fingerprint"])


def _dump_cross_validation(value: resampling.CrossValidation) -> tuple[pd.DataFrame, documents.Document]:
    how = {"resampling": asdict(value.resampling), "settings": value.settings}
    return value.rows, {"fingerprint": value.fingerprint, **how}


def _load_cross_validation(rows: pd.DataFrame, document: documents.Document) -> resampling.CrossValidation:
    how, repeats = resampling.Resampling(**document["resampling"]), len(rows.columns) - 2
    if how.repeats != repeats:  # before a thousand million columns get their names
        raise ValueError(f"it has {repeats} repeats, and the document says {how.repeats}")
    _require_columns(rows, list(resampling.describe_columns(repeats)))
    return resampling.CrossValidation(rows, how, document["settings"], document["fingerprint"])


def _load_evaluation(figure: bytes, card: bytes, document: documents.Document) -> Evaluation:
    if document["schema_version"] != METRICS_VERSION:
        schema = f"its schema_version is {document['schema_version']!r}, and this version reads {METRICS_VERSION}"
        raise FormatError(f"another version of bcw_assets wrote it ({schema})")
    return Evaluation(msgspec.convert(document, Report), figure, card.decode())


FORMATS = {  # type of the value → how it is stored
    pd.DataFrame: Format(("{}.csv",), lambda value: (value,), _load_table),
    preparation.Prepared: Format(("{}.csv", "{}.json"), _dump_prepared, _load_prepared),
    # The pickle, which could execute anything, is for others; of the numbers in the document, it is always the same.
    Pipeline: Format(
        ("{}.pkl", "{}.json"),
        lambda value: (pickle.dumps(numbers.load_model(model := numbers.dump_model(value)), protocol=5), model),
        lambda _, document: numbers.load_model(document),
    ),
    resampling.CrossValidation: Format(("{}.csv", "{}.json"), _dump_cross_validation, _load_cross_validation),
    Evaluation: Format(
        ("evaluation.png", "MODEL_CARD.md", "{}.json"),
        lambda value: (value.figure, value.card.encode(), asdict(value.report)),
        _load_evaluation,
    ),
}
