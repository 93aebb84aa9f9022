"""Splits the table and standardises it by its training rows."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from bcw_assets.errors import TrainingError
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.table import canonical, columns
from bcw_assets.ml.table.ranks import compute_aucs

SPLIT = "split"
TRAIN = "train"
TEST = "test"
IS_MALIGNANT = "malignant"
READY = (columns.ID, SPLIT, IS_MALIGNANT, *columns.MEASUREMENTS)
"""The columns of `ready_data`, in order."""

READY_DESCRIPTIONS = {
    columns.ID: columns.DESCRIPTIONS[columns.ID],
    SPLIT: (f"{TRAIN} = the model learns from this row, {TEST} = it is judged on it", ""),
    IS_MALIGNANT: ("1 = malignant, 0 = benign", ""),
} | {
    name: (columns.DESCRIPTIONS[name][0], "standard deviations from the mean of the training rows")
    for name in columns.MEASUREMENTS
}
"""Column of `ready_data` → (what it means, its unit)."""

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
    """The standardised table with its split, and what standardised it.

    Attributes:
        rows: n rows × 33 columns (`READY`): id, split (train or test), malignant (0 or 1), and the 30 measurements in
            standard deviations of the training rows from their mean.
        scaler: fitted on the training rows of the raw measurements alone.
        split: the settings of the split.
        fingerprint: of the table that this was made from.
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
    """Split the canonical table at random and standardise it by its training rows.

    Raises:
        TrainingError: one side of the split would lack a diagnosis.
    """
    malignant = canonical.malignant(raw_data)
    try:
        train, test = train_test_split(
            np.arange(len(raw_data)),
            test_size=split.test_size,
            random_state=split.seed,
            stratify=malignant if split.stratify else None,
        )
    except ValueError as error:
        raise TrainingError(f"{split} cannot divide {len(raw_data)} rows: {error}") from error
    for side, rows in ((TRAIN, train), (TEST, test)):
        if len(set(malignant[rows])) < 2:
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
    sides = {
        side: (set(rows.loc[rows[SPLIT] == side, columns.ID]), set(ready_data.select_truths(side).tolist()))
        for side in (TRAIN, TEST)
    }
    (train, train_classes), (test, test_classes) = sides.values()
    return Findings.of(
        ("it was made from another table", ready_data.fingerprint != canonical.fingerprint(raw_data)),
        ("a row is on no side or on both", bool(train & test) or len(train) + len(test) != len(rows)),
        ("its rows are not those of raw_data in their order", list(rows[columns.ID]) != list(raw_data[columns.ID])),
        ("its labels are not those of raw_data", list(rows[IS_MALIGNANT]) != canonical.malignant(raw_data).tolist()),
        ("the training rows lack a diagnosis", train_classes != {0, 1}),
        ("the test rows lack a diagnosis", test_classes != {0, 1}),
        train_rows=len(train),
        test_rows=len(test),
        malignant_in_train=int(ready_data.select_truths(TRAIN).sum()),
        malignant_in_test=int(ready_data.select_truths(TEST).sum()),
    )


def check_scaling(raw_data: pd.DataFrame, ready_data: Prepared) -> Findings:
    """Find columns that are not standardised by the training rows alone and by the stored scaler."""
    train = ready_data.select_measurements(TRAIN)
    expected = ready_data.scaler.transform(raw_data[list(columns.MEASUREMENTS)])
    values = ready_data.rows[list(columns.MEASUREMENTS)].to_numpy()
    mean, sd = np.abs(train.mean(axis=0)).max(), np.abs(train.std(axis=0) - 1).max()
    mean_of_all, sd_of_all = np.abs(values.mean(axis=0)).max(), np.abs(values.std(axis=0) - 1).max()
    return Findings.of(
        (f"a column's mean over the training rows is {mean:.3g} away from 0", bool(mean > SCALING_ROUNDING)),
        (f"a column's sd over the training rows is {sd:.3g} away from 1", bool(sd > SCALING_ROUNDING)),
        (
            "the values are not what the scaler makes of raw_data",
            values.shape != expected.shape or not np.allclose(values, expected, rtol=0, atol=SCALING_ROUNDING),
        ),
        (
            "the test rows took part: mean 0 and sd 1 over all rows",
            bool(max(mean_of_all, sd_of_all) <= SCALING_ROUNDING),
        ),
        largest_mean_of_all_rows=float(mean_of_all),
    )


def check_features(ready_data: Prepared) -> Findings:
    """Find a measurement that is the id, the row number or the diagnosis in disguise."""
    rows, malignant = ready_data.rows, ready_data.rows[IS_MALIGNANT].to_numpy()
    measurements = rows[list(columns.MEASUREMENTS)]
    orders = [np.arange(len(rows), dtype=np.float64)]
    ids = pd.to_numeric(rows[columns.ID], errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(ids).all():
        orders.append(ids)
    by_order = max(_largest_correlation(measurements.to_numpy(), order) for order in orders)
    by_label = _largest_correlation(measurements.to_numpy(), malignant)
    areas = compute_aucs(measurements, malignant)
    alone = float(np.maximum(areas, 1 - areas).max())
    return Findings.of(
        (f"a measurement follows the id or the row order (correlation {by_order:.3f})", by_order >= LEAK_CORRELATION),
        (f"a measurement follows the diagnosis (correlation {by_label:.3f})", by_label >= LEAK_CORRELATION),
        (
            f"a measurement alone tells the diagnosis (ROC AUC {alone:.4f}), which none does",
            alone >= LEAK_AUC and min(malignant.sum(), (1 - malignant).sum()) >= LEAK_AUC_FEWEST,
        ),
        largest_correlation_with_id_or_row_number=by_order,
        largest_correlation_with_diagnosis=by_label,
        largest_ROC_AUC_alone=alone,
    )


def _largest_correlation(values: np.ndarray, order: np.ndarray) -> float:
    """Return the largest absolute value of Pearson's correlation of a column with `order`; 0 where it is constant."""
    centred, order = values - values.mean(axis=0), order - order.mean()
    norm = np.sqrt((centred**2).sum(axis=0) * (order**2).sum())
    return float(np.abs(np.divide(order @ centred, norm, out=np.zeros(values.shape[1]), where=norm > 0)).max())
