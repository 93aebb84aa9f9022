"""The log of promotions and rollbacks: its newest entry says who is champion, and it is only ever added to."""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Literal, TypedDict

from msgspec import Meta

from bcw_assets import documents
from bcw_assets.errors import KeyRefused, ReleaseError
from bcw_assets.releases import bundle
from bcw_assets.releases.bundle import Bundle, Digest, ReleaseId, cut_inputs_hash
from bcw_assets.storage.store import Store

LOG_PREFIX = f"{bundle.PLACE}/log/"
REFUSAL_PREFIX = f"{bundle.PLACE}/refused/"
NO_RELEASE = "There is no release in {} yet. To make one: bcw refresh"
ALL_REFUSED = "There is no release in {} yet: the gate refused what was made. Why: bcw checks"
ENTRY_KEY = re.compile(rf"{LOG_PREFIX}(?!000000)([0-9]{{6}})\.json")
LAST = 999_999  # the number of the last entry that a log can have
MOST_BYTES_OF_ENTRY = 2**20  # most have some thousand
Action = Literal["promote", "rollback", "prune"]  # the last is of version 0.1.0, and names the champion of then


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
    """A promotion or a rollback, which says who is champion from here on."""

    sequence: Annotated[int, Meta(ge=1)]  # order is by it, never by a clock
    action: Action
    release: ReleaseId
    manifest: Digest  # of its manifest
    reason: str | None = None  # of a rollback, or of a promotion against the gate
    run: str  # of Dagster, or the command
    made: str  # in UTC
    gate: list[Ruling] = field(default_factory=list)
    previous: Digest | None  # of the entry before
    nonce: str  # tells the writer's own entry from another's

    @property
    def inputs_hash(self) -> str:
        """The digits of the release's id that are of what it was made from."""
        return cut_inputs_hash(self.release)


@dataclass(frozen=True)
class Log:
    """The log as it was read."""

    place: str  # where the releases are, for people
    entries: tuple[Entry, ...]  # those that can be read, the oldest first
    damage: Mapping[str, str]  # key of a file of the log → what is wrong with it
    foreign: Mapping[str, str]  # key of an entry of another version that this one does not understand → why
    newest: int  # number of the newest entry, whole or not; 0 in an empty log
    digest: str | None  # the SHA-256 of its file, if there is one that can be read
    has_refusals: bool = False  # instead of entries: the gate refused whatever was made

    @property
    def problem(self) -> str | None:
        """Why the newest entry does not say who is champion; what is wrong with an older one hides nothing."""
        key = _locate_entry(self.newest)
        what = self.foreign.get(key) or self.damage.get(key)
        return what and f"{key} {what}"

    @property
    def champion(self) -> Entry | None:
        """The newest entry; None if there is none, or if it does not say who is champion."""
        return self.entries[-1] if self.entries and not self.problem else None

    def require_champion(self) -> Entry:
        """Return the newest entry, or raise a ReleaseError that says why there is none, or none that can be read."""
        self.require_understood()
        if self.problem:
            raise ReleaseError(
                f"{self.problem}: nobody can say which release in {self.place} is the champion. Put the file back from "
                f"a copy, or let a promotion go past it (bcw refresh; the same inputs need the override of release)"
            )
        if not self.champion:
            raise ReleaseError((ALL_REFUSED if self.has_refusals else NO_RELEASE).format(self.place))
        return self.champion

    @property
    def absence(self) -> str:
        """What there is to say of a release that no entry of the log is for."""
        gap = self._find_gap(0)
        return "never champion" if gap is None else f"perhaps champion in entry {gap}, which cannot be read"

    def choose_release(self, store: Store, prefix: str | None) -> str:
        """Return the id of the stored release that `prefix` begins; the champion's without a prefix."""
        return self.require_champion().release if prefix is None else bundle.resolve(store, prefix)

    def require_understood(self) -> None:
        """Raise a ReleaseError if another version wrote the newest entry: this one must not go past it."""
        if _locate_entry(self.newest) in self.foreign:
            raise ReleaseError(f"{self.problem}. Nothing was changed in {self.place}")

    def list_way_back(self) -> list[Entry]:
        """Return the entries that rollbacks walk back through, the newest first, without the champion's.

        A rollback drops what came after its release, or everything where damage hides that; promoting the champion's
        inputs again replaces its entry.
        """
        way: list[Entry] = []
        known: set[str] = set()
        for entry in self.entries:
            places = [place for place, earlier in enumerate(way) if earlier.inputs_hash == entry.inputs_hash]
            if places and (entry.action == "rollback" or places[-1] == len(way) - 1):
                del way[places[-1] :]
            elif entry.action == "rollback" and entry.inputs_hash not in known:
                way.clear()
            way.append(entry)
            known.add(entry.inputs_hash)
        return way[-2::-1]

    def list_rolled_back(self) -> dict[str, Entry]:
        """Return the releases that were rolled back from, and whose inputs are not back since → the rollback."""
        rollbacks: dict[str, Entry] = {}
        for before, entry in pairwise(self.entries):
            rollbacks = {of: back for of, back in rollbacks.items() if cut_inputs_hash(of) != entry.inputs_hash}
            if entry.action == "rollback" and before.inputs_hash != entry.inputs_hash:
                rollbacks[before.release] = entry
        return rollbacks

    def find_hidden_entry(self, inputs_hash: str, *, is_stored: bool) -> int | None:
        """Return the number of the first entry since these inputs were champion that cannot be read; None without.

        It may be a rollback from them. Where no entry of them is left, they may have been champion if they are stored.
        """
        own = [entry.sequence for entry in self.entries if entry.inputs_hash == inputs_hash]
        return self._find_gap(max(own, default=1)) if own or is_stored else None  # the first entry is no rollback

    def _find_gap(self, number: int) -> int | None:
        """Return the number of the first entry after this one that cannot be read."""
        numbers = {entry.sequence for entry in self.entries}
        return next((later for later in range(number + 1, self.newest + 1) if later not in numbers), None)

    def list_entries(self, release: str) -> list[Entry]:
        """Return the entries for a release, the oldest first; none if it never was champion."""
        return [entry for entry in self.entries if entry.release == release]

    def read_bundle(self, store: Store, release: str) -> Bundle:
        """Return what is stored of a release, held against the manifest that the newest entry for it names."""
        entries = self.list_entries(release)
        return bundle.read_bundle(store, release, entries[-1].manifest if entries else None)

    def require_bundle(self, store: Store, release: str) -> Bundle:
        """Return the bundle of a release that was champion and is whole; else, raise a ReleaseError."""
        if not self.list_entries(release):
            raise ReleaseError(f"Release {release} was {self.absence}: nothing says that the gate let it pass")
        return self.read_bundle(store, release).require()


