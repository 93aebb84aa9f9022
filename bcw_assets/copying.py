"""Copies what this project keeps from one place to another, so that its releases go on there."""

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import dagster as dg

from bcw_assets import settings
from bcw_assets.assets import GRAPH
from bcw_assets.checks import addresses, folders_and_types
from bcw_assets.errors import CopyRefused, KeyMissing, ReleaseError
from bcw_assets.operations import history
from bcw_assets.releases import bundle, log, promotion
from bcw_assets.releases.log import Log
from bcw_assets.storage import formats
from bcw_assets.storage.io_manager import ArtifactIOManager
from bcw_assets.storage.store import Store, open_store

Files = Mapping[str, bytes]  # key → content


@dataclass(frozen=True)
class Copied:
    """What is in both places now.

    Attributes:
        artifacts: how many.
        releases: how many.
        entries: of the log.
        files: how many all these are.
        sizes: the lengths of the files that were copied; the others were there already.
    """

    artifacts: int
    releases: int
    entries: int
    files: int
    sizes: list[int]


def run(source: str, target: str) -> str:
    """Copy one place to another, both as BCW_STORAGE takes them, and return what to tell of it."""
    with history.opened() if settings.dagster_home() else nullcontext() as instance:
        done = copy(open_store(source), open_store(target), instance)
    setting = "BCW_STORAGE" if done.artifacts else "BCW_RELEASES"
    return (
        f"Copied {len(done.sizes)} files ({sum(done.sizes):,} bytes); {done.files - len(done.sizes)} were there "
        f"already. Artifacts: {done.artifacts}, releases: {done.releases}, entries of the log: {done.entries}. All "
        f"were read back and are the same\nNext: set {setting}={shlex.quote(target)}"
    )


def copy(source: Store, target: Store, instance: dg.DagsterInstance | None = None) -> Copied:
    """Copy every release that the log names and that was not pruned, every artifact, and the log.

    The log comes last, and its oldest entry first: whenever the copy is stopped, the target has a log that the source
    had once, and its champion, unless that was pruned since. Done again, it does the rest.

    Args:
        source: is only read.
        target: may hold an earlier state of the source, or a part of it.
        instance: the history that the artifacts of the source are held against; None for none.

    Raises:
        CopyRefused: there is nothing to copy, or the target holds something else: then nothing was written. Or another
            process writes there at the same time.
        ReleaseError, ArtifactError: something in the source is not whole, or is not what the history says.
        StorageError: one of the places cannot be read, or the target not be written.
    """
    _require_two_places(source, target)
    found, there = log.read(source), log.read(target)
    found.require_known_damage()
    artifacts = _artifacts(source, instance)
    if not (artifacts or found.files):
        places = ", ".join(addresses(GRAPH, ArtifactIOManager(source), source).values())
        raise CopyRefused(f"There is nothing to copy in FROM. Looked for {places}")
    _require_one_log(found, there)
    pruned = found.pruned()
    releases = [one for one in dict.fromkeys(entry.release for entry in found.entries) if one not in pruned]
    # Every release is read before anything is written, and again when it is copied: one at a time is in memory.
    files = sum(len(_release(source, found, one)) for one in releases) + len(found.files) + sum(map(len, artifacts))
    is_earlier = 0 < len(there.files) < len(found.files)
    changed = [one for one in artifacts if _is_to_be_written(target, one, may_replace=is_earlier)]
    if found.files and not there.files:
        promotion.require_a_log_can_be_kept(target)  # no promotion will: it asks only where the log is empty

    sizes = [size for one in releases for size in _create(target, _release(source, found, one))]
    for one in changed:
        target.write(one)
        sizes += map(len, one.values())
    sizes += _create(target, found.files)
    _require_the_same(target, found, releases, artifacts)
    return Copied(len(artifacts), len(releases), len(found.files), files, sizes)


