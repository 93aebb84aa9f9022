"""Fits one logistic regression under many weights at once, which scikit-learn cannot: for bootstraps."""

import numpy as np

MAX_STEPS = 100  # five to ten are usual
LONGEST = 4.0  # step in a coefficient: where the likelihood is flat, Newton's own would leap beyond all bounds
TOLERANCE = 1e-5  # a step below this leaves an error of about its square
# Added to the hessian, it keeps one that vanishes invertible; the optimum does not depend on it. A hessian below it
# means that everybody is predicted without doubt: the coefficients would grow without end.
RIDGE = 1e-12


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
    counts = np.ascontiguousarray(weights.T)
    observed = (counts * outcome) @ design
    found = np.tile(start, (len(counts), 1))
    lost = np.zeros(len(counts), dtype=bool)
    active = np.arange(len(counts))  # the fits that have not arrived
    predictor = design @ start + offset  # one for all fits, until they part
    for _ in range(MAX_STEPS):
        with np.errstate(over="ignore"):
            probability = 1 / (1 + np.exp(-predictor))  # a fifth of the time of scipy's expit
        expected = counts * probability
        gradient = observed - expected @ design - penalty * found[active]
        expected *= 1 - probability
        hessian = (expected @ products).reshape(-1, count, count)
        step = np.linalg.solve(hessian + ridge, gradient[..., None])[..., 0]
        step /= np.maximum(np.abs(step).max(axis=1, keepdims=True) / LONGEST, 1)
        found[active] += step
        lost[active] = hessian[:, 0, 0] < RIDGE
        far = ~(np.abs(step).max(axis=1) <= TOLERANCE)  # NaN is far too
        active, observed, counts = active[far], observed[far], counts[far]
        if not len(active):
            break
        predictor = found[active] @ design.T + offset
    lost[active] = True
    found[lost] = np.nan
    return found
