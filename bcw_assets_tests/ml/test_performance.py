"""Scores and intervals against scikit-learn's and statsmodels', brute force, and small cases by hand."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as scikit_learn
from statsmodels.stats.proportion import proportion_confint

from bcw_assets.ml import bootstrap, performance
from bcw_assets.ml.performance import Confusion, Summary


def some(patients: int, seed: int = 1, digits: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return diagnoses and probabilities that have something to do with them; rounded, many are equal."""
    random = np.random.default_rng(seed)
    malignant = random.integers(0, 2, patients)
    probability = np.clip(malignant * 0.3 + random.random(patients) * 0.7, 0, 1)
    return malignant, probability if digits is None else probability.round(digits)


@pytest.mark.parametrize("digits", [None, 1])
def test_scores_are_scikit_learns_under_every_weight(digits: int | None) -> None:
    malignant, probability = some(200, digits=digits)
    weights = np.random.default_rng(2).poisson(1.0, (200, 4)).astype(float)
    found = performance.score(malignant, probability, weights)
    assert tuple(found) == performance.SCORES
    called = (probability >= 0.5).astype(int)
    for column, weight in enumerate(weights.T):
        assert {name: value[column] for name, value in found.items()} == pytest.approx(
            {
                "accuracy": scikit_learn.accuracy_score(malignant, called, sample_weight=weight),
                "sensitivity": scikit_learn.recall_score(malignant, called, sample_weight=weight),
                "specificity": scikit_learn.recall_score(malignant, called, pos_label=0, sample_weight=weight),
                "ppv": scikit_learn.precision_score(malignant, called, sample_weight=weight),
                "npv": scikit_learn.precision_score(malignant, called, pos_label=0, sample_weight=weight),
                "balanced_accuracy": scikit_learn.balanced_accuracy_score(malignant, called, sample_weight=weight),
                "f1": scikit_learn.f1_score(malignant, called, sample_weight=weight),
                "roc_auc": scikit_learn.roc_auc_score(malignant, probability, sample_weight=weight),
                "pr_auc": scikit_learn.average_precision_score(malignant, probability, sample_weight=weight),
                "brier": scikit_learn.brier_score_loss(malignant, probability, sample_weight=weight),
                "log_loss": scikit_learn.log_loss(malignant, probability, sample_weight=weight),
            },
            rel=1e-12,
        )


def test_scores_by_hand() -> None:
    found = performance.score(np.array([1, 1, 0, 0]), np.array([0.8, 0.4, 0.5, 0.1]), np.ones((4, 1)))
    assert {name: value[0] for name, value in found.items()} == pytest.approx(
        {
            "accuracy": 0.5, "balanced_accuracy": 0.5, "sensitivity": 0.5, "specificity": 0.5, "ppv": 0.5, "npv": 0.5,
            "f1": 0.5, "roc_auc": 0.75, "pr_auc": (1 + 2 / 3) / 2, "brier": (0.04 + 0.36 + 0.25 + 0.01) / 4,
            "log_loss": -math.log(0.8 * 0.4 * 0.5 * 0.9) / 4,
        }
    )  # fmt: skip


def test_probabilities_of_0_and_1_have_a_finite_loss_even_when_they_are_wrong() -> None:
    found = performance.score(np.array([1, 0, 1, 0]), np.array([1.0, 0.0, 0.0, 1.0]), np.ones((4, 1)))
    assert found["log_loss"][0] == pytest.approx(scikit_learn.log_loss([1, 0, 1, 0], [1.0, 0.0, 0.0, 1.0]))


def test_counts_by_hand() -> None:
    found = Confusion.count(np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0]))
    assert found == Confusion(true_positives=2, false_positives=1, false_negatives=1, true_negatives=1)
    assert found.total == 5


def test_a_score_without_anything_to_divide_by_is_none() -> None:
    nobody_called = Confusion(0, 0, 3, 7).scores()
    assert (nobody_called["ppv"], nobody_called["npv"], nobody_called["f1"]) == (None, 0.7, 0.0)
    nobody_ill = Confusion(0, 0, 0, 10).scores()
    assert {name for name, value in nobody_ill.items() if value is None} == {
        "sensitivity", "ppv", "balanced_accuracy", "f1",
    }  # fmt: skip


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (41, 43), (1, 1000), (81, 263)])
def test_wilsons_interval_is_scipys(successes: int, trials: int) -> None:
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert performance.wilson(successes, trials) == pytest.approx([expected.low, expected.high], abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(204.4, 212), (0.3, 17.4), (185.7, 185.7)])
def test_wilsons_interval_of_a_mean_over_repeats_is_statsmodels(successes: float, trials: float) -> None:
    expected = proportion_confint(successes, trials, method="wilson")
    assert performance.wilson(successes, trials) == pytest.approx(expected, abs=1e-12)


