"""`bcw exporter`: every value against a real history, sources that are away, and a real Prometheus that scrapes it."""

import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest
import requests
import yaml
from click.testing import CliRunner
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler import instigation  # what the daemon writes, which no public name makes
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo
from prometheus_client.parser import text_string_to_metric_families

from bcw_assets import source
from bcw_assets.automation import build_schedule, refresh_job
from bcw_assets.checks import every_check
from bcw_assets.cli.main import main
from bcw_assets.errors import BcwError
from bcw_assets.operations import alerts, exporter, history, incidents, vitals
from bcw_assets.operations.exporter import Exporter, Source
from bcw_assets.operations.incidents import Incident
from bcw_assets.operations.vitals import NAMES, Sample
from bcw_assets.releases import bundle, log, promotion
from bcw_assets.report import figure
from bcw_assets.storage.store import Store
from bcw_assets_tests import loopback
from bcw_assets_tests.conftest import BIN, CHECKOUT, Graph, contents, with_all

OPERATIONS = (CHECKOUT / "docs" / "operations.md").read_text()
PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]]
REPOSITORY = RemoteRepositoryOrigin(
    GrpcServerCodeLocationOrigin(host="code", port=4000, location_name="bcw_assets"), "__repository__"
)
NEVER = 3600.0  # seconds between two collections of a source that a test asks by hand
INCIDENTS = [
    Incident(kind=kind, title="", evidence="", since=1000.0, run="", things={})
    for kind in (incidents.RUN, incidents.STALE)
]
CURSOR = alerts.State(known={one.kind: alerts.Known(incident=one) for one in INCIDENTS}, failures=3)


@dg.sensor(job=refresh_job, name=alerts.SENSOR, default_status=dg.DefaultSensorStatus.RUNNING)
def messages() -> dg.SkipReason:
    return dg.SkipReason("stands for the one that sends messages")


@dg.sensor(job=refresh_job)
def idle() -> dg.SkipReason:
    return dg.SkipReason("nobody has switched it on")


Values = dict[tuple[str, ...], float]


def values(samples: object) -> Values:
    """Return the values by name and labels, each told once."""
    found: list[Sample] = list(samples)  # type: ignore[call-overload]
    by_name: Values = {(one.name, *one.labels): float(one.value) for one in found}
    assert len(by_name) == len(found)
    return by_name


def definitions(graph: Graph, **changes: object) -> dg.Definitions:
    settings = graph.settings().model_copy(update=changes)
    return dg.Definitions(jobs=[refresh_job], schedules=[build_schedule(settings)], sensors=[messages, idle])


def told(graph: Graph, **changes: object) -> Values:
    return values(vitals.of_history(graph.instance, definitions(graph, **changes), graph.places()))


def refresh(graph: Graph, *assets: str, **tags: str) -> dg.ExecuteInProcessResult:
    """Run refresh_job, or some assets of it; it may fail."""
    ops = {} if assets else {"cross_validation": {"config": {"folds": 5, "repeats": 1}}}
    with mock.patch.object(figure, "draw", return_value=b"no picture"):
        return refresh_of(graph).execute_in_process(
            instance=graph.instance,
            run_config={"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            asset_selection=[dg.AssetKey(one) for one in assets] or None,
            raise_on_error=False,
            tags=tags,
        )


def refresh_of(graph: Graph) -> dg.JobDefinition:
    from bcw_assets.definitions import build_definitions  # reads the environment, which is clean by now

    return build_definitions(graph.settings()).resolve_job_def("refresh_job")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Graph]:
    """A graph with a history on disk, which holds schedules and sensors, too."""
    graph = Graph(tmp_path, str(tmp_path), dg.DagsterInstance.ephemeral())
    with dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"]) as graph.instance:
        yield graph


def state(kind: str, name: str, status: str, data: instigation.InstigatorData) -> instigation.InstigatorState:
    """Return what the history says of a schedule or sensor of the stack."""
    return instigation.InstigatorState(
        RemoteInstigatorOrigin(REPOSITORY, name),
        instigation.InstigatorType[kind],
        instigation.InstigatorStatus[status],
        data,
    )


