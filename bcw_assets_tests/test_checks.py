"""Every check, passing on the real table and failing on a broken one; and stored artifacts changed by hand."""

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import Pipeline

from bcw_assets import checks, source
from bcw_assets.assets import GRAPH
from bcw_assets.ml import expectations
from bcw_assets.ml.evaluation.patients import Patient
from bcw_assets.ml.evaluation.report import Evaluation, evaluate
from bcw_assets.ml.evaluation.scores import Summary
from bcw_assets.ml.expectations import EXPECTATIONS, Expectation
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets_tests.conftest import Graph, Place, broken, why
from bcw_assets_tests.tables import uci_form

Values = dict[str, Any]
SPECS = [spec for asset in GRAPH for spec in checks.specify_checks(asset.key)]
FACTS = {"source": "UCI", "chosen by the user": False, "fallback": False}


@pytest.fixture(scope="session")
def values(made: Values) -> Values:
    """The value of every asset on the real table, and what was recorded of raw_data."""
    return made | {"facts": FACTS}


def edit(model: Pipeline, **attributes: object) -> Pipeline:
    edited = deepcopy(model)
    vars(edited["classifier"]).update(attributes)
    return edited


def assign(value: Any, **columns: Any) -> Any:
    return replace(value, rows=value.rows.assign(**columns))


def scale_by_all(values: Values) -> Any:
    numbers = values["raw_data"].iloc[:, 2:]
    return assign(values["ready_data"], **((numbers - numbers.mean()) / numbers.std(ddof=0)))


def report(values: Values, **changes: Any) -> Evaluation:
    metrics: Evaluation = values["metrics"]
    return replace(metrics, report=replace(metrics.report, **changes))


def score(values: Values, name: str, interval: list[float] | None) -> Evaluation:
    return report(values, cross_validation=values["metrics"].report.cross_validation | {name: summarise(interval)})


def slope(values: Values, interval: list[float] | None) -> Evaluation:
    return report(values, calibration=replace(values["metrics"].report.calibration, slope=summarise(interval)))


def summarise(interval: list[float] | None) -> Summary:
    return Summary(1.0, 0.1, interval, "unbounded")


def suspect(values: Values, count: int) -> Evaluation:
    return report(values, label_suspects=[Patient(f"{number}", "M", 0.01, 10) for number in range(count)])


RAW, READY, MODEL, PREDICTED, METRICS = "raw_data", "ready_data", "model", "cross_validation", "metrics"
OTHER_SPLIT = Split(0.2, 7, stratify=False)

# Check, what breaks it (the values of all assets → the broken one), and a part of what the check says.
BROKEN: list[tuple[str, Callable[[Values], Any], str]] = [
    ("schema", lambda v: v[RAW].drop(columns="radius_se"), "columns are not id, diagnosis and"),
    ("schema", lambda v: v[RAW].astype({"area_mean": "str"}), "not every measurement is a float"),
    ("schema", lambda v: v[RAW].assign(id=""), "an id is empty"),
    ("schema", lambda v: v[RAW].assign(area_mean=np.inf), "not finite"),
    ("invariants", lambda v: v[RAW].assign(area_mean=782.7), "but radius_mean"),
    ("invariants", lambda v: v[RAW].assign(diagnosis="M"), "the labels are not M and B"),
    ("plausibility", lambda v: v[RAW].assign(texture_mean=100.0), "R14"),
    ("source", lambda v: {}, "nothing is recorded of where the table is from"),
    ("source", lambda v: FACTS | {"fallback": True}, "UCI could not be reached, and UCI stands in"),
    ("split", lambda v: assign(v[READY], split="train"), "the test rows lack a diagnosis"),
    ("split", lambda v: assign(v[READY], malignant=1 - v[READY].rows["malignant"]), "labels are not those of raw_data"),
    ("split", lambda v: replace(v[READY], fingerprint="0" * 64), "from another table"),
    ("scaling", scale_by_all, "the test rows took part"),
    ("scaling", lambda v: assign(v[READY], area_se=v[READY].rows["area_se"] + 1), "over the training rows is 1 away"),
    ("scaling", lambda v: assign(v[READY], area_se=-v[READY].rows["area_se"]), "not what the scaler makes of raw_data"),
    ("features", lambda v: assign(v[READY], area_se=v[READY].rows["malignant"] * 2.0), "diagnosis (correlation 1.000)"),
    ("features", lambda v: assign(v[READY], area_se=-v[READY].rows["id"].astype(float)), "follows the id or the row"),
    ("converged", lambda v: edit(v[MODEL], n_iter_=np.array([100])), "its limit"),
    ("converged", lambda v: training.train(preparation.prepare(v[RAW], OTHER_SPLIT), 1.0), "the gradient per patient"),
    ("coverage", lambda v: replace(v[PREDICTED], rows=v[PREDICTED].rows.iloc[1:]), "not those of raw_data, each once"),
    ("coverage", lambda v: assign(v[PREDICTED], repeat_1=np.nan), "a value is no probability"),
    ("floors", lambda v: score(v, "sensitivity", [0.9, 0.944]), "0.9440, at the best end of its interval, and must be"),
    ("floors", lambda v: score(v, "log_loss", [0.091, 0.12]), "log loss reaches 0.0910, at the best"),
    ("floors", lambda v: report(v, cross_validation={}), "log loss reaches nothing (not in these metrics)"),
    ("calibration", lambda v: slope(v, [0.3, 0.69]), "slope is 0.30 to 0.69, and must overlap 0.7 to 1.6"),
    ("calibration", lambda v: slope(v, None), "the calibration slope has no interval: unbounded"),
    ("labels", lambda v: suspect(v, 12), "12 of 569 labels (2.1 %) have an out-of-fold probability below 0.05"),
]


