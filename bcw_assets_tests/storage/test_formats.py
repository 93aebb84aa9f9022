"""Every value comes back from its files unchanged, and its files are the same bytes each time."""

import json
import pickle
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.pipeline import Pipeline

from bcw_assets.errors import ArtifactError
from bcw_assets.locations import CSV_SUFFIX, PARQUET_SUFFIX
from bcw_assets.ml.evaluation.report import Evaluation
from bcw_assets.ml.table import columns
from bcw_assets.storage import formats
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.formats import FORMATS, FormatError
from bcw_assets.storage.io_manager import ArtifactIOManager

Values = dict[str, Any]  # the fixture `made`: of every asset on the real table


def change(made: Values, asset: str, old: str, new: str) -> dict[str, bytes]:
    """Return the files of an asset with something else in its document."""
    files, key = formats.dump(made[asset], f"results/{asset}"), f"results/{asset}.json"
    assert old in files[key].decode()
    return files | {key: files[key].replace(old.encode(), new.encode())}


@pytest.mark.parametrize("suffix", [CSV_SUFFIX, PARQUET_SUFFIX])
@pytest.mark.parametrize("asset", ["raw_data", "ready_data", "model", "cross_validation", "metrics"])
def test_a_loaded_value_is_written_as_it_was(
    made: Values, asset: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "MOST_ROWS_OF_CSV", {CSV_SUFFIX: 569, PARQUET_SUFFIX: 568}[suffix])
    value, kind = made[asset], type(made[asset])
    files = formats.dump(value, "folder/name")
    assert formats.dump(value, "folder/name") == files
    assert list(files) == formats.list_keys(kind, "folder/name", suffix)
    for content, again in zip(FORMATS[kind].dump(value), FORMATS[kind].dump(formats.load(kind, files)), strict=True):
        if isinstance(content, pd.DataFrame) and isinstance(again, pd.DataFrame):
            pd.testing.assert_frame_equal(again, content, check_exact=True)
        else:
            assert again == content


def test_a_loaded_model_predicts_exactly_what_the_trained_one_does_and_its_numbers_are_enough_for_it(
    made: Values, raw: pd.DataFrame
) -> None:
    files = formats.dump(made["model"], "results/model")
    measurements = raw[list(columns.MEASUREMENTS)]
    expected = made["model"].predict_proba(measurements)
    for model in (formats.load(Pipeline, files), pickle.loads(files["results/model.pkl"])):
        np.testing.assert_array_equal(model.predict_proba(measurements), expected)
    numbers = json.loads(files["results/model.json"])
    terms = (raw[numbers["features"]] - numbers["mean"]) / numbers["scale"] * numbers["coefficients"]
    by_hand = 1 / (1 + np.exp(-(numbers["intercept"] + terms.sum(axis=1))))
    np.testing.assert_allclose(by_hand, expected[:, 1], rtol=0, atol=1e-12)


REFUSALS = yaml.safe_load(Path(__file__).with_name("refusals.yaml").read_text())
NO_NUMBERS = ["NaN", "1e400", '"many"', "null", "[" * 100_000]
REFUSALS += [["model", '"intercept": -', f'"intercept": {text}, "x": -', "results/model"] for text in NO_NUMBERS]


@pytest.mark.parametrize(("asset", "old", "new", "says"), REFUSALS, ids=lambda text: str(text)[:30])
def test_a_document_with_less_or_other_things_in_it_is_refused(
    made: Values, asset: str, old: str, new: str, says: str
) -> None:
    with pytest.raises(FormatError, match=says):
        formats.load(type(made[asset]), change(made, asset, old, new))


def test_a_report_of_another_schema_is_not_called_damaged_and_the_command_that_makes_it_again_is_said(
    made: Values, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path)
    store.write(change(made, "metrics", '"schema_version": 4', '"schema_version": 5'))
    with pytest.raises(ArtifactError) as error:
        ArtifactIOManager(store).read(dg.AssetKey("metrics"), "results", Evaluation)
    assert str(error.value) == (
        "metrics cannot be used: another version of bcw_assets wrote it (its schema_version is 5, and this version "
        "reads 4). To make it: bcw refresh metrics; or everything: bcw refresh"
    )


def test_a_report_with_more_or_other_scores_as_another_version_writes_it_is_read(made: Values) -> None:
    for old, new in (('"slope": {', '"slope": {"p_value": 0.04, '), ('"pr_auc": {', '"average_precision": {')):
        report = formats.load(Evaluation, change(made, "metrics", old, new)).report
        assert report.accuracy == made["metrics"].report.accuracy
        assert report.cross_validation["roc_auc"] == made["metrics"].report.cross_validation["roc_auc"]


def test_files_of_two_runs_are_refused_by_name(made: Values) -> None:
    for asset, file in (("model", "model.pkl"), ("metrics", "MODEL_CARD.md")):
        files = formats.dump(made[asset], f"results/{asset}")
        files[f"results/{file}"] += b"."
        with pytest.raises(FormatError, match=rf"{file} and .*{asset}\.json are not of one run"):
            formats.load(type(made[asset]), files)
