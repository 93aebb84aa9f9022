"""The report on a model: every number that is known of it."""

import platform
from dataclasses import dataclass, fields
from typing import Annotated, Any

import numpy as np
import pandas as pd
import scipy
import sklearn
from msgspec import Meta
from sklearn.pipeline import Pipeline

from bcw_assets.errors import ArtifactError
from bcw_assets.ml.evaluation import patients, scores, utility
from bcw_assets.ml.evaluation.calibration import Calibration, summarise_calibration
from bcw_assets.ml.model import preparation, training
from bcw_assets.ml.model.coefficients import Coefficient, describe_coefficients
from bcw_assets.ml.model.resampling import CrossValidation, Resampling, explain_repeats
from bcw_assets.ml.table import canonical, columns

METRICS_VERSION = 4  # of metrics.json: raised when a name in it changes its meaning or goes

# What the project that this one replaces published for its one split of the original table: of 114 patients, 41 of 43
# malignant ones were found, with one false alarm.
PUBLISHED_SCORES = {"accuracy": 111 / 114, "precision": 41 / 42, "recall": 41 / 43, "f1_score": 82 / 85}
# The published names that are not the field's → the field's.
STANDARD_NAMES = {"precision": "ppv", "recall": "sensitivity", "f1_score": "f1"}
# The scores of the held-out rows that people are shown beside those that are cross-validated.
TEST_HEADLINE = (*PUBLISHED_SCORES, "roc_auc", "log_loss")


@dataclass(frozen=True)
class Provenance:
    """What all numbers follow from; `libraries` are the versions of those that decide a number."""

    fingerprint: str
    rows: Annotated[int, Meta(gt=0)]
    malignant: scores.Count
    prevalence: float
    split: preparation.Split
    resampling: Resampling
    repeats_reason: str
    settings: dict[str, float | int | str]
    python: str
    libraries: dict[str, str]


