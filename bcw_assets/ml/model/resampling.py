"""Predicts every patient by models that have not seen them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import sklearn
from sklearn.base import clone
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline

from bcw_assets.errors import TrainingError
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.model import training
from bcw_assets.ml.table import canonical, columns

FEWEST_REPEATS, MOST_REPEATS = 2, 10
ROWS_TO_PREDICT = 50_000  # in all repeats together, where the table is neither small nor large

# Each fold is fitted from the optimum of the one before, which halves the steps. So near to its own optimum, the
# solver's usual tolerance would let it stop 1e-6 short of it in a probability.
WARM_START = {f"{training.CLASSIFIER}__warm_start": True, f"{training.CLASSIFIER}__tol": 1e-12}


@dataclass(frozen=True)
class Resampling:
    """How the rows are resampled: stratified folds, repeated with the seeds seed, seed + 1 and so on."""

    folds: int
    repeats: int
    seed: int


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The out-of-fold probability of every patient in every repeat, and the fingerprint of the table.

    `rows` are n × (2 + repeats): id, diagnosis, and P(malignant) as `repeat_0`, `repeat_1`, … `settings` are those of
    the model (`training.read_settings`), which the folds are fitted with, but for `WARM_START`.
    """

    rows: pd.DataFrame
    resampling: Resampling
    settings: dict[str, float | int | str]
    fingerprint: str

    @property
    def probabilities(self) -> np.ndarray:
        """P(malignant) of shape (n, repeats)."""
        return self.rows[name_repeats(self.resampling.repeats)].to_numpy()


def choose_repeats(rows: int) -> int:
    """Return how often to repeat the folds of so many rows: other folds change less, the more rows there are.

    >>> [choose_repeats(rows) for rows in (569, 10_000, 1_000_000)]
    [10, 5, 2]
    """
    return min(MOST_REPEATS, max(FEWEST_REPEATS, ROWS_TO_PREDICT // rows))


def explain_repeats(rows: int, repeats: int) -> str:
    """Say how many repeats there are, and how many the number of rows suggests."""
    rule = f"{ROWS_TO_PREDICT:,} / {rows:,}, at least {FEWEST_REPEATS} and at most {MOST_REPEATS}"
    return f"{repeats}; the number of rows suggests {choose_repeats(rows)} ({rule})"


def name_repeats(repeats: int) -> list[str]:
    """Return the columns of the repeats."""
    return [f"repeat_{repeat}" for repeat in range(repeats)]


def describe_columns(repeats: int) -> dict[str, tuple[str, str]]:
    """Return column of the table → (what it means, its unit)."""
    texts = {name: columns.DESCRIPTIONS[name] for name in (columns.ID, columns.DIAGNOSIS)}
    meaning = "out-of-fold probability that the patient's mass is malignant"
    return texts | dict.fromkeys(name_repeats(repeats), (meaning, "0 to 1"))


def predict_out_of_fold(
    raw_data: pd.DataFrame, model: Pipeline, resampling: Resampling, tell: Callable[[str], object] = str
) -> CrossValidation:
    """Predict each fold of each repeat by the whole pipeline refitted on the other rows, or raise a TrainingError.

    Of a table so large that a fold takes its time, `tell` gets a line about each.
    """
    malignant = canonical.read_truths(raw_data)
    rarest, folds = min(np.bincount(malignant, minlength=2)), resampling.folds
    if rarest < folds:
        remedy = f"Set folds to {rarest} or fewer, or use" if rarest > 1 else "Use"
        problem = f"{folds} folds need {folds} patients of each diagnosis, one a fold; the rarer has {rarest}"
        raise TrainingError(f"{problem}. {remedy} a larger table")
    measurements = raw_data[list(columns.MEASUREMENTS)].to_numpy()
    probability = np.empty((len(malignant), resampling.repeats))
    with training.require_convergence(model[training.CLASSIFIER].C):
        fits = fit_folds(measurements, malignant, model, resampling)
        for count, (repeat, fold, fold_model) in enumerate(fits, 1):
            probability[fold, repeat] = fold_model.predict_proba(measurements[fold])[:, 1]
            if len(malignant) >= ROWS_TO_PREDICT:
                tell(f"{count} of {folds * resampling.repeats} folds")
    rows = pd.DataFrame(probability, columns=name_repeats(resampling.repeats))
    rows.insert(0, columns.ID, raw_data[columns.ID])
    rows.insert(1, columns.DIAGNOSIS, raw_data[columns.DIAGNOSIS])
    return CrossValidation(rows, resampling, training.read_settings(model), canonical.fingerprint(raw_data))


def fit_folds(
    measurements: np.ndarray, malignant: np.ndarray, model: Pipeline, resampling: Resampling
) -> Iterator[tuple[int, np.ndarray, Pipeline]]:
    """Yield each repeat's number, its folds' rows, and the model of the other rows, which the next fold changes."""
    fold_model = clone(model).set_params(**WARM_START)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # the table was validated
        for repeat in range(resampling.repeats):
            splitter = StratifiedKFold(resampling.folds, shuffle=True, random_state=resampling.seed + repeat)
            for rest, fold in splitter.split(measurements, malignant):
                yield repeat, fold, fold_model.fit(measurements[rest], malignant[rest])


def check_coverage(raw_data: pd.DataFrame, cross_validation: CrossValidation) -> Findings:
    """Find rows that some repeat does not predict, rows of another table, and values that are no probability."""
    rows, repeats = cross_validation.rows, cross_validation.resampling.repeats
    probabilities = cross_validation.probabilities
    is_identical = rows[[columns.ID, columns.DIAGNOSIS]].equals(raw_data[[columns.ID, columns.DIAGNOSIS]])
    return Findings.of(
        ("it was made from another table", cross_validation.fingerprint != canonical.fingerprint(raw_data)),
        ("its rows are not those of raw_data, each once", not is_identical),
        ("a value is no probability", not ((probabilities >= 0) & (probabilities <= 1)).all()),
        rows=len(rows),
        repeats=repeats,
        folds=cross_validation.resampling.folds,
    )
