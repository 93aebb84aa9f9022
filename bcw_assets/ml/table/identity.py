"""When two rows are one patient: by the diagnosis and the measurements, rounded so that noise makes no stranger."""

import hashlib
from collections.abc import Iterable

import numpy as np

DIGITS = 6  # significant ones; UCI's values have no more, and float32 holds them
NOISE = 1e-9  # below every measurement; what is 0 may be off by less after it was scaled, and scaled back


def round_values(values: np.ndarray) -> np.ndarray:
    """Return numbers with six significant digits, each the double that is nearest to its decimal text.

    >>> round_values(np.array([17.990000000000002, 0.0008948, 1234567.8, -1e-17])).tolist()
    [17.99, 0.0008948, 1234570.0, 0.0]
    """
    values = np.where(np.abs(values) < NOISE, 0.0, values)
    with np.errstate(all="ignore"):  # 0, and what is not finite or too large to be scaled, stays as it is
        power = np.floor(np.log10(np.abs(values))) + 1 - DIGITS
        large, small = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
        rounded = np.rint(values / large * small) / small * large
    return np.where(np.isfinite(rounded), rounded, values)


def format_number(number: float) -> str:
    """Return a number as it stands in `raw_data.csv`: UCI's digits, the fewest that give it back."""
    return repr(number).removesuffix(".0")


def hash_row(texts: Iterable[str]) -> str:
    """Return the SHA-256 of a row's diagnosis and rounded numbers: one patient has one, whatever the id."""
    return hashlib.sha256(",".join(texts).encode()).hexdigest()


def find_repeats(values: np.ndarray) -> list[tuple[int, int]]:
    """Return the rows of n × d numbers that are, rounded, those of a row before, each with the first such row."""
    hashes = np.zeros(len(values), np.uint64)  # Fibonacci's (D. Knuth, TAOCP 3, 6.4); where they are equal, rows may be
    for column in values.T:
        hashes = (hashes ^ round_values(column).view(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(32)
    ordered = np.sort(hashes)
    candidates = np.flatnonzero(np.isin(hashes, ordered[1:][ordered[1:] == ordered[:-1]]))
    first: dict[bytes, int] = {}
    rounded = zip(candidates.tolist(), round_values(values[candidates]), strict=True)
    pairs = [(row, first.setdefault(numbers.tobytes(), row)) for row, numbers in rounded]
    return [(row, before) for row, before in pairs if row != before]
