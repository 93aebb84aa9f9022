"""What the model weighs: its coefficients, whether their signs are stable, and whether they mean what they seem to."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from bcw_assets.ml.model import preparation
from bcw_assets.ml.table import columns
from bcw_assets.ml.table.rules import compute_aucs


@dataclass(frozen=True)
class Coefficient:
    """The weight of one measurement: log odds of malignancy per standard deviation of it, the others unchanged."""

    measurement: str
    coefficient: float
    sign_stability: float | None  # P(same sign with other training patients); None without a standard error
    univariate_auc: float  # of the measurement alone, on the training rows; above 0.5: larger values are malignant
    opposes_univariate: bool  # the sign is not what the AUC alone suggests: by collinearity, not by biology


def describe_coefficients(ready_data: preparation.Prepared, model: Pipeline) -> list[Coefficient]:
    """Return every coefficient of a model that was fitted on the training rows, the largest first."""
    measurements = ready_data.select_measurements(preparation.TRAIN)
    malignant = ready_data.select_truths(preparation.TRAIN)
    values = model[-1].coef_[0]
    with np.errstate(all="ignore"):  # where every patient is predicted without doubt there is no error
        stability = ndtr(np.abs(values) / estimate_standard_errors(measurements, malignant, model[-1]))
    alone = compute_aucs(measurements, malignant)
    rows = zip(columns.MEASUREMENTS, values.tolist(), stability.tolist(), alone.tolist(), strict=True)
    return [
        Coefficient(name, value, None if np.isnan(stable) else stable, auc, (auc - 0.5) * value < 0)
        for name, value, stable, auc in sorted(rows, key=lambda row: -abs(row[1]))
    ]


def estimate_standard_errors(
    measurements: np.ndarray, malignant: np.ndarray, classifier: LogisticRegression
) -> np.ndarray:
    """Return the standard error (HC3) of each coefficient: what leaving out each patient in turn moves it.

    The classifier was fitted on these n × d measurements and n truths, with a penalty of 1/C on all but the intercept.
    Source: J. G. MacKinnon, H. White, J. Econometrics 29 (1985) 305-325.
    """
    design = np.column_stack([measurements, np.ones(len(malignant))])
    probability = classifier.predict_proba(measurements)[:, 1]
    weight = probability * (1 - probability)
    penalty = np.append(np.full(measurements.shape[1], 1 / classifier.C), 0.0)
    try:
        inverse = np.linalg.inv((design.T * weight) @ design + np.diag(penalty))
    except np.linalg.LinAlgError:
        return np.full(measurements.shape[1], np.nan)
    steps = design @ inverse
    leverage = weight * np.einsum("ij,ij->i", steps, design)
    steps *= ((malignant - probability) / (1 - leverage))[:, None]
    return np.asarray(np.sqrt(np.einsum("ij,ij->j", steps, steps))[:-1])
