"""A value and its files: what each type looks like as bytes.

A value of several files has a JSON document last, which holds the SHA-256 of the others: a mixed pair is refused.
"""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from bcw_assets import documents
from bcw_assets.documents import Document, digest
from bcw_assets.errors import BcwError
from bcw_assets.ml import columns, preparation, resampling, table, training
from bcw_assets.ml.evaluation import SCHEMA_VERSION, Evaluation, Report
from bcw_assets.ml.preparation import Prepared, Split
from bcw_assets.ml.resampling import CrossValidation, Resampling

HASHES = "sha256"


class FormatError(BcwError):
    """Stored bytes are not what this project writes."""


@dataclass(frozen=True)
class Format:
    """How one type is stored.

    Attributes:
        names: of its files, {} standing for the asset's; the last one speaks for all of them.
        dump: value → the content of each; a document instead of bytes for JSON.
        load: the same back to the value.
    """

    names: tuple[str, ...]
    dump: Callable[[Any], tuple[bytes | Document, ...]]
    load: Callable[..., Any]


def dump(value: object, key: str) -> dict[str, bytes]:
    """Return the files of a value stored under `key`: keys → bytes, in the order in which they must be written."""
    kind = type(value)
    files: dict[str, bytes] = {}
    for file, content in zip(keys(kind, key), FORMATS[kind].dump(value), strict=True):
        if not isinstance(content, bytes):
            hashes = {_name(file): digest(others) for file, others in files.items()}
            content = documents.write(content | ({HASHES: hashes} if hashes else {}))
        files[file] = content
    return files


def keys(kind: type, key: str) -> list[str]:
    """Return the keys of the files of a value of type `kind` stored under `key`; the last speaks for all."""
    folder, _, asset = key.rpartition("/")
    return [f"{folder}/{name.format(asset)}" for name in FORMATS[kind].names]


def load(kind: type, files: Mapping[str, bytes]) -> Any:
    """Return the value of type `kind` that the files (`keys` → bytes) hold.

    Raises:
        FormatError: the files do not belong together, or are not what `dump` writes.
    """
    contents = [_document(file, files) if file.endswith(".json") else content for file, content in files.items()]
    try:
        return FORMATS[kind].load(*contents)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise FormatError(f"{' or '.join(files)} is not what this project writes ({error})") from error