@dataclass(frozen=True)
class Report:
    """What is known about the model; `metrics.json` has these names in this order, and docs/metrics.md defines them.

    The first four keep the names and the one test split of the project that this one replaces; everything up to
    `intervals` is about the same test rows. All that follows is about the out-of-fold probabilities of all rows, but
    for `coefficients` and `sample_size`, which are about the model and its training rows: how many of these have the
    rarer diagnosis (events) for so many measurements (predictors).
    """

    accuracy: scores.Score
    precision: scores.Score
    recall: scores.Score
    f1_score: scores.Score
    confusion: scores.Confusion
    specificity: scores.Score
    npv: scores.Score
    balanced_accuracy: scores.Score
    roc_auc: scores.Score
    pr_auc: scores.Score
    brier: scores.Score
    log_loss: scores.Score
    intervals: dict[str, scores.Interval]
    cross_validation: dict[str, scores.Summary]
    calibration: Calibration
    operating_points: list[utility.OperatingPoint]
    decision_curve: utility.DecisionCurve
    roc: utility.Curve
    precision_recall: utility.Curve
    subgroups: list[patients.Subgroup]
    coefficients: list[Coefficient]
    hardest_rows: list[patients.Patient]
    label_suspects: list[patients.Patient]
    sample_size: dict[str, int | float]
    provenance: Provenance
    schema_version: int = METRICS_VERSION

    def collect_numbers(self) -> dict[str, float]:
        """Return the numbers worth following from run to run that are defined, by names in words."""
        headline = {name: profile.title for name, profile in scores.SCORES.items() if profile.is_headline}
        values = {f"{title}, cross-validated": self.cross_validation[name].estimate for name, title in headline.items()}
        values |= {"calibration slope": self.calibration.slope.estimate, "doubtful labels": len(self.label_suspects)}
        return {name: round(value, 4) for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Evaluation:
    """The report, and what people read of it: a picture (PNG) and the model card (Markdown)."""

    report: Report
    figure: bytes
    card: str


def evaluate(
    raw_data: pd.DataFrame, ready_data: preparation.Prepared, model: Pipeline, cross_validation: CrossValidation
) -> Report:
    """Measure `model` on the test rows, and its recipe by cross-validation on all rows, or raise an ArtifactError."""
    require_one_history(raw_data, ready_data, model, cross_validation)
    malignant, probabilities = canonical.read_truths(raw_data), cross_validation.probabilities
    how, (hardest, suspects) = cross_validation.resampling, patients.select_patients(raw_data, probabilities)
    predictors, truths = len(columns.MEASUREMENTS), ready_data.select_truths(preparation.TRAIN)
    events = min(np.bincount(truths).tolist())
    roc, precision_recall = utility.trace_curves(malignant, probabilities)
    return Report(
        **_score_test_rows(raw_data, ready_data, model),
        cross_validation=scores.summarise_scores(malignant, probabilities, how.folds),
        calibration=summarise_calibration(malignant, probabilities, how.folds),
        operating_points=utility.summarise_operating_points(malignant, probabilities, how.folds),
        decision_curve=utility.trace_decision_curve(malignant, probabilities, how.folds),
        roc=roc,
        precision_recall=precision_recall,
        subgroups=patients.summarise_subgroups(raw_data, probabilities),
        coefficients=describe_coefficients(ready_data, model),
        hardest_rows=hardest,
        label_suspects=suspects,
        sample_size={"events": events, "predictors": predictors, "events_per_predictor": events / predictors},
        provenance=Provenance(
            fingerprint=ready_data.fingerprint,
            rows=len(malignant),
            malignant=int(malignant.sum()),
            prevalence=float(malignant.mean()),
            split=ready_data.split,
            resampling=how,
            repeats_reason=explain_repeats(len(malignant), how.repeats),
            settings=training.read_settings(model),
            python=platform.python_version(),
            libraries={library.__name__: library.__version__ for library in (np, pd, scipy, sklearn)},
        ),
    )


def _score_test_rows(raw_data: pd.DataFrame, ready_data: preparation.Prepared, model: Pipeline) -> dict[str, Any]:
    is_test = (ready_data.rows[preparation.SPLIT] == preparation.TEST).to_numpy()
    malignant = canonical.read_truths(raw_data)[is_test]
    probability = model.predict_proba(raw_data.loc[is_test, list(columns.MEASUREMENTS)])[:, 1]
    confusion = scores.Confusion.count(malignant, probability >= scores.THRESHOLD)
    estimates = scores.estimate_scores(malignant, probability)
    values: dict[str, Any] = {name: estimate.value for name, estimate in estimates.items()}
    values |= {**confusion.scores, "confusion": confusion, "intervals": confusion.intervals}
    values |= {name: values[standard] for name, standard in STANDARD_NAMES.items()}
    return {field.name: values[field.name] for field in fields(Report) if field.name in values}


def require_one_history(
    raw_data: pd.DataFrame, ready_data: preparation.Prepared, model: Pipeline, cross_validation: CrossValidation
) -> None:
    """Raise an ArtifactError, which names the stage to run again, where the values do not belong together."""
    fingerprint, settings = canonical.fingerprint(raw_data), training.read_settings(model)
    another = "was made from another raw_data than the one stored now"
    if ready_data.fingerprint != fingerprint:
        raise ArtifactError(f"ready_data {another}", "ready_data")
    if not training.measure_gradient(raw_data, ready_data, model) < training.LARGEST_GRADIENT:
        raise ArtifactError("model was not trained on the ready_data stored now", "model")
    if cross_validation.fingerprint != fingerprint:
        raise ArtifactError(f"cross_validation {another}", "cross_validation")
    if cross_validation.settings != settings:
        problem = f"judged a model with {cross_validation.settings}, the model stored now has {settings}"
        raise ArtifactError(f"cross_validation {problem}", "cross_validation")
