"""Compares a challenger with a champion on the patients that both have predicted, found by their fingerprints."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from bcw_assets.ml.evaluation.influence import Z  # the quantile of a bound that holds with 97.5 % on one side
from bcw_assets.ml.evaluation.scores import THRESHOLD, compute_log_losses


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a recipe says of n patients that it has not seen: row fingerprints, truths (1 or 0), n × R P(malignant)."""

    fingerprints: list[str]
    malignant: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """A challenger beside a champion, on the patients of the challenger whose measurements the champion knows.

    A difference is how much more the challenger has, and its bound with 97.5 % on one side.
    """

    known: int
    malignant: int  # for both
    relabelled: tuple[int, ...]  # the challenger's rows that the champion knows under the other diagnosis
    log_loss: tuple[float, float] | None  # with an upper bound; None with fewer than two patients in common
    sensitivity: tuple[float, float] | None  # at 0.5, with a lower bound; None without malignant patients in common


def compare(challenger: Predictions, relabelled: list[str], champion: Predictions) -> Comparison:
    """Compare the two on the rows that have the same measurements and diagnosis in both.

    Losses and probabilities are means over the repeats. `relabelled` are the fingerprints that the challenger's rows
    would have under the other diagnosis.
    """
    place = {fingerprint: row for row, fingerprint in enumerate(champion.fingerprints)}
    pairs = [(row, place[patient]) for row, patient in enumerate(challenger.fingerprints) if patient in place]
    changed = tuple(row for row, patient in enumerate(relabelled) if patient in place)
    ours, theirs = np.array(pairs, dtype=int).reshape(-1, 2).T
    malignant, log_loss, sensitivity = challenger.malignant[ours], None, None
    both = challenger.probabilities[ours], champion.probabilities[theirs]
    if len(pairs) > 1:  # the repeats, whose folds may differ, cannot be paired too
        losses, old_losses = (compute_log_losses(malignant[:, None], predicted).mean(axis=1) for predicted in both)
        mean, error = (losses - old_losses).mean(), (losses - old_losses).std(ddof=1) / math.sqrt(len(pairs))
        log_loss = float(mean), float(mean + Z * error)
    if patients := int(malignant.sum()):
        called, was_called = (predicted[malignant == 1].mean(axis=1) >= THRESHOLD for predicted in both)
        gained, lost = int((called & ~was_called).sum()), int((was_called & ~called).sum())
        sensitivity = (gained - lost) / patients, compute_tango(gained, lost, patients)
    return Comparison(len(pairs) + len(changed), patients, changed, log_loss, sensitivity)


def compute_tango(gained: int, lost: int, patients: int) -> float:
    """Return the lower one-sided 97.5 % bound of the difference of two proportions of the same patients.

    Only the new one succeeds with those who are gained, only the old one with those who are lost. At the bound the
    score statistic, with the discordant probability estimated under that difference, is the normal quantile.

    Source: T. Tango, Statistics in Medicine 17 (1998) 891-908.

    >>> round(compute_tango(0, 0, 150), 4)
    -0.025
    """

    def excess(difference: float) -> float:
        b = (2 * patients - gained + lost) * difference - gained - lost
        c = -lost * difference * (1 - difference)
        rare = (math.sqrt(max(b * b - 8 * patients * c, 0.0)) - b) / (4 * patients)
        variance = patients * (2 * rare + difference * (1 - difference))
        return gained - lost - patients * difference - Z * math.sqrt(max(variance, 0.0))

    # Without discordant patients the excess is 0 at the estimate too, so the search ends just below.
    return float(brentq(excess, -1, max((gained - lost) / patients - 1e-9, -1)))
