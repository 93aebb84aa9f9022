"""The graph on the real table: what it leaves, stage by stage, and what it refuses."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from bcw_assets.cli import checks
from bcw_assets.ml.evaluation.report import PUBLISHED_SCORES
from bcw_assets.ml.model import resampling
from bcw_assets.ml.table import admission, canonical
from bcw_assets.releases import log
from bcw_assets.storage import formats
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests.conftest import ASSETS, Golden, Graph, contents, why
from bcw_assets_tests.tables import uci_form

HEADLINE = ["accuracy", "sensitivity", "specificity", "ROC AUC", "log loss"]
Refresh = tuple[Graph, dg.ExecuteInProcessResult]


@pytest.fixture(scope="module")
def full_refresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refresh]:
    """A refresh with the defaults of the project, for tests that only look at what it leaves."""
    folder = tmp_path_factory.mktemp("full_refresh")
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(folder, str(folder / "store"), instance)
        result = graph.refresh()
        assert result.success
        yield graph, result


def read_metrics(graph: Graph) -> Any:
    return json.loads(graph.files()["results/metrics.json"])


def comparable(store: Store) -> dict[str, Any]:
    """Return all that is stored but for what differs: when its one release was made."""
    (entry,) = log.read_log(store).entries
    return contents(store) | {"releases/log/000001.json": replace(entry, run="", made="", nonce="")}


def test_a_refresh_leaves_the_numbers_of_the_publication_and_of_the_design(full_refresh: Refresh) -> None:
    metrics = read_metrics(full_refresh[0])
    assert list(metrics)[:4] == ["accuracy", "precision", "recall", "f1_score"]
    assert {name: metrics[name] for name in PUBLISHED_SCORES} == PUBLISHED_SCORES
    assert metrics["confusion"] == {
        "true_positives": 41, "false_positives": 1, "false_negatives": 2, "true_negatives": 70,
    }  # fmt: skip
    means = {name: summary["estimate"] for name, summary in metrics["cross_validation"].items()}
    expected = {"accuracy": 0.979, "sensitivity": 0.964, "ppv": 0.980, "roc_auc": 0.995, "log_loss": 0.074}
    assert {name: means[name] for name in expected} == pytest.approx(expected, abs=0.0005)


def test_two_runs_leave_the_same_and_parse_nothing_that_they_wrote(
    full_refresh: Refresh, graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(formats, "load")
    assert graph.refresh().success
    assert comparable(graph.store) == comparable(full_refresh[0].store)


def test_a_page_of_the_ui_begins_with_what_people_ask_first_and_plots_what_moves(full_refresh: Refresh) -> None:
    graph, result = full_refresh
    of = {name: result.asset_materializations_for_node(name)[0].metadata for name in ASSETS}
    assert of["raw_data"]["source"].value == str(graph.source)
    assert list(of["raw_data"])[:3] == ["source", "malignant", "first rows"]
    assert of["raw_data"]["malignant"].value == "212 of 569 patients (37.3 %)"
    assert of["raw_data"]["fingerprint"].value == canonical.UCI_FINGERPRINT[:16]
    columns = {column.name: column for column in of["raw_data"]["columns"].value.columns}
    assert len(columns) == 32
    assert "[grey levels]" in (columns["texture_mean"].description or "")
    assert list(of["metrics"])[:4] == ["figure", "scores", "model card", "published split, 114 rows"]
    scores, card, published = (str(of["metrics"][name].value) for name in list(of["metrics"])[1:4])
    assert re.search("sensitivity +\\| 0.964 +\\| 0.930\u00a0to\u00a00.982 ", scores)
    assert len(scores) < 1000  # longer Markdown hides behind a click
    assert card.startswith("\n# Malignant or benign?")
    assert "evaluation.png" not in card.partition("## ")[0]
    assert re.search(r"recall +\| 0\.9535 +\| 0\.9535 ", published)
    facts = [entry for name in ASSETS for entry in of[name].items() if not entry[0].startswith("dagster/")]
    plotted = {name: entry.value for name, entry in facts if type(entry.value) in (int, float)}
    assert list(plotted)[:5] == [f"{name}, cross-validated" for name in HEADLINE]
    assert list(plotted)[5:] == ["calibration slope", "doubtful labels"]
    assert plotted["sensitivity, cross-validated"] == pytest.approx(0.964, abs=0.0005)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_run_on_s3_leaves_what_a_run_on_disk_leaves_and_records_the_uris(graph: Graph, golden: Golden) -> None:
    result = graph.run()
    assert result.success
    events = [event.materialization for event in result.get_asset_materialization_events()]
    assert {event.asset_key: event.metadata["path"].value for event in events} == graph.places()
    assert graph.places()[dg.AssetKey("model")] == f"{graph.place}/results/model.json"
    assert comparable(graph.store) == comparable(open_store(golden.place))


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_releases_alone_can_be_on_s3(graph: Graph, tmp_path: Path) -> None:
    result = graph.at(str(tmp_path / "disk")).run(releases=graph.place)
    assert result.success
    facts = result.asset_materializations_for_node("release")[0].metadata
    assert facts["bundle"].value == f"{graph.place}/releases/{facts['release'].value}"
    assert {key.partition("/")[0] for key in graph.store.list("")} == {"releases"}
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == ["data", "results"]


def test_a_table_without_ids_gives_the_same_but_for_the_ids(graph: Graph) -> None:
    graph.prepare()
    with_ids, lines = read_metrics(graph), graph.files()["data/ready_data.csv"].splitlines()
    assert graph.run(source="embedded").success
    without_ids, numbered = read_metrics(graph), graph.files()["data/ready_data.csv"].splitlines()
    assert (numbered[1].partition(b",")[0], numbered[-1].partition(b",")[0]) == (b"row-0001", b"row-0569")
    assert [line.partition(b",")[2] for line in numbered] == [line.partition(b",")[2] for line in lines]
    for report in (with_ids, without_ids):
        del report["sha256"]
        for patient in (*report["hardest_rows"], *report["label_suspects"]):
            del patient["id"]
    assert without_ids == with_ids


def test_each_asset_runs_alone_on_what_an_earlier_process_stored(graph: Graph) -> None:
    graph.prepare()
    before = comparable(graph.store)
    for name in ASSETS:
        result = graph.without_history().run(name)
        assert result.success, name
        assert [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()] == [name]
        assert {evaluation.asset_key.to_user_string() for evaluation in result.get_asset_check_evaluations()} == {name}
        assert comparable(graph.store) == before, name
    for key in graph.store.list("releases/"):
        graph.store.delete(key)
    assert graph.without_history().run("release").success
    assert comparable(graph.store) == before


def test_a_large_table_is_stored_as_parquet_with_the_same_numbers_and_the_same_release(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.prepare()
    as_csv, numbers = graph.files(), read_metrics(graph)
    shuffled = graph.folder / "table.parquet"
    admission.read_table(uci_form(), "UCI's").sample(frac=1, random_state=0).to_parquet(shuffled)
    for form, most_rows, source in (("parquet", 568, graph.source), ("parquet", 568, shuffled), ("csv", 569, shuffled)):
        monkeypatch.setattr(formats, "MOST_ROWS_OF_CSV", most_rows)
        result = graph.run(source=str(source))
        assert result.success
        assert result.asset_materializations_for_node("release")[0].metadata["result"].value == "unchanged"
        assert checks.read_report(graph.instance, graph.places())["good"]
        assert read_metrics(graph) == numbers
        assert {key.rpartition(".")[2] for key in graph.files() if key.endswith((".csv", ".parquet"))} == {form}
    assert graph.files() == as_csv


def test_a_missing_upstream_is_named_with_the_command_that_makes_it(graph: Graph) -> None:
    graph.prepare()
    for name, missing in (("metrics", "cross_validation"), ("ready_data", "raw_data")):
        for key in graph.files():
            if key.partition("/")[2].startswith(f"{missing}."):
                graph.store.delete(key)
        says = why(graph.run(name))
        assert f"{missing} has not been materialised" in says
        assert f"bcw refresh {missing}" in says


def test_metrics_refuses_artifacts_that_do_not_belong_together(graph: Graph) -> None:
    graph.prepare()
    assert graph.run("ready_data", config={"ready_data": {"seed": 7}}).success
    before = graph.files()
    assert "bcw refresh model" in why(graph.run("metrics"))
    assert graph.files() == before
    assert graph.run("ready_data").success
    assert graph.run("model", config={"model": {"C": 0.01}}).success
    assert "bcw refresh cross_validation" in why(graph.run("metrics"))
    graph.source.write_bytes(b"".join(uci_form().splitlines(keepends=True)[:300]))
    for name, stale in (("raw_data", "ready_data"), ("ready_data", "model"), ("model", "cross_validation")):
        assert graph.run(name).success
        assert f"bcw refresh {stale}" in why(graph.run("metrics"))


def test_a_knob_of_every_stage_reaches_the_report(graph: Graph) -> None:
    config: dict[str, object] = {
        "ready_data": {"test_size": 0.3, "seed": 1, "stratify": True},
        "model": {"C": 0.5},
        "cross_validation": {"folds": 2, "repeats": 2, "seed": 9},
    }
    assert graph.run(config=config).success
    provenance = read_metrics(graph)["provenance"]
    assert provenance["split"] == config["ready_data"]
    assert provenance["resampling"] == config["cross_validation"]
    assert provenance["settings"] == {"C": 0.5, "solver": "newton-cholesky", "tol": 1e-8, "max_iter": 100, "recipe": 1}


def test_a_knob_that_this_table_cannot_bear_or_that_is_out_of_range_changes_nothing(graph: Graph) -> None:
    graph.prepare()
    before = graph.files()
    result = graph.run("cross_validation", config={"cross_validation": {"folds": 213}})
    assert "213 folds need 213 patients of each diagnosis" in why(result)
    for name, config in (("ready_data", {"test_size": 1}), ("model", {"C": float("nan")})):
        assert not graph.run(name, config={name: config}).success, config
    assert graph.files() == before


def test_an_artifact_that_another_run_replaced_meanwhile_stops_this_one(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = resampling.predict_out_of_fold

    def predict_while_another_run_is_at_work(*arguments: Any) -> Any:
        assert graph.run("model", config={"model": {"C": 0.5}}).success
        return predict(*arguments)

    monkeypatch.setattr(resampling, "predict_out_of_fold", predict_while_another_run_is_at_work)
    result = graph.run()
    assert not result.success
    assert "model was replaced by another run while this one was at work" in why(result)
    assert "results/metrics.json" not in graph.files()
