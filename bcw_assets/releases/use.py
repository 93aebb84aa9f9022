"""Opens a release for those who use it, once all of it has been verified."""

from collections.abc import Mapping
from dataclasses import dataclass

from bcw_assets.errors import ReleaseError
from bcw_assets.ml.findings import Findings
from bcw_assets.releases import bundle, log
from bcw_assets.storage.stores import Store

PLACE = "releases"
"""Under which everything about releases is stored."""


@dataclass(frozen=True)
class Release:
    """A release that was verified.

    Attributes:
        id: 16 hexadecimal digits.
        files: name → content.
        made: when it became current last, in UTC.
        is_champion: whether it is the current one.
    """

    id: str
    files: Mapping[str, bytes]
    made: str
    is_champion: bool


def open_release(store: Store, prefix: str | None) -> Release:
    """Return a release whose every byte is what was published.

    Args:
        store: holds the releases.
        prefix: the beginning of its id; None for the current one.

    Raises:
        ReleaseError: there is none, it was never current, or something of it or of the log is damaged.
    """
    found = log.read(store)
    champion = found.current()
    entry = champion if prefix is None else found.of(resolve(store, prefix))
    if entry is None:
        raise ReleaseError(f"Release {prefix} was never current, so the gate has not seen it")
    stored = bundle.read(store, entry.release, entry.manifest).require()
    return Release(entry.release, stored.files, entry.made, is_champion=entry.release == champion.release)


def resolve(store: Store, prefix: str) -> str:
    """Return the one id of a stored bundle that begins with `prefix`.

    Raises:
        ReleaseError: there is none, or more than one.
    """
    ids = [one for one in bundle.stored_ids(store) if prefix and one.startswith(prefix)]
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise ReleaseError(f"{prefix!r} begins {len(ids)} ids: {', '.join(ids)}. Give more digits of the one you mean")
    raise ReleaseError(f"No release begins with {prefix!r}. bcw releases list shows all of them")


def is_published(store: Store, release: str | None) -> Findings:
    """Find what keeps a release from being used: a file or the log damaged, another model, or no entry for it.

    Args:
        store: holds the releases.
        release: its id; None for the current one.
    """
    found = log.read(store)
    entry = found.of(release) if release else found.last
    if entry is None:
        return Findings((f"no entry of the log is for {release or 'any release'}", *log.told(found.damage)), {})
    stored = bundle.read(store, entry.release, entry.manifest)
    return Findings(
        (*log.told(found.unknown_damage), *stored.problems),
        {
            "release": entry.release,
            "entry": entry.sequence,
            "is current": entry is found.last,
            "files": len(stored.files),
            "bytes": sum(map(len, stored.files.values())),
        },
    )
