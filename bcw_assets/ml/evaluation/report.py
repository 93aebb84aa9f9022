"""The report on a model: every number that is known of it."""

import platform
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import pandas as pd
import scipy
import sklearn
from annotated_types import Gt
from sklearn.pipeline import Pipeline

from bcw_assets.errors import ArtifactError
from bcw_assets.ml.evaluation import calibration, curves, patients, scores, utility
from bcw_assets.ml.evaluation.calibration import Calibration
from bcw_assets.ml.evaluation.curves import Curve
from bcw_assets.ml.evaluation.patients import Patient, Subgroup
from bcw_assets.ml.evaluation.scores import SCORES, Confusion, Count, Interval, Score, Summary
from bcw_assets.ml.evaluation.utility import DecisionCurve, OperatingPoint
from bcw_assets.ml.model import coefficients, convergence, preparation, resampling, training
from bcw_assets.ml.model.coefficients import Coefficient
from bcw_assets.ml.model.preparation import Prepared, Split
from bcw_assets.ml.model.resampling import CrossValidation, Resampling
from bcw_assets.ml.table import canonical, columns

METRICS_VERSION = 4  # of metrics.json: raised when a name in it changes its meaning or goes

PUBLISHED_SCORES = {
    "accuracy": 0.9736842105263158,
    "precision": 0.9761904761904762,
    "recall": 0.9534883720930233,
    "f1_score": 0.9647058823529412,
}
"""What the project that this one replaces published for its one split of the original table."""

STANDARD_NAMES = {"precision": "ppv", "recall": "sensitivity", "f1_score": "f1"}
"""The published names that are not the field's → the field's."""

TEST_HEADLINE = (*PUBLISHED_SCORES, "roc_auc", "log_loss")
"""The scores of the held-out rows that people are shown beside those that are cross-validated."""


@dataclass(frozen=True)
class SampleSize:
    """How many training patients have the rarer diagnosis (events) for so many measurements (predictors)."""

    events: int
    predictors: int
    events_per_predictor: float


