"""Patients that are drawn for tests of scores."""

import numpy as np


def draw_patients(count: int, seed: int = 1, digits: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return diagnoses and probabilities that have something to do with them; rounded, many are equal."""
    random = np.random.default_rng(seed)
    malignant = random.integers(0, 2, count)
    probability = np.clip(malignant * 0.3 + 0.05 + random.random(count) * 0.6, 0, 1)
    return malignant, probability if digits is None else probability.round(digits)
