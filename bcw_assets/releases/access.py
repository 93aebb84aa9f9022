"""Opens a release for those who use it, once all of it has been verified; goes back to another, and makes room."""

from collections.abc import Mapping
from dataclasses import dataclass

from bcw_assets.errors import ReleaseError
from bcw_assets.ml.evaluation.scores import Summary
from bcw_assets.ml.findings import Findings
from bcw_assets.releases import bundle, log
from bcw_assets.releases.log import PRUNE, ROLLBACK, Entry, Log, Overtaken
from bcw_assets.storage.store import Store


@dataclass(frozen=True)
class Release:
    """A release that was verified.

    Attributes:
        id: 16 hexadecimal digits.
        files: name → content.
        headline: cross-validated score → its summary.
        made: when it became champion first, in UTC.
        is_champion: whether it is the champion.
    """

    id: str
    files: Mapping[str, bytes]
    headline: Mapping[str, Summary]
    made: str
    is_champion: bool


def open_release(store: Store, prefix: str | None) -> Release:
    """Return a release whose every byte is what was published.

    Args:
        store: holds the releases.
        prefix: the beginning of its id; None for the champion.

    Raises:
        ReleaseError: there is none, it never was champion, or something of it or of the log is damaged.
    """
    found = log.read(store)
    champion = found.current().release
    release = champion if prefix is None else bundle.resolve(store, prefix)
    stored = found.require(store, release)
    made = found.of(release)[0].made
    return Release(release, stored.files, stored.headline, made, is_champion=release == champion)


def is_published(store: Store, release: str | None) -> Findings:
    """Find what keeps a release from being used: a file or the log damaged, another model, or no entry for it.

    Args:
        store: holds the releases.
        release: its id; None for the champion.
    """
    found = log.read(store)
    entries = found.of(release) if release else found.entries
    if not entries:
        return Findings((f"no entry of the log is for {release or 'any release'}", *log.told(found.damage)), {})
    stored = found.bundle(store, entries[-1].release)
    return Findings(
        (*log.told(found.unknown_damage), *stored.problems),
        {
            "release": stored.id,
            "entry": entries[-1].sequence,
            "is champion": found.last is not None and found.last.release == stored.id,
            "files": len(stored.files),
            "bytes": sum(map(len, stored.files.values())),
        },
    )


def rollback(store: Store, release: str | None, reason: str, run: str) -> Entry:
    """Make an earlier release the champion again.

    Args:
        store: holds the releases.
        release: the id to go back to; None for the champion before this one.
        reason: for the log.
        run: who does it.

    Raises:
        ReleaseError: there is nothing to go back to, it is the champion already, or not what was published.
        Overtaken: another writer changed the log at the same time; nothing was done.
    """
    found = log.read(store)
    current = found.current()
    release = release or _previous(found)
    if release == current.release:
        raise ReleaseError(f"Release {release} is the champion already (entry {current.sequence})")
    stored = found.require(store, release)
    try:
        return log.append(store, found, ROLLBACK, (release, stored.sha256), run, reason)
    except Overtaken as error:
        raise Overtaken(f"{error}; nothing was rolled back. Look at bcw releases list, and decide again") from error


def _previous(found: Log) -> str:
    way = found.champions()
    if len(way) == 1:
        back = "".join(f"; {one} was rolled back from, name it to return to it" for one in found.rolled_back())
        raise ReleaseError(f"Release {way[0].release} is the first: there is none before it to go back to{back}")
    return way[-2].release


def superfluous(store: Store, found: Log, keep: int) -> list[str]:
    """Return the stored releases that may go: all but the newest, the champion and the one before it.

    A bundle that the log does not know is left alone: a run may be about to promote it.

    Args:
        store: holds the releases.
        found: the log.
        keep: how many of the newest stay.

    Raises:
        ReleaseError: the log is damaged, so nobody can say who is champion.
    """
    found.current()
    newest = dict.fromkeys(entry.release for entry in reversed(found.entries) if entry.action != PRUNE)
    kept = {*list(newest)[:keep], *(entry.release for entry in found.champions()[-2:])}
    stored = bundle.stored_ids(store)
    return [one for one in reversed(newest) if one in stored and one not in kept]


def prune(store: Store, keep: int, run: str) -> list[str]:
    """Delete the superfluous releases, each manifest first: half deleted, a bundle is an unfinished one.

    The log says so before: whoever goes back to one of them at the same time is overtaken, or overtakes.

    Returns:
        The ids of those that were deleted.

    Raises:
        Overtaken: another writer changed the log at the same time; nothing was deleted.
    """
    found = log.read(store)
    gone = superfluous(store, found, keep)
    if not gone:
        return []
    champion = found.current()
    try:
        log.append(store, found, PRUNE, (champion.release, champion.manifest), run, pruned=gone)
    except Overtaken as error:
        raise Overtaken(f"{error}; nothing was deleted. Look at bcw releases list, and decide again") from error
    for release in gone:
        prefix = bundle.key(release, "")
        store.delete(prefix + bundle.MANIFEST)
        for key in store.list(prefix):
            store.delete(key)
    return gone
