"""Opens a release, named by the beginning of its id, once all of it was verified, and goes back to an earlier one."""

from dataclasses import dataclass

from bcw_assets.errors import ReleaseError
from bcw_assets.ml.findings import Fact, Findings
from bcw_assets.releases import bundle, log
from bcw_assets.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Release(bundle.Bundle):
    """A bundle that was verified and is, or was, the champion."""

    made: str  # when it first became champion
    is_champion: bool


def open_release(store: Store, prefix: str | None) -> Release:
    """Return a release whose every byte is what was published; the champion without a prefix.

    A ReleaseError says why it cannot be used: it never was champion, or is damaged, or the log's newest entry is.
    """
    current_log = log.read_log(store)
    champion = current_log.require_champion().release
    release = champion if prefix is None else bundle.resolve(store, prefix)
    stored_bundle = current_log.require_bundle(store, release)
    made = current_log.list_entries(release)[0].made
    return Release(**vars(stored_bundle), made=made, is_champion=release == champion)


def check_release(store: Store, release: str | None) -> Findings:
    """Find what keeps a release, or the champion, from being used: damage, another model, or no entry for its id."""
    current_log = log.read_log(store)
    problem = [current_log.problem] if current_log.problem else []
    entries = current_log.list_entries(release) if release else current_log.entries
    if not entries:
        return Findings((f"no entry of the log is for {release or 'any release'}", *problem), {})
    entry, champion = entries[-1], current_log.champion
    stored_bundle = current_log.read_bundle(store, entry.release)
    is_champion = champion is not None and champion.release == entry.release
    evidence: dict[str, Fact] = {"release": entry.release, "entry": str(entry.sequence), "is champion": is_champion}
    evidence["bytes"] = f"{sum(map(len, stored_bundle.files.values())):,}"  # text: numbers are plotted
    return Findings((*problem, *stored_bundle.problems), evidence)


def roll_back(store: Store, prefix: str | None, reason: str, run: str) -> log.Entry:
    """Make an earlier release the champion again; without a prefix, the one before the champion.

    A ReleaseError says why that cannot be; it is `Overtaken` if another writer changed the log at the same time.
    """
    current_log = log.read_log(store)
    champion = current_log.require_champion()
    release = bundle.resolve(store, prefix) if prefix is not None else find_way_back(store, current_log)
    if release is None:
        why = "is the first: there is none before it"
        if before := ", ".join(entry.release for entry in current_log.list_way_back()):
            why = f"has none before it that is still stored ({before} was removed)"
        elif hidden := {**current_log.foreign, **current_log.damage}:
            why = f"has none before it that the log can name ({' '.join(next(iter(hidden.items())))})"
        left = [f"; {name} was rolled back from, name it to return to it" for name in current_log.list_rolled_back()]
        raise ReleaseError(f"Release {champion.release} {why} to go back to{''.join(left)}")
    if release == champion.release:
        raise ReleaseError(f"Release {release} is the champion already (entry {champion.sequence})")
    current_log.require_bundle(store, release)
    manifest = current_log.list_entries(release)[-1].manifest
    return log.append(store, current_log, "rollback", (release, manifest), run, reason)


def find_way_back(store: Store, current_log: log.Log) -> str | None:
    """Return the newest release before the champion whose folder nobody removed; None if there is none."""
    ids = bundle.list_ids(store)
    return next((entry.release for entry in current_log.list_way_back() if entry.release in ids), None)
