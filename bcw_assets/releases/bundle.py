"""What is in a bundle, and whether it still is what was published."""

import csv
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from bcw_assets import documents
from bcw_assets.documents import digest
from bcw_assets.errors import OTHER_VERSION, KeyMissing, KeyRefused, ReleaseError, ScoringError
from bcw_assets.ml.evaluation.scores import SCORES, Summary
from bcw_assets.ml.model.numbers import Scorer, compute_probability
from bcw_assets.ml.table import columns
from bcw_assets.storage.store import Store

PLACE = "releases"  # under which everything about releases is stored
MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
MANIFEST_VERSION = 2  # 1 had ids that are of the inputs alone
REMOVED, UNFINISHED = "removed", "unfinished"  # a bundle without a manifest: with no file, or with files
INPUT_DIGITS = 8  # of an id, which begins with the hash of the inputs
ID_PATTERN = re.compile(r"[0-9a-f]{16}")
MOST_BYTES_OF_FILE = 2**31  # cross_validation.csv has 250 a patient in ten repeats, and 130 in two
MOST_BYTES_OF_MANIFEST = 2**20
EXAMPLE_TOLERANCE = 1e-9  # of a probability: another linear algebra library, another Python

Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
ReleaseId = Annotated[str, Meta(pattern=rf"\A{ID_PATTERN.pattern}\Z")]
FileName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]*\Z")]


