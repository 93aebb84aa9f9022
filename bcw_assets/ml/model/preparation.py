"""Splits the table and standardises it by its training rows."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from bcw_assets.errors import TrainingError
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.table import canonical, columns
from bcw_assets.ml.table.rules import compute_aucs

SPLIT = "split"
TRAIN, TEST = "train", "test"
IS_MALIGNANT = "malignant"
READY_DESCRIPTIONS = {  # the columns of `ready_data`, in order → what they mean, and their units
    columns.ID: columns.DESCRIPTIONS[columns.ID],
    SPLIT: (f"{TRAIN} = the model learns from this row, {TEST} = it is judged on it", ""),
    IS_MALIGNANT: ("1 = malignant, 0 = benign", ""),
} | {
    name: (columns.DESCRIPTIONS[name][0], "standard deviations from the mean of the training rows")
    for name in columns.MEASUREMENTS
}

SCALING_ROUNDING = 1e-9  # of a mean or standard deviation of standardised values
LEAK_CORRELATION = 0.99  # correlation with the row number, the id or the label from which a column is one of them
LEAK_AUC = 0.995  # that no single measurement has; by chance it may, where there are few of a diagnosis
LEAK_AUC_FEWEST = 150  # patients of the rarer diagnosis


@dataclass(frozen=True)
class Split:
    """How the rows were divided: the share of test rows, the seed, and whether by diagnosis."""

    test_size: float
    seed: int
    stratify: bool

    def __str__(self) -> str:
        return f"The split (test_size {self.test_size}, seed {self.seed}, stratify {self.stratify})"


@dataclass(frozen=True, eq=False)
class Prepared:
    """The standardised table with its split, and the scaler, which was fitted on the raw training rows alone.

    `rows` are n × 33: id, split (train or test), malignant (0 or 1), and the 30 measurements in standard
    deviations of the training rows from their mean. The fingerprint is that of the table that this was made from.
    """

    rows: pd.DataFrame
    scaler: StandardScaler
    split: Split
    fingerprint: str

    def select_measurements(self, side: str) -> np.ndarray:
        """Return the standardised measurements of one side of the split, of shape (rows, 30)."""
        return self.rows.loc[self.rows[SPLIT] == side, list(columns.MEASUREMENTS)].to_numpy()

    def select_truths(self, side: str) -> np.ndarray:
        """Return 1 for each malignant row of one side of the split and 0 for each benign one."""
        return self.rows.loc[self.rows[SPLIT] == side, IS_MALIGNANT].to_numpy()


def prepare(raw_data: pd.DataFrame, split: Split) -> Prepared:
    """Split the canonical table at random and standardise it by its training rows, or raise a TrainingError."""
    malignant = canonical.read_truths(raw_data)
    strata = malignant if split.stratify else None
    try:
        train, test = train_test_split(
            np.arange(len(raw_data)), test_size=split.test_size, random_state=split.seed, stratify=strata
        )
    except ValueError as error:
        raise TrainingError(f"{split} cannot divide {len(raw_data)} rows: {error}") from error
    for side, rows in ((TRAIN, train), (TEST, test)):
        if len(np.unique(malignant[rows])) < 2:
            raise TrainingError(
                f"{split} leaves {malignant[rows].sum()} malignant among {len(rows)} {side} rows; "
                f"both diagnoses must be on both sides. Set stratify: true or another test_size, or use a larger table"
            )
    raw = raw_data[list(columns.MEASUREMENTS)]
    with np.errstate(all="ignore"):  # what overflows is refused by name below
        scaler = StandardScaler().fit(raw.iloc[train])
    wrong = ~np.isfinite(scaler.mean_) | ~np.isfinite(scaler.var_) | (scaler.scale_ != np.sqrt(scaler.var_))
    if wrong.any():
        column = int(wrong.argmax())
        raise TrainingError(
            f"{raw.columns[column]} cannot be standardised: over the training rows its mean is "
            f"{scaler.mean_[column]:.6g} and its variance {scaler.var_[column]:.6g}; allowed are columns that vary, "
            f"within bounds. Mend the table"
        )
    rows = pd.DataFrame(scaler.transform(raw), columns=raw.columns)
    rows.insert(0, columns.ID, raw_data[columns.ID])
    rows.insert(1, SPLIT, np.where(np.isin(np.arange(len(rows)), test), TEST, TRAIN))
    rows.insert(2, IS_MALIGNANT, malignant)
    return Prepared(rows, scaler, split, canonical.fingerprint(raw_data))


def check_split(raw_data: pd.DataFrame, ready_data: Prepared) -> Findings:
    """Find rows on no side or on both, rows of another table, and sides without one of the diagnoses."""
    rows = ready_data.rows
    train, test = (rows.loc[rows[SPLIT] == side, IS_MALIGNANT] for side in (TRAIN, TEST))
    is_in_order = rows[columns.ID].tolist() == raw_data[columns.ID].tolist()
    is_labelled = rows[IS_MALIGNANT].tolist() == canonical.read_truths(raw_data).tolist()
    return Findings.of(
        ("it was made from another table", ready_data.fingerprint != canonical.fingerprint(raw_data)),
        ("a row is on no side", len(train) + len(test) < len(rows)),
        ("its rows are not those of raw_data in their order", not is_in_order),
        ("its labels are not those of raw_data", not is_labelled),
        ("the training rows lack a diagnosis", set(train.unique()) != {0, 1}),
        ("the test rows lack a diagnosis", set(test.unique()) != {0, 1}),
        train_rows=len(train),
        test_rows=len(test),
        malignant_in_train=int(train.sum()),
        malignant_in_test=int(test.sum()),
    )


def check_scaling(raw_data: pd.DataFrame, ready_data: Prepared) -> Findings:
    """Find columns that are not standardised by the training rows alone and by the stored scaler."""
    expected = ready_data.scaler.transform(raw_data[list(columns.MEASUREMENTS)])
    values = ready_data.rows[list(columns.MEASUREMENTS)].to_numpy()
    mean, sd = _measure_deviation(ready_data.select_measurements(TRAIN))
    of_all = _measure_deviation(values)
    is_scaled = values.shape == expected.shape and np.allclose(values, expected, rtol=0, atol=SCALING_ROUNDING)
    return Findings.of(
        (f"a column's mean over the training rows is {mean:.3g} away from 0", mean > SCALING_ROUNDING),
        (f"a column's sd over the training rows is {sd:.3g} away from 1", sd > SCALING_ROUNDING),
        ("the values are not what the scaler makes of raw_data", not is_scaled),
        ("the test rows took part: mean 0 and sd 1 over all rows", max(of_all) <= SCALING_ROUNDING),
        largest_mean_of_all_rows=of_all[0],
    )


def _measure_deviation(values: np.ndarray) -> tuple[float, float]:
    """Return how far a column's mean is from 0, and its sd from 1, at most."""
    return float(np.abs(values.mean(axis=0)).max()), float(np.abs(values.std(axis=0) - 1).max())