def examine(name: str, values: Values) -> Findings:
    (expectation,) = [row for row in EXPECTATIONS if row.name == name]
    return expectation.predicate(**{parameter: values[parameter] for parameter in expectation.inputs})


@pytest.mark.parametrize(("name", "breaks", "says"), BROKEN)
def test_a_check_says_what_is_broken(name: str, breaks: Callable[[Values], Any], says: str, values: Values) -> None:
    (asset,) = [row.asset for row in EXPECTATIONS if row.name == name]
    findings = examine(name, values | {"facts" if name == "source" else asset: breaks(values)})
    assert says in "; ".join(findings.problems)


def test_the_real_table_meets_every_expectation(values: Values) -> None:
    assert {name for name, *_ in BROKEN} == {row.name for row in EXPECTATIONS}  # each is seen failing, too
    findings = {row.name: examine(row.name, values) for row in EXPECTATIONS}
    assert {name: finding.problems for name, finding in findings.items() if finding.problems} == {}
    assert all(finding.evidence for finding in findings.values())


def test_a_table_of_another_length_is_a_problem_and_no_traceback(values: Values) -> None:
    mixed = values | {RAW: values[RAW].iloc[1:]}
    problems = {row.name: examine(row.name, mixed).problems for row in EXPECTATIONS}
    assert problems["converged"] == ("ready_data was made from another raw_data than the one stored now",)
    assert {name for name in problems if problems[name]} >= {"split", "scaling", "converged", "coverage"}


def test_what_is_at_the_edge_is_accepted(values: Values) -> None:
    floors, calibration = score(values, "sensitivity", [0.8, 0.945]), slope(values, [0.3, 0.7])
    edges = {"floors": floors, "calibration": calibration, "labels": suspect(values, 11)}
    findings = [examine(name, {"metrics": metrics}) for name, metrics in edges.items()]
    assert [(finding.problems, finding.rows) for finding in findings] == [((), ())] * 3


def test_a_title_is_a_sentence_and_evidence_has_names_and_no_codes(values: Values) -> None:
    assert [spec.key for spec in SPECS if not re.fullmatch(r"[A-Z][^\n]{30,200}\.", spec.description or "")] == []
    names = [name for row in EXPECTATIONS for name in examine(row.name, values).evidence]
    assert [name for name in names if re.search(r"^[A-Z]\d|_", name)] == []


def test_no_number_in_the_evidence_is_a_constant(values: Values) -> None:
    """The UI plots numbers over time: on another table with other settings each of them is another."""
    raw = values[RAW].iloc[100:400].reset_index(drop=True)
    ready = preparation.prepare(raw, Split(0.3, 1, stratify=True))
    model = training.train(ready, 100.0)
    predicted = resampling.predict_out_of_fold(raw, model, Resampling(2, 2, 0))
    metrics = Evaluation(evaluate(raw, ready, model, predicted), b"", "")
    other_values = {RAW: raw, READY: ready, MODEL: model, PREDICTED: predicted, METRICS: metrics, "facts": FACTS}
    for row in EXPECTATIONS:
        first, second = (examine(row.name, known).evidence for known in (values, other_values))
        numbers = {name for name, value in first.items() if type(value) in (int, float)}
        assert {name for name in numbers if first[name] == second.get(name)} == set(), row.name


