"""What is wrong now, by Dagster's history. Whether somebody was told, and in which words, stands in alerts.

Nothing depends on how a run was launched: what counts is what the history of the instance says of it.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict

from bcw_assets.errors import ReleaseRefused
from bcw_assets.operations import history

Kind = Literal["run", "refused", "check", "stale"]
RUN: Kind = "run"
REFUSED: Kind = "refused"
CHECK: Kind = "check"
STALE: Kind = "stale"

DAY = 86_400.0  # seconds
UNDECIDED = 60.0  # seconds in which Dagster sets history.WILL_RETRY, at first without it
RUNS = 100  # failed runs that are looked at, the newest: 15 ms each
EVALUATIONS = 100  # of a check that are looked at, the newest
STEPS = 5  # that are named
SELECTED = "__ASSET_JOB"  # how Dagster calls a run of assets that somebody chose

MATERIALIZATION_PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
EVALUATION_PLANNED = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
EVENTS = {
    dg.DagsterEventType.STEP_START,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
    EVALUATION_PLANNED,
    dg.DagsterEventType.RUN_FAILURE,
}


class Incident(BaseModel):
    """Something that went wrong, and is not right again.

    Attributes:
        kind: a run that failed, a release that was refused, a check that failed on a green run, or no new release.
        title: what, in one line.
        evidence: in the words of the steps, the checks or the engine.
        since: seconds since 1970.
        run: the id of the run that shows it; empty without one.
        things: what has to succeed → when it failed last. Written `asset KEY`, `check NAME KEY`, `job NAME` or
            `freshness KEY`.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    title: str
    evidence: str
    since: float
    run: str
    things: dict[str, float]

    @property
    def key(self) -> str:
        """What tells it from others: two failures of the same things are one incident."""
        return ", ".join([self.kind, *sorted(self.things)])


class Recovery(BaseModel):
    """When all that had failed was right again, and the run that did it."""

    model_config = ConfigDict(frozen=True)

    at: float
    run: str


@dataclass(frozen=True)
class Watched:
    """What is looked at beside runs.

    Attributes:
        checks: all that there are.
        release: the asset that must not grow old.
        stale_days: its age from which it has.
    """

    checks: Sequence[dg.AssetCheckKey]
    release: dg.AssetKey
    stale_days: int


def found(instance: dg.DagsterInstance, watched: Watched, since: float, now: float) -> Iterator[Incident]:
    """Return what went wrong, the oldest run first; of runs, those that ended after `since`. It may be over."""
    yield from _failed_runs(instance, since, now)
    yield from _failed_checks(instance, watched.checks)
    yield from _stale(instance, watched, now)


def recovery(instance: dg.DagsterInstance, incident: Incident) -> Recovery | None:
    """Return when all that had failed was right again; None if something is not, or nothing says so."""
    successes = [
        success
        for thing, failed in incident.things.items()
        if (success := _success(instance, thing, incident.kind)) and success.at > failed
    ]
    return max(successes, key=lambda one: one.at) if len(successes) == len(incident.things) else None


def _failed_runs(instance: dg.DagsterInstance, since: float, now: float) -> Iterator[Incident]:
    after = datetime.fromtimestamp(max(since, 0), UTC)
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after)
    for record in sorted(instance.get_run_records(failed, limit=RUNS), key=_ended):
        tag = record.dagster_run.tags.get(history.WILL_RETRY)
        is_undecided = tag is None and instance.run_retries_enabled and now - _ended(record) < UNDECIDED
        if tag != "true" and not is_undecided:
            yield _failed_run(instance, record)


