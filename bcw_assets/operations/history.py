"""The one reader of Dagster's history: the latest result of every check, run and asset, what failed, and why."""

import fcntl
import itertools
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
from dagster_postgres import utils as postgres
from sqlalchemy.exc import SQLAlchemyError
from yaml import YAMLError

from bcw_assets import settings
from bcw_assets.errors import BcwError, ReleaseRefused
from bcw_assets.storage.io_manager import Materialization, Places, find_latest

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
WILL_RETRY = "dagster/will_retry"  # the tag of a failed run that Dagster tries again; it exports no name for it

PASSED, FAILED, CRASHED, NOT_RUN, NOT_MATERIALISED = "passed", "failed", "crashed", "not run", "not materialised"
EVALUATIONS = 1000  # that are searched for the beginning of a result
NEWEST = 10  # evaluations or runs in which the last one that counts is searched
NEWEST_FAILURES = 100  # of a job that are looked at, the newest

SETTINGS_OF_DAGSTER = "dagster.yaml"
# What a step writes goes to the terminal alone: the processes that would copy it print tracebacks at Ctrl-C.
NO_COPIES = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
# For three quarters of a minute PostgreSQL may be away; Dagster itself gives a run up after 11 s, and has no setting.
# These are the tries after the first, and some seconds: the n-th pause is 2ⁿ - 1 times as long, give or take.
postgres.retry_pg_connection_fn.__defaults__ = (7, 0.2)


class CheckResult(NamedTuple):
    """The latest result of one check of the latest materialisation of its asset."""

    asset: str
    check: str
    blocking: bool
    severity: str  # ERROR for a blocking check, WARN for any other
    result: str  # passed, failed, crashed, not run (on that materialisation) or not materialised (the asset)
    since: str | None = None  # in UTC
    evidence: str = ""  # what the check said or looked at


class FailedRun(NamedTuple):
    """A run that failed, and when, in seconds since 1970."""

    run_id: str
    ended: float
    events: list[dg.DagsterEvent]

    @property
    def steps(self) -> list[str]:
        """The steps that failed, and those that a dead process left behind."""
        successes = {event.step_key for event in self.events if event.is_step_success}
        starts = [event.step_key for event in self.events if event.is_step_start or event.is_step_failure]
        return [step for step in dict.fromkeys(starts) if step and step not in successes]


@contextmanager
def open_history() -> Iterator[dg.DagsterInstance]:
    """Open the history that DAGSTER_HOME names, or begin it.

    If Dagster cannot open, read or write it, a BcwError says so.
    """
    try:
        with _open_instance(Path(settings.dagster_home())) as instance:
            yield instance
    except (dg.DagsterError, SQLAlchemyError, YAMLError, OSError, postgres.DagsterPostgresException) as error:
        cause = error.__cause__ if isinstance(error, postgres.DagsterPostgresException) else error
        reason = str(cause).strip().partition("\n")[0][:300].rstrip(".")
        raise BcwError(
            f"Dagster could not keep or read the history in {settings.dagster_home()}: {reason}. No artifact is half "
            f"written. Look at disk and permissions there, or set DAGSTER_HOME to another folder"
        ) from error


def _open_instance(home: Path) -> dg.DagsterInstance:
    """Open the history alone: several first processes would race for making its tables."""
    home.mkdir(parents=True, exist_ok=True)
    folder = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if not (home / SETTINGS_OF_DAGSTER).exists():
            shutil.copyfile(Path(__file__).with_name(SETTINGS_OF_DAGSTER), home / SETTINGS_OF_DAGSTER)
        return dg.DagsterInstance.local_temp(str(home), {"compute_logs": NO_COPIES})  # kept, whatever its name says
    finally:
        os.close(folder)


