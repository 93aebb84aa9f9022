"""Whether a model is the optimum that it claims to be, on the rows that it claims to be trained on."""

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from bcw_assets.ml.findings import Findings
from bcw_assets.ml.model import preparation
from bcw_assets.ml.model.numbers import Scorer, compute_probability
from bcw_assets.ml.model.preparation import Prepared
from bcw_assets.ml.table import columns

# Largest gradient per patient that still counts as the optimum: a hundred times the solver's own tolerance, and a
# five-thousandth of what the same model leaves on the rows of another split.
LARGEST_GRADIENT = 1e-6


def measure_gradient(raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline) -> float:
    """Return the largest component of the objective's gradient on the training rows of `raw_data`, per patient.

    The objective is scikit-learn's: C · Σ log loss + |w|²/2, the intercept unpenalised. At the optimum the gradient is
    0, and only the rows that a model was fitted on make it so: this tells a model of other rows apart without a record.
    """
    scorer, is_train = Scorer.extract(model), (ready_data.rows[preparation.SPLIT] == preparation.TRAIN).to_numpy()
    measurements = raw_data.loc[is_train, list(columns.MEASUREMENTS)].to_numpy().T
    excess = compute_probability(scorer.compute_log_odds(measurements)) - ready_data.select_truths(preparation.TRAIN)
    by_coefficient = scorer.standardise(measurements) @ excess + scorer.coefficients / model[-1].C
    return float(max(np.abs(by_coefficient).max(), abs(excess.sum())) / len(excess))


def check_convergence(raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline) -> Findings:
    """Find a model that is not the optimum on the training rows: stopped early, or fitted on other rows."""
    gradient, steps = measure_gradient(raw_data, ready_data, model), int(model[-1].n_iter_[0])
    return Findings.of(
        (
            f"the gradient per patient is {gradient:.3g}, not below {LARGEST_GRADIENT:g}",
            not gradient < LARGEST_GRADIENT,
        ),
        (f"it took {steps} steps, its limit", steps >= model[-1].max_iter),
        gradient_per_patient=gradient,
        steps=steps,
    )
