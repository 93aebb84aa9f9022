"""`bcw exporter`: collects what the history, the store and the web server say, and tells Prometheus what is fresh."""

import gc
import itertools
import logging
import platform
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from time import monotonic, sleep
from typing import Any, NamedTuple, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click
import dagster as dg
import requests
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.registry import Collector

from bcw_assets.deadline import within
from bcw_assets.errors import BcwError, ReleaseError
from bcw_assets.operations import alerts, history
from bcw_assets.releases import bundle, log
from bcw_assets.releases.promotion import REFUSAL_PREFIX
from bcw_assets.storage.io_manager import Materialization
from bcw_assets.storage.store import Store

LOCATION = "bcw_assets"  # the name of the code location in workspace.yaml and pyproject.toml
OTHER = "other"  # stands for the jobs that the definitions do not name: what somebody materialises ad hoc
RAW_DATA, RELEASE = dg.AssetKey("raw_data"), dg.AssetKey("release")

NAMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "bcw_asset_fresh": ("Whether the freshness policy of the asset holds.", ("asset",)),
    "bcw_asset_last_materialized_timestamp_seconds": ("When the asset was made last.", ("asset",)),
    "bcw_asset_rows": ("Rows of the asset as it was made last.", ("asset",)),
    "bcw_automation_last_tick_succeeded": ("Whether the last tick did not fail.", ("kind", "name")),
    "bcw_automation_last_tick_timestamp_seconds": ("When the last tick was.", ("kind", "name")),
    "bcw_automation_running": ("Whether the schedule or sensor is switched on.", ("kind", "name")),
    "bcw_build_info": ("1, with the versions of what runs as labels.", ("version", "dagster", "python")),
    "bcw_champion_score": ("Cross-validated score of the champion.", ("score",)),
    "bcw_champion_score_lower": ("Lower bound of the 95 % interval of the score.", ("score",)),
    "bcw_champion_score_upper": ("Upper bound of the 95 % interval of the score.", ("score",)),
    "bcw_check_passed": ("Whether the check passed on what was made last.", ("asset", "check", "blocking")),
    "bcw_code_location_loaded": ("Whether the web server could load the code location.", ()),
    "bcw_daemon_heartbeat_timestamp_seconds": ("When the daemon was alive last; 0 if it never was.", ("daemon",)),
    "bcw_exporter_collection_duration_seconds": ("How long the last collection took.", ("source",)),
    "bcw_exporter_source_up": ("Whether the source answered lately.", ("source",)),
    "bcw_notification_failures_total": ("Messages that could not be delivered.", ()),
    "bcw_open_incidents": ("Incidents that were told and are not over.", ()),
    "bcw_release_refusals": ("Candidates that the gate refused and nobody removed since.", ()),
    "bcw_release_sequence": ("Number of the newest entry of the log of releases; 0 without one.", ()),
    "bcw_release_stale_after_seconds": ("Age from which a release that no run confirmed is stale.", ()),
    "bcw_release_timestamp_seconds": ("When the champion became it.", ()),
    "bcw_run_last_duration_seconds": ("How long the last finished run of the job took.", ("job_name",)),
    "bcw_run_last_succeeded": ("Whether the last finished run of the job succeeded.", ("job_name",)),
    "bcw_run_last_success_timestamp_seconds": ("When the last successful run of the job ended.", ("job_name",)),
    "bcw_run_queue_length": ("Runs that wait for their turn.", ()),
    "bcw_runs": ("Runs that the history holds.", ("job_name", "status")),
    "bcw_schedule_period_seconds": ("Longest time between two of the next ticks of the schedule.", ("name",)),
    "bcw_source_fallback": ("Whether the table is the embedded copy, because its source was away.", ()),
}
"""Every exported name → what it says, and its labels. None is called `job` or `instance`: Prometheus uses these."""

NEWEST = 10  # runs, ticks or evaluations in which the last one that counts is looked for
TICKS = 20  # of a schedule that its period is taken from: more than two weeks of one that works on weekdays
WEB_SERVER_LIMIT = 5  # seconds for the web server to answer
PATIENCE = 15.0  # seconds beyond its turn after which a source that has not answered counts as away
LOST = 300.0  # seconds after which a collection that hangs is given up, and another is begun
IDLE = 10  # seconds that a client may say nothing

QUERY = """query ExporterLocations { workspaceOrError { ... on Workspace {
    locationEntries { name locationOrLoadError { __typename } } } } }"""


