"""The one reader of Dagster's history: the latest result of every check, run and asset, and why a run failed."""

import fcntl
import itertools
import os
import shutil
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from bcw_assets import settings
from bcw_assets.errors import BcwError
from bcw_assets.storage.io_manager import Materialization, find_latest

ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
WILL_RETRY = "dagster/will_retry"
"""The tag of a failed run that Dagster tries again by itself; it exports no name for it."""

PASSED, FAILED, NOT_RUN, NOT_MATERIALISED = "passed", "failed", "not run", "not materialised"
CRASHED = "crashed"
EVALUATIONS = 1000  # that are searched for the beginning of a result
NEWEST = 10  # evaluations or runs in which the last one that counts is searched
NEWEST_FAILURES = 100  # of a job that are looked at, the newest
UNDECIDED = 60.0  # seconds in which Dagster sets WILL_RETRY of a failed run, at first without it

SETTINGS_OF_DAGSTER = "dagster.yaml"
# What a step writes goes to the terminal alone: the processes that would copy it print tracebacks at Ctrl-C.
NO_COPIES = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
KINDS_OF_EVENTS = (
    *("STEP_START", "STEP_SUCCESS", "STEP_FAILURE", "RUN_FAILURE", "ASSET_MATERIALIZATION"),
    *("ASSET_MATERIALIZATION_PLANNED", "ASSET_CHECK_EVALUATION", "ASSET_CHECK_EVALUATION_PLANNED"),
)


@dataclass(frozen=True)
class CheckResult:
    """The latest result of one check of the latest materialisation of its asset."""

    asset: str
    check: str
    blocking: bool
    severity: str  # ERROR for a blocking check, WARN for any other
    result: str  # passed, failed, crashed, not run (on that materialisation) or not materialised (the asset)
    since: str | None  # in UTC
    evidence: str  # what the check said or looked at


@contextmanager
def open_history() -> Iterator[dg.DagsterInstance]:
    """Open the history that DAGSTER_HOME names, or begin it.

    If Dagster cannot open, read or write it, a BcwError says so.
    """
    try:
        with _open_instance(Path(settings.dagster_home())) as instance:
            yield instance
    except (dg.DagsterError, SQLAlchemyError, OSError, _too_many_retries()) as error:
        cause = error.__cause__ if isinstance(error, _too_many_retries()) else error
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


def _too_many_retries() -> type[Exception]:
    """Return what dagster-postgres raises, from the database's own error, when PostgreSQL cannot be reached."""
    from dagster_postgres.utils import DagsterPostgresException  # once something is wrong: it brings a driver along

    return DagsterPostgresException


def read_materialisations(
    instance: dg.DagsterInstance, places: Mapping[dg.AssetKey, str]
) -> dict[dg.AssetKey, Materialization | None]:
    """Return the latest materialisation of every asset at its place, a path or a URI; None without one."""
    return {key: find_latest(key, place, instance) for key, place in places.items()}


def read_check_results(
    instance: dg.DagsterInstance,
    checks: Iterable[dg.AssetCheckSpec],
    materialisations: Mapping[dg.AssetKey, Materialization | None],
    limit: int = EVALUATIONS,
) -> list[CheckResult]:
    """Return the latest result of every check of these materialisations; `since` looks back so many executions."""
    return [_read_check_result(instance, check, materialisations[check.asset_key], limit) for check in checks]


def _read_check_result(
    instance: dg.DagsterInstance, check: dg.AssetCheckSpec, made: Materialization | None, limit: int
) -> CheckResult:
    def conclude(result: str, since: float | None = None, evidence: str = "") -> CheckResult:
        when = None if since is None else format_time(since)
        name, severity = check.asset_key.to_user_string(), "ERROR" if check.blocking else "WARN"
        return CheckResult(name, check.name, check.blocking, severity, result, when, evidence)

    if made is None:
        return conclude(NOT_MATERIALISED)
    executions = instance.event_log_storage.get_asset_check_execution_history(check.key, limit=limit)
    if executions and _has_crashed(instance, executions[0], made):
        return conclude(CRASHED, find_time(executions[0]), f"see run {executions[0].run_id}")
    # Newer evaluations may be of a materialisation at another place, for places can share a history.
    completed = _keep_evaluations(executions)
    evaluations = list(itertools.dropwhile(lambda newer: not _is_of(newer.evaluation, made), completed))
    if not evaluations:
        return conclude(NOT_RUN)
    newest = evaluations[0].evaluation
    *_, first = itertools.takewhile(lambda earlier: earlier.evaluation.passed == newest.passed, evaluations)
    evidence = newest.description or ", ".join(_format_evidence(newest))
    return conclude(PASSED if newest.passed else FAILED, find_time(first), evidence)


