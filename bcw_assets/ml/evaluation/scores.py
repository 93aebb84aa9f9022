"""Scores probabilities against the truth, and says how far each score can be trusted and where people meet it."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from bcw_assets.ml.evaluation import influence

THRESHOLD = 0.5  # P(malignant) from which a patient is called malignant
_SMALLEST = float(np.finfo(np.float64).eps)  # as in scikit-learn: a certain error costs 36, not infinity

Score = float | None  # None: not defined for these rows, for example precision when nobody is called malignant
Interval = Annotated[list[float], Meta(min_length=2, max_length=2)] | None  # [low, high] with 95 % confidence
Count = Annotated[int, Meta(ge=0)]
MeanCount = Count | Annotated[float, Meta(ge=0)]  # no whole number where it is a mean over repeats


@dataclass(frozen=True)
class Profile:
    """How a score is judged, and where people meet it beside `metrics.json` and the table of all scores."""

    title: str
    meaning: str = ""  # in the card
    is_share: bool = False  # which the card gives in percent
    hub_name: str = ""  # at Hugging Face
    is_headline: bool = False  # in a manifest, the exporter, `bcw releases show` and `diff`
    is_brief: bool = False  # in `bcw predict` and `bcw releases list`
    floor: tuple[Literal["at least", "at most"], float] | None = None  # missed when the whole interval lies beyond


with open(__file__.removesuffix("py") + "json", "rb") as _file:
    SCORES = msgspec.json.decode(_file.read(), type=dict[str, Profile])
"""Every score of the cross-validation, in the order of `metrics.json`."""

UNDEFINED = {  # score → where it has no value
    "ppv": "nobody is called malignant",
    "npv": "nobody is called benign",
    "slope": "the probabilities divide the diagnoses without an overlap, or are all the same",
    "calibration_in_the_large": "all probabilities are 0 or 1",
    "observed_expected_ratio": "all probabilities are 0",
}

ONE_REPEAT = "no sd of one repeat"
LACKS_TRAINING = "the interval leaves out what other training patients would change, which one repeat does not show"
NO_UNCERTAINTY = "no interval: every patient contributes the same, which shows no uncertainty"


@dataclass(frozen=True)
class Confusion:
    """Counts of patients by what was said and what is true, or their means over repeats; malignant is positive."""

    true_positives: MeanCount
    false_positives: MeanCount
    false_negatives: MeanCount
    true_negatives: MeanCount

    @classmethod
    def count(cls, malignant: np.ndarray, called_malignant: np.ndarray) -> "Confusion":
        """Count two boolean (or 0/1) arrays of shape (n,)."""
        return cls(*np.bincount(malignant + 2 * called_malignant, minlength=4).tolist()[::-1])

    @classmethod
    def average(cls, repeats: Sequence["Confusion"]) -> "Confusion":
        """Return the mean counts."""
        return cls(*map(statistics.fmean, zip(*map(astuple, repeats), strict=True)))

    @property
    def total(self) -> int | float:
        """The number of patients."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    @property
    def proportions(self) -> dict[str, tuple[float, float]]:
        """The proportions that the counts give, each as (successes, trials)."""
        return {
            "accuracy": (self.true_positives + self.true_negatives, self.total),
            "sensitivity": (self.true_positives, self.true_positives + self.false_negatives),
            "specificity": (self.true_negatives, self.true_negatives + self.false_positives),
            "ppv": (self.true_positives, self.true_positives + self.false_positives),
            "npv": (self.true_negatives, self.true_negatives + self.false_negatives),
        }

    @property
    def scores(self) -> dict[str, Score]:
        """The proportions, their balanced accuracy and F1; None where there is nothing to divide by."""
        rates = {name: divide(successes, trials) for name, (successes, trials) in self.proportions.items()}
        sensitivity, specificity = rates["sensitivity"], rates["specificity"]
        both = None if sensitivity is None or specificity is None else (sensitivity + specificity) / 2
        called_or_ill = 2 * self.true_positives + self.false_positives + self.false_negatives
        return rates | {"balanced_accuracy": both, "f1": divide(2 * self.true_positives, called_or_ill)}

    @property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % interval of every score; None without patients to count.

        That of a proportion is Wilson's. F1 = 2 J / (1 + J) rises with J, the share of the found among all who are
        called malignant or are so. Balanced accuracy combines its independent halves (MOVER): G. Y. Zou, A. Donner,
        Stat. Med. 27 (2008) 1693-1702.
        """
        counts, both = self.proportions, None
        intervals = {name: compute_wilson(*count) for name, count in counts.items()}
        if (of_ill := intervals["sensitivity"]) and (of_well := intervals["specificity"]):
            ill, well = (successes / trials for successes, trials in (counts["sensitivity"], counts["specificity"]))
            below, above = (math.hypot(ill - of_ill[end], well - of_well[end]) / 2 for end in (0, 1))
            both = [(ill + well) / 2 - below, (ill + well) / 2 + above]
        jaccard = compute_wilson(self.true_positives, self.true_positives + self.false_positives + self.false_negatives)
        f1 = jaccard and [2 * limit / (1 + limit) for limit in jaccard]
        return intervals | {"balanced_accuracy": both, "f1": f1}


@dataclass(frozen=True)
class Summary:
    """One score of a cross-validation: the mean over the repeats."""

    estimate: Score
    sd: Score  # over the repeats: what other folds would change, not what other patients would
    interval: Interval  # of what the models of this table would reach on all patients
    reason: str | None = None  # why something of it is None, or what the interval leaves out


def divide(part: float, whole: float) -> Score:
    """Return the quotient; None where there is nothing to divide by."""
    return part / whole if whole else None


def compute_wilson(successes: float, trials: float) -> Interval:
    """Return Wilson's 95 % interval of a proportion as [low, high]; None without trials.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    >>> [round(limit, 3) for limit in compute_wilson(41, 43)]
    [0.845, 0.987]
    """
    if trials == 0:
        return None
    square = influence.Z**2
    centre = successes + square / 2
    half = math.sqrt(square * (successes * (1 - successes / trials) + square / 4))
    low, high = ((centre + side) / (trials + square) for side in (-half, half))
    return [max(low, 0.0) if successes else 0.0, min(high, 1.0) if successes < trials else 1.0]


def compute_log_losses(malignant: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return minus the logarithm of the probability of what is true, for truths (1 or 0) and P(malignant) alike."""
    of_truth = np.where(malignant == 1, probability, 1 - probability)
    return np.asarray(-np.log(np.clip(of_truth, _SMALLEST, 1 - _SMALLEST)))


