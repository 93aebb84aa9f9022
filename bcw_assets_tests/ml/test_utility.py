"""Operating points and net benefit, by hand and by brute force."""

from typing import Any

import numpy as np
import pytest

from bcw_assets.ml import bootstrap, table, utility

MALIGNANT = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
PROBABILITY = np.array([0.9, 0.8, 0.2, 0.05, 0.6, 0.3, 0.05, 0.04, 0.03, 0.02])
DRAWS = bootstrap.draws(np.zeros(10), 100, 4)


def test_an_operating_point_by_hand() -> None:
    found = {name: value[0] for name, value in utility.measures(MALIGNANT, PROBABILITY, np.ones((10, 1)), 0.1).items()}
    assert found == pytest.approx(
        {
            "sensitivity": 3 / 4, "specificity": 4 / 6, "ppv": 3 / 5, "npv": 4 / 5,
            "ppv at 0.1": 0.075 / (0.075 + 0.9 / 3), "npv at 0.1": 0.6 / (0.6 + 0.025),
            "ppv at 0.37": 0.2775 / (0.2775 + 0.21), "npv at 0.37": 0.42 / (0.42 + 0.0925),
        }
    )  # fmt: skip


def test_the_points_by_hand() -> None:
    half, tenth = utility.operating_points(MALIGNANT, PROBABILITY[:, None], DRAWS, DRAWS)
    assert (half.threshold, half.cost_ratio, tenth.threshold, tenth.cost_ratio) == (0.5, 1, 0.1, 9)
    counts = (tenth.true_positives, tenth.false_positives, tenth.false_negatives, tenth.true_negatives)
    assert counts == (3.0, 2.0, 1.0, 4.0)
    assert tenth.net_benefit.estimate == pytest.approx((3 - 2 / 9) / 10)
    assert tenth.treat_all == pytest.approx(0.4 - 0.6 / 9)
    assert tenth.treat_none == 0


def test_restated_at_the_prevalence_of_these_patients_ppv_and_npv_are_unchanged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(utility, "PREVALENCES", (0.4,))
    found = utility.measures(MALIGNANT, PROBABILITY, np.ones((10, 1)), 0.1)
    assert found["ppv at 0.4"] == pytest.approx(found["ppv"])
    assert found["npv at 0.4"] == pytest.approx(found["npv"])


def test_nobody_called_malignant_leaves_the_ppv_open() -> None:
    found = utility.measures(MALIGNANT, np.full(10, 0.01), np.ones((10, 1)), 0.1)
    assert np.isnan(found["ppv"]).all()
    assert np.isnan(found["ppv at 0.1"]).all()
    assert utility.net_benefit(MALIGNANT, np.full(10, 0.01), np.ones((10, 1)), 0.1)["net_benefit"] == 0


def test_the_decision_curve_is_that_of_counting(made: dict[str, Any]) -> None:
    malignant, probabilities = table.malignant(made["raw_data"]), made["cross_validation"].probabilities()
    curve = made["metrics"].report.decision_curve
    for at, threshold in enumerate(curve.thresholds):
        gains = []
        for probability in probabilities.T:
            called = probability >= threshold
            cost = threshold / (1 - threshold)
            gains.append((called[malignant == 1].sum() - called[malignant == 0].sum() * cost) / len(malignant))
        assert curve.model[at] == pytest.approx(np.mean(gains), abs=1e-12)
        everybody = malignant.mean() - (1 - malignant.mean()) * threshold / (1 - threshold)
        assert curve.treat_all[at] == pytest.approx(everybody, abs=1e-12)


def test_the_operating_points_lie_on_the_decision_curve_with_its_intervals(made: dict[str, Any]) -> None:
    report = made["metrics"].report
    for point in report.operating_points:
        at = report.decision_curve.thresholds.index(point.threshold)
        assert report.decision_curve.model[at] == pytest.approx(point.net_benefit.estimate, abs=1e-12)
        assert report.decision_curve.intervals[at] == pytest.approx(point.net_benefit.interval, abs=1e-12)
        assert report.decision_curve.treat_all[at] == pytest.approx(point.treat_all, abs=1e-12)
        assert point.threshold == 1 / (1 + point.cost_ratio)


def test_the_band_of_the_decision_curve_is_that_of_brute_force() -> None:
    curve = utility.decision_curve(MALIGNANT, PROBABILITY[:, None], DRAWS)
    gains = []
    for weights in DRAWS[0].astype(float).T:
        called = weights[PROBABILITY >= 0.5], MALIGNANT[PROBABILITY >= 0.5]
        gains.append((called[0] @ called[1] - called[0] @ (1 - called[1])) / 10)
    assert curve.intervals[49] == pytest.approx(np.percentile(gains, [2.5, 97.5]), abs=1e-12)
