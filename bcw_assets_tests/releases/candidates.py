"""Candidates that cost little: everything as a refresh makes it, from fewer repeats and without a picture."""

from functools import cached_property

import numpy as np
import pandas as pd

from bcw_assets.ml.evaluation.report import Evaluation, evaluate
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import columns
from bcw_assets.releases import bundle, candidate

MEMBERS = (
    *("model.json", "model.onnx", "model.sql", "metrics.json", "cross_validation.csv", "evaluation.png"),
    *("MODEL_CARD.md", "example.csv", "README.txt", "index.html", "SHA256SUMS"),
)
"""The files of a bundle in the order in which they are stored; the manifest comes after them."""


class Candidate(candidate.Candidate):
    @cached_property
    def id(self) -> str:
        """The id of the bundle of these files, unless a damaged one has it already."""
        return bundle.pack(self.inputs, self.files)[0]


def candidate_of(
    raw: pd.DataFrame,
    *,
    C: float = 1.0,  # noqa: N803 (scikit-learn's name for the knob)
    seed: int = 42,
    folds: int = 10,
    repeats: int = 2,
    folds_seed: int = 0,
) -> Candidate:
    ready = preparation.prepare(raw, Split(0.2, seed, stratify=False))
    model = training.train(ready, C)
    predicted = resampling.predict_out_of_fold(raw, model, Resampling(folds, repeats, folds_seed))
    metrics = Evaluation(evaluate(raw, ready, model, predicted), b"no picture", "card")
    return Candidate(raw, ready, model, predicted, metrics)


def flipped(raw: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """Return the table with so many diagnoses turned round."""
    rows = np.random.default_rng(seed).choice(len(raw), count, replace=False)
    labels = raw[columns.DIAGNOSIS].to_numpy(dtype=object)
    labels[rows] = np.where(labels[rows] == columns.MALIGNANT, columns.BENIGN, columns.MALIGNANT)
    return raw.assign(**{columns.DIAGNOSIS: pd.Series(labels, dtype="str")})


def part(raw: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """Return so many rows of the table, in its order."""
    rows = np.sort(np.random.default_rng(seed).choice(len(raw), count, replace=False))
    return raw.iloc[rows].reset_index(drop=True)
