"""What the model weighs: its coefficients, whether their signs are stable, and whether they mean what they seem to."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from bcw_assets.ml import bootstrap, columns, performance, preparation, training
from bcw_assets.ml.logistic import fit_each
from bcw_assets.ml.preparation import Prepared
from bcw_assets.ml.ranks import auc_of_each

REFITS = 100  # patient bootstraps by which a sign is judged


@dataclass(frozen=True)
class Coefficient:
    """The weight of one measurement.

    Attributes:
        measurement: its name.
        coefficient: log odds of malignancy per standard deviation of it, the others unchanged.
        sign_stability: share of the refits on resampled training patients in which it has the same sign; None where
            more than 1 % of them do not converge.
        univariate_auc: ROC AUC of the measurement alone on the training rows: above 0.5, larger values are malignant.
        opposes_univariate: its sign is the other way round than the measurement alone suggests. That is what
            measurements that go together do to each other's coefficients (collinearity), and not biology.
    """

    measurement: str
    coefficient: float
    sign_stability: float | None
    univariate_auc: float
    opposes_univariate: bool


def describe(ready_data: Prepared, model: Pipeline, seed: int) -> list[Coefficient]:
    """Return every coefficient of the model, the largest first.

    Args:
        ready_data: its training rows are those that the model was fitted on.
        model: the pipeline.
        seed: of the bootstrap over the training patients, within each diagnosis.
    """
    classifier = model[training.CLASSIFIER]
    measurements, malignant = ready_data.measurements(preparation.TRAIN), ready_data.malignant(preparation.TRAIN)
    design = np.column_stack([np.ones(len(malignant)), measurements])
    optimum = np.concatenate([classifier.intercept_, classifier.coef_[0]])
    penalty = np.concatenate([[0.0], np.full(len(columns.MEASUREMENTS), 1 / classifier.C)])
    refits = np.concatenate(
        [
            fit_each(design, malignant, weights, optimum, penalty=penalty)
            for weights in bootstrap.draws(malignant, REFITS, seed)
        ]
    )[:, 1:]
    values = classifier.coef_[0]
    converged = np.isfinite(refits).all(axis=1)
    is_known = converged.mean() >= 1 - performance.MAX_UNDEFINED
    agree = (np.sign(refits) == np.sign(values))[converged]
    alone = auc_of_each(pd.DataFrame(measurements), malignant)
    found = [
        Coefficient(
            name,
            float(values[one]),
            float(agree[:, one].mean()) if is_known else None,
            float(alone[one]),
            bool((alone[one] - 0.5) * values[one] < 0),
        )
        for one, name in enumerate(columns.MEASUREMENTS)
    ]
    return sorted(found, key=lambda one: -abs(one.coefficient))
