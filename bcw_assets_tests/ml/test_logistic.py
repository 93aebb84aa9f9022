"""Many weighted fits at once against scikit-learn's and statsmodels', one by one."""

import numpy as np
import pytest
import statsmodels.api as statsmodels
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from bcw_assets.ml.logistic import fit_each, shift_each


def data(rows: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a design with an intercept and two columns, outcomes, and weights of five fits."""
    random = np.random.default_rng(seed)
    design = np.column_stack([np.ones(rows), random.normal(size=(rows, 2))])
    outcome = (random.random(rows) < 1 / (1 + np.exp(-design @ [0.3, 1.5, -1.0]))).astype(int)
    return design, outcome, random.poisson(1.0, (rows, 5)).astype(float)


def test_each_fit_is_statsmodels() -> None:
    design, outcome, weights = data()
    found = fit_each(design, outcome, weights, np.zeros(3))
    for fitted, weight in zip(found, weights.T, strict=True):
        model = statsmodels.GLM(outcome, design, family=statsmodels.families.Binomial(), freq_weights=weight)
        np.testing.assert_allclose(fitted, model.fit(tol=1e-12).params, atol=1e-9)


def test_each_shift_is_statsmodels_intercept_with_an_offset() -> None:
    design, outcome, weights = data()
    odds = 1.3 * design[:, 1]
    found = shift_each(odds, outcome, weights)
    for shift, weight in zip(found, weights.T, strict=True):
        family = statsmodels.families.Binomial()
        model = statsmodels.GLM(outcome, design[:, :1], family=family, freq_weights=weight, offset=odds)
        assert shift == pytest.approx(model.fit(tol=1e-12).params[0], abs=1e-9)


def test_each_fit_with_a_penalty_is_scikit_learns() -> None:
    design, outcome, weights = data()
    found = fit_each(design, outcome, weights, np.array([0.1, 1.0, -1.0]), penalty=np.array([0.0, 0.5, 0.5]))
    for fitted, weight in zip(found, weights.T, strict=True):
        model = LogisticRegression(C=2.0, solver="newton-cholesky", tol=1e-10)
        model.fit(design[:, 1:], outcome, sample_weight=weight)
        np.testing.assert_allclose(fitted, [*model.intercept_, *model.coef_[0]], atol=1e-8)


def test_too_steep_a_start_makes_no_difference() -> None:
    design, outcome, weights = data()
    steep = fit_each(design, outcome, weights, np.array([50.0, -80.0, 80.0]))
    np.testing.assert_allclose(steep, fit_each(design, outcome, weights, np.zeros(3)), atol=1e-9)


def test_separated_outcomes_have_no_optimum_and_leave_the_other_fits_alone() -> None:
    design = np.column_stack([np.ones(6), [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]])
    outcome = np.array([0, 0, 1, 0, 1, 1])
    separated, mixed = np.array([1.0, 1, 0, 0, 1, 1]), np.ones(6)
    found = fit_each(design, outcome, np.stack([separated, mixed], axis=1), np.zeros(2))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("outcome", [np.zeros(4, dtype=int), np.ones(4, dtype=int)])
def test_one_outcome_only_has_no_optimum(outcome: np.ndarray) -> None:
    design = np.column_stack([np.ones(4), [1.0, 2.0, 3.0, 4.0]])
    assert np.isnan(fit_each(design, outcome, np.ones((4, 1)), np.zeros(2))).all()


def test_a_shift_far_away_behind_flat_ground_is_reached() -> None:
    odds = np.array([-36.0] * 10 + [-20.0] * 5 + [30.0] * 5)  # nobody is near 0, where Newton begins
    outcome = np.array([0] * 9 + [1] + [1] * 4 + [0] + [1] * 4 + [0])
    expected = brentq(lambda a: (outcome - expit(odds + a)).sum(), -100, 100, xtol=1e-12)
    assert shift_each(odds, outcome, np.ones((20, 1))) == pytest.approx([expected], abs=1e-6)


@pytest.mark.parametrize("outcome", [np.zeros(4, dtype=int), np.ones(4, dtype=int)])
def test_no_shift_makes_one_outcome_only(outcome: np.ndarray) -> None:
    assert np.isnan(shift_each(np.array([1.0, 2.0, 3.0, 4.0]), outcome, np.ones((4, 1)))).all()
