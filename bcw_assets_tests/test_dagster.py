"""Dagster's own commands and its UI on this code location: all load it, agree on it and run it."""

import json

import dagster as dg
import pytest
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster_graphql import DagsterGraphQLClient

from bcw_assets.assets import GRAPH
from bcw_assets.automation import build_schedules
from bcw_assets.errors import SettingsError
from bcw_assets.ml.expectations import EXPECTATIONS
from bcw_assets.operations import exporter
from bcw_assets.settings import Settings
from bcw_assets_tests import programs
from bcw_assets_tests.conftest import CHECKOUT, Graph
from bcw_assets_tests.servers import wait_until
from bcw_assets_tests.tables import uci_form

NAMES = ["cross_validation", "metrics", "model", "raw_data", "ready_data", "release"]


def test_dagster_and_dg_find_the_assets_checks_jobs_and_schedules(graph: Graph) -> None:
    done = programs.run(("dagster", "schedule", "list"), graph.environment(), CHECKOUT)
    assert "Schedule: refresh_schedule [STOPPED]\nCron Schedule: 0 6 * * 1" in done.stdout, done.stderr
    definitions = json.loads(programs.run(("dg", "list", "defs", "--json"), graph.environment(), CHECKOUT).stdout)
    assert sorted(asset["asset_key"] for asset in definitions["assets"]) == NAMES
    assert len(definitions["asset_checks"]) == len(EXPECTATIONS) + len(NAMES)
    assert [job["name"] for job in definitions["jobs"]] == ["housekeeping_job", "refresh_job"]
    assert [each["name"] for each in definitions["schedules"]] == ["housekeeping_schedule", "refresh_schedule"]
    assert "alerts" in [sensor["name"] for sensor in definitions["sensors"]]


def test_the_schedule_is_as_the_settings_say() -> None:
    settings = Settings(autostart=True, schedule_cron="30 6 * * 1", schedule_timezone="Europe/Berlin")
    schedule, _ = build_schedules(settings)
    assert (schedule.default_status.value, schedule.cron_schedule, schedule.execution_timezone, schedule.job_name) == (
        "RUNNING", "30 6 * * 1", "Europe/Berlin", "refresh_job",
    )  # fmt: skip
    assert build_schedules(Settings())[0].default_status.value == "STOPPED"
    with pytest.raises(SettingsError, match="BCW_SCHEDULE_CRON is 'often'; allowed are five fields of cron"):
        build_schedules(Settings(schedule_cron="often"))


def test_an_asset_names_what_it_needs_and_shows_its_stage_and_its_owner() -> None:
    specs = {spec.key.to_user_string(): spec for asset in GRAPH for spec in asset.specs}
    needs = {
        name: " ".join(sorted(dep.asset_key.to_user_string() for dep in spec.deps)) for name, spec in specs.items()
    }
    assert needs == {
        "raw_data": "", "ready_data": "raw_data", "model": "ready_data", "cross_validation": "model raw_data",
        "metrics": "cross_validation model raw_data ready_data",
        "release": "cross_validation metrics model raw_data ready_data",
    }  # fmt: skip
    assert all(spec.owners == ["team:bcw"] and "stage" in spec.tags for spec in specs.values())
    model = specs["model"]
    assert (model.tags["stage"], "scikitlearn" in model.kinds) == ("train", True)
    groups = {"raw_data": "data", "ready_data": "data", "cross_validation": "evaluation", "metrics": "evaluation"}
    assert {name: spec.group_name for name, spec in specs.items()} == groups | {"model": "model", "release": "release"}
    heads = {name: (spec.description or "").partition("\n")[0] for name, spec in specs.items()}
    assert [name for name, head in heads.items() if not 20 < len(head) < 50] == []  # the catalogue cuts what is longer


@pytest.fixture
def ui(ui_address: str) -> DagsterGraphQLClient:
    host, _, port = ui_address.rpartition("/")[2].partition(":")
    return DagsterGraphQLClient(host, int(port))


def launch(ui: DagsterGraphQLClient) -> tuple[str, dg.DagsterRunStatus]:
    run = ui.submit_job_execution("refresh_job")
    wait_until(lambda: ui.get_run_status(run) in FINISHED_STATUSES)
    return run, ui.get_run_status(run)


# dagster_graphql 1.13 calls gql in the way of its version 3.
@pytest.mark.filterwarnings("ignore:Using variable_values:DeprecationWarning")
def test_the_ui_materialises_the_graph_and_tells_why_a_table_is_refused(
    ui: DagsterGraphQLClient, ui_address: str, graph: Graph
) -> None:
    assert list(exporter.collect_web_server(ui_address)) == [exporter.Sample("bcw_code_location_loaded", 1)]
    assert launch(ui)[1] == dg.DagsterRunStatus.SUCCESS
    assert b'"accuracy": 0.9736842105263158' in graph.files()["results/metrics.json"]

    graph.source.write_bytes(uci_form().replace(b",1001,0.1184,", b",501,0.1184,", 1))
    run, status = launch(ui)
    assert status == dg.DagsterRunStatus.FAILURE
    with dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"]) as instance:
        events = [entry.dagster_event for entry in instance.all_logs(run, dg.DagsterEventType.STEP_FAILURE)]
    failure = events[0].step_failure_data.user_failure_data
    assert failure.description.startswith("Line 1, id 10003: area_mean is 501 but radius_mean 17.99 makes about 1017")
    assert failure.metadata["offending rows"].value.records[0].data["rule"] == "R6"