def read_check_result(
    instance: dg.DagsterInstance, check: dg.AssetCheckSpec, made: Materialization | None, limit: int = EVALUATIONS
) -> CheckResult:
    """Return the latest result of a check of this materialisation; `since` looks back so many executions."""
    severity = "ERROR" if check.blocking else "WARN"
    conclude = partial(CheckResult, check.asset_key.to_user_string(), check.name, check.blocking, severity)
    if made is None:
        return conclude(NOT_MATERIALISED)
    executions = instance.event_log_storage.get_asset_check_execution_history(check.key, limit=limit)
    if executions and _has_crashed(instance, executions[0], made):
        return conclude(CRASHED, format_time(find_time(executions[0])), f"see run {executions[0].run_id}")
    # Newer evaluations may be of a materialisation at another place, for places can share a history.
    records: list[Any] = list(filter(has_evaluation, executions))
    targets = [getattr(record.evaluation.target_materialization_data, "storage_id", 0) for record in records]
    evaluations = records[targets.index(made.storage_id) :] if made.storage_id in targets else []
    if not evaluations:
        return conclude(NOT_RUN)
    newest = evaluations[0].evaluation
    *_, first = itertools.takewhile(lambda earlier: earlier.evaluation.passed == newest.passed, evaluations)
    facts = {name: entry.value for name, entry in newest.metadata.items() if isinstance(entry.value, int | float | str)}
    evidence = newest.description or ", ".join(f"{name} {fact}" for name, fact in facts.items())
    return conclude(PASSED if newest.passed else FAILED, format_time(find_time(first)), evidence)


def _has_crashed(instance: dg.DagsterInstance, execution: Any, made: Materialization) -> bool:
    """Say whether the newest execution of a check broke off: its step failed, and it said nothing."""
    if has_evaluation(execution) or find_time(execution) < made.timestamp:
        return False
    events = _read_events(instance, execution.run_id)
    failed = {event.step_key for event in events if event.is_step_failure}
    return any(step in failed for step, key in _list_planned(events) if key == execution.key)


def find_time(execution: Any) -> float:
    """Return when a check was executed; the history's own time stamp knows whole seconds only."""
    return float(execution.event.timestamp if execution.event else execution.create_timestamp)


def has_evaluation(execution: Any) -> bool:
    """Say whether an execution of a check (Dagster's record) found something, and was not only planned or broke off."""
    return isinstance(execution.evaluation, dg.AssetCheckEvaluation)


def read_last_run(
    instance: dg.DagsterInstance, job: str, statuses: Sequence[dg.DagsterRunStatus] = ENDED
) -> dg.RunRecord | None:
    """Return the newest run of a job that ended like this, and that Dagster does not try again; None without one."""
    runs = instance.get_run_records(dg.RunsFilter(job_name=job, statuses=statuses), limit=NEWEST)
    return next((run for run in runs if run.dagster_run.tags.get(WILL_RETRY) != "true"), None)


def find_last_success(instance: dg.DagsterInstance, job: str) -> float:
    """Return when the newest successful run of a job ended, in seconds since 1970; 0 without one."""
    run = read_last_run(instance, job, [dg.DagsterRunStatus.SUCCESS])
    return find_end(run) if run else 0.0


def find_failures(
    instance: dg.DagsterInstance, find_time_made: Callable[[dg.AssetKey], float], after: float, job: str | None = None
) -> Iterator[FailedRun]:
    """Return the runs, perhaps of one job, that failed after a time and that nothing has mended, the newest first.

    A run is mended when every asset that its broken steps were to make or to check, or the whole run where no step is
    broken, was made since. A run that Dagster tries again did not fail yet.
    """
    conditions = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(conditions, limit=NEWEST_FAILURES):
        run, ended = record.dagster_run, find_end(record)
        if ended <= after or run.tags.get(WILL_RETRY) == "true":
            continue
        failure = FailedRun(run.run_id, ended, _read_events(instance, run.run_id))
        assets = {
            key.asset_key if isinstance(key, dg.AssetCheckKey) else key
            for step, key in _list_planned(failure.events)
            if step in failure.steps or not failure.steps
        }
        if not assets or any(find_time_made(asset) <= ended for asset in assets):
            yield failure


def find_end(run: dg.RunRecord) -> float:
    """Return when a run ended, in seconds since 1970."""
    return run.end_time or run.update_timestamp.timestamp()


def _read_events(instance: dg.DagsterInstance, run: str) -> list[dg.DagsterEvent]:
    return [entry.dagster_event for entry in instance.all_logs(run) if entry.dagster_event]


