"""`bcw exporter`: every value against a real history, sources that are away, and a real Prometheus that scrapes it."""

import csv
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import msgspec
import pytest
import requests
import yaml
from click.testing import CliRunner
from dagster._core import remote_origin
from dagster._core.scheduler import instigation  # what the daemon writes, which no public name makes
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from bcw_assets import source as uci
from bcw_assets.checks import specify_checks
from bcw_assets.cli.main import main
from bcw_assets.definitions import build_definitions
from bcw_assets.errors import BcwError
from bcw_assets.operations import alerts, exporter, history
from bcw_assets.operations.exporter import Exporter, Sample
from bcw_assets.releases import bundle, log
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import BIN, CHECKOUT, Graph, with_all
from bcw_assets_tests.loopback import Step, body, hang, refuse, serve, status
from bcw_assets_tests.servers import PATIENCE, clean, find_ports, run_server, wait_until

OPERATIONS = (CHECKOUT / "docs" / "operations.md").read_text()
PROMETHEUS = CHECKOUT / "deploy" / "prometheus"
RULES = [rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"] for rule in group["rules"]]
TABLE = (CHECKOUT / "bcw_assets" / "operations" / "metrics.csv").read_text().splitlines()
METRICS = {row["name"]: tuple(row["labels"].split()) for row in csv.DictReader(TABLE)}
STACK = remote_origin.RemoteRepositoryOrigin(
    remote_origin.GrpcServerCodeLocationOrigin("code", 4000, location_name="bcw_assets"), "any"
)


def record_run(instance: dg.DagsterInstance, name: str, *, is_success: bool, **tags: str) -> None:
    """Let the history hold a run that has begun and ended."""
    run = instance.add_run(dg.DagsterRun(name, tags=tags))
    for kind in ("RUN_START", "RUN_SUCCESS" if is_success else "RUN_FAILURE"):
        instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType[kind].value, name), run.run_id)


def record_ticks(
    instance: dg.DagsterInstance, name: str, switch: str, data: instigation.InstigatorData, *ticks: str
) -> None:
    """Let the history hold a schedule or sensor of the stack, and its ticks, the oldest first."""
    origin = remote_origin.RemoteInstigatorOrigin(STACK, name)
    kind = instigation.InstigatorType["SENSOR" if name == alerts.SENSOR else "SCHEDULE"]
    state = instigation.InstigatorState(origin, kind, instigation.InstigatorStatus[switch], data)
    instance.add_instigator_state(state)
    for when, result in zip(itertools.count(1.0), ticks, strict=False):
        status = instigation.TickStatus[result]
        error = SerializableErrorInfo("s3://secret/place", [], "StorageError") if result == "FAILURE" else None
        of: dict[str, Any] = {"run_ids": [], "error": error, "selector_id": state.selector_id}
        instance.create_tick(instigation.TickData(origin.get_id(), name, kind, status, when, **of))


@pytest.fixture
def graph(graph: Graph) -> Iterator[Graph]:
    """A graph whose schedules, sensors and daemons are kept on disk: in memory, Dagster keeps runs alone."""
    with dg.DagsterInstance.from_config(str(graph.home("home"))) as disk:
        graph.instance._schedule_storage = disk._schedule_storage
        graph.instance.get_required_daemon_types = disk.get_required_daemon_types  # type: ignore[method-assign]
        yield graph


