"""Whatever is changed of a bundle or of the log, nobody uses it, and the file is named."""

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bcw_assets import documents
from bcw_assets.cli import releases
from bcw_assets.errors import BcwError, ReleaseError
from bcw_assets.releases import access, bundle, log, promotion
from bcw_assets.releases.access import open_release
from bcw_assets.releases.candidate import Candidate
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import on_disk_only, once_elsewhere
from bcw_assets_tests.releases.candidates import MEMBERS

BUNDLE = [*MEMBERS, bundle.MANIFEST]


def is_refused(store: Store, because: str, release: str, other: str | None = None) -> None:
    """Hold that verify, predict and rollback refuse: to use the release, and to go back to the other or away."""
    report = releases.verified(store, release, everything=False)
    assert not report["good"]
    everything = releases.verified(store, None, everything=True)
    assert not everything["good"]
    for said in (releases.verify_text(report), releases.verify_text(everything)):
        assert re.search(because, said), said
    before = store.list("")
    with pytest.raises(BcwError, match=because):
        open_release(store, release)
    with pytest.raises(BcwError, match=because):
        access.rollback(store, other or release, "why", "me")
    assert store.list("") == before


@once_elsewhere("name", BUNDLE)
def test_one_byte_of_any_file_is_found(released: Store, candidate: Candidate, name: str) -> None:
    key = bundle.key(candidate.id, name)
    content = released.read(key)
    for place in {0, len(content) // 3, len(content) // 2, len(content) - 1}:
        changed = bytearray(content)
        changed[place] ^= 1
        released.write({key: bytes(changed)})
        is_refused(released, re.escape(key), candidate.id)
    released.write({key: content})
    assert releases.verified(released, None, everything=True)["good"]


@once_elsewhere("name", MEMBERS)
def test_a_missing_file_is_named(released: Store, candidate: Candidate, name: str) -> None:
    released.delete(bundle.key(candidate.id, name))
    is_refused(released, re.escape(f"{bundle.key(candidate.id, name)} is missing"), candidate.id)


def test_a_bundle_without_a_manifest_is_unfinished_which_is_no_failure_unless_it_is_used(
    released: Store, candidate: Candidate
) -> None:
    released.delete(bundle.key(candidate.id, bundle.MANIFEST))
    everything = releases.verified(released, None, everything=True)
    assert everything["good"]
    assert f"{candidate.id}  unfinished" in releases.verify_text(everything)
    assert not releases.verified(released, candidate.id, everything=False)["good"]
    for use in (lambda: open_release(released, candidate.id), lambda: access.rollback(released, None, "why", "me")):
        with pytest.raises(ReleaseError, match=r"manifest\.json is missing, so the bundle is unfinished"):
            use()


@once_elsewhere("name", ["model.pkl", "sub/model.json", ".hidden"])
def test_an_added_file_is_named(released: Store, candidate: Candidate, name: str) -> None:
    released.create(bundle.key(candidate.id, name), b"added")
    is_refused(released, re.escape(f"{bundle.key(candidate.id, name)} does not belong there"), candidate.id)


def renamed(name: str) -> Callable[[dict[str, Any]], None]:
    """Return a change that gives model.json another name."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["files"][name] = manifest["files"].pop("model.json")

    return change


def enlarged(manifest: dict[str, Any]) -> None:
    manifest["files"]["model.json"]["bytes"] = 10**15


def negative(manifest: dict[str, Any]) -> None:
    manifest["files"]["model.json"]["bytes"] = -1


def of_another_id(manifest: dict[str, Any]) -> None:
    manifest["release"] = "0" * 16


def of_other_inputs(manifest: dict[str, Any]) -> None:
    manifest["inputs"]["settings"]["C"] = 2.0


def of_another_version(manifest: dict[str, Any]) -> None:
    manifest["schema_version"] = 99


def without_files(manifest: dict[str, Any]) -> None:
    del manifest["files"]


OUTSIDE = ["../../../etc/passwd", "/etc/passwd", "sub/model.json", "..", ".hidden", "", "a\n", "model.json\0"]
NO_MANIFEST = [*map(renamed, OUTSIDE), enlarged, negative, of_another_id, without_files]


def forge(store: Store, release: str, change: Callable[[dict[str, Any]], None]) -> str:
    """Change a manifest, seal it again, and return its key."""
    key = bundle.key(release, bundle.MANIFEST)
    manifest = documents.unseal(store.read(key))
    change(manifest)
    store.write({key: documents.seal(manifest)})
    return key


@once_elsewhere("change", [*NO_MANIFEST, of_other_inputs, of_another_version])
def test_a_forged_manifest_with_a_right_seal_is_refused_before_anything_is_read(
    released: Store, candidate: Candidate, change: Callable[[dict[str, Any]], None]
) -> None:
    sha256 = log.read(released).of(candidate.id)[-1].manifest
    key = forge(released, candidate.id, change)
    is_refused(released, re.escape(f"{key} cannot be used (it is not the one that the log names"), candidate.id)
    with mock.patch.object(released, "read", wraps=released.read) as read:
        assert bundle.read(released, candidate.id, sha256).problems
    assert {one.args[0] for one in read.call_args_list} == {key}


@once_elsewhere("change", NO_MANIFEST)
def test_what_can_be_no_manifest_is_refused_before_anything_is_read_also_without_an_entry_for_it(
    released: Store, candidate: Candidate, change: Callable[[dict[str, Any]], None]
) -> None:
    key = forge(released, candidate.id, change)
    with mock.patch.object(released, "read", wraps=released.read) as read:
        (problem,) = bundle.read(released, candidate.id).problems
    assert problem.startswith(f"{key} cannot be used (")
    assert {one.args[0] for one in read.call_args_list} == {key}


def test_a_manifest_that_names_itself_is_refused(released: Store, candidate: Candidate) -> None:
    key = forge(released, candidate.id, renamed(bundle.MANIFEST))
    assert any(problem.startswith(f"{key} has ") for problem in bundle.read(released, candidate.id).problems)


def test_a_bundle_that_was_forged_whole_is_not_the_one_of_the_log(
    released: Store, candidate: Candidate, challenger: Candidate
) -> None:
    theirs = (
        dict(candidate.files)
        | {"model.json": challenger.files["model.json"]}
        | {"example.csv": challenger.files["example.csv"]}
    )
    for key in released.list(bundle.key(candidate.id, "")):
        released.delete(key)
    assert bundle.publish(released, candidate.inputs, theirs, candidate.says_the_same).problems == ()
    is_refused(released, r"manifest\.json cannot be used \(it is not the one that the log names", candidate.id)


# Not the newest entry taken away, or forged with a right seal: checksums prove integrity, and not origin.
@once_elsewhere("number,what", [(1, "cut"), (1, "edited"), (1, "emptied"), (1, "gone"), (2, "cut"), (2, "emptied")])
def test_a_damaged_entry_of_the_log_stops_all_use_until_the_next_promotion(
    released: Store, candidate: Candidate, challenger: Candidate, number: int, what: str
) -> None:
    key = f"releases/log/{number:06}.json"
    content = released.read(key)
    forged = documents.unseal(content) | {"reason": "another", "release": candidate.id}
    changed = {"cut": content[:100], "edited": documents.seal(forged), "emptied": b""}
    released.delete(key)
    if what != "gone":
        released.create(key, changed[what])
    is_refused(released, re.escape(key), challenger.id, candidate.id)
    before = log.read(released).newest
    promotion.promote(released, challenger, [], "next")
    assert open_release(released, None).id == challenger.id
    assert log.read(released).newest == before + 1
    assert log.read(released).entries[-1].damaged == [f"{number:06}.json"]
    assert released.list(key) == ([] if what == "gone" else [key])  # it is not written over
    assert key in releases.verify_text(releases.verified(released, None, everything=True))


@once_elsewhere(
    "name", ["000009.json", "999999999.json", "1.json", "000003.json.bak", "0000001.json", "000000.json", "٠٠٠٠٠٣.json"]
)
def test_a_forged_entry_is_refused(released: Store, candidate: Candidate, challenger: Candidate, name: str) -> None:
    entry = documents.unseal(released.read("releases/log/000002.json")) | {"release": candidate.id}
    released.create(f"releases/log/{name}", documents.seal(entry))
    is_refused(released, "000003.json is missing|is no entry of the log", challenger.id, candidate.id)
    said = releases.verify_text(releases.verified(released, None, everything=True))
    assert name in said
    promotion.promote(released, challenger, [], "next")
    assert open_release(released, None).id == challenger.id


@once_elsewhere("release", ["..", "../../etc", "A" * 16, "0" * 15, "0" * 17, "", "log", "28426903/../../"])
def test_what_is_no_id_never_becomes_a_path(released: Store, release: str) -> None:
    with pytest.raises(ReleaseError):
        bundle.key(release, "model.json")
    with pytest.raises(ReleaseError):
        open_release(released, release)


def test_the_beginning_of_an_id_has_to_be_of_one_release(
    released: Store, candidate: Candidate, challenger: Candidate
) -> None:
    assert open_release(released, candidate.id[:4]).id == candidate.id
    released.create(bundle.key(candidate.id[:4] + "0" * 12, "x"), b"")
    with pytest.raises(ReleaseError, match="begins 2 ids"):
        open_release(released, candidate.id[:4])


def test_what_is_too_large_is_not_read(released: Store, candidate: Candidate) -> None:
    members = [bundle.key(candidate.id, name) for name in ("model.json", bundle.MANIFEST)]
    for key in (*members, "releases/log/000003.json"):
        released.write({key: bytes(2**20 + 1)})
        is_refused(released, rf"{re.escape(key)} .*1,048,577 bytes; allowed are", candidate.id)


@pytest.fixture
def folder(released: Store, tmp_path: Path) -> Path:
    """The folder of the store: what only a file system can do."""
    return tmp_path / "store"


@on_disk_only
def test_a_link_out_of_the_storage_is_not_followed(folder: Path, released: Store, candidate: Candidate) -> None:
    path = folder / bundle.key(candidate.id, "model.json")
    with tempfile.TemporaryDirectory() as outside:
        same = path.rename(Path(outside) / "model.json")
        path.symlink_to(same)
        is_refused(released, r"model\.json .*leads out of .* by a symbolic link", candidate.id)


@on_disk_only
def test_a_folder_that_is_a_link_out_of_the_storage_is_not_followed(
    folder: Path, released: Store, challenger: Candidate
) -> None:
    path = folder / "releases" / challenger.id
    with tempfile.TemporaryDirectory() as outside:
        path.symlink_to(path.rename(Path(outside) / "bundle"))
        with pytest.raises(BcwError, match=r"releases/.* leads out of .* by a symbolic link"):
            open_release(released, None)


@on_disk_only
def test_a_pipe_and_a_huge_file_are_not_read(folder: Path, released: Store, candidate: Candidate) -> None:
    path = folder / bundle.key(candidate.id, "model.json")
    path.unlink()
    os.mkfifo(path)
    assert any("model.json" in problem for problem in bundle.read(released, candidate.id).problems)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(10**12)
    is_refused(released, r"model\.json has 1,000,000,000,000 bytes; allowed are", candidate.id)
    log_entry = folder / "releases/log/000003.json"
    with log_entry.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(ReleaseError, match=r"000003\.json cannot be read .*1,000,000,000,000 bytes"):
        open_release(released, None)


@on_disk_only
def test_a_pipe_in_the_log_or_in_a_bundle_is_seen(folder: Path, released: Store, candidate: Candidate) -> None:
    os.mkfifo(folder / bundle.key(candidate.id, "pipe"))
    is_refused(released, "pipe does not belong there", candidate.id)
    os.mkfifo(folder / "releases/log/000003.json")
    with pytest.raises(ReleaseError, match=r"000003\.json cannot be read .*no regular file"):
        open_release(released, None)


@on_disk_only
def test_a_file_in_the_place_of_the_log_is_no_empty_log(folder: Path, released: Store) -> None:
    (folder / "releases/log").rename(folder / "elsewhere")
    (folder / "releases/log").write_bytes(b"")
    with pytest.raises(BcwError, match=r"releases/log in .* is no folder"):
        open_release(released, None)


HEADLINES: list[Any] = [None, {"sensitivity": 1}, "text", {name: {"estimate": "x"} for name in bundle.HEADLINE}]


@once_elsewhere("headline", HEADLINES)
def test_a_forged_headline_is_a_problem_and_no_traceback(
    released: Store, candidate: Candidate, challenger: Candidate, headline: object
) -> None:
    key = forge(released, candidate.id, lambda manifest: manifest.update(headline=headline))
    is_refused(released, re.escape(f"{key} cannot be used"), candidate.id)
    assert "log names" in releases.show_text(releases.shown(released, candidate.id))
    assert "headline" in bundle.read(released, candidate.id).problems[0]
    assert candidate.id in releases.list_text(releases.listed(released))
    with pytest.raises(BcwError, match=re.escape(key)):
        releases.compared(released, candidate.id, challenger.id)
