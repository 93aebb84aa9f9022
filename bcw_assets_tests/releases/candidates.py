"""Candidates that cost little: everything that the gate and a bundle look at, without what only the report tells."""

import dataclasses

import numpy as np
import pandas as pd

from bcw_assets.ml.evaluation import scores
from bcw_assets.ml.evaluation.report import Evaluation
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import canonical, columns
from bcw_assets.releases.candidate import Candidate

MEMBERS = (
    *("model.json", "model.onnx", "metrics.json", "cross_validation.csv", "evaluation.png", "MODEL_CARD.md"),
    *("example.csv", "README.txt", "SHA256SUMS"),
)
"""The files of a bundle in the order in which they are stored; the manifest comes after them."""


def candidate_of(
    metrics: Evaluation,
    raw: pd.DataFrame,
    *,
    C: float = 1.0,  # noqa: N803 (scikit-learn's name for the knob)
    seed: int = 42,
    folds: int = 10,
    repeats: int = 2,
    folds_seed: int = 0,
) -> Candidate:
    """Return a candidate of a table, whose report has its scores and its provenance from it; the rest is `metrics`'."""
    ready = preparation.prepare(raw, Split(0.2, seed, stratify=False))
    model = training.train(ready, C)
    predicted = resampling.predict_out_of_fold(raw, model, Resampling(folds, repeats, folds_seed))
    malignant, probabilities = canonical.malignant(raw), predicted.probabilities
    report = metrics.report
    provenance = dataclasses.replace(
        report.provenance,
        fingerprint=ready.fingerprint,
        split=ready.split,
        resampling=predicted.resampling,
        settings=training.read_settings(model),
    )
    cross_validated = scores.summarise_scores(malignant, probabilities, predicted.resampling.folds)
    report = dataclasses.replace(
        report, cross_validation=cross_validated, provenance=provenance, hardest_rows=[], label_suspects=[]
    )
    return Candidate(raw, ready, model, predicted, Evaluation(report, metrics.figure, "card"))


def flipped(raw: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """Return the table with so many diagnoses turned round."""
    rows = np.random.default_rng(seed).choice(len(raw), count, replace=False)
    labels = raw[columns.DIAGNOSIS].tolist()
    for row in rows:
        labels[row] = columns.BENIGN if labels[row] == columns.MALIGNANT else columns.MALIGNANT
    return raw.assign(**{columns.DIAGNOSIS: pd.Series(labels, dtype="str")})


def part(raw: pd.DataFrame, count: int, seed: int = 0) -> pd.DataFrame:
    """Return so many rows of the table, in its order."""
    rows = np.sort(np.random.default_rng(seed).choice(len(raw), count, replace=False))
    return raw.iloc[rows].reset_index(drop=True)