def _is_of(evaluation: dg.AssetCheckEvaluation, made: Materialization) -> bool:
    target = evaluation.target_materialization_data
    return target is not None and target.storage_id == made.storage_id


def _has_crashed(instance: dg.DagsterInstance, execution: Any, made: Materialization) -> bool:
    """Say whether the newest execution of a check broke off: its step failed, and it said nothing."""
    if isinstance(execution.evaluation, dg.AssetCheckEvaluation) or find_time(execution) < made.timestamp:
        return False
    events = read_events(instance, execution.run_id)
    failed = {event.step_key for event in events if event.is_step_failure}
    return any(step in failed for step, key in list_planned(events) if key == execution.key)


def find_time(execution: Any) -> float:
    """Return when a check was executed; the history's own time stamp knows whole seconds only."""
    return float(execution.event.timestamp if execution.event else execution.create_timestamp)


def _format_evidence(evaluation: dg.AssetCheckEvaluation) -> Iterator[str]:
    for name, entry in evaluation.metadata.items():
        if isinstance(entry.value, bool | int | str | float):
            yield f"{name} {entry.value:.4g}" if isinstance(entry.value, float) else f"{name} {entry.value}"


def read_evaluation(instance: dg.DagsterInstance, check: dg.AssetCheckKey) -> Any:
    """Return the last execution (Dagster's record) of a check in which it found something; None without one."""
    executions = instance.event_log_storage.get_asset_check_execution_history(check, limit=NEWEST)
    return next(iter(_keep_evaluations(executions)), None)


def _keep_evaluations(executions: Iterable[Any]) -> list[Any]:
    """Return the executions that found something; others broke off, or are only planned."""
    return [execution for execution in executions if isinstance(execution.evaluation, dg.AssetCheckEvaluation)]


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


def read_failed_runs(
    instance: dg.DagsterInstance, job: str, after: float, now: float
) -> Iterator[tuple[dg.DagsterRun, float]]:
    """Return the failed runs of a job that ended after a time, and when, the oldest first; no run that is retried."""
    conditions = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.FAILURE])
    for record in reversed(instance.get_run_records(conditions, limit=NEWEST_FAILURES)):
        run, ended = record.dagster_run, find_end(record)
        is_undecided = WILL_RETRY not in run.tags and instance.run_retries_enabled and now - ended < UNDECIDED
        if ended > after and run.tags.get(WILL_RETRY) != "true" and not is_undecided:
            yield run, ended


def find_broken_steps(events: Sequence[dg.DagsterEvent]) -> list[str]:
    """Return the steps that failed, and those that a dead process left behind."""
    successes = {event.step_key for event in events if event.is_step_success}
    starts = [event.step_key for event in events if event.is_step_start or event.is_step_failure]
    return [step for step in dict.fromkeys(starts) if step and step not in successes]


def find_end(run: dg.RunRecord) -> float:
    """Return when a run ended, in seconds since 1970."""
    return run.end_time or run.update_timestamp.timestamp()


def read_events(instance: dg.DagsterInstance, run: str) -> list[dg.DagsterEvent]:
    """Return the events of a run that say what it planned, did, and failed at."""
    records = instance.get_records_for_run(run, of_type={dg.DagsterEventType[kind] for kind in KINDS_OF_EVENTS}).records
    return [event for record in records if (event := record.event_log_entry.dagster_event)]


def format_time(when: float) -> str:
    """Return seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds")


def list_planned(events: Iterable[dg.DagsterEvent]) -> Iterator[tuple[str | None, dg.AssetKey | dg.AssetCheckKey]]:
    """Return what the run was to make or to check, each with its step."""
    for event in events:
        data: Any = event.event_specific_data
        if event.event_type is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
            yield event.step_key, data.asset_key
        elif event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED:
            yield event.step_key, dg.AssetCheckKey(data.asset_key, data.check_name)


def find_assets(events: Iterable[dg.DagsterEvent], steps: Container[str | None]) -> set[dg.AssetKey]:
    """Return the assets that these steps were to make or to check."""
    keys = [key for step, key in list_planned(events) if step in steps]
    return {key.asset_key if isinstance(key, dg.AssetCheckKey) else key for key in keys}


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


def list_failed_checks(events: Iterable[dg.DagsterEvent]) -> list[tuple[str | None, dg.AssetCheckEvaluation]]:
    """Return the checks that failed, each with its step."""
    return [
        (event.step_key, event.asset_check_evaluation_data)
        for event in events
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
        and not event.asset_check_evaluation_data.passed
    ]


def describe_check(check: dg.AssetCheckEvaluation) -> str:
    """Return a failed check in words."""
    return f"Check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}"
