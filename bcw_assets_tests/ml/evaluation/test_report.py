"""The report on the real table, on degenerate ones, and what it refuses to leave unsaid."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from bcw_assets.ml.evaluation import calibration, scores, thresholds, utility
from bcw_assets.ml.evaluation.report import PUBLISHED_SCORES, Evaluation, Report, evaluate
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import canonical, columns


def report_on(raw: pd.DataFrame, repeats: int = 2, C: float = 1.0) -> Report:  # noqa: N803
    """Return the report on a table, with a stratified split and five folds."""
    ready = preparation.prepare(raw, Split(0.2, 42, stratify=True))
    model = training.train(ready, C)
    return evaluate(raw, ready, model, resampling.predict_out_of_fold(raw, model, Resampling(5, repeats, 0)))


@pytest.fixture(scope="session")
def report(made: dict[str, Any]) -> Report:
    found: Report = made["metrics"].report
    return found


def test_the_numbers_of_the_real_table_are_the_known_ones(report: Report) -> None:
    found = {name: one.estimate for name, one in report.cross_validation.items()}
    expected = {"accuracy": 0.979, "sensitivity": 0.964, "ppv": 0.980, "roc_auc": 0.995, "log_loss": 0.074}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.001)
    assert report.cross_validation["sensitivity"].interval == pytest.approx([0.930, 0.982], abs=0.0005)
    assert report.calibration.slope.estimate == pytest.approx(1.16, abs=0.05)
    assert report.select_published() == PUBLISHED_SCORES


def test_the_five_who_are_missed_by_nearly_every_model_are_named(report: Report) -> None:
    malignant = [one for one in report.hardest_rows if one.diagnosis == "M"]
    assert [round(one.probability, 2) for one in malignant[:5]] == [0.0, 0.07, 0.07, 0.12, 0.15]
    assert all(one.misclassified >= 9 and one.probability < 0.5 for one in malignant)
    assert report.label_suspects == report.hardest_rows[:1]


def test_the_curves_end_where_they_must_and_hold_the_area(report: Report) -> None:
    assert report.roc.mean[-1] == 1.0
    assert np.trapezoid(report.roc.mean, report.roc.x) == pytest.approx(
        report.cross_validation["roc_auc"].estimate, abs=0.003
    )
    assert np.mean(report.precision_recall.mean) == pytest.approx(report.cross_validation["pr_auc"].estimate, abs=0.005)
    for curve in (report.roc, report.precision_recall):
        assert all(low <= mean <= high for low, mean, high in zip(curve.lowest, curve.mean, curve.highest, strict=True))


def test_the_sample_size_and_the_provenance(report: Report) -> None:
    assert (report.sample_size.events, report.sample_size.predictors) == (169, 30)
    assert report.sample_size.events_per_predictor == pytest.approx(5.63, abs=0.01)
    assert report.provenance.fingerprint == canonical.UCI_FINGERPRINT
    assert set(report.provenance.libraries) == {"numpy", "pandas", "scipy", "sklearn"}
    assert report.provenance.settings["recipe"] == training.RECIPE


def assert_strict_json(report: Report) -> None:
    json.dumps(asdict(report), allow_nan=False)  # raises at NaN and infinity


@pytest.mark.parametrize(("malignant", "benign", "has_slope"), [(20, 30, True), (10, 10, False)])
def test_few_patients_are_told_what_cannot_be_told(
    raw: pd.DataFrame, malignant: int, benign: int, *, has_slope: bool
) -> None:
    of_each = [raw[raw["diagnosis"] == one].head(count) for one, count in (("M", malignant), ("B", benign))]
    found = report_on(pd.concat(of_each, ignore_index=True))
    assert_strict_json(found)
    slope = found.calibration.slope
    assert (slope.interval is not None, slope.reason is None) == (has_slope, has_slope)
    assert {one.rate.estimate for one in found.subgroups} == {None}
    assert {one.rate.reason for one in found.subgroups} == {"no rate of fewer than 20 patients"}


def separated(raw: pd.DataFrame) -> pd.DataFrame:
    """Return the real table with all measurements of the malignant patients ten times as large."""
    larger = raw[list(columns.MEASUREMENTS)].mul(np.where(raw["diagnosis"] == "M", 10.0, 1.0), axis=0)
    return raw.assign(**larger)


def test_a_perfect_model_has_no_interval_where_nothing_shows_an_uncertainty(raw: pd.DataFrame) -> None:
    found = report_on(separated(raw), C=100.0)
    assert_strict_json(found)
    for name in ("roc_auc", "pr_auc"):
        summary = found.cross_validation[name]
        assert (summary.estimate, summary.interval) == (1.0, None), name
        assert "shows no uncertainty" in (summary.reason or "")
    for name in ("sensitivity", "ppv", "npv", "f1", "balanced_accuracy"):
        low, high = found.cross_validation[name].interval or [0, 0]
        assert (0.97 < low < 0.995, high) == (True, 1.0), name
    assert found.calibration.slope.estimate is None
    assert found.calibration.slope.reason == (
        "not defined in 2 of 2 repeats, where the probabilities divide the diagnoses without an overlap, or are all "
        "the same"
    )
    assert found.hardest_rows == []


DEGENERATE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "perfect": lambda malignant: malignant * 0.8 + 0.1,
    "all alike": lambda malignant: np.full(len(malignant), 0.4),
    "certain": lambda malignant: malignant.astype(float),
    "certainly wrong": lambda malignant: 1.0 - malignant,
    "nobody called": lambda malignant: np.linspace(0.01, 0.09, len(malignant)),
    "everybody called": lambda malignant: np.linspace(0.91, 0.99, len(malignant)),
    "all 0": lambda malignant: np.zeros(len(malignant)),
    "all 1": lambda malignant: np.ones(len(malignant)),
}


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("patients", [20, 569])
def test_what_cannot_be_told_is_none_with_the_reason(kind: str, repeats: int, patients: int) -> None:
    malignant = (np.arange(patients) % 2).astype(int)
    probabilities = np.repeat(DEGENERATE[kind](malignant)[:, None], repeats, axis=1)
    calibrated = calibration.summarise_calibration(malignant, probabilities, 5)
    points = utility.summarise_operating_points(malignant, probabilities, 5)
    curve = utility.trace_decision_curve(malignant, probabilities, 5)
    values = scores.summarise_scores(malignant, probabilities, 5)
    json.dumps([values, asdict(calibrated), list(map(asdict, points)), asdict(curve)], default=asdict, allow_nan=False)
    summaries = [
        *values.values(), calibrated.slope, calibrated.calibration_in_the_large, calibrated.observed_expected_ratio,
        *(getattr(point, name) for point in points for name in ("sensitivity", "specificity", "ppv", "npv")),
        *(point.net_benefit for point in points),
        *(summary for point in points for at in point.at_prevalences for summary in (at.ppv, at.npv)),
    ]  # fmt: skip
    if (kind, repeats) == ("perfect", 1):
        assert values["roc_auc"].reason == f"{scores.ONE_REPEAT}; {scores.NO_UNCERTAINTY}"
    for summary in summaries:
        has_all = None not in (summary.estimate, summary.sd, summary.interval)
        assert has_all == (summary.reason is None), summary


def test_permuted_labels_cannot_be_predicted(raw: pd.DataFrame) -> None:
    permuted = raw.assign(diagnosis=np.random.default_rng(1).permutation(raw["diagnosis"]))
    found = report_on(permuted)
    assert 0.40 <= (found.cross_validation["roc_auc"].estimate or 0) <= 0.60


def test_the_test_rows_alone_are_judged_by_the_stored_model(made: dict[str, Any], report: Report) -> None:
    raw, is_test = made["raw_data"], (made["ready_data"].rows["split"] == "test").to_numpy()
    probability = made["model"].predict_proba(raw.loc[is_test, list(columns.MEASUREMENTS)])[:, 1]
    assert report.roc_auc == pytest.approx(roc_auc_score(canonical.malignant(raw)[is_test], probability), abs=1e-12)
    assert report.confusion.total == is_test.sum() == 114


def test_floors_that_clean_tables_pass_and_two_percent_of_wrong_labels_do_not(raw: pd.DataFrame) -> None:
    def missed(patients: pd.DataFrame) -> tuple[str, ...]:
        return thresholds.check_floors(Evaluation(report_on(patients), b"", "")).problems

    shuffled = raw.sample(frac=1, random_state=0)
    assert missed(shuffled.head(150).reset_index(drop=True)) == ()
    assert missed(shuffled.head(300).reset_index(drop=True)) == ()
    labels = np.array(raw["diagnosis"].tolist(), dtype=object)
    rows = np.random.default_rng(0).choice(len(raw), 11, replace=False)
    labels[rows] = np.where(labels[rows] == "M", "B", "M")
    assert missed(raw.assign(diagnosis=labels)) != ()
