"""Opens a release for those who use it, once all of it has been verified, and goes back to an earlier one."""

from collections.abc import Mapping
from dataclasses import dataclass

from bcw_assets.errors import ReleaseError
from bcw_assets.ml.evaluation.scores import Summary
from bcw_assets.ml.findings import Findings
from bcw_assets.releases import bundle, log
from bcw_assets.releases.log import ROLLBACK, Entry, Log, Overtaken
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
        ReleaseError: there is none, it never was champion, or something of it or of the newest entry is damaged.
    """
    current_log = log.read_log(store)
    champion = current_log.current().release
    release = champion if prefix is None else bundle.resolve(store, prefix)
    stored_bundle = current_log.require_bundle(store, release)
    made = current_log.entries_of(release)[0].made
    return Release(release, stored_bundle.files, stored_bundle.headline, made, is_champion=release == champion)


def is_published(store: Store, release: str | None) -> Findings:
    """Find what keeps a release from being used: a file or the log damaged, another model, or no entry for it.

    Args:
        store: holds the releases.
        release: its id; None for the champion.
    """
    current_log = log.read_log(store)
    problem = [current_log.problem] if current_log.problem else []
    entries = current_log.entries_of(release) if release else current_log.entries
    if not entries:
        return Findings((f"no entry of the log is for {release or 'any release'}", *problem), {})
    stored_bundle = current_log.read_bundle(store, entries[-1].release)
    return Findings(
        (*problem, *stored_bundle.problems),
        {
            "release": stored_bundle.id,
            "entry": entries[-1].sequence,
            "is champion": current_log.last is not None and current_log.last.release == stored_bundle.id,
            "bytes": sum(map(len, stored_bundle.files.values())),
        },
    )


def rollback(store: Store, release: str | None, reason: str, run: str) -> Entry:
    """Make an earlier release the champion again.

    Args:
        store: holds the releases.
        release: the id to go back to; None for the one before the champion.
        reason: for the log.
        run: who does it.

    Raises:
        ReleaseError: there is nothing to go back to, it is the champion already, or not what was published.
        Overtaken: another writer changed the log at the same time; nothing was done.
    """
    current_log = log.read_log(store)
    current = current_log.current()
    release = release or find_way_back(store, current_log)
    if release is None:
        left = current_log.list_rolled_back()
        back = "".join(f"; {release} was rolled back from, name it to return to it" for release in left)
        raise ReleaseError(f"Release {current.release} is the first: there is none before it to go back to{back}")
    if release == current.release:
        raise ReleaseError(f"Release {release} is the champion already (entry {current.sequence})")
    stored_bundle = current_log.require_bundle(store, release)
    try:
        return log.append(store, current_log, ROLLBACK, (release, stored_bundle.sha256), run, reason)
    except Overtaken as error:
        raise Overtaken(f"{error}; nothing was rolled back. Look at bcw releases list, and decide again") from error


def find_way_back(store: Store, current_log: Log) -> str | None:
    """Return the newest release before the champion whose folder nobody removed; None if there is none."""
    ids = bundle.list_ids(store)
    return next((entry.release for entry in reversed(current_log.champions()[:-1]) if entry.release in ids), None)
