"""Fits the classifier, and knows when a model is the optimum it claims to be."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from scipy.linalg import LinAlgWarning
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from bcw_assets.errors import TrainingError
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.model import preparation
from bcw_assets.ml.model.preparation import Prepared
from bcw_assets.ml.table import columns

RECIPE = 1  # raised when the way of fitting changes; a test pins the coefficients of the current one

SCALER = "scaler"
CLASSIFIER = "classifier"
# Reaches the optimum in nine steps; the default lbfgs stops up to 0.016 away from it in a coefficient.
SOLVER = {"solver": "newton-cholesky", "tol": 1e-8, "max_iter": 100}
# Largest gradient per patient that still counts as the optimum: a hundred times the solver's own tolerance, and a
# five-thousandth of what the same model leaves on the rows of another split.
FLAT = 1e-6


def build(C: float) -> Pipeline:  # noqa: N803 (scikit-learn's name for the knob)
    """Return the unfitted model: standardise the 30 raw measurements, then logistic regression of strength 1/C."""
    return Pipeline([(SCALER, StandardScaler()), (CLASSIFIER, LogisticRegression(C=C, **SOLVER))])


def settings(model: Pipeline) -> dict[str, float | int | str]:
    """Return what decides how `model` is fitted, beside its data."""
    classifier = model[CLASSIFIER]
    return {name: getattr(classifier, name) for name in ("C", *SOLVER)} | {"recipe": RECIPE}


def train(ready_data: Prepared, C: float) -> Pipeline:  # noqa: N803
    """Fit the classifier on the standardised training rows and put the scaler before it.

    Returns:
        A pipeline that takes *raw* measurements (n × 30, named) and gives P(benign), P(malignant).

    Raises:
        TrainingError: the optimum was not reached.
    """
    classifier = build(C)[CLASSIFIER]
    with require_convergence(C):
        classifier.fit(ready_data.measurements(preparation.TRAIN), ready_data.malignant(preparation.TRAIN))
    return Pipeline([(SCALER, ready_data.scaler), (CLASSIFIER, classifier)])


def tabulate_coefficients(model: Pipeline) -> str:
    """Return a Markdown table of the standardised coefficients, the largest first."""
    values = dict(zip(model[SCALER].feature_names_in_, model[CLASSIFIER].coef_[0], strict=True))
    rows = [f"| {name} | {values[name]:+.3f} |" for name in sorted(values, key=lambda name: -abs(values[name]))]
    return "\n".join(["| measurement | log odds per standard deviation |", "|---|---|", *rows])


@contextmanager
def require_convergence(C: float) -> Iterator[None]:  # noqa: N803
    """Turn a fit within that stops short of the optimum into a TrainingError."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        warnings.simplefilter("error", LinAlgWarning)
        try:
            yield
        except (ConvergenceWarning, LinAlgWarning) as error:
            reason = str(error).rstrip(".")
            raise TrainingError(f"The model could not be fitted with C = {C:g}: {reason}. Try a smaller C") from error


def measure_steepness(raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline) -> float:
    """Return the largest component of the objective's gradient on the training rows of `raw_data`, per patient.

    The objective is scikit-learn's: C · Σ log loss + |w|²/2, the intercept unpenalised. At the optimum the gradient is
    0, and only the rows that a model was fitted on make it so: this tells a model of other rows apart without a record.
    """
    classifier = model[CLASSIFIER]
    is_train = (ready_data.rows[preparation.SPLIT] == preparation.TRAIN).to_numpy()
    measurements = model[SCALER].transform(raw_data.loc[is_train, list(columns.MEASUREMENTS)])
    excess = expit(classifier.decision_function(measurements)) - ready_data.malignant(preparation.TRAIN)
    by_coefficient = measurements.T @ excess + classifier.coef_[0] / classifier.C
    return float(max(np.abs(by_coefficient).max(), abs(excess.sum())) / len(excess))


def check_convergence(raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline) -> Findings:
    """Find a model that is not the optimum on the training rows: stopped early, or fitted on other rows."""
    rise, steps = measure_steepness(raw_data, ready_data, model), int(model[CLASSIFIER].n_iter_[0])
    limit = model[CLASSIFIER].max_iter
    return Findings.of(
        (f"the gradient per patient is {rise:.3g}, not below {FLAT:g}", not rise < FLAT),
        (f"it took {steps} steps, its limit", steps >= limit),
        gradient_per_patient=rise,
        steps=steps,
    )
