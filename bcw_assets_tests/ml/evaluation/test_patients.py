"""Subgroups and single patients: small cases by hand, and labels that were flipped."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bcw_assets.ml.evaluation import patients, scores
from bcw_assets.ml.model import resampling, training
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets_tests.releases.candidates import flipped


def small(malignant: int, benign: int) -> pd.DataFrame:
    """Return a table with sizes 1, 2, 3 and so on within each diagnosis."""
    return pd.DataFrame(
        {
            "id": [str(row) for row in range(malignant + benign)],
            "diagnosis": ["M"] * malignant + ["B"] * benign,
            "radius_mean": [*range(1, malignant + 1), *range(1, benign + 1)],
        }
    )


def test_terciles_by_hand() -> None:
    raw = small(60, 61)
    probabilities = np.where(raw["diagnosis"] == "M", 0.9, 0.1)[:, None].repeat(2, axis=1)
    probabilities[:5, 0] = 0.2  # five of the smallest malignant are missed in one of two repeats
    groups = patients.summarise_subgroups(raw, probabilities)
    assert [(group.diagnosis, group.measure, group.low, group.high, group.patients) for group in groups] == [
        ("M", "sensitivity", 1, 20, 20), ("M", "sensitivity", 21, 40, 20), ("M", "sensitivity", 41, 60, 20),
        ("B", "specificity", 1, 21, 21), ("B", "specificity", 22, 41, 20), ("B", "specificity", 42, 61, 20),
    ]  # fmt: skip
    assert groups[0].rate.estimate == pytest.approx((15 + 20) / 2 / 20)
    assert groups[0].rate.interval == scores.compute_wilson(17.5, 20)
    assert [group.rate.estimate for group in groups[1:]] == [1.0] * 5


def test_patients_of_one_size_leave_groups_empty() -> None:
    raw = small(30, 30).assign(radius_mean=1.0)
    groups = patients.summarise_subgroups(raw, np.full((60, 1), 0.9))
    sizes = [(group.patients, group.low, group.high) for group in groups]
    assert sizes == [(30, 1.0, 1.0), (0, None, None), (0, None, None)] * 2


def test_on_the_real_table_small_malignant_nuclei_are_found_least(made: dict[str, Any]) -> None:
    groups = made["metrics"].report.subgroups[:3]
    assert [group.patients for group in groups] == [71, 70, 71]
    assert [group.rate.estimate for group in groups] == pytest.approx([0.91, 0.99, 1.0], abs=0.006)


def test_hard_and_suspected_patients_by_hand() -> None:
    raw = small(2, 2)
    probabilities = np.array([[0.4] * 9 + [0.6], [0.6] * 2 + [0.4] * 8, [0.97] * 10, [0.49] * 10])
    hardest, (suspect,) = patients.select_patients(raw, probabilities)
    assert [(patient.id, patient.misclassified) for patient in hardest] == [("2", 10), ("0", 9)]
    assert (suspect.id, suspect.diagnosis, suspect.misclassified) == ("2", "B", 10)
    assert suspect.probability == pytest.approx(0.97)


def test_flipped_labels_are_suspected(raw: pd.DataFrame) -> None:
    wrong = flipped(raw, 17)
    predicted = resampling.predict_out_of_fold(wrong, training.build(1.0), Resampling(10, 2, 0))
    _, suspects = patients.select_patients(wrong, predicted.probabilities)
    is_flipped = (raw["diagnosis"] != wrong["diagnosis"]).to_numpy()
    assert len({patient.id for patient in suspects} & set(raw["id"][is_flipped])) >= 8
