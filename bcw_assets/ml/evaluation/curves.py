"""The ROC curve and the precision-recall curve: their mean and their band over the repeats."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

GRID_ROUNDING = 1e-9  # 0.175 of the grid is not 35 of 200 to the last digit
GRID = np.linspace(0, 1, 201)  # steps of half a percent, finer than one patient of 100


@dataclass(frozen=True)
class Curve:
    """A curve at the same places x in every repeat (1 - specificity, or recall): its mean and its extremes."""

    x: list[float]
    mean: list[float]
    lowest: list[float]
    highest: list[float]


def trace_curves(malignant: np.ndarray, probabilities: np.ndarray) -> tuple[Curve, Curve]:
    """Return sensitivity over 1 - specificity, and precision over recall, of n patients in R repeats (n × R)."""
    sensitivities, precisions = [], []
    for probability in probabilities.T:
        false_positives, sensitivity, _ = roc_curve(malignant, probability, drop_intermediate=False)
        # No more false positives than allowed.
        sensitivities.append(sensitivity[np.searchsorted(false_positives, GRID + GRID_ROUNDING, side="right") - 1])
        precision, recall, _ = precision_recall_curve(malignant, probability)  # recall falls from 1 to 0
        # At least that recall.
        precisions.append(precision[::-1][np.searchsorted(recall[::-1], GRID - GRID_ROUNDING, side="left")])
    roc, precision_recall = (
        Curve(GRID.tolist(), values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist())
        for values in (np.stack(sensitivities), np.stack(precisions))
    )
    return roc, precision_recall
