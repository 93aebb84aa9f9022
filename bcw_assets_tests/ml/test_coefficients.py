"""Coefficients: their signs in refits, and where they oppose the measurement alone."""

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bcw_assets.ml import bootstrap, coefficients, columns, preparation, training


def test_they_are_the_models_the_largest_first(made: dict[str, Any]) -> None:
    found = made["metrics"].report.coefficients
    values = dict(zip(columns.MEASUREMENTS, made["model"]["classifier"].coef_[0], strict=True))
    assert {one.measurement: one.coefficient for one in found} == values
    assert [abs(one.coefficient) for one in found] == sorted(map(abs, values.values()), reverse=True)


def test_the_signs_are_those_of_refits_by_scikit_learn(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coefficients, "REFITS", 20)
    ready, model = made["ready_data"], made["model"]
    measurements, malignant = ready.measurements(preparation.TRAIN), ready.malignant(preparation.TRAIN)
    signs = []
    for weights in bootstrap.draws(malignant, 20, 3)[0].T:
        refitted = training.build(1.0)["classifier"].fit(measurements, malignant, sample_weight=weights)
        signs.append(np.sign(refitted.coef_[0]) == np.sign(model["classifier"].coef_[0]))
    expected = dict(zip(columns.MEASUREMENTS, np.mean(signs, axis=0), strict=True))
    assert {one.measurement: one.sign_stability for one in coefficients.describe(ready, model, 3)} == pytest.approx(
        expected
    )


def test_the_areas_alone_are_scikit_learns(made: dict[str, Any]) -> None:
    ready = made["ready_data"]
    measurements, malignant = ready.measurements(preparation.TRAIN), ready.malignant(preparation.TRAIN)
    for one in made["metrics"].report.coefficients:
        column = measurements[:, columns.MEASUREMENTS.index(one.measurement)]
        assert one.univariate_auc == pytest.approx(roc_auc_score(malignant, column), abs=1e-12)


def test_signs_by_collinearity_are_marked(made: dict[str, Any]) -> None:
    opposing = {one.measurement for one in made["metrics"].report.coefficients if one.opposes_univariate}
    assert {"compactness_se", "fractal_dimension_se", "compactness_mean"} <= opposing
    assert {"texture_worst", "radius_se", "concave_points_mean"} & opposing == set()


def test_without_an_optimum_no_sign_is_called_stable(made: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coefficients, "REFITS", 3)
    unpenalised = deepcopy(made["model"])  # hardly a penalty: the training rows are separated
    unpenalised["classifier"].set_params(C=1e14)
    found = coefficients.describe(made["ready_data"], unpenalised, 0)
    assert {one.sign_stability for one in found} == {None}
