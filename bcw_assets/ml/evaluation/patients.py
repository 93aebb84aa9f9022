"""Whom the model serves badly: groups of patients, and single ones."""

import statistics
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bcw_assets.ml.evaluation import scores
from bcw_assets.ml.table import canonical, columns

PARTS = 3  # terciles
FEWEST = 20  # patients of a group of which a rate is given
NEARLY_ALL = 0.9  # share of the repeats in which a hard row is misclassified
SUSPICIOUS = 0.05  # P(the given label) below which a label is suspected


@dataclass(frozen=True)
class Subgroup:
    """A third of the patients of a diagnosis, by the size of their nuclei in image units; an empty one has no size."""

    diagnosis: str
    measurement: str
    low: float | None
    high: float | None
    patients: int
    measure: str
    rate: scores.Summary


@dataclass(frozen=True)
class Patient:
    """A patient as models that have not seen the patient judge."""

    id: str
    diagnosis: str  # of the table
    probability: float  # of malignancy, as the mean over the repeats
    misclassified: int  # in so many repeats


def summarise_subgroups(raw_data: pd.DataFrame, probabilities: np.ndarray) -> list[Subgroup]:
    """Return sensitivity by terciles of size among n patients' malignant (n × R), and specificity among the benign."""
    malignant, sizes = canonical.read_truths(raw_data), raw_data[columns.SIZE].to_numpy()
    right = (probabilities >= scores.THRESHOLD) == (malignant == 1)[:, None]
    groups = []
    for label, diagnosis, measure in ((1, columns.MALIGNANT, "sensitivity"), (0, columns.BENIGN, "specificity")):
        of_diagnosis = sizes[malignant == label]
        edges = np.quantile(of_diagnosis, np.arange(1, PARTS) / PARTS)
        part = np.searchsorted(edges, of_diagnosis, side="left")
        for tercile in range(PARTS):
            values, hits = of_diagnosis[part == tercile], right[malignant == label][part == tercile]
            low, high = (float(edge(values)) if len(values) else None for edge in (np.min, np.max))
            rate = scores.Summary(None, None, None, f"no rate of fewer than {FEWEST} patients")
            if len(values) >= FEWEST:
                rates = hits.mean(axis=0).tolist()
                interval = scores.compute_wilson(statistics.fmean(rates) * len(hits), len(hits))
                rate = scores.summarise(measure, rates, interval)
            groups.append(Subgroup(diagnosis, columns.SIZE, low, high, len(values), measure, rate))
    return groups


def select_patients(raw_data: pd.DataFrame, probabilities: np.ndarray) -> tuple[list[Patient], list[Patient]]:
    """Return who of n patients (n × R) are misclassified in nearly every repeat, and whose labels are suspected."""
    is_malignant, means = canonical.read_truths(raw_data) == 1, probabilities.mean(axis=1)
    wrong = ((probabilities >= scores.THRESHOLD) != is_malignant[:, None]).sum(axis=1)
    is_hard = wrong >= NEARLY_ALL * probabilities.shape[1]
    is_suspect = np.where(is_malignant, means, 1 - means) < SUSPICIOUS
    known = raw_data[[columns.ID, columns.DIAGNOSIS]].assign(probability=means, misclassified=wrong)
    hardest, suspects = (
        sort_worst_first([Patient(*row) for row in known[is_chosen].itertuples(index=False)])
        for is_chosen in (is_hard, is_suspect)
    )
    return hardest, suspects


def sort_worst_first(patients: list[Patient]) -> list[Patient]:
    """Return the patients in the order of the probability of their label, the least possible first."""
    return sorted(patients, key=lambda row: (abs((row.diagnosis == columns.BENIGN) - row.probability), row.id))
