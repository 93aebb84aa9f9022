"""Scores and intervals against scikit-learn's and statsmodels', brute force, and small cases by hand."""

import numpy as np
import pytest
from sklearn import metrics as scikit_learn
from statsmodels.stats.proportion import proportion_confint

from bcw_assets.ml.evaluation import scores
from bcw_assets.ml.evaluation.scores import Confusion, Summary
from bcw_assets_tests.ml.evaluation.samples import draw_patients


def test_scores_of_counts_are_scikit_learns() -> None:
    malignant, probability = draw_patients(200, digits=1)
    called = (probability >= 0.5).astype(int)
    summaries = scores.summarise_scores(malignant, probability[:, None], folds=10)
    assert {name: summary.estimate for name, summary in list(summaries.items())[:7]} == pytest.approx(
        {
            "accuracy": scikit_learn.accuracy_score(malignant, called),
            "sensitivity": scikit_learn.recall_score(malignant, called),
            "specificity": scikit_learn.recall_score(malignant, called, pos_label=0),
            "ppv": scikit_learn.precision_score(malignant, called),
            "npv": scikit_learn.precision_score(malignant, called, pos_label=0),
            "balanced_accuracy": scikit_learn.balanced_accuracy_score(malignant, called),
            "f1": scikit_learn.f1_score(malignant, called),
        },
        rel=1e-12,
    )


def test_probabilities_of_0_and_1_have_a_finite_loss_even_when_they_are_wrong() -> None:
    estimates = scores.estimate_scores(np.array([1, 0, 1, 0]), np.array([1.0, 0.0, 0.0, 1.0]))
    expected = scikit_learn.log_loss([1, 0, 1, 0], [1.0, 0.0, 0.0, 1.0])
    assert estimates["log_loss"].value == pytest.approx(expected)


def test_a_score_without_anything_to_divide_by_is_none() -> None:
    nobody_called, nobody_ill = Confusion(0, 0, 3, 7).scores, Confusion(0, 0, 0, 10).scores
    assert (nobody_called["ppv"], nobody_called["npv"], nobody_called["f1"]) == (None, 0.7, 0.0)
    undefined = {name for name, value in nobody_ill.items() if value is None}
    assert undefined == {"sensitivity", "ppv", "balanced_accuracy", "f1"}


@pytest.mark.parametrize(("successes", "trials"), [(204.4, 212), (0.3, 17.4), (185.7, 185.7), (0, 5), (41, 43)])
def test_wilsons_interval_of_a_mean_over_repeats_is_statsmodels(successes: float, trials: float) -> None:
    expected = proportion_confint(successes, trials, method="wilson")
    assert scores.compute_wilson(successes, trials) == pytest.approx(expected, abs=1e-12)
    assert scores.compute_wilson(0, 0) is None


def test_the_interval_of_f1_is_wilsons_of_a_proportion_that_it_rises_with() -> None:
    """41 of the 44 who are malignant or called so: F1 is 2 · 41 / (2 · 41 + 3)."""
    low, high = proportion_confint(41, 44, method="wilson")
    assert Confusion(41, 1, 2, 70).intervals["f1"] == pytest.approx([2 * low / (1 + low), 2 * high / (1 + high)])


def test_the_interval_of_balanced_accuracy_is_that_of_a_worked_difference() -> None:
    """9 of 10 and 3 of 10: the MOVER limits of their difference are 0.1705 to 0.8090 (R. G. Newcombe, Stat. Med. 17
    (1998) 873-890, table II, method 10). Half a sum is half a difference where the second is turned round.
    """
    low, high = Confusion(9, 3, 1, 7).intervals["balanced_accuracy"] or [0, 0]
    assert [2 * low - 1, 2 * high - 1] == pytest.approx([0.1705, 0.8090], abs=5e-5)


def test_what_is_not_defined_in_a_repeat_is_none_with_the_reason() -> None:
    summary = scores.summarise("ppv", [0.9, None], [0.8, 0.95])
    assert summary == Summary(None, None, None, "not defined in 1 of 2 repeats, where nobody is called malignant")


def test_one_repeat_has_no_sd_and_an_interval_that_says_what_it_lacks() -> None:
    malignant, probability = draw_patients(60)
    summaries = scores.summarise_scores(malignant, probability[:, None], folds=10)
    accuracy, roc_auc = summaries["accuracy"], summaries["roc_auc"]
    assert (accuracy.sd, accuracy.reason) == (None, "no sd of one repeat")
    assert accuracy.interval == scores.compute_wilson((accuracy.estimate or 0) * 60, 60)
    assert (roc_auc.sd, roc_auc.interval is None) == (None, False)
    assert roc_auc.reason == f"{scores.ONE_REPEAT}; {scores.LACKS_TRAINING}"


def test_the_interval_of_a_mean_over_repeats_takes_the_mean_counts() -> None:
    malignant, probability = draw_patients(60)
    repeats = np.stack([probability, probability.round(1)], axis=1)
    summaries = scores.summarise_scores(malignant, repeats, folds=10)
    called = repeats >= 0.5
    right = (called == (malignant == 1)[:, None]).mean(axis=1).sum()
    assert summaries["accuracy"].interval == pytest.approx(proportion_confint(right, 60, method="wilson"))
    hits, calls = called[malignant == 1].mean(axis=1).sum(), called.mean(axis=1).sum()
    assert summaries["ppv"].interval == pytest.approx(proportion_confint(hits, calls, method="wilson"))
