"""What it means to act on the probabilities: operating points, and the net benefit of deciding by them."""

from dataclasses import dataclass

import numpy as np

from bcw_assets.ml import performance, resampling
from bcw_assets.ml.performance import Interval, Summary

THRESHOLDS = (0.5, 0.1)
"""The operating points: 1 / (1 + k) for k = 1 and k = 9 false alarms that one missed cancer is worth.

Fixed beforehand: a threshold chosen on data of this size moves by 0.05 to 0.10 from sample to sample.
"""

PREVALENCES = (0.1, 0.37)
"""Shares of malignant masses for which PPV and NPV are restated: a clinic that sees few, and a referral clinic."""

COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")

CURVE = tuple(round(0.01 * percent, 2) for percent in range(1, 100))
"""The thresholds of the decision curve."""


@dataclass(frozen=True)
class AtPrevalence:
    """PPV and NPV where another share of the masses is malignant, and sensitivity and specificity are the same."""

    prevalence: float
    ppv: Summary
    npv: Summary


@dataclass(frozen=True)
class OperatingPoint:
    """What happens when everybody from a threshold on is called malignant.

    Attributes:
        threshold: the lowest probability that is called malignant.
        false_alarms_worth_a_miss: the cost ratio k behind it, threshold = 1 / (1 + k).
        true_positives: patients, as the mean over the repeats; so are the other counts.
        sensitivity: share of the malignant that is found; specificity of the benign that is left in peace; ppv and npv
            are the shares of those called malignant and benign that are so, among these patients.
        at_prevalences: ppv and npv restated, assuming an unchanged spectrum of patients.
        net_benefit: of acting on the model; treat_all and treat_none are those of treating everybody and nobody.
    """

    threshold: float
    false_alarms_worth_a_miss: float
    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float
    sensitivity: Summary
    specificity: Summary
    ppv: Summary
    npv: Summary
    at_prevalences: list[AtPrevalence]
    net_benefit: Summary
    treat_all: float
    treat_none: float


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit over the thresholds: true positives minus false positives · t/(1 - t), per patient.

    Attributes:
        thresholds: t.
        model: the mean over the repeats at each threshold.
        intervals: of it, pointwise.
        treat_all: of treating everybody. That of treating nobody is 0.
    """

    thresholds: list[float]
    model: list[float]
    intervals: list[Interval]
    treat_all: list[float]


def measures(
    malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
    """Return an operating point's counts and rates for each column of weights (n × B), each of shape (B,)."""
    counts = performance.cells(malignant, probability >= threshold, weights)
    rates = performance.rates(counts)
    elsewhere = {}
    for prevalence in PREVALENCES:
        found, spared = rates["sensitivity"] * prevalence, rates["specificity"] * (1 - prevalence)
        elsewhere[_at("ppv", prevalence)] = performance.divided(found, found + (1 - prevalence) - spared)
        elsewhere[_at("npv", prevalence)] = performance.divided(spared, spared + prevalence - found)
    true_positives, false_positives, *_ = counts
    return {
        **dict(zip(COUNTS, counts, strict=True)),
        **{name: rates[name] for name in ("sensitivity", "specificity", "ppv", "npv")},
        **elsewhere,
        "net_benefit": (true_positives - false_positives * threshold / (1 - threshold)) / counts.sum(axis=0),
    }


def restated(name: str) -> list[str]:
    """Return the names of ppv or npv among the `measures`: here, and at each prevalence.

    >>> restated("ppv")
    ['ppv', 'ppv at 0.1', 'ppv at 0.37']
    """
    return [name, *(_at(name, prevalence) for prevalence in PREVALENCES)]


def operating_point(malignant: np.ndarray, threshold: float, summaries: dict[str, Summary]) -> OperatingPoint:
    """Return the operating point whose `measures` were summarised."""
    prevalence = float(malignant.mean())
    counts = {name: summaries[name].estimate or 0.0 for name in COUNTS}
    return OperatingPoint(
        threshold=threshold,
        false_alarms_worth_a_miss=round((1 - threshold) / threshold, 9),
        true_positives=counts["true_positives"],
        false_positives=counts["false_positives"],
        false_negatives=counts["false_negatives"],
        true_negatives=counts["true_negatives"],
        sensitivity=summaries["sensitivity"],
        specificity=summaries["specificity"],
        ppv=summaries["ppv"],
        npv=summaries["npv"],
        at_prevalences=[AtPrevalence(p, summaries[_at("ppv", p)], summaries[_at("npv", p)]) for p in PREVALENCES],
        net_benefit=summaries["net_benefit"],
        treat_all=prevalence - (1 - prevalence) * threshold / (1 - threshold),
        treat_none=0.0,
    )


def decision_curve(malignant: np.ndarray, probabilities: np.ndarray, seed: int) -> DecisionCurve:
    """Return the decision curve of n patients in R repeats (n × R), with a bootstrap interval at each threshold.

    Source: A. J. Vickers, E. B. Elkin, Med. Decis. Making 26 (2006) 565-574.
    """
    thresholds = np.array(CURVE)
    cost = thresholds / (1 - thresholds)  # of one false alarm, in cancers found
    called = (probabilities[:, :, None] >= thresholds).mean(axis=1)
    gains = called * np.where(malignant[:, None] == 1, 1.0, -cost)
    draws = resampling.bootstrap(malignant, performance.RESAMPLES, seed)
    resampled = np.concatenate([weights.T @ gains for weights in draws]) / len(malignant)
    low, high = np.percentile(resampled, performance.BOUNDS, axis=0)
    prevalence = malignant.mean()
    return DecisionCurve(
        list(CURVE),
        gains.mean(axis=0).tolist(),
        np.stack([low, high], axis=1).tolist(),
        (prevalence - (1 - prevalence) * cost).tolist(),
    )


def _at(name: str, prevalence: float) -> str:
    return f"{name} at {prevalence}"
