"""The log of promotions and rollbacks: its newest entry says who is champion, and it is only ever added to."""

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from annotated_types import Ge
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from bcw_assets import documents
from bcw_assets.errors import KeyRefused, ReleaseError
from bcw_assets.releases import bundle
from bcw_assets.releases.bundle import Bundle, Digest, ReleaseId
from bcw_assets.storage.store import Store

FOLDER = f"{bundle.FOLDER}log/"
ENTRY = re.compile(r"(?!000000)[0-9]{6}\.json")
LAST = 999_999  # the number of the last entry that a log can have
MOST_BYTES = 2**20  # of an entry; one has some thousand
PROMOTE: Literal["promote"] = "promote"
ROLLBACK: Literal["rollback"] = "rollback"
PRUNE: Literal["prune"] = "prune"
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
    """One promotion, rollback or prune.

    Attributes:
        sequence: its number; the first is 1. Order is by it, never by a clock.
        action: promote, rollback, or prune, which leaves the champion and lets nobody go back meanwhile.
        release: the id of the release that is the champion from here on.
        manifest: the SHA-256 of its manifest.
        reason: of a rollback, or of a promotion against the gate; None without one.
        run: of Dagster, or the command.
        made: when the entry was, in UTC.
        gate: what the gate looked at.
        pruned: the releases that are deleted.
        previous: the SHA-256 of the entry before; None for the first.
        damaged: the files of the log that were found damaged when this was written, and are known since.
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
    pruned: list[ReleaseId] = field(default_factory=list)
    previous: Digest | None
    damaged: list[str] = field(default_factory=list)
    nonce: str


@dataclass(frozen=True)
class Log:
    """The log as it was read.

    Attributes:
        place: where the releases are, for people.
        entries: those that can be read, the oldest first.
        damage: name of a file of the log → what is wrong with it.
        newest: number of the newest file, damaged or not; 0 in an empty log.
        digest: the SHA-256 of that file; None in an empty log.
    """

    place: str
    entries: tuple[Entry, ...]
    damage: Mapping[str, str]
    newest: int
    digest: str | None

    @property
    def last(self) -> Entry | None:
        """The newest entry that can be read: of the release that a candidate is compared with."""
        return self.entries[-1] if self.entries else None

    @property
    def unknown_damage(self) -> dict[str, str]:
        """What no entry since acknowledges: until a promotion does, nobody can say who is champion."""
        known = self.last.damaged if self.last and self.last.sequence == self.newest else []
        return {name: what for name, what in self.damage.items() if name not in known}

    def require_known_damage(self) -> None:
        """Refuse a log that was damaged since its newest entry was written.

        Raises:
            ReleaseError: nobody can say who is champion.
        """
        if damage := self.unknown_damage:
            raise ReleaseError(
                f"{'; '.join(told(damage))}: nobody can say which release in {self.place} is the champion. Put the "
                f"file back from a copy, move away what does not belong there, or let a run go past it: bcw refresh"
            )

    def current(self) -> Entry:
        """Return the entry of the champion.

        Raises:
            ReleaseError: there is none, or the log was damaged since its newest entry was written.
        """
        self.require_known_damage()
        if self.last is None:
            raise ReleaseError(f"There is no release in {self.place} yet. To make one: bcw refresh")
        return self.last

    def champions(self) -> list[Entry]:
        """Return the entries that rollbacks walk back through, the oldest first, the champion last.

        A rollback drops what came after the release that it goes back to; promoting the champion again replaces its
        entry.
        """
        way: list[Entry] = []
        for entry in self._changes:
            places = [place for place, one in enumerate(way) if one.release == entry.release]
            if places and (entry.action == ROLLBACK or places[-1] == len(way) - 1):
                del way[places[-1] :]
            way.append(entry)
        return way

    def rolled_back(self) -> dict[str, Entry]:
        """Return the releases that were rolled back from and are not back since → the entry of the rollback."""
        found: dict[str, Entry] = {}
        before: Entry | None = None
        for entry in self._changes:
            found.pop(entry.release, None)
            if entry.action == ROLLBACK and before and before.release != entry.release:
                found[before.release] = entry
            before = entry
        return found

    def of(self, release: str) -> list[Entry]:
        """Return the entries for a release, the oldest first; none if it never was champion."""
        return [one for one in self._changes if one.release == release]

    def pruned(self) -> set[str]:
        """Return the releases that were deleted and not made again since."""
        found: set[str] = set()
        for entry in self.entries:
            found |= set(entry.pruned)
            found.discard(entry.release)
        return found

    @property
    def _changes(self) -> list[Entry]:
        """The entries that made a release the champion."""
        return [entry for entry in self.entries if entry.action != PRUNE]

    def bundle(self, store: Store, release: str) -> Bundle:
        """Return what is stored of a release, held against the manifest that the newest entry for it names."""
        known = self.of(release)
        return bundle.read(store, release, known[-1].manifest if known else None)

    def require(self, store: Store, release: str) -> Bundle:
        """Return the bundle of a release that was champion and is whole.

        Raises:
            ReleaseError: it never was, or something of it is not what was published.
        """
        if not self.of(release):
            raise ReleaseError(f"Release {release} never was champion, so the gate has not seen it")
        if release in self.pruned():
            raise ReleaseError(
                f"Release {release} was deleted by bcw releases prune; a refresh of its inputs makes it again"
            )
        return self.bundle(store, release).require()


def read(store: Store) -> Log:
    """Return the whole log of a store."""
    names = [key.removeprefix(FOLDER) for key in store.list(FOLDER)]
    damage = {name: "is no entry of the log and does not belong there" for name in names if not ENTRY.fullmatch(name)}
    entries, before, newest = [], None, 0
    for number in sorted(int(name.removesuffix(".json")) for name in names if name not in damage):
        if number != newest + 1:
            damage[_name(newest + 1)] = f"is missing, and {_name(number)} is there"
        newest = number
        digest = None
        try:
            content = store.read(FOLDER + _name(number), MOST_BYTES)
            digest = documents.digest(content)
            entry = documents.read_sealed(Entry, content)
            if entry.sequence != number:
                raise ValueError(f"it has the number {entry.sequence}")
            if number == 1 and entry.previous is not None:
                raise ValueError("it names an entry before it, and there is none")
            entries.append(entry)
            if number > 1 and entry.previous != before and _name(number - 1) not in damage:
                damage[_name(number - 1)] = f"is another than when {_name(number)} was written"
        except (KeyRefused, ValueError) as error:
            damage[_name(number)] = f"cannot be read ({error})"
        before = digest
    return Log(store.address(bundle.PLACE), tuple(entries), damage, newest, before)


def append(
    store: Store, log: Log, action: Action, champion: tuple[str, str], run: str, reason: str | None = None, **more: Any
) -> Entry:
    """Write the next entry, unless another writer is first.

    Args:
        store: holds the releases.
        log: as it was read last; the entry follows it.
        action: what is done.
        champion: the id and the SHA-256 of the manifest of the release that is champion from here on.
        run: of Dagster, or the command.
        reason: why, on one line.
        more: gate, or pruned, of the `Entry`.

    Raises:
        Overtaken: another writer took the number; the text names it, and what it did.
        ReleaseError: there is no number left, or the reason is not printable.
    """
    if reason and not reason.isprintable():
        raise ReleaseError(f"The reason is {reason!r}; allowed is printable text on one line")
    if log.newest >= LAST:
        raise ReleaseError(f"{FOLDER}{_name(LAST)} takes the last number there is. If it was forged, move it away")
    entry = Entry(
        sequence=log.newest + 1,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        previous=log.digest,
        damaged=sorted(log.damage),
        nonce=secrets.token_hex(16),
        action=action,
        release=champion[0],
        manifest=champion[1],
        run=run,
        reason=reason,
        **more,
    )
    name, content = _name(entry.sequence), documents.seal(asdict(entry))
    # A lost answer makes a client try again, and the second try is told "exists": the nonce says whose entry it is.
    if not store.create(FOLDER + name, content) and store.read(FOLDER + name) != content:
        raise Overtaken(f"{FOLDER}{name} was written by another run at the same time ({_winner(store, name)})")
    return entry


def told(damage: Mapping[str, str]) -> Iterator[str]:
    """Return what is wrong with the log in words, one text a file."""
    return (f"{FOLDER}{name} {what}" for name, what in damage.items())


def _winner(store: Store, name: str) -> str:
    try:
        entry = documents.read_sealed(Entry, store.read(FOLDER + name, MOST_BYTES))
    except (KeyRefused, ValueError) as error:
        return str(error)
    return f"{entry.action} of {entry.release} by {entry.run}"


def _name(number: int) -> str:
    return f"{number:06}.json"
