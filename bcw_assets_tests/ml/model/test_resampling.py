"""Out-of-fold probabilities: by models that have not seen the row, in folds that anybody can make again."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from bcw_assets.errors import TrainingError
from bcw_assets.ml.model import resampling, training
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import canonical, columns


def test_the_settings_of_the_model_are_judged_and_recorded(raw: pd.DataFrame) -> None:
    weak, strong = (resampling.predict_out_of_fold(raw, training.build(C), Resampling(5, 1, 0)) for C in (1e-6, 1.0))
    assert weak.settings["C"] == 1e-6
    assert np.ptp(weak.probabilities) < 0.1 < np.ptp(strong.probabilities)


def test_more_folds_than_patients_of_a_diagnosis_are_refused(raw: pd.DataFrame) -> None:
    with pytest.raises(TrainingError, match=r"213 folds need 213 patients .* the rarer has 212\. Set folds to 212"):
        resampling.predict_out_of_fold(raw, training.build(1.0), Resampling(213, 1, 0))


def test_each_fold_of_a_large_table_is_told(raw: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    for rows in (570, 569):
        monkeypatch.setattr(resampling, "ROWS_TO_PREDICT", rows)
        resampling.predict_out_of_fold(raw, training.build(1.0), Resampling(2, 2, 0), lines.append)
    assert lines == [f"{count} of 4 folds" for count in range(1, 5)]


def test_each_repeat_is_scikit_learns_own_prediction_with_the_seed_of_the_repeat(raw: pd.DataFrame) -> None:
    """Also where the penalty is weak, so that from another fold's optimum the usual tolerance would end 1e-6 short."""
    predicted = resampling.predict_out_of_fold(raw, training.build(100.0), Resampling(5, 2, 7))
    measurements, malignant = raw[list(columns.MEASUREMENTS)].to_numpy(), canonical.read_truths(raw)
    exact = training.build(100.0).set_params(classifier__tol=1e-13)
    for repeat, probability in enumerate(predicted.probabilities.T):
        folds = StratifiedKFold(5, shuffle=True, random_state=7 + repeat)
        expected = cross_val_predict(exact, measurements, malignant, cv=folds, method="predict_proba")[:, 1]
        np.testing.assert_allclose(probability, expected, rtol=0, atol=1e-9)
