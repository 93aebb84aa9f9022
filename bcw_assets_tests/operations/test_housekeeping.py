"""Old runs go, and what the stored assets are judged by stays."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from bcw_assets.checks import specify_checks
from bcw_assets.definitions import build_definitions
from bcw_assets.operations import history
from bcw_assets.storage.io_manager import find_latest
from bcw_assets_tests.conftest import Graph, broken


def test_only_the_runs_stay_that_have_not_ended_or_say_what_is_stored(graph: Graph) -> None:
    waiting = graph.instance.add_run(dg.DagsterRun("refresh_job", status=dg.DagsterRunStatus.STARTED)).run_id
    graph.run("raw_data", "ready_data", "model")
    runs = {waiting, graph.run("raw_data").run_id, graph.run("ready_data", "model").run_id}
    now = datetime.now(UTC)
    keys = [spec.key for asset in graph.places() for spec in specify_checks(asset)]
    for age, count in ((timedelta(days=90), 0), (timedelta(minutes=-1), 1)):
        assert history.delete_runs_before(graph.instance, now - age, graph.places(), keys) == count
    assert {run.run_id for run in graph.instance.get_runs()} == runs
    for name in ("raw_data", "ready_data", "model"):
        asset = dg.AssetKey(name)
        made = find_latest(asset, graph.places()[asset], graph.instance)
        results = {history.read_check_result(graph.instance, spec, made).result for spec in specify_checks(asset)}
        assert results == {"passed"}
    graph.damage("data/raw_data.csv", b"17.99", b"17.98")
    assert ("raw_data", "stored") in broken(graph.check("raw_data"))


def test_the_job_deletes_every_night_what_is_older_than_the_setting(graph: Graph) -> None:
    for days in (8, 6):
        run = dg.DagsterRun("refresh_job", str(days), status=dg.DagsterRunStatus.FAILURE)
        graph.instance.run_storage.add_historical_run(run, datetime.now(UTC) - timedelta(days=days))
    definitions = build_definitions(graph.settings(keep_days=7, autostart=True))
    job = definitions.resolve_job_def("housekeeping_job").execute_in_process(instance=graph.instance)
    assert {run.run_id for run in graph.instance.get_runs()} == {"6", job.run_id}
    nightly = definitions.resolve_schedule_def("housekeeping_schedule")
    assert (nightly.job_name, nightly.cron_schedule) == ("housekeeping_job", "30 3 * * *")
    assert nightly.default_status is dg.DefaultScheduleStatus.RUNNING
