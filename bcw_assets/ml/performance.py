"""Scores probabilities against the truth, and says how far each score can be trusted.

Whatever is resampled is weighted: a bootstrap resample is how often each patient counts. So one function gives a score
for all patients (each once) and for thousands of resamples at once.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Len

THRESHOLD = 0.5  # P(malignant) from which a patient is called malignant
CONFIDENCE = 0.95
PERCENTILES = (100 * (1 - CONFIDENCE) / 2, 100 * (1 + CONFIDENCE) / 2)  # of a bootstrap interval
MAX_UNDEFINED = 0.01  # share of resamples that may lack a value before the interval is given up
WORKERS = 2  # NumPy works without Python's lock, and a quarter faster on two cores; more workers wait for the lock
ROUNDING = 1e-12  # of a score of some hundred patients, added up in another order

Score = float | None  # None: not defined for these rows, for example precision when nobody is called malignant
Interval = Annotated[list[float], Len(2, 2)] | None  # [low, high] with 95 % confidence
Count = Annotated[int, Ge(0)]
Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]

SCORES = (
    *("accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1"),
    *("roc_auc", "pr_auc", "brier", "log_loss"),
)
"""The names of all scores, in order."""

UNDEFINED = {"ppv": "nobody is called malignant", "npv": "nobody is called benign"}
"""Score → where it has no value."""


@dataclass(frozen=True)
class Confusion:
    """Counts of patients by what was said and what is true; malignant is positive."""

    true_positives: Count
    false_positives: Count
    false_negatives: Count
    true_negatives: Count

    @classmethod
    def count(cls, malignant: np.ndarray, called_malignant: np.ndarray) -> "Confusion":
        """Count two boolean (or 0/1) arrays of shape (n,)."""
        counts = cells(malignant, called_malignant, np.ones((len(malignant), 1)))
        return cls(*(int(count) for count in counts[:, 0]))

    @property
    def total(self) -> int:
        """The number of patients."""
        return self.true_positives + self.false_positives + self.false_negatives + self.true_negatives

    def proportions(self) -> dict[str, tuple[int, int]]:
        """Return the proportions that the counts give, each as (successes, trials)."""
        return {
            "accuracy": (self.true_positives + self.true_negatives, self.total),
            "sensitivity": (self.true_positives, self.true_positives + self.false_negatives),
            "specificity": (self.true_negatives, self.true_negatives + self.false_positives),
            "ppv": (self.true_positives, self.true_positives + self.false_positives),
            "npv": (self.true_negatives, self.true_negatives + self.false_negatives),
        }

    def intervals(self) -> dict[str, Interval]:
        """Return Wilson's 95 % interval of every proportion; None without patients to count."""
        return {name: wilson(*counts) for name, counts in self.proportions().items()}

    def scores(self) -> dict[str, Score]:
        """Return the proportions, their balanced accuracy and F1; None where there is nothing to divide by.

        >>> Confusion(41, 1, 2, 70).scores()["f1"]
        0.9647058823529412
        >>> print(Confusion(0, 0, 2, 70).scores()["ppv"])
        None
        """
        counts = (self.true_positives, self.false_positives, self.false_negatives, self.true_negatives)
        return {name: defined(value[0]) for name, value in rates(np.array(counts, dtype=np.float64)[:, None]).items()}


@dataclass(frozen=True)
class Summary:
    """One score of a cross-validation.

    Attributes:
        estimate: its mean over the repeats.
        sd: its standard deviation over the repeats: what other folds would change, not what other patients would.
        interval: of the estimate with 95 % confidence; leaves out the variance of the training set.
        reason: why something of it is None, or of how many resamples the interval does without.
    """

    estimate: Score
    sd: Score
    interval: Interval
    reason: str | None = None


def defined(value: float) -> Score:
    """Return a float for people and JSON: None for NaN."""
    return None if math.isnan(value) else float(value)


