"""Whether a probability of 0.8 means eight of ten: slope, calibration-in-the-large, O:E and the reliability curve."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from bcw_assets.ml.evaluation import influence, scores
from bcw_assets.ml.evaluation.influence import Estimate
from bcw_assets.ml.evaluation.scores import Interval, Score, Summary

EDGES = np.linspace(0, 1, 11)  # of the reliability curve's bins
TINY = 1e-15  # probabilities are held this far from 0 and 1, where the logit has no value

MAX_STEPS = 100  # five to ten are usual
LONGEST = 4.0  # step in a coefficient: where the likelihood is flat, Newton's own would leap beyond all bounds
TOLERANCE = 1e-8  # a step below this leaves an error of about its square
FLAT = 1e-12  # smallest eigenvalue of the Hessian, per patient, below which there is no optimum

UNDEFINED = {
    "slope": "the probabilities divide the diagnoses without an overlap, or are all the same",
    "calibration_in_the_large": "all probabilities are 0 or 1",
    "observed_expected_ratio": "all probabilities are 0",
}
"""Measure → where it has no value."""


@dataclass(frozen=True)
class Bin:
    """One point of the reliability curve: the patients whose probability lies in [low, high).

    Attributes:
        low: the bin's lower edge.
        high: its upper edge; the last bin holds 1 too.
        patients: how many, as the mean over the repeats.
        predicted: the mean of their probabilities.
        observed: the share of them that is malignant.
        interval: of `observed`, Wilson's.
        reason: why there is none.
    """

    low: float
    high: float
    patients: float
    predicted: Score
    observed: Score
    interval: Interval
    reason: str | None = None


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities can be taken at their word.

    Attributes:
        slope: of the logistic regression of the diagnosis on the logit of the probability: 1 is right, below 1 the
            probabilities are too extreme, above 1 too cautious.
        calibration_in_the_large: the intercept of the same regression with the slope held at 1, in log odds: 0 is
            right, above 0 there is more cancer than predicted.
        observed_expected_ratio: number of malignant patients over the sum of the probabilities; 1 is right.
        reliability: the curve, in ten bins of equal width.
    """

    slope: Summary
    calibration_in_the_large: Summary
    observed_expected_ratio: Summary
    reliability: list[Bin]


def logit(probability: np.ndarray) -> np.ndarray:
    """Return the log odds, of any shape."""
    inside = np.clip(probability, TINY, 1 - TINY)
    odds: np.ndarray = np.log(inside) - np.log1p(-inside)
    return odds


def calibrate(malignant: np.ndarray, probabilities: np.ndarray, folds: int) -> Calibration:
    """Return the calibration of n patients in R repeats (n × R) of so many folds."""
    repeats = [measure(malignant, probability) for probability in probabilities.T]
    summaries = scores.summarise_estimates(repeats, folds, UNDEFINED)
    return Calibration(**summaries, reliability=reliability(malignant, probabilities))


def measure(malignant: np.ndarray, probability: np.ndarray) -> dict[str, Estimate]:
    """Return slope, calibration-in-the-large and the ratio of observed to expected malignant patients.

    Source: D. R. Cox, Biometrika 45 (1958) 562-565; B. Van Calster et al., J. Clin. Epidemiol. 74 (2016) 167-176.
    """
    odds, intercept = logit(probability), np.ones((len(probability), 1))
    return {
        "slope": fit(np.column_stack([odds, intercept]), malignant, np.zeros_like(odds), np.array([1.0, 0.0])),
        "calibration_in_the_large": fit(intercept, malignant, odds, np.zeros(1)),
        "observed_expected_ratio": influence.estimate_ratio(malignant, probability, influence.LOG),
    }


def fit(design: np.ndarray, malignant: np.ndarray, offset: np.ndarray, start: np.ndarray) -> Estimate:
    """Return the first coefficient of a logistic regression, by Newton's method; NaN where there is no optimum.

    Its influences are those of the sandwich estimator: P. J. Huber, Proc. Fifth Berkeley Symp. Math. Stat. Probab. 1
    (1967) 221-233.

    Args:
        design: n × d.
        malignant: n truths, 1 or 0.
        offset: n log odds that are added as they are.
        start: d coefficients to begin at.
    """
    coefficients = start
    for _ in range(MAX_STEPS):
        predicted = expit(offset + design @ coefficients)
        hessian = (design.T * (predicted * (1 - predicted))) @ design
        if not np.linalg.eigvalsh(hessian)[0] > FLAT * len(design):
            break
        step = np.linalg.solve(hessian, design.T @ (malignant - predicted))
        coefficients = coefficients + step / max(np.abs(step).max() / LONGEST, 1)
        if np.abs(step).max() <= TOLERANCE:
            moved = (malignant - predicted) * (design @ np.linalg.inv(hessian)[0])
            return Estimate(float(coefficients[0]), len(design) * moved)
    return Estimate(np.nan, np.zeros(len(design)))


def reliability(malignant: np.ndarray, probabilities: np.ndarray) -> list[Bin]:
    """Return the reliability curve of n patients in R repeats (n × R); a bin's counts are means over the repeats."""
    repeats = probabilities.shape[1]
    bins = np.minimum(np.searchsorted(EDGES, probabilities, side="right") - 1, len(EDGES) - 2)
    truths = np.broadcast_to(malignant[:, None], bins.shape)
    counts, sums, ill = (
        np.bincount(bins.ravel(), values.ravel(), len(EDGES) - 1) / repeats
        for values in (np.ones(bins.shape), probabilities, truths)
    )
    return [
        Bin(
            float(EDGES[one]),
            float(EDGES[one + 1]),
            float(counts[one]),
            float(sums[one] / counts[one]) if counts[one] else None,
            float(ill[one] / counts[one]) if counts[one] else None,
            scores.wilson(float(ill[one]), float(counts[one])),
            None if counts[one] else "no patient has such a probability",
        )
        for one in range(len(EDGES) - 1)
    ]
