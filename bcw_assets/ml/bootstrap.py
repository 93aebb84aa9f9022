"""Draws the patients anew: as how often each patient counts, so that a score of a resample is a weighted score."""

import numpy as np

CHUNK = (
    334  # resamples that are worked on at once: arrays of some hundred patients stay in the cache, 2000 are six chunks
)


def draws(strata: np.ndarray, resamples: int, seed: int) -> list[np.ndarray]:
    """Draw the patients with replacement, within each stratum as often as there are of it.

    Args:
        strata: n values; the diagnoses keep the numbers of malignant and benign patients as they are, one value for
            everybody lets them vary.
        resamples: how often all of them are drawn.
        seed: of the draws.

    Returns:
        How often each patient was drawn, in chunks of shape (n, at most `CHUNK`), as small integers.
    """
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    chunks = []
    for start in range(0, resamples, CHUNK):
        count = min(CHUNK, resamples - start)
        times = np.empty((len(strata), count), dtype=np.uint8)  # nobody is drawn 256 times
        for group in groups:
            picked = random.integers(0, len(group), (len(group), count)) * count + np.arange(count)
            times[group] = np.bincount(picked.ravel(), minlength=len(group) * count).reshape(-1, count)
        chunks.append(times)
    return chunks
