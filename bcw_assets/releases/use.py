"""Opens a release for those who use it, once all of it has been verified; says what keeps others from using one."""

from collections.abc import Mapping
from dataclasses import dataclass

from bcw_assets.ml.findings import Findings
from bcw_assets.ml.performance import Summary
from bcw_assets.releases import bundle, log
from bcw_assets.storage.stores import Store


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
