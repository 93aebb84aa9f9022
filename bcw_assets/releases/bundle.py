"""What is in a bundle, and whether it still is what was published."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import StringConstraints

from bcw_assets import documents
from bcw_assets.documents import digest
from bcw_assets.errors import KeyMissing, KeyRefused, ReleaseError
from bcw_assets.ml.evaluation.scores import Summary
from bcw_assets.releases.proof import example_problems
from bcw_assets.storage.store import Store

PLACE = "releases"
"""Under which everything about releases is stored."""

FOLDER = f"{PLACE}/"
MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"

HEADLINE = ("accuracy", "sensitivity", "specificity", "roc_auc", "log_loss")
"""The cross-validated scores that go into the manifest of what this version publishes."""

SCHEMA_VERSION = 1  # of the manifest: raised when a name in it changes its meaning or goes
ID = re.compile(r"[0-9a-f]{16}")
MOST_BYTES = 2**28  # of a file; cross_validation.csv has 250 a patient
MOST_BYTES_OF_MANIFEST = 2**20


Digest = Annotated[str, StringConstraints(pattern=r"\A[0-9a-f]{64}\z")]
ReleaseId = Annotated[str, StringConstraints(pattern=rf"\A{ID.pattern}\z")]
FileName = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\z")]


@dataclass(frozen=True)
class Member:
    """The length and the SHA-256 of a file."""

    bytes: Annotated[int, Ge(0), Le(MOST_BYTES)]
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle says of itself: which files and scores it has is for the version to say that wrote it.

    Attributes:
        inputs: what the release was made from.
        headline: cross-validated score → its summary.
        files: name → what the file must be.
    """

    schema_version: Annotated[int, Ge(1)]
    release: ReleaseId
    inputs: dict[str, Any] = field(default_factory=dict)
    headline: dict[str, Summary] = field(default_factory=dict)
    files: dict[FileName, Member]


@dataclass(frozen=True)
class Bundle:
    """What is stored of a release.

    Attributes:
        id: of the release.
        files: name → content, of those that are as the manifest says.
        manifest: what it says of the release; None if it cannot be read.
        sha256: of the manifest's bytes; empty without a manifest, or if it is not to be read.
        is_finished: whether there is a manifest: without one it is no release yet, or not any more.
        problems: what is wrong, each beginning with the file's key.
    """

    id: str
    files: Mapping[str, bytes]
    manifest: Manifest | None
    sha256: str
    is_finished: bool
    problems: tuple[str, ...]

    @property
    def headline(self) -> Mapping[str, Summary]:
        """Cross-validated score → its summary; empty if the manifest cannot be read."""
        return self.manifest.headline if self.manifest else {}

    def require(self) -> "Bundle":
        """Return the bundle if nothing is wrong with it.

        Raises:
            ReleaseError: something is; the text names the files.
        """
        if self.problems:
            raise ReleaseError(
                f"Release {self.id} cannot be used: {'; '.join(self.problems)}. Go back to another release (bcw "
                f"releases rollback), or put files that are damaged back from a copy"
            )
        return self


def identify(inputs: Mapping[str, Any]) -> str:
    """Return the id of the release that these inputs make: the same on every machine."""
    return digest(documents.write(dict(inputs)))[:16]


def key(release: str, name: str) -> str:
    """Return where a file of a release is stored.

    Raises:
        ReleaseError: the id is none, so that no key made of it can lead elsewhere.
    """
    if not ID.fullmatch(release):
        raise ReleaseError(f"{release!r} is no id of a release; allowed are 16 hexadecimal digits")
    return f"{FOLDER}{release}/{name}"


def sums(files: Mapping[str, bytes]) -> bytes:
    """Return what `sha256sum -c` reads."""
    return "".join(f"{digest(content)}  {name}\n" for name, content in files.items() if name != SUMS).encode()


def stored_ids(store: Store) -> list[str]:
    """Return the ids of all bundles in a store, finished or not."""
    folders = {stored.removeprefix(FOLDER).partition("/")[0] for stored in store.list(FOLDER)}
    return sorted(one for one in folders if ID.fullmatch(one))


def resolve(store: Store, prefix: str) -> str:
    """Return the one id of a stored bundle that begins with `prefix`.

    Raises:
        ReleaseError: there is none, or more than one.
    """
    ids = [one for one in stored_ids(store) if prefix and one.startswith(prefix.lower())]
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise ReleaseError(f"{prefix!r} begins {len(ids)} ids: {', '.join(ids)}. Give more digits of the one you mean")
    raise ReleaseError(f"No stored release begins with {prefix!r}. bcw releases list shows all of them")