def check_features(ready_data: Prepared) -> Findings:
    """Find a measurement that is the id, the row number or the diagnosis in disguise."""
    rows, malignant = ready_data.rows, ready_data.rows[IS_MALIGNANT].to_numpy()
    measurements = rows[list(columns.MEASUREMENTS)].to_numpy()
    orders = [malignant, np.arange(len(rows)), pd.to_numeric(rows[columns.ID], errors="coerce").to_numpy(np.float64)]
    with np.errstate(all="ignore"):  # a constant column and ids that are no numbers have no correlation
        all_pairs = np.nan_to_num(np.corrcoef(measurements, np.stack(orders, axis=1), rowvar=False))
    by_label, *by_orders = np.abs(all_pairs[-len(orders) :, : -len(orders)]).max(axis=1).tolist()
    by_order, areas = max(by_orders), compute_aucs(measurements, malignant)
    alone, rarer = float(np.maximum(areas, 1 - areas).max()), min(malignant.sum(), (1 - malignant).sum())
    tells = f"a measurement alone tells the diagnosis (ROC AUC {alone:.4f}), which none does"
    return Findings.of(
        (f"a measurement follows the id or the row order (correlation {by_order:.3f})", by_order >= LEAK_CORRELATION),
        (f"a measurement follows the diagnosis (correlation {by_label:.3f})", by_label >= LEAK_CORRELATION),
        (tells, alone >= LEAK_AUC and rarer >= LEAK_AUC_FEWEST),
        largest_correlation_with_id_or_row_number=by_order,
        largest_correlation_with_diagnosis=by_label,
        largest_ROC_AUC_alone=alone,
    )
