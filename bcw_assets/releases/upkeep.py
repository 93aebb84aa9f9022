"""Goes back to an earlier release, and makes room; without scikit-learn, so that both are done at once."""

from bcw_assets.errors import ReleaseError
from bcw_assets.releases import bundle, log
from bcw_assets.releases.log import PRUNE, ROLLBACK, Entry, Log, Overtaken
from bcw_assets.storage.stores import Store


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
