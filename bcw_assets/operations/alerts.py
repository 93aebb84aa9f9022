"""What is wrong now by Dagster's history, and who is sent a message of it: one when it begins, and one when it is over.

At every tick the whole state is read, so it does not matter how many runs lie between two ticks, or how they were
launched. The sensor's cursor holds which messenger knows of what: a message that was not delivered is due again at the
next tick, and a messenger that is added later is sent what is wrong now. A kind of alert is a line of `list_incidents`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from time import monotonic
from time import time as now
from typing import Any, NamedTuple

import dagster as dg
import msgspec

from bcw_assets.locations import S3
from bcw_assets.operations import history, notifiers
from bcw_assets.settings import Settings

SENSOR = "alerts"
SELECTED = "__ASSET_JOB"  # how Dagster calls the job of a run of assets that somebody chose
BUDGET = 30.0  # seconds of a tick in which a message may be begun; Dagster gives a tick 60
LONGEST_TITLE = 200  # characters
DAY = 86_400.0  # seconds
REFUSAL, STALE = "refused", "stale"


@dataclass(frozen=True)
class Incident:
    """Something that is wrong, or was."""

    key: str  # tells it from others, and is the same at every tick
    title: str
    evidence: str
    since: float  # seconds since 1970
    run: str = ""  # the id of the run that shows it, if there is one
    audience: frozenset[str] = frozenset()  # names of the messengers that know of it, and not yet that it is over
    is_over: bool = False


class Watchlist(NamedTuple):
    """What the sensor looks at."""

    jobs: Mapping[str, str]  # job → the job whose success puts all its failures right
    checks: Sequence[dg.AssetCheckKey]
    release: dg.AssetKey
    stale_days: int


@dataclass(frozen=True)
class State:
    """What the sensor's cursor holds."""

    began: float  # when the first tick was
    incidents: tuple[Incident, ...] = ()  # what is wrong, or not everybody knows to be over
    failing: tuple[str, ...] = ()  # names of the messengers that failed at the last tick, and come last at the next
    failures: int = 0  # since the first tick

    def list_open(self) -> list[Incident]:
        """Return what is wrong now."""
        return [incident for incident in self.incidents if not incident.is_over]


def read_state(cursor: str | None, when: float) -> State:
    """Return the state in the sensor's cursor; a new one if there is none, or if another version wrote it."""
    try:
        return msgspec.json.decode(cursor or "", type=State)
    except msgspec.DecodeError:
        return State(began=when)


def tick(instance: dg.DagsterInstance, cursor: str | None, watched: Watchlist, settings: Settings) -> tuple[State, str]:
    """Look at the history, send what is due, and return the new state and what was done, in words."""
    when = now()
    state = read_state(cursor, when)
    messengers = notifiers.list_messengers(settings)
    incidents = list_incidents(instance, watched, state.began, when)
    state = update_incidents(state, incidents, notifiers.list_secret_parts(messengers))
    state, refusals = send_due_messages(state, messengers, settings, when)
    done = "everybody in BCW_NOTIFY_URLS is told" if messengers else "BCW_NOTIFY_URLS is not set, so nobody is told"
    if refusals:
        done = f"messages are due to messengers that did not accept them: {', '.join(refusals)}"
    return state, f"Open incidents: {len(state.list_open())}; {done}"


def list_incidents(instance: dg.DagsterInstance, watched: Watchlist, began: float, when: float) -> list[Incident]:
    """Return everything that is wrong at a time, of runs the oldest first; `began` is when somebody looked first."""
    incidents = [*_list_failed_runs(instance, watched.jobs), *_list_failed_checks(instance, watched.checks)]
    last = instance.get_latest_materialization_event(watched.release)
    since = last.timestamp if last else began
    if when - since >= watched.stale_days * DAY:
        title = f"No {watched.release.to_user_string()} was made or confirmed for {watched.stale_days} days"
        evidence = "See whether the schedule is on, the daemon runs, and the runs succeed"
        incidents.append(Incident(STALE, title, evidence, since, last.run_id if last else ""))
    return incidents


def update_incidents(state: State, incidents: Sequence[Incident], hidden: Sequence[str]) -> State:
    """Return the state with what is wrong now, in texts that show no `hidden` secret, and all else as over."""
    known = {before.key: replace(before, is_over=True) for before in state.incidents}
    for incident in incidents:
        before = known.get(incident.key, incident)
        evidence = notifiers.remove_secrets_and_markup(incident.evidence, hidden)
        known[incident.key] = replace(incident, evidence=evidence, since=before.since, audience=before.audience)
    return replace(state, incidents=tuple(known.values()))