def publish(
    store: Store, inputs: Mapping[str, Any], files: Mapping[str, bytes], says_the_same: Callable[[str, bytes], bool]
) -> Bundle:
    """Store a bundle, each file only if it is not there yet, the manifest last; what is there stays.

    Files differ in the last digits from one linear algebra library, or one Python, to the next. Whoever comes second
    keeps what is stored, if it says the same, and the manifest lists that.

    Args:
        store: holds the releases.
        inputs: what decides the release, and its id.
        files: name → content, in the order in which they are stored, without SHA256SUMS, which is made of them.
        says_the_same: whether other bytes that are stored under a name say what the file of that name says.

    Returns:
        The bundle as it is stored.

    Raises:
        ReleaseError: what is stored is damaged, or says something else.
    """
    release = identify(inputs)
    stored = {name: _put(store, key(release, name), content) for name, content in files.items()}
    for name, content in stored.items():
        if content != files[name] and not says_the_same(name, content):
            raise ReleaseError(
                f"{key(release, name)} was there already and says something else than this run. A release never "
                f"changes: move the folder away if it was damaged, or raise RECIPE in ml/model/training.py if the way "
                f"of fitting has changed, and run it again"
            )
    # Whoever else is at work here makes the same of what is stored, so a remnant may be written over.
    if _put(store, key(release, SUMS), sums(stored)) != sums(stored):
        store.write({key(release, SUMS): sums(stored)})
    stored[SUMS] = sums(stored)
    scores = documents.read(stored["metrics.json"])["cross_validation"]
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "release": release,
        "inputs": dict(inputs),
        "headline": {name: scores[name] for name in HEADLINE if name in scores},
        "files": {name: {"bytes": len(content), "sha256": digest(content)} for name, content in stored.items()},
    }
    _put(store, key(release, MANIFEST), documents.seal(manifest))
    return read(store, release).require()


def _put(store: Store, where: str, content: bytes) -> bytes:
    """Store bytes if nothing is there, and return what is there now."""
    return content if store.create(where, content) else store.read(where, MOST_BYTES)


def manifest_of(store: Store, release: str, sha256: str | None = None) -> tuple[bytes, Manifest]:
    """Return the manifest of a bundle, as bytes and as what they say.

    The id of a release is not made of its inputs again: another version makes it in another way. What vouches for a
    manifest is the log.

    Args:
        store: holds the releases.
        release: its id.
        sha256: of the manifest, as the log has it; None if the log is not asked, or does not know the release.

    Raises:
        KeyMissing: there is none.
        KeyRefused, ValueError: it is not to be read, or is not the manifest of this release.
    """
    content = store.read(key(release, MANIFEST), MOST_BYTES_OF_MANIFEST)
    if sha256 not in (None, digest(content)):
        raise ValueError("it is not the one that the log names")
    manifest = documents.read_sealed(Manifest, content)
    if manifest.release != release:
        raise ValueError("it is that of another release")
    return content, manifest


def read(store: Store, release: str, sha256: str | None = None) -> Bundle:
    """Read a bundle and hold every byte of it against its manifest, and its model against its example.

    Args:
        store: holds the releases.
        release: its id.
        sha256: of the manifest, as the log has it; None if the log does not know the release.
    """
    prefix = key(release, "")
    there = {stored.removeprefix(prefix) for stored in store.list(prefix)}
    if MANIFEST not in there:
        what = f"{prefix}{MANIFEST} is missing, so the bundle is {'unfinished' if there else 'not stored any more'}"
        return Bundle(release, {}, None, "", is_finished=False, problems=(what,))
    try:
        content, manifest = manifest_of(store, release, sha256)
    except (KeyMissing, KeyRefused, ValueError) as error:
        what = f"{prefix}{MANIFEST} cannot be used ({error})"
        return Bundle(release, {}, None, "", is_finished=True, problems=(what,))
    problems = [f"{prefix}{name} does not belong there" for name in sorted(there - {MANIFEST, *manifest.files})]
    files = {}
    for name, said in manifest.files.items():
        found = _member(store, prefix + name, said.bytes)
        if isinstance(found, bytes) and digest(found) == said.sha256:
            files[name] = found
        else:
            problems.append(f"{prefix}{name} {found if isinstance(found, str) else 'is not what the manifest says'}")
    if not problems:
        problems += [f"{prefix}{problem}" for problem in example_problems(files)]
    return Bundle(release, files, manifest, digest(content), is_finished=True, problems=tuple(problems))


def _member(store: Store, where: str, size: int) -> bytes | str:
    """Return the content of a file; what is wrong with it, if it cannot be that of the manifest."""
    try:
        content = store.read(where, size)
    except KeyMissing:
        return "is missing"
    except KeyRefused as error:
        return f"cannot be used ({error})"
    return content if len(content) == size else f"has {len(content):,} bytes, not {size:,}"
