"""Measures a model: scores, their intervals, and the report that holds them."""

import statistics
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score
from sklearn.pipeline import Pipeline

from bcw_assets.errors import ArtifactError
from bcw_assets.ml import columns, preparation, table, training
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.preparation import Prepared, Split
from bcw_assets.ml.resampling import CrossValidation, Resampling

THRESHOLD = 0.5  # P(malignant) from which a patient is called malignant
CONFIDENCE = 0.95
MARGIN_OVER_ALWAYS_BENIGN = 0.2  # "always benign" has balanced accuracy 0.5
ROUNDING = 1e-12
SCHEMA_VERSION = 1  # of metrics.json: raised when a name in it changes its meaning or goes

PUBLISHED = {
    "accuracy": 0.9736842105263158,
    "precision": 0.9761904761904762,
    "recall": 0.9534883720930233,
    "f1_score": 0.9647058823529412,
}
"""What the project that this one replaces published for its one split of the original table."""

Score = float | None  # None: not defined for these rows, for example precision when nobody is called malignant


@dataclass(frozen=True)
class Confusion:
    """Counts of patients by what was said and what is true; malignant is positive."""

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int

    @classmethod
    def count(cls, malignant: np.ndarray, called_malignant: np.ndarray) -> "Confusion":
        """Count two boolean (or 0/1) arrays of shape (n,)."""
        truth, said = malignant.astype(bool), called_malignant.astype(bool)
        return cls(
            true_positives=int((truth & said).sum()),
            false_positives=int((~truth & said).sum()),
            false_negatives=int((truth & ~said).sum()),
            true_negatives=int((~truth & ~said).sum()),
        )

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

    def intervals(self) -> dict[str, list[float] | None]:
        """Return Wilson's 95 % interval of every proportion; None without patients to count."""
        return {name: wilson(*counts) for name, counts in self.proportions().items()}

    def scores(self) -> dict[str, Score]:
        """Return the proportions, their balanced accuracy and F1; None where there is nothing to divide by.

        >>> Confusion(41, 1, 2, 70).scores()["f1"]
        0.9647058823529412
        >>> print(Confusion(0, 0, 2, 70).scores()["ppv"])
        None
        """
        scores = {name: _ratio(*counts) for name, counts in self.proportions().items()}
        sensitivity, specificity = scores["sensitivity"], scores["specificity"]
        both = None if sensitivity is None or specificity is None else (sensitivity + specificity) / 2
        scores["balanced_accuracy"] = both
        scores["f1"] = _ratio(
            2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives
        )
        return scores


@dataclass(frozen=True)
class Report:
    """What is known about the model; `metrics.json` has these names in this order.

    The first four keep the names and the one test split of the project that this one replaces; everything up to
    `intervals` is about the same test rows. `cross_validation` is about all rows.

    Attributes:
        intervals: score → [low, high], Wilson's 95 % interval of every proportion of the test split.
        cross_validation: score → {"mean", "sd"} over the repeats; sd is None with one repeat.
        settings: of the model (`training.settings`).
        fingerprint: of the table; `rows` and `malignant` count it.
    """

    accuracy: Score
    precision: Score
    recall: Score
    f1_score: Score
    confusion: Confusion
    specificity: Score
    npv: Score
    balanced_accuracy: Score
    roc_auc: Score
    pr_auc: Score
    brier: Score
    log_loss: Score
    intervals: dict[str, list[float] | None]
    cross_validation: dict[str, dict[str, Score]]
    split: Split
    resampling: Resampling
    settings: dict[str, float | int | str]
    fingerprint: str
    rows: int
    malignant: int
    schema_version: int = SCHEMA_VERSION

    def published(self) -> dict[str, Score]:
        """Return the four scores that have published values, by their published names."""
        return {name: getattr(self, name) for name in PUBLISHED}

    def numbers(self) -> dict[str, float]:
        """Return every score of the test split that is defined, by its name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, float)}

    def cross_validated_means(self) -> dict[str, float]:
        """Return every cross-validated mean that is defined, by the score's name with `cv_` before it."""
        means = {f"cv_{name}": summary["mean"] for name, summary in self.cross_validation.items()}
        return {name: value for name, value in means.items() if value is not None}


def score(malignant: np.ndarray, probability: np.ndarray) -> dict[str, Score]:
    """Score probabilities against the truth, each of shape (n,); both diagnoses must occur.

    Returns:
        accuracy, sensitivity, specificity, ppv, npv, balanced_accuracy and f1 at 0.5; roc_auc; pr_auc (average
        precision); brier and log_loss (mean over patients, natural logarithm).
    """
    return {
        **Confusion.count(malignant, probability >= THRESHOLD).scores(),
        "roc_auc": float(roc_auc_score(malignant, probability)),
        "pr_auc": float(average_precision_score(malignant, probability)),
        "brier": float(brier_score_loss(malignant, probability)),
        "log_loss": float(log_loss(malignant, probability)),
    }


def wilson(successes: int, trials: int) -> list[float] | None:
    """Return Wilson's 95 % interval of a proportion as [low, high]; None without trials.

    Source: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    >>> [round(limit, 3) for limit in wilson(41, 43)]
    [0.845, 0.987]
    """
    if trials == 0:
        return None
    interval = binomtest(successes, trials).proportion_ci(CONFIDENCE, method="wilson")
    return [float(interval.low), float(interval.high)]


