"""A value and its files: what each type looks like as bytes.

A value of several files has a JSON document last, which holds the SHA-256 of the others: a mixed pair is refused.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import msgspec
import pandas as pd
from sklearn.pipeline import Pipeline

from bcw_assets import documents
from bcw_assets.errors import BcwError
from bcw_assets.ml.evaluation.report import METRICS_VERSION, Evaluation, Report
from bcw_assets.ml.model import numbers, preparation, resampling
from bcw_assets.ml.table import canonical, columns

HASHES = "sha256"
TEXT_COLUMNS = (columns.ID, columns.DIAGNOSIS, preparation.SPLIT)  # columns that are no numbers


class FormatError(BcwError):
    """Stored bytes are not what this project writes."""


class Format(NamedTuple):
    """How one type is stored."""

    names: tuple[str, ...]  # of its files, {} standing for the asset's; the last one speaks for all of them
    dump: Callable[[Any], tuple[bytes | documents.Document, ...]]  # value → the content of each; a document for JSON
    load: Callable[..., Any]  # the same back to the value


def dump(value: object, key: str) -> dict[str, bytes]:
    """Return the files of a value stored under `key`: keys → bytes, in the order in which they must be written."""
    kind = type(value)
    files: dict[str, bytes] = {}
    for file, content in zip(list_keys(kind, key), FORMATS[kind].dump(value), strict=True):
        files[file] = content if isinstance(content, bytes) else documents.encode(content | {HASHES: _hash(files)})
    return files


def list_keys(kind: type, key: str) -> list[str]:
    """Return the keys of the files of a value of type `kind` stored under `key`; the last speaks for all."""
    folder, _, asset = key.rpartition("/")
    return [f"{folder}/{name.format(asset)}" for name in FORMATS[kind].names]


def load(kind: type, files: Mapping[str, bytes]) -> Any:
    """Return the value of type `kind` that the files (`list_keys` → bytes) hold, or raise a FormatError."""
    contents = [_read_document(file, files) if file.endswith(".json") else content for file, content in files.items()]
    try:
        return FORMATS[kind].load(*contents)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise FormatError(f"{' or '.join(files)} is not what this project writes ({error})") from error


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


def _read_frame(content: bytes, expected: list[str]) -> pd.DataFrame:
    """Return what is in a CSV as it stands there, mending nothing: what it is worth is for the checks to say."""
    frame = pd.read_csv(io.BytesIO(content), dtype=dict.fromkeys(TEXT_COLUMNS, "str"), keep_default_na=False)
    if list(frame.columns) != expected:
        raise ValueError(f"the columns are {list(frame.columns)}, not {expected}")
    return frame


def _load_table(content: bytes) -> pd.DataFrame:
    frame = _read_frame(content, list(columns.RAW))
    return frame.astype(dict.fromkeys(columns.MEASUREMENTS, "float64"))  # a column of 1 and 2 is one of floats too


def _dump_prepared(value: preparation.Prepared) -> tuple[bytes, documents.Document]:
    how = {"split": asdict(value.split), "scaler": numbers.dump_scaler(value.scaler)}
    return format_csv(value.rows), {"fingerprint": value.fingerprint, **how}


def _load_prepared(content: bytes, document: documents.Document) -> preparation.Prepared:
    split = preparation.Split(**document["split"])
    rows = _read_frame(content, list(preparation.READY_DESCRIPTIONS))
    return preparation.Prepared(rows, numbers.load_scaler(document["scaler"]), split, document["fingerprint"])


def _dump_cross_validation(value: resampling.CrossValidation) -> tuple[bytes, documents.Document]:
    how = {"resampling": asdict(value.resampling), "settings": value.settings}
    return format_csv(value.rows), {"fingerprint": value.fingerprint, **how}


def _load_cross_validation(content: bytes, document: documents.Document) -> resampling.CrossValidation:
    how = resampling.Resampling(**document["resampling"])
    repeats = content.partition(b"\n")[0].count(b",") - 1  # not by the document, which may say a thousand million
    rows = _read_frame(content, list(resampling.describe_columns(repeats)))
    if how.repeats != repeats:
        raise ValueError(f"it has {repeats} repeats, and the document says {how.repeats}")
    return resampling.CrossValidation(rows, how, document["settings"], document["fingerprint"])


def _load_evaluation(figure: bytes, card: bytes, document: documents.Document) -> Evaluation:
    if document["schema_version"] != METRICS_VERSION:
        schema = f"its schema_version is {document['schema_version']!r}, and this version reads {METRICS_VERSION}"
        raise FormatError(f"another version of bcw_assets wrote it ({schema})")
    return Evaluation(msgspec.convert(document, Report), figure, card.decode())


FORMATS = {  # type of the value → how it is stored
    pd.DataFrame: Format(("{}.csv",), lambda value: (canonical.write_table(value),), _load_table),
    preparation.Prepared: Format(("{}.csv", "{}.json"), _dump_prepared, _load_prepared),
    # The pickle, which could execute anything, is for others.
    Pipeline: Format(
        ("{}.pkl", "{}.json"),
        lambda value: (pickle.dumps(value, protocol=5), numbers.dump_model(value)),
        lambda _, document: numbers.load_model(document),
    ),
    resampling.CrossValidation: Format(("{}.csv", "{}.json"), _dump_cross_validation, _load_cross_validation),
    Evaluation: Format(
        ("evaluation.png", "MODEL_CARD.md", "{}.json"),
        lambda value: (value.figure, value.card.encode(), asdict(value.report)),
        _load_evaluation,
    ),
}
