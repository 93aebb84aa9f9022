"""The real table in the forms that the tests need, made from scikit-learn's copy."""

import hashlib
from functools import cache

import numpy as np
from sklearn.datasets import load_breast_cancer


@cache
def uci_form() -> bytes:
    """Return the table as UCI writes it, in UCI's order, with ids of our own."""
    ids = sorted(str(7_000 + 13 * row) for row in range(569))
    numbers, target = load_breast_cancer(return_X_y=True)
    return rows_as_uci(ids, numbers, target == 0)  # 0 is malignant in scikit-learn's copy


@cache
def uci_form_digest() -> str:
    """Return the SHA-256 of `uci_form`."""
    return hashlib.sha256(uci_form()).hexdigest()


def rows_as_uci(ids: list[str], numbers: np.ndarray, malignant: np.ndarray) -> bytes:
    """Return rows as lines of UCI's file: the id, M or B, and the shortest digits of each number."""
    lines = (
        ",".join([identifier, "M" if label else "B", *(repr(number).removesuffix(".0") for number in row)])
        for identifier, label, row in zip(ids, malignant, numbers.tolist(), strict=True)
    )
    return "".join(f"{line}\n" for line in lines).encode()


def shuffled(content: bytes, seed: int = 1) -> bytes:
    """Return the lines of a headerless file in another order."""
    lines = content.splitlines(keepends=True)
    return b"".join(lines[row] for row in np.random.default_rng(seed).permutation(len(lines)))
