"""Coefficients: their errors against second sources, and where they oppose the measurement alone."""

import math
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import statsmodels.api as statsmodels
from scipy.special import expit
from scipy.stats import norm

from bcw_assets.ml.model import coefficients, preparation, training
from bcw_assets.ml.table import columns


def test_the_errors_are_statsmodels_hc3_where_there_is_no_penalty() -> None:
    random = np.random.default_rng(0)
    measurements = random.normal(size=(150, 3))
    malignant = (random.random(150) < expit(measurements @ [1.0, -0.5, 0.0] + 0.2)).astype(int)
    classifier = training.build(1e12)["classifier"].fit(measurements, malignant)
    predicted = classifier.predict_proba(measurements)[:, 1]
    weights = predicted * (1 - predicted)
    # The last step of iteratively reweighted least squares; statsmodels' GLM takes the leverages of the unweighted one.
    response = classifier.decision_function(measurements) + (malignant - predicted) / weights
    model = statsmodels.WLS(response, statsmodels.add_constant(measurements), weights=weights)
    errors = coefficients.estimate_standard_errors(measurements, malignant, classifier)
    np.testing.assert_allclose(errors, model.fit().HC3_se[1:], rtol=1e-6)


def test_the_errors_are_those_of_leaving_out_each_patient(made: dict[str, Any]) -> None:
    ready, classifier = made["ready_data"], made["model"]["classifier"]
    measurements, malignant = ready.select_measurements(preparation.TRAIN), ready.select_truths(preparation.TRAIN)
    refitted = training.build(1.0)["classifier"].set_params(warm_start=True)
    rows = np.arange(len(malignant))
    moved = [refitted.fit(measurements[rows != row], malignant[rows != row]).coef_[0].copy() for row in rows]
    jackknife = np.sqrt(((np.array(moved) - classifier.coef_[0]) ** 2).sum(axis=0))
    errors = coefficients.estimate_standard_errors(measurements, malignant, classifier)
    np.testing.assert_allclose(errors, jackknife, rtol=0.2)  # one of Newton's steps beside all of them


def test_the_report_has_the_models_coefficients_how_stable_their_signs_are_and_which_oppose(
    made: dict[str, Any],
) -> None:
    rows, classifier = made["metrics"].report.coefficients, made["model"]["classifier"]
    values = dict(zip(columns.MEASUREMENTS, classifier.coef_[0], strict=True))
    assert {row.measurement: row.coefficient for row in rows} == values
    assert [abs(row.coefficient) for row in rows] == sorted(map(abs, values.values()), reverse=True)
    ready = made["ready_data"]
    errors = coefficients.estimate_standard_errors(
        ready.select_measurements(preparation.TRAIN), ready.select_truths(preparation.TRAIN), classifier
    )
    stability = {row.measurement: row.sign_stability for row in rows}
    expected = norm.cdf(np.abs(classifier.coef_[0]) / errors)
    assert stability == pytest.approx(dict(zip(columns.MEASUREMENTS, expected, strict=True)))
    assert (stability["texture_worst"] > 0.999, stability["compactness_worst"] < 0.55) == (True, True)
    opposing = {row.measurement for row in rows if row.opposes_univariate}
    assert {"compactness_se", "fractal_dimension_se", "compactness_mean"} <= opposing
    assert {"texture_worst", "radius_se", "concave_points_mean"} & opposing == set()


def test_where_everybody_is_predicted_without_doubt_no_sign_is_called_stable(made: dict[str, Any]) -> None:
    certain = deepcopy(made["model"])
    certain["classifier"].set_params(C=math.inf).coef_ *= 1e4
    rows = coefficients.describe_coefficients(made["ready_data"], certain)
    assert {row.sign_stability for row in rows} == {None}
