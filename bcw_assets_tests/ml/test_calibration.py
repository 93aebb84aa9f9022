"""Calibration against statsmodels, by hand, and where it cannot be told."""

from typing import Any

import numpy as np
import pytest
import statsmodels.api as statsmodels

from bcw_assets.ml import bootstrap, calibration, performance, table


def test_slope_and_calibration_in_the_large_are_statsmodels_in_every_repeat(made: dict[str, Any]) -> None:
    malignant = table.malignant(made["raw_data"])
    slopes, intercepts = [], []
    for probability in made["cross_validation"].probabilities().T:
        odds = np.log(np.clip(probability, 1e-15, 1 - 1e-15) / (1 - np.clip(probability, 1e-15, 1 - 1e-15)))
        family = statsmodels.families.Binomial()
        slopes.append(statsmodels.GLM(malignant, statsmodels.add_constant(odds), family).fit(tol=1e-12).params[1])
        alone = statsmodels.GLM(malignant, np.ones((len(odds), 1)), family, offset=odds).fit(tol=1e-12)
        intercepts.append(alone.params[0])
    found = made["metrics"].report.calibration
    assert found.slope.estimate == pytest.approx(np.mean(slopes), abs=1e-6)
    assert found.slope.sd == pytest.approx(np.std(slopes, ddof=1), abs=1e-6)
    assert found.calibration_in_the_large.estimate == pytest.approx(np.mean(intercepts), abs=1e-6)


def test_the_interval_of_the_slope_is_that_of_statsmodels_on_the_same_resamples(
    made: dict[str, Any],
) -> None:
    malignant = table.malignant(made["raw_data"])
    probability = made["cross_validation"].probabilities()[:, 0]
    draws = bootstrap.draws(np.zeros_like(malignant), 40, 0)
    found = performance.summarise(malignant, probability[:, None], draws, calibration.measures, {})
    design = statsmodels.add_constant(calibration.logit(probability))
    slopes = [
        statsmodels.GLM(malignant, design, statsmodels.families.Binomial(), freq_weights=weight)
        .fit(tol=1e-12)
        .params[1]
        for weight in draws[0].T
    ]
    assert found["slope"].interval == pytest.approx(np.percentile(slopes, [2.5, 97.5]), abs=1e-6)


def test_the_ratio_by_hand() -> None:
    found = calibration.measures(
        np.array([1, 0, 1, 0]), np.array([0.5, 0.25, 0.75, 0.5]), np.array([[1.0], [1], [2], [1]])
    )
    assert found["observed_expected_ratio"] == pytest.approx([3 / 2.75])


def test_probabilities_twice_as_extreme_as_right_have_a_slope_of_a_half() -> None:
    random = np.random.default_rng(0)
    odds = random.normal(0, 2, 40_000)
    malignant = (random.random(40_000) < 1 / (1 + np.exp(-odds))).astype(int)
    everybody = np.ones((40_000, 1))
    found = calibration.measures(malignant, 1 / (1 + np.exp(-2 * odds)), everybody)
    assert found["slope"][0] == pytest.approx(0.5, abs=0.02)
    right = calibration.measures(malignant, 1 / (1 + np.exp(-odds)), everybody)
    assert right["slope"][0] == pytest.approx(1.0, abs=0.03)
    assert right["calibration_in_the_large"][0] == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(
    "probability",
    [np.linspace(0, 1, 50), np.linspace(1, 0, 50), np.full(50, 0.37), np.full(50, 0.5), np.zeros(50)],
    ids=["perfect", "perfectly wrong", "all the same", "all a half", "all 0"],
)
def test_there_is_no_slope_without_an_overlap_or_a_difference(probability: np.ndarray) -> None:
    malignant = np.array([0] * 25 + [1] * 25)
    assert np.isnan(calibration.measures(malignant, probability, np.ones((50, 1)))["slope"]).all()


def test_the_ratio_of_useless_probabilities_is_as_uncertain_as_the_number_of_malignant_patients() -> None:
    malignant = np.array([1] * 212 + [0] * 357)
    found = calibration.calibrate(malignant, np.full((569, 2), 212 / 569), bootstrap.draws(np.zeros(569), 2000, 0))
    error = 1.96 * np.sqrt(357 / 569 / 212)
    assert found.observed_expected_ratio.interval == pytest.approx([1 - error, 1 + error], abs=0.01)
    assert (found.calibration_in_the_large.interval or [0, 0])[1] == pytest.approx(
        1.96 / np.sqrt(212 * 357 / 569), abs=0.02
    )


def test_the_reliability_curve_by_hand() -> None:
    probabilities = np.array([[0.0, 0.05], [0.1, 0.12], [1.0, 0.95]])
    bins = calibration.reliability(np.array([0, 1, 1]), probabilities)
    assert len(bins) == 10
    first, second, *_, last = bins
    assert (first.patients, first.predicted, first.observed) == (1.0, 0.025, 0.0)
    assert first.interval == performance.wilson(0, 1)
    assert (second.patients, second.observed) == (1.0, 1.0)
    assert second.predicted == pytest.approx(0.11)
    assert (last.patients, last.predicted, last.observed) == (1.0, 0.975, 1.0)
    assert (bins[4].predicted, bins[4].observed, bins[4].interval) == (None, None, None)
    assert bins[4].reason == "no patient has such a probability"