def cells(malignant: np.ndarray, called_malignant: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return true positives, false positives, false negatives and true negatives, of shape (4, B).

    Args:
        malignant: n truths, booleans or 0 and 1.
        called_malignant: what was said of them.
        weights: n × B, how often each counts.
    """
    truth, said = malignant.astype(bool), called_malignant.astype(bool)
    counts: np.ndarray = np.array([truth & said, ~truth & said, truth & ~said, ~truth & ~said], float) @ weights
    return counts


def rates(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return what the `cells` (4 × B) give, each of shape (B,): NaN where there is nothing to divide by."""
    true_positives, false_positives, false_negatives, true_negatives = counts
    sensitivity = divided(true_positives, true_positives + false_negatives)
    specificity = divided(true_negatives, true_negatives + false_positives)
    return {
        "accuracy": divided(true_positives + true_negatives, counts.sum(axis=0)),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": divided(true_positives, true_positives + false_positives),
        "npv": divided(true_negatives, true_negatives + false_negatives),
        "f1": divided(2 * true_positives, 2 * true_positives + false_positives + false_negatives),
    }


def divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return the quotient, NaN where the divisor is 0."""
    quotient: np.ndarray = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)
    return quotient


def score(malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Score probabilities against the truth, for each column of weights.

    Args:
        malignant: n truths, 1 or 0; both must count in every column.
        probability: n values of P(malignant).
        weights: n × B, how often each patient counts.

    Returns:
        accuracy, balanced_accuracy, sensitivity, specificity, ppv, npv and f1 at 0.5; roc_auc; pr_auc (average
        precision); brier and log_loss (means over the patients, natural logarithm). Each of shape (B,).
    """
    roc_auc, pr_auc = _areas(malignant, probability, weights)
    smallest = np.finfo(np.float64).eps  # as in scikit-learn: a certain error costs 36, not infinity
    of_truth = np.clip(np.where(malignant == 1, probability, 1 - probability), smallest, 1 - smallest)
    losses = np.array([(probability - malignant) ** 2, -np.log(of_truth)]) @ weights / weights.sum(axis=0)
    return {
        **rates(cells(malignant, probability >= THRESHOLD, weights)),
        "roc_auc": roc_auc,
        "pr_auc": pr_auc,
        "brier": losses[0],
        "log_loss": losses[1],
    }


def _areas(malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ROC AUC (equal probabilities count half) and the average precision."""
    falling = np.argsort(-probability, kind="stable")
    ordered = probability[falling]
    first, last = (np.searchsorted(-ordered, -ordered, side=side) for side in ("left", "right"))  # of equal ones
    patients = weights[falling].astype(np.int32)  # whole numbers are added up a third faster
    positives = patients * malignant[falling, None].astype(np.int32)
    found, called = positives.cumsum(axis=0), patients.cumsum(axis=0)
    before = found - positives
    tied = np.flatnonzero(last - first > 1)  # equal probabilities are called malignant together
    before[tied], found[tied], called[tied] = before[first[tied]], found[last[tied] - 1], called[last[tied] - 1]
    ranked = np.einsum("ij,ij->j", patients - positives, before + found) / 2
    precise = np.einsum("ij,ij->j", positives, found / np.maximum(called, 1))
    return ranked / found[-1] / (called[-1] - found[-1]), precise / found[-1]


def wilson(successes: float, trials: float) -> Interval:
    """Return Wilson's 95 % interval of a proportion as [low, high]; None without trials.

    Successes may be a mean over repeats, and so no whole number.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    >>> [round(limit, 3) for limit in wilson(41, 43)]
    [0.845, 0.987]
    """
    if trials == 0:
        return None
    square = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2) ** 2
    centre = successes + square / 2
    half = math.sqrt(square * (successes * (1 - successes / trials) + square / 4))
    low, high = ((centre + side) / (trials + square) for side in (-half, half))
    return [max(low, 0.0) if successes else 0.0, min(high, 1.0) if successes < trials else 1.0]


def summarise(
    malignant: np.ndarray,
    probabilities: np.ndarray,
    draws: Sequence[np.ndarray],
    measure: Measure,
    undefined: Mapping[str, str],
) -> dict[str, Summary]:
    """Return every measure's mean over the repeats with its interval.

    The interval of accuracy, sensitivity and specificity, proportions of a fixed number of patients, is Wilson's with
    the mean over the repeats as the proportion. All others have the percentile interval of a bootstrap over patients,
    whose statistic is the same mean over the repeats on the same resampled patients. Source: B. Efron, R. J.
    Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Args:
        malignant: n truths, 1 or 0.
        probabilities: n × R, out-of-fold.
        draws: the resamples (`bootstrap.draws`): within each diagnosis, but for measures that are about the share of
            malignant patients, which would be held fixed.
        measure: (malignant, probability of one repeat, weights of shape n × B) → name → B values, NaN where undefined.
        undefined: the names that may be NaN → where they are, in words.
    """
    everybody = np.ones((len(malignant), 1))
    once = [measure(malignant, probability, everybody) for probability in probabilities.T]

    def measured(chunk: np.ndarray) -> list[dict[str, np.ndarray]]:
        weights = chunk.astype(np.float64)
        return [measure(malignant, probability, weights) for probability in probabilities.T]

    with ThreadPoolExecutor(WORKERS) as pool:
        chunks = list(pool.map(measured, draws))
    ill = int(malignant.sum())
    patients = {"accuracy": len(malignant), "sensitivity": ill, "specificity": len(malignant) - ill}
    found = {}
    for name in once[0]:
        values = np.array([one[name][0] for one in once])
        if name in patients:
            found[name] = proportion(values, patients[name])
        else:
            resampled = np.concatenate([np.mean([one[name] for one in chunk], axis=0) for chunk in chunks])
            found[name] = _bootstrapped(values, resampled, undefined.get(name, "there is nothing to divide by"))
    return found


def proportion(values: np.ndarray, patients: int) -> Summary:
    """Summarise a proportion of the same patients in every repeat, by Wilson's interval."""
    return _summary(values, wilson(float(np.mean(values)) * patients, patients), None)


def _bootstrapped(values: np.ndarray, resampled: np.ndarray, undefined: str) -> Summary:
    absent = int(np.isnan(values).sum())
    if absent:
        return Summary(None, None, None, f"not defined in {absent} of {len(values)} repeats, where {undefined}")
    kept = resampled[~np.isnan(resampled)]
    lost = len(resampled) - len(kept)
    missing = f"not defined in {lost} of {len(resampled)} resamples, where {undefined}" if lost else None
    if lost > MAX_UNDEFINED * len(resampled):
        return _summary(values, None, f"no interval: {missing}")
    if np.ptp(kept) <= ROUNDING:
        return _summary(values, None, "no interval: the same in every resample, which shows no uncertainty")
    return _summary(values, [float(limit) for limit in np.percentile(kept, PERCENTILES)], missing)


def _summary(values: np.ndarray, interval: Interval, reason: str | None) -> Summary:
    if len(values) == 1:
        return Summary(float(values[0]), None, interval, "; ".join(filter(None, ["no sd of one repeat", reason])))
    return Summary(float(np.mean(values)), statistics.stdev(values.tolist()), interval, reason)


def written(value: Score, digits: int = 4) -> str:
    """Return a score for people."""
    return "not defined" if value is None else f"{value:.{digits}f}"


def limits(interval: Interval, digits: int = 3) -> str:
    """Return an interval for people.

    >>> limits([0.92975, 0.98203])
    '0.930 to 0.982'
    """
    return "no interval" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def told(summary: Summary, digits: int = 3) -> str:
    """Return an estimate with its interval for people, or with the reason why there is none."""
    interval = limits(summary.interval, digits) if summary.interval else summary.reason
    return f"{written(summary.estimate, digits)} ({interval})"
