"""Dagster's history of runs: opening it, and saying in words why a run failed."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click
import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from bcw_assets import settings
from bcw_assets.errors import BcwError

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
WILL_RETRY = "dagster/will_retry"
"""The tag of a failed run that Dagster tries again by itself; it exports no name for it."""


@contextmanager
def opened() -> Iterator[dg.DagsterInstance]:
    """Open the history that DAGSTER_HOME names, or one that is forgotten afterwards, as Dagster's CLI does.

    Raises:
        BcwError: Dagster cannot open it, or cannot read or write in it.
    """
    try:
        if settings.dagster_home():
            with dg.DagsterInstance.get() as instance:
                yield instance
        else:
            click.echo("DAGSTER_HOME is not set: this run will be in no history. `make install` sets it.", err=True)
            quiet = {"telemetry": {"enabled": False}}
            with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder, quiet) as instance:
                yield instance
    except (dg.DagsterError, SQLAlchemyError, OSError, _too_many_retries()) as error:
        cause = error.__cause__ if isinstance(error, _too_many_retries()) else error
        reason = str(cause).strip().partition("\n")[0][:300].rstrip(".")
        raise BcwError(
            f"Dagster could not keep or read the history in {settings.dagster_home()}: {reason}. No artifact is half "
            f"written. Look at disk and permissions there, or set DAGSTER_HOME to another folder"
        ) from error


def _too_many_retries() -> type[Exception]:
    """Return what dagster-postgres raises, from the database's own error, when PostgreSQL cannot be reached."""
    from dagster_postgres.utils import DagsterPostgresException  # once something is wrong: it brings a driver along

    return DagsterPostgresException


def reasons(events: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    """Say why the run failed, in the words of the checks and of the assets that did."""
    broken = [check for check in broken_checks(events) if check.blocking]
    yield from map(described, broken)
    told = {event.step_key for event in events if _evaluation(event) in broken}
    for event in events:
        if event.is_step_failure and event.step_key not in told:
            yield f"{event.step_key}: {_cause(event)}"


def reason_beside_steps(events: Sequence[dg.DagsterEvent]) -> str:
    """Say in the engine's words why a run failed that no step of it explains: no resource, no process, no memory."""
    for event in events:
        if event.event_type is dg.DagsterEventType.RUN_FAILURE:
            error = getattr(event.event_specific_data, "error", None)
            while error and error.cause:
                error = error.cause
            return " ".join(filter(None, (event.message, error and error.message.strip())))
    return "its history does not say why"


def _cause(event: dg.DagsterEvent) -> str:
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return failure.user_failure_data.description
    error = failure.error and (failure.error.cause or failure.error)
    if error and error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
        return "stopped by a signal. What was stored before is unchanged; run it again"
    return f"{error.message.strip() if error else 'unknown error'} (its traceback is in the run's history: make dev)"


def broken_checks(events: Sequence[dg.DagsterEvent]) -> list[dg.AssetCheckEvaluation]:
    """Return the evaluations of checks that failed."""
    evaluations = map(_evaluation, events)
    return [evaluation for evaluation in evaluations if evaluation and not evaluation.passed]


def _evaluation(event: dg.DagsterEvent) -> dg.AssetCheckEvaluation | None:
    is_one = event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    return event.asset_check_evaluation_data if is_one else None


def described(check: dg.AssetCheckEvaluation) -> str:
    """Return a failed check in words."""
    return f"Check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}"
