"""Out-of-fold probabilities: by models that have not seen the row, in folds that anybody can make again."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from bcw_assets.errors import TrainingError
from bcw_assets.ml.model import resampling, training
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import canonical, columns


def test_each_repeat_is_scikit_learns_own_prediction_with_the_seed_of_the_repeat(raw: pd.DataFrame) -> None:
    model = training.build(1.0)
    predicted = resampling.predict_out_of_fold(raw, model, Resampling(5, 2, 7))
    measurements, malignant = raw[list(columns.MEASUREMENTS)].to_numpy(), canonical.malignant(raw)
    for repeat in range(2):
        folds = StratifiedKFold(5, shuffle=True, random_state=7 + repeat)
        expected = cross_val_predict(model, measurements, malignant, cv=folds, method="predict_proba")[:, 1]
        np.testing.assert_allclose(predicted.rows[f"repeat_{repeat}"], expected, rtol=0, atol=1e-9)


def test_the_settings_of_the_model_are_judged_and_recorded(raw: pd.DataFrame) -> None:
    weak, strong = (resampling.predict_out_of_fold(raw, training.build(C), Resampling(5, 1, 0)) for C in (1e-6, 1.0))
    assert weak.settings["C"] == 1e-6
    assert np.ptp(weak.probabilities) < 0.1 < np.ptp(strong.probabilities)


def test_permuted_labels_cannot_be_predicted(raw: pd.DataFrame) -> None:
    from sklearn.metrics import roc_auc_score

    permuted = raw.assign(diagnosis=np.random.default_rng(0).permutation(raw["diagnosis"]))
    predicted = resampling.predict_out_of_fold(permuted, training.build(1.0), Resampling(10, 1, 0))
    assert 0.4 < roc_auc_score(canonical.malignant(permuted), predicted.probabilities[:, 0]) < 0.6


def test_more_folds_than_patients_of_a_diagnosis_are_refused(raw: pd.DataFrame) -> None:
    with pytest.raises(TrainingError, match=r"213 folds need 213 patients .* the rarer has 212\. Set folds to 212"):
        resampling.predict_out_of_fold(raw, training.build(1.0), Resampling(213, 1, 0))


def test_a_model_fitted_from_another_folds_optimum_is_the_one_fitted_from_nothing(raw: pd.DataFrame) -> None:
    """Also where the penalty is weak, so that the usual tolerance would end 1e-6 short of the optimum."""
    model = training.build(100.0)
    predicted = resampling.predict_out_of_fold(raw, model, Resampling(5, 1, 0)).probabilities[:, 0]
    measurements, malignant = raw[list(columns.MEASUREMENTS)].to_numpy(), canonical.malignant(raw)
    exact = training.build(100.0).set_params(classifier__tol=1e-13)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    expected = cross_val_predict(exact, measurements, malignant, cv=folds, method="predict_proba")[:, 1]
    np.testing.assert_allclose(predicted, expected, rtol=0, atol=1e-9)
