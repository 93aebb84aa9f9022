"""Scores and intervals against scikit-learn's, a worked example, and small cases by hand."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as scikit_learn

from bcw_assets.ml import performance
from bcw_assets.ml.performance import Confusion


def test_scores_are_scikit_learns() -> None:
    random = np.random.default_rng(1)
    malignant = random.integers(0, 2, 200)
    probability = np.clip(malignant * 0.3 + random.random(200) * 0.7, 0, 1)
    called = probability >= 0.5
    found = performance.score(malignant, probability)
    assert found == pytest.approx(
        {
            "accuracy": scikit_learn.accuracy_score(malignant, called),
            "sensitivity": scikit_learn.recall_score(malignant, called),
            "specificity": scikit_learn.recall_score(malignant, called, pos_label=0),
            "ppv": scikit_learn.precision_score(malignant, called),
            "npv": scikit_learn.precision_score(malignant, called, pos_label=0),
            "balanced_accuracy": scikit_learn.balanced_accuracy_score(malignant, called),
            "f1": scikit_learn.f1_score(malignant, called),
            "roc_auc": scikit_learn.roc_auc_score(malignant, probability),
            "pr_auc": scikit_learn.average_precision_score(malignant, probability),
            "brier": np.mean((probability - malignant) ** 2),
            "log_loss": -np.mean(np.log(np.where(malignant == 1, probability, 1 - probability))),
        },
        rel=1e-12,
    )


def test_counts_by_hand() -> None:
    found = Confusion.count(np.array([1, 1, 1, 0, 0]), np.array([1, 1, 0, 1, 0]))
    assert found == Confusion(true_positives=2, false_positives=1, false_negatives=1, true_negatives=1)
    assert found.total == 5


def test_a_score_without_anything_to_divide_by_is_none() -> None:
    nobody_called = Confusion(0, 0, 3, 7).scores()
    assert (nobody_called["ppv"], nobody_called["npv"], nobody_called["f1"]) == (None, 0.7, 0.0)
    nobody_ill = Confusion(0, 0, 0, 10).scores()
    assert [name for name, value in nobody_ill.items() if value is None] == [
        "sensitivity", "ppv", "balanced_accuracy", "f1",
    ]  # fmt: skip


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (41, 43), (1, 1000)])
def test_wilsons_interval_is_his_formula(successes: int, trials: int) -> None:
    z, share = norm.ppf(0.975), successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    assert performance.wilson(successes, trials) == pytest.approx([centre - half, centre + half], abs=1e-12)


def test_without_trials_there_is_no_interval() -> None:
    assert performance.wilson(0, 0) is None


def test_mean_and_sd_over_repeats_are_none_where_a_repeat_has_no_score() -> None:
    assert performance._summarised([1.0, 2.0, 3.0]) == {"mean": 2.0, "sd": 1.0}
    assert performance._summarised([1.0]) == {"mean": 1.0, "sd": None}
    assert performance._summarised([1.0, None]) == {"mean": None, "sd": None}
