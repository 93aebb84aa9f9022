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
    """One third of the patients of a diagnosis, by the size of their nuclei.

    `low` and `high` are the smallest and largest value of `measurement`, in image units; None in an empty group. `rate`
    is the sensitivity or specificity at 0.5, with Wilson's interval; None below 20 patients.
    """

    diagnosis: str
    measurement: str
    low: float | None
    high: float | None
    patients: int
    measure: str
    rate: scores.Summary


@dataclass(frozen=True)
class Patient:
    """One patient with the diagnosis of the table, M or B.

    The probability of malignancy, by models that have not seen the patient, is the mean over the repeats; in so many of
    them the patient is misclassified, on the wrong side of 0.5.
    """

    id: str
    diagnosis: str
    probability: float
    misclassified: int

    @property
    def label_probability(self) -> float:
        """The out-of-fold probability of the diagnosis that the table gives."""
        return self.probability if self.diagnosis == columns.MALIGNANT else 1 - self.probability


def summarise_subgroups(raw_data: pd.DataFrame, probabilities: np.ndarray) -> list[Subgroup]:
    """Return sensitivity by terciles of size among n patients' malignant (n × R), and specificity among the benign."""
    malignant, sizes = canonical.malignant(raw_data), raw_data[columns.SIZE].to_numpy()
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


def list_patients(raw_data: pd.DataFrame, probabilities: np.ndarray) -> list[Patient]:
    """Return every patient, in the order of the rows."""
    wrong = ((probabilities >= scores.THRESHOLD) != (canonical.malignant(raw_data) == 1)[:, None]).sum(axis=1)
    means = probabilities.mean(axis=1).tolist()
    return list(map(Patient, raw_data[columns.ID], raw_data[columns.DIAGNOSIS], means, wrong.tolist()))


def select_hardest(patients: list[Patient], repeats: int) -> list[Patient]:
    """Return the patients who are misclassified in nearly every repeat, the worst first."""
    return sort_worst_first([patient for patient in patients if patient.misclassified >= NEARLY_ALL * repeats])


def select_label_suspects(patients: list[Patient]) -> list[Patient]:
    """Return the patients whose label the models think nearly impossible, the least possible first."""
    return sort_worst_first([patient for patient in patients if patient.label_probability < SUSPICIOUS])


def sort_worst_first(patients: list[Patient]) -> list[Patient]:
    """Return the patients in the order of the probability of their label, the least possible first."""
    return sorted(patients, key=lambda patient: (patient.label_probability, patient.id))
