"""Operating points and net benefit, by hand and by second sources."""

from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import confint_proportions_2indep

from bcw_assets.ml.evaluation import utility
from bcw_assets.ml.evaluation.scores import Confusion
from bcw_assets.ml.table import canonical

MALIGNANT = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
PROBABILITY = np.array([0.9, 0.8, 0.2, 0.05, 0.6, 0.3, 0.05, 0.04, 0.03, 0.02])


def test_the_points_by_hand() -> None:
    half, tenth = utility.summarise_operating_points(MALIGNANT, PROBABILITY[:, None], folds=5)
    assert (half.threshold, half.cost_ratio, tenth.threshold, tenth.cost_ratio) == (0.5, 1, 0.1, 9)
    counts = (tenth.true_positives, tenth.false_positives, tenth.false_negatives, tenth.true_negatives)
    assert counts == (3.0, 2.0, 1.0, 4.0)
    rates = [rate.estimate for rate in (tenth.sensitivity, tenth.specificity, tenth.ppv, tenth.npv)]
    assert rates == pytest.approx([3 / 4, 4 / 6, 3 / 5, 4 / 5])
    assert tenth.net_benefit.estimate == pytest.approx((3 - 2 / 9) / 10)
    assert tenth.treat_all == pytest.approx(0.4 - 0.6 / 9)
    at = tenth.at_prevalences[0]
    restated = (at.prevalence, at.ppv.estimate, at.npv.estimate)
    assert restated == pytest.approx((0.1, 0.075 / (0.075 + 0.9 / 3), 0.6 / (0.6 + 0.025)))


@pytest.mark.parametrize("prevalence", utility.PREVALENCES)
def test_their_intervals_are_those_of_the_likelihood_ratio_by_statsmodels(prevalence: float) -> None:
    counts = Confusion(205, 12, 7, 345)
    at, odds = utility.restate([counts, counts], prevalence), prevalence / (1 - prevalence)
    of_ppv = confint_proportions_2indep(205, 212, 12, 357, method="log", compare="ratio")
    of_npv = confint_proportions_2indep(345, 357, 7, 212, method="log", compare="ratio")
    assert at.ppv.interval == pytest.approx([odds * ratio / (1 + odds * ratio) for ratio in of_ppv])
    assert at.npv.interval == pytest.approx([ratio / (odds + ratio) for ratio in of_npv])


@pytest.mark.parametrize(
    ("counts", "ppv", "reason"),
    [
        (Confusion(0, 0, 4, 6), None, "not defined in 2 of 2 repeats, where nobody is called malignant"),
        (Confusion(3, 0, 1, 6), 1.0, utility.NO_RATIO),
    ],
    ids=["nobody called malignant", "no false alarm"],
)
def test_a_ppv_without_an_interval_elsewhere_says_why(counts: Confusion, ppv: float | None, reason: str) -> None:
    at = utility.restate([counts, counts], 0.1)
    assert (at.ppv.estimate, at.ppv.interval, at.ppv.reason) == (ppv, None, reason)
    assert at.npv.estimate is not None


def test_the_decision_curve_is_that_of_counting(made: dict[str, Any]) -> None:
    malignant, probabilities = canonical.read_truths(made["raw_data"]), made["cross_validation"].probabilities
    curve = made["metrics"].report.decision_curve
    for threshold, gain, everybody in zip(curve.thresholds, curve.model, curve.treat_all, strict=True):
        called, odds = probabilities >= threshold, threshold / (1 - threshold)
        gains = (called[malignant == 1].sum(axis=0) - called[malignant == 0].sum(axis=0) * odds) / len(malignant)
        assert gain == pytest.approx(gains.mean(), abs=1e-12)
        assert everybody == pytest.approx(malignant.mean() - (1 - malignant.mean()) * odds, abs=1e-12)


def test_the_band_of_the_decision_curve_is_that_of_a_mean_where_other_folds_change_nothing() -> None:
    curve = utility.trace_decision_curve(MALIGNANT, np.stack([PROBABILITY, PROBABILITY], axis=1), folds=5)
    gains = np.where(PROBABILITY >= 0.5, np.where(MALIGNANT == 1, 1, -1), 0)
    error = gains.std(ddof=1) / np.sqrt(10)
    assert curve.intervals[49] == pytest.approx([gains.mean() - 1.96 * error, gains.mean() + 1.96 * error], abs=1e-4)
    assert curve.intervals[98] is None  # nobody is called malignant from 0.99


def test_an_interval_elsewhere_holds_its_estimate_where_few_are_called_malignant() -> None:
    """The mean over the repeats is far from what the mean counts give."""
    repeats = [Confusion(1, 0, 20, 40), Confusion(0, 8, 21, 32), Confusion(0, 9, 21, 31)]
    ppv = utility.restate(repeats, 0.1).ppv
    assert ppv.interval is not None
    assert ppv.interval[0] < (ppv.estimate or 0) < ppv.interval[1]