def tick(instance: dg.DagsterInstance, of: instigation.InstigatorState, when: float, status: str) -> None:
    said: dict[str, Any] = {
        "SUCCESS": {"run_ids": ["id of a run"]},
        "FAILURE": {"error": SerializableErrorInfo("s3://secret/place does not answer", [], "StorageError")},
    }
    data = instigation.TickData(
        instigator_origin_id=of.instigator_origin_id,
        instigator_name=of.name,
        instigator_type=of.instigator_type,
        status=instigation.TickStatus[status],
        timestamp=when,
        selector_id=of.selector_id,
        **said.get(status, {}),
    )
    instance.create_tick(data)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Graph, Values]]:
    """A history in which something of every kind has happened, and what is told of it."""
    folder = tmp_path_factory.mktemp("exporter")
    graph = Graph(folder, str(folder), dg.DagsterInstance.ephemeral())
    with dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"]) as graph.instance:
        assert refresh(graph).success
        assert graph.run("ready_data").success
        graph.damage("results/model.json", b'"', b" ")
        assert not graph.check("model").success
        good = graph.source.read_bytes()
        graph.source.write_bytes(b"<html>moved</html>")
        assert not refresh(graph).success
        graph.source.write_bytes(good)
        queued = RemoteJobOrigin(REPOSITORY, "refresh_job")
        graph.instance.create_run_for_job(
            refresh_of(graph), status=dg.DagsterRunStatus.QUEUED, remote_job_origin=queued
        )
        schedule = state("SCHEDULE", "refresh_schedule", "STOPPED", instigation.ScheduleInstigatorData("0 6 * * 1"))
        sensor = state(
            "SENSOR",
            alerts.SENSOR,
            "DECLARED_IN_CODE",
            instigation.SensorInstigatorData(cursor=CURSOR.model_dump_json()),
        )
        for one in (schedule, sensor):
            graph.instance.add_instigator_state(one)
        tick(graph.instance, schedule, 1000.0, "SUCCESS")
        for when, status in ((2000.0, "SKIPPED"), (2030.0, "FAILURE"), (2060.0, "STARTED")):
            tick(graph.instance, sensor, when, status)
        graph.instance.add_daemon_heartbeat(DaemonHeartbeat(3000.0, "SENSOR", "id of a process"))
        graph.instance.add_daemon_heartbeat(DaemonHeartbeat(3000.0, "OF_OLD", "id of a process"))
        freshness(graph, FreshnessState.WARN)
        yield graph, told(graph)


def freshness(graph: Graph, found: FreshnessState) -> None:
    """Let the history say what the daemon found of the freshness of the release."""
    change = FreshnessStateChange(
        key=vitals.RELEASE, new_state=found, previous_state=FreshnessState.UNKNOWN, state_change_timestamp=time.time()
    )
    graph.instance._report_runless_asset_event(asset_event=change)


def test_runs_are_counted_by_status_and_job_and_those_of_no_job_are_others(lived: tuple[Graph, Values]) -> None:
    found = {key[1:]: value for key, value in lived[1].items() if key[0] == "bcw_runs" and value}
    assert found == {
        ("refresh_job", "SUCCESS"): 1,
        ("refresh_job", "FAILURE"): 1,
        ("refresh_job", "QUEUED"): 1,
        ("other", "SUCCESS"): 1,
        ("other", "FAILURE"): 1,
    }
    statuses = {key[2] for key in lived[1] if key[0] == "bcw_runs"}
    assert statuses == {status.value for status in dg.DagsterRunStatus}
    assert lived[1]["bcw_run_queue_length",] == 1


