"""Every check, passing on the real table and failing on a broken one; and stored artifacts changed by hand."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from bcw_assets import checks, source
from bcw_assets.assets import GRAPH
from bcw_assets.checks import PROMISES, Promise
from bcw_assets.ml.evaluation.patients import Patient
from bcw_assets.ml.evaluation.scores import Summary
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.model import preparation, training
from bcw_assets.ml.model.preparation import Prepared, Split
from bcw_assets_tests.conftest import Graph, Place, broken, on_disk_only, once_elsewhere, why
from bcw_assets_tests.tables import uci_form

SPLIT = Split(0.2, 42, stratify=False)
STORED = {(asset.key.to_user_string(), checks.STORED) for asset in GRAPH if asset.key != checks.RELEASE}
EVERY_CHECK = STORED | {("release", checks.PUBLISHED)} | {(promise.asset, promise.name) for promise in PROMISES}
ADVICE = {("raw_data", "plausibility"), ("raw_data", "source")} | {
    ("metrics", name) for name in ("beats_always_benign", "floors", "calibration", "label_suspects")
}


@pytest.fixture(scope="session")
def values(made: dict[str, Any]) -> dict[str, Any]:
    """The value of every asset on the real table, and what was recorded of raw_data."""
    return made | {"facts": {"source": "UCI", "source_is_named": False, "fallback": False}}


def edited(model: Pipeline, step: str, **attributes: object) -> Pipeline:
    """Return a copy of a fitted model with other fitted numbers."""
    steps = []
    for name, fitted in model.steps:
        copy = clone(fitted)
        copy.__dict__.update(vars(fitted) | (attributes if name == step else {}))
        steps.append((name, copy))
    return Pipeline(steps)


def with_rows(ready: Prepared, **columns: Any) -> Prepared:
    return replace(ready, rows=ready.rows.assign(**columns))


def scaled_by_all(raw: pd.DataFrame, ready: Prepared) -> Prepared:
    numbers = raw.iloc[:, 2:]
    return with_rows(ready, **((numbers - numbers.mean()) / numbers.std(ddof=0)))


def noise(rows: int, scale: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, scale, rows)


def reported(values: dict[str, Any], **changes: Any) -> Any:
    """Return the metrics with another report."""
    return replace(values["metrics"], report=replace(values["metrics"].report, **changes))


def scored(values: dict[str, Any], name: str, *, estimate: float | None, interval: list[float] | None) -> Any:
    """Return the metrics with another cross-validated score."""
    scores = values["metrics"].report.cross_validation
    return reported(values, cross_validation=scores | {name: Summary(estimate, 0.0, interval, "why")})


def sloped(values: dict[str, Any], interval: list[float] | None) -> Any:
    """Return the metrics with another interval of the calibration slope."""
    calibration = values["metrics"].report.calibration
    return reported(values, calibration=replace(calibration, slope=Summary(1.0, 0.1, interval, "unbounded")))


# (asset, check) → what is broken: value of the asset and of the others → the broken value, and a part of the message
BROKEN: list[tuple[tuple[str, str], Callable[[dict[str, Any]], Any], str]] = [
    (("raw_data", "schema"), lambda v: v["raw_data"].drop(columns="radius_se"), "columns are not id, diagnosis and"),
    (("raw_data", "schema"), lambda v: v["raw_data"].astype({"area_mean": "str"}), "not every measurement is a float"),
    (("raw_data", "schema"), lambda v: v["raw_data"].assign(diagnosis="M"), "the labels are M, not M and B"),
    (("raw_data", "schema"), lambda v: v["raw_data"].assign(id=""), "an id is empty"),
    (("raw_data", "schema"), lambda v: v["raw_data"].assign(id="7"), "an id stands twice"),
    (("raw_data", "schema"), lambda v: v["raw_data"].iloc[::-1], "not sorted by id"),
    (("raw_data", "schema"), lambda v: v["raw_data"].assign(area_mean=np.inf), "not finite"),
    (
        ("raw_data", "invariants"),
        lambda v: v["raw_data"].assign(area_mean=782.7),
        "but radius_mean",
    ),
    (("raw_data", "plausibility"), lambda v: v["raw_data"].assign(texture_mean=100.0), "R14"),
    (("raw_data", "source"), lambda v: {}, "nothing is recorded of where the table is from"),
    (("raw_data", "source"), lambda v: v["facts"] | {"fallback": True}, "UCI could not be reached, and UCI stands in"),
    (("ready_data", "split"), lambda v: with_rows(v["ready_data"], split="train"), "the test rows lack a diagnosis"),
    (("ready_data", "split"), lambda v: with_rows(v["ready_data"], split="test"), "the training rows lack a diagnosis"),
    (("ready_data", "split"), lambda v: with_rows(v["ready_data"], split="other"), "on no side or on both"),
    (("ready_data", "split"), lambda v: replace(v["ready_data"], rows=v["ready_data"].rows[:-1]), "not those of raw"),
    (
        ("ready_data", "split"),
        lambda v: with_rows(v["ready_data"], malignant=1 - v["ready_data"].rows["malignant"]),
        "labels are not those of raw_data",
    ),
    (
        ("ready_data", "split"),
        lambda v: replace(v["ready_data"], fingerprint="0" * 64),
        "from another table than raw_data",
    ),
    (("ready_data", "scaling"), lambda v: scaled_by_all(v["raw_data"], v["ready_data"]), "the test rows took part"),
    (
        ("ready_data", "scaling"),
        lambda v: with_rows(v["ready_data"], area_mean=v["ready_data"].rows["area_mean"] + 1),
        "mean over the training rows is 1 away from 0",
    ),
    (
        ("ready_data", "scaling"),
        lambda v: with_rows(v["ready_data"], area_mean=v["ready_data"].rows["area_mean"] * 3),
        "sd over the training rows is 2 away from 1",
    ),
    (
        ("ready_data", "scaling"),
        lambda v: with_rows(v["ready_data"], area_mean=-v["ready_data"].rows["area_mean"]),
        "the values are not what the scaler makes of raw_data",
    ),
    (
        ("ready_data", "features"),
        lambda v: with_rows(v["ready_data"], texture_se=v["ready_data"].rows["malignant"] * 2.0 - 0.7),
        "a feature follows the label (correlation 1.000)",
    ),
    (
        ("ready_data", "features"),
        lambda v: with_rows(v["ready_data"], texture_se=v["ready_data"].rows["malignant"] + noise(569, 0.25)),
        "a feature alone tells the diagnosis (ROC AUC 0.99",
    ),
    (
        ("ready_data", "features"),
        lambda v: with_rows(v["ready_data"], extra=0.5),
        "the features are not exactly the 30 measurements",
    ),
    (
        ("ready_data", "features"),
        lambda v: with_rows(v["ready_data"], area_se=np.arange(569.0)),
        "follows the id or the row order (correlation 1.000)",
    ),
    (
        ("ready_data", "features"),
        lambda v: with_rows(v["ready_data"], area_se=-v["ready_data"].rows["id"].astype(float)),
        "follows the id or the row order (correlation 1.000)",
    ),
    (("model", "finite"), lambda v: edited(v["model"], "classifier", coef_=np.full((1, 30), np.nan)), "a coefficient"),
    (("model", "finite"), lambda v: edited(v["model"], "classifier", intercept_=np.array([np.inf])), "the intercept"),
    (("model", "finite"), lambda v: edited(v["model"], "scaler", mean_=np.full(30, np.nan)), "a mean is not finite"),
    (("model", "finite"), lambda v: edited(v["model"], "scaler", scale_=np.zeros(30)), "a scale is not positive"),
    (("model", "converged"), lambda v: edited(v["model"], "classifier", coef_=np.zeros((1, 30))), "the gradient per"),
    (
        ("model", "converged"),
        lambda v: edited(v["model"], "scaler", mean_=v["model"]["scaler"].mean_ * 1.5),
        "the gradient per patient",
    ),
    (("model", "converged"), lambda v: edited(v["model"], "classifier", n_iter_=np.array([100])), "its limit"),
    (
        ("model", "converged"),
        lambda v: training.train(preparation.prepare(v["raw_data"], replace(SPLIT, seed=7)), 1.0),
        "the gradient per patient",
    ),
    (("model", "classes"), lambda v: edited(v["model"], "classifier", classes_=np.array([1, 0])), "classes are [1, 0]"),
    (
        ("model", "classes"),
        lambda v: edited(v["model"], "scaler", feature_names_in_=v["model"]["scaler"].feature_names_in_[::-1]),
        "the features are not the 30 measurements in order",
    ),
    (("model", "classes"), lambda v: edited(v["model"], "classifier", coef_=np.zeros((1, 29))), "are not 30"),
    (
        ("cross_validation", "coverage"),
        lambda v: replace(v["cross_validation"], rows=v["cross_validation"].rows.iloc[1:]),
        "its rows are not those of raw_data, each once",
    ),
    (
        ("cross_validation", "coverage"),
        lambda v: replace(v["cross_validation"], rows=v["cross_validation"].rows.drop(columns="repeat_1")),
        "its columns are not id, diagnosis and 10 repeats",
    ),
    (
        ("cross_validation", "coverage"),
        lambda v: replace(v["cross_validation"], rows=v["cross_validation"].rows.assign(repeat_1=1.5)),
        "a value is no probability",
    ),
    (
        ("cross_validation", "coverage"),
        lambda v: replace(v["cross_validation"], rows=v["cross_validation"].rows.assign(repeat_1=np.nan)),
        "a value is no probability",
    ),
    (
        ("cross_validation", "coverage"),
        lambda v: replace(v["cross_validation"], fingerprint="0" * 64),
        "from another table than raw_data",
    ),
    (
        ("metrics", "arithmetic"),
        lambda v: reported(v, recall=0.99),
        "recall is 0.99, the counts give 0.9534883720930233",
    ),
    (("metrics", "arithmetic"), lambda v: reported(v, npv=None), "npv is None"),
    (
        ("metrics", "arithmetic"),
        lambda v: reported(v, intervals=v["metrics"].report.intervals | {"npv": [0.9, 1.0]}),
        "the interval of npv is not that of the counts",
    ),
    (
        ("metrics", "beats_always_benign"),
        lambda v: reported(v, balanced_accuracy=0.69),
        "balanced accuracy is 0.69, below 0.7",
    ),
    (("metrics", "beats_always_benign"), lambda v: reported(v, balanced_accuracy=None), "is None"),
    (
        ("metrics", "floors"),
        lambda v: scored(v, "sensitivity", estimate=0.93, interval=[0.9, 0.944]),
        "sensitivity is 0.9300 (0.9000 to 0.9440), and must be at least 0.945",
    ),
    (
        ("metrics", "floors"),
        lambda v: scored(v, "log_loss", estimate=0.1, interval=[0.091, 0.12]),
        "log_loss is 0.1000 (0.0910 to 0.1200), and must be at most 0.09",
    ),
    (
        ("metrics", "floors"),
        lambda v: scored(v, "roc_auc", estimate=0.9, interval=None),
        "roc_auc is 0.9000 (why), and must be at least 0.992",
    ),
    (
        ("metrics", "floors"),
        lambda v: scored(v, "accuracy", estimate=None, interval=None),
        "accuracy is not defined (why), and must be at least 0.97",
    ),
    (
        ("metrics", "floors"),
        lambda v: reported(v, cross_validation={"roc_auc": v["metrics"].report.cross_validation["roc_auc"]}),
        "log_loss is not defined (not in these metrics), and must be at most 0.09",
    ),
    (
        ("metrics", "calibration"),
        lambda v: sloped(v, [0.3, 0.69]),
        "1.00 (0.30 to 0.69), and its interval must overlap 0.7 to 1.6",
    ),
    (("metrics", "calibration"), lambda v: sloped(v, [1.61, 3.0]), "its interval must overlap 0.7 to 1.6"),
    (("metrics", "calibration"), lambda v: sloped(v, None), "the calibration slope is 1.00 (unbounded)"),
    (
        ("metrics", "label_suspects"),
        lambda v: reported(v, label_suspects=[Patient(f"{one}", "M", 0.01, 10) for one in range(12)]),
        "12 of 569 labels (2.1 %) have an out-of-fold probability below 0.05; allowed are 2 %",
    ),
]

# What is at the edge of a promise and keeps it.
KEPT: list[tuple[tuple[str, str], Callable[[dict[str, Any]], Any]]] = [
    (("metrics", "floors"), lambda v: scored(v, "sensitivity", estimate=0.9, interval=[0.8, 0.945])),
    (("metrics", "floors"), lambda v: scored(v, "log_loss", estimate=0.2, interval=[0.09, 0.3])),
    (("metrics", "floors"), lambda v: scored(v, "roc_auc", estimate=1.0, interval=None)),
    (("metrics", "calibration"), lambda v: sloped(v, [0.3, 0.7])),
    (("metrics", "calibration"), lambda v: sloped(v, [1.6, 3.0])),
    (
        ("metrics", "label_suspects"),
        lambda v: reported(v, label_suspects=[Patient(f"{one}", "M", 0.01, 10) for one in range(11)]),
    ),
]


def test_every_promise_has_a_table_here_that_breaks_it() -> None:
    assert {check for check, *_ in BROKEN} == {(promise.asset, promise.name) for promise in PROMISES}


def look(promise: Promise, values: dict[str, Any]) -> Findings:
    return promise.predicate(**{name: values[name] for name in checks._reads(promise)})


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: f"{promise.asset}-{promise.name}")
def test_every_promise_is_kept_by_the_real_table_and_shows_its_evidence(
    promise: Promise, values: dict[str, Any]
) -> None:
    findings = look(promise, values)
    assert findings.problems == ()
    assert findings.evidence


@pytest.mark.parametrize(
    ("check", "breaks", "says"), BROKEN, ids=lambda one: "-".join(one) if type(one) is tuple else ""
)
def test_a_broken_promise_is_found_and_said(
    check: tuple[str, str], breaks: Callable[[dict[str, Any]], Any], says: str, values: dict[str, Any]
) -> None:
    promise = next(one for one in PROMISES if (one.asset, one.name) == check)
    broken_one = checks.FACTS if check == ("raw_data", "source") else promise.asset
    findings = look(promise, values | {broken_one: breaks(values)})
    assert re.search(re.escape(says), "; ".join(findings.problems))


@pytest.mark.parametrize(("check", "changed"), KEPT, ids=lambda one: "-".join(one) if type(one) is tuple else "")
def test_what_is_at_the_edge_of_a_promise_keeps_it(
    check: tuple[str, str], changed: Callable[[dict[str, Any]], Any], values: dict[str, Any]
) -> None:
    promise = next(one for one in PROMISES if (one.asset, one.name) == check)
    findings = look(promise, values | {promise.asset: changed(values)})
    assert (findings.problems, findings.rows) == ((), ())


def test_a_green_run_evaluates_every_check_with_its_severity(graph: Graph) -> None:
    evaluations = graph.run().get_asset_check_evaluations()
    found = {(one.asset_key.to_user_string(), one.check_name): one for one in evaluations}
    assert set(found) == EVERY_CHECK
    assert all(one.passed for one in found.values())
    assert {check for check, one in found.items() if not one.blocking} == ADVICE
    assert {check for check, one in found.items() if one.severity is dg.AssetCheckSeverity.WARN} == ADVICE


def test_one_asset_alone_is_checked_alone(graph: Graph) -> None:
    graph.prepare()
    evaluations = graph.run("model").get_asset_check_evaluations()
    assert {one.asset_key.to_user_string() for one in evaluations} == {"model"}


def test_one_check_alone_is_run_alone(graph: Graph) -> None:
    graph.prepare()
    selection = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("ready_data"), "scaling"))
    evaluations = graph.select(selection).get_asset_check_evaluations()
    assert [(one.check_name, one.passed) for one in evaluations] == [("scaling", True)]


def test_a_blocking_check_stops_what_comes_after(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def always_broken(raw_data: pd.DataFrame) -> Findings:
        return Findings.of(("it is Monday", True), rows=len(raw_data))

    monkeypatch.setattr(checks, "PROMISES", (Promise("raw_data", "weekday", always_broken),))
    result = graph.run()
    assert not result.success
    assert broken(result) == {("raw_data", "weekday"): "it is Monday"}
    assert sorted(graph.files()) == ["data/raw_data.csv"]


@on_disk_only
def test_advice_stops_nothing(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def always_broken(raw_data: pd.DataFrame) -> Findings:
        return Findings.of(("it is Monday", True))

    monkeypatch.setattr(checks, "PROMISES", (Promise("raw_data", "weekday", always_broken, blocking=False),))
    result = graph.run()
    assert result.success
    assert list(broken(result)) == [("raw_data", "weekday")]
    assert "results/metrics.json" in graph.files()


@on_disk_only
def test_a_check_that_is_broken_itself_crashes(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def crashes(raw_data: pd.DataFrame) -> Findings:
        raise ZeroDivisionError("of the check")

    monkeypatch.setattr(checks, "PROMISES", (Promise("raw_data", "crashes", crashes),))
    result = graph.run()
    assert not result.success
    assert "ZeroDivisionError: of the check" in why(result)


def one_digit_more(content: bytes) -> bytes:
    """Return the same CSV with one plausible digit changed in its last number."""
    return content[:-2] + (b"1\n" if content[-2:] != b"1\n" else b"2\n")


def another_number(content: bytes) -> bytes:
    """Return the same JSON with one number changed."""
    return re.sub(rb"(\d)(,?\n)", lambda found: (b"1" if found[1] != b"1" else b"2") + found[2], content, count=1)


def change_by_hand(graph: Graph, file: str, change: Callable[[bytes], bytes]) -> None:
    before = graph.store.read(file)
    graph.store.write({file: change(before)})
    assert graph.store.read(file) != before


CHANGES_BY_HAND: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("data/raw_data.csv", one_digit_more),
    ("data/ready_data.csv", one_digit_more),
    ("data/ready_data.json", another_number),
    ("results/model.json", another_number),
    ("results/model.pkl", lambda content: content + b"."),
    ("results/cross_validation.csv", one_digit_more),
    ("results/cross_validation.json", another_number),
    ("results/metrics.json", another_number),
    *((file, lambda content: b"") for file in ("data/raw_data.csv", "results/model.json", "results/metrics.json")),
    ("results/metrics.json", lambda content: b"[]"),
    ("results/metrics.json", lambda content: content[:200]),
]


@once_elsewhere("file,change", CHANGES_BY_HAND)
def test_a_stored_artifact_changed_by_hand_is_found_by_its_check_and_refused_on_loading(
    graph: Graph, file: str, change: Callable[[bytes], bytes]
) -> None:
    graph.prepare()
    change_by_hand(graph, file, change)
    asset = file.partition("/")[2].partition(".")[0]
    says = broken(graph.check(asset))[asset, checks.STORED]
    assert f"To make it: dagster asset materialize -m bcw_assets --select {asset}" in says
    if asset != "metrics":  # nothing loads metrics yet
        assert f"--select {asset}" in why(graph.run("metrics"))


@on_disk_only
def test_a_fallback_warns_and_a_named_table_of_ones_own_does_not(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "UCI_ADDRESSES", ("http://no-such-host.invalid/wdbc.data",))
    result = graph.run("raw_data", source="auto")
    assert result.success
    says = "UCI could not be reached, and scikit-learn's embedded copy stands in"
    assert broken(result) == {("raw_data", "source"): says}
    graph.source.write_bytes(b"".join(uci_form().splitlines(keepends=True)[:300]))
    assert broken(graph.run("raw_data")) == {}


@on_disk_only
def test_the_failure_of_a_table_shows_its_rows_in_the_ui(graph: Graph) -> None:
    graph.source.write_bytes(uci_form().replace(b",1001,0.1184,", b",501,0.1184,", 1))
    result = graph.run()
    failure = result.get_step_failure_events()[0].step_failure_data.user_failure_data
    assert failure.description.startswith("Line 1, id 10003: area_mean is 501 but radius_mean 17.99 makes about 1017")
    shown = [record.data for record in failure.metadata["offending rows"].value.records]
    assert {"id": "10003", "rule": "R6"}.items() <= shown[0].items()
    assert "area_mean is 501" in str(shown[0]["problem"])


def test_a_failed_check_of_an_edited_table_shows_its_rows(graph: Graph) -> None:
    graph.prepare()
    graph.damage("data/raw_data.csv", b",1001,0.1184,", b",501,0.1184,")
    evaluations = {one.check_name: one for one in graph.check("raw_data").get_asset_check_evaluations()}
    assert "is not what its latest materialisation recorded" in str(evaluations["stored"].description)
    assert evaluations["schema"].passed
    assert str(evaluations["invariants"].description).startswith("id 10003: area_mean is 501 but radius_mean 17.99")
    rows = evaluations["invariants"].metadata["offending rows"].value.records
    assert {row.data["id"] for row in rows} == {"10003"}


def test_without_a_history_a_well_formed_artifact_loads(graph: Graph) -> None:
    graph.prepare()
    change_by_hand(graph, "data/raw_data.csv", one_digit_more)
    with dg.DagsterInstance.ephemeral() as another:
        graph.instance = another
        assert graph.run("ready_data").success


EDITS = [
    ("data/raw_data.csv", b"\n10003,M,", b"\n9999,M,", ("raw_data", "schema")),
    ("data/raw_data.csv", b"\n10003,M,", b"\n10003,X,", ("raw_data", "schema")),
    ("data/raw_data.csv", b"\n10003,M,17.99,", b"\n10003,M,1e999,", ("raw_data", "schema")),
    ("results/model.json", b'"intercept": -', b'"intercept": ', ("model", "converged")),
    ("results/model.json", b'"mean": [\n    1', b'"mean": [\n    9', ("model", "converged")),
    ("results/model.json", b'"classes": [\n    0', b'"classes": [\n    2', ("model", "classes")),
    ("results/metrics.json", b'"true_positives": 41', b'"true_positives": 40', ("metrics", "arithmetic")),
]


@once_elsewhere("file,old,new,check", EDITS)
def test_without_a_history_the_promise_that_an_edit_breaks_finds_it(
    graph: Graph, file: str, old: bytes, new: bytes, check: tuple[str, str]
) -> None:
    graph.prepare()
    graph.damage(file, old, new)
    assert check in broken(graph.without_history().check(check[0]))


def test_going_back_to_another_place_finds_its_artifacts_and_their_record(graph: Graph, place: Place) -> None:
    graph.prepare()
    graph.at(place("another")).run(config={"model": {"C": 0.5}})
    assert graph.run("metrics").success
    change_by_hand(graph, "data/raw_data.csv", one_digit_more)
    assert "is not what its latest materialisation recorded" in why(graph.run("metrics"))


def test_numbers_in_a_document_are_of_the_right_shape(graph: Graph) -> None:
    graph.prepare()
    document = json.loads(graph.store.read("results/model.json"))
    document["coefficients"].pop()
    graph.store.write({"results/model.json": json.dumps(document).encode()})
    with dg.DagsterInstance.ephemeral() as another:
        graph.instance = another
        assert "coefficients has shape (29,), not (30,)" in why(graph.run("cross_validation"))
