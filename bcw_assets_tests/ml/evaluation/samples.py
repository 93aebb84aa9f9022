"""Patients that are drawn for tests of scores, and the report on any table."""

import numpy as np
import pandas as pd

from bcw_assets.ml.evaluation.report import Report, evaluate
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling


def report_on(raw: pd.DataFrame, how: Resampling = Resampling(5, 2, 0), C: float = 1.0) -> Report:  # noqa: N803, B008
    """Return the report on a table, with a stratified split."""
    ready = preparation.prepare(raw, Split(0.4, 1, stratify=True))
    model = training.train(ready, C)
    return evaluate(raw, ready, model, resampling.predict_out_of_fold(raw, model, how))


def draw_patients(count: int, seed: int = 1, digits: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return diagnoses and probabilities that have something to do with them; rounded, many are equal."""
    random = np.random.default_rng(seed)
    malignant = random.integers(0, 2, count)
    probability = np.clip(malignant * 0.3 + 0.05 + random.random(count) * 0.6, 0, 1)
    return malignant, probability if digits is None else probability.round(digits)
