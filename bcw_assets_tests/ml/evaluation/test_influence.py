"""What each patient contributes to a score, against derivatives and second sources."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import statsmodels.api as statsmodels
from scipy.optimize import brentq
from scipy.special import expit, logit
from sklearn import metrics as scikit_learn

from bcw_assets.ml.evaluation import calibration, influence, scores, utility
from bcw_assets.ml.evaluation.influence import Estimate
from bcw_assets_tests.ml.evaluation.samples import draw_patients

Score = Callable[[np.ndarray, np.ndarray, np.ndarray], float]  # of truths, probabilities and weights


def fit_by_statsmodels(malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> float:
    design = statsmodels.add_constant(logit(probability.clip(1e-15, 1 - 1e-15)))
    model = statsmodels.GLM(malignant, design, statsmodels.families.Binomial(), freq_weights=weights)
    return float(model.fit(tol=1e-14).params[1])


def find_shift(malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> float:
    """Return the shift of the log odds that makes observed and expected patients equal."""
    odds = logit(probability.clip(1e-15, 1 - 1e-15))
    return float(brentq(lambda shift: weights @ (malignant - expit(odds + shift)), -10, 10, xtol=1e-13))


def count_net_benefit(malignant: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> float:
    called = weights * (probability >= 0.3)
    return float((called @ malignant - called @ (1 - malignant) * 3 / 7) / weights.sum())


WEIGHTED: dict[str, Score] = {
    "roc_auc": lambda y, p, w: scikit_learn.roc_auc_score(y, p, sample_weight=w),
    "pr_auc": lambda y, p, w: scikit_learn.average_precision_score(y, p, sample_weight=w),
    "brier": lambda y, p, w: scikit_learn.brier_score_loss(y, p, sample_weight=w),
    "log_loss": lambda y, p, w: scikit_learn.log_loss(y, p, sample_weight=w),
    "slope": fit_by_statsmodels,
    "calibration_in_the_large": find_shift,
    "observed_expected_ratio": lambda y, p, w: float(w @ y / (w @ p)),
    "net_benefit": count_net_benefit,
}
"""Score → the same with patients who count more or less, by a second source."""


def estimate_all(malignant: np.ndarray, probability: np.ndarray) -> dict[str, Estimate]:
    (benefit,) = utility.estimate_net_benefits(malignant, probability[:, None], 0.3)
    return {
        **scores.estimate_scores(malignant, probability),
        **calibration.estimate_calibration(malignant, probability),
        "net_benefit": benefit,
    }


@pytest.mark.parametrize("digits", [None, 1], ids=["distinct", "tied"])
def test_every_score_and_its_influence_are_a_weighted_score_and_its_derivative(digits: int | None) -> None:
    malignant, probability = draw_patients(60, digits=digits)
    estimates = estimate_all(malignant, probability)
    assert set(estimates) == set(WEIGHTED)
    step = 1e-4
    for name, weigh in WEIGHTED.items():
        assert estimates[name].value == pytest.approx(weigh(malignant, probability, np.ones(60)), abs=1e-9), name
        assert estimates[name].influence.sum() == pytest.approx(0, abs=1e-6), name
        for patient in range(0, 60, 7):
            more, less = np.ones(60), np.ones(60)
            more[patient], less[patient] = 1 + step, 1 - step
            derivative = (weigh(malignant, probability, more) - weigh(malignant, probability, less)) / (2 * step)
            assert estimates[name].influence[patient] / 60 == pytest.approx(derivative, abs=1e-6), (name, patient)


def test_the_error_of_a_mean_over_repeats_by_hand() -> None:
    """Two repeats of three patients: the influences are averaged, and the values differ by 0.2."""
    repeats = [Estimate(0.4, np.array([0.3, -0.3, 0.0])), Estimate(0.6, np.array([0.1, 0.1, -0.2]))]
    own, spread = (0.2**2 + 0.1**2 + 0.1**2) / (3 * 2), 0.02
    assert influence.estimate_error(repeats, folds=5) == pytest.approx(math.sqrt(own + (5 - 1 + 1 / 2) * spread))
    alone = influence.estimate_error(repeats[:1], folds=5)
    assert alone == pytest.approx(math.sqrt((0.3**2 + 0.3**2) / (3 * 2)))


def test_an_interval_is_symmetric_on_its_scale_and_absent_without_an_uncertainty() -> None:
    for scale, expected in (
        (influence.IDENTITY, [0.5 - 0.196, 0.5 + 0.196]),
        (influence.LOG, [0.5 * math.exp(-0.392), 0.5 * math.exp(0.392)]),
        (influence.LOGIT, [1 / (1 + math.exp(0.784)), 1 / (1 + math.exp(-0.784))]),
    ):
        of_error_one_tenth = Estimate(0.5, np.array([0.1, -0.1]), scale)
        assert influence.estimate_interval([of_error_one_tenth], folds=10) == pytest.approx(expected, abs=1e-5)
        assert influence.estimate_interval([Estimate(1.0, np.full(5, 1e-13), scale)], folds=10) is None
