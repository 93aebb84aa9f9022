"""What it means to act on the probabilities: operating points, and the net benefit of deciding by them."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass

import numpy as np

from bcw_assets.ml.evaluation import influence, scores
from bcw_assets.ml.evaluation.influence import Estimate
from bcw_assets.ml.evaluation.scores import Confusion, Interval, Score, Summary

COST_RATIOS = (1, 9)
"""How many false alarms one missed cancer is worth; fixed beforehand.

A threshold chosen on data of this size would move by 0.05 to 0.10 from sample to sample.
"""

THRESHOLDS = tuple(1 / (1 + ratio) for ratio in COST_RATIOS)
"""The operating points: from this probability on, acting costs less than not acting."""

PREVALENCES = (0.1, 0.37)
"""Shares of malignant masses for which PPV and NPV are restated: a clinic that sees few, and a referral clinic."""

CURVE_THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))


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
        intervals: of it, each threshold for itself; None where nothing shows an uncertainty.
        treat_all: of treating everybody. That of treating nobody is 0.
    """

    thresholds: list[float]
    model: list[float]
    intervals: list[Interval]
    treat_all: list[float]


def operating_points(malignant: np.ndarray, probabilities: np.ndarray, folds: int) -> list[OperatingPoint]:
    """Return what happens at each threshold, of n patients in R repeats (n × R) of so many folds."""
    prevalence = float(malignant.mean())
    points = []
    for cost_ratio, threshold in zip(COST_RATIOS, THRESHOLDS, strict=True):
        called = probabilities >= threshold
        repeats = [Confusion.count(malignant, calls) for calls in called.T]
        rates = scores.summarise_counts(malignant, called)
        benefits = [{"net_benefit": estimate} for estimate in net_benefits(malignant, probabilities, threshold)]
        points.append(
            OperatingPoint(
                threshold=threshold,
                cost_ratio=cost_ratio,
                **asdict(Confusion.mean(repeats)),
                sensitivity=rates["sensitivity"],
                specificity=rates["specificity"],
                ppv=rates["ppv"],
                npv=rates["npv"],
                at_prevalences=[restate(repeats, share) for share in PREVALENCES],
                net_benefit=scores.summarise_estimates(benefits, folds)["net_benefit"],
                treat_all=prevalence - (1 - prevalence) / cost_ratio,
                treat_none=0.0,
            )
        )
    return points


def restate(repeats: Sequence[Confusion], prevalence: float) -> AtPrevalence:
    """Return PPV and NPV where another share of the masses is malignant: their odds are its times a likelihood ratio.

    Source of the interval: D. L. Simel et al., J. Clin. Epidemiol. 44 (1991) 763-770.
    """
    odds, mean = prevalence / (1 - prevalence), Confusion.mean(repeats)

    def summarise(name: str, odds: float, *, of_benign: bool) -> Summary:
        counts = [astuple(repeat)[:: -1 if of_benign else 1] for repeat in (*repeats, mean)]
        *values, _ = (_share_right(odds, *count) for count in counts)
        return scores.summarise(values, _interval_of_share(odds, *counts[-1]), scores.UNDEFINED[name])

    return AtPrevalence(prevalence, summarise("ppv", odds, of_benign=False), summarise("npv", 1 / odds, of_benign=True))


def _share_right(odds: float, right: float, wrong: float, missed: float, spared: float) -> Score:
    """Return how many of those called so are so, where the odds of being so are given."""
    true_positive_rate, false_positive_rate = right / (right + missed), wrong / (wrong + spared)
    return scores.divide(odds * true_positive_rate, odds * true_positive_rate + false_positive_rate)


def _interval_of_share(odds: float, right: float, wrong: float, missed: float, spared: float) -> Interval:
    share = _share_right(odds, right, wrong, missed, spared)
    if not right or not wrong or share is None:
        return None
    of_log_ratio = math.sqrt(missed / right / (right + missed) + spared / wrong / (wrong + spared))
    return influence.confidence_interval(share, of_log_ratio * share * (1 - share), influence.LOGIT)


def net_benefits(malignant: np.ndarray, probabilities: np.ndarray, threshold: float) -> list[Estimate]:
    """Return true positives minus false positives · t/(1 - t) per patient, in each of R repeats (n × R).

    Source: A. J. Vickers, E. B. Elkin, Med. Decis. Making 26 (2006) 565-574.
    """
    gain = np.where(malignant == 1, 1.0, -threshold / (1 - threshold))  # of calling a patient malignant
    return [influence.estimate_mean(called * gain) for called in (probabilities >= threshold).T]


def decision_curve(malignant: np.ndarray, probabilities: np.ndarray, folds: int) -> DecisionCurve:
    """Return the net benefit at each threshold, of n patients in R repeats (n × R) of so many folds."""
    prevalence = float(malignant.mean())
    model, intervals = [], []
    for threshold in CURVE_THRESHOLDS:
        repeats = net_benefits(malignant, probabilities, threshold)
        model.append(statistics.fmean(estimate.value for estimate in repeats))
        intervals.append(influence.mean_interval(repeats, folds))
    treat_all = [prevalence - (1 - prevalence) * t / (1 - t) for t in CURVE_THRESHOLDS]
    return DecisionCurve(list(CURVE_THRESHOLDS), model, intervals, treat_all)