@dataclass(frozen=True)
class Member:
    """The length and the SHA-256 of a file."""

    bytes: Annotated[int, Meta(ge=0, le=MOST_BYTES_OF_FILE)]
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bundle says of itself; the version that wrote it decides which files and scores it has."""

    schema_version: Annotated[int, Meta(ge=1)]
    release: ReleaseId
    inputs: dict[str, Any] = field(default_factory=dict)  # what the release was made from
    headline: dict[str, Summary] = field(default_factory=dict)
    files: dict[FileName, Member]


@dataclass(frozen=True)
class Bundle:
    """What is stored of a release."""

    id: str
    files: Mapping[str, bytes]  # name → content, of those that are as the manifest says
    manifest: Manifest | None  # None if it is missing or cannot be read
    problems: tuple[str, ...]  # what is wrong, each beginning with the file's key
    gap: str | None = None  # whether it is unfinished or was removed, if there is no manifest

    @property
    def headline(self) -> Mapping[str, Summary]:
        """Cross-validated score → its summary; empty if the manifest cannot be read."""
        return self.manifest.headline if self.manifest else {}

    def is_made_from(self, inputs: Mapping[str, Any]) -> bool:
        """Say whether the release has these inputs: by its id, if its manifest cannot be read or does not have them."""
        own_inputs = self.manifest.inputs if self.manifest else {}
        return own_inputs == inputs if own_inputs else cut_inputs_hash(self.id) == hash_inputs(inputs)

    def require(self) -> "Bundle":
        """Return the bundle if nothing is wrong with it; else, raise a ReleaseError that names the files."""
        if self.problems:
            raise ReleaseError(
                f"Release {self.id} cannot be used: {'; '.join(self.problems)}. Put back what is damaged from a copy, "
                f"go back to another release (bcw releases rollback), or make the champion again (bcw refresh)"
            )
        return self


def hash_inputs(inputs: Mapping[str, Any]) -> str:
    """Return the digits with which the id of every release of these inputs begins, on any machine."""
    return digest(documents.encode(dict(inputs)))[:INPUT_DIGITS]


def cut_inputs_hash(release: str) -> str:
    """Return the digits of an id that are of the inputs; of a release of schema 1 all 16 are, so these too."""
    return release[:INPUT_DIGITS]


def locate_file(release: str, name: str) -> str:
    """Return the key of a file of a release; what is no id is refused, so that no key can lead elsewhere."""
    if not ID_PATTERN.fullmatch(release):
        raise ReleaseError(f"{release!r} is no id of a release; allowed are 16 hexadecimal digits")
    return f"{PLACE}/{release}/{name}"


def list_ids(store: Store) -> list[str]:
    """Return the ids of all bundles in a store, finished or not."""
    folders = {key.split("/")[1] for key in store.list(f"{PLACE}/")}
    return sorted(filter(ID_PATTERN.fullmatch, folders))


def resolve(store: Store, prefix: str) -> str:
    """Return the id of the one stored bundle that `prefix` begins; a ReleaseError says that it is not one."""
    ids = [release for release in list_ids(store) if prefix and release.startswith(prefix.lower())]
    if len(ids) > 1:
        raise ReleaseError(f"{prefix!r} begins {len(ids)} ids: {', '.join(ids)}. Give more digits of the one you mean")
    if not ids:
        raise ReleaseError(f"No stored release begins with {prefix!r}. bcw releases list shows all of them")
    return ids[0]


def pack(inputs: Mapping[str, Any], files: Mapping[str, bytes], edition: int = 1) -> tuple[str, dict[str, bytes]]:
    """Return the id of a bundle, and its files with SHA256SUMS and the manifest, in the order to store them in.

    The id is `hash_inputs` and eight digits of the SHA-256 of the manifest without id and seal. So who writes other
    bytes writes them into another folder. `edition` is more than 1 where a folder of the same content is damaged.
    """
    sums = "".join(f"{digest(content)}  {name}\n" for name, content in files.items())
    files = {**files, SUMS: sums.encode()}
    scores = documents.parse(files["metrics.json"])["cross_validation"]
    manifest = {
        "schema_version": MANIFEST_VERSION,
        "edition": edition,
        "inputs": dict(inputs),
        "headline": {name: scores[name] for name, profile in SCORES.items() if profile.is_headline and name in scores},
        "files": {name: {"bytes": len(content), "sha256": digest(content)} for name, content in files.items()},
    }
    release = hash_inputs(inputs) + digest(documents.encode(manifest))[:INPUT_DIGITS]
    return release, {**files, MANIFEST: documents.seal({"release": release, **manifest})}


def publish(store: Store, inputs: Mapping[str, Any], files: Mapping[str, bytes]) -> tuple[str, str]:
    """Store a bundle, each file only if it is not there yet, the manifest last; return the id and its SHA-256.

    A folder that holds anything else than this bundle, or a part of it, is left as it is: the next edition is stored.
    If another writer changes the bundle at the same time, a ReleaseError says so.
    """
    for release, contents in (pack(inputs, files, edition) for edition in count(1)):
        expected = {locate_file(release, name): content for name, content in contents.items()}
        with suppress(KeyRefused, KeyError):  # something longer than ours, or that is not ours at all
            # A part of it may be there: a run was killed, or another is at work.
            if all(
                store.read(key, len(expected[key])) == expected[key] for key in store.list(locate_file(release, ""))
            ):
                break
    for key, content in expected.items():
        store.create(key, content)
    sha256 = digest(contents[MANIFEST])
    read_bundle(store, release, sha256).require()
    return release, sha256


def read_manifest(store: Store, release: str, sha256: str | None = None) -> Manifest:
    """Return the manifest of a bundle, which has this SHA-256 in the log, if the log knows the release.

    What vouches for it is the log, not the id: another version may make ids in another way. Raises KeyMissing,
    KeyRefused if it cannot be read, and ValueError if it is not the manifest of this release.
    """
    content = store.read(locate_file(release, MANIFEST), MOST_BYTES_OF_MANIFEST)
    if sha256 not in (None, digest(content)):
        raise ValueError("it is not the one that the log names")
    manifest = documents.read_sealed(Manifest, content)
    if manifest.release != release:
        raise ValueError("it is that of another release")
    return manifest


def read_bundle(store: Store, release: str, sha256: str | None = None) -> Bundle:
    """Hold every byte of a bundle against its manifest, and its model against its example."""
    prefix, names = locate_file(release, ""), set()
    try:
        names = {key.removeprefix(prefix) for key in store.list(prefix)}
        manifest = read_manifest(store, release, sha256)
    except KeyMissing:
        gap = UNFINISHED if names else REMOVED
        return Bundle(release, {}, None, (f"{prefix}{MANIFEST} is missing, so the bundle is {gap}",), gap)
    except (KeyRefused, ValueError) as error:
        return Bundle(release, {}, None, (f"{prefix}{MANIFEST} cannot be used ({error})",))
    problems = [f"{name} does not belong there" for name in sorted(names - {MANIFEST, *manifest.files})]
    files = {}
    for name, member in manifest.files.items():
        try:
            files[name] = store.read(prefix + name, member.bytes)
            if digest(files[name]) != member.sha256:
                length = f"{len(files.pop(name)):,} of {member.bytes:,} bytes"
                problems.append(f"{name} is not what the manifest says ({length})")
        except KeyMissing:
            problems.append(f"{name} is missing")
        except KeyRefused as error:
            problems.append(f"{name} cannot be used ({error})")
    problems = problems or _find_example_problems(files)
    return Bundle(release, files, manifest, tuple(prefix + problem for problem in problems))


def load_scorer(files: Mapping[str, bytes]) -> Scorer:
    """Return the model of a bundle; a ScoringError says why there is none that can be used."""
    try:
        return Scorer.load(documents.parse(files["model.json"]))
    except (KeyError, ValueError) as error:
        what = f"cannot be used: {error}" if "model.json" in files else "is missing from the bundle"
        raise ScoringError(f"model.json {what}; {OTHER_VERSION}, or use another release") from error


def _find_example_problems(files: Mapping[str, bytes]) -> list[str]:
    """Return what is wrong with the model or the example; a bundle of another version may do without them."""
    if not {"example.csv", "model.json"} <= files.keys():
        return []
    try:
        rows = list(csv.DictReader(files["example.csv"].decode().splitlines()))
        # What an example does without is not a number, and so is the probability by a model that takes it.
        measurements = np.array([[float(row.get(name, "nan")) for name in columns.MEASUREMENTS] for row in rows])
        expected = np.array([float(row[columns.PROBABILITY]) for row in rows])
        error_size = np.abs(compute_probability(load_scorer(files).compute_log_odds(measurements.T)) - expected).max()
    except ScoringError as error:
        return [str(error)]
    except (LookupError, TypeError, ValueError, csv.Error) as error:
        return [f"example.csv cannot be used ({error}; {OTHER_VERSION})"]
    what = "example.csv promises other probabilities than this version makes of model.json"
    return [] if error_size <= EXAMPLE_TOLERANCE else [f"{what}, by {error_size:.3g}; {OTHER_VERSION}"]
