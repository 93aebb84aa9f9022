"""`bcw checks`: what it shows after runs of every kind, and its exit code."""

import json
from datetime import datetime
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

from bcw_assets import checks as the_checks
from bcw_assets.assets import GRAPH
from bcw_assets.checks import specify_checks
from bcw_assets.cli import checks
from bcw_assets.cli.main import main
from bcw_assets.ml.expectations import EXPECTATIONS, Expectation
from bcw_assets.ml.findings import Findings
from bcw_assets_tests.conftest import Graph, Place
from bcw_assets_tests.tables import uci_form

HEAD = ["asset", "check", "blocking", "severity", "result", "since", "evidence"]


def read(graph: Graph) -> tuple[dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """Return the report, and its checks by asset and name."""
    report = checks.read_report(graph.instance, graph.places())
    assert list(report) == ["good", "checks", "outdated", "failure"]
    assert all(list(check) == HEAD for check in report["checks"])
    return report, {(check["asset"], check["check"]): check for check in report["checks"]}


def assets_with(result: str, graph: Graph) -> set[str]:
    return {asset for (asset, _), check in read(graph)[1].items() if check["result"] == result}


def invoke(*options: str) -> Result:
    return CliRunner().invoke(main, ["checks", *options])


def test_after_a_green_run_every_check_passed_since_that_run(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    graph.prepare()
    report, results = read(graph)
    assert (report["good"], report["outdated"], report["failure"]) == (True, [], None)
    assert list(results) == [(asset.key.path[0], spec.name) for asset in GRAPH for spec in specify_checks(asset.key)]
    assert {check["result"] for check in results.values()} == {"passed"}
    assert all((check["severity"] == "ERROR") is check["blocking"] for check in results.values())
    assert {name for (_, name), check in results.items() if not check["blocking"]} == {
        "plausibility", "source", "floors", "calibration", "labels",
    }  # fmt: skip
    assert all(datetime.fromisoformat(check["since"]).tzinfo for check in results.values())
    assert "gradient per patient" in results["model", "converged"]["evidence"]
    monkeypatch.setattr(checks, "read_latest_report", lambda: report)
    done = invoke("--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, report)
    text = invoke().stdout.splitlines()
    assert text[0].split() == HEAD
    assert text[1].split()[:5] == ["raw_data", "stored", "yes", "ERROR", "passed"]
    assert {line.index("passed") for line in text[1:]} == {text[0].index("result")}
    assert len(text) == 1 + len(results)


def test_what_was_made_from_another_table_than_is_there_now_is_named(graph: Graph) -> None:
    graph.prepare()
    assert graph.run("raw_data").success
    assert read(graph)[0]["outdated"] == []  # of the same content
    (graph.folder / "fewer.csv").write_bytes(b"".join(uci_form().splitlines(keepends=True)[:-1]))
    assert graph.run("raw_data", source=str(graph.folder / "fewer.csv")).success
    report = read(graph)[0]
    assert (report["good"], report["outdated"]) == (True, ["ready_data", "cross_validation", "metrics", "release"])
    says = "Made from something else than is there now: ready_data, cross_validation, metrics, release. To mend it: bcw"
    assert says in checks.format_report(report)


def test_another_place_in_the_same_history_makes_nothing_outdated(graph: Graph, place: Place) -> None:
    graph.prepare()
    (graph.folder / "fewer.csv").write_bytes(b"".join(uci_form().splitlines(keepends=True)[:-1]))
    elsewhere = graph.at(place("elsewhere"))
    assert elsewhere.run("raw_data", source=str(graph.folder / "fewer.csv")).success
    assert graph.run("ready_data").success
    assert read(graph)[0]["outdated"] == []


@pytest.mark.parametrize("blocking", [False, True])
def test_a_failed_check_fails_the_report_only_if_it_blocks(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    graph.prepare()
    before = read(graph)[1]["raw_data", "stored"]["since"]

    def fail(raw_data: object) -> Findings:
        return Findings.of(("it is Monday", True))

    monday = Expectation("raw_data", "weekday", "It is Monday.", fail, blocking=blocking)
    monkeypatch.setattr(the_checks, "EXPECTATIONS", (*EXPECTATIONS, monday))
    result = graph.run("raw_data")
    assert result.success is not blocking
    (evaluation,) = [each for each in result.get_asset_check_evaluations() if not each.passed]
    assert evaluation.severity.value == ("ERROR" if blocking else "WARN")
    report, results = read(graph)
    assert results["raw_data", "stored"]["since"] == before
    assert report["good"] is not blocking
    assert (report["failure"] or "").startswith("The run that made raw_data failed: ") is blocking
    check = results["raw_data", "weekday"]
    assert (check["result"], check["evidence"]) == ("failed", "it is Monday")


def test_a_check_that_was_not_run_on_the_latest_materialisation_or_crashed_is_no_success(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.prepare()
    graph.select(dg.AssetSelection.assets("model").without_checks())
    assert not read(graph)[0]["good"]
    assert assets_with("not run", graph) == {"model"}
    crashing = Expectation("model", "converged", "It does not crash.", lambda model: Findings.of((f"{1 / 0}", True)))
    monkeypatch.setattr(the_checks, "EXPECTATIONS", (crashing,))
    graph.check("model")
    assert not read(graph)[0]["good"]
    assert assets_with("crashed", graph) == {"model"}


def test_a_failure_is_said_until_what_failed_is_made_again_beside_what_was_made_last(graph: Graph) -> None:
    graph.prepare()
    good_source = graph.source.read_bytes()
    graph.source.write_bytes(b"<html>moved</html>")
    graph.run("raw_data")
    graph.run("metrics")
    report, results = read(graph)
    assert (report["good"], {check["result"] for check in results.values()}) == (True, {"passed"})
    assert "raw_data: It is an HTML or XML page: give the file itself" in report["failure"]
    assert "\n\nA later run failed, and changed nothing here: " in checks.format_report(report)
    graph.source.write_bytes(good_source)
    graph.run("raw_data")
    assert read(graph)[0]["failure"] is None


def test_another_storage_has_results_of_its_own(graph: Graph, place: Place) -> None:
    graph.prepare()
    elsewhere, before = graph.at(place("elsewhere")), read(graph)[0]
    report, results = read(elsewhere)
    assert not report["good"]
    assert {(check["result"], check["since"]) for check in results.values()} == {("not materialised", None)}
    elsewhere.run("raw_data")
    assert assets_with("passed", elsewhere) == {"raw_data"}
    assert not elsewhere.run("raw_data", "ready_data", config={"ready_data": {"test_size": 0.999}}).success
    assert read(graph)[0] == before
    assert "ready_data" in read(elsewhere)[0]["failure"]


def test_without_a_history_there_is_nothing_to_report(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(graph.folder)
    says = f"Failed: There is no history in {graph.folder}/.dagster, so nothing was made from here yet: bcw refresh. "
    done = invoke()
    assert (done.exit_code, done.stderr.startswith(says)) == (1, True)
    assert not (graph.folder / ".dagster").exists()