def test_a_blocking_check_stops_what_comes_after(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(raw_data: pd.DataFrame) -> Findings:
        return Findings.of(("it is Monday", True), rows=len(raw_data))

    monkeypatch.setattr(checks, "EXPECTATIONS", (Expectation("raw_data", "weekday", "It is not Monday.", fail),))
    result = graph.run()
    assert not result.success
    assert broken(result) == {("raw_data", "weekday"): "it is Monday"}
    assert sorted(graph.files()) == ["data/raw_data.csv"]


def test_the_release_asks_for_the_blocking_expectations_alone(values: Values) -> None:
    assert expectations.find_problems(values) == []
    changes = {METRICS: score(values, "sensitivity", [0.1, 0.2]), MODEL: edit(values[MODEL], n_iter_=np.array([100]))}
    assert expectations.find_problems(values | changes) == ["model, converged: it took 100 steps, its limit"]


def change_last_digit(content: bytes) -> bytes:
    return content[:-2] + (b"1\n" if content[-2:] != b"1\n" else b"2\n")


def test_a_stored_artifact_changed_by_hand_is_found_by_its_check_and_refused_on_loading(graph: Graph) -> None:
    graph.prepare()
    changes: dict[str, Callable[[bytes], bytes]] = {
        "data/raw_data.csv": change_last_digit,
        "data/ready_data.csv": change_last_digit,
        "results/model.json": lambda content: content.replace(b'"C": 1.0', b'"C": 2.0'),
        "results/model.pkl": lambda content: content + b".",
        "results/cross_validation.json": lambda content: b"",
        "results/metrics.json": lambda content: content[:200],
    }
    for file, change in changes.items():
        content = graph.store.read(file)
        graph.store.write({file: change(content)})
        asset = file.partition("/")[2].partition(".")[0]
        says = broken(graph.check(asset))[asset, checks.STORED]
        assert f"To make it: bcw refresh {asset}" in says
        assert f"bcw refresh {asset}" in why(graph.run("release" if asset == "metrics" else "metrics"))
        graph.store.write({file: content})


def test_a_fallback_warns_and_a_named_table_of_ones_own_does_not(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "UCI_ADDRESSES", ("http://no-such-host.invalid/wdbc.data",))
    result = graph.run("raw_data", source="auto")
    assert result.success
    (record,) = result.asset_materializations_for_node("raw_data")[0].metadata["tries"].value.records
    assert record.data["outcome"] == "the host is unknown"
    says = "UCI could not be reached, and scikit-learn's embedded copy stands in"
    assert broken(result) == {("raw_data", "source"): says}
    graph.source.write_bytes(b"".join(uci_form().splitlines(keepends=True)[:300]))
    assert broken(graph.run("raw_data")) == {}


def test_a_failed_check_of_an_edited_table_shows_its_rows(graph: Graph) -> None:
    graph.prepare()
    graph.damage("data/raw_data.csv", b",1001,0.1184,", b",501,0.1184,")
    evaluations = {each.check_name: each for each in graph.check("raw_data").get_asset_check_evaluations()}
    assert "is not what its latest materialisation recorded" in str(evaluations["stored"].description)
    assert evaluations["schema"].passed
    assert str(evaluations["invariants"].description).startswith("id 10003: area_mean is 501 but radius_mean 17.99")
    rows = evaluations["invariants"].metadata["offending rows"].value.records
    assert {row.data["id"] for row in rows} == {"10003"}


def test_going_back_to_another_place_finds_its_artifacts_and_their_record(graph: Graph, place: Place) -> None:
    graph.prepare()
    graph.at(place("another")).run("raw_data")
    assert graph.run("metrics").success
    graph.store.write({"data/raw_data.csv": change_last_digit(graph.store.read("data/raw_data.csv"))})
    assert "is not what its latest materialisation recorded" in why(graph.run("metrics"))