def evaluate(
    raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline, cross_validation: CrossValidation
) -> Report:
    """Measure `model` on the test rows, and its recipe by cross-validation on all rows.

    Raises:
        ArtifactError: the four do not belong together; the text names the stage to run again.
    """
    _require_one_history(raw_data, ready_data, model, cross_validation)
    malignant = table.malignant(raw_data)
    is_test = (ready_data.rows[preparation.SPLIT] == preparation.TEST).to_numpy()
    probability = model.predict_proba(raw_data.loc[is_test, list(columns.MEASUREMENTS)])[:, 1]
    scores = score(malignant[is_test], probability)
    confusion = Confusion.count(malignant[is_test], probability >= THRESHOLD)
    repeats = [score(malignant, repeat) for repeat in cross_validation.probabilities().T]
    return Report(
        accuracy=scores["accuracy"],
        precision=scores["ppv"],
        recall=scores["sensitivity"],
        f1_score=scores["f1"],
        confusion=confusion,
        specificity=scores["specificity"],
        npv=scores["npv"],
        balanced_accuracy=scores["balanced_accuracy"],
        roc_auc=scores["roc_auc"],
        pr_auc=scores["pr_auc"],
        brier=scores["brier"],
        log_loss=scores["log_loss"],
        intervals=confusion.intervals(),
        cross_validation={name: _summarised([repeat[name] for repeat in repeats]) for name in scores},
        split=ready_data.split,
        resampling=cross_validation.resampling,
        settings=training.settings(model),
        fingerprint=ready_data.fingerprint,
        rows=len(raw_data),
        malignant=int(malignant.sum()),
    )


def follows_from_counts(metrics: Report) -> Findings:
    """Find scores and intervals that are not those of the confusion counts."""
    expected = metrics.confusion.scores()
    said = metrics.published() | {
        "specificity": metrics.specificity,
        "npv": metrics.npv,
        "balanced_accuracy": metrics.balanced_accuracy,
    }
    expected |= {"precision": expected["ppv"], "recall": expected["sensitivity"], "f1_score": expected["f1"]}
    wrong = [name for name, value in said.items() if not _same(value, expected[name])]
    intervals = [
        name
        for name, limits in metrics.confusion.intervals().items()
        if not _same_limits(limits, metrics.intervals.get(name))
    ]
    return Findings.of(
        *((f"the interval of {name} is not that of the counts", True) for name in intervals),
        *((f"{name} is {said[name]}, the counts give {expected[name]}", True) for name in wrong),
        **{name: getattr(metrics.confusion, name) for name in (one.name for one in fields(Confusion))},
        scores_compared=len(said),
    )


def beats_always_benign(metrics: Report) -> Findings:
    """Find a model that is hardly better than calling everybody benign."""
    floor = 0.5 + MARGIN_OVER_ALWAYS_BENIGN
    reached = metrics.balanced_accuracy
    return Findings.of(
        (f"balanced accuracy is {reached}, below {floor}", reached is None or reached < floor),
        balanced_accuracy=reached,
        floor=floor,
    )


def written(value: Score) -> str:
    """Return a score for people, with four decimals."""
    return "not defined" if value is None else f"{value:.4f}"


def beside_published(metrics: Report) -> str:
    """Return a Markdown table of the four published numbers and ours for the same names."""
    rows = [f"| {name} | {written(ours)} | {PUBLISHED[name]:.4f} |" for name, ours in metrics.published().items()]
    return "\n".join(["| test split | this run | published |", "|---|---|---|", *rows])


def _require_one_history(
    raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline, cross_validation: CrossValidation
) -> None:
    fingerprint = table.fingerprint(raw_data)
    if ready_data.fingerprint != fingerprint:
        raise ArtifactError("ready_data was made from another raw_data than the one stored now", "ready_data")
    if not training.steepness(raw_data, ready_data, model) < training.FLAT:
        raise ArtifactError("model was not trained on the ready_data stored now", "model")
    if cross_validation.fingerprint != fingerprint:
        raise ArtifactError(
            "cross_validation was made from another raw_data than the one stored now", "cross_validation"
        )
    if cross_validation.settings != training.settings(model):
        raise ArtifactError(
            f"cross_validation judged a model with {cross_validation.settings}, and the model stored now has "
            f"{training.settings(model)}",
            "cross_validation",
        )


def _ratio(part: int, whole: int) -> Score:
    return part / whole if whole else None


def _summarised(values: list[Score]) -> dict[str, Score]:
    """Return mean and sample sd; None where a value is not defined, or the sd of one value."""
    defined = [value for value in values if value is not None]
    complete = len(defined) == len(values)
    return {
        "mean": statistics.fmean(defined) if complete else None,
        "sd": statistics.stdev(defined) if complete and len(values) > 1 else None,
    }


def _same_limits(ones: list[float] | None, others: list[float] | None) -> bool:
    if ones is None or others is None:
        return ones is others
    return len(ones) == len(others) and all(_same(one, other) for one, other in zip(ones, others, strict=True))


def _same(one: Score, other: Score) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= ROUNDING
