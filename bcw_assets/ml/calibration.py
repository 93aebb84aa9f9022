"""Whether a probability of 0.8 means eight of ten: slope, calibration-in-the-large, O:E and the reliability curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bcw_assets.ml import performance
from bcw_assets.ml.logistic import fit_each, shift_each
from bcw_assets.ml.performance import Interval, Score, Summary

EDGES = np.linspace(0, 1, 11)  # of the reliability curve's bins
TINY = 1e-15  # probabilities are held this far from 0 and 1, where the logit has no value

CALIBRATED = np.array([0.0, 1.0])  # intercept and slope of right probabilities, where the fits begin

UNDEFINED = {
    "slope": "the probabilities divide the diagnoses without an overlap, or are all the same",
    "calibration_in_the_large": "all probabilities are 0 or 1",
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


def calibrate(malignant: np.ndarray, probabilities: np.ndarray, draws: Sequence[np.ndarray]) -> Calibration:
    """Return the calibration of n patients in R repeats (n × R); patients are drawn without strata."""
    summaries = performance.summarise(malignant, probabilities, draws, measures, UNDEFINED)
    return Calibration(**summaries, reliability=reliability(malignant, probabilities))


def measures(malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return the three measures for each column of weights (n × B), each of shape (B,); NaN where one is unbounded.

    Source: D. R. Cox, Biometrika 45 (1958) 562-565; B. Van Calster et al., J. Clin. Epidemiol. 74 (2016) 167-176.
    """
    odds = logit(probability)
    slope = fit_each(np.stack([np.ones_like(odds), odds], axis=1), malignant, weights, CALIBRATED)[:, 1]
    return {
        "slope": slope if np.ptp(odds) > 0 else np.full_like(slope, np.nan),
        "calibration_in_the_large": shift_each(odds, malignant, weights),
        "observed_expected_ratio": performance.divided(malignant @ weights, probability @ weights),
    }


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
            performance.wilson(float(ill[one]), float(counts[one])),
            None if counts[one] else "no patient has such a probability",
        )
        for one in range(len(EDGES) - 1)
    ]
