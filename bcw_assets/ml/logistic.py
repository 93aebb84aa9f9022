"""Fits one logistic regression under many weights at once, which scikit-learn cannot: for bootstraps."""

import numpy as np

STEPS = 50
CLOSE = 1e-5  # a step of Newton's method below this leaves an error of about its square
CURVED = 1e-6  # below this curvature everybody is predicted without doubt: the coefficients grow without end
RIDGE = 1e-12  # keeps the curvature invertible where it vanishes; the optimum does not depend on it


def fit_each(
    design: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    *,
    offset: np.ndarray | float = 0.0,
    penalty: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Maximise weighted log likelihood minus penalty · coefficient²/2 by Newton's method, for each column of weights.

    Args:
        design: n × d; the first column is 1 (the intercept).
        outcome: n values, 0 or 1.
        weights: n × B, how often each row counts in each fit.
        start: d coefficients to begin at.
        offset: n values added to the linear predictor as they are.
        penalty: of each coefficient, d values.

    Returns:
        B × d coefficients; NaN in a fit that has no optimum (the outcomes are separated) or did not reach it.
    """
    rows, count = design.shape
    products = (design[:, :, None] * design[:, None, :]).reshape(rows, count * count)
    ridge = np.diag(np.broadcast_to(penalty, count)) + RIDGE * np.eye(count)
    remaining = np.ascontiguousarray(weights.T)
    observed = (remaining * outcome) @ design
    found = np.tile(start, (len(remaining), 1))
    lost = np.zeros(len(remaining), dtype=bool)
    moving = np.arange(len(remaining))  # the fits that have not arrived
    predictor = design @ start + offset  # one for all fits, until they part
    for _ in range(STEPS):
        with np.errstate(over="ignore"):
            probability = 1 / (1 + np.exp(-predictor))
        expected = remaining * probability
        slope = observed - expected @ design - penalty * found[moving]
        expected *= 1 - probability
        curvature = (expected @ products).reshape(-1, count, count)
        step = np.linalg.solve(curvature + ridge, slope[..., None])[..., 0]
        found[moving] += step
        lost[moving] = curvature[:, 0, 0] < CURVED
        far = ~(np.abs(step).max(axis=1) <= CLOSE)
        moving, observed, remaining = moving[far], observed[far], remaining[far]
        if not len(moving):
            break
        predictor = found[moving] @ design.T + offset
    lost[moving] = True
    found[lost] = np.nan
    if start.any() and lost.any():  # too steep a start can overshoot; from 0 it cannot
        found[lost] = fit_each(design, outcome, weights[:, lost], np.zeros_like(start), offset=offset, penalty=penalty)
    return found
