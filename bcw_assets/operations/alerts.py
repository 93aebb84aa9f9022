"""What a message says, whether it is due, and sending it: one message for each incident and one when it is over.

The state between two ticks stands in the sensor's cursor: what is wrong, and which messenger knows. A message that was
not delivered therefore is due again at the next tick, and who is added later hears of what is wrong now.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from time import time as now

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from bcw_assets import settings as environment
from bcw_assets.locations import S3
from bcw_assets.operations import incidents, notifiers
from bcw_assets.operations.incidents import Incident, Recovery, Watched
from bcw_assets.operations.notifiers import Message, Messenger
from bcw_assets.settings import Settings

SENSOR = "alerts"
"""The name of the sensor, whose cursor `read` reads."""

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


class Known(BaseModel):
    """An incident, and who knows of it.

    Attributes:
        over: when it was over, and by which run; None while it is not.
        told: the names of the messengers that were told of it, and not yet that it is over.
    """

    model_config = ConfigDict(frozen=True)

    incident: Incident
    over: Recovery | None = None
    told: tuple[str, ...] = ()


class State(BaseModel):
    """What the sensor's cursor holds.

    Attributes:
        known: key → incident that is open, or whose end is not told everywhere.
        looked: when the history was last looked at, in seconds since 1970; None before.
        undelivered: how many messages are due and were not accepted.
        failing: the names of the messengers that did not accept one at the last tick; next time the others come first.
        failures: how often that happened since the cursor began.
        failed_at: when it happened last; None if it never did.
    """

    model_config = ConfigDict(frozen=True)

    known: dict[str, Known] = {}
    looked: float | None = None
    undelivered: int = 0
    failing: tuple[str, ...] = ()
    failures: int = 0
    failed_at: float | None = None

    @property
    def open(self) -> list[Incident]:
        """What is wrong now."""
        return [one.incident for one in self.known.values() if one.over is None]


def read(cursor: str | None) -> State:
    """Return the state that a cursor of the sensor holds; a new one where it holds none."""
    try:
        return State.model_validate_json(cursor or "{}")
    except ValidationError:  # edited by hand, or of another version: what is wrong now is told again
        return State()


def tick(instance: dg.DagsterInstance, cursor: str | None, watched: Watched, settings: Settings) -> tuple[State, str]:
    """Look at the history, tell who is not told yet, and return the new state and what was done, in words."""
    everybody = notifiers.of(settings)
    hidden = [*environment.list_secrets(), *notifiers.secrets(everybody)]
    state = look(instance, read(cursor), watched, hidden, now())
    state, refused = tell(state, everybody, settings)
    wrong = f"Open incidents: {len(state.open)}"
    if not everybody:
        return state, f"{wrong}; BCW_NOTIFY_URLS is not set, so nobody is told"
    if refused:
        return (
            state,
            f"{wrong}; messages are due to messengers {', '.join(map(str, refused))}, which did not accept them",
        )
    return state, f"{wrong}; everybody in BCW_NOTIFY_URLS is told"


def look(instance: dg.DagsterInstance, state: State, watched: Watched, hidden: Sequence[str], when: float) -> State:
    """Return the state with what is wrong and what is over by now.

    Args:
        instance: whose history is looked at, from where the state ends; at first as far back as a release may be old.
        state: of the tick before.
        watched: what is looked at beside runs.
        hidden: secrets that no text may show.
        when: seconds since 1970.
    """
    since = when - watched.stale_days * incidents.DAY if state.looked is None else state.looked - OVERLAP
    known = dict(state.known)
    for one in incidents.found(instance, watched, since, when):
        if incidents.recovery(instance, one) is None:
            _take_in(known, one.model_copy(update={"evidence": harmless(one.evidence, hidden)}))
    over = {key: incidents.recovery(instance, one.incident) for key, one in known.items()}
    known = {key: one.model_copy(update={"over": over[key]}) for key, one in known.items()}
    return state.model_copy(update={"known": known, "looked": when})


def tell(state: State, everybody: Sequence[Messenger], settings: Settings) -> tuple[State, list[Messenger]]:
    """Send what is due, and return the state with who is told now, and the messengers that did not accept something.

    A messenger that did not accept one message gets its others at the next tick.
    """
    known, refused, last_start = dict(state.known), [], monotonic() + BUDGET
    for messenger in sorted(everybody, key=lambda one: one.name in state.failing):
        for key in [key for key, one in known.items() if is_due(one, messenger)]:
            if monotonic() > last_start:
                break
            if not messenger.accepts(message(known[key], settings)):
                refused.append(messenger)
                break
            known[key] = _told(known[key], messenger)
    names = {one.name for one in everybody}
    changes = {
        "known": {key: one for key, one in known.items() if one.over is None or names & set(one.told)},
        "undelivered": sum(is_due(one, messenger) for one in known.values() for messenger in everybody),
        "failing": tuple(one.name for one in refused),
        "failures": state.failures + len(refused),
        "failed_at": now() if refused else state.failed_at,
    }
    return state.model_copy(update=changes), refused


def is_due(known: Known, messenger: Messenger) -> bool:
    """Say whether a messenger has to hear of an incident, or that it is over: the second only if it heard the first."""
    return (known.over is None) != (messenger.name in known.told)


def message(known: Known, settings: Settings) -> Message:
    """Return what is said of an incident: that there is one, or that it is over."""
    incident, over = known.incident, known.over
    place = settings.releases_place if incident.kind in (incidents.REFUSED, incidents.STALE) else settings.storage
    where = f"Where: {place if place.startswith(S3) else Path(place).absolute()}"[:LONGEST_LINE]
    title = f"bcw_assets: {incident.title}"[:LONGEST_LINE]
    if over is None:
        lines = [f"Evidence: {incident.evidence}", f"Since: {_written(incident.since)}", where]
        return Message(title, "\n".join([*lines, *_link(incident.run, settings)]), "failure")
    lasted = timedelta(seconds=round(over.at - incident.since))
    lines = [f"It is over since {_written(over.at)}, and was so since {_written(incident.since)} ({lasted}).", where]
    return Message(f"Recovered: {title}", "\n".join([*lines, *_link(over.run, settings)]), "success")


def harmless(text: str, hidden: Sequence[str]) -> str:
    """Return a text of bounded length, without secrets, and without what is markup or a mention in a messenger.

    >>> harmless("<!everyone> look at https://me:hunter2@example.org/?token=abc, key 12345678", ["12345678"])
    '‹!everyone› look at https://***＠example.org/?token=***, key ***'
    """
    for secret in sorted(hidden, key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = ASSIGNED.sub(rf"\1{MASK}", CREDENTIALS.sub(MASK, ACCESS_KEY.sub(MASK, text))).translate(HARMLESS)
    text = "".join(one for one in text if one.isprintable() or one == "\n")
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … (cut; the run has all of it)"


def _take_in(known: dict[str, Known], found: Incident) -> None:
    """Add an incident to the known ones, or to the one that it is part of.

    That is then told as it is newest, unless it is told already.
    """
    for key, one in known.items():
        before = one.incident
        if before.kind == found.kind and found.things.keys() <= before.things.keys():
            newest = before if one.told and not one.over else found
            since = found.since if one.over else before.since
            merged = newest.model_copy(update={"things": before.things | found.things, "since": since})
            known[key] = one.model_copy(update={"incident": merged})
            return
    known[found.key] = Known(incident=found)


def _told(known: Known, messenger: Messenger) -> Known:
    """Return the incident as it is once a messenger knows of it, or of its end."""
    others = tuple(name for name in known.told if name != messenger.name)
    return known.model_copy(update={"told": others if known.over else (*others, messenger.name)})


def _written(when: float) -> str:
    return f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _link(run: str, settings: Settings) -> list[str]:
    """Return the line that leads to a run; none without a run."""
    return [f"Run: {f'{settings.ui_url}/runs/' if settings.ui_url else ''}{run}"] if run else []
