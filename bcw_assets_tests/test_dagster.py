"""Dagster's own commands and its UI on this code location: all load it, agree on it and run it."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import dagster as dg
import pytest
import requests

from bcw_assets.assets import GRAPH
from bcw_assets.automation import build_schedule
from bcw_assets.errors import SettingsError
from bcw_assets.ml.expectations import EXPECTATIONS
from bcw_assets.settings import Settings
from bcw_assets_tests import programs
from bcw_assets_tests.conftest import CHECKOUT, Graph
from bcw_assets_tests.tables import uci_form

PATIENCE = 300  # seconds, more than anything takes on a busy machine
NAMES = ["cross_validation", "metrics", "model", "raw_data", "ready_data", "release"]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["dagster", "definitions", "validate"], r"Validation successful for code location bcw_assets"),
        (["dagster", "schedule", "list"], r"Schedule: refresh_schedule \[STOPPED\]\nCron Schedule: 0 6 \* \* 1"),
    ],
)
def test_a_command_of_dagster_loads_the_code_location(graph: Graph, command: list[str], says: str) -> None:
    done = in_the_checkout(graph, *command)
    assert done.returncode == 0, done.stderr
    assert re.search(says, done.stdout + done.stderr)


def in_the_checkout(graph: Graph, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a program where pyproject.toml and workspace.yaml are, on the place and the history of the test."""
    return programs.run(command, graph.environment(), CHECKOUT)


def test_dg_lists_the_same_assets_checks_jobs_and_schedules(graph: Graph) -> None:
    definitions = json.loads(in_the_checkout(graph, "dg", "list", "defs", "--json").stdout)
    assert sorted(asset["asset_key"] for asset in definitions["assets"]) == NAMES
    assert len(definitions["asset_checks"]) == len(EXPECTATIONS) + len(NAMES)
    assert [job["name"] for job in definitions["jobs"]] == ["housekeeping_job", "refresh_job"]
    schedules = [schedule["name"] for schedule in definitions["schedules"]]
    assert schedules == ["housekeeping_schedule", "refresh_schedule"]
    assert "alerts" in [sensor["name"] for sensor in definitions["sensors"]]


def test_a_run_of_dagsters_command_is_whole_and_in_the_history(graph: Graph) -> None:
    config = json.dumps({"ops": {"cross_validation": {"config": {"folds": 2, "repeats": 2}}}})
    everything = ("dagster", "asset", "materialize", "-m", "bcw_assets", "--select", "*", "--config-json", config)
    done = in_the_checkout(graph, *everything)
    assert done.returncode == 0, done.stderr
    assert b'"accuracy": 0.9736842105263158' in graph.files()["results/metrics.json"]
    with dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"]) as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.SUCCESS]
        assert len(instance.fetch_materializations(dg.AssetKey("metrics"), limit=2).records) == 1


def test_one_stage_alone_by_dagster_and_its_failure(graph: Graph) -> None:
    done = in_the_checkout(graph, "dagster", "asset", "materialize", "-m", "bcw_assets", "--select", "model")
    assert done.returncode == 1
    assert "ready_data has not been materialised" in done.stderr
    assert "dagster asset materialize -m bcw_assets --select ready_data" in done.stderr


def test_the_schedule_is_as_the_settings_say() -> None:
    schedule = build_schedule(Settings(autostart=True, schedule_cron="30 6 * * 1", schedule_timezone="Europe/Berlin"))
    assert (schedule.default_status.value, schedule.cron_schedule, schedule.execution_timezone, schedule.job_name) == (
        "RUNNING", "30 6 * * 1", "Europe/Berlin", "refresh_job",
    )  # fmt: skip
    assert build_schedule(Settings()).default_status.value == "STOPPED"


def test_a_cron_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="BCW_SCHEDULE_CRON is 'often'; allowed are five fields of cron"):
        build_schedule(Settings(schedule_cron="often"))


