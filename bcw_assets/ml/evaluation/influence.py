"""Scores with what each patient contributes to them, so that their uncertainty needs no resampling.

The influence of a patient is n times the change of the score when the patient counts a little more: its mean is 0, and
its variance over n is that of the score: docs/metrics.md. No scipy, because `bcw predict` does without. Sources: B.
Efron, The Jackknife, the Bootstrap and Other Resampling Plans (1982), ch. 6; P. Bayle et al., NeurIPS 33 (2020) 16339.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Z = statistics.NormalDist().inv_cdf(0.975)  # 95 % lie between -Z and Z
INFLUENCE_ROUNDING = 1e-12  # of influences that cancel out


@dataclass(frozen=True)
class Scale:
    """Where an interval is symmetric, so that it stays within the values that the score can have."""

    to: Callable[[float], float]
    back: Callable[[float], float]
    slope: Callable[[float], float]  # of `to`


LOGIT = Scale(
    lambda value: math.log(value / (1 - value)),
    lambda odds: (1 + math.tanh(odds / 2)) / 2,
    lambda value: 1 / (value * (1 - value)),
)
LOG = Scale(math.log, math.exp, lambda value: 1 / value)
IDENTITY = Scale(float, float, lambda _: 1.0)


@dataclass(frozen=True, eq=False)
class Estimate:
    """A score of n patients, NaN where it is not defined, its n influences, of mean 0, and the interval's scale."""

    value: float
    influence: np.ndarray
    scale: Scale = IDENTITY


def estimate_ratio(numerator: np.ndarray, denominator: np.ndarray | int, scale: Scale = IDENTITY) -> Estimate:
    """Return the mean of n numbers over that of n others, which are at least 0, or over 1."""
    mean = float(np.mean(denominator))
    if mean == 0:
        return Estimate(math.nan, np.zeros(len(numerator)), scale)
    value = float(np.mean(numerator)) / mean
    return Estimate(value, (numerator - value * denominator) / mean, scale)


def estimate_areas(malignant: np.ndarray, probability: np.ndarray) -> dict[str, Estimate]:
    """Return `roc_auc` (equal probabilities count half) and `pr_auc` (the average precision) of n patients.

    Source of the first: E. R. DeLong et al., Biometrics 44 (1988) 837-845. The second is differentiated likewise.
    """
    order = np.argsort(probability)
    ordered, ill = probability[order], malignant[order].astype(np.float64)
    start = np.flatnonzero(np.diff(ordered, prepend=-1))  # of each group of equal probabilities, rising
    sizes = np.diff(start, append=len(order))
    positives = np.add.reduceat(ill, start)
    negatives = sizes - positives
    all_ill, all_well = positives.sum(), negatives.sum()
    well_below = (negatives.cumsum() - negatives / 2) / all_well  # share of the benign, equal ones half
    ill_above = 1 - (positives.cumsum() - positives / 2) / all_ill
    roc = positives @ well_below / all_ill
    called = len(order) - start
    precision = (all_ill - positives.cumsum() + positives) / called
    average = positives @ precision / all_ill
    # A patient who counts more adds to the precision at every lower threshold; whoever is called there loses as much.
    gain, loss = (positives / called).cumsum(), (positives * precision / called).cumsum()

    def estimate(value: float, of_ill: np.ndarray, of_well: np.ndarray) -> Estimate:
        influence = np.empty(len(order))
        influence[order] = len(order) * np.where(ill == 1, np.repeat(of_ill, sizes), np.repeat(of_well, sizes))
        return Estimate(float(value), influence, LOGIT)

    return {
        "roc_auc": estimate(roc, (well_below - roc) / all_ill, (ill_above - roc) / all_well),
        "pr_auc": estimate(average, (precision + gain - loss - average) / all_ill, -loss / all_ill),
    }


def estimate_error(repeats: Sequence[Estimate], folds: int) -> float:
    """Return the standard error of the mean over the repeats of a cross-validation.

    The first term is that of other patients to judge: the same are in all repeats, so their influences are averaged.
    The second is that of other patients to learn from, which the spread over the repeats shows; one repeat does not.
    """
    influence = np.mean([estimate.influence for estimate in repeats], axis=0)
    own = float(influence @ influence) / (len(influence) * (len(influence) - 1))
    spread = statistics.variance(estimate.value for estimate in repeats) if len(repeats) > 1 else 0.0
    return math.sqrt(own + (folds - 1 + 1 / len(repeats)) * spread)


def estimate_interval(repeats: Sequence[Estimate], folds: int) -> list[float] | None:
    """Return the 95 % interval of the mean over the repeats as [low, high]; None where nothing shows an uncertainty."""
    mean, scale = statistics.fmean(estimate.value for estimate in repeats), repeats[0].scale
    error = estimate_error(repeats, folds)
    if not error > INFLUENCE_ROUNDING:
        return None
    half = Z * scale.slope(mean) * error
    return [scale.back(scale.to(mean) + side * half) for side in (-1, 1)]