def estimate_scores(malignant: np.ndarray, probability: np.ndarray) -> dict[str, influence.Estimate]:
    """Return roc_auc, pr_auc (average precision), brier and log_loss of n patients of both diagnoses."""
    return influence.estimate_areas(malignant, probability) | {
        "brier": influence.estimate_ratio((probability - malignant) ** 2, 1, influence.LOGIT),
        "log_loss": influence.estimate_ratio(compute_log_losses(malignant, probability), 1, influence.LOG),
    }


def summarise_scores(malignant: np.ndarray, probabilities: np.ndarray, folds: int) -> dict[str, Summary]:
    """Summarise every score of n patients in R repeats (n × R); where a threshold matters, it is 0.5."""
    counts = [Confusion.count(malignant, called) for called in (probabilities >= THRESHOLD).T]
    repeats = [estimate_scores(malignant, probability) for probability in probabilities.T]
    return summarise_counts(counts) | summarise_estimates(repeats, folds)


def summarise_counts(repeats: Sequence[Confusion]) -> dict[str, Summary]:
    """Summarise what the counts of all repeats give."""
    intervals, scores = Confusion.average(repeats).intervals, [repeat.scores for repeat in repeats]
    return {name: summarise(name, [values[name] for values in scores], intervals[name]) for name in intervals}


def summarise_estimates(repeats: Sequence[Mapping[str, influence.Estimate]], folds: int) -> dict[str, Summary]:
    """Summarise scores by what each patient contributes to them in each repeat, of so many folds."""
    summaries = {}
    for name in repeats[0]:
        estimates = [repeat[name] for repeat in repeats]
        values = [None if math.isnan(estimate.value) else estimate.value for estimate in estimates]
        interval = None if None in values else influence.estimate_interval(estimates, folds)
        summaries[name] = summary = summarise(name, values, interval)
        if len(repeats) == 1 and interval:
            summaries[name] = replace(summary, reason=f"{summary.reason}; {LACKS_TRAINING}")
    return summaries


def summarise(name: str, values: Sequence[Score], interval: Interval, no_interval: str = NO_UNCERTAINTY) -> Summary:
    """Summarise the values of a score in all repeats, with the interval of their mean, or why there is none."""
    numbers = [value for value in values if value is not None]
    if absent := len(values) - len(numbers):
        return Summary(None, None, None, f"not defined in {absent} of {len(values)} repeats, where {UNDEFINED[name]}")
    spread = statistics.stdev(numbers) if len(numbers) > 1 else None
    reasons = [ONE_REPEAT] * (spread is None) + [no_interval] * (interval is None)
    return Summary(statistics.fmean(numbers), spread, interval, "; ".join(reasons) or None)