def test_the_last_run_and_the_last_success_of_the_refresh_are_told(lived: tuple[Graph, Values]) -> None:
    graph, found = lived
    failed, succeeded = graph.instance.get_run_records(
        dg.RunsFilter(job_name="refresh_job", statuses=[dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS])
    )
    assert found["bcw_run_last_succeeded", "refresh_job"] == 0
    assert found["bcw_run_last_duration_seconds", "refresh_job"] == (failed.end_time or 0) - (failed.start_time or 0)
    assert found["bcw_run_last_success_timestamp_seconds", "refresh_job"] == succeeded.end_time
    assert ("bcw_run_last_succeeded", "other") not in found


def test_a_failed_run_that_dagster_tries_again_by_itself_is_not_the_last(home: Graph) -> None:
    home.source.write_bytes(b"<html>moved</html>")
    assert not refresh(home, **{"dagster/will_retry": "true"}).success
    assert ("bcw_run_last_succeeded", "refresh_job") not in told(home)
    assert not refresh(home).success
    assert told(home)["bcw_run_last_succeeded", "refresh_job"] == 0


def test_a_schedule_that_was_switched_off_by_hand_is_off_whatever_the_settings_say(
    lived: tuple[Graph, Values],
) -> None:
    graph, found = lived
    assert found["bcw_automation_running", "schedule", "refresh_schedule"] == 0
    assert told(graph, autostart=True)["bcw_automation_running", "schedule", "refresh_schedule"] == 0
    assert found["bcw_automation_last_tick_timestamp_seconds", "schedule", "refresh_schedule"] == 1000
    assert found["bcw_automation_last_tick_succeeded", "schedule", "refresh_schedule"] == 1


def test_what_nobody_switched_is_as_the_code_declares_it(lived: tuple[Graph, Values]) -> None:
    assert lived[1]["bcw_automation_running", "sensor", "alerts"] == 1
    assert lived[1]["bcw_automation_running", "sensor", "idle"] == 0
    assert ("bcw_automation_last_tick_succeeded", "sensor", "idle") not in lived[1]


def test_the_last_tick_of_a_sensor_is_the_last_that_ended(lived: tuple[Graph, Values]) -> None:
    assert lived[1]["bcw_automation_last_tick_timestamp_seconds", "sensor", "alerts"] == 2030
    assert lived[1]["bcw_automation_last_tick_succeeded", "sensor", "alerts"] == 0


@pytest.mark.parametrize(
    ("cron", "zone", "hours"),
    [("0 6 * * 1", "UTC", 168), ("0 6 * * 1-5", "UTC", 72), ("*/5 * * * *", "Europe/Berlin", 1 / 12)],
)
def test_the_period_of_a_schedule_is_the_longest_time_between_its_ticks(cron: str, zone: str, hours: float) -> None:
    schedule = dg.ScheduleDefinition(name="one", job=refresh_job, cron_schedule=cron, execution_timezone=zone)
    assert vitals.period(schedule) / 3600 == pytest.approx(hours, abs=1)  # the clocks may change meanwhile


def test_the_period_of_the_refresh_follows_its_setting(lived: tuple[Graph, Values]) -> None:
    assert lived[1]["bcw_schedule_period_seconds", "refresh_schedule"] == pytest.approx(7 * 86400, abs=3600)
    daily = told(lived[0], schedule_cron="0 6 * * *")
    assert daily["bcw_schedule_period_seconds", "refresh_schedule"] == 86400


def test_the_daemons_that_are_needed_are_told_and_those_that_never_lived_are_at_zero(
    lived: tuple[Graph, Values],
) -> None:
    beats = {key[1]: value for key, value in lived[1].items() if key[0] == "bcw_daemon_heartbeat_timestamp_seconds"}
    assert beats["SENSOR"] == 3000
    assert beats["SCHEDULER"] == beats["QUEUED_RUN_COORDINATOR"] == 0
    assert "OF_OLD" not in beats


def test_the_latest_result_of_every_check_is_told(lived: tuple[Graph, Values]) -> None:
    graph, found = lived
    results = {key[1:]: value for key, value in found.items() if key[0] == "bcw_check_passed"}
    assert set(results) == {
        (key.to_user_string(), spec.name, "true" if spec.blocking else "false")
        for key in graph.places()
        for spec in every_check(key)
    }
    assert results["model", "stored", "true"] == 0
    assert results["ready_data", "scaling", "true"] == results["release", "published", "true"] == 1


