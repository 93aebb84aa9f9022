"""Calibration against statsmodels, by hand, and where it cannot be told."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as statsmodels
from scipy.optimize import brentq
from scipy.special import expit, logit

from bcw_assets.ml.evaluation import calibration, scores
from bcw_assets.ml.table import canonical


def test_slope_and_calibration_in_the_large_are_statsmodels_in_every_repeat(made: dict[str, Any]) -> None:
    malignant = canonical.read_truths(made["raw_data"])
    slopes, intercepts, family = [], [], statsmodels.families.Binomial()
    for odds in logit(made["cross_validation"].probabilities.clip(1e-15, 1 - 1e-15)).T:
        slopes.append(statsmodels.GLM(malignant, statsmodels.add_constant(odds), family).fit(tol=1e-12).params[1])
        intercepts += [*statsmodels.GLM(malignant, np.ones(len(odds)), family, offset=odds).fit(tol=1e-12).params]
    summary = made["metrics"].report.calibration
    assert summary.slope.estimate == pytest.approx(np.mean(slopes), abs=1e-6)
    assert summary.slope.sd == pytest.approx(np.std(slopes, ddof=1), abs=1e-6)
    assert summary.calibration_in_the_large.estimate == pytest.approx(np.mean(intercepts), abs=1e-6)


@pytest.mark.parametrize(
    "probability",
    [np.linspace(0, 1, 50), np.linspace(1, 0, 50), np.full(50, 0.37), np.full(50, 0.5), np.zeros(50)],
    ids=["perfect", "perfectly wrong", "all the same", "all a half", "all 0"],
)
def test_there_is_no_slope_without_an_overlap_or_a_difference(probability: np.ndarray) -> None:
    malignant = np.array([0] * 25 + [1] * 25)
    slope = calibration.summarise_calibration(malignant, np.stack([probability, probability], axis=1), 10).slope
    assert (slope.estimate, slope.interval) == (None, None)
    assert (slope.reason or "").startswith("not defined in 2 of 2 repeats, where the probabilities divide")


@pytest.mark.parametrize("scale", [1, 3, 10])
def test_probabilities_that_are_far_too_extreme_have_a_slope(scale: int) -> None:
    """From 1, where the likelihood is flat, Newton's steps would leap away from it."""
    random = np.random.default_rng(3)
    malignant, odds = np.array([0, 1] * 30), scale * random.normal(0, 4, 60)
    design = statsmodels.add_constant(odds)
    expected = statsmodels.GLM(malignant, design, statsmodels.families.Binomial()).fit(tol=1e-12).params[1]
    assert calibration.fit_logistic(design[:, ::-1], malignant, np.zeros(60)).value == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("odds", "malignant"),  # nobody is near 0, where Newton begins
    [
        ([-36] * 10 + [-20] * 5 + [30] * 5, [0] * 9 + [1] + [1] * 4 + [0] + [1] * 4 + [0]),
        ([35, 18, 34], [0, 1, 0]),
    ],
)
def test_a_shift_far_away_behind_flat_ground_is_reached(odds: list[int], malignant: list[int]) -> None:
    expected = brentq(lambda shift: (malignant - expit(np.add(odds, shift))).sum(), -100, 100, xtol=1e-12)
    shift = calibration.fit_logistic(np.ones((len(odds), 1)), np.array(malignant), np.array(odds))
    assert shift.value == pytest.approx(expected, abs=1e-6)


def test_the_reliability_curve_by_hand() -> None:
    probabilities = np.array([[0.0, 0.05], [0.1, 0.12], [1.0, 0.95]])
    bins = calibration.bin_probabilities(np.array([0, 1, 1]), probabilities)
    assert len(bins) == 10
    first, second, *_, last = bins
    assert (first.patients, first.predicted, first.observed) == (1.0, 0.025, 0.0)
    assert first.interval == scores.compute_wilson(0, 1)
    assert (second.patients, second.observed) == (1.0, 1.0)
    assert second.predicted == pytest.approx(0.11)
    assert (last.patients, last.predicted, last.observed) == (1.0, 0.975, 1.0)
    assert (bins[4].predicted, bins[4].observed, bins[4].interval) == (None, None, None)
    assert bins[4].reason == "no patient has such a probability"
