"""Whether a bundle's model gives the probabilities that its example promises."""

import csv
from collections.abc import Mapping

import numpy as np

from bcw_assets import scoring
from bcw_assets.errors import ScoringError
from bcw_assets.ml import columns
from bcw_assets.scoring import Scorer

TOLERANCE = 1e-9  # another linear algebra library, another Python


def probabilities(model: bytes, measurements: np.ndarray) -> np.ndarray:
    """Return P(malignant) of n × 30 raw measurements by the numbers of a `model.json`.

    Raises:
        ScoringError: the bytes are none.
    """
    return scoring.probability(Scorer.load(model).log_odds(measurements.T))


def example_problems(files: Mapping[str, bytes]) -> list[str]:
    """Return what is wrong with the model or the example, beginning with the file's name; nothing if all is well."""
    try:
        rows = list(csv.DictReader(files["example.csv"].decode().splitlines()))
        measurements = np.array([[float(row[name]) for name in columns.MEASUREMENTS] for row in rows])
        promised = np.array([float(row[columns.PROBABILITY]) for row in rows])
        off = float(np.abs(probabilities(files["model.json"], measurements) - promised).max())
    except ScoringError as error:
        return [str(error)]
    except (LookupError, TypeError, ValueError) as error:
        return [f"example.csv cannot be used ({error})"]
    return [] if off <= TOLERANCE else [f"example.csv promises other probabilities than model.json gives, by {off:.3g}"]
