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
from bcw_assets.ml.evaluation.report import PUBLISHED_SCORES, Evaluation, Report
from bcw_assets.ml.model import training
from bcw_assets.ml.table import canonical, columns
from bcw_assets_tests.ml.evaluation.samples import report_on
from bcw_assets_tests.releases.candidates import flipped


@pytest.fixture(scope="session")
def report(made: dict[str, Any]) -> Report:
    report: Report = made["metrics"].report
    return report


def test_the_numbers_of_the_real_table_are_the_known_ones(report: Report) -> None:
    estimates = {name: summary.estimate for name, summary in report.cross_validation.items()}
    expected = {"accuracy": 0.979, "sensitivity": 0.964, "ppv": 0.980, "roc_auc": 0.995, "log_loss": 0.074}
    assert {name: estimates[name] for name in expected} == pytest.approx(expected, abs=0.001)
    assert report.cross_validation["sensitivity"].interval == pytest.approx([0.930, 0.982], abs=0.0005)
    assert report.calibration.slope.estimate == pytest.approx(1.16, abs=0.05)
    assert {name: getattr(report, name) for name in PUBLISHED_SCORES} == PUBLISHED_SCORES
    malignant = [patient for patient in report.hardest_rows if patient.diagnosis == "M"]
    assert [round(patient.probability, 2) for patient in malignant[:5]] == [0.0, 0.07, 0.07, 0.12, 0.15]
    assert report.label_suspects == report.hardest_rows[:1]
    assert (report.sample_size["events"], report.sample_size["predictors"]) == (169, 30)
    assert report.provenance.fingerprint == canonical.UCI_FINGERPRINT
    assert set(report.provenance.libraries) == {"numpy", "pandas", "scipy", "sklearn"}
    assert report.provenance.settings["recipe"] == training.RECIPE


def test_the_curves_end_where_they_must_and_hold_the_area(report: Report) -> None:
    roc, precision, areas = report.roc, report.precision_recall, report.cross_validation
    assert roc.mean[-1] == 1.0
    assert np.trapezoid(roc.mean, roc.x) == pytest.approx(areas["roc_auc"].estimate, abs=0.003)
    assert np.mean(precision.mean) == pytest.approx(areas["pr_auc"].estimate, abs=0.005)
    for curve in (roc, precision):
        assert all(low <= mean <= high for low, mean, high in zip(curve.lowest, curve.mean, curve.highest, strict=True))


@pytest.mark.parametrize(("malignant", "benign", "has_slope"), [(20, 30, True), (10, 10, False)])
def test_of_few_patients_it_says_what_they_cannot_show(
    raw: pd.DataFrame, malignant: int, benign: int, *, has_slope: bool
) -> None:
    of_each = [raw[raw["diagnosis"] == label].head(count) for label, count in (("M", malignant), ("B", benign))]
    report = report_on(pd.concat(of_each, ignore_index=True))
    slope, roc_auc = report.calibration.slope, report.cross_validation["roc_auc"]
    for summary in (slope, roc_auc):  # the smaller table is told apart without an error
        assert (summary.interval is not None, summary.reason is None) == (has_slope, has_slope)
    rates = {(group.rate.estimate, group.rate.reason) for group in report.subgroups}
    assert rates == {(None, "no rate of fewer than 20 patients")}


DEGENERATE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "perfect": lambda malignant: malignant * 0.8 + 0.1,
    "all alike": lambda malignant: np.full(len(malignant), 0.4),
    "certainly wrong": lambda malignant: 1.0 - malignant,
    "nobody called": lambda malignant: np.linspace(0.01, 0.09, len(malignant)),
    "everybody called": lambda malignant: np.linspace(0.91, 0.99, len(malignant)),
    "all 0": lambda malignant: np.zeros(len(malignant)),
}


@pytest.mark.parametrize("repeats", [1, 2])
@pytest.mark.parametrize("kind", DEGENERATE)
def test_what_cannot_be_known_is_none_with_the_reason(kind: str, repeats: int) -> None:
    malignant = (np.arange(20) % 2).astype(int)
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
    report = report_on(raw.assign(diagnosis=np.random.default_rng(1).permutation(raw["diagnosis"])))
    assert 0.40 <= (report.cross_validation["roc_auc"].estimate or 0) <= 0.60


def test_the_test_rows_alone_are_judged_by_the_stored_model(made: dict[str, Any], report: Report) -> None:
    raw, is_test = made["raw_data"], (made["ready_data"].rows["split"] == "test").to_numpy()
    probability = made["model"].predict_proba(raw.loc[is_test, list(columns.MEASUREMENTS)])[:, 1]
    assert report.roc_auc == pytest.approx(roc_auc_score(canonical.read_truths(raw)[is_test], probability), abs=1e-12)
    assert report.confusion.total == is_test.sum() == 114


def test_floors_that_clean_tables_pass_and_two_percent_of_wrong_labels_do_not(raw: pd.DataFrame) -> None:
    shuffled = raw.sample(frac=1, random_state=0)
    for table, is_clean in ((shuffled.head(150), True), (shuffled.head(300), True), (flipped(raw, 11), False)):
        metrics = Evaluation(report_on(table.reset_index(drop=True)), b"", "")
        assert (thresholds.check_floors(metrics).problems == ()) == is_clean
