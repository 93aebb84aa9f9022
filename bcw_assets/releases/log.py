"""The log of promotions and rollbacks: its newest entry says who is champion, and it is only ever added to."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal

from annotated_types import Ge
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from bcw_assets import documents
from bcw_assets.documents import NotUnderstood
from bcw_assets.errors import KeyRefused, ReleaseError
from bcw_assets.releases import bundle
from bcw_assets.releases.bundle import Bundle, Digest, ReleaseId, inputs_part
from bcw_assets.storage.store import Store

FOLDER = f"{bundle.FOLDER}log/"
NO_RELEASE = "There is no release in {} yet. To make one: bcw refresh"
ENTRY = re.compile(r"(?!000000)[0-9]{6}\.json")
LAST = 999_999  # the number of the last entry that a log can have
MOST_BYTES = 2**20  # of an entry; one has some thousand
PROMOTE: Literal["promote"] = "promote"
ROLLBACK: Literal["rollback"] = "rollback"
PRUNE: Literal["prune"] = "prune"  # of version 0.1.0, which deleted bundles; the champion stays what it was
Action = Literal["promote", "rollback", "prune"]


class Ruling(TypedDict):
    """What the gate says of one rule; the verdict is kept, broken or not judged."""

    rule: str
    value: str
    limit: str
    verdict: str


class Overtaken(ReleaseError):
    """Another writer took the next number in the log."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One promotion or rollback; or a prune, which says nothing new.

    Attributes:
        sequence: its number; the first is 1. Order is by it, never by a clock.
        action: promote, rollback or prune.
        release: the id of the release that is the champion from here on.
        manifest: the SHA-256 of its manifest.
        reason: of a rollback, or of a promotion against the gate; None without one.
        run: of Dagster, or the command.
        made: when the entry was, in UTC.
        gate: what the gate looked at.
        previous: the SHA-256 of the entry before; None for the first.
        nonce: tells the writer's own entry from another's.
    """

    sequence: Annotated[int, Ge(1)]
    action: Action
    release: ReleaseId
    manifest: Digest
    reason: str | None = None
    run: str
    made: str
    gate: list[Ruling] = field(default_factory=list)
    previous: Digest | None
    nonce: str


@dataclass(frozen=True)
class Log:
    """The log as it was read.

    Attributes:
        place: where the releases are, for people.
        entries: those that can be read, the oldest first.
        damage: key of a file of the log → what is wrong with it.
        foreign: key of an entry that another version wrote, and this one does not understand → why.
        newest: number of the newest entry, whole or not; 0 in an empty log.
        digest: the SHA-256 of its file; None in an empty log.
    """

    place: str
    entries: tuple[Entry, ...]
    damage: Mapping[str, str]
    foreign: Mapping[str, str]
    newest: int
    digest: str | None

    @property
    def last(self) -> Entry | None:
        """The newest entry that can be read: of the release that a candidate is compared with."""
        return self.entries[-1] if self.entries else None

    @property
    def problem(self) -> str | None:
        """Why the newest entry does not say who is champion; what is wrong with an older one hides nothing."""
        key = _key(self.newest)
        what = self.foreign.get(key) or self.damage.get(key)
        return f"{key} {what}" if what else None

    def require_understood(self) -> None:
        """Refuse a log whose newest entry only a newer version may follow.

        Raises:
            ReleaseError: another version wrote it.
        """
        if _key(self.newest) in self.foreign:
            raise ReleaseError(f"{self.problem}. Nothing was changed in {self.place}")

    def require_newest(self) -> None:
        """Refuse a log whose newest entry does not say who is champion.

        Raises:
            ReleaseError: it is damaged, or another version wrote it.
        """
        self.require_understood()
        if self.problem:
            raise ReleaseError(
                f"{self.problem}: nobody can say which release in {self.place} is the champion. Put the file back from "
                f"a copy, or let a run go past it: bcw refresh"
            )

    def current(self) -> Entry:
        """Return the entry of the champion.

        Raises:
            ReleaseError: there is none, or the newest entry does not say who it is.
        """
        self.require_newest()
        if self.last is None:
            raise ReleaseError(NO_RELEASE.format(self.place))
        return self.last

    def champions(self) -> list[Entry]:
        """Return the entries that rollbacks walk back through, the oldest first, the champion last.

        A rollback drops what came after the release that it goes back to, or everything where damage hides that
        release; promoting the champion's inputs again replaces its entry.
        """
        way: list[Entry] = []
        inputs: set[str] = set()
        for entry in self._changes:
            places = [place for place, earlier in enumerate(way) if _has_same_inputs(earlier, entry)]
            if places and (entry.action == ROLLBACK or places[-1] == len(way) - 1):
                del way[places[-1] :]
            elif entry.action == ROLLBACK and inputs_part(entry.release) not in inputs:
                way.clear()
            way.append(entry)
            inputs.add(inputs_part(entry.release))
        return way

    def list_rolled_back(self) -> dict[str, Entry]:
        """Return the releases that were rolled back from, and whose inputs are not back since → the rollback."""
        rollbacks: dict[str, Entry] = {}
        before: Entry | None = None
        for entry in self._changes:
            inputs = inputs_part(entry.release)
            rollbacks = {release: back for release, back in rollbacks.items() if inputs_part(release) != inputs}
            if entry.action == ROLLBACK and before and not _has_same_inputs(before, entry):
                rollbacks[before.release] = entry
            before = entry
        return rollbacks

    def find_unknown_rollback(self, inputs: str) -> Entry | None:
        """Return a rollback from a release that damage hides, if these inputs are not back since; None without one."""
        sequences, rollback = {entry.sequence for entry in self.entries}, None
        for entry in self._changes:
            if inputs_part(entry.release) == inputs:
                rollback = None
            elif entry.action == ROLLBACK and entry.sequence - 1 not in sequences:
                rollback = entry
        return rollback

    def entries_of(self, release: str) -> list[Entry]:
        """Return the entries for a release, the oldest first; none if it never was champion."""
        return [entry for entry in self._changes if entry.release == release]

    @property
    def _changes(self) -> list[Entry]:
        """The entries that made a release the champion; where damage hides all of them, those that only name it."""
        return [entry for entry in self.entries if entry.action != PRUNE] or list(self.entries)

    def read_bundle(self, store: Store, release: str) -> Bundle:
        """Return what is stored of a release, held against the manifest that the newest entry for it names."""
        entries = self.entries_of(release)
        return bundle.read_bundle(store, release, entries[-1].manifest if entries else None)

    def require_bundle(self, store: Store, release: str) -> Bundle:
        """Return the bundle of a release that was champion and is whole.

        Raises:
            ReleaseError: it never was, or something of it is not what was published.
        """
        if not self.entries_of(release):
            raise ReleaseError(f"Release {release} never was champion, so the gate has not seen it")
        return self.read_bundle(store, release).require()


def read_log(store: Store) -> Log:
    """Return the whole log of a store."""
    keys = store.list(FOLDER)
    numbers = sorted(int(name.removesuffix(".json")) for key in keys if ENTRY.fullmatch(name := _name(key)))
    damage = {
        key: "is no entry of the log and does not belong there" for key in keys if not ENTRY.fullmatch(_name(key))
    }
    foreign: dict[str, str] = {}
    entries: list[Entry] = []
    before, newest = None, 0
    for number in numbers:
        key = _key(number)
        if number != newest + 1:
            damage[_key(newest + 1)] = f"is missing, and {key} is there"
        newest, digest = number, None
        try:
            content = store.read(key, MOST_BYTES)
            digest = documents.digest(content)
            entry = documents.read_sealed(Entry, content)
            if entry.sequence != number:
                raise ValueError(f"it has the number {entry.sequence}")
            if number == 1 and entry.previous is not None:
                raise ValueError("it names an entry before it, and there is none")
            entries.append(entry)
            if number > 1 and entry.previous != before and _key(number - 1) not in damage:
                damage[_key(number - 1)] = f"is another than when {key} was written"
        except NotUnderstood as error:
            foreign[key] = f"is not understood ({error})"
        except (KeyRefused, ValueError) as error:
            damage[key] = f"cannot be read ({error})"
        before = digest
    return Log(store.address(bundle.PLACE), tuple(entries), damage, foreign, newest, before)


def append(
    store: Store,
    log: Log,
    action: Action,
    champion: tuple[str, str],
    run: str,
    reason: str | None = None,
    gate: Sequence[Ruling] = (),
) -> Entry:
    """Write the next entry, unless another writer is first.

    Args:
        store: holds the releases.
        log: as it was read last; the entry follows it.
        action: what is done.
        champion: the id and the SHA-256 of the manifest of the release that is champion from here on.
        run: of Dagster, or the command.
        reason: why, on one line.
        gate: what it looked at.

    Raises:
        Overtaken: another writer took the number; the text names it, and what it did.
        ReleaseError: there is no number left, or the reason is not printable.
    """
    if reason and not reason.isprintable():
        raise ReleaseError(f"The reason is {reason!r}; allowed is printable text on one line")
    if log.newest >= LAST:
        raise ReleaseError(f"{_key(LAST)} takes the last number there is. If it was forged, move it away")
    entry = Entry(
        sequence=log.newest + 1,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=log.digest,
        nonce=secrets.token_hex(16),
        action=action,
        release=champion[0],
        manifest=champion[1],
        run=run,
        reason=reason,
        gate=list(gate),
    )
    key, content = _key(entry.sequence), documents.seal(asdict(entry))
    # A lost answer makes a client try again, and the second try is told "exists": the nonce says whose entry it is.
    if not store.create(key, content) and store.read(key) != content:
        raise Overtaken(f"{key} was written by another run at the same time ({_describe_winner(store, key)})")
    return entry


def _describe_winner(store: Store, key: str) -> str:
    try:
        entry = documents.read_sealed(Entry, store.read(key, MOST_BYTES))
    except (KeyRefused, ValueError) as error:
        return str(error)
    return f"{entry.action} of {entry.release} by {entry.run}"


def _has_same_inputs(entry: Entry, other: Entry) -> bool:
    return inputs_part(entry.release) == inputs_part(other.release)


def _key(number: int) -> str:
    return f"{FOLDER}{number:06}.json"


def _name(key: str) -> str:
    return key.removeprefix(FOLDER)