class Sample(NamedTuple):
    """One value of one of the `NAMES`, with the values of its labels in their order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


Collect = Callable[[], Iterable[Sample]]


def collect_history(
    instance: dg.DagsterInstance, definitions: dg.Definitions, places: Mapping[dg.AssetKey, str]
) -> Iterator[Sample]:
    """Return what the history knows: runs, automation, daemons, and what was made at these places, with its checks."""
    materialisations = history.read_materialisations(instance, places)
    yield from _collect_runs(instance, [job.name for job in definitions.jobs or ()])
    yield from _collect_automation(instance, definitions)
    yield from _collect_daemons(instance)
    yield from _collect_assets(instance, materialisations)
    specs = [spec for checks in definitions.asset_checks or () for spec in checks.check_specs]
    for check in history.read_check_results(instance, specs, materialisations, NEWEST):
        if check.result in (history.PASSED, history.FAILED, history.CRASHED):
            labels = (check.asset, check.check, "true" if check.blocking else "false")
            yield Sample("bcw_check_passed", check.result == history.PASSED, labels)


def collect_releases(store: Store) -> Iterator[Sample]:
    """Return what the store says of the champion, of releases and of refusals.

    Raises:
        ReleaseError: the log or the champion's manifest is damaged.
    """
    entries = log.read_log(store)
    champion = entries.require_champion() if entries.newest else None
    yield Sample("bcw_release_sequence", entries.newest)
    yield Sample("bcw_release_refusals", len(store.list(REFUSAL_PREFIX)))
    if champion:
        yield Sample("bcw_release_timestamp_seconds", datetime.fromisoformat(champion.made).timestamp())
        yield from _collect_scores(store, champion)


def collect_web_server(url: str) -> Iterator[Sample]:
    """Return whether the web server at `url` could load the code location.

    Raises:
        BcwError: it does not answer, or not as Dagster does.
    """
    try:
        answer = requests.post(f"{url}/graphql", json={"query": QUERY}, timeout=WEB_SERVER_LIMIT)
        answer.raise_for_status()
        entries = answer.json()["data"]["workspaceOrError"]["locationEntries"]
        kinds = {entry["name"]: (entry["locationOrLoadError"] or {}).get("__typename") for entry in entries}
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BcwError(
            f"Dagster's web server at {url} does not answer as it should ({type(error).__name__}); "
            f"start it, or give its address by --webserver"
        ) from error
    yield Sample("bcw_code_location_loaded", kinds.get(LOCATION) == "RepositoryLocation")


def describe_build(stale_days: int) -> Iterator[Sample]:
    """Return what does not change while the exporter runs."""
    versions = (metadata.version("bcw-assets"), metadata.version("dagster"), platform.python_version())
    yield Sample("bcw_build_info", 1, versions)
    yield Sample("bcw_release_stale_after_seconds", stale_days * 24 * 3600)


def find_longest_period(schedule: dg.ScheduleDefinition) -> float:
    """Return the longest time between two of the next ticks, in seconds.

    >>> weekdays = dg.ScheduleDefinition(name="weekdays", job_name="any", cron_schedule="0 6 * * 1-5")
    >>> find_longest_period(weekdays) / 3600
    72.0
    """
    now = datetime.now(UTC)
    ticks = dg.TimeWindowPartitionsDefinition(  # the one public way to what Dagster makes of a cron
        start=now,
        fmt="%Y-%m-%dT%H:%M:%S%z",
        cron_schedule=str(schedule.cron_schedule),
        timezone=schedule.execution_timezone or "UTC",
        end_offset=TICKS,
    ).get_partition_keys(now)
    times = [datetime.fromisoformat(tick).timestamp() for tick in ticks]
    return max(after - before for before, after in itertools.pairwise(times))


def _collect_runs(instance: dg.DagsterInstance, jobs: Sequence[str]) -> Iterator[Sample]:
    """Count runs and look at the newest: a history of thousands of runs is not read."""
    for status in dg.DagsterRunStatus:
        counts = {job: instance.get_runs_count(dg.RunsFilter(job_name=job, statuses=[status])) for job in jobs}
        total = instance.get_runs_count(dg.RunsFilter(statuses=[status]))
        counts[OTHER] = max(0, total - sum(counts.values()))  # a run may have ended between two counts
        for job, count in counts.items():
            yield Sample("bcw_runs", count, (job, status.value))
        if status is dg.DagsterRunStatus.QUEUED:
            yield Sample("bcw_run_queue_length", total)
    for job in jobs:
        yield from _collect_last_runs(instance, job)


def _collect_last_runs(instance: dg.DagsterInstance, job: str) -> Iterator[Sample]:
    newest = history.read_runs(instance, *history.ENDED, limit=NEWEST, job_name=job)
    for run in [run for run in newest if run.dagster_run.tags.get(history.WILL_RETRY) != "true"][:1]:
        yield Sample("bcw_run_last_succeeded", run.dagster_run.is_success, (job,))
        if run.start_time:
            yield Sample("bcw_run_last_duration_seconds", history.find_end(run) - run.start_time, (job,))
    if success := history.read_last_success(instance, job):
        yield Sample("bcw_run_last_success_timestamp_seconds", history.find_end(success), (job,))


def _collect_automation(instance: dg.DagsterInstance, definitions: dg.Definitions) -> Iterator[Sample]:
    states = {
        (state.instigator_type.value, state.name): state
        for state in instance.all_instigator_state()
        if state.selector.location_name == LOCATION
    }
    for schedule in definitions.schedules or ():
        yield from _collect_ticks(instance, "schedule", schedule, states.get(("SCHEDULE", schedule.name)))
        if isinstance(schedule, dg.ScheduleDefinition):
            yield Sample("bcw_schedule_period_seconds", find_longest_period(schedule), (schedule.name,))
    for sensor in definitions.sensors or ():
        instigator = states.get(("SENSOR", sensor.name))
        yield from _collect_ticks(instance, "sensor", sensor, instigator)
        if sensor.name == alerts.SENSOR:
            data = instigator and instigator.sensor_instigator_data
            state = alerts.read_state(data.cursor if data else None)
            yield Sample("bcw_notification_failures_total", state.failures)
            yield Sample("bcw_open_incidents", len(state.open))


def _collect_ticks(instance: dg.DagsterInstance, kind: str, definition: Any, state: Any) -> Iterator[Sample]:
    labels = (kind, definition.name)
    # Nobody switched it: then what the code declares holds, and a state may not even be stored.
    declared = state is None or state.status.value not in ("RUNNING", "STOPPED")
    status = definition.default_status if declared else state.status
    yield Sample("bcw_automation_running", status.value == "RUNNING", labels)
    if state is None:
        return
    for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=NEWEST):
        if tick.is_completed:
            yield Sample("bcw_automation_last_tick_timestamp_seconds", tick.timestamp, labels)
            yield Sample("bcw_automation_last_tick_succeeded", not tick.is_failure, labels)
            return


def _collect_daemons(instance: dg.DagsterInstance) -> Iterator[Sample]:
    beats = instance.get_daemon_heartbeats()
    for daemon in instance.get_required_daemon_types():  # a beat of one that was switched off stays for ever
        when = beats[daemon].timestamp if daemon in beats else 0
        yield Sample("bcw_daemon_heartbeat_timestamp_seconds", when, (daemon,))


def _collect_assets(
    instance: dg.DagsterInstance, materialisations: Mapping[dg.AssetKey, Materialization | None]
) -> Iterator[Sample]:
    for key, made in materialisations.items():
        labels = (key.to_user_string(),)
        if made:
            yield Sample("bcw_asset_last_materialized_timestamp_seconds", made.timestamp, labels)
        if made and "dagster/row_count" in made.facts:
            yield Sample("bcw_asset_rows", made.facts["dagster/row_count"], labels)
    if source := materialisations[RAW_DATA]:
        yield Sample("bcw_source_fallback", source.facts["fallback"])
    state, _ = history.read_freshness(instance, RELEASE) or ("", 0)
    if state in ("PASS", "WARN", "FAIL"):
        yield Sample("bcw_asset_fresh", state != "FAIL", (RELEASE.to_user_string(),))


def _collect_scores(store: Store, champion: log.Entry) -> Iterator[Sample]:
    try:
        manifest = bundle.read_manifest(store, champion.release, champion.manifest)
    except ValueError as error:
        what = f"The manifest of release {champion.release} cannot be used ({error})"
        raise ReleaseError(f"{what}. Look at bcw releases verify") from error
    for score, summary in manifest.headline.items():
        if summary.estimate is not None:
            yield Sample("bcw_champion_score", summary.estimate, (score,))
        if summary.interval is not None:
            yield Sample("bcw_champion_score_lower", summary.interval[0], (score,))
            yield Sample("bcw_champion_score_upper", summary.interval[1], (score,))


class Answer(NamedTuple):
    """What the last collection from a source gave, and when it ended; without samples if it failed."""

    samples: tuple[Sample, ...]
    seconds: float
    at: float
    problem: str | None


class Source:
    """Something that is asked again and again, by one thread, however many scrape and however long it takes."""

    def __init__(self, name: str, collect: Collect, interval: float) -> None:
        """Ask nothing yet; later, `collect` every `interval` seconds."""
        self.name = name
        self._collect, self._interval = collect, interval
        self._answer = Answer((), 0.0, -float("inf"), None)

    def keep_asking(self) -> NoReturn:
        """Collect for ever."""
        while True:
            self.ask()
            sleep(self._interval)

    def ask(self) -> None:
        """Collect once, and say what is wrong if it is something else than before."""
        before, begun = self._answer.problem, monotonic()
        samples: tuple[Sample, ...] = ()
        problem = None
        try:
            samples = within(LOST, lambda: tuple(self._collect()))
        except BcwError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001 (whatever it is: an exporter that dies tells of nothing any more)
            problem = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"
        ended = monotonic()
        self._answer = Answer(samples, ended - begun, ended, problem)
        if problem != before:
            click.echo(f"{self.name}: {problem or 'answers again'}", err=True)

    def samples(self) -> tuple[Sample, ...]:
        """Return what is known, if it is fresh; always whether the source is up."""
        answer = self._answer
        is_up = answer.problem is None and monotonic() - answer.at < self._interval + PATIENCE
        duration = Sample("bcw_exporter_collection_duration_seconds", answer.seconds, (self.name,))
        return (Sample("bcw_exporter_source_up", is_up, (self.name,)), *((*answer.samples, duration) if is_up else ()))


class Exporter(Collector):
    """What all sources know, as Prometheus wants it."""

    def __init__(self, sources: Iterable[Source], constant: Iterable[Sample]) -> None:
        """Keep the sources, and what never changes."""
        self.sources = tuple(sources)
        self._constant = tuple(constant)

    def start(self) -> None:
        """Begin to collect."""
        for source in self.sources:
            threading.Thread(target=source.keep_asking, daemon=True, name=source.name).start()

    def collect(self) -> Iterator[Metric]:
        """Return every name of which there are values."""
        samples = [*self._constant, *(sample for source in self.sources for sample in source.samples())]
        for name in NAMES:
            if of_this_name := [sample for sample in samples if sample.name == name]:
                yield _build_family(name, of_this_name)


def serve(exporter: Exporter, host: str, port: int) -> None:
    """Serve at an address until the process is told to end.

    Raises:
        BcwError: the port is taken.
    """
    with _listen(host, port, exporter) as server:
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, lambda *_: sys.exit())
        logging.disable()  # libraries would tell of every try; a source that is away is told once
        exporter.start()
        click.echo(f"Serves http://{host}:{server.server_port}/metrics", err=True)
        server.serve_forever()


def build_exporter(
    definitions: dg.Definitions, places: Mapping[dg.AssetKey, str], web_server: str, interval: float
) -> Exporter:
    """Return the exporter of this machine.

    Args:
        definitions: the package's.
        places: where every asset is, a path or a URI.
        web_server: URL of Dagster's web server, which knows whether the code location could be loaded.
        interval: seconds between two collections.
    """

    def collect() -> list[Sample]:
        with history.open_history() as instance:
            samples = list(collect_history(instance, definitions, places))
        gc.collect()  # Dagster leaves cycles, and what `bcw_assets.defs` does for short runs lets them lie
        return samples

    resources = definitions.resources or {}
    sources = (
        Source("history", collect, interval),
        Source("releases", partial(collect_releases, resources["releases"]), interval),
        Source("web_server", partial(collect_web_server, web_server), interval),
    )
    return Exporter(sources, describe_build(resources["settings"].stale_days))


def build_application(exporter: Exporter) -> Callable[..., Iterable[bytes]]:
    """Return what answers /metrics, and /healthz as long as the process lives."""
    registry = CollectorRegistry()
    registry.register(exporter)
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            body: Iterable[bytes] = metrics(environ, start_response)
            return body
        is_health = environ["PATH_INFO"] == "/healthz"
        start_response("200 OK" if is_health else "404 Not Found", [("Content-Type", "text/plain")])
        return [b"ok\n" if is_health else b"There is /metrics, and /healthz\n"]

    return answer


class _Handler(WSGIRequestHandler):
    timeout = IDLE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name that the base class has)
        """Say nothing of requests: there is one every few seconds."""


def _listen(host: str, port: int, exporter: Exporter) -> WSGIServer:
    class Server(ThreadingWSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that hang up, or never say what they want."""

    try:
        return make_server(host, port, build_application(exporter), Server, _Handler)
    except (OSError, OverflowError) as error:
        raise BcwError(f"Cannot listen on {host}:{port} ({error}). Give another by --host and --port") from error


def _build_family(name: str, samples: Iterable[Sample]) -> Metric:
    says, labels = NAMES[name]
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, says, labels=labels)
    for sample in samples:
        family.add_metric(sample.labels, float(sample.value))
    return family