def send_due_messages(
    state: State, messengers: Sequence[notifiers.Messenger], settings: Settings, when: float
) -> tuple[State, list[str]]:
    """Send what is due, and return the state with who knows it now, and which messengers did not accept it, and why.

    A messenger that did not accept one message gets its others at the next tick.
    """
    incidents, refusals, last_start = list(state.incidents), {}, monotonic() + BUDGET
    for messenger in sorted(messengers, key=lambda messenger: messenger.name in state.failing):
        for place, incident in enumerate(incidents):
            if incident.is_over != (messenger.name in incident.audience):
                continue  # it knows; of an end it need not know when it never heard of the beginning
            if monotonic() > last_start:
                break
            if reason := messenger.deliver(write_message(incident, settings, when)):
                refusals[messenger.name] = f"{messenger} ({reason})"
                break
            incidents[place] = replace(incident, audience=incident.audience ^ {messenger.name})
    names = {messenger.name for messenger in messengers}
    due = tuple(incident for incident in incidents if not incident.is_over or names & incident.audience)
    failures = state.failures + len(refusals)
    state = State(began=state.began, incidents=due, failing=tuple(refusals), failures=failures)
    return state, list(refusals.values())


def write_message(incident: Incident, settings: Settings, when: float) -> notifiers.Message:
    """Return what is said of an incident: that there is one, or that at a time it is over."""
    place = settings.releases_place if incident.key in (REFUSAL, STALE) else settings.storage
    lines = [f"Where: {place if place.startswith(S3) else Path(place).absolute()}"[:LONGEST_TITLE]]
    if incident.run:
        lines.append(f"Run: {f'{settings.ui_url}/runs/' if settings.ui_url else ''}{incident.run}")
    title, since = f"bcw_assets: {incident.title}"[:LONGEST_TITLE], history.format_time(incident.since)
    if incident.is_over:
        lasted = timedelta(seconds=round(when - incident.since))
        lines.insert(0, f"It is over: so since {since}, and no longer at {history.format_time(when)} ({lasted}).")
        return notifiers.Message(f"Recovered: {title}", "\n".join(lines), "success")
    return notifiers.Message(title, "\n".join([f"Evidence: {incident.evidence}", f"Since: {since}", *lines]), "failure")


def _list_failed_runs(instance: dg.DagsterInstance, jobs: Mapping[str, str]) -> Iterator[Incident]:
    """Return the failed runs of jobs with their remedies; what checks say, they say themselves."""

    def find_time_made(asset: dg.AssetKey) -> float:
        latest = instance.get_latest_materialization_event(asset)
        return latest.timestamp if latest else 0.0

    for job, remedy in jobs.items():
        title = "A run of selected assets failed" if job == SELECTED else f"The run of {job} failed"
        after = history.find_last_success(instance, remedy)
        for failure in reversed(list(history.find_failures(instance, find_time_made, after, job))):
            checks = {step for step, check in history.list_failed_checks(failure.events) if check.blocking}
            steps = [step for step in failure.steps if step not in checks]
            if failure.steps and not steps:
                continue
            gate = history.read_gate(failure.events)
            where = f"at {', '.join(steps)}" if steps else "before its first step"
            yield Incident(
                key=REFUSAL if gate else f"run {', '.join(steps) or job}",
                title="The gate refused a release" if gate else f"{title} {where}",
                # Few messengers write letters of one width, which a table in columns needs.
                evidence="\n".join([*history.explain_failure(failure.events), *map(" | ".join, gate)]),
                since=failure.ended,
                run=failure.run_id,
            )


def _list_failed_checks(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> Iterator[Incident]:
    """Return the checks, blocking or not, that did not pass when they said something last."""
    for key in checks:
        executions = instance.event_log_storage.get_asset_check_execution_history(key, limit=history.NEWEST)
        execution: Any = next(filter(history.has_evaluation, executions), None)
        if execution and not execution.evaluation.passed:
            yield Incident(
                key=f"check {key.to_user_string()}",
                title=f"Check {key.name} of {key.asset_key.to_user_string()} failed",
                evidence=execution.evaluation.description or "it says no more",
                since=history.find_time(execution),
                run=execution.run_id,
            )