def test_when_assets_were_made_and_their_rows_are_told(lived: tuple[Graph, Values]) -> None:
    graph, found = lived
    for key in graph.places():
        made = graph.instance.fetch_materializations(key, limit=1).records[0]
        assert found["bcw_asset_last_materialized_timestamp_seconds", key.to_user_string()] == made.timestamp
    rows = {key[1]: value for key, value in found.items() if key[0] == "bcw_asset_rows"}
    assert rows == {"raw_data": 569, "ready_data": 569, "cross_validation": 569}
    assert found["bcw_source_fallback",] == 0


def test_the_embedded_copy_is_told(home: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "UCI_ADDRESSES", ("http://no-such-host.invalid/wdbc.data",))
    home.select(dg.AssetSelection.assets("raw_data"), source="auto")
    found = told(home)
    assert found["bcw_source_fallback",] == 1
    assert found["bcw_check_passed", "raw_data", "source", "false"] == 0


@pytest.mark.parametrize(
    ("said", "fresh"),
    [(FreshnessState.PASS, 1), (FreshnessState.WARN, 1), (FreshnessState.FAIL, 0), (FreshnessState.UNKNOWN, None)],
)
def test_the_freshness_of_the_release_is_what_the_daemon_found(
    lived: tuple[Graph, Values], said: FreshnessState, fresh: int | None
) -> None:
    freshness(lived[0], said)
    assert told(lived[0]).get(("bcw_asset_fresh", "release")) == fresh


def test_messages_that_failed_and_open_incidents_come_from_the_cursor_of_the_sensor(
    lived: tuple[Graph, Values],
) -> None:
    assert lived[1]["bcw_notification_failures_total",] == 3
    assert lived[1]["bcw_open_incidents",] == 2
    assert values(vitals.notifications(None)) == {("bcw_notification_failures_total",): 0, ("bcw_open_incidents",): 0}


def test_of_an_empty_history_nothing_is_told_that_nobody_can_know(home: Graph) -> None:
    found = told(home, autostart=True)
    assert {key[0] for key in found} == {
        *("bcw_runs", "bcw_run_queue_length", "bcw_automation_running", "bcw_schedule_period_seconds"),
        *("bcw_notification_failures_total", "bcw_open_incidents", "bcw_daemon_heartbeat_timestamp_seconds"),
    }
    assert found["bcw_automation_running", "schedule", "refresh_schedule"] == 1


def test_jobs_of_any_name_make_no_more_series(home: Graph) -> None:
    before = set(told(home))
    for name in ("one", "another"):

        @dg.job(name=name)
        def nothing() -> None:
            """Do nothing."""

        home.instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.FAILURE)
    assert set(told(home)) == before


def test_a_store_without_a_release_has_sequence_0(store: Store) -> None:
    assert values(vitals.of_releases(store)) == {("bcw_release_sequence",): 0, ("bcw_release_refusals",): 0}


def released(lived: tuple[Graph, Values], store: Store) -> str:
    """Put what the history released into a store, and return the id of the champion."""
    ours = {key: content for key, content in contents(lived[0].store).items() if key.startswith(bundle.FOLDER)}
    return log.read(with_all(store, ours)).current().release


def test_the_champion_and_refusals_are_told(lived: tuple[Graph, Values], store: Store) -> None:
    champion = released(lived, store)
    store.write({f"{promotion.REFUSED}0123456789abcdef.json": b"the table of the gate"})
    found = values(vitals.of_releases(store))
    assert (found["bcw_release_sequence",], found["bcw_release_refusals",]) == (1, 1)
    made = datetime.fromisoformat(log.read(store).current().made)
    assert found["bcw_release_timestamp_seconds",] == made.timestamp()
    headline = bundle.read_manifest(store, champion).headline
    for score in bundle.HEADLINE:
        bounds = found["bcw_champion_score_lower", score], found["bcw_champion_score_upper", score]
        assert list(bounds) == headline[score].interval
        assert found["bcw_champion_score", score] == headline[score].estimate
    assert found["bcw_champion_score_lower", "sensitivity"] < 0.96 < found["bcw_champion_score_upper", "sensitivity"]


