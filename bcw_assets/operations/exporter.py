"""`bcw exporter`: what the history, the releases and Dagster's web server say when Prometheus asks."""

import csv
import gc
import itertools
import logging
import os
import platform
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from importlib import metadata
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import click
import dagster as dg
import requests
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bcw_assets.errors import BcwError
from bcw_assets.operations import alerts, history
from bcw_assets.releases import bundle, log
from bcw_assets.storage.io_manager import Places, find_latest
from bcw_assets.storage.store import Store

LOCATION = "bcw_assets"  # the name of the code location in workspace.yaml and pyproject.toml
METRICS = Path(__file__).with_name("metrics.csv")
SCRAPE_LIMIT = 8.0  # seconds for all sources, which are asked at once; Prometheus waits for 10
MOST_AT_ONCE = 3  # questions to a source: one that hangs gets no more
REPOSITORY = f'{{repositoryLocationName: "{LOCATION}", repositoryName: "__repository__"}}'
QUERY = f"{{ repositoryOrError(repositorySelector: {REPOSITORY}) {{ __typename }} }}"


class Sample(NamedTuple):
    """One value of a metric, with the values of its labels in their order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


def collect_history(instance: dg.DagsterInstance, definitions: dg.Definitions, places: Places) -> Iterator[Sample]:
    """Return what the history knows: runs, automation, daemons, and what was made at these places, with its checks."""
    yield Sample("bcw_run_queue_length", instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED])))
    for job in definitions.jobs or ():
        if run := history.read_last_run(instance, job.name):
            yield Sample("bcw_run_last_succeeded", run.dagster_run.is_success, (job.name,))
            if run.start_time:
                yield Sample("bcw_run_last_duration_seconds", history.find_end(run) - run.start_time, (job.name,))
        if success := history.find_last_success(instance, job.name):
            yield Sample("bcw_run_last_success_timestamp_seconds", success, (job.name,))
    beats = instance.get_daemon_heartbeats()
    for daemon in instance.get_required_daemon_types():  # a beat of one that was switched off stays for ever
        when = beats[daemon].timestamp if daemon in beats else 0
        yield Sample("bcw_daemon_heartbeat_timestamp_seconds", when, (daemon,))
    yield from _collect_automation(instance, definitions)
    yield from _collect_assets(instance, definitions, places)


def _collect_assets(instance: dg.DagsterInstance, definitions: dg.Definitions, places: Places) -> Iterator[Sample]:
    materialisations = {key: find_latest(key, place, instance) for key, place in places.items()}
    for key, made in materialisations.items():
        if made:
            yield Sample("bcw_asset_last_materialized_timestamp_seconds", made.timestamp, (key.to_user_string(),))
            if "dagster/row_count" in made.facts:
                yield Sample("bcw_asset_rows", made.facts["dagster/row_count"], (key.to_user_string(),))
            if "fallback" in made.facts:
                yield Sample("bcw_source_fallback", made.facts["fallback"])
    for spec in [spec for checks in definitions.asset_checks or () for spec in checks.check_specs]:
        check = history.read_check_result(instance, spec, materialisations[spec.asset_key], history.NEWEST)
        if check.result in (history.PASSED, history.FAILED, history.CRASHED):
            labels = (check.asset, check.check, str(check.blocking).lower())
            yield Sample("bcw_check_passed", check.result == history.PASSED, labels)


def _collect_automation(instance: dg.DagsterInstance, definitions: dg.Definitions) -> Iterator[Sample]:
    all_states: list[Any] = list(instance.all_instigator_state())
    states = {state.name: state for state in all_states if state.selector.location_name == LOCATION}
    for automation in [*(definitions.schedules or ()), *(definitions.sensors or ())]:
        state = states.get(automation.name)
        labels = ("sensor" if isinstance(automation, dg.SensorDefinition) else "schedule", automation.name)
        # Nobody switched it: then what the code declares holds, and a state may not even be stored.
        is_switched = state is not None and state.status.value in ("RUNNING", "STOPPED")
        status = state.status if state and is_switched else automation.default_status
        yield Sample("bcw_automation_running", status.value == "RUNNING", labels)
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=history.NEWEST) if state else ()
        for tick in [tick for tick in ticks if tick.is_completed][:1]:
            yield Sample("bcw_automation_last_tick_succeeded", not tick.is_failure, labels)
        if automation.name == alerts.SENSOR:
            data = state and state.sensor_instigator_data
            cursor = alerts.read_state(data.cursor if data else None, 0)
            yield Sample("bcw_notification_failures_total", cursor.failures)
            yield Sample("bcw_open_incidents", len(cursor.list_open()))


def collect_releases(store: Store) -> Iterator[Sample]:
    """Return what the store says of the champion; nothing before the first."""
    entries = log.read_log(store)
    if entries.newest:
        champion = entries.require_champion()
        yield Sample("bcw_release_timestamp_seconds", datetime.fromisoformat(champion.made).timestamp())
        for score, summary in bundle.read_manifest(store, champion.release, champion.manifest).headline.items():
            if summary.estimate is not None:
                yield Sample("bcw_champion_score", summary.estimate, (score,))


def collect_web_server(url: str) -> Iterator[Sample]:
    """Return whether the web server at `url` could load the code location; no proxy is asked for it.

    If it does not answer, or not as Dagster does, a BcwError says so.
    """
    try:
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(f"{url}/graphql", json={"query": QUERY}, timeout=SCRAPE_LIMIT)
        answer.raise_for_status()
        kind = answer.json()["data"]["repositoryOrError"]["__typename"]
    except (requests.RequestException, LookupError, TypeError) as error:
        what = f"Dagster's web server at {url} does not answer as it should ({type(error).__name__})"
        raise BcwError(f"{what}; start it, or give its address by --webserver") from error
    yield Sample("bcw_code_location_loaded", kind == "Repository")


class Exporter(Collector):
    """What all sources say when somebody asks for all names; a source that fails or hangs is left out."""

    def __init__(self, sources: Mapping[str, Callable[[], Iterator[Sample]]], stale_days: int) -> None:
        self._sources = {name: (ThreadPoolExecutor(MOST_AT_ONCE), collect) for name, collect in sources.items()}
        self._problems = dict.fromkeys(sources, "")
        versions = (metadata.version("bcw-assets"), metadata.version("dagster"), platform.python_version())
        stale = Sample("bcw_release_stale_after_seconds", stale_days * alerts.DAY)
        self._constants = (Sample("bcw_build_info", 1, versions), stale)

    def collect(self) -> Iterator[Metric]:
        """Ask all sources at once, and return every name of which there are values."""
        end = monotonic() + SCRAPE_LIMIT
        questions = {name: pool.submit(list, ask()) for name, (pool, ask) in self._sources.items()}
        answers = [self._read_answer(name, question, end - monotonic()) for name, question in questions.items()]
        # None has a label `job` or `instance`: Prometheus uses these.
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for row in csv.DictReader(METRICS.read_text(encoding="utf-8").splitlines()):
            kind = CounterMetricFamily if row["name"].endswith("_total") else GaugeMetricFamily
            families[row["name"]] = kind(row["name"], row["says"], labels=row["labels"].split())
        for sample in itertools.chain(self._constants, *answers):
            families[sample.name].add_metric(sample.labels, float(sample.value))
        return (family for family in families.values() if family.samples)

    def _read_answer(self, name: str, question: Future[list[Sample]], seconds: float) -> list[Sample]:
        """Return what a source says, and whether it is up; write what is wrong if it is something else than before."""
        try:
            samples, problem = question.result(timeout=max(0.0, seconds)), ""
        except Exception as error:  # noqa: BLE001 (whatever it is: an exporter that dies tells of nothing any more)
            text = str(error).partition("\n")[0][:300] or f"no answer within {SCRAPE_LIMIT:.0f} s"
            samples, problem = [], text if isinstance(error, BcwError) else f"{type(error).__name__}: {text}"
            question.cancel()
        if problem != self._problems[name]:
            click.echo(f"{name}: {problem or 'answers again'}", err=True)
        self._problems[name] = problem
        return [Sample("bcw_exporter_source_up", not problem, (name,)), *samples]


def build_exporter(definitions: dg.Definitions, places: Places, web_server: str) -> Exporter:
    """Return the exporter of this machine, of assets at these places, with the URL of Dagster's web server."""
    resources = definitions.resources or {}

    def collect() -> Iterator[Sample]:
        with history.open_history() as instance:
            yield from collect_history(instance, definitions, places)
        gc.collect()  # Dagster leaves cycles, and what `bcw_assets.defs` does for short runs lets them lie

    sources: dict[str, Callable[[], Iterator[Sample]]] = {
        "history": collect,
        "releases": lambda: collect_releases(resources["releases"]),
        "web_server": lambda: collect_web_server(web_server),
    }
    return Exporter(sources, resources["settings"].stale_days)


def serve(exporter: Exporter, host: str, port: int) -> None:
    """Serve at an address until the process is told to end, or raise a BcwError: the port is taken."""
    registry, address = CollectorRegistry(), f"[{host}]" if ":" in host else host
    registry.register(exporter)
    logging.disable()  # libraries would tell of every try; a source that is away is told once
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # `sys.exit` would wait for a source that hangs
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        raise BcwError(f"Cannot listen on {address}:{port} ({error}). Give another by --host and --port") from error
    click.echo(f"Serves http://{address}:{server.server_port}/metrics", err=True)
    thread.join()
