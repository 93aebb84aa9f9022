"""The one room that knows a model as numbers: a fitted pipeline ⇄ `model.json` ⇄ what scores rows with NumPy alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bcw_assets.errors import OTHER_VERSION, ScoringError
from bcw_assets.ml.table import columns

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

CLASSES = [0, 1]  # 1 is malignant


@dataclass(frozen=True, eq=False)
class Scorer:
    """The numbers of a model: one mean, scale and coefficient for each of the measurements that it takes.

    Attributes:
        features: the names of these measurements.
        mean, scale, coefficients: in their order.
        intercept: the log odds of a patient with average measurements.
    """

    features: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: float

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> "Scorer":
        """Return the model that a `model.json` holds.

        Raises:
            ScoringError: it does not hold the numbers of a model of known measurements.
        """
        features = _known_features(document)
        classes = document.get("classes")
        if classes != CLASSES or any(isinstance(label, bool) for label in classes):
            raise refuse(f"has the classes {classes!r}; allowed are {CLASSES} (1 = malignant)")
        mean, scale, coefficients = (
            _numbers(document, name, len(features)) for name in ("mean", "scale", "coefficients")
        )
        if not (scale > 0).all():
            raise refuse("has a scale that is not above 0")
        (intercept,) = _numbers({"intercept": [document.get("intercept")]}, "intercept", 1)
        return cls(features, mean, scale, coefficients, float(intercept))

    @property
    def places(self) -> list[int]:
        """Where the features are among the `columns.MEASUREMENTS`."""
        return [columns.MEASUREMENTS.index(name) for name in self.features]

    def contributions(self, measurements: np.ndarray) -> np.ndarray:
        """Return what each of m features adds to the log odds, of shape (m, n); the intercept is beside them.

        Args:
            measurements: 30 × n, in the order of `columns.MEASUREMENTS`.
        """
        standardised = (measurements[self.places] - self.mean[:, None]) / self.scale[:, None]
        added: np.ndarray = self.coefficients[:, None] * standardised
        return added

    def log_odds(self, measurements: np.ndarray) -> np.ndarray:
        """Return the log odds of malignancy of the rows, of shape (n,).

        They are added up column by column, so that a row's are the same to the last digit in any company.

        Args:
            measurements: 30 × n, in the order of `columns.MEASUREMENTS`.
        """
        log_odds = np.full(measurements.shape[1], self.intercept)
        for place, mean, scale, coefficient in zip(self.places, self.mean, self.scale, self.coefficients, strict=True):
            log_odds += coefficient * ((measurements[place] - mean) / scale)
        return log_odds


def refuse(problem: str) -> ScoringError:
    """Return the error that says what is wrong with a `model.json`."""
    return ScoringError(f"model.json {problem}; {OTHER_VERSION}, or use another release")


def _known_features(document: Mapping[str, Any]) -> tuple[str, ...]:
    features = document.get("features")
    if not isinstance(features, list) or not features:
        raise refuse("names no features")
    if unknown := [name for name in features if name not in columns.MEASUREMENTS]:
        raise refuse(f"takes features that this version does not know ({', '.join(map(repr, unknown))[:300]})")
    if len(set(features)) < len(features):
        raise refuse("takes a feature twice")
    return tuple(features)


def _numbers(document: Mapping[str, Any], name: str, count: int) -> np.ndarray:
    values = document.get(name)
    are_numbers = isinstance(values, list) and all(type(value) in (int, float) for value in values)
    if not are_numbers or len(values) != count:  # type: ignore[arg-type]  # it is a list by now
        raise refuse(f"has no {count} numbers as {name}")
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        numbers = np.array([np.inf])
    if not np.isfinite(numbers).all():
        raise refuse(f"has a number among {name} that is not finite")
    return numbers


def probability(log_odds: np.ndarray) -> np.ndarray:
    """Return P(malignant) of log odds.

    >>> probability(np.array([0.0, 800.0, -800.0])).tolist()
    [0.5, 1.0, 0.0]
    """
    small = np.exp(-np.abs(log_odds))  # never overflows
    probabilities: np.ndarray = np.where(log_odds >= 0, 1.0, small) / (1.0 + small)
    return probabilities


def dump_model(model: "Pipeline") -> dict[str, Any]:
    """Return what `model.json` holds: all that is needed to compute a probability, as numbers."""
    from bcw_assets.ml.model import training  # scikit-learn, which those who score rows do without

    classifier = model[training.CLASSIFIER]
    return {
        "settings": training.settings(model),
        "classes": classifier.classes_.tolist(),
        "formula": "P(1 = malignant) = 1 / (1 + exp(-(intercept + Σ coefficient · (x - mean) / scale)))",
        **dump_scaler(model[training.SCALER]),
        "coefficients": classifier.coef_[0].tolist(),
        "intercept": float(classifier.intercept_[0]),
        "steps": int(classifier.n_iter_[0]),
    }


def load_model(document: Mapping[str, Any]) -> "Pipeline":
    """Return the pipeline that `dump_model` was given.

    Raises:
        LookupError, TypeError, ValueError: the document is not what it returns, or is of another recipe.
    """
    from sklearn.pipeline import Pipeline  # as above

    from bcw_assets.ml.model import training

    settings = document["settings"]
    model = training.build(float(settings["C"]))
    if training.settings(model) != settings:
        raise ValueError(f"it was fitted with {settings}, this version fits with {training.settings(model)}")
    scaler, classifier = load_scaler(document), model[training.CLASSIFIER]
    if document["classes"] != CLASSES:
        raise ValueError(f"its classes are {document['classes']}, not {CLASSES} (1 = malignant)")
    classifier.classes_ = np.array(CLASSES)
    classifier.n_features_in_ = scaler.n_features_in_
    classifier.coef_ = _array(document, "coefficients", scaler.n_features_in_).reshape(1, -1)
    classifier.intercept_ = np.array([float(document["intercept"])])
    classifier.n_iter_ = np.array([int(document["steps"])], dtype=np.int32)
    return Pipeline([(training.SCALER, scaler), (training.CLASSIFIER, classifier)])


def dump_scaler(scaler: "StandardScaler") -> dict[str, Any]:
    """Return a fitted scaler as numbers."""
    return {
        "features": scaler.feature_names_in_.tolist(),
        "mean": scaler.mean_.tolist(),
        "scale": scaler.scale_.tolist(),
        "variance": scaler.var_.tolist(),
        "fitted_on_rows": int(scaler.n_samples_seen_),
    }


def load_scaler(document: Mapping[str, Any]) -> "StandardScaler":
    """Return the scaler that `dump_scaler` was given.

    Raises:
        LookupError, TypeError, ValueError: the document is not what it returns.
    """
    from sklearn.preprocessing import StandardScaler  # as above

    scaler = StandardScaler()
    scaler.feature_names_in_ = np.array(document["features"], dtype=object)
    scaler.n_features_in_ = len(document["features"])
    scaler.mean_ = _array(document, "mean", scaler.n_features_in_)
    scaler.scale_ = _array(document, "scale", scaler.n_features_in_)
    scaler.var_ = _array(document, "variance", scaler.n_features_in_)
    scaler.n_samples_seen_ = np.int64(document["fitted_on_rows"])
    return scaler


def _array(document: Mapping[str, Any], name: str, count: int) -> np.ndarray:
    values = np.array(document[name], dtype=np.float64)
    if values.shape != (count,):
        raise ValueError(f"{name} has shape {values.shape}, not ({count},)")
    return values