def _ended(record: dg.RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def _failed_run(instance: dg.DagsterInstance, record: dg.RunRecord) -> Incident:
    run = record.dagster_run
    records = instance.get_records_for_run(run.run_id, of_type=EVENTS).records
    events = [event for one in records if (event := one.event_log_entry.dagster_event)]
    steps = _broken_steps(events)
    refused = any(map(_is_refusal, events))
    job = "A run of selected assets" if run.job_name.startswith(SELECTED) else f"The run of {run.job_name}"
    where = f"at {_listed(steps)}" if steps else "before its first step"
    return Incident(
        kind=REFUSED if refused else RUN,
        title="The gate refused a release" if refused else f"{job} failed {where}",
        evidence="\n".join(history.reasons(events)) or history.reason_beside_steps(events),
        since=_ended(record),
        run=run.run_id,
        things=dict.fromkeys(_what_failed(events, steps) or [f"job {run.job_name}"], _ended(record)),
    )


def _broken_steps(events: Sequence[dg.DagsterEvent]) -> list[str]:
    """Return the steps that failed, and those that a dead process left behind."""
    ended = {event.step_key for event in events if event.is_step_success}
    begun = [event.step_key for event in events if event.is_step_start or event.is_step_failure]
    return [step for step in dict.fromkeys(begun) if step and step not in ended]


def _is_refusal(event: dg.DagsterEvent) -> bool:
    failure = event.step_failure_data.user_failure_data if event.is_step_failure else None
    error = failure.metadata.get("error") if failure else None
    return bool(error and error.value == ReleaseRefused.__name__)


def _what_failed(events: Sequence[dg.DagsterEvent], steps: Sequence[str]) -> list[str]:
    """Return what the broken steps were to make or to check; without such a step, what the run did not make."""
    planned = [thing for step, thing in _planned(events) if step in steps or not steps]
    if steps:
        broken = dict(_broken_checks(events))
        spared = {thing for step, thing in _planned(events) if step in broken.values()}
        return [*broken, *(thing for thing in planned if thing not in spared)]
    made = {_asset(event.asset_key) for event in events if event.is_step_materialization}
    return [thing for thing in planned if thing.startswith("asset ") and thing not in made] or planned


def _planned(events: Sequence[dg.DagsterEvent]) -> Iterator[tuple[str | None, str]]:
    for event in events:
        data: Any = event.event_specific_data
        if event.event_type is MATERIALIZATION_PLANNED:
            yield event.step_key, _asset(data.asset_key)
        elif event.event_type is EVALUATION_PLANNED:
            yield event.step_key, _check(data.asset_key, data.check_name)


def _broken_checks(events: Sequence[dg.DagsterEvent]) -> Iterator[tuple[str, str | None]]:
    """Return the blocking checks that failed, each with its step."""
    for event in events:
        if event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if check.blocking and not check.passed:
                yield _check(check.asset_key, check.check_name), event.step_key


def _failed_checks(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> Iterator[Incident]:
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    for key, record in newest.items():
        if not (isinstance(record.evaluation, dg.AssetCheckEvaluation) and record.evaluation.passed):
            yield from _failed_check(instance, key)


def _failed_check(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Iterator[Incident]:
    """Return the check as an incident, if it failed on a green run since it passed; red runs speak for themselves."""
    failed = list(itertools.takewhile(lambda one: not one.passed, _evaluations(instance, key)))
    runs = (
        dg.RunsFilter(run_ids=[one.run for one in failed], statuses=[dg.DagsterRunStatus.SUCCESS]) if failed else None
    )
    green = {record.dagster_run.run_id for record in instance.get_run_records(runs)} if runs else set()
    told = [one for one in failed if one.run in green]
    if told:
        yield Incident(
            kind=CHECK,
            title=f"Check {key.name} of {key.asset_key.to_user_string()} failed",
            evidence=told[0].said or "it says no more",
            since=failed[-1].at,
            run=told[0].run,
            things={_check(key.asset_key, key.name): failed[0].at},
        )


@dataclass(frozen=True)
class _Evaluation:
    at: float
    run: str
    passed: bool
    blocking: bool
    said: str | None


def _evaluations(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Iterator[_Evaluation]:
    """Return what a check found, the newest first; what is planned or broke off found nothing."""
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=EVALUATIONS):
        found = record.evaluation
        if isinstance(found, dg.AssetCheckEvaluation) and record.event:
            yield _Evaluation(
                record.event.timestamp, record.run_id, found.passed, bool(found.blocking), found.description
            )


def _stale(instance: dg.DagsterInstance, watched: Watched, now: float) -> Iterator[Incident]:
    """Return that there is no new release, by the state of its freshness policy, which Dagster's daemon keeps.

    Where there never was one, the state is UNKNOWN since the daemon first looked: then its age counts.
    """
    record = instance.get_freshness_state_records([watched.release]).get(watched.release)
    last = instance.get_latest_materialization_event(watched.release)
    if record is None:
        return
    changed, state = record.updated_at.timestamp(), record.freshness_state.value
    never = state == "UNKNOWN" and last is None and now - changed >= watched.stale_days * DAY
    if state == "FAIL" or never:
        name, since = watched.release.to_user_string(), last.timestamp if last else changed
        yield Incident(
            kind=STALE,
            title=f"No {name} was made or confirmed for {watched.stale_days} days",
            evidence="See whether the schedule is on, the daemon runs, and the runs succeed",
            since=since,
            run=last.run_id if last else "",
            things={f"freshness {name}": changed},
        )


def _success(instance: dg.DagsterInstance, thing: str, kind: Kind) -> Recovery | None:
    """Return when a thing succeeded last, if it is right now."""
    sort, _, name = thing.partition(" ")
    if sort == "job":
        succeeded = dg.RunsFilter(job_name=name, statuses=[dg.DagsterRunStatus.SUCCESS])
        runs = instance.get_run_records(succeeded, limit=1)
        return Recovery(at=_ended(runs[0]), run=runs[0].dagster_run.run_id) if runs else None
    if sort == "check":
        check, _, asset = name.partition(" ")
        last = next(_evaluations(instance, dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), check)), None)
        # That advice is not followed does not matter to a run whose checks broke off.
        is_right = last and (last.passed or (kind == RUN and not last.blocking))
        return Recovery(at=last.at, run=last.run) if last and is_right else None
    key = dg.AssetKey.from_user_string(name)
    made = instance.get_latest_materialization_event(key)
    if made is None:
        return None
    if sort == "freshness":
        state = instance.get_freshness_state_records([key]).get(key)
        is_fresh = state and state.freshness_state.value == "PASS"
        return Recovery(at=state.updated_at.timestamp(), run=made.run_id) if state and is_fresh else None
    return Recovery(at=made.timestamp, run=made.run_id)


def _asset(key: dg.AssetKey | None) -> str:
    return f"asset {key.to_user_string()}" if key else ""


def _check(key: dg.AssetKey, name: str) -> str:
    return f"check {name} {key.to_user_string()}"


def _listed(steps: Sequence[str]) -> str:
    more = [f"{len(steps) - STEPS} more"] if len(steps) > STEPS else []
    return ", ".join([*steps[:STEPS], *more])