@pytest.mark.parametrize(
    ("what", "says"),
    [("log", "000001.json cannot be read"), ("manifest", "cannot be used (it is not the one that the log")],
)
def test_of_a_damaged_champion_nothing_is_told(lived: tuple[Graph, Values], store: Store, what: str, says: str) -> None:
    champion = released(lived, store)
    key = f"{log.FOLDER}000001.json" if what == "log" else bundle.key(champion, bundle.MANIFEST)
    store.write({key: store.read(key).replace(b"0", b"1")})
    asked = Source("releases", lambda: vitals.of_releases(store), NEVER)
    asked.ask()
    assert asked.samples() == (Sample("bcw_exporter_source_up", 0, ("releases",)),)
    assert says in (asked._known.problem or "")


def answering(*entries: Mapping[str, object]) -> loopback.Step:
    return loopback.body(json.dumps({"data": {"workspaceOrError": {"locationEntries": entries}}}).encode())


LOADED = {"name": "bcw_assets", "locationOrLoadError": {"__typename": "RepositoryLocation"}}


@pytest.mark.parametrize(
    ("entries", "loaded"),
    [
        ([LOADED], 1),
        ([{"name": "another", "locationOrLoadError": {"__typename": "PythonError"}}, LOADED], 1),
        ([{"name": "bcw_assets", "locationOrLoadError": {"__typename": "PythonError"}}], 0),
        ([{"name": "bcw_assets", "locationOrLoadError": None}], 0),
        ([], 0),
    ],
)
def test_the_code_location_is_loaded_if_the_web_server_says_so(entries: list[dict[str, object]], loaded: int) -> None:
    with loopback.serve(answering(*entries)) as server:
        assert values(vitals.of_web_server(server.url)) == {("bcw_code_location_loaded",): loaded}


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (loopback.refuse, "ConnectionError"),
        (loopback.status(502), "HTTPError"),
        (loopback.body(b"<html>a proxy</html>"), "JSONDecodeError"),
        (loopback.body(b"[]"), "TypeError"),
        (loopback.body(b'{"errors": []}'), "KeyError"),
    ],
)
def test_a_web_server_that_does_not_answer_as_it_should_is_away(step: loopback.Step, says: str) -> None:
    with loopback.serve(step) as server:
        expected = rf"web server at {server.url} does not answer as it should \({says}\); start it, or"
        with pytest.raises(BcwError, match=expected):
            list(vitals.of_web_server(server.url))


def test_a_code_location_that_dagster_cannot_load_is_told(tmp_path: Path) -> None:
    graph = Graph(tmp_path, str(tmp_path), dg.DagsterInstance.ephemeral())
    port = free_port()
    environment = graph.environment(BCW_STALE_DAYS="many")
    command = ["dagster-webserver", "-h", "127.0.0.1", "-p", str(port), "-m", "bcw_assets"]
    with started(*command, environment=environment, folder=tmp_path):
        url = f"http://127.0.0.1:{port}"
        until(lambda: requests.get(f"{url}/server_info", timeout=5).ok)
        assert values(vitals.of_web_server(url)) == {("bcw_code_location_loaded",): 0}