def test_wilsons_interval_of_a_worked_example() -> None:
    """81 of 263: R. G. Newcombe, Stat. Med. 17 (1998) 857-872, table I, method 3."""
    assert performance.wilson(81, 263) == pytest.approx([0.2553, 0.3662], abs=5e-5)


def test_without_trials_there_is_no_interval() -> None:
    assert performance.wilson(0, 0) is None


def test_a_bootstrap_draws_as_many_of_each_diagnosis_as_there_are() -> None:
    malignant = np.array([1, 0, 0, 1, 0])
    chunks = bootstrap.draws(malignant, 450, seed=3)
    assert [chunk.shape for chunk in chunks] == [(5, 334), (5, 116)]
    weights = np.concatenate(chunks, axis=1)
    assert set(weights[malignant == 1].sum(axis=0)) == {2}
    assert set(weights[malignant == 0].sum(axis=0)) == {3}
    assert weights.mean(axis=1) == pytest.approx(np.ones(5), abs=0.15)
    again = np.concatenate(bootstrap.draws(malignant, 450, seed=3), axis=1)
    np.testing.assert_array_equal(again, weights)


def test_a_bootstrap_without_strata_lets_the_share_of_malignant_vary() -> None:
    weights = bootstrap.draws(np.zeros(5), 200, seed=3)[0]
    assert set(weights.sum(axis=0)) == {5}
    assert len(set(weights[:2].sum(axis=0))) > 3


@pytest.mark.parametrize("within_diagnosis", [True, False])
def test_an_interval_is_that_of_brute_force_on_the_same_resamples(
    within_diagnosis: bool,
) -> None:
    malignant, _ = some(60)
    repeats = np.stack([some(60, seed=1)[1], some(60, seed=1, digits=1)[1]], axis=1)
    draws = bootstrap.draws(malignant if within_diagnosis else np.zeros(60), 250, 5)
    found = performance.summarise(malignant, repeats, draws, performance.score, {})
    aucs = []
    for weights in np.concatenate(draws, axis=1).T:
        rows = np.repeat(np.arange(60), weights)
        aucs.append(np.mean([scikit_learn.roc_auc_score(malignant[rows], repeats[rows, one]) for one in (0, 1)]))
    once = [scikit_learn.roc_auc_score(malignant, repeats[:, one]) for one in (0, 1)]
    assert found["roc_auc"].estimate == pytest.approx(np.mean(once), abs=1e-12)
    assert found["roc_auc"].sd == pytest.approx(np.std(once, ddof=1), abs=1e-12)
    assert found["roc_auc"].interval == pytest.approx(np.percentile(aucs, [2.5, 97.5]), abs=1e-12)
    for name, patients in (
        ("accuracy", malignant >= 0),
        ("sensitivity", malignant == 1),
        ("specificity", malignant == 0),
    ):
        right = np.mean([((repeats[:, one] >= 0.5) == malignant)[patients].sum() for one in (0, 1)])
        expected = proportion_confint(right, patients.sum(), method="wilson")
        assert found[name].interval == pytest.approx(expected, abs=1e-12)


def test_what_is_not_defined_in_a_repeat_is_none_with_the_reason() -> None:
    found = performance._bootstrapped(np.array([0.9, math.nan]), np.array([0.8, 0.9]), "nobody is called")
    assert found == Summary(None, None, None, "not defined in 1 of 2 repeats, where nobody is called")


def test_an_interval_does_without_few_resamples_and_is_given_up_without_many() -> None:
    values, resampled = np.array([0.5, 0.7]), np.linspace(0, 1, 1000)
    resampled[:10] = math.nan
    kept = performance._bootstrapped(values, resampled, "nobody is called")
    assert kept.interval == pytest.approx(np.nanpercentile(resampled, [2.5, 97.5]))
    assert kept.reason == "not defined in 10 of 1000 resamples, where nobody is called"
    resampled[10] = math.nan
    given_up = performance._bootstrapped(values, resampled, "nobody is called")
    assert (given_up.estimate, given_up.interval) == (0.6, None)
    assert given_up.reason == "no interval: not defined in 11 of 1000 resamples, where nobody is called"


def test_resamples_that_all_say_the_same_give_no_interval() -> None:
    found = performance._bootstrapped(np.array([1.0, 1.0]), np.ones(1000), "")
    assert (found.estimate, found.sd, found.interval) == (1.0, 0.0, None)
    assert "the same in every resample" in (found.reason or "")


def test_one_repeat_has_no_sd() -> None:
    found = performance.proportion(np.array([0.9]), 50)
    assert (found.estimate, found.sd, found.reason) == (0.9, None, "no sd of one repeat")
    assert found.interval == performance.wilson(45, 50)
