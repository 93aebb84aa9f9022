"""Champion and challenger on the same patients: bounds against second sources, rows paired by fingerprint."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm, sem

from bcw_assets.ml.evaluation.comparison import Predictions, compare, compute_tango


def score_statistic(difference: float, gained: int, lost: int, patients: int) -> float:
    """Return Tango's statistic with the discordant probability that comes from maximising the likelihood."""

    def unlikely(rare: float) -> float:
        shares = np.array([rare + difference, rare, 1 - 2 * rare - difference])
        counts = np.array([gained, lost, patients - gained - lost])
        return -float(np.sum(counts * np.log(np.clip(shares, 1e-300, 1))))

    bounds = (max(0.0, -difference), (1 - difference) / 2)
    rare = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    variance = patients * (2 * rare + difference - difference**2)
    return float((gained - lost - patients * difference) / np.sqrt(variance))


@pytest.mark.parametrize(
    ("gained", "lost", "patients"),
    [(1, 0, 44), (3, 1, 212), (0, 5, 212), (10, 12, 300), (0, 0, 150), (7, 25, 200), (5, 0, 5)],
)
def test_at_the_bound_the_score_statistic_is_the_normal_quantile(gained: int, lost: int, patients: int) -> None:
    bound = compute_tango(gained, lost, patients)
    assert score_statistic(bound, gained, lost, patients) == pytest.approx(1.959964, abs=1e-4)
    assert compute_tango(0, 5, 5) == -1  # where everybody was lost


def predictions(names: str, probabilities: list[float], malignant: str) -> Predictions:
    return Predictions(list(names), np.array(list(map(int, malignant))), np.array([probabilities]).T)


def test_patients_are_paired_by_fingerprint_and_not_by_place() -> None:
    champion = predictions("abcd", [0.9, 0.2, 0.6, 0.1], "1010")
    challenger = predictions("dcbax", [0.1, 0.4, 0.2, 0.9, 0.5], "01011")
    result = compare(challenger, ["-"] * 5, champion)
    assert (result.known, result.malignant) == (4, 2)
    assert result.sensitivity is not None
    assert result.sensitivity[0] == -0.5  # of a and c only c is missed, and only now
    assert result.log_loss is not None
    assert result.log_loss[0] == pytest.approx((np.log(0.6) - np.log(0.4)) / 4)


def test_the_bound_of_the_log_loss_is_that_of_a_paired_comparison_of_means_over_the_repeats_by_scipy() -> None:
    random = np.random.default_rng(1)
    malignant = (np.arange(300) < 120).astype(int)
    old, new = random.uniform(0.05, 0.95, (2, 300, 2))
    names = [str(row) for row in range(300)]
    result = compare(Predictions(names, malignant, new), ["-"] * 300, Predictions(names, malignant, old))
    new_losses, old_losses = (-np.log(np.where(malignant[:, None] == 1, of, 1 - of)).mean(axis=1) for of in (new, old))
    difference = new_losses - old_losses
    assert result.log_loss is not None
    assert result.log_loss[0] == pytest.approx(difference.mean())
    assert result.log_loss[1] == pytest.approx(norm.ppf(0.975, difference.mean(), sem(difference)))


def test_a_row_that_the_champion_knows_under_the_other_diagnosis_is_relabelled() -> None:
    champion = predictions("abc", [0.9, 0.2, 0.6], "101")
    result = compare(predictions("abz", [0.9, 0.2, 0.3], "100"), ["-", "-", "c"], champion)
    assert (result.relabelled, result.known) == ((2,), 3)


def test_without_patients_or_malignant_ones_in_common_nothing_is_compared() -> None:
    result = compare(predictions("a", [0.5], "1"), ["-"], predictions("b", [0.5], "1"))
    assert (result.known, result.malignant, result.log_loss, result.sensitivity) == (0, 0, None, None)
    result = compare(predictions("a", [0.5], "0"), ["-"], predictions("a", [0.5], "0"))
    assert (result.known, result.log_loss, result.sensitivity) == (1, None, None)
