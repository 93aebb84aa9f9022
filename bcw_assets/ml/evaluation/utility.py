"""What it means to act on the probabilities: ROC and precision-recall curve, operating points, net benefit."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from bcw_assets.ml.evaluation import influence, scores

# How many false alarms one missed cancer is worth; fixed beforehand. A threshold chosen on data of this size would move
# by 0.05 to 0.10 from sample to sample. From the threshold on, acting costs less than not acting.
COST_RATIOS = (1, 9)
THRESHOLDS = tuple(1 / (1 + ratio) for ratio in COST_RATIOS)
PREVALENCES = (0.1, 0.37)  # for which PPV and NPV are restated: a clinic that sees few, and a referral clinic
RATES = ("sensitivity", "specificity", "ppv", "npv")
GRID_ROUNDING = 1e-9  # 0.175 of the grid is not 35 of 200 to the last digit
GRID = np.linspace(0, 1, 201)  # steps of half a percent, finer than one patient of 100
CURVE_THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))

NO_RATIO = "no interval: all who are called so are so, or nobody is, and the likelihood ratio has no bound"


@dataclass(frozen=True)
class Curve:
    """A curve at the same places x in every repeat (1 - specificity, or recall): its mean and its extremes."""

    x: list[float]
    mean: list[float]
    lowest: list[float]
    highest: list[float]


@dataclass(frozen=True)
class AtPrevalence:
    """PPV and NPV where another share of the masses is malignant, and sensitivity and specificity are the same."""

    prevalence: float
    ppv: scores.Summary
    npv: scores.Summary


@dataclass(frozen=True)
class OperatingPoint:
    """What happens when everybody from a threshold on is called malignant; counts are means over the repeats."""

    threshold: float
    cost_ratio: int
    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float
    sensitivity: scores.Summary
    specificity: scores.Summary
    ppv: scores.Summary
    npv: scores.Summary
    at_prevalences: list[AtPrevalence]
    net_benefit: scores.Summary  # of acting on the model
    treat_all: float  # the net benefit of treating everybody


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit over the thresholds t: true positives minus false positives · t/(1 - t), per patient."""

    thresholds: list[float]
    model: list[float]
    intervals: list[scores.Interval]  # None where nothing shows an uncertainty
    treat_all: list[float]


def trace_curves(malignant: np.ndarray, probabilities: np.ndarray) -> tuple[Curve, Curve]:
    """Return sensitivity over 1 - specificity, and precision over recall, of n patients in R repeats (n × R)."""
    sensitivities, precisions = [], []
    for probability in probabilities.T:
        false_positives, sensitivity, _ = roc_curve(malignant, probability, drop_intermediate=False)
        # No more false positives than allowed.
        sensitivities.append(sensitivity[np.searchsorted(false_positives, GRID + GRID_ROUNDING, side="right") - 1])
        precision, recall, _ = precision_recall_curve(malignant, probability)  # recall falls from 1 to 0
        # At least that recall.
        precisions.append(precision[::-1][np.searchsorted(recall[::-1], GRID - GRID_ROUNDING, side="left")])
    roc, precision_recall = (
        Curve(GRID.tolist(), values.mean(0).tolist(), values.min(0).tolist(), values.max(0).tolist())
        for values in (np.stack(sensitivities), np.stack(precisions))
    )
    return roc, precision_recall


def summarise_operating_points(malignant: np.ndarray, probabilities: np.ndarray, folds: int) -> list[OperatingPoint]:
    """Return what happens at each threshold, of n patients in R repeats (n × R) of so many folds."""
    prevalence, points = float(malignant.mean()), []
    for cost_ratio, threshold in zip(COST_RATIOS, THRESHOLDS, strict=True):
        repeats = [scores.Confusion.count(malignant, called) for called in (probabilities >= threshold).T]
        rates, benefits = scores.summarise_counts(repeats), estimate_net_benefits(malignant, probabilities, threshold)
        summaries = scores.summarise_estimates([{"net_benefit": benefit} for benefit in benefits], folds)
        points.append(
            OperatingPoint(
                threshold=threshold,
                cost_ratio=cost_ratio,
                **asdict(scores.Confusion.average(repeats)) | {name: rates[name] for name in RATES},
                at_prevalences=[restate(repeats, share) for share in PREVALENCES],
                net_benefit=summaries["net_benefit"],
                treat_all=prevalence - (1 - prevalence) / cost_ratio,
            )
        )
    return points


def restate(repeats: Sequence[scores.Confusion], prevalence: float) -> AtPrevalence:
    """Return PPV and NPV where another share of the masses is malignant: its odds, times the likelihood ratio.

    Source of the interval: D. L. Simel et al., J. Clin. Epidemiol. 44 (1991) 763-770.
    """
    exchanged = [scores.Confusion(*reversed(astuple(counts))) for counts in repeats]  # the NPV is benign's PPV
    odds, summaries = prevalence / (1 - prevalence), []
    for name, of_repeats, odds_of_right in (("ppv", repeats, odds), ("npv", exchanged, 1 / odds)):
        values = []
        for hits, alarms, missed, spared in map(astuple, of_repeats):
            rightly = odds_of_right * hits / (hits + missed)
            values.append(scores.divide(rightly, rightly + alarms / (alarms + spared)))
        numbers = [value for value in values if value is not None]
        hits, alarms, missed, spared = astuple(scores.Confusion.average(of_repeats))
        interval = None
        if hits and alarms and len(numbers) == len(values):
            error = math.sqrt(missed / hits / (hits + missed) + spared / alarms / (alarms + spared))  # of the log ratio
            centre = influence.LOGIT.to(statistics.fmean(numbers))
            interval = [influence.LOGIT.back(centre + side * influence.Z * error) for side in (-1, 1)]
        summaries.append(scores.summarise(name, values, interval, NO_RATIO))
    return AtPrevalence(prevalence, *summaries)


def estimate_net_benefits(malignant: np.ndarray, probabilities: np.ndarray, t: float) -> list[influence.Estimate]:
    """Return true positives minus false positives · t/(1 - t) per patient, in each of R repeats (n × R).

    Source: A. J. Vickers, E. B. Elkin, Med. Decis. Making 26 (2006) 565-574.
    """
    gain = np.where(malignant == 1, 1.0, -t / (1 - t))  # of calling a patient malignant
    return [influence.estimate_ratio(called * gain, 1) for called in (probabilities >= t).T]


def trace_decision_curve(malignant: np.ndarray, probabilities: np.ndarray, folds: int) -> DecisionCurve:
    """Return the net benefit at each threshold, of n patients in R repeats (n × R) of so many folds."""
    prevalence, model, intervals = float(malignant.mean()), [], []
    for threshold in CURVE_THRESHOLDS:  # one after the other: their influences together would be 800 bytes a row
        repeats = estimate_net_benefits(malignant, probabilities, threshold)
        model.append(statistics.fmean(estimate.value for estimate in repeats))
        intervals.append(influence.estimate_interval(repeats, folds))
    treat_all = [prevalence - (1 - prevalence) * t / (1 - t) for t in CURVE_THRESHOLDS]
    return DecisionCurve(list(CURVE_THRESHOLDS), model, intervals, treat_all)
