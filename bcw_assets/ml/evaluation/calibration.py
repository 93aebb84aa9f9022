"""Whether a probability of 0.8 means eight of ten: slope, calibration-in-the-large, O:E and the reliability curve."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from bcw_assets.ml.evaluation import influence, scores

BINS = 10  # of the reliability curve
TINY = 1e-15  # probabilities are held this far from 0 and 1, where the logit has no value

MAX_STEPS = 100  # five to ten are usual
STEP_TOLERANCE = 1e-8  # a step below this leaves an error of about its square
LARGEST_OVERSHOOT = 0.1  # slope of the likelihood behind a step, of that before it
LEAST_CURVATURE = 1e-12  # smallest eigenvalue of the Hessian, per patient, below which there is no optimum


@dataclass(frozen=True)
class Bin:
    """A point of the reliability curve: the patients whose probability lies in [low, high); the last holds 1 too."""

    low: float
    high: float
    patients: float
    predicted: scores.Score  # mean of their probabilities
    observed: scores.Score  # share of them that is malignant
    interval: scores.Interval
    reason: str | None = None


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities can be taken at their word, by logistic regression of the diagnosis on their logit."""

    slope: scores.Summary  # 1 is right, below 1 the probabilities are too extreme, above 1 too cautious
    calibration_in_the_large: scores.Summary  # the intercept at slope 1, in log odds; above 0: more cancer than said
    observed_expected_ratio: scores.Summary  # malignant patients over the sum of the probabilities; 1 is right
    reliability: list[Bin]


def summarise_calibration(malignant: np.ndarray, probabilities: np.ndarray, folds: int) -> Calibration:
    """Return the calibration of n patients in R repeats (n × R) of so many folds."""
    repeats = [estimate_calibration(malignant, probability) for probability in probabilities.T]
    reliability = bin_probabilities(malignant, probabilities)
    return Calibration(**scores.summarise_estimates(repeats, folds), reliability=reliability)


def estimate_calibration(malignant: np.ndarray, probability: np.ndarray) -> dict[str, influence.Estimate]:
    """Return slope, calibration-in-the-large and the ratio of observed to expected malignant patients.

    Source: D. R. Cox, Biometrika 45 (1958) 562-565; B. Van Calster et al., J. Clin. Epidemiol. 74 (2016) 167-176.
    """
    odds, intercept = logit(np.clip(probability, TINY, 1 - TINY)), np.ones((len(probability), 1))
    return {
        "slope": fit_logistic(np.column_stack([odds, intercept]), malignant, np.zeros_like(odds)),
        "calibration_in_the_large": fit_logistic(intercept, malignant, odds),
        "observed_expected_ratio": influence.estimate_ratio(malignant, probability, influence.LOG),
    }


def fit_logistic(design: np.ndarray, malignant: np.ndarray, offset: np.ndarray) -> influence.Estimate:
    """Return the first coefficient of a logistic regression (n × d), by Newton's method; NaN where there is no optimum.

    The n offsets are log odds that are added as they are. The influences are those of the sandwich estimator: P. J.
    Huber, Proc. Fifth Berkeley Symp. Math. Stat. Probab. 1 (1967) 221-233.
    """
    coefficients = np.zeros(design.shape[1])
    for _ in range(MAX_STEPS):
        odds = offset + design @ coefficients
        predicted = expit(odds)
        hessian = (design.T * (predicted * (1 - predicted))) @ design
        if not np.linalg.eigvalsh(hessian)[0] > LEAST_CURVATURE * len(design):
            break
        step = np.linalg.solve(hessian, design.T @ (malignant - predicted))
        if np.abs(step).max() <= STEP_TOLERANCE:
            moved = (malignant - predicted) * (design @ np.linalg.inv(hessian)[0])
            return influence.Estimate(float(coefficients[0] + step[0]), len(design) * moved)
        # Where the likelihood is flat, the whole step would leap beyond the optimum, to where it is flatter still.
        change = design @ step
        least = -LARGEST_OVERSHOOT * ((malignant - predicted) @ change)
        while (malignant - expit(odds + change)) @ change < least:
            step, change, least = step / 2, change / 2, least / 2
        coefficients = coefficients + step
    return influence.Estimate(np.nan, np.zeros(len(design)))


def bin_probabilities(malignant: np.ndarray, probabilities: np.ndarray) -> list[Bin]:
    """Return the reliability curve of n patients in R repeats (n × R); a bin's counts are means over the repeats."""
    truths = np.broadcast_to(malignant[:, None], probabilities.shape)
    counts, sums, ill = (
        (np.histogram(probabilities, BINS, (0, 1), weights=values)[0] / probabilities.shape[1]).tolist()
        for values in (None, probabilities, truths)
    )
    edges = np.linspace(0, 1, BINS + 1).tolist()
    return [
        Bin(
            *(low, high, patients),
            predicted=scores.divide(expected, patients),
            observed=scores.divide(positives, patients),
            interval=scores.compute_wilson(positives, patients),
            reason=None if patients else "no patient has such a probability",
        )
        for low, high, patients, expected, positives in zip(edges[:-1], edges[1:], counts, sums, ill, strict=True)
    ]
