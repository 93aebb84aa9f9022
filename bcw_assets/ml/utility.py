"""What it means to act on the probabilities: operating points, and the net benefit of deciding by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from bcw_assets.ml import performance
from bcw_assets.ml.performance import Summary

COST_RATIOS = (1, 9)
"""How many false alarms one missed cancer is worth; fixed beforehand.

A threshold chosen on data of this size would move by 0.05 to 0.10 from sample to sample.
"""

THRESHOLDS = tuple(1 / (1 + ratio) for ratio in COST_RATIOS)
"""The operating points: from this probability on, acting costs less than not acting."""

PREVALENCES = (0.1, 0.37)
"""Shares of malignant masses for which PPV and NPV are restated: a clinic that sees few, and a referral clinic."""

CURVE_THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))

UNDEFINED = {
    name: when
    for kind, when in performance.UNDEFINED.items()
    for name in (kind, *(f"{kind} at {prevalence}" for prevalence in PREVALENCES))
}
"""Measure → where it has no value."""


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
        cost_ratio: the false alarms k that one missed cancer is worth; threshold = 1 / (1 + k).
        true_positives: patients, as the mean over the repeats; so are the other counts.
        sensitivity: share of the malignant that is found; specificity of the benign that is left in peace; ppv and npv
            are the shares of those called malignant and benign that are so, among these patients.
        at_prevalences: ppv and npv restated, assuming an unchanged spectrum of patients.
        net_benefit: of acting on the model; treat_all and treat_none are those of treating everybody and nobody.
    """

    threshold: float
    cost_ratio: int
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
        intervals: of it, each threshold for itself.
        treat_all: of treating everybody. That of treating nobody is 0.
    """

    thresholds: list[float]
    model: list[float]
    intervals: list[list[float]]
    treat_all: list[float]


def operating_points(
    malignant: np.ndarray, probabilities: np.ndarray, within: Sequence[np.ndarray], plain: Sequence[np.ndarray]
) -> list[OperatingPoint]:
    """Return what happens at each threshold, of n patients in R repeats (n × R).

    The intervals of ppv and npv are from patients drawn `within` each diagnosis, that of net benefit from patients
    drawn without strata.
    """
    everybody, prevalence = np.ones((len(malignant), 1)), float(malignant.mean())
    points = []
    for ratio, threshold in zip(COST_RATIOS, THRESHOLDS, strict=True):
        repeats = [performance.cells(malignant, one >= threshold, everybody)[:, 0] for one in probabilities.T]
        true_positives, false_positives, false_negatives, true_negatives = np.mean(repeats, axis=0).tolist()
        summarise = partial(performance.summarise, malignant, probabilities)
        found = summarise(within, partial(measures, threshold=threshold), UNDEFINED)
        benefit = summarise(plain, partial(net_benefit, threshold=threshold), {})
        points.append(
            OperatingPoint(
                threshold=threshold,
                cost_ratio=ratio,
                true_positives=true_positives,
                false_positives=false_positives,
                false_negatives=false_negatives,
                true_negatives=true_negatives,
                sensitivity=found["sensitivity"],
                specificity=found["specificity"],
                ppv=found["ppv"],
                npv=found["npv"],
                at_prevalences=[AtPrevalence(p, found[f"ppv at {p}"], found[f"npv at {p}"]) for p in PREVALENCES],
                net_benefit=benefit["net_benefit"],
                treat_all=prevalence - (1 - prevalence) / ratio,
                treat_none=0.0,
            )
        )
    return points


def measures(
    malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
    """Return an operating point's rates for each column of weights (n × B), each of shape (B,)."""
    rates = performance.rates(performance.cells(malignant, probability >= threshold, weights))
    measured = {name: rates[name] for name in ("sensitivity", "specificity", "ppv", "npv")}
    for prevalence in PREVALENCES:
        found, spared = rates["sensitivity"] * prevalence, rates["specificity"] * (1 - prevalence)
        measured[f"ppv at {prevalence}"] = performance.divided(found, found + (1 - prevalence) - spared)
        measured[f"npv at {prevalence}"] = performance.divided(spared, spared + prevalence - found)
    return measured


def net_benefit(
    malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
    """Return true positives minus false positives · t/(1 - t) per patient, for each column of weights (n × B).

    Source: A. J. Vickers, E. B. Elkin, Med. Decis. Making 26 (2006) 565-574.
    """
    counts = performance.cells(malignant, probability >= threshold, weights)
    true_positives, false_positives, *_ = counts
    net = true_positives - false_positives * threshold / (1 - threshold)
    return {"net_benefit": net / counts.sum(axis=0)}


def decision_curve(malignant: np.ndarray, probabilities: np.ndarray, plain: Sequence[np.ndarray]) -> DecisionCurve:
    """Return the net benefit at each threshold, of n patients in R repeats (n × R), with a bootstrap interval."""
    thresholds = np.array(CURVE_THRESHOLDS)
    cost = thresholds / (1 - thresholds)  # of one false alarm, in cancers found
    called = (probabilities[:, :, None] >= thresholds).mean(axis=1)
    gains = called * np.where(malignant[:, None] == 1, 1.0, -cost)
    resampled = np.concatenate([chunk.T @ gains for chunk in plain]) / len(malignant)
    low, high = np.percentile(resampled, performance.PERCENTILES, axis=0)
    prevalence = malignant.mean()
    return DecisionCurve(
        list(CURVE_THRESHOLDS),
        gains.mean(axis=0).tolist(),
        np.stack([low, high], axis=1).tolist(),
        (prevalence - (1 - prevalence) * cost).tolist(),
    )
