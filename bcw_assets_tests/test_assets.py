"""The graph on the real table: what it leaves, from which forms, stage by stage, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from bcw_assets.ml.evaluation.report import PUBLISHED
from bcw_assets.ml.model import resampling
from bcw_assets.ml.table import canonical
from bcw_assets.releases import log
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import Graph, on_disk_only, once_elsewhere, why
from bcw_assets_tests.ml.table.test_canonical import REFUSED
from bcw_assets_tests.tables import shuffled, uci_form

NAMES = ["raw_data", "ready_data", "model", "cross_validation", "metrics"]
STORED_IN = {
    "raw_data": "data/raw_data.csv",
    "ready_data": "data/ready_data.json",
    "model": "results/model.json",
    "cross_validation": "results/cross_validation.json",
    "metrics": "results/metrics.json",
    "release": "releases",
}
FINGERPRINT = "ae5f3663df59b8d56b571fb9ff28b36cfba023a6075f2d98c2d5a9e76a6499b2"


def metrics(graph: Graph) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(graph.files()["results/metrics.json"])
    return loaded


@on_disk_only  # a run on S3 leaves the same, byte for byte
def test_a_refresh_leaves_the_numbers_of_the_publication_and_of_the_design(graph: Graph) -> None:
    assert graph.refresh().success
    found = metrics(graph)
    assert list(found)[:4] == ["accuracy", "precision", "recall", "f1_score"]
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED
    assert found["confusion"] == {
        "true_positives": 41, "false_positives": 1, "false_negatives": 2, "true_negatives": 70,
    }  # fmt: skip
    means = {name: summary["estimate"] for name, summary in found["cross_validation"].items()}
    expected = {"accuracy": 0.979, "sensitivity": 0.964, "ppv": 0.980, "roc_auc": 0.995, "log_loss": 0.074}
    assert {name: means[name] for name in expected} == pytest.approx(expected, abs=0.0005)


def test_a_refresh_leaves_these_files_and_no_other(graph: Graph) -> None:
    graph.run()
    assert sorted(graph.files()) == [
        "data/raw_data.csv",
        "data/ready_data.csv",
        "data/ready_data.json",
        "results/MODEL_CARD.md",
        "results/cross_validation.csv",
        "results/cross_validation.json",
        "results/evaluation.png",
        "results/metrics.json",
        "results/model.json",
        "results/model.pkl",
    ]


@on_disk_only
def test_two_runs_leave_the_same_bytes(graph: Graph) -> None:
    graph.refresh()
    first = graph.files()
    graph.refresh()
    assert graph.files() == first


on_s3_only = pytest.mark.parametrize("place", ["s3"], indirect=True)


@on_s3_only
def test_a_run_on_s3_leaves_byte_for_byte_what_a_run_on_disk_leaves_and_tells_the_uris(
    graph: Graph, tmp_path: Path
) -> None:
    result = graph.refresh()
    assert result.success
    told = {name: result.asset_materializations_for_node(name)[0].metadata["path"].value for name in STORED_IN}
    assert told == {name: f"{graph.place}/{key}" for name, key in STORED_IN.items()}
    on_disk = graph.at(str(tmp_path / "on disk"))
    assert on_disk.refresh().success
    files = comparable(graph.store)
    assert files == comparable(on_disk.store)
    assert {key.partition("/")[0] for key in files} == {"data", "results", "releases"}


def comparable(store: Store) -> dict[str, Any]:
    """Return all that is in a store; of its one entry of the log, what does not tell one run from another."""
    (entry,) = log.read(store).entries
    same = replace(entry, run="", made="", nonce="")
    return {key: store.read(key) for key in store.list("")} | {"releases/log/000001.json": same}


@on_s3_only
def test_releases_alone_can_be_on_s3(graph: Graph, tmp_path: Path) -> None:
    folder = tmp_path / "on disk"
    result = graph.at(str(folder)).run(releases=graph.place)
    assert result.success
    told = result.asset_materializations_for_node("release")[0].metadata
    assert told["path"].value == f"{graph.place}/releases"
    assert told["bundle"].value == f"{graph.place}/releases/{told['release'].value}"
    assert f"releases/{told['release'].value}/manifest.json" in graph.store.list("")
    assert {key.partition("/")[0] for key in graph.store.list("")} == {"releases"}
    assert sorted(path.name for path in folder.iterdir()) == ["data", "results"]


@on_disk_only
def test_every_form_and_order_of_the_table_gives_the_same_fingerprint_split_and_numbers(graph: Graph) -> None:
    graph.prepare()
    of_uci = graph.files()
    own = graph.folder / "own.csv"
    own.write_bytes(of_uci["data/raw_data.csv"])
    header, *lines = own.read_bytes().splitlines(keepends=True)
    forms = {
        "UCI's rows in another order": shuffled(uci_form()),
        "our own form": own.read_bytes(),
        "our own form in another order": header + shuffled(b"".join(lines)),
    }
    for form, content in forms.items():
        graph.source.write_bytes(content)
        assert graph.run().success
        assert graph.files() == of_uci, form
    numbers = metrics(graph)
    assert graph.run(source="embedded").success  # it has no ids, so only they differ
    embedded = graph.files()
    for report in (numbers, without_ids := metrics(graph)):
        del report["sha256"]
        for patient in (*report["hardest_rows"], *report["label_suspects"]):
            del patient["id"]
    assert without_ids == numbers
    assert without_ids["provenance"]["fingerprint"] == FINGERPRINT
    splits = [
        [line.split(b",")[1:] for line in files["data/ready_data.csv"].splitlines()] for files in (of_uci, embedded)
    ]
    assert splits[0] == splits[1]


@pytest.mark.every_store
def test_each_asset_runs_alone_on_what_an_earlier_process_stored(graph: Graph) -> None:
    graph.prepare()
    before = graph.files()
    for name in NAMES:
        with dg.DagsterInstance.ephemeral() as another:
            graph.instance = another
            result = graph.run(name)
        assert result.success, name
        assert [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()] == [name]
        assert graph.files() == before, name


UPSTREAM = [
    ("ready_data", "raw_data"),
    ("model", "ready_data"),
    ("cross_validation", "raw_data"),
    ("cross_validation", "model"),
    ("metrics", "raw_data"),
    ("metrics", "ready_data"),
    ("metrics", "model"),
    ("metrics", "cross_validation"),
]


def test_a_missing_upstream_is_named_with_the_command_that_makes_it(graph: Graph) -> None:
    graph.prepare()
    stored = graph.files()
    for name, missing in UPSTREAM:
        gone = {key: content for key, content in stored.items() if key.partition("/")[2].startswith(f"{missing}.")}
        for key in gone:
            graph.store.delete(key)
        result = graph.run(name)
        assert not result.success, (name, missing)
        assert f"{missing} has not been materialised" in why(result), name
        assert f"dagster asset materialize -m bcw_assets --select {missing}" in why(result), name
        graph.store.write(gone)


@once_elsewhere(
    "changed,config,to_run_again",
    [
        ("ready_data", {"ready_data": {"seed": 7}}, "model"),
        ("ready_data", {"ready_data": {"stratify": True}}, "model"),
        ("model", {"model": {"C": 0.01}}, "cross_validation"),
    ],
)
def test_metrics_refuses_artifacts_that_do_not_belong_together(
    graph: Graph, changed: str, config: dict[str, object], to_run_again: str
) -> None:
    graph.prepare()
    assert graph.run(changed, config=config).success
    before = graph.files()
    result = graph.run("metrics")
    assert not result.success
    assert f"--select {to_run_again}" in why(result)
    assert graph.files() == before


def test_metrics_refuses_artifacts_of_another_table(graph: Graph) -> None:
    graph.prepare()
    graph.source.write_bytes(b"".join(uci_form().splitlines(keepends=True)[:300]))
    graph.run("raw_data")
    assert "--select ready_data" in why(graph.run("metrics"))
    graph.run("ready_data")
    assert "--select model" in why(graph.run("metrics"))
    graph.run("model")
    assert "--select cross_validation" in why(graph.run("metrics"))
    graph.run("cross_validation")
    assert graph.run("metrics").success


def test_a_knob_of_every_stage_reaches_the_report(graph: Graph) -> None:
    config: dict[str, object] = {
        "ready_data": {"test_size": 0.3, "seed": 1, "stratify": True},
        "model": {"C": 0.5},
        "cross_validation": {"folds": 5, "repeats": 2, "seed": 9},
    }
    assert graph.run(config=config).success
    found = metrics(graph)["provenance"]
    assert found["split"] == config["ready_data"]
    assert found["resampling"] == config["cross_validation"]
    assert found["settings"] == {"C": 0.5, "solver": "newton-cholesky", "tol": 1e-8, "max_iter": 100, "recipe": 1}


def test_a_knob_that_this_table_cannot_bear_is_explained_and_changes_nothing(graph: Graph) -> None:
    graph.prepare()
    before = graph.files()
    knobs: list[tuple[str, dict[str, object], str]] = [
        ("ready_data", {"test_size": 0.001}, "leaves 0 malignant among 1 test rows"),
        ("ready_data", {"test_size": 0.999}, "cannot divide 569 rows"),
        ("cross_validation", {"folds": 213}, "213 folds need 213 patients of each diagnosis"),
    ]
    for name, config, says in knobs:
        result = graph.run(name, config={name: config})
        assert not result.success, says
        assert says in why(result)
        assert graph.files() == before, says


@on_disk_only
def test_a_knob_out_of_its_range_fails_the_run(graph: Graph) -> None:
    graph.prepare()
    knobs: list[tuple[str, dict[str, object]]] = [
        ("ready_data", {"test_size": 1}),
        ("ready_data", {"seed": -1}),
        ("model", {"C": 0}),
        ("model", {"C": float("inf")}),
        ("model", {"C": float("nan")}),
        ("cross_validation", {"folds": 1}),
        ("cross_validation", {"repeats": 0}),
    ]
    for name, config in knobs:
        assert not graph.run(name, config={name: config}).success, config


@on_disk_only
def test_a_table_of_300_rows_is_welcome(graph: Graph) -> None:
    graph.source.write_bytes(b"".join(shuffled(uci_form()).splitlines(keepends=True)[:300]))
    assert graph.run().success
    assert metrics(graph)["provenance"]["rows"] == 300


def test_a_table_that_cannot_be_read_fails_the_run_by_line_and_changes_nothing(graph: Graph) -> None:
    graph.prepare()
    before = graph.files()
    lines = uci_form().splitlines(keepends=True)
    lines[11] = lines[11].replace(b",M,", b",X,").replace(b",B,", b",X,")
    graph.source.write_bytes(b"".join(lines))
    result = graph.run()
    assert "Line 12, id" in why(result)
    assert "diagnosis is 'X'; allowed is M or B" in why(result)
    assert graph.files() == before


@on_disk_only
def test_after_every_refusal_all_artifacts_are_byte_for_byte_what_they_were(graph: Graph) -> None:
    graph.prepare()
    before = graph.files()
    for name, (content, says) in REFUSED.items():
        graph.source.write_bytes(content)
        result = graph.run("raw_data")
        assert not result.success, name
        assert says in why(result), name
        assert graph.files() == before, name


@on_disk_only
def test_a_model_of_the_same_table_in_other_units_is_refused(graph: Graph) -> None:
    graph.prepare()
    lines = [line.split(",") for line in uci_form().decode().splitlines()]
    for line in lines:
        for texture in (3, 13, 23):  # in half grey levels, which no rule can tell
            line[texture] = str(float(line[texture]) * 2)
    graph.source.write_text("".join(",".join(line) + "\n" for line in lines))
    assert graph.run("raw_data", "ready_data", "cross_validation").success
    result = graph.run("metrics")
    assert "model was not trained on the ready_data stored now. To make it:" in why(result)
    assert "--select model" in why(result)


def test_an_artifact_that_another_run_replaced_meanwhile_stops_this_one(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_fold = resampling.out_of_fold

    def while_another_run_is_at_work(*arguments: Any) -> Any:
        assert graph.run("model", config={"model": {"C": 0.5}}).success
        return out_of_fold(*arguments)

    monkeypatch.setattr(resampling, "out_of_fold", while_another_run_is_at_work)
    result = graph.run()
    assert not result.success
    assert "model was replaced by another run while this one was at work" in why(result)
    assert "results/metrics.json" not in graph.files()


@on_disk_only
def test_the_ui_gets_rows_columns_source_fingerprint_and_plotted_numbers(graph: Graph) -> None:
    result = graph.refresh()
    of = {name: result.asset_materializations_for_node(name)[0].metadata for name in NAMES}
    assert of["raw_data"]["dagster/row_count"].value == 569
    assert of["raw_data"]["source"].value == str(graph.source)
    assert of["raw_data"]["fingerprint"].value == FINGERPRINT
    columns = {column.name: column for column in of["raw_data"]["dagster/column_schema"].value.columns}
    assert len(columns) == 32
    assert "[grey levels]" in (columns["texture_mean"].description or "")
    assert of["metrics"]["accuracy"].value == PUBLISHED["accuracy"]
    assert of["metrics"]["cv_sensitivity"].value == pytest.approx(0.964, abs=0.0005)
    assert "| recall | 0.9535 | 0.9535 |" in str(of["metrics"]["beside the published numbers"].value)


@on_disk_only
def test_the_table_without_ids_is_numbered_in_the_files_order(graph: Graph) -> None:
    graph.run("raw_data", source="embedded")
    ids = canonical.read(graph.files()["data/raw_data.csv"], "raw_data.csv")["id"]
    assert (ids.iloc[0], ids.iloc[-1]) == ("row-0001", "row-0569")
