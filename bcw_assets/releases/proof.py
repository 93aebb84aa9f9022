"""Whether a bundle's model gives what its example promises, and whether two files say the same."""

import csv
import re
from collections.abc import Mapping

import numpy as np

from bcw_assets import documents
from bcw_assets.errors import OTHER_VERSION, ScoringError
from bcw_assets.ml.model import numbers
from bcw_assets.ml.model.numbers import Scorer, probability
from bcw_assets.ml.table import columns

TOLERANCE = 1e-9  # another linear algebra library, another Python
ROUNDING = 1e-6  # of a score: the same, and its digits in a text
VERSION = re.compile(rb"\d+\.\d+\.\d+[\w.+]*")
NUMBER = re.compile(rb"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)")


def probabilities(files: Mapping[str, bytes], measurements: np.ndarray) -> np.ndarray:
    """Return P(malignant) of n × 30 raw measurements by the numbers of the `model.json` among the files.

    Raises:
        ScoringError: there is none that can be used.
    """
    return probability(load_scorer(files).log_odds(measurements.T))


def load_scorer(files: Mapping[str, bytes]) -> Scorer:
    """Return the model of a bundle.

    Raises:
        ScoringError: there is none, or none that can be used.
    """
    if "model.json" not in files:
        raise numbers.refuse("is missing from the bundle")
    try:
        document = documents.read(files["model.json"])
    except ValueError as error:
        raise numbers.refuse(f"cannot be used: {error}") from error
    return Scorer.load(document)


def example_problems(files: Mapping[str, bytes]) -> list[str]:
    """Return what is wrong with the model or the example, beginning with the file's name.

    Returns:
        nothing if the model gives what its example promises, or if a bundle of another version does without one.
    """
    if "example.csv" not in files or "model.json" not in files:
        return []
    try:
        rows = list(csv.DictReader(files["example.csv"].decode().splitlines()))
        # What an example does without is not a number, and so is the probability by a model that takes it.
        measurements = np.array([[float(row.get(name, "nan")) for name in columns.MEASUREMENTS] for row in rows])
        promised = np.array([float(row[columns.PROBABILITY]) for row in rows])
        off = float(np.abs(probabilities(files, measurements) - promised).max())
    except ScoringError as error:
        return [str(error)]
    except (LookupError, TypeError, ValueError) as error:
        return [f"example.csv cannot be used ({error}; {OTHER_VERSION})"]
    if off <= TOLERANCE:
        return []
    promise = f"example.csv promises other probabilities than this version makes of model.json, by {off:.3g}"
    return [f"{promise}; {OTHER_VERSION}"]


def is_equal_but_for_rounding(content: bytes, other: bytes) -> bool:
    """Say whether two texts are the same but for the last digits of numbers, versions like 3.11.7, and line breaks.

    >>> is_equal_but_for_rounding(b"p: 0.30000000000000004, numpy 2.4.6", b"p: 0.3, numpy 2.5.0")
    True
    >>> is_equal_but_for_rounding(b"p: 0.31", b"p: 0.3")
    False
    """
    ours, theirs = (NUMBER.split(VERSION.sub(b"version", b" ".join(one.split()))) for one in (content, other))
    if ours[::2] != theirs[::2]:
        return False
    one, other_one = np.array([ours[1::2], theirs[1::2]]).astype(np.float64)
    return bool(np.allclose(one, other_one, rtol=ROUNDING, atol=TOLERANCE))
