"""What Prometheus is told: every name, and where its values come from. How they are kept and served: `exporter`."""

import itertools
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, NamedTuple

import dagster as dg
import requests

from bcw_assets.cli import checks
from bcw_assets.cli.checks import CRASHED, FAILED, PASSED
from bcw_assets.errors import BcwError, ReleaseError
from bcw_assets.operations import alerts, history
from bcw_assets.releases import bundle, log
from bcw_assets.releases.promotion import REFUSED
from bcw_assets.storage.io_manager import Made, latest
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
PATIENCE = 5  # seconds for the web server

QUERY = """query ExporterLocations { workspaceOrError { ... on Workspace {
    locationEntries { name locationOrLoadError { __typename } } } } }"""


class Sample(NamedTuple):
    """One value of one of the `NAMES`, with the values of its labels in their order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


def of_history(
    instance: dg.DagsterInstance, definitions: dg.Definitions, places: Mapping[dg.AssetKey, str]
) -> Iterator[Sample]:
    """Return what the history knows: runs, automation, daemons, and what was made at these places, with its checks."""
    made = {key: latest(key, place, instance) for key, place in places.items()}
    yield from _runs(instance, [job.name for job in definitions.jobs or ()])
    yield from _automation(instance, definitions)
    yield from _daemons(instance)
    yield from _assets(instance, made)
    yield from _checks(instance, made)


def of_releases(store: Store) -> Iterator[Sample]:
    """Return what the store says of the champion, of releases and of refusals.

    Raises:
        ReleaseError: the log or the champion's manifest is damaged.
    """
    found = log.read(store)
    found.require_newest()
    yield Sample("bcw_release_sequence", found.newest)
    yield Sample("bcw_release_refusals", len(store.list(REFUSED)))
    if found.last:
        champion = found.champions()[-1]
        yield Sample("bcw_release_timestamp_seconds", datetime.fromisoformat(champion.made).timestamp())
        yield from _scores(store, champion)


def of_web_server(url: str) -> Iterator[Sample]:
    """Return whether the web server at `url` could load the code location.

    Raises:
        BcwError: it does not answer, or not as Dagster does.
    """
    try:
        answer = requests.post(f"{url}/graphql", json={"query": QUERY}, timeout=PATIENCE)
        answer.raise_for_status()
        entries = answer.json()["data"]["workspaceOrError"]["locationEntries"]
        kinds = {one["name"]: (one["locationOrLoadError"] or {}).get("__typename") for one in entries}
    except (requests.RequestException, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BcwError(
            f"Dagster's web server at {url} does not answer as it should ({type(error).__name__}); "
            f"start it, or give its address by --webserver"
        ) from error
    yield Sample("bcw_code_location_loaded", kinds.get(LOCATION) == "RepositoryLocation")


def of_build(stale_days: int) -> Iterator[Sample]:
    """Return what does not change while the exporter runs."""
    versions = (metadata.version("bcw-assets"), metadata.version("dagster"), platform.python_version())
    yield Sample("bcw_build_info", 1, versions)
    yield Sample("bcw_release_stale_after_seconds", stale_days * 24 * 3600)


def period(schedule: dg.ScheduleDefinition) -> float:
    """Return the longest time between two of the next ticks, in seconds.

    >>> weekdays = dg.ScheduleDefinition(name="weekdays", job_name="any", cron_schedule="0 6 * * 1-5")
    >>> period(weekdays) / 3600
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


def notifications(cursor: str | None) -> Iterator[Sample]:
    """Return what the cursor of the sensor that sends messages says of them."""
    state = alerts.read(cursor)
    yield Sample("bcw_notification_failures_total", state.failures)
    yield Sample("bcw_open_incidents", len(state.open))


def _runs(instance: dg.DagsterInstance, jobs: Sequence[str]) -> Iterator[Sample]:
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
        yield from _last_runs(instance, job)


def _last_runs(instance: dg.DagsterInstance, job: str) -> Iterator[Sample]:
    for record in instance.get_run_records(dg.RunsFilter(job_name=job, statuses=history.ENDED), limit=NEWEST):
        run, begun, ended = record.dagster_run, record.start_time, record.end_time
        if run.tags.get(history.WILL_RETRY) == "true":
            continue
        yield Sample("bcw_run_last_succeeded", run.is_success, (job,))
        if begun and ended:
            yield Sample("bcw_run_last_duration_seconds", ended - begun, (job,))
        break
    succeeded = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS])
    for record in instance.get_run_records(succeeded, limit=1):
        if record.end_time:
            yield Sample("bcw_run_last_success_timestamp_seconds", record.end_time, (job,))


def _automation(instance: dg.DagsterInstance, definitions: dg.Definitions) -> Iterator[Sample]:
    states = {
        (state.instigator_type.value, state.name): state
        for state in instance.all_instigator_state()
        if state.selector.location_name == LOCATION
    }
    for schedule in definitions.schedules or ():
        yield from _ticks(instance, "schedule", schedule, states.get(("SCHEDULE", schedule.name)))
        if isinstance(schedule, dg.ScheduleDefinition):
            yield Sample("bcw_schedule_period_seconds", period(schedule), (schedule.name,))
    for sensor in definitions.sensors or ():
        state = states.get(("SENSOR", sensor.name))
        yield from _ticks(instance, "sensor", sensor, state)
        if sensor.name == alerts.SENSOR:
            data = state and state.sensor_instigator_data
            yield from notifications(data.cursor if data else None)


def _ticks(instance: dg.DagsterInstance, kind: str, definition: Any, state: Any) -> Iterator[Sample]:
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


def _daemons(instance: dg.DagsterInstance) -> Iterator[Sample]:
    beats = instance.get_daemon_heartbeats()
    for daemon in instance.get_required_daemon_types():  # a beat of one that was switched off stays for ever
        when = beats[daemon].timestamp if daemon in beats else 0
        yield Sample("bcw_daemon_heartbeat_timestamp_seconds", when, (daemon,))


def _assets(instance: dg.DagsterInstance, made: Mapping[dg.AssetKey, Made | None]) -> Iterator[Sample]:
    for key, record in made.items():
        name = key.to_user_string()
        if record:
            yield Sample("bcw_asset_last_materialized_timestamp_seconds", record.timestamp, (name,))
        if record and "dagster/row_count" in record.facts:
            yield Sample("bcw_asset_rows", record.facts["dagster/row_count"], (name,))
    if source := made[RAW_DATA]:
        yield Sample("bcw_source_fallback", source.facts["fallback"])
    for key, found in instance.get_freshness_state_records([RELEASE]).items():
        if found.freshness_state.value in ("PASS", "WARN", "FAIL"):
            yield Sample("bcw_asset_fresh", found.freshness_state.value != "FAIL", (key.to_user_string(),))


def _checks(instance: dg.DagsterInstance, made: Mapping[dg.AssetKey, Made | None]) -> Iterator[Sample]:
    for line in checks.lines(instance, made, NEWEST):
        if line.result in (PASSED, FAILED, CRASHED):
            labels = (line.asset, line.check, "true" if line.blocking else "false")
            yield Sample("bcw_check_passed", line.result == PASSED, labels)


def _scores(store: Store, champion: log.Entry) -> Iterator[Sample]:
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
