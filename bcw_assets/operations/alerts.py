"""What is wrong by Dagster's history, and who is sent a message of it: one for each incident, and one when it is over.

Nothing depends on how a run was launched: what counts is what the history says of it. The state between two ticks
stands in the sensor's cursor: what is wrong, and which messenger knows. A message that was not delivered therefore is
due again at the next tick, and a messenger that is added later is sent what is wrong now.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from time import time as now
from typing import Literal

import dagster as dg
from pydantic import BaseModel, ValidationError

from bcw_assets import settings as environment
from bcw_assets.errors import ReleaseRefused
from bcw_assets.locations import S3
from bcw_assets.operations import history, notifiers
from bcw_assets.operations.notifiers import Message, Messenger
from bcw_assets.settings import Settings

SENSOR = "alerts"
"""The name of the sensor, whose cursor `read_state` reads."""

OVERLAP = 3600.0  # seconds of history that are looked at again: clocks differ, and tags come late
BUDGET = 30.0  # seconds of a tick in which a message may be begun; Dagster gives a tick 60
LONGEST = 1200  # characters of evidence: with three lines beside it, a message stays below 2,000
LONGEST_LINE = 200
MASK = "***"
CREDENTIALS = re.compile(r"(?<=://)[^\s/]+(?=@)")
ASSIGNED = re.compile(
    r"(?i)((?:token|secret|password|passwd|signature|credential|api_?key)[\w-]*[\"']?[=:]\s*)[^\s&;,]+"
)
ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b")
# What is markup or rouses everybody in one messenger or another becomes the nearest character that does not.
HARMLESS = str.maketrans({"<": "‹", ">": "›", "@": "＠", "`": "'"})

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


class Incident(BaseModel, frozen=True):
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


class Recovery(BaseModel, frozen=True):
    """When all that had failed was right again, and the run that did it."""

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


class Case(BaseModel, frozen=True):
    """An incident, and who knows of it.

    Attributes:
        over: when it was over, and by which run; None while it is not.
        told: the names of the messengers that were told of it, and not yet that it is over.
    """

    incident: Incident
    over: Recovery | None = None
    told: tuple[str, ...] = ()


class State(BaseModel, frozen=True):
    """What the sensor's cursor holds.

    Attributes:
        known: key → incident that is open, or whose end is not told everywhere.
        looked: when the history was last looked at, in seconds since 1970; None before.
        failing: the names of the messengers that did not accept one at the last tick; next time the others come first.
        failures: how often that happened since the cursor began.
    """

    known: dict[str, Case] = {}
    looked: float | None = None
    failing: tuple[str, ...] = ()
    failures: int = 0

    @property
    def open(self) -> list[Incident]:
        """What is wrong now."""
        return [case.incident for case in self.known.values() if case.over is None]


def read_state(cursor: str | None) -> State:
    """Return the state that a cursor of the sensor holds; a new one where it holds none."""
    try:
        return State.model_validate_json(cursor or "{}")
    except ValidationError:  # edited by hand, or of another version: what is wrong now is told again
        return State()


def tick(instance: dg.DagsterInstance, cursor: str | None, watched: Watched, settings: Settings) -> tuple[State, str]:
    """Look at the history, send what is due, and return the new state and what was done, in words."""
    messengers = notifiers.list_messengers(settings)
    hidden = [*environment.list_secrets(), *notifiers.find_secrets(messengers)]
    state = update_cases(instance, read_state(cursor), watched, hidden, now())
    state, refused = send_due_messages(state, messengers, settings)
    done = "everybody in BCW_NOTIFY_URLS is told"
    if refused:
        done = f"messages are due to messengers {', '.join(map(str, refused))}, which did not accept them"
    if not messengers:
        done = "BCW_NOTIFY_URLS is not set, so nobody is told"
    return state, f"Open incidents: {len(state.open)}; {done}"


def update_cases(
    instance: dg.DagsterInstance, state: State, watched: Watched, hidden: Sequence[str], when: float
) -> State:
    """Return the state with what is wrong and what is over at a time, in texts that show no `hidden` secret.

    The history is looked at from where the state ends; at first as far back as a release may be old.
    """
    since = when - watched.stale_days * DAY if state.looked is None else state.looked - OVERLAP
    known = dict(state.known)
    for incident in find_incidents(instance, watched, since, when):
        if find_recovery(instance, incident) is None:
            _add(known, incident.model_copy(update={"evidence": remove_secrets_and_markup(incident.evidence, hidden)}))
    known = {
        key: case.model_copy(update={"over": find_recovery(instance, case.incident)}) for key, case in known.items()
    }
    return state.model_copy(update={"known": known, "looked": when})


def send_due_messages(
    state: State, messengers: Sequence[Messenger], settings: Settings
) -> tuple[State, list[Messenger]]:
    """Send what is due, and return the state with who knows it now, and the messengers that did not accept something.

    A messenger that did not accept one message gets its others at the next tick.
    """
    known, refused, last_start = dict(state.known), [], monotonic() + BUDGET
    for messenger in sorted(messengers, key=lambda messenger: messenger.name in state.failing):
        for key in [key for key, case in known.items() if is_due(case, messenger)]:
            if monotonic() > last_start:
                break
            if not messenger.accepts(write_message(known[key], settings)):
                refused.append(messenger)
                break
            known[key] = _note_delivery(known[key], messenger)
    names = {messenger.name for messenger in messengers}
    changes = {
        "known": {key: case for key, case in known.items() if case.over is None or names & set(case.told)},
        "failing": tuple(messenger.name for messenger in refused),
        "failures": state.failures + len(refused),
    }
    return state.model_copy(update=changes), refused


def is_due(case: Case, messenger: Messenger) -> bool:
    """Say whether a messenger has to hear of an incident, or that it is over: the second only if it heard the first."""
    return (case.over is None) != (messenger.name in case.told)


def write_message(case: Case, settings: Settings) -> Message:
    """Return what is said of an incident: that there is one, or that it is over."""
    incident, over = case.incident, case.over
    place = settings.releases_place if incident.kind in (REFUSED, STALE) else settings.storage
    where = f"Where: {place if place.startswith(S3) else Path(place).absolute()}"[:LONGEST_LINE]
    title = f"bcw_assets: {incident.title}"[:LONGEST_LINE]
    if over is None:
        lines = [f"Evidence: {incident.evidence}", f"Since: {_format_time(incident.since)}", where]
        return Message(title, "\n".join([*lines, *_format_link(incident.run, settings)]), "failure")
    lasted = timedelta(seconds=round(over.at - incident.since))
    lines = [
        f"It is over since {_format_time(over.at)}, and was so since {_format_time(incident.since)} ({lasted}).",
        where,
    ]
    return Message(f"Recovered: {title}", "\n".join([*lines, *_format_link(over.run, settings)]), "success")


def remove_secrets_and_markup(text: str, hidden: Sequence[str]) -> str:
    """Return a text of bounded length, without secrets, and without what is markup or a mention in a messenger.

    >>> text = "<!everyone> look at https://me:hunter2@example.org/?token=abc, key 12345678"
    >>> remove_secrets_and_markup(text, ["12345678"])
    '‹!everyone› look at https://***＠example.org/?token=***, key ***'
    """
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = ASSIGNED.sub(rf"\1{MASK}", CREDENTIALS.sub(MASK, ACCESS_KEY.sub(MASK, text))).translate(HARMLESS)
    text = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … (cut; the run has all of it)"


def _add(known: dict[str, Case], incident: Incident) -> None:
    """Add an incident to the known ones, or to the one that it is part of.

    That is then told as it is newest, unless it is told already.
    """
    for key, case in known.items():
        before = case.incident
        if before.kind == incident.kind and incident.things.keys() <= before.things.keys():
            newest = before if case.told and not case.over else incident
            since = incident.since if case.over else before.since
            merged = newest.model_copy(update={"things": before.things | incident.things, "since": since})
            known[key] = case.model_copy(update={"incident": merged})
            return
    known[incident.key] = Case(incident=incident)


def _note_delivery(case: Case, messenger: Messenger) -> Case:
    """Return the case as it is once a messenger knows of it, or of its end."""
    names = tuple(name for name in case.told if name != messenger.name)
    return case.model_copy(update={"told": names if case.over else (*names, messenger.name)})


def _format_time(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _format_link(run: str, settings: Settings) -> list[str]:
    """Return the line that leads to a run; none without a run."""
    return [f"Run: {f'{settings.ui_url}/runs/' if settings.ui_url else ''}{run}"] if run else []


def find_incidents(instance: dg.DagsterInstance, watched: Watched, since: float, when: float) -> Iterator[Incident]:
    """Return what went wrong, the oldest run first; of runs, those that ended after `since`. It may be over."""
    yield from _find_failed_runs(instance, since, when)
    yield from _find_failed_checks(instance, watched.checks)
    yield from _find_stale_release(instance, watched, when)


def find_recovery(instance: dg.DagsterInstance, incident: Incident) -> Recovery | None:
    """Return when all that had failed was right again; None if something is not, or nothing says so."""
    successes = [
        success
        for thing, failed in incident.things.items()
        if (success := _find_success(instance, thing, incident.kind)) and success.at > failed
    ]
    return max(successes, key=lambda success: success.at) if len(successes) == len(incident.things) else None


def _find_failed_runs(instance: dg.DagsterInstance, since: float, when: float) -> Iterator[Incident]:
    after = datetime.fromtimestamp(max(since, 0), UTC)
    failed = history.read_runs(instance, dg.DagsterRunStatus.FAILURE, limit=RUNS, updated_after=after)
    for run in sorted(failed, key=history.find_end):
        tag = run.dagster_run.tags.get(history.WILL_RETRY)
        is_undecided = tag is None and instance.run_retries_enabled and when - history.find_end(run) < UNDECIDED
        if tag != "true" and not is_undecided:
            events = history.read_events(instance, run.dagster_run.run_id)
            yield _describe_run(run.dagster_run, history.find_end(run), events)


def _describe_run(run: dg.DagsterRun, ended: float, events: Sequence[dg.DagsterEvent]) -> Incident:
    steps = _find_broken_steps(events)
    refused = any(map(_is_refusal, events))
    job = "A run of selected assets" if run.job_name.startswith(SELECTED) else f"The run of {run.job_name}"
    where = f"at {_format_steps(steps)}" if steps else "before its first step"
    return Incident(
        kind=REFUSED if refused else RUN,
        title="The gate refused a release" if refused else f"{job} failed {where}",
        evidence="\n".join(history.explain_failure(events)) or history.explain_failure_beside_steps(events),
        since=ended,
        run=run.run_id,
        things=dict.fromkeys(_find_failed_things(events, steps) or [f"job {run.job_name}"], ended),
    )


def _find_broken_steps(events: Sequence[dg.DagsterEvent]) -> list[str]:
    """Return the steps that failed, and those that a dead process left behind."""
    ended = {event.step_key for event in events if event.is_step_success}
    begun = [event.step_key for event in events if event.is_step_start or event.is_step_failure]
    return [step for step in dict.fromkeys(begun) if step and step not in ended]


def _is_refusal(event: dg.DagsterEvent) -> bool:
    failure = event.step_failure_data.user_failure_data if event.is_step_failure else None
    error = failure.metadata.get("error") if failure else None
    return bool(error and error.value == ReleaseRefused.__name__)


def _find_failed_things(events: Sequence[dg.DagsterEvent], steps: Sequence[str]) -> list[str]:
    """Return what the broken steps were to make or to check; without such a step, what the run did not make."""
    planned = [(step, _name_thing(key)) for step, key in history.list_planned(events)]
    if steps:
        broken = {
            _name_thing(check.asset_check_key): step
            for step, check in history.list_failed_checks(events)
            if check.blocking
        }
        return [*broken, *(thing for step, thing in planned if step in steps and step not in broken.values())]
    made = {_name_thing(event.asset_key) for event in events if event.is_step_materialization and event.asset_key}
    things = [thing for _, thing in planned]
    return [thing for thing in things if thing.startswith("asset ") and thing not in made] or things


def _find_failed_checks(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> Iterator[Incident]:
    """Return the checks that failed on a green run since they passed; red runs speak for themselves."""
    for key, execution in history.read_latest_executions(instance, checks).items():
        if isinstance(execution.evaluation, dg.AssetCheckEvaluation) and execution.evaluation.passed:
            continue  # the usual case: 100 evaluations are not read for it
        evaluations = history.read_evaluations(instance, key, EVALUATIONS)
        failures = list(itertools.takewhile(lambda failure: not failure.content.passed, evaluations))
        runs = [failure.run for failure in failures]
        succeeded = history.read_runs(instance, dg.DagsterRunStatus.SUCCESS, run_ids=runs) if runs else ()
        green = {run.dagster_run.run_id for run in succeeded}
        for newest in [failure for failure in failures if failure.run in green][:1]:
            yield Incident(
                kind=CHECK,
                title=f"Check {key.name} of {key.asset_key.to_user_string()} failed",
                evidence=newest.content.description or "it says no more",
                since=failures[-1].at,
                run=newest.run,
                things={_name_thing(key): failures[0].at},
            )


def _find_stale_release(instance: dg.DagsterInstance, watched: Watched, when: float) -> Iterator[Incident]:
    """Return that there is no new release, by the state of its freshness policy, which Dagster's daemon keeps.

    Where there never was one, the state is UNKNOWN since the daemon first looked: then its age counts.
    """
    freshness = history.read_freshness(instance, watched.release)
    if freshness is None:
        return
    state, changed = freshness
    last = instance.get_latest_materialization_event(watched.release)
    never = state == "UNKNOWN" and last is None and when - changed >= watched.stale_days * DAY
    if state == "FAIL" or never:
        name = watched.release.to_user_string()
        yield Incident(
            kind=STALE,
            title=f"No {name} was made or confirmed for {watched.stale_days} days",
            evidence="See whether the schedule is on, the daemon runs, and the runs succeed",
            since=last.timestamp if last else changed,
            run=last.run_id if last else "",
            things={f"freshness {name}": changed},
        )


def _find_success(instance: dg.DagsterInstance, thing: str, kind: Kind) -> Recovery | None:
    """Return when a thing succeeded last, if it is right now."""
    sort, _, name = thing.partition(" ")
    if sort == "job":
        success = history.read_last_success(instance, name)
        return Recovery(at=history.find_end(success), run=success.dagster_run.run_id) if success else None
    if sort == "check":
        check, _, asset = name.partition(" ")
        key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), check)
        for last in history.read_evaluations(instance, key, EVALUATIONS)[:1]:
            # That advice is not followed does not matter to a run whose checks broke off.
            if last.content.passed or (kind == RUN and not last.content.blocking):
                return Recovery(at=last.at, run=last.run)
        return None
    asset_key = dg.AssetKey.from_user_string(name)
    made = instance.get_latest_materialization_event(asset_key)
    if made and sort == "freshness":
        state, changed = history.read_freshness(instance, asset_key) or ("", 0.0)
        return Recovery(at=changed, run=made.run_id) if state == "PASS" else None
    return Recovery(at=made.timestamp, run=made.run_id) if made else None


def _name_thing(key: dg.AssetKey | dg.AssetCheckKey) -> str:
    if isinstance(key, dg.AssetCheckKey):
        return f"check {key.name} {key.asset_key.to_user_string()}"
    return f"asset {key.to_user_string()}"


def _format_steps(steps: Sequence[str]) -> str:
    more = [f"{len(steps) - STEPS} more"] if len(steps) > STEPS else []
    return ", ".join([*steps[:STEPS], *more])
