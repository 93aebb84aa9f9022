"""The one room that knows a model as numbers: a fitted pipeline ⇄ `model.json` ⇄ what scores rows with NumPy alone."""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bcw_assets.ml.table import columns

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

CLASSES = [0, 1]  # 1 is malignant


@dataclass(frozen=True, eq=False)
class Scorer:
    """The numbers of a model: a mean, scale and coefficient for each of the measurements that it takes.

    The intercept is the log odds of a patient with average measurements.
    """

    features: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    intercept: float

    @classmethod
    def load(cls, document: Mapping[str, Any]) -> "Scorer":
        """Return the model that a `model.json` holds; a ValueError says why it holds none of known measurements."""
        features, classes = _read_features(document), document.get("classes")
        if classes != CLASSES or any(isinstance(label, bool) for label in classes):
            raise ValueError(f"it has the classes {classes!r}; allowed are {CLASSES} (1 = malignant)")
        names = ("mean", "scale", "coefficients")
        mean, scale, coefficients = (_read_numbers(document, name, len(features)) for name in names)
        if not (scale > 0).all():
            raise ValueError("it has a scale that is not above 0")
        (intercept,) = _read_numbers({"intercept": [document.get("intercept")]}, "intercept", 1)
        return cls(features, mean, scale, coefficients, float(intercept))

    def list_coefficients(self) -> list[dict[str, str | float]]:
        """Return a row for each measurement, that of the largest coefficient first."""
        pairs = sorted(zip(self.features, self.coefficients.tolist(), strict=True), key=lambda pair: -abs(pair[1]))
        return [{"measurement": name, "log odds per sd": round(value, 3)} for name, value in pairs]

    def compute_contributions(self, measurements: np.ndarray) -> np.ndarray:
        """Return what each of m features adds to the intercept in the log odds of n rows (30 × n), of shape (m, n)."""
        return np.array(list(self._compute_terms(measurements)))

    def compute_log_odds(self, measurements: np.ndarray) -> np.ndarray:
        """Return the log odds of malignancy of n rows (30 × n), of shape (n,).

        They are added up column by column, so that a row's are the same to the last digit in any company.
        """
        return np.asarray(sum(self._compute_terms(measurements), np.full(measurements.shape[1], self.intercept)))

    def _compute_terms(self, measurements: np.ndarray) -> Iterator[np.ndarray]:
        for name, mean, scale, coefficient in zip(self.features, self.mean, self.scale, self.coefficients, strict=True):
            yield coefficient * ((measurements[columns.MEASUREMENTS.index(name)] - mean) / scale)


def compute_probability(log_odds: np.ndarray) -> np.ndarray:
    """Return P(malignant) of log odds.

    >>> compute_probability(np.array([0.0, 800.0, -800.0])).tolist()
    [0.5, 1.0, 0.0]
    """
    small = np.exp(-np.abs(log_odds))  # never overflows
    return np.asarray(np.where(log_odds >= 0, 1.0, small) / (1.0 + small))


def dump_model(model: "Pipeline") -> dict[str, Any]:
    """Return what `model.json` holds: all that is needed to compute a probability, as numbers."""
    from bcw_assets.ml.model import training  # scikit-learn, which those who score rows do without

    scaler, classifier = model
    return {
        "settings": training.read_settings(model),
        "classes": classifier.classes_.tolist(),
        "formula": "P(1 = malignant) = 1 / (1 + exp(-(intercept + Σ coefficient · (x - mean) / scale)))",
        **dump_scaler(scaler),
        "coefficients": classifier.coef_[0].tolist(),
        "intercept": float(classifier.intercept_[0]),
        "steps": int(classifier.n_iter_[0]),
    }


def load_model(document: Mapping[str, Any]) -> "Pipeline":
    """Return the pipeline that `dump_model` was given, or raise a LookupError, TypeError or ValueError."""
    from bcw_assets.ml.model import training  # as above

    scorer, settings = Scorer.load(document), document["settings"]
    model = training.build(float(settings["C"]))
    if training.read_settings(model) != settings:
        raise ValueError(f"it was fitted with {settings}, this version fits with {training.read_settings(model)}")
    classifier = model[-1]
    classifier.classes_, classifier.n_features_in_ = np.array(CLASSES), len(scorer.features)
    classifier.coef_ = scorer.coefficients.reshape(1, -1)
    classifier.intercept_ = np.array([scorer.intercept])
    classifier.n_iter_ = np.array([int(document["steps"])], dtype=np.int32)
    model.steps[0] = (training.SCALER, load_scaler(document))
    return model


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
    """Return the scaler that `dump_scaler` was given, or raise as `load_model` does."""
    from sklearn.preprocessing import StandardScaler  # as above

    features, scaler = _read_features(document), StandardScaler()
    scaler.feature_names_in_ = np.array(features, dtype=object)
    scaler.n_features_in_ = len(features)
    scaler.mean_, scaler.scale_, scaler.var_ = (
        _read_numbers(document, name, len(features)) for name in ("mean", "scale", "variance")
    )
    scaler.n_samples_seen_ = np.int64(document["fitted_on_rows"])
    return scaler


def _read_features(document: Mapping[str, Any]) -> tuple[str, ...]:
    features = document.get("features")
    if not isinstance(features, list) or not features:
        raise ValueError("it names no features")
    if unknown := [name for name in features if name not in columns.MEASUREMENTS]:
        raise ValueError(f"it takes features that this version does not know ({', '.join(map(repr, unknown))[:300]})")
    if len(set(features)) < len(features):
        raise ValueError("it takes a feature twice")
    return tuple(features)


def _read_numbers(document: Mapping[str, Any], name: str, count: int) -> np.ndarray:
    values: Any = document.get(name)
    is_numeric = isinstance(values, list) and len(values) == count and {*map(type, values)} <= {int, float}
    if not is_numeric or not all(abs(value) <= sys.float_info.max for value in values):
        raise ValueError(f"it has no {count} finite numbers as {name}")
    return np.array(values, dtype=np.float64)