@contextmanager
def served(*sources: Source) -> Iterator[str]:
    """Serve what is known of these sources, which are asked once, and return the URL."""
    for one in sources:
        one.ask()
    server = exporter._listening("127.0.0.1", 0, Exporter(sources, vitals.of_build(14)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def scraped(url: str) -> dict[str, list[dict[str, str]]]:
    """Return the labels of every series by name."""
    text = requests.get(f"{url}/metrics", timeout=10).text
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


@pytest.fixture(scope="module")
def everything(lived: tuple[Graph, Values]) -> dict[str, list[dict[str, str]]]:
    """All series that there can be."""
    graph, found = lived
    known = [Sample(name, value, tuple(labels)) for (name, *labels), value in found.items()]
    with loopback.serve(answering(LOADED)) as web_server:
        sources = (
            Source("history", lambda: known, NEVER),
            Source("releases", lambda: vitals.of_releases(graph.store), NEVER),
            Source("web_server", lambda: vitals.of_web_server(web_server.url), NEVER),
        )
        with served(*sources) as url:
            return scraped(url)


def test_every_name_is_exported_with_its_labels_and_no_other(everything: dict[str, list[dict[str, str]]]) -> None:
    assert {name: set(labels[0]) for name, labels in everything.items()} == {
        name: set(labels) for name, (_, labels) in NAMES.items()
    }


def test_no_label_holds_an_id_a_path_or_a_text(
    lived: tuple[Graph, Values], everything: dict[str, list[dict[str, str]]]
) -> None:
    told = {text for series in everything.values() for labels in series for text in labels.values()}
    assert [text for text in told if not re.fullmatch(r"[A-Za-z][A-Za-z_]{1,30}|\d+(\.\w+){1,3}", text)] == []
    assert not told & {run.run_id for run in lived[0].instance.get_runs()}
    assert not {"job", "instance"} & {name for _, labels in NAMES.values() for name in labels}


def test_the_build_and_the_settings_are_told() -> None:
    found = values(vitals.of_build(14))
    (build,) = (key for key in found if key[0] == "bcw_build_info")
    assert build[2] == dg.__version__
    assert found["bcw_release_stale_after_seconds",] == 14 * 24 * 3600


def test_every_name_is_documented_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(bcw_\w+)` \| (.*?) ?\| ", OPERATIONS, flags=re.MULTILINE)
    assert {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == {
        name: labels for name, (_, labels) in NAMES.items()
    }
    assert [name for name, _ in rows] == sorted(NAMES)


def test_every_alert_is_documented_names_its_section_and_looks_at_what_is_exported() -> None:
    sections = re.findall(r"^### (Bcw\w+)$", OPERATIONS.partition("## What to do when")[2], flags=re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]
    for rule in RULES:
        told = rule["annotations"]["description"]
        assert told.endswith(f"What to do is in docs/operations.md under {rule['alert']}.")
        severity = rule["labels"]["severity"]
        assert f"### {rule['alert']}\n\n{severity.capitalize()}: " in OPERATIONS
        assert set(re.findall(r"bcw_\w+", rule["expr"])) <= set(NAMES)


def test_what_is_said_of_a_number_in_the_documentation_is_true() -> None:
    assert "every 30 seconds (`--interval`)" in OPERATIONS
    assert {option.name: option.default for option in main.commands["exporter"].params} == {
        "host": "127.0.0.1", "port": 9464, "webserver": "http://127.0.0.1:3000", "interval": 30,
    }  # fmt: skip
    assert f"has not answered for {exporter.PATIENCE:.0f} seconds beyond its turn" in OPERATIONS


def test_however_many_scrape_at_once_a_source_is_asked_once() -> None:
    asked: list[int] = []

    def collect() -> list[Sample]:
        asked.append(1)
        return [Sample("bcw_release_sequence", len(asked))]

    with served(Source("releases", collect, NEVER)) as url, ThreadPoolExecutor(20) as pool:
        answers = set(pool.map(lambda _: requests.get(f"{url}/metrics", timeout=10).text, range(20)))
    assert (len(asked), len(answers)) == (1, 1)


def test_a_source_that_fails_is_told_without_its_numbers_and_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    problem: list[Exception] = []

    def collect() -> Iterator[Sample]:
        yield Sample("bcw_release_sequence", 7)
        if problem:
            raise problem[0]

    asked = Source("releases", collect, NEVER)
    asked.ask()
    assert values(asked.samples())["bcw_release_sequence",] == 7
    for one in (BcwError("s3://secret/place does not answer"), KeyError("manifest")):
        problem[:] = [one]
        asked.ask()
        asked.ask()
        assert values(asked.samples()) == {("bcw_exporter_source_up", "releases"): 0}
    problem.clear()
    asked.ask()
    assert values(asked.samples())["bcw_exporter_source_up", "releases"] == 1
    assert capsys.readouterr().err.splitlines() == [
        "releases: s3://secret/place does not answer", "releases: KeyError: 'manifest'", "releases: answers again",
    ]  # fmt: skip


def test_what_a_hanging_source_told_is_left_out_and_scrapes_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "PATIENCE", 1.0)
    asked, over = [], threading.Event()

    def collect() -> list[Sample]:
        asked.append(1)
        if len(asked) > 1:
            over.wait(60)
        return [Sample("bcw_release_sequence", 7)]

    hanging = Source("releases", collect, 0.1)
    with served(Source("history", lambda: [Sample("bcw_run_queue_length", 0)], NEVER), hanging) as url:
        assert "bcw_release_sequence" in scraped(url)
        threading.Thread(target=hanging.keep_asking, daemon=True).start()
        until(lambda: values(hanging.samples()) == {("bcw_exporter_source_up", "releases"): 0})
        begun = time.monotonic()
        assert {"bcw_run_queue_length", "bcw_build_info"} <= set(scraped(url))
        assert "bcw_release_sequence" not in scraped(url)
        assert time.monotonic() - begun < 2
        assert len(asked) == 2
        over.set()
        until(lambda: "bcw_release_sequence" in scraped(url))


def test_a_collection_that_hangs_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "LOST", 0.1)
    over = threading.Event()
    asked = Source("history", lambda: [Sample("bcw_runs", over.wait(60))], NEVER)
    asked.ask()
    over.set()
    assert asked._known.problem == "TimeoutError: no whole answer within 0.1 s"


@pytest.mark.parametrize(("path", "status", "says"), [("/healthz", 200, "ok"), ("/", 404, "There is /metrics")])
def test_health_is_answered_and_other_paths_are_not(path: str, status: int, says: str) -> None:
    with served() as url:
        answer = requests.get(url + path, timeout=10)
    assert (answer.status_code, answer.text.startswith(says)) == (status, True)


def test_without_a_history_or_a_free_port_it_ends_with_a_message(home: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.folder)
    done = CliRunner().invoke(main, ["exporter"])
    assert (done.exit_code, done.stderr) == (
        1, "Failed: DAGSTER_HOME is not set, so there is no history to look into. `make install` sets it\n",
    )  # fmt: skip
    monkeypatch.setenv("DAGSTER_HOME", str(home.folder / "home"))
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(main, ["exporter", "--port", str(port)])
    assert done.exit_code == 1
    assert re.fullmatch(
        rf"Failed: Cannot listen on 127.0.0.1:{port} \(.*\). Give another by --host and --port\n", done.stderr
    )


POSTGRES_AWAY = """
storage:
  postgres:
    postgres_url: postgresql+psycopg2://bcw:secret@127.0.0.1:{port}/bcw
"""


def test_everything_away_is_told_logged_without_a_secret_and_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    graph = Graph(tmp_path, str(tmp_path), dg.DagsterInstance.ephemeral())
    closed, port = free_port(), free_port()
    home = graph.home("home")
    with (home / "dagster.yaml").open("a") as file:
        file.write(POSTGRES_AWAY.format(port=closed))
    environment = graph.environment(
        BCW_RELEASES="s3://bucket/prefix", AWS_ENDPOINT_URL=f"http://127.0.0.1:{closed}",
        AWS_ACCESS_KEY_ID="a key", AWS_SECRET_ACCESS_KEY="a secret",
    )  # fmt: skip
    with loopback.serve(loopback.hang) as web_server:
        options = ["--port", str(port), "--webserver", web_server.url, "--interval", "1"]
        with started("bcw", "exporter", *options, environment=environment, folder=tmp_path) as process:
            url = f"http://127.0.0.1:{port}"
            until(lambda: requests.get(f"{url}/healthz", timeout=5).ok)
            assert set(scraped(url)) == {"bcw_build_info", "bcw_release_stale_after_seconds", "bcw_exporter_source_up"}
            assert requests.get(f"{url}/metrics", timeout=10).text.count('"} 0.0') == 3
            with socket.create_connection(("127.0.0.1", port)) as rude:
                rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            assert requests.get(f"{url}/healthz", timeout=5).ok
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
            assert time.monotonic() - begun < 5
    first, *others = (tmp_path / "log").read_text().splitlines()
    assert first == f"Serves http://127.0.0.1:{port}/metrics"
    assert [line for line in others if not re.match("(history|releases|web_server): ", line) or "secret" in line] == []


def test_a_postgresql_that_cannot_be_reached_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    (tmp_path / "dagster.yaml").write_text(POSTGRES_AWAY.format(port=port))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries: 13 s
    expected = rf"the history in .*port {port} failed: Connection refused"
    with pytest.raises(BcwError, match=expected) as refused, history.opened():
        pass
    assert "secret" not in str(refused.value)


def require(program: str) -> str:
    """Return where a program of Debian's package prometheus is."""
    found = shutil.which(program)
    if found is None:
        assert "REQUIRE_ALL" not in os.environ, f"{program} is needed: apt-get install prometheus"
        pytest.skip(f"{program} is not installed (apt-get install prometheus)")
    return found


@pytest.mark.parametrize(
    "command",
    [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")],
)
def test_prometheus_takes_configuration_and_rules_and_each_rule_fires_when_it_should(command: tuple[str, ...]) -> None:
    done = subprocess.run([require("promtool"), *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tested() -> None:
    tests = (PROMETHEUS / "rules_test.yml").read_text()
    assert [rule["alert"] for rule in RULES if f"under {rule['alert']}." not in tests] == ["BcwExporterDown"]
    assert 'alertname="BcwExporterDown",alertstate="firing"' in tests


def test_prometheus_scrapes_the_exporter_and_an_alert_fires_when_the_refresh_fails(home: Graph) -> None:
    program = require("prometheus")
    environment, folder = home.environment(), home.folder
    port, prometheus = free_port(), free_port()
    shutil.copy(PROMETHEUS / "rules.yml", folder)
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    config["scrape_configs"][1]["static_configs"][0]["targets"] = [f"127.0.0.1:{prometheus}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{prometheus}/prometheus"

    def asked(path: str, **query: str) -> Any:
        return requests.get(f"{url}/api/v1/{path}", params=query, timeout=5).json()["data"]

    def firing() -> dict[str, str]:
        found = [one for one in asked("alerts")["alerts"] if one["state"] == "firing"]
        return {one["labels"]["alertname"]: one["labels"]["severity"] for one in found}

    assert refresh(home, "raw_data").success
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", f"--web.external-url={url}/"]
    options.append(f"--web.listen-address=127.0.0.1:{prometheus}")
    with (
        started(program, *options, environment=environment, folder=folder),
        started("bcw", "exporter", "--port", str(port), "--interval", "2", environment=environment, folder=folder),
    ):
        until(lambda: asked("query", query="bcw_run_last_succeeded == 1 and on () count(up == 1) == 2")["result"])
        assert firing() == {}
        home.source.write_bytes(b"<html>moved</html>")
        assert not refresh(home).success
        until(lambda: firing() == {"BcwRefreshFailed": "warning"})


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def started(
    program: str, *arguments: str, environment: dict[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, of the virtual environment if it has no path, and end it; what it says is in `log`."""
    with (folder / "log").open("ab") as log_file:
        process = subprocess.Popen(
            [BIN / program, *arguments],
            env=environment, cwd=folder, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log_file, stderr=log_file,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Return when something is so; what cannot be reached yet is not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except requests.RequestException:
            pass
        time.sleep(0.05)
    raise AssertionError("It did not become so")
