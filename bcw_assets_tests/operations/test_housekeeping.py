"""Old runs go, and what the stored assets are judged by stays."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from bcw_assets.automation import build_schedules
from bcw_assets.checks import specify_checks
from bcw_assets.definitions import build_definitions
from bcw_assets.operations import history, housekeeping
from bcw_assets.settings import Settings
from bcw_assets_tests.conftest import Graph, broken


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def delete_old_runs(graph: Graph, before: datetime) -> int:
    checks = [spec.key for asset in graph.places() for spec in specify_checks(asset)]
    return housekeeping.delete_runs_before(graph.instance, before, graph.places(), checks)


def runs(graph: Graph) -> list[str]:
    return [run.run_id for run in graph.instance.get_runs()]


def test_only_the_runs_stay_that_say_what_is_stored(graph: Graph) -> None:
    graph.run("raw_data", "ready_data", "model")
    stays = graph.run("raw_data").run_id
    makes = graph.run("ready_data", "model").run_id
    assert delete_old_runs(graph, soon()) == 1
    assert set(runs(graph)) == {stays, makes}
    made = history.read_materialisations(graph.instance, graph.places())
    checks = [spec for asset in ("raw_data", "ready_data", "model") for spec in specify_checks(dg.AssetKey(asset))]
    assert {check.result for check in history.read_check_results(graph.instance, checks, made)} == {"passed"}


def test_a_file_that_was_changed_by_hand_is_refused_afterwards_too(graph: Graph) -> None:
    graph.run("raw_data", "ready_data")
    delete_old_runs(graph, soon())
    graph.damage("data/raw_data.csv", b"17.99", b"17.98")
    assert ("raw_data", "stored") in broken(graph.check("raw_data"))


def test_what_is_young_or_has_not_ended_stays(graph: Graph) -> None:
    waiting = graph.instance.add_run(dg.DagsterRun("refresh_job", status=dg.DagsterRunStatus.STARTED)).run_id
    graph.run("raw_data")
    last = graph.run("raw_data").run_id
    assert delete_old_runs(graph, soon() - timedelta(days=90)) == 0
    assert delete_old_runs(graph, soon()) == 1
    assert set(runs(graph)) == {waiting, last}


def test_the_job_deletes_what_is_older_than_the_setting(graph: Graph) -> None:
    for days in (8, 6):
        run = dg.DagsterRun("refresh_job", str(days), status=dg.DagsterRunStatus.FAILURE)
        graph.instance.run_storage.add_historical_run(run, datetime.now(UTC) - timedelta(days=days))
    job = build_definitions(graph.settings(keep_days="7")).resolve_job_def("housekeeping_job")
    assert job.execute_in_process(instance=graph.instance).success
    assert "6" in runs(graph)
    assert "8" not in runs(graph)


def test_it_is_due_every_night_where_the_schedule_is(graph: Graph) -> None:
    _, nightly = build_schedules(Settings(autostart=True))
    assert nightly.job_name == "housekeeping_job"
    assert (nightly.cron_schedule, nightly.default_status.value) == ("30 3 * * *", "RUNNING")