@dataclass(frozen=True)
class Provenance:
    """What all numbers follow from.

    Attributes:
        fingerprint: of the table; `rows` and `malignant` count it, `prevalence` is their ratio.
        repeats_reason: why so many repeats, in words.
        settings: of the model, the number of the recipe among them (`training.read_settings`).
        libraries: name → version of those that decide a number.
    """

    fingerprint: str
    rows: Annotated[int, Gt(0)]
    malignant: Count
    prevalence: float
    split: Split
    resampling: Resampling
    repeats_reason: str
    settings: dict[str, float | int | str]
    python: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class Report:
    """What is known about the model; `metrics.json` has these names in this order.

    The first four keep the names and the one test split of the project that this one replaces; everything up to
    `intervals` is about the same test rows. All that follows is about the out-of-fold probabilities of all rows, but
    for `coefficients` and `sample_size`, which are about the model and its training rows.

    Attributes:
        intervals: score → [low, high], the 95 % interval of every score of the test split that counts give.
        cross_validation: score → its summary.
        hardest_rows: patients misclassified in nearly every repeat.
        label_suspects: patients whose label the models think nearly impossible.
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
    intervals: dict[str, Interval]
    cross_validation: dict[str, Summary]
    calibration: Calibration
    operating_points: list[OperatingPoint]
    decision_curve: DecisionCurve
    roc: Curve
    precision_recall: Curve
    subgroups: list[Subgroup]
    coefficients: list[Coefficient]
    hardest_rows: list[Patient]
    label_suspects: list[Patient]
    sample_size: SampleSize
    provenance: Provenance
    schema_version: int = METRICS_VERSION

    def select_published(self) -> dict[str, Score]:
        """Return the four scores that have published values, by their published names."""
        return {name: getattr(self, name) for name in PUBLISHED_SCORES}

    def collect_numbers(self) -> dict[str, float]:
        """Return every number worth following from run to run that is defined; those cross-validated begin with cv_."""
        values = {name: getattr(self, name) for name in (*PUBLISHED_SCORES, *SCORES) if hasattr(self, name)}
        values |= {f"cv_{name}": summary.estimate for name, summary in self.cross_validation.items()}
        values |= {
            "calibration_slope": self.calibration.slope.estimate,
            "calibration_in_the_large": self.calibration.calibration_in_the_large.estimate,
            "label_suspects": len(self.label_suspects),
            "hardest_rows": len(self.hardest_rows),
        }
        return {name: float(value) for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Evaluation:
    """The report, and what people read of it: a picture (PNG) and the model card (Markdown)."""

    report: Report
    figure: bytes
    card: str


def evaluate(
    raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline, cross_validation: CrossValidation
) -> Report:
    """Measure `model` on the test rows, and its recipe by cross-validation on all rows.

    Raises:
        ArtifactError: the four do not belong together; the text names the stage to run again.
    """
    require_one_history(raw_data, ready_data, model, cross_validation)
    malignant, probabilities = canonical.malignant(raw_data), cross_validation.probabilities
    how, everybody = cross_validation.resampling, patients.list_patients(raw_data, probabilities)
    return Report(
        **_score_test_rows(raw_data, ready_data, model),
        cross_validation=scores.summarise_scores(malignant, probabilities, how.folds),
        calibration=calibration.summarise_calibration(malignant, probabilities, how.folds),
        operating_points=utility.summarise_operating_points(malignant, probabilities, how.folds),
        decision_curve=utility.trace_decision_curve(malignant, probabilities, how.folds),
        roc=curves.trace_roc(malignant, probabilities),
        precision_recall=curves.trace_precision_recall(malignant, probabilities),
        subgroups=patients.summarise_subgroups(raw_data, probabilities),
        coefficients=coefficients.describe_coefficients(ready_data, model),
        hardest_rows=patients.select_hardest(everybody, how.repeats),
        label_suspects=patients.select_label_suspects(everybody),
        sample_size=_count_events(ready_data.select_truths(preparation.TRAIN)),
        provenance=_describe_provenance(ready_data, model, how),
    )


def _score_test_rows(raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline) -> dict[str, Any]:
    is_test = (ready_data.rows[preparation.SPLIT] == preparation.TEST).to_numpy()
    malignant = canonical.malignant(raw_data)[is_test]
    probability = model.predict_proba(raw_data.loc[is_test, list(columns.MEASUREMENTS)])[:, 1]
    confusion = Confusion.count(malignant, probability >= scores.THRESHOLD)
    estimates = scores.estimate_scores(malignant, probability)
    values: dict[str, Any] = confusion.scores | {name: estimate.value for name, estimate in estimates.items()}
    values |= {name: values[standard] for name, standard in STANDARD_NAMES.items()}
    values |= {"confusion": confusion, "intervals": confusion.intervals}
    return {field.name: values[field.name] for field in fields(Report) if field.name in values}


def _count_events(malignant: np.ndarray) -> SampleSize:
    events, predictors = int(min(malignant.sum(), len(malignant) - malignant.sum())), len(columns.MEASUREMENTS)
    return SampleSize(events, predictors, events / predictors)


def _describe_provenance(ready_data: Prepared, model: Pipeline, how: Resampling) -> Provenance:
    malignant = ready_data.rows[preparation.IS_MALIGNANT]
    return Provenance(
        fingerprint=ready_data.fingerprint,
        rows=len(malignant),
        malignant=int(malignant.sum()),
        prevalence=float(malignant.mean()),
        split=ready_data.split,
        resampling=how,
        repeats_reason=resampling.explain_repeats(len(malignant), how.repeats),
        settings=training.read_settings(model),
        python=platform.python_version(),
        libraries={library.__name__: library.__version__ for library in (np, pd, scipy, sklearn)},
    )


def require_one_history(
    raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline, cross_validation: CrossValidation
) -> None:
    """Refuse values that do not belong together.

    Raises:
        ArtifactError: the text names the stage to run again.
    """
    fingerprint, settings = canonical.fingerprint(raw_data), training.read_settings(model)
    if ready_data.fingerprint != fingerprint:
        raise ArtifactError("ready_data was made from another raw_data than the one stored now", "ready_data")
    if not convergence.measure_gradient(raw_data, ready_data, model) < convergence.LARGEST_GRADIENT:
        raise ArtifactError("model was not trained on the ready_data stored now", "model")
    if cross_validation.fingerprint != fingerprint:
        problem = "cross_validation was made from another raw_data than the one stored now"
        raise ArtifactError(problem, "cross_validation")
    if cross_validation.settings != settings:
        problem = (
            f"cross_validation judged a model with {cross_validation.settings}, the model stored now has {settings}"
        )
        raise ArtifactError(problem, "cross_validation")
