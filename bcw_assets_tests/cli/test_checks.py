"""`bcw checks`: what it shows after runs of every kind, and its exit code."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result

import bcw_assets
from bcw_assets import checks as the_checks
from bcw_assets import settings
from bcw_assets.assets import GRAPH
from bcw_assets.checks import specify_checks
from bcw_assets.cli import checks
from bcw_assets.cli.main import main
from bcw_assets.ml.expectations import EXPECTATIONS, Expectation
from bcw_assets.ml.findings import Findings
from bcw_assets_tests.conftest import Graph, Place, on_disk_only

EVERY = [(asset.key.to_user_string(), spec.name) for asset in GRAPH for spec in specify_checks(asset.key)]


def reported(graph: Graph) -> tuple[bool, dict[str, Any], dict[tuple[str, str], dict[str, Any]]]:
    """Return whether the report is good, its JSON, and its lines by asset and check."""
    report = checks.report(graph.instance, graph.places())
    found = json.loads(report.as_json())
    assert set(found) == {"good", "checks", "failure"}
    for line in found["checks"]:
        assert set(line) == {"asset", "check", "blocking", "severity", "result", "since", "evidence"}
    assert found["good"] is report.is_good
    return report.is_good, found, {(line["asset"], line["check"]): line for line in found["checks"]}


def on_the_command_line(*options: str) -> Result:
    return CliRunner().invoke(main, ["checks", *options])


@on_disk_only
def test_the_command_finds_the_history_by_dagster_home_and_its_exit_code_says_whether_all_is_well(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bcw_assets.definitions import build_definitions  # reads the environment, which is clean by now

    for name in ("DAGSTER_HOME", "BCW_STORAGE"):
        monkeypatch.setenv(name, graph.environment()[name])
    monkeypatch.setattr(
        bcw_assets, "defs", build_definitions(settings.read_environment())
    )  # as a process of its own has them
    monkeypatch.chdir(graph.folder)
    assert on_the_command_line().exit_code == 1
    graph.instance = dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"])
    graph.run()
    done = on_the_command_line()
    assert (done.exit_code, done.stdout) == (0, checks.report(graph.instance, graph.places()).as_text() + "\n")
    assert json.loads(on_the_command_line("--json").stdout)["good"]


def test_after_a_green_run_every_check_passed_since_that_run(graph: Graph) -> None:
    graph.prepare()
    good, found, lines = reported(graph)
    assert (good, found["failure"]) == (True, None)
    assert list(lines) == EVERY
    assert {line["result"] for line in lines.values()} == {"passed"}
    assert all(datetime.fromisoformat(line["since"]).tzinfo for line in lines.values())
    assert "gradient per patient" in lines["model", "converged"]["evidence"]
    text = checks.report(graph.instance, graph.places()).as_text().splitlines()
    assert text[0].split() == ["asset", "check", "blocking", "severity", "result", "since", "evidence"]
    assert text[1].split()[:5] == ["raw_data", "stored", "yes", "ERROR", "passed"]
    assert len(text) == 1 + len(EVERY)


@on_disk_only
def test_a_second_green_run_leaves_since_when_it_was(graph: Graph) -> None:
    graph.prepare()
    before = reported(graph)[2]["raw_data", "stored"]["since"]
    graph.run()
    assert reported(graph)[2]["raw_data", "stored"]["since"] == before


def test_before_any_run_nothing_is_materialised(graph: Graph) -> None:
    good, _, lines = reported(graph)
    assert not good
    assert {(line["result"], line["since"]) for line in lines.values()} == {("not materialised", None)}


@on_disk_only
def test_one_asset_never_materialised_is_no_success(graph: Graph) -> None:
    graph.run("raw_data", "ready_data", "model", "cross_validation")
    good, _, lines = reported(graph)
    assert not good
    assert {key[0] for key, line in lines.items() if line["result"] == "not materialised"} == {
        "metrics", "release",
    }  # fmt: skip
    assert {key[0] for key, line in lines.items() if line["result"] == "passed"} == {
        "raw_data", "ready_data", "model", "cross_validation",
    }  # fmt: skip


def always_broken(raw_data: object) -> Findings:
    return Findings.of(("it is Monday", True))


@on_disk_only
@pytest.mark.parametrize("blocking", [False, True])
def test_a_failed_check_fails_the_report_only_if_it_blocks(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    graph.prepare()
    monday = Expectation("raw_data", "weekday", "It is not Monday.", always_broken, blocking=blocking)
    monkeypatch.setattr(the_checks, "EXPECTATIONS", (*EXPECTATIONS, monday))
    assert graph.run().success is not blocking
    good, report, lines = reported(graph)
    assert good is not blocking
    assert (report["failure"] or "").startswith("The run that made raw_data failed: ") is blocking
    line = lines["raw_data", "weekday"]
    assert (line["result"], line["evidence"]) == ("failed", "it is Monday")
    assert line["severity"] == ("ERROR" if blocking else "WARN")


@on_disk_only
def test_a_check_that_was_not_run_on_the_latest_materialisation_is_said(graph: Graph) -> None:
    graph.prepare()
    graph.select(dg.AssetSelection.assets("model").without_checks())
    good, _, lines = reported(graph)
    assert not good
    assert {key[0] for key, line in lines.items() if line["result"] == "not run"} == {"model"}


@on_disk_only
def test_after_a_refused_source_the_last_materialisation_is_shown_and_the_failure_said(graph: Graph) -> None:
    graph.prepare()
    graph.source.write_bytes(b"<html>moved</html>")
    graph.run()
    good, found, lines = reported(graph)
    assert (good, {line["result"] for line in lines.values()}) == (True, {"passed"})
    assert "raw_data: It is an HTML or XML page, and no CSV file" in found["failure"]
    assert "A later run failed, and changed nothing here: " in checks.report(graph.instance, graph.places()).as_text()


@on_disk_only
def test_a_failure_is_said_until_what_failed_is_made_again(graph: Graph) -> None:
    graph.prepare()
    good_source = graph.source.read_bytes()
    graph.source.write_bytes(b"<html>moved</html>")
    graph.run()
    graph.run("metrics")
    assert "no CSV file" in reported(graph)[1]["failure"]
    graph.source.write_bytes(good_source)
    graph.run()
    assert reported(graph)[1]["failure"] is None


@on_disk_only
def test_a_check_that_crashes_is_no_success(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    graph.prepare()

    def crashes(raw_data: object) -> Findings:
        raise ZeroDivisionError

    monkeypatch.setattr(the_checks, "EXPECTATIONS", [Expectation("raw_data", "invariants", "It works.", crashes)])
    graph.check("raw_data")
    good, _, lines = reported(graph)
    assert not good
    assert lines["raw_data", "invariants"]["result"] == "crashed"


def test_another_storage_has_results_of_its_own(graph: Graph, place: Place) -> None:
    graph.prepare()
    elsewhere = graph.at(place("elsewhere"))
    assert {line["result"] for line in reported(elsewhere)[2].values()} == {"not materialised"}


def test_without_a_history_there_is_nothing_to_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    done = on_the_command_line()
    assert (done.exit_code, done.stderr) == (
        1, "Failed: DAGSTER_HOME is not set, so there is no history of checks. `make install` sets it\n",
    )  # fmt: skip
