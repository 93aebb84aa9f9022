"""Whether a bundle's model gives the probabilities that its example promises."""

import csv
from collections.abc import Mapping

import numpy as np

from bcw_assets.ml import columns
from bcw_assets.storage import documents

TOLERANCE = 1e-9


def probabilities(model: bytes, measurements: np.ndarray) -> np.ndarray:
    """Return P(malignant) of n × 30 raw measurements by the numbers of `model.json`."""
    document = documents.read(model)
    mean, scale, weight = (np.array(document[name], dtype=float) for name in ("mean", "scale", "coefficients"))
    found: np.ndarray = 1 / (
        1 + np.exp(-(document["intercept"] + ((measurements - mean) / scale * weight).sum(axis=1)))
    )
    return found


def example_is_reproduced(files: Mapping[str, bytes]) -> list[str]:
    """Return what is wrong with the model or the example, beginning with the file's name; nothing if all is well."""
    try:
        rows = list(csv.DictReader(files["example.csv"].decode().splitlines()))
        measurements = np.array([[float(row[name]) for name in columns.MEASUREMENTS] for row in rows])
        promised = np.array([float(row[columns.PROBABILITY]) for row in rows])
        worst = float(np.abs(probabilities(files["model.json"], measurements) - promised).max())
        return [f"example.csv promises other probabilities than model.json gives, by {worst:.3g}"] * (worst > TOLERANCE)
    except (LookupError, TypeError, ValueError) as error:
        return [f"model.json or example.csv cannot be used ({error})"]
