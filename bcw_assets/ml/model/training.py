"""The recipe of the model, and its fit."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from scipy.linalg import LinAlgWarning
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from bcw_assets.errors import TrainingError
from bcw_assets.ml.model import preparation
from bcw_assets.ml.model.preparation import Prepared

RECIPE = 1  # raised when the way of fitting changes; a test pins the coefficients of the current one

SCALER = "scaler"
CLASSIFIER = "classifier"
# Reaches the optimum in nine steps; the default lbfgs stops up to 0.016 away from it in a coefficient.
SOLVER = {"solver": "newton-cholesky", "tol": 1e-8, "max_iter": 100}


def build(C: float) -> Pipeline:  # noqa: N803 (scikit-learn's name for the knob)
    """Return the unfitted model: standardise the 30 raw measurements, then logistic regression of strength 1/C."""
    return Pipeline([(SCALER, StandardScaler()), (CLASSIFIER, LogisticRegression(C=C, **SOLVER))])


def read_settings(model: Pipeline) -> dict[str, float | int | str]:
    """Return what decides how `model` is fitted, beside its data."""
    return {name: getattr(model[CLASSIFIER], name) for name in ("C", *SOLVER)} | {"recipe": RECIPE}


def train(ready_data: Prepared, C: float) -> Pipeline:  # noqa: N803
    """Fit the classifier on the standardised training rows and put the scaler before it.

    Returns:
        A pipeline that takes *raw* measurements (n × 30, named) and gives P(benign), P(malignant).

    Raises:
        TrainingError: the optimum was not reached.
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
