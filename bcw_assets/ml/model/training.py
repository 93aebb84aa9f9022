"""The recipe of the model, its fit, and whether a model is the optimum that it claims to be."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd
from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from bcw_assets.errors import TrainingError
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.model import preparation
from bcw_assets.ml.table import columns

RECIPE = 1  # raised when the way of fitting changes; a test pins the coefficients of the current one

SCALER, CLASSIFIER = "scaler", "classifier"
# Reaches the optimum in nine steps; the default lbfgs stops up to 0.016 away from it in a coefficient.
SOLVER = {"solver": "newton-cholesky", "tol": 1e-8, "max_iter": 100}
# Largest gradient per patient that still counts as the optimum: a hundred times the solver's own tolerance, and a
# five-thousandth of what the same model leaves on the rows of another split.
LARGEST_GRADIENT = 1e-6


def build(C: float) -> Pipeline:  # noqa: N803 (scikit-learn's name for the knob)
    """Return the unfitted model: standardise the 30 raw measurements, then logistic regression of strength 1/C."""
    return Pipeline([(SCALER, StandardScaler()), (CLASSIFIER, LogisticRegression(C=C, **SOLVER))])


def read_settings(model: Pipeline) -> dict[str, float | int | str]:
    """Return what decides how `model` is fitted, beside its data."""
    return {name: getattr(model[CLASSIFIER], name) for name in ("C", *SOLVER)} | {"recipe": RECIPE}


def train(ready_data: preparation.Prepared, C: float) -> Pipeline:  # noqa: N803
    """Fit the classifier on the standardised training rows, or raise a TrainingError, and put the scaler before it.

    The pipeline takes *raw* measurements (n × 30, named) and gives P(benign), P(malignant).
    """
    model = build(C)
    with require_convergence(C):
        model[CLASSIFIER].fit(
            ready_data.select_measurements(preparation.TRAIN), ready_data.select_truths(preparation.TRAIN)
        )
    model.steps[0] = (SCALER, ready_data.scaler)
    return model


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


def measure_gradient(raw_data: pd.DataFrame, ready_data: preparation.Prepared, model: Pipeline) -> float:
    """Return the largest component of the objective's gradient on the training rows of `raw_data`, per patient.

    The objective is scikit-learn's: C · Σ log loss + |w|²/2, the intercept unpenalised. At the optimum the gradient is
    0, and only the rows that a model was fitted on make it so: this tells a model of other rows apart without a record.
    """
    scaler, classifier = model
    is_train = (ready_data.rows[preparation.SPLIT] == preparation.TRAIN).to_numpy()
    measurements = scaler.transform(raw_data.loc[is_train, list(columns.MEASUREMENTS)])
    excess = classifier.predict_proba(measurements)[:, 1] - ready_data.select_truths(preparation.TRAIN)
    by_coefficient = excess @ measurements + classifier.coef_[0] / classifier.C
    return float(max(np.abs(by_coefficient).max(), abs(excess.sum())) / len(excess))


def check_convergence(raw_data: pd.DataFrame, ready_data: preparation.Prepared, model: Pipeline) -> Findings:
    """Find a model that is not the optimum on the training rows: stopped early, or fitted on other rows."""
    if len(raw_data) != len(ready_data.rows):
        return Findings(("ready_data was made from another raw_data than the one stored now",), {})
    gradient, steps = measure_gradient(raw_data, ready_data, model), int(model[-1].n_iter_[0])
    problem = f"the gradient per patient is {gradient:.3g}, not below {LARGEST_GRADIENT:g}"
    return Findings.of(
        (problem, not gradient < LARGEST_GRADIENT),
        (f"it took {steps} steps, its limit", steps >= model[-1].max_iter),
        gradient_per_patient=gradient,
        steps=steps,
    )