def let_everything_happen(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let something of every kind be in the history."""
    graph.prepare()
    monkeypatch.setattr(uci, "UCI_ADDRESSES", ("http://no-such-host.invalid/wdbc.data",))
    graph.select(dg.AssetSelection.assets("raw_data"), source="auto")
    graph.damage("results/model.json", b'"', b" ")
    assert not graph.check("model").success
    for is_success in (True, False):
        record_run(graph.instance, "refresh_job", is_success=is_success)
    origin = remote_origin.RemoteJobOrigin(STACK, "refresh_job")
    graph.instance.add_run(dg.DagsterRun("refresh_job", status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin))
    schedule = instigation.ScheduleInstigatorData("0 6 * * 1")
    record_ticks(graph.instance, "refresh_schedule", "STOPPED", schedule, "SUCCESS")
    incidents = tuple(alerts.Incident(key=key, title="", evidence="", since=1000.0) for key in ("run", "stale"))
    state = alerts.State(began=0, incidents=incidents, failures=3)
    sensor = instigation.SensorInstigatorData(cursor=msgspec.json.encode(state).decode())
    record_ticks(graph.instance, alerts.SENSOR, "DECLARED_IN_CODE", sensor, "SKIPPED", "FAILURE", "STARTED")
    for daemon in ("SENSOR", "OF_OLD"):
        graph.instance.add_daemon_heartbeat(DaemonHeartbeat(3000.0, daemon, "id of a process"))


def test_of_a_history_in_which_everything_happened_every_value_is_exported_and_no_id_path_or_text(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_everything_happen(graph, monkeypatch)
    definitions = build_definitions(graph.settings(autostart=True))
    known = list(exporter.collect_history(graph.instance, definitions, graph.places()))
    with serve(answer_repository("Repository")) as server:
        registry = register(
            history=lambda: iter(known),  # a history in memory belongs to one thread
            releases=lambda: exporter.collect_releases(graph.store),
            web_server=lambda: exporter.collect_web_server(server.url),
        )
        text = ask(registry)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    labels = {sample.name: set(sample.labels) for sample in samples}
    assert labels == {name: set(names) for name, names in METRICS.items()}
    assert not {"job", "instance"} & set().union(*labels.values())
    texts = {text for sample in samples for text in sample.labels.values()}
    assert [text for text in texts if not re.fullmatch(r"[A-Za-z][A-Za-z_]{1,30}|\d+(\.\w+){1,3}", text)] == []
    values = {(each.name, *(each.labels[name] for name in METRICS[each.name])): each.value for each in samples}
    expected = (Path(__file__).parent / "metrics.prom").read_text().splitlines()
    assert [line for line in expected if line not in text.splitlines() and not line.startswith("# ")] == []
    assert ("bcw_automation_last_tick_succeeded", "schedule", "housekeeping_schedule") not in values
    assert ("bcw_daemon_heartbeat_timestamp_seconds", "OF_OLD") not in values  # it is not needed
    assert ("bcw_asset_rows", "model") not in values
    versions = (metadata.version("bcw-assets"), dg.__version__, platform.python_version())
    assert values["bcw_build_info", *versions] == 1
    _, failure, success = graph.instance.get_run_records(dg.RunsFilter(job_name="refresh_job"))
    assert values["bcw_run_last_duration_seconds", "refresh_job"] == (failure.end_time or 0) - (failure.start_time or 0)
    assert values["bcw_run_last_success_timestamp_seconds", "refresh_job"] == success.end_time
    for key in graph.places():
        made = graph.instance.fetch_materializations(key, limit=1).records[0]
        assert values["bcw_asset_last_materialized_timestamp_seconds", key.to_user_string()] == made.timestamp
        for spec in specify_checks(key):
            assert ("bcw_check_passed", key.to_user_string(), spec.name, str(spec.blocking).lower()) in values
    champion = log.read_log(graph.store).require_champion()
    assert values["bcw_release_timestamp_seconds",] == datetime.fromisoformat(champion.made).timestamp()
    for score, summary in bundle.read_manifest(graph.store, champion.release).headline.items():
        assert values["bcw_champion_score", score] == summary.estimate


def test_where_nothing_happened_nothing_is_said_that_nobody_can_know(graph: Graph) -> None:
    record_run(graph.instance, "job_of_another_name", is_success=False)
    record_run(graph.instance, "refresh_job", is_success=False, **{history.WILL_RETRY: "true"})  # is not the last
    definitions = build_definitions(graph.settings())
    samples = list(exporter.collect_history(graph.instance, definitions, graph.places()))
    assert {sample.name for sample in samples} == {
        *("bcw_run_queue_length", "bcw_automation_running", "bcw_daemon_heartbeat_timestamp_seconds"),
        *("bcw_notification_failures_total", "bcw_open_incidents"),
    }
    assert {sample.value for sample in samples} == {0}
    assert list(exporter.collect_releases(graph.store)) == []


def test_of_a_damaged_champion_nothing_is_known(store: Store, one_release: dict[str, bytes]) -> None:
    champion = log.read_log(with_all(store, one_release)).require_champion().release
    store.write({bundle.locate_file(champion, bundle.MANIFEST): b"{}"})
    with pytest.raises(ValueError, match="it is not the one that the log"):
        list(exporter.collect_releases(store))


def answer_repository(kind: str) -> Step:
    return body(json.dumps({"data": {"repositoryOrError": {"__typename": kind}}}).encode())


@pytest.mark.parametrize(
    ("step", "result"),
    [
        (answer_repository("Repository"), 1),
        (answer_repository("RepositoryNotFoundError"), 0),
        (answer_repository("PythonError"), 0),
        (refuse, "ConnectionError"),
        (status(502), "HTTPError"),
        (body(b"<html>a proxy</html>"), "JSONDecodeError"),
        (body(b"[]"), "TypeError"),
    ],
)
def test_the_web_server_says_whether_the_code_location_is_loaded_or_is_away_and_no_proxy_is_asked(
    step: Step, result: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serve(step) as server:
        if isinstance(result, int):
            assert list(exporter.collect_web_server(server.url)) == [Sample("bcw_code_location_loaded", result)]
        else:
            says = rf"web server at {server.url} does not answer as it should \({result}\); start it, or"
            with pytest.raises(BcwError, match=says):
                list(exporter.collect_web_server(server.url))


def register(**sources: Callable[[], Iterator[Sample]]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Exporter(sources, 14))
    return registry


def ask(registry: Collector) -> str:
    return generate_latest(registry).decode()


def test_every_name_and_alert_is_documented_and_each_alert_is_tested_and_looks_at_what_is_exported() -> None:
    rows = re.findall(r"^\| `(bcw_\w+)` \| (.*?) ?\| ", OPERATIONS, flags=re.MULTILINE)
    names = [(name, tuple(re.findall(r"`(\w+)`", labels))) for name, labels in rows]
    assert names == sorted(METRICS.items())
    sections = re.findall(r"^### (Bcw\w+)$", OPERATIONS.partition("## What to do when")[2], flags=re.MULTILINE)
    assert sections == [rule["alert"] for rule in RULES]
    tests = (PROMETHEUS / "rules_test.yml").read_text()
    for rule in RULES:
        section = f"in docs/operations.md under {rule['alert']}."
        assert rule["annotations"]["description"].endswith(f"What to do is {section}")
        assert f"### {rule['alert']}\n\n{rule['labels']['severity'].capitalize()}: " in OPERATIONS
        assert set(re.findall(r"bcw_\w+", rule["expr"])) <= set(METRICS)
        assert section in tests or f'alertname="{rule["alert"]}",alertstate="firing"' in tests


def test_a_source_that_fails_is_left_out_with_its_numbers_and_logged_once(capsys: pytest.CaptureFixture[str]) -> None:
    problems: list[Exception] = []

    def answer() -> Iterator[Sample]:
        yield Sample("bcw_run_queue_length", 7)
        if problems:
            raise problems[0]

    registry = register(releases=answer)
    assert "bcw_run_queue_length 7.0" in ask(registry)
    for problem in (BcwError("s3://secret/place does not answer"), KeyError("manifest")):
        problems[:] = [problem]
        for text in (ask(registry), ask(registry)):
            assert 'bcw_exporter_source_up{source="releases"} 0.0' in text
            assert "bcw_run_queue_length" not in text
    problems.clear()
    assert 'bcw_exporter_source_up{source="releases"} 1.0' in ask(registry)
    assert capsys.readouterr().err.splitlines() == [
        "releases: s3://secret/place does not answer", "releases: KeyError: 'manifest'", "releases: answers again",
    ]  # fmt: skip


def test_a_history_that_hangs_is_not_asked_for_ever_and_every_scrape_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "SCRAPE_LIMIT", 0.0)  # is over at once: nobody waits
    over, questions = threading.Event(), []

    def answer() -> Iterator[Sample]:
        questions.append(1)
        over.wait(60)
        yield Sample("bcw_run_queue_length", 7)

    registry = register(history=answer)
    assert (ask(registry.restricted_registry(["bcw_up"])), questions) == ("", [])  # as a health check asks
    for _ in range(5):
        text = ask(registry)
        assert 'bcw_exporter_source_up{source="history"} 0.0' in text
        assert "bcw_run_queue_length" not in text
    assert len(questions) <= exporter.MOST_AT_ONCE
    monkeypatch.setattr(exporter, "SCRAPE_LIMIT", 60.0)
    over.set()
    assert "bcw_run_queue_length 7.0" in ask(registry)


def test_without_a_history_or_a_free_port_it_ends_with_a_message(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(graph.folder)
    done = CliRunner().invoke(main, ["exporter"])
    assert (done.exit_code, done.stderr.startswith("Failed: There is no history in ")) == (1, True)
    monkeypatch.setenv("DAGSTER_HOME", str(graph.home("home")))
    with serve() as server:
        port = str(urlsplit(server.url).port)
        done = CliRunner().invoke(main, ["exporter", "--port", port])
    says = rf"Failed: Cannot listen on 127.0.0.1:{port} \(.*\). Give another by --host and --port\n"
    assert (done.exit_code, bool(re.fullmatch(says, done.stderr))) == (1, True)


def test_everything_away_is_logged_without_a_secret_and_does_not_keep_it_from_ending(graph: Graph) -> None:
    environment = graph.environment(
        BCW_RELEASES="s3://bucket/prefix", AWS_ENDPOINT_URL="http://127.0.0.1:9",
        AWS_ACCESS_KEY_ID="a key", AWS_SECRET_ACCESS_KEY="a secret",
    )  # fmt: skip
    with Path(environment["DAGSTER_HOME"], "dagster.yaml").open("a") as file:
        file.write("storage: {postgres: {postgres_url: 'postgresql+psycopg2://bcw:secret@127.0.0.1:9/bcw'}}")
    with (
        serve(hang) as web_server,
        start_exporter(graph.folder, environment, "::1", "--webserver", web_server.url) as (process, url),
    ):
        answer = requests.get(f"{url}/metrics", timeout=PATIENCE).text
        process.terminate()
        assert process.wait(50) == 0  # the web server hangs for longer
    assert re.findall(r"^(bcw_\w+).* (\S+)$", answer, flags=re.MULTILINE) == [
        ("bcw_build_info", "1.0"), *[("bcw_exporter_source_up", "0.0")] * 3,
        ("bcw_release_stale_after_seconds", "1.2096e+06"),
    ]  # fmt: skip
    text = (graph.folder / "log").read_text()
    first, *problems = text.splitlines()
    assert (re.fullmatch(r"Serves http://\[::1\]:\d+/metrics", first) is None, "secret" in text) == (False, False)
    assert [line for line in problems if not re.match("(history|releases|web_server): ", line)] == []


needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None and "REQUIRE_ALL" not in os.environ, reason="apt-get install prometheus"
)


@needs_prometheus
@pytest.mark.parametrize("command", [("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")])
def test_prometheus_takes_configuration_and_rules_and_each_rule_fires_when_it_should(command: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *command], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
@pytest.mark.sweep
def test_prometheus_scrapes_the_exporter_and_an_alert_fires_when_the_refresh_fails(graph: Graph) -> None:
    folder, environment = graph.folder, graph.environment()
    shutil.copy(PROMETHEUS / "rules.yml", folder)
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    address = f"127.0.0.1:{find_ports(1)[0]}"
    url = f"http://{address}/prometheus"

    def query_api(path: str, key: str, **query: str) -> list[Any]:
        answer: list[Any] = requests.get(f"{url}/api/v1/{path}", params=query, timeout=PATIENCE).json()["data"][key]
        return answer

    def list_firing() -> list[str]:
        return [alert["labels"]["alertname"] for alert in query_api("alerts", "alerts") if alert["state"] == "firing"]

    command = ("prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb", f"--web.external-url={url}/",
               f"--web.listen-address={address}")  # fmt: skip
    is_scraped = "bcw_run_last_succeeded == 1 and on () count(up == 1) == 2"
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        record_run(instance, "refresh_job", is_success=True)
        with start_exporter(folder, environment, "127.0.0.1") as (_, exporter_url):
            for scrape_config, target in zip(config["scrape_configs"], (exporter_url, url), strict=True):
                scrape_config["static_configs"][0]["targets"] = [urlsplit(target).netloc]
            (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
            with run_server(folder / "prometheus.log", command, clean(), list_firing):
                wait_until(lambda: query_api("query", "result", query=is_scraped))
                assert list_firing() == []
                record_run(instance, "refresh_job", is_success=False)
                wait_until(lambda: list_firing() == ["BcwRefreshFailed"])


@contextmanager
def start_exporter(
    folder: Path, environment: dict[str, str], host: str, *options: str
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run the exporter on a free port, and return it and its URL; what it says is in `log`."""
    (port,) = find_ports(1)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    command = (str(BIN / "bcw"), "exporter", "--host", host, "--port", str(port), *options)
    health = f"{url}/metrics?name[]=bcw_up"
    with run_server(folder / "log", command, environment, lambda: requests.get(health, timeout=PATIENCE)) as process:
        yield process, url