def _require_two_places(source: Store, target: Store) -> None:
    for one, other in ((source, target), (target, source)):
        if one.address("x") == other.address("x"):
            raise CopyRefused(f"FROM and TO are one place: both have {one.address(bundle.PLACE)}. Give another for TO")
        for folder in ("data", "results", bundle.PLACE):
            if other.address("x").startswith(f"{one.address(folder)}/"):
                raise CopyRefused(f"One place is within {one.address(folder)} of the other. Give another for TO")


def _artifacts(store: Store, instance: dg.DagsterInstance | None) -> list[Files]:
    """Return the files of every artifact that is stored, each read as its asset is."""
    artifacts = ArtifactIOManager(store)
    folders, types = folders_and_types(GRAPH)
    found = []
    for asset, folder in folders.items():
        if any(map(store.exists, formats.keys(types[asset], f"{folder}/{asset.to_user_string()}"))):
            loaded = artifacts.read(asset, folder, types[asset])
            if instance:
                artifacts.verify(asset, loaded, instance, run="")
            found.append(loaded.files)
    return found


def _release(store: Store, found: Log, release: str) -> Files:
    """Return the files of a release that is what the log says, the manifest last.

    Raises:
        ReleaseError: something of it is not.
    """
    stored = found.bundle(store, release)
    if stored.problems:
        raise ReleaseError(
            f"Release {release} in {store.address(bundle.PLACE)} cannot be used: "
            f"{'; '.join(stored.problems)}. Put the files back from a copy; of the champion, bcw refresh makes what is "
            f"missing again. Then copy again"
        )
    manifest = bundle.key(release, bundle.MANIFEST)
    return {bundle.key(release, name): content for name, content in stored.files.items()} | {
        manifest: store.read(manifest)
    }


def _require_one_log(found: Log, there: Log) -> None:
    """Refuse a target whose log is not the beginning of the source's, byte for byte."""
    there.require_known_damage(found.damage)
    for ours, theirs in zip(found.files.items(), there.files.items(), strict=False):
        if ours != theirs:
            raise CopyRefused(
                f"{there.place} has another log than {found.place}: {min(ours[0], theirs[0])} is the first entry that "
                f"differs. Give another place for TO, or move that one away"
            )
    if len(there.files) > len(found.files):
        raise CopyRefused(
            f"{there.place} is ahead of {found.place}: its log has {len(there.files)} entries, and only the first "
            f"{len(found.files)} are in FROM. Copy the other way, with FROM and TO exchanged"
        )


def _is_to_be_written(target: Store, files: Files, *, may_replace: bool) -> bool:
    """Say whether files that belong together are to be written, because something of them is missing or another.

    Raises:
        CopyRefused: it is another, and not to be replaced.
    """
    there = {key: _content(target, key) for key in files}
    others = [key for key, content in there.items() if content not in (None, files[key])]
    if others and not may_replace:
        raise CopyRefused(
            f"{target.address(others[0])} is another than in FROM, and no log in TO says that it is an earlier one. "
            f"Move it away, or give another place for TO"
        )
    return there != files


def _create(target: Store, files: Files) -> list[int]:
    """Store what never changes, in order, and return the lengths of what was not there yet."""
    sizes = []
    for key, content in files.items():
        if target.create(key, content):
            sizes.append(len(content))
        elif target.read(key) != content:
            raise CopyRefused(
                f"{target.address(key)} is there with other bytes than in FROM. Releases and their log never change: "
                f"if another process is writing there, wait for its end; if this is what was left of one, move it "
                f"away. Then copy again"
            )
    return sizes


def _require_the_same(target: Store, found: Log, releases: list[str], artifacts: list[Files]) -> None:
    """Read everything back."""
    for release in releases:
        _release(target, found, release)
    expected: dict[str, bytes | None] = {**found.files}
    stored: dict[str, bytes | None] = {**log.read(target).files}
    for files in artifacts:
        expected |= files
        stored |= {key: _content(target, key) for key in files}
    if wrong := sorted(key for key in expected | stored if expected.get(key) != stored.get(key)):
        raise CopyRefused(
            f"{target.address(wrong[0])} is not what was copied: another process wrote there at the same time. Wait "
            f"for its end and copy again"
        )


def _content(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except KeyMissing:
        return None
