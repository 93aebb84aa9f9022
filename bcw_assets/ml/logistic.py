"""Fits one logistic regression under many weights at once, which scikit-learn cannot: for bootstraps."""

import numpy as np

MAX_STEPS = 100  # five to ten are usual
LONGEST = 4.0  # step in a coefficient: where the likelihood is flat, Newton's own would leap beyond all bounds
TOLERANCE = 1e-5  # a step below this leaves an error of about its square
# Added to the hessian, it keeps one that vanishes invertible; the optimum does not depend on it. A hessian below it
# means that everybody is predicted without doubt: the coefficients would grow without end.
RIDGE = 1e-12
WORTH = 0.75  # share of the fits under way below which it pays to set the others aside


def fit_each(
    design: np.ndarray,
    outcome: np.ndarray,
    weights: np.ndarray,
    start: np.ndarray,
    penalty: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Maximise weighted log likelihood minus penalty · coefficient²/2 by Newton's method, for each column of weights.

    Args:
        design: n × d; the first column is 1 (the intercept).
        outcome: n values, 0 or 1.
        weights: n × B, how often each row counts in each fit.
        start: d coefficients to begin at.
        penalty: of each coefficient, d values.

    Returns:
        B × d coefficients; NaN in a fit that has no optimum (the outcomes are separated) or did not reach it.
    """
    rows, count = design.shape
    products = (design[:, :, None] * design[:, None, :]).reshape(rows, count * count)
    ridge = np.diag(np.broadcast_to(penalty, count)) + RIDGE * np.eye(count)
    counts = np.ascontiguousarray(weights.T, dtype=np.float64)
    observed = (counts * outcome) @ design
    found = np.tile(start, (len(counts), 1))
    lost = np.zeros(len(counts), dtype=bool)
    active = np.arange(len(counts))  # the fits that have not arrived
    against = -(design @ start)  # minus the linear predictor; one for all fits, until they part
    minus = -design.T
    for _ in range(MAX_STEPS):
        with np.errstate(over="ignore"):
            probability = 1 / (1 + np.exp(against))  # a fifth of the time of scipy's expit
        expected = counts * probability
        gradient = observed - expected @ design - penalty * found[active]
        expected *= 1 - probability
        hessian = (expected @ products).reshape(-1, count, count)
        step = np.linalg.solve(hessian + ridge, gradient[..., None])[..., 0]
        step /= np.maximum(np.abs(step).max(axis=1, keepdims=True) / LONGEST, 1)
        found[active] += step
        lost[active] = hessian[:, 0, 0] < RIDGE
        far = ~(np.abs(step).max(axis=1) <= TOLERANCE)  # NaN is far too
        if not far.any():
            break
        if far.mean() < WORTH:
            active, observed, counts, far = active[far], observed[far], counts[far], far[far]
        against = found[active] @ minus
    lost[active[far]] = True
    found[lost] = np.nan
    return found


def shift_each(odds: np.ndarray, outcome: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the shift of the log odds after which as many outcomes are expected as observed, per column of weights.

    That is the intercept of a logistic regression with the log odds as offset: without a design a third faster.

    Args:
        odds: n log odds.
        outcome: n values, 0 or 1.
        weights: n × B, how often each row counts.

    Returns:
        B shifts; NaN where no finite one does it.
    """
    against, observed = np.exp(-odds)[:, None], outcome @ weights
    found = np.zeros(weights.shape[1])
    for _ in range(MAX_STEPS):
        probability = 1 / (1 + against * np.exp(-found))
        expected = weights * probability
        gradient = observed - expected.sum(axis=0)
        hessian = (expected * (1 - probability)).sum(axis=0)
        step = np.clip(gradient / (hessian + RIDGE), -LONGEST, LONGEST)
        found += step
        far = ~(np.abs(step) <= TOLERANCE)
        if not far.any():
            break
    return np.where(far | (hessian < RIDGE), np.nan, found)
