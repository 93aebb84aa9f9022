"""`bcw exporter`: every value against a real history, sources that are away, and a real Prometheus that scrapes it."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
import yaml
from click.testing import CliRunner
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler import instigation  # what the daemon writes, which no public name makes
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

from bcw_assets import source as uci
from bcw_assets.assets import GRAPH
from bcw_assets.automation import build_schedule, refresh_job
from bcw_assets.checks import build_checks, specify_checks
from bcw_assets.cli.main import main
from bcw_assets.errors import BcwError, ReleaseError
from bcw_assets.operations import alerts, exporter, history
from bcw_assets.operations.exporter import METRICS, Exporter, Sample
from bcw_assets.releases import bundle, log
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store
from bcw_assets_tests import loopback
from bcw_assets_tests.conftest import BIN, CHECKOUT, Golden, Graph, contents, with_all

OPERATIONS = (CHECKOUT / "docs" / "operations.md").read_text()
PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]]
REPOSITORY = RemoteRepositoryOrigin(
    GrpcServerCodeLocationOrigin(host="code", port=4000, location_name="bcw_assets"), "__repository__"
)
INCIDENTS = tuple(alerts.Incident(key=key, title="", evidence="", since=1000.0) for key in ("run", "stale"))
CURSOR = alerts.State(began=0, incidents=INCIDENTS, failures=3).model_dump_json()


@dg.sensor(job=refresh_job, name=alerts.SENSOR, default_status=dg.DefaultSensorStatus.RUNNING)
def messages() -> dg.SkipReason:
    return dg.SkipReason("stands for the one that sends messages")


@dg.sensor(job=refresh_job)
def idle() -> dg.SkipReason:
    return dg.SkipReason("nobody has switched it on")


Values = dict[tuple[str, ...], float]


def index_samples(samples: object) -> Values:
    """Return the values by name and labels, each once."""
    listed: list[Sample] = list(samples)  # type: ignore[call-overload]
    values: Values = {(sample.name, *sample.labels): float(sample.value) for sample in listed}
    assert len(values) == len(listed)
    return values


def collect(graph: Graph, **changes: object) -> Values:
    """Return what is known of the history of a graph, with these settings."""
    settings = graph.settings().model_copy(update=changes)
    definitions = dg.Definitions(
        asset_checks=build_checks(GRAPH),
        jobs=[refresh_job],
        schedules=[build_schedule(settings)],
        sensors=[messages, idle],
    )
    return index_samples(exporter.collect_history(graph.instance, definitions, graph.places()))


def record_run(instance: dg.DagsterInstance, name: str = "refresh_job", *, is_success: bool, **tags: str) -> str:
    """Let the history hold a run that has begun and ended, and return its id."""

    @dg.job(name=name)
    def job() -> None:
        """Do nothing."""

    run = instance.create_run_for_job(job, tags=tags)
    end = dg.DagsterEventType.RUN_SUCCESS if is_success else dg.DagsterEventType.RUN_FAILURE
    for event in (dg.DagsterEventType.RUN_START, end):
        instance.report_dagster_event(dg.DagsterEvent(event.value, name), run.run_id)
    return run.run_id


@contextmanager
def open_graph(folder: Path, home: Path, golden: Golden | None = None) -> Iterator[Graph]:
    """Return a graph whose runs are in memory, and whose schedules, sensors and daemons are those of a folder."""
    home.mkdir(exist_ok=True)
    shutil.copy(CHECKOUT / ".dagster" / "dagster.yaml", home)
    with dg.DagsterInstance.ephemeral() as instance, dg.DagsterInstance.from_config(str(home)) as disk:
        instance._schedule_storage = disk._schedule_storage
        instance.get_required_daemon_types = disk.get_required_daemon_types  # type: ignore[method-assign]
        yield Graph(folder, str(folder / "store"), instance, lambda: golden)  # type: ignore[arg-type, return-value]


@pytest.fixture(scope="module")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def graph(tmp_path: Path, empty_home: Path) -> Iterator[Graph]:
    with open_graph(tmp_path, empty_home) as graph:
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
def eventful(tmp_path_factory: pytest.TempPathFactory, golden: Golden) -> Iterator[tuple[Graph, Values]]:
    """A history in which something of every kind has happened, and what is known of it."""
    folder = tmp_path_factory.mktemp("exporter")
    with open_graph(folder, folder / "home", golden) as graph:
        instance = graph.instance
        graph.prepare()
        graph.damage("results/model.json", b'"', b" ")
        assert not graph.check("model").success
        for is_success in (True, False):
            record_run(instance, is_success=is_success)
        origin = RemoteJobOrigin(REPOSITORY, "refresh_job")
        instance.add_run(dg.DagsterRun("refresh_job", status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin))
        schedule = state("SCHEDULE", "refresh_schedule", "STOPPED", instigation.ScheduleInstigatorData("0 6 * * 1"))
        data = instigation.SensorInstigatorData(cursor=CURSOR)
        sensor = state("SENSOR", alerts.SENSOR, "DECLARED_IN_CODE", data)
        for instigator in (schedule, sensor):
            instance.add_instigator_state(instigator)
        tick(instance, schedule, 1000.0, "SUCCESS")
        for when, status in ((2000.0, "SKIPPED"), (2030.0, "FAILURE"), (2060.0, "STARTED")):
            tick(instance, sensor, when, status)
        for daemon in ("SENSOR", "OF_OLD"):
            instance.add_daemon_heartbeat(DaemonHeartbeat(3000.0, daemon, "id of a process"))
        yield graph, collect(graph)


EVENTFUL = {
    ("bcw_run_queue_length",): 1,
    ("bcw_run_last_succeeded", "refresh_job"): 0,
    ("bcw_automation_running", "schedule", "refresh_schedule"): 0,  # somebody switched it off
    ("bcw_automation_last_tick_succeeded", "schedule", "refresh_schedule"): 1,
    ("bcw_automation_running", "sensor", "alerts"): 1,  # nobody switched it: as the code declares it
    ("bcw_automation_last_tick_succeeded", "sensor", "alerts"): 0,  # the last that ended
    ("bcw_automation_running", "sensor", "idle"): 0,
    ("bcw_automation_last_tick_succeeded", "sensor", "idle"): None,
    ("bcw_daemon_heartbeat_timestamp_seconds", "SENSOR"): 3000,
    ("bcw_daemon_heartbeat_timestamp_seconds", "SCHEDULER"): 0,  # it is needed, and never lived
    ("bcw_daemon_heartbeat_timestamp_seconds", "OF_OLD"): None,  # it is not needed
    ("bcw_check_passed", "model", "stored", "true"): 0,
    ("bcw_check_passed", "ready_data", "scaling", "true"): 1,
    ("bcw_check_passed", "release", "published", "true"): 1,
    ("bcw_asset_rows", "raw_data"): 569,
    ("bcw_asset_rows", "cross_validation"): 569,
    ("bcw_asset_rows", "model"): None,
    ("bcw_source_fallback",): 0,
    ("bcw_notification_failures_total",): 3,  # as the cursor of the sensor says
    ("bcw_open_incidents",): 2,
}


def test_of_a_history_in_which_everything_happened_these_values_are_known(eventful: tuple[Graph, Values]) -> None:
    assert {key: eventful[1].get(key) for key in EVENTFUL} == EVENTFUL


def test_the_times_of_the_last_runs_and_of_every_asset_and_the_result_of_every_check_are_known(
    eventful: tuple[Graph, Values],
) -> None:
    graph, values = eventful
    _, failure, success = graph.instance.get_run_records(dg.RunsFilter(job_name="refresh_job"))
    assert values["bcw_run_last_duration_seconds", "refresh_job"] == (failure.end_time or 0) - (failure.start_time or 0)
    assert values["bcw_run_last_success_timestamp_seconds", "refresh_job"] == success.end_time
    for key in graph.places():
        made = graph.instance.fetch_materializations(key, limit=1).records[0]
        assert values["bcw_asset_last_materialized_timestamp_seconds", key.to_user_string()] == made.timestamp
        for spec in specify_checks(key):
            assert ("bcw_check_passed", key.to_user_string(), spec.name, str(spec.blocking).lower()) in values


def test_a_failed_run_that_dagster_tries_again_by_itself_is_not_the_last(graph: Graph) -> None:
    record_run(graph.instance, is_success=False, **{history.WILL_RETRY: "true"})
    assert ("bcw_run_last_succeeded", "refresh_job") not in collect(graph)
    record_run(graph.instance, is_success=False)
    assert collect(graph)["bcw_run_last_succeeded", "refresh_job"] == 0


def test_the_embedded_copy_is_known(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uci, "UCI_ADDRESSES", ("http://no-such-host.invalid/wdbc.data",))
    graph.select(dg.AssetSelection.assets("raw_data"), source="auto")
    values = collect(graph)
    assert values["bcw_source_fallback",] == 1
    assert values["bcw_check_passed", "raw_data", "source", "false"] == 0


def test_of_an_empty_history_nothing_is_said_that_nobody_can_know(graph: Graph) -> None:
    record_run(graph.instance, "job_of_another_name", is_success=False)
    values = collect(graph, autostart=True)
    assert {key[0] for key in values} == {
        *("bcw_run_queue_length", "bcw_automation_running", "bcw_daemon_heartbeat_timestamp_seconds"),
        *("bcw_notification_failures_total", "bcw_open_incidents"),
    }
    assert values["bcw_automation_running", "schedule", "refresh_schedule"] == 1
    assert values["bcw_notification_failures_total",] == values["bcw_open_incidents",] == 0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "releases")


def copy_release(eventful: tuple[Graph, Values], store: Store) -> str:
    """Put what the history released into a store, and return the id of the champion."""
    ours = {key: content for key, content in contents(eventful[0].store).items() if key.startswith(bundle.PLACE)}
    return log.read_log(with_all(store, ours)).require_champion().release


def test_the_champion_is_known_once_there_is_one(eventful: tuple[Graph, Values], store: Store) -> None:
    assert index_samples(exporter.collect_releases(store)) == {}
    champion = copy_release(eventful, store)
    values = index_samples(exporter.collect_releases(store))
    made = datetime.fromisoformat(log.read_log(store).require_champion().made)
    assert values["bcw_release_timestamp_seconds",] == made.timestamp()
    headline = bundle.read_manifest(store, champion).headline
    scores = {key[1]: value for key, value in values.items() if key[0] == "bcw_champion_score"}
    assert scores == {score: headline[score].estimate for score in headline}


@pytest.mark.parametrize(
    ("what", "says"), [("log", "000001.json cannot be read"), ("manifest", "it is not the one that the log")]
)
def test_of_a_damaged_champion_nothing_is_known(
    eventful: tuple[Graph, Values], store: Store, what: str, says: str
) -> None:
    champion = copy_release(eventful, store)
    key = f"{log.LOG_PREFIX}000001.json" if what == "log" else bundle.locate_file(champion, bundle.MANIFEST)
    store.write({key: store.read(key).replace(b"0", b"1")})
    with pytest.raises((ReleaseError, ValueError), match=says):
        list(exporter.collect_releases(store))


def answering(*entries: Mapping[str, object]) -> loopback.Step:
    return loopback.body(json.dumps({"data": {"workspaceOrError": {"locationEntries": entries}}}).encode())


LOADED = {"name": "bcw_assets", "locationOrLoadError": {"__typename": "RepositoryLocation"}}


@pytest.mark.parametrize(
    ("entries", "loaded"),
    [
        ([{"name": "another", "locationOrLoadError": {"__typename": "PythonError"}}, LOADED], 1),
        ([{"name": "bcw_assets", "locationOrLoadError": {"__typename": "PythonError"}}], 0),
        ([{"name": "bcw_assets", "locationOrLoadError": None}], 0),
    ],
)
def test_the_code_location_is_loaded_if_the_web_server_says_so_and_no_proxy_is_asked(
    entries: list[dict[str, object]], loaded: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with loopback.serve(answering(*entries)) as server:
        assert index_samples(exporter.collect_web_server(server.url)) == {("bcw_code_location_loaded",): loaded}


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (loopback.refuse, "ConnectionError"),
        (loopback.status(502), "HTTPError"),
        (loopback.body(b"<html>a proxy</html>"), "JSONDecodeError"),
        (loopback.body(b"[]"), "TypeError"),
    ],
)
def test_a_web_server_that_does_not_answer_as_it_should_is_away(step: loopback.Step, says: str) -> None:
    with loopback.serve(step) as server:
        expected = rf"web server at {server.url} does not answer as it should \({says}\); start it, or"
        with pytest.raises(BcwError, match=expected):
            list(exporter.collect_web_server(server.url))


@contextmanager
def serve(**sources: Callable[[], Any]) -> Iterator[str]:
    """Serve what these sources say, and return the URL."""
    registry = CollectorRegistry()
    registry.register(Exporter(sources, 14))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ask(url: str) -> str:
    return requests.get(f"{url}/metrics", timeout=60).text


def scrape(url: str) -> dict[str, list[dict[str, str]]]:
    """Return the labels of every series by name."""
    series: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(ask(url)):
        for sample in family.samples:
            series.setdefault(sample.name, []).append(sample.labels)
    return series


def test_every_name_is_exported_with_its_labels_and_no_other_and_no_label_holds_an_id_a_path_or_a_text(
    eventful: tuple[Graph, Values],
) -> None:
    graph, values = eventful
    with serve(
        history=lambda: (Sample(name, value, tuple(labels)) for (name, *labels), value in values.items()),
        releases=lambda: exporter.collect_releases(graph.store),
        web_server=lambda: iter([Sample("bcw_code_location_loaded", 1)]),
    ) as url:
        everything = scrape(url)
    assert {name: set(labels[0]) for name, labels in everything.items()} == {
        name: set(labels) for name, (_, labels) in METRICS.items()
    }
    assert everything["bcw_build_info"][0]["dagster"] == dg.__version__
    texts = {text for series in everything.values() for labels in series for text in labels.values()}
    assert [text for text in texts if not re.fullmatch(r"[A-Za-z][A-Za-z_]{1,30}|\d+(\.\w+){1,3}", text)] == []
    assert not {"job", "instance"} & {name for _, labels in METRICS.values() for name in labels}


def test_every_name_is_documented_with_its_labels_and_no_other() -> None:
    rows = re.findall(r"^\| `(bcw_\w+)` \| (.*?) ?\| ", OPERATIONS, flags=re.MULTILINE)
    assert {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows} == {
        name: labels for name, (_, labels) in METRICS.items()
    }
    assert [name for name, _ in rows] == sorted(METRICS)


def test_every_alert_is_documented_names_its_section_and_looks_at_what_is_exported() -> None:
    sections = re.findall(r"^### (Bcw\w+)$", OPERATIONS.partition("## What to do when")[2], flags=re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]
    for rule in RULES:
        description = rule["annotations"]["description"]
        assert description.endswith(f"What to do is in docs/operations.md under {rule['alert']}.")
        severity = rule["labels"]["severity"]
        assert f"### {rule['alert']}\n\n{severity.capitalize()}: " in OPERATIONS
        assert set(re.findall(r"bcw_\w+", rule["expr"])) <= set(METRICS)


def test_a_source_that_fails_is_left_out_with_its_numbers_and_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    problems: list[Exception] = []

    def answer() -> Iterator[Sample]:
        yield Sample("bcw_run_queue_length", 7)
        if problems:
            raise problems[0]

    with serve(releases=answer) as url:
        assert "bcw_run_queue_length 7.0" in ask(url)
        for problem in (BcwError("s3://secret/place does not answer"), KeyError("manifest")):
            problems[:] = [problem]
            for _ in range(2):
                assert 'bcw_exporter_source_up{source="releases"} 0.0' in ask(url)
                assert "bcw_run_queue_length" not in scrape(url)
        problems.clear()
        assert 'bcw_exporter_source_up{source="releases"} 1.0' in ask(url)
    assert capsys.readouterr().err.splitlines() == [
        "releases: s3://secret/place does not answer", "releases: KeyError: 'manifest'", "releases: answers again",
    ]  # fmt: skip


def test_a_history_that_hangs_is_not_asked_for_ever_and_every_scrape_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "SCRAPE_LIMIT", 0.2)
    over, questions = threading.Event(), []

    def answer() -> Iterator[Sample]:
        questions.append(1)
        over.wait(60)
        yield Sample("bcw_run_queue_length", 7)

    with serve(history=answer) as url:
        assert (requests.get(f"{url}/metrics?name[]=bcw_up", timeout=60).text, questions) == ("", [])
        for _ in range(5):
            text = ask(url)
            assert 'bcw_exporter_source_up{source="history"} 0.0' in text
            assert "bcw_run_queue_length" not in text
        assert 1 <= len(questions) <= exporter.MOST_AT_ONCE
        monkeypatch.setattr(exporter, "SCRAPE_LIMIT", 60.0)
        over.set()
        assert "bcw_run_queue_length 7.0" in ask(url)


def test_without_a_history_or_a_free_port_it_ends_with_a_message(
    empty_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["exporter"])
    assert (done.exit_code, done.stderr) == (
        1, "Failed: DAGSTER_HOME is not set, so there is no history to look into. `make install` sets it\n",
    )  # fmt: skip
    monkeypatch.setenv("DAGSTER_HOME", str(empty_home))
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


def test_everything_away_is_logged_without_a_secret_and_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    graph = Graph(tmp_path, str(tmp_path), dg.DagsterInstance.ephemeral())
    closed, port = free_port(), free_port()
    environment = graph.environment(
        BCW_RELEASES="s3://bucket/prefix", AWS_ENDPOINT_URL=f"http://127.0.0.1:{closed}",
        AWS_ACCESS_KEY_ID="a key", AWS_SECRET_ACCESS_KEY="a secret",
    )  # fmt: skip
    with (tmp_path / "home" / "dagster.yaml").open("a") as file:
        file.write(POSTGRES_AWAY.format(port=closed))
    with loopback.serve(loopback.hang) as web_server:
        options = ["--host", "::1", "--port", str(port), "--webserver", web_server.url]
        with start("bcw", "exporter", *options, environment=environment, folder=tmp_path) as process:
            url = f"http://[::1]:{port}"
            until(lambda: requests.get(f"{url}/metrics?name[]=bcw_up", timeout=60).ok)
            names = re.findall(r"^(bcw_\w+).* (\S+)$", ask(url), flags=re.MULTILINE)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=50) == 0  # the web server hangs for longer
    assert names == [
        ("bcw_build_info", "1.0"), *[("bcw_exporter_source_up", "0.0")] * 3,
        ("bcw_release_stale_after_seconds", "1.2096e+06"),
    ]  # fmt: skip
    first, *problems = (tmp_path / "log").read_text().splitlines()
    assert first == f"Serves http://[::1]:{port}/metrics"
    assert [
        line for line in problems if not re.match("(history|releases|web_server): ", line) or "secret" in line
    ] == []


def test_a_postgresql_that_cannot_be_reached_is_named_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    (tmp_path / "dagster.yaml").write_text(POSTGRES_AWAY.format(port=port))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between tries: 13 s
    expected = rf"the history in .*port {port} failed: Connection refused"
    with pytest.raises(BcwError, match=expected) as refused, history.open_history():
        pass
    assert "secret" not in str(refused.value)


def require(program: str) -> str:
    """Return where a program of Debian's package prometheus is."""
    path = shutil.which(program)
    if path is None:
        assert "REQUIRE_ALL" not in os.environ, f"{program} is needed: apt-get install prometheus"
        pytest.skip(f"{program} is not installed (apt-get install prometheus)")
    return path


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