def format_time(when: float) -> str:
    """Return seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(when, UTC).isoformat(" ", "seconds")


def _list_planned(events: Iterable[dg.DagsterEvent]) -> Iterator[tuple[str | None, dg.AssetKey | dg.AssetCheckKey]]:
    for event in events:
        data: Any = event.event_specific_data
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
            yield event.step_key, data.asset_key
        elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
            yield event.step_key, dg.AssetCheckKey(data.asset_key, data.check_name)


def explain_failure(events: Sequence[dg.DagsterEvent]) -> list[str]:
    """Say why a run failed, in the words of the checks and of the assets that did, or else of the engine."""
    blocking = [(step, check) for step, check in list_failed_checks(events) if check.blocking]
    steps = {step for step, _ in blocking}
    failed = [event for event in events if event.is_step_failure and event.step_key not in steps]
    reasons = [*(describe_check(check) for _, check in blocking), *map(_explain_step, failed)]
    ends = [event for event in events if event.event_type is dg.DagsterEventType.RUN_FAILURE]
    return reasons or [*map(_explain_end, ends), "its history does not say why"][:1]


def _explain_end(event: dg.DagsterEvent) -> str:
    """Say why a run failed that no step of it explains: no resource, no process, no memory."""
    error = getattr(event.event_specific_data, "error", None)
    while error and error.cause:
        error = error.cause
    return " ".join(filter(None, (event.message, error and error.message.strip())))


def _explain_step(event: dg.DagsterEvent) -> str:
    failure = event.step_failure_data
    error = failure.error and (failure.error.cause or failure.error)
    if failure.user_failure_data and failure.user_failure_data.description:
        why = failure.user_failure_data.description
    elif error and error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
        why = "stopped by a signal. What was stored before is unchanged; run it again"
    else:
        message = error.message.strip() if error else "unknown error"
        why = f"{message} (its traceback is in the run's history: bcw dev)"
    return f"{event.step_key}: {why}"


def read_gate(events: Iterable[dg.DagsterEvent]) -> list[list[str]]:
    """Return the table of the gate with its heads, if it refused a release in this run; else nothing."""
    for failure in [event.step_failure_data.user_failure_data for event in events if event.is_step_failure]:
        table: Any = failure and failure.metadata.get(ReleaseRefused.rows_are)
        if table:
            heads = [column.name for column in table.schema.columns]  # whose order the history does not keep in rows
            return [heads, *([str(record.data[head]) for head in heads] for record in table.value.records)]
    return []


def explain_retry(event: dg.DagsterEvent) -> str:
    """Say why a step is tried again, and when."""
    failure = event.step_retry_data.error.cause  # written as the class, a colon and the text
    why = failure.message.partition(": ")[2].strip() if failure else "no reason is given"
    return f"{why} (the next try is in {event.step_retry_data.seconds_to_wait or 0:.0f} s)"


def list_failed_checks(events: Iterable[dg.DagsterEvent]) -> list[tuple[str | None, dg.AssetCheckEvaluation]]:
    """Return the checks that failed, each with its step."""
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    checks = [(event.step_key, event.asset_check_evaluation_data) for event in events if event.event_type is kind]
    return [(step, check) for step, check in checks if not check.passed]


def describe_check(check: dg.AssetCheckEvaluation) -> str:
    """Return a failed check in words."""
    return f"Check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}"


def delete_runs_before(
    instance: dg.DagsterInstance, before: datetime, places: Places, checks: Sequence[dg.AssetCheckKey]
) -> int:
    """Delete the runs that were created before a time and have ended; return how many.

    The runs stay that say what the assets at these places are: which content was recorded, and what the checks found.
    """
    latest = [find_latest(key, place, instance) for key, place in places.items()]
    executions = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    evidence = {made.run_id for made in latest if made} | {execution.run_id for execution in executions.values()}
    records = instance.get_run_records(dg.RunsFilter(statuses=ENDED, created_before=before))
    old = {record.dagster_run.run_id for record in records} - evidence
    for run in old:
        instance.delete_run(run)
    return len(old)