def read_log(store: Store) -> Log:
    """Return the whole log of a store."""
    entries: list[Entry] = []
    damage: dict[str, str] = {}
    foreign: dict[str, str] = {}
    newest, digest = 0, None
    for key in store.list(LOG_PREFIX):
        if not (match := ENTRY_KEY.fullmatch(key)):
            damage[key] = "is no entry of the log and does not belong there"
            continue
        number, before, is_chained = int(match[1]), digest, int(match[1]) == newest + 1
        if not is_chained:
            damage[_locate_entry(newest + 1)] = f"is missing, and {key} is there"
        newest, digest = number, None
        try:
            content = store.read(key, MOST_BYTES_OF_ENTRY)
            digest = documents.digest(content)
            entry = documents.read_sealed(Entry, content)
            if entry.sequence != number:
                raise ValueError(f"it has the number {entry.sequence}")
            entries.append(entry)
            if is_chained and entry.previous != before:
                damage.setdefault(_locate_entry(number - 1), f"is another than when {key} was written")
        except documents.NotUnderstood as error:
            foreign[key] = f"is not understood ({error})"
        except (KeyRefused, ValueError) as error:
            damage[key] = f"cannot be read ({error})"
    has_refusals = newest == 0 and bool(store.list(REFUSAL_PREFIX))
    return Log(store.address(bundle.PLACE), tuple(entries), damage, foreign, newest, digest, has_refusals)


def append(
    store: Store, log: Log, action: Action, champion: tuple[str, str], run: str,
    reason: str | None = None, gate: Sequence[Ruling] = (),
) -> Entry:  # fmt: skip
    """Write the entry that follows the log as it was read last; `champion` is an id, and the SHA-256 of its manifest.

    If another writer took the number, `Overtaken` is raised; a ReleaseError if none is left, or the reason is no text.
    """
    if reason and not reason.isprintable():
        raise ReleaseError(f"The reason is {reason!r}; allowed is printable text on one line")
    if log.newest >= LAST:
        raise ReleaseError(f"{_locate_entry(LAST)} takes the last number there is. If it was forged, move it away")
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
    key, content = _locate_entry(entry.sequence), documents.seal(asdict(entry))
    # A lost answer makes a client try again, and the second try is told "exists": the nonce says whose entry it is.
    try:
        if store.create(key, content) or (stored := store.read(key, MOST_BYTES_OF_ENTRY)) == content:
            return entry
        winner = documents.read_sealed(Entry, stored)
        what = f"{winner.action} of {winner.release} by {winner.run}"
    except KeyRefused as error:  # a folder, which no listing names
        raise ReleaseError(f"The next entry of the log has no place: {error}") from error
    except ValueError as error:
        what = str(error)
    remedy = "Nothing was changed. Look at bcw releases list, and decide again"
    raise Overtaken(f"{key} was written by another run at the same time ({what}). {remedy}")


def _locate_entry(number: int) -> str:
    return f"{LOG_PREFIX}{number:06}.json"