def test_an_asset_names_what_it_needs_and_shows_its_stage_its_owner_and_its_source() -> None:
    specs = {spec.key.to_user_string(): spec for asset in GRAPH for spec in asset.specs}
    assert {name: sorted(dep.asset_key.to_user_string() for dep in spec.deps) for name, spec in specs.items()} == {
        "raw_data": [],
        "ready_data": ["raw_data"],
        "model": ["ready_data"],
        "cross_validation": ["model", "raw_data"],
        "metrics": ["cross_validation", "model", "raw_data", "ready_data"],
        "release": ["cross_validation", "metrics", "model", "raw_data", "ready_data"],
    }
    assert all(spec.owners == ["team:bcw"] and "stage" in spec.tags for spec in specs.values())
    model = specs["model"]
    assert (model.tags["stage"], "scikitlearn" in model.kinds) == ("train", True)
    assert (model.description or "").startswith("The classifier: from a patient's 30 raw measurements")
    (reference,) = model.metadata["dagster/code_references"].code_references
    assert reference.file_path == str(CHECKOUT / "bcw_assets" / "assets.py")


def ask(url: str, query: str, **variables: object) -> dict[str, Any]:
    """Return what the web server answers to a query."""
    body = {"query": query, "variables": variables}
    answer: dict[str, Any] = requests.post(f"{url}/graphql", json=body, timeout=PATIENCE).json()
    assert "errors" not in answer, answer["errors"]
    return answer["data"]  # type: ignore[no-any-return]


@pytest.fixture
def ui(graph: Graph) -> Iterator[str]:
    """The address of the web server that `make dev` starts, with the daemon."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        ["make", "--no-print-directory", "dev", f"PORT={port}"],
        env=graph.environment(),
        cwd=CHECKOUT, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE
        while not is_up(url):
            assert time.monotonic() < deadline, "the UI did not start"
            time.sleep(0.1)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # at SIGTERM the code server waits for calls that are under way
        process.wait()


def is_up(url: str) -> bool:
    try:
        return requests.get(f"{url}/server_info", timeout=PATIENCE).ok
    except requests.RequestException:
        return False


LAUNCH = """
mutation Launch($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""
FAILURES = """
query Failures($id: ID!) { logsForRun(runId: $id) { ... on EventConnection { events { ... on ExecutionStepFailureEvent {
  failureMetadata { description metadataEntries { label ... on TableMetadataEntry { table { records } } } }
} } } } }
"""
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


def test_the_ui_materialises_the_graph_and_tells_why_a_table_is_refused(ui: str, graph: Graph) -> None:
    place: dict[str, object] = {"repositoryLocationName": "bcw_assets", "repositoryName": "__repository__"}
    assert launch(ui, place)[1] == "SUCCESS"
    assert b'"accuracy": 0.9736842105263158' in graph.files()["results/metrics.json"]

    graph.source.write_bytes(uci_form().replace(b",1001,0.1184,", b",501,0.1184,", 1))
    run, status = launch(ui, place)
    assert status == "FAILURE"
    events = ask(ui, FAILURES, id=run)["logsForRun"]["events"]
    failure = next(event["failureMetadata"] for event in events if event.get("failureMetadata"))
    assert failure["description"].startswith(
        "Line 1, id 10003: area_mean is 501 but radius_mean 17.99 makes about 1017"
    )
    rows = next(entry["table"]["records"] for entry in failure["metadataEntries"] if entry["label"] == "offending rows")
    assert json.loads(rows[0])["rule"] == "R6"


def launch(ui: str, place: dict[str, object]) -> tuple[str, str]:
    """Run refresh_job to its end, and return the run's id and status."""
    answer = ask(ui, LAUNCH, selector={"pipelineName": "refresh_job"} | place)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    run: str = answer["run"]["runId"]
    deadline = time.monotonic() + PATIENCE
    status = ""
    while status not in ("SUCCESS", "FAILURE"):
        assert time.monotonic() < deadline, f"the run is {status} after {PATIENCE} s"
        time.sleep(0.1)
        status = ask(ui, STATUS, id=run)["runOrError"]["status"]
    return run, status