def version(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of the file that speaks for all: the last."""
    return digest(list(files.values())[-1])


def _document(file: str, files: Mapping[str, bytes]) -> Document:
    try:
        document = documents.read(files[file])
    except ValueError as error:
        raise FormatError(f"{file}: {error}") from error
    hashes = document.pop(HASHES, None)
    expected = {_name(other): digest(content) for other, content in files.items() if other != file}
    if (hashes or {}) != expected:
        raise FormatError(f"{', '.join(expected)} and {_name(file)} are not of one run: the SHA-256 there is another")
    return document


def _name(file: str) -> str:
    return file.rpartition("/")[2]


def csv_of(frame: pd.DataFrame) -> bytes:
    """Return a table as CSV, every float by the shortest text that gives it back."""
    return frame.to_csv(index=False, lineterminator="\n").encode()


def _frame(content: bytes, expected: list[str], texts: tuple[str, ...]) -> pd.DataFrame:
    """Return what is in a CSV as it stands there, mending nothing: what it is worth is for the checks to say."""
    frame = pd.read_csv(io.BytesIO(content), dtype=dict.fromkeys(texts, "str"), keep_default_na=False)
    if list(frame.columns) != expected:
        raise ValueError(f"the columns are {list(frame.columns)}, not {expected}")
    return frame


def _numbers(document: Document, name: str, count: int) -> np.ndarray:
    values = np.array(document[name], dtype=np.float64)
    if values.shape != (count,):
        raise ValueError(f"{name} has shape {values.shape}, not ({count},)")
    return values


def _load_table(content: bytes) -> pd.DataFrame:
    frame = _frame(content, list(columns.RAW), texts=(columns.ID, columns.DIAGNOSIS))
    return frame.astype(dict.fromkeys(columns.MEASUREMENTS, "float64"))  # a column of 1 and 2 is one of floats too


def _dump_scaler(scaler: StandardScaler) -> Document:
    return {
        "features": scaler.feature_names_in_.tolist(),
        "mean": scaler.mean_.tolist(),
        "scale": scaler.scale_.tolist(),
        "variance": scaler.var_.tolist(),
        "fitted_on_rows": int(scaler.n_samples_seen_),
    }


def _load_scaler(document: Document) -> StandardScaler:
    scaler = StandardScaler()
    scaler.feature_names_in_ = np.array(document["features"], dtype=object)
    scaler.n_features_in_ = len(document["features"])
    scaler.mean_ = _numbers(document, "mean", scaler.n_features_in_)
    scaler.scale_ = _numbers(document, "scale", scaler.n_features_in_)
    scaler.var_ = _numbers(document, "variance", scaler.n_features_in_)
    scaler.n_samples_seen_ = np.int64(document["fitted_on_rows"])
    return scaler


def _dump_prepared(value: Prepared) -> tuple[bytes, Document]:
    document = {
        "fingerprint": value.fingerprint,
        "split": asdict(value.split),
        "scaler": _dump_scaler(value.scaler),
    }
    return csv_of(value.rows), document


def _load_prepared(content: bytes, document: Document) -> Prepared:
    rows = _frame(content, list(preparation.READY), texts=(columns.ID, preparation.SPLIT))
    return Prepared(rows, _load_scaler(document["scaler"]), Split(**document["split"]), document["fingerprint"])


def model_document(model: Pipeline) -> Document:
    """Return what `model.json` holds: all that is needed to compute a probability, as numbers."""
    classifier = model[training.CLASSIFIER]
    return {
        "settings": training.settings(model),
        "classes": classifier.classes_.tolist(),
        "formula": "P(1 = malignant) = 1 / (1 + exp(-(intercept + Σ coefficient · (x - mean) / scale)))",
        **_dump_scaler(model[training.SCALER]),
        "coefficients": classifier.coef_[0].tolist(),
        "intercept": float(classifier.intercept_[0]),
        "steps": int(classifier.n_iter_[0]),
    }


def _dump_model(model: Pipeline) -> tuple[bytes, Document]:
    return pickle.dumps(model, protocol=5), model_document(model)


def _load_model(_: bytes, document: Document) -> Pipeline:
    """Build the model from its numbers; the pickle, which could execute anything, is for others."""
    settings = document["settings"]
    model = training.build(float(settings["C"]))
    if training.settings(model) != settings:
        raise ValueError(f"it was fitted with {settings}, this version fits with {training.settings(model)}")
    scaler, classifier = _load_scaler(document), model[training.CLASSIFIER]
    classifier.classes_ = np.array(document["classes"])
    classifier.n_features_in_ = scaler.n_features_in_
    classifier.coef_ = _numbers(document, "coefficients", scaler.n_features_in_).reshape(1, -1)
    classifier.intercept_ = np.array([float(document["intercept"])])
    classifier.n_iter_ = np.array([int(document["steps"])], dtype=np.int32)
    return Pipeline([(training.SCALER, scaler), (training.CLASSIFIER, classifier)])


def _dump_cross_validation(value: CrossValidation) -> tuple[bytes, Document]:
    document = {
        "fingerprint": value.fingerprint,
        "resampling": asdict(value.resampling),
        "settings": value.settings,
    }
    return csv_of(value.rows), document


def _load_cross_validation(content: bytes, document: Document) -> CrossValidation:
    how = Resampling(**document["resampling"])
    repeats = content.partition(b"\n")[0].count(b",") - 1  # not by the document, which may say a thousand million
    names = [columns.ID, columns.DIAGNOSIS, *resampling.repeat_names(repeats)]
    rows = _frame(content, names, texts=(columns.ID, columns.DIAGNOSIS))
    if how.repeats != repeats:
        raise ValueError(f"it has {repeats} repeats, and the document says {how.repeats}")
    return CrossValidation(rows, how, document["settings"], document["fingerprint"])


def _dump_evaluation(value: Evaluation) -> tuple[bytes, bytes, Document]:
    return value.figure, value.card.encode(), asdict(value.report)


def _load_evaluation(figure: bytes, card: bytes, document: Document) -> Evaluation:
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"its schema_version is {document['schema_version']!r}, this version reads {SCHEMA_VERSION}")
    return Evaluation(documents.typed(Report, document), figure, card.decode())


FORMATS = {
    pd.DataFrame: Format(("{}.csv",), lambda value: (table.write(value),), _load_table),
    Prepared: Format(("{}.csv", "{}.json"), _dump_prepared, _load_prepared),
    Pipeline: Format(("{}.pkl", "{}.json"), _dump_model, _load_model),
    CrossValidation: Format(("{}.csv", "{}.json"), _dump_cross_validation, _load_cross_validation),
    Evaluation: Format(("evaluation.png", "MODEL_CARD.md", "{}.json"), _dump_evaluation, _load_evaluation),
}
"""Type of the value → how it is stored."""
