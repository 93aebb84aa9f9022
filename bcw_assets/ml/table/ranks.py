"""The ROC AUC of single columns, by ranks; without scikit-learn and scipy, which those who score rows do without."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # who scores rows does without pandas
    import pandas as pd


def compute_aucs(values: "pd.DataFrame", malignant: np.ndarray) -> np.ndarray:
    """Return the ROC AUC of each column of values (n × d) alone, of shape (d,); equal values count half.

    Of the n truths, 1 or 0, both must occur.
    """
    ill = int(malignant.sum())
    ranks = values.rank().to_numpy()[malignant == 1].sum(axis=0)
    areas: np.ndarray = (ranks - ill * (ill + 1) / 2) / (ill * (len(malignant) - ill))
    return areas
