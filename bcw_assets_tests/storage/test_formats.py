"""Every value comes back from its files unchanged, and its files are the same bytes each time."""

import json
import pickle
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from bcw_assets.errors import ArtifactError
from bcw_assets.ml.evaluation.report import Evaluation
from bcw_assets.ml.model.resampling import CrossValidation
from bcw_assets.ml.table import columns
from bcw_assets.storage import formats
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.formats import FORMATS, FormatError
from bcw_assets.storage.io_manager import ArtifactIOManager


@pytest.fixture(scope="session")
def values(made: dict[str, Any]) -> dict[type, Any]:
    return {type(value): value for value in made.values()}


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.__name__)
def test_a_loaded_value_is_written_as_it_was(values: dict[type, Any], kind: type) -> None:
    files = formats.dump(values[kind], "folder/name")
    assert formats.dump(values[kind], "folder/name") == files
    assert list(files) == formats.list_keys(kind, "folder/name")
    loaded = formats.load(kind, files)
    *tables, document = FORMATS[kind].dump(loaded)
    assert document == FORMATS[kind].dump(values[kind])[-1]
    assert kind is Pipeline or all(one in files.values() for one in tables)  # a pickle of equal numbers may differ


def test_a_loaded_model_predicts_exactly_what_the_trained_one_does(values: dict[type, Any], raw: pd.DataFrame) -> None:
    files = formats.dump(values[Pipeline], "results/model")
    loaded = formats.load(Pipeline, files)
    measurements = raw[list(columns.MEASUREMENTS)]
    expected = values[Pipeline].predict_proba(measurements)
    np.testing.assert_array_equal(loaded.predict_proba(measurements), expected)
    np.testing.assert_array_equal(pickle.loads(files["results/model.pkl"]).predict_proba(measurements), expected)


def test_the_numbers_of_model_json_are_enough_to_predict_by_hand(values: dict[type, Any], raw: pd.DataFrame) -> None:
    model = json.loads(formats.dump(values[Pipeline], "results/model")["results/model.json"])
    patient = raw.iloc[0]
    terms = [
        coefficient * (patient[name] - mean) / scale
        for name, mean, scale, coefficient in zip(
            model["features"], model["mean"], model["scale"], model["coefficients"], strict=True
        )
    ]
    probability = 1 / (1 + np.exp(-(model["intercept"] + sum(terms))))
    expected = values[Pipeline].predict_proba(raw[list(columns.MEASUREMENTS)].head(1))[0, 1]
    assert probability == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("old", "new"), [(b"newton-cholesky", b"lbfgs"), (b'"recipe": 1', b'"recipe": 2')])
def test_a_model_of_another_recipe_is_refused(values: dict[type, Any], old: bytes, new: bytes) -> None:
    files = formats.dump(values[Pipeline], "results/model")
    files["results/model.json"] = files["results/model.json"].replace(old, new)
    with pytest.raises(FormatError, match=r"it was fitted with .*, this version fits with"):
        formats.load(Pipeline, files)


def test_a_document_that_promises_a_thousand_million_repeats_is_refused_at_once(values: dict[type, Any]) -> None:
    files = formats.dump(values[CrossValidation], "results/cross_validation")
    document = files["results/cross_validation.json"].replace(b'"repeats": 10', b'"repeats": 1000000000')
    files["results/cross_validation.json"] = document
    with pytest.raises(FormatError, match="it has 10 repeats, and the document says 1000000000"):
        formats.load(CrossValidation, files)


def test_a_report_of_another_schema_is_not_called_damaged_and_the_command_that_makes_it_again_is_said(
    values: dict[type, Any], tmp_path: Path
) -> None:
    files = formats.dump(values[Evaluation], "results/metrics")
    document = files["results/metrics.json"].replace(b'"schema_version": 4', b'"schema_version": 5')
    FolderStore(tmp_path).write(files | {"results/metrics.json": document})
    with pytest.raises(ArtifactError) as error:
        ArtifactIOManager(FolderStore(tmp_path)).read(dg.AssetKey("metrics"), "results", Evaluation)
    assert str(error.value) == (
        "metrics cannot be used: another version of bcw_assets wrote it (its schema_version is 5, and this version "
        "reads 4). To make it: dagster asset materialize -m bcw_assets --select metrics"
    )


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        (b'"slope": {', b'"incline": {'),
        (b'"patients": 71', b'"patients": 71.5'),
        (b'"schema_version": 4', b'"schema_version": 4.0'),
        (b'"stratify": false', b'"stratify": 0'),
        (b'"false_positives": 1', b'"false_positives": -1'),
        (b'"rows": 569', b'"rows": 0'),
        (b'"interval": [', b'"interval": [0.5,'),
    ],
)
def test_a_report_with_less_or_other_things_in_it_is_refused(
    values: dict[type, Any], there: bytes, instead: bytes
) -> None:
    files = formats.dump(values[Evaluation], "results/metrics")
    assert there in files["results/metrics.json"]
    files["results/metrics.json"] = files["results/metrics.json"].replace(there, instead)
    with pytest.raises(FormatError, match=r"results/metrics\.json is not what this project writes"):
        formats.load(Evaluation, files)


@pytest.mark.parametrize(
    ("there", "instead"),
    [
        (b'"slope": {', b'"slope": {"p_value": 0.04, '),
        (b'"schema_version": 4', b'"schema_version": 4, "auc": 1.0'),
        (b'"pr_auc": {', b'"average_precision": {'),
    ],
)
def test_a_report_with_more_or_other_scores_as_another_version_writes_it_is_read(
    values: dict[type, Any], there: bytes, instead: bytes
) -> None:
    files = formats.dump(values[Evaluation], "results/metrics")
    assert there in files["results/metrics.json"]
    files["results/metrics.json"] = files["results/metrics.json"].replace(there, instead)
    report = formats.load(Evaluation, files).report
    assert report.select_published() == values[Evaluation].report.select_published()
    assert report.cross_validation["roc_auc"] == values[Evaluation].report.cross_validation["roc_auc"]


@pytest.mark.parametrize("name", ["model.pkl", "evaluation.png", "MODEL_CARD.md"])
def test_files_of_two_runs_are_refused_by_name(values: dict[type, Any], name: str) -> None:
    kind, asset = (Pipeline, "model") if name == "model.pkl" else (Evaluation, "metrics")
    files = formats.dump(values[kind], f"results/{asset}")
    files[f"results/{name}"] += b"."
    with pytest.raises(
        FormatError, match=rf"{name} and .*{asset}\.json are not of one run|{name}, .* are not of one run"
    ):
        formats.load(kind, files)


@pytest.mark.parametrize("text", [b"NaN", b"1e400", b'"many"', b"null", b"[]", b"[" * 100_000])
def test_a_document_with_another_thing_than_a_number_is_refused(values: dict[type, Any], text: bytes) -> None:
    files = formats.dump(values[Pipeline], "results/model")
    before = files["results/model.json"]
    files["results/model.json"] = before.replace(b'"intercept": -0.44', b'"intercept": ' + text + b', "rest": 0.44')
    assert files["results/model.json"] != before
    with pytest.raises(FormatError, match=r"results/model"):
        formats.load(Pipeline, files)