@pytest.mark.sweep
def test_prometheus_scrapes_the_exporter_and_an_alert_fires_when_the_refresh_fails(tmp_path: Path) -> None:
    program = require("prometheus")
    graph = Graph(tmp_path, str(tmp_path), dg.DagsterInstance.ephemeral())
    port, prometheus = free_port(), free_port()
    shutil.copy(PROMETHEUS / "rules.yml", tmp_path)
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    config["scrape_configs"][1]["static_configs"][0]["targets"] = [f"127.0.0.1:{prometheus}"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{prometheus}/prometheus"

    def query_api(path: str, **query: str) -> Any:
        return requests.get(f"{url}/api/v1/{path}", params=query, timeout=60).json()["data"]

    def list_firing() -> dict[str, str]:
        alerts = [alert["labels"] for alert in query_api("alerts")["alerts"] if alert["state"] == "firing"]
        return {labels["alertname"]: labels["severity"] for labels in alerts}

    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", f"--web.external-url={url}/"]
    options.append(f"--web.listen-address=127.0.0.1:{prometheus}")
    rig: dict[str, Any] = {"environment": graph.environment(), "folder": tmp_path}
    with dg.DagsterInstance.from_config(rig["environment"]["DAGSTER_HOME"]) as instance:
        record_run(instance, is_success=True)
        with start(program, *options, **rig), start("bcw", "exporter", "--port", str(port), **rig):
            until(
                lambda: query_api("query", query="bcw_run_last_succeeded == 1 and on () count(up == 1) == 2")["result"]
            )
            assert list_firing() == {}
            record_run(instance, is_success=False)
            until(lambda: list_firing() == {"BcwRefreshFailed": "warning"})


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def start(
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


def until(holds: Callable[[], object], seconds: float = 300) -> None:
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
