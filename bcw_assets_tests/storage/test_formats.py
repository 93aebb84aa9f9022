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


def change(value: object, key: str, old: bytes, new: bytes) -> dict[str, bytes]:
    """Return the files of a value with something else in its document."""
    files = formats.dump(value, key)
    assert old in files[f"{key}.json"]
    return files | {f"{key}.json": files[f"{key}.json"].replace(old, new)}


@pytest.mark.parametrize("kind", FORMATS, ids=lambda kind: kind.__name__)
def test_a_loaded_value_is_written_as_it_was(values: dict[type, Any], kind: type) -> None:
    files = formats.dump(values[kind], "folder/name")
    assert formats.dump(values[kind], "folder/name") == files
    assert list(files) == formats.list_keys(kind, "folder/name")
    *tables, document = FORMATS[kind].dump(formats.load(kind, files))
    assert document == FORMATS[kind].dump(values[kind])[-1]
    assert kind is Pipeline or all(table in files.values() for table in tables)  # a pickle of equal numbers may differ


def test_a_loaded_model_predicts_exactly_what_the_trained_one_does_and_its_numbers_are_enough_for_it(
    values: dict[type, Any], raw: pd.DataFrame
) -> None:
    files = formats.dump(values[Pipeline], "results/model")
    measurements = raw[list(columns.MEASUREMENTS)]
    expected = values[Pipeline].predict_proba(measurements)
    for model in (formats.load(Pipeline, files), pickle.loads(files["results/model.pkl"])):
        np.testing.assert_array_equal(model.predict_proba(measurements), expected)
    numbers = json.loads(files["results/model.json"])
    terms = (raw[numbers["features"]] - numbers["mean"]) / numbers["scale"] * numbers["coefficients"]
    by_hand = 1 / (1 + np.exp(-(numbers["intercept"] + terms.sum(axis=1))))
    np.testing.assert_allclose(by_hand, expected[:, 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("old", "new"), [(b"newton-cholesky", b"lbfgs"), (b'"recipe": 1', b'"recipe": 2')])
def test_a_model_of_another_recipe_is_refused(values: dict[type, Any], old: bytes, new: bytes) -> None:
    with pytest.raises(FormatError, match=r"it was fitted with .*, this version fits with"):
        formats.load(Pipeline, change(values[Pipeline], "results/model", old, new))


def test_a_document_that_promises_a_thousand_million_repeats_is_refused_at_once(values: dict[type, Any]) -> None:
    old, new = b'"repeats": 10', b'"repeats": 1000000000'
    with pytest.raises(FormatError, match="it has 10 repeats, and the document says 1000000000"):
        formats.load(CrossValidation, change(values[CrossValidation], "results/cross_validation", old, new))


def test_a_report_of_another_schema_is_not_called_damaged_and_the_command_that_makes_it_again_is_said(
    values: dict[type, Any], tmp_path: Path
) -> None:
    store = FolderStore(tmp_path)
    store.write(change(values[Evaluation], "results/metrics", b'"schema_version": 4', b'"schema_version": 5'))
    with pytest.raises(ArtifactError) as error:
        ArtifactIOManager(store).read(dg.AssetKey("metrics"), "results", Evaluation)
    assert str(error.value) == (
        "metrics cannot be used: another version of bcw_assets wrote it (its schema_version is 5, and this version "
        "reads 4). To make it: dagster asset materialize -m bcw_assets --select metrics"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"slope": {', b'"incline": {'),
        (b'"patients": 71', b'"patients": 71.5'),
        (b'"stratify": false', b'"stratify": 0'),
        (b'"rows": 569', b'"rows": 0'),
        (b'"interval": [', b'"interval": [0.5,'),
    ],
)
def test_a_report_with_less_or_other_things_in_it_is_refused(values: dict[type, Any], old: bytes, new: bytes) -> None:
    with pytest.raises(FormatError, match=r"results/metrics\.json is not what this project writes"):
        formats.load(Evaluation, change(values[Evaluation], "results/metrics", old, new))


@pytest.mark.parametrize(
    ("old", "new"), [(b'"slope": {', b'"slope": {"p_value": 0.04, '), (b'"pr_auc": {', b'"average_precision": {')]
)
def test_a_report_with_more_or_other_scores_as_another_version_writes_it_is_read(
    values: dict[type, Any], old: bytes, new: bytes
) -> None:
    report = formats.load(Evaluation, change(values[Evaluation], "results/metrics", old, new)).report
    assert report.select_published() == values[Evaluation].report.select_published()
    assert report.cross_validation["roc_auc"] == values[Evaluation].report.cross_validation["roc_auc"]


@pytest.mark.parametrize(
    ("kind", "asset", "file"), [(Pipeline, "model", "model.pkl"), (Evaluation, "metrics", "MODEL_CARD.md")]
)
def test_files_of_two_runs_are_refused_by_name(values: dict[type, Any], kind: type, asset: str, file: str) -> None:
    files = formats.dump(values[kind], f"results/{asset}")
    files[f"results/{file}"] += b"."
    with pytest.raises(FormatError, match=rf"{file} and .*{asset}\.json are not of one run"):
        formats.load(kind, files)


@pytest.mark.parametrize("text", [b"NaN", b"1e400", b'"many"', b"null", b"[" * 100_000])
def test_a_document_with_another_thing_than_a_number_is_refused(values: dict[type, Any], text: bytes) -> None:
    new = b'"intercept": ' + text + b', "rest": 0.44'
    with pytest.raises(FormatError, match=r"results/model"):
        formats.load(Pipeline, change(values[Pipeline], "results/model", b'"intercept": -0.44', new))
