"""Whatever is changed of a bundle or of the log, nobody uses it, and the file is named."""

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bcw_assets import documents
from bcw_assets.cli import releases
from bcw_assets.errors import BcwError, ReleaseError, ReleaseRefused
from bcw_assets.releases import access, bundle, promotion
from bcw_assets.releases.access import open_release
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import STORES, sweep
from bcw_assets_tests.releases.candidates import MEMBERS, Candidate


def verify_all(store: Store) -> releases.Listing:
    return releases.report_verification(store, None, everything=True)


def is_good(store: Store) -> bool:
    return bool(verify_all(store)["good"])


def is_refused(store: Store, because: str, release: str, other: str | None = None) -> None:
    """Hold that verify, predict and rollback refuse: to use the release, and to go back to the other or away."""
    for prefix in (release, None):
        report = releases.report_verification(store, prefix, everything=prefix is None)
        assert not report["good"]
        assert re.search(because, releases.format_listing("verification", report))
    before = store.list("")
    for use in (partial(open_release, store, release), partial(access.roll_back, store, other or release, "why", "me")):
        with pytest.raises(BcwError, match=because):
            use()
    assert store.list("") == before


@pytest.mark.parametrize(
    ("place", "name"),
    sweep([(kind, name) for kind in STORES for name in [*MEMBERS, bundle.MANIFEST]]),
    indirect=["place"],
)
def test_a_missing_file_and_one_byte_of_any_file_is_found(released: Store, candidate: Candidate, name: str) -> None:
    key = bundle.locate_file(candidate.id, name)
    content = released.read(key)
    for place in {0, len(content) // 2, len(content) - 1}:
        changed = bytearray(content)
        changed[place] ^= 1
        released.write({key: bytes(changed)})
        is_refused(released, re.escape(key), candidate.id)
    released.delete(key)
    is_refused(released, re.escape(f"{key} is missing"), candidate.id)
    released.write({key: content})
    assert is_good(released)


def test_a_bundle_that_is_unfinished_or_removed_is_a_failure_only_where_it_is_needed(
    released: Store, candidate: Candidate, challenger: Candidate
) -> None:
    released.create(bundle.locate_file("0" * 16, "model.json"), b"{}")
    assert is_good(released)
    released.delete(bundle.locate_file(candidate.id, bundle.MANIFEST))  # of what a rollback would go to
    is_refused(released, r"manifest\.json is missing, so the bundle is unfinished", candidate.id)
    for release, good in ((candidate.id, True), (challenger.id, False)):
        for key in released.list(bundle.locate_file(release, "")):
            released.delete(key)
        assert is_good(released) == good
    with pytest.raises(ReleaseError, match=rf"has none before it that is still stored \({candidate.id} was removed\)"):
        access.roll_back(released, None, "why", "me")


Change = Callable[[dict[str, Any]], object]


def rename(name: str) -> Change:
    return lambda manifest: manifest["files"].update({name: manifest["files"].pop("model.json")})


def forge(store: Store, release: str, change: Change) -> None:
    key = bundle.locate_file(release, bundle.MANIFEST)
    manifest = documents.read_sealed(dict, store.read(key))
    change(manifest)
    store.write({key: documents.seal(manifest)})


def test_a_forged_manifest_with_a_right_seal_is_not_the_one_of_the_log(
    released: Store, candidate: Candidate, challenger: Candidate
) -> None:
    forge(released, candidate.id, lambda manifest: manifest["inputs"]["settings"].update(C=2.0))
    assert bundle.read_bundle(released, candidate.id).problems == ()
    says = "manifest.json cannot be used (it is not the one that the log names)"
    is_refused(released, re.escape(says), candidate.id)
    assert says in releases.format_listing("release", releases.report_release(released, candidate.id))
    assert [entry["state"] for entry in releases.report_list(released)["entries"]] == [[says], ["champion"]]
    with pytest.raises(BcwError, match=re.escape(says)):
        releases.report_comparison(released, candidate.id, challenger.id)


def test_what_can_be_no_manifest_is_refused_before_anything_is_read_also_without_an_entry_for_it(
    released: Store, candidate: Candidate
) -> None:
    key = bundle.locate_file(candidate.id, bundle.MANIFEST)
    content = released.read(key)
    changes: list[Change] = [
        *map(rename, ["../../../etc/passwd", "/etc/passwd", "sub/model.json", "..", ".hidden", "", "a\n", "a.json\0"]),
        lambda manifest: manifest["files"]["model.json"].update(bytes=10**15),
        lambda manifest: manifest["files"]["model.json"].update(bytes=-1),
        lambda manifest: manifest.update(release="0" * 16),
        lambda manifest: manifest.pop("files"),
        lambda manifest: manifest.update(headline={"sensitivity": {"estimate": "x"}}),
    ]
    for change in changes:
        released.write({key: content})
        forge(released, candidate.id, change)
        with mock.patch.object(released, "read", wraps=released.read) as read:
            (problem,) = bundle.read_bundle(released, candidate.id).problems
        assert problem.startswith(f"{key} cannot be used (")
        assert {call.args[0] for call in read.call_args_list} == {key}


# Not the newest entry taken away, or forged with a right seal: checksums prove integrity, and not origin.
@pytest.mark.parametrize("content", sweep([b'{"sequence"', b"", bytes(2**20 + 1), None]), ids=str)
def test_a_damaged_newest_entry_stops_all_use_until_the_next_promotion(
    released: Store, candidate: Candidate, challenger: Candidate, content: bytes | None
) -> None:
    key = "releases/log/000003.json"
    content = released.read("releases/log/000002.json") if content is None else content
    released.create(key, content)
    is_refused(released, rf"{re.escape(key)} cannot be read", challenger.id, candidate.id)
    report = releases.report_list(released)
    assert [entry["state"] for entry in report["entries"]] == [[], []]
    assert f"Nobody can say which release is the champion: {key} " in releases.format_listing("list", report)
    with pytest.raises(ReleaseRefused, match="rolled back from: perhaps, in or after entry 3, which cannot be read"):
        promotion.promote(released, challenger, [], "next")
    assert promotion.promote(released, challenger, [], "next", "it was no rollback")[1].sequence == 4
    assert open_release(released, None).id == challenger.id
    assert released.read(key) == content  # it is not written over
    assert releases.report_verification(released, None, everything=False)["damage"][0].startswith(f"Damaged: {key} ")


@pytest.mark.parametrize("what", ["cut", "edited", "gone", "more files"])
def test_other_damage_in_the_log_is_told_and_stops_nothing(
    released: Store, candidate: Candidate, challenger: Candidate, what: str
) -> None:
    key, content = "releases/log/000001.json", released.read("releases/log/000001.json")
    files = {
        "cut": {key: content[:100]},
        "edited": {key: documents.seal(documents.read_sealed(dict, content) | {"reason": "another"})},
        "more files": {f"releases/log/{name}": b"{}" for name in ("000003.json.bak", "1.json", "٠٠٠٠٠٣.json")},
    }.get(what, {})
    released.write(files)
    if not files:
        released.delete(key)
    assert not is_good(released)
    damage = releases.report_verification(released, None, everything=False)["damage"]
    assert [line.split()[:2] for line in damage] == [["Damaged:", name] for name in files or [key]]
    assert open_release(released, None).id == challenger.id
    for name, report in (("list", releases.report_list(released)), ("verification", verify_all(released))):
        is_in_doubt = "perhaps champion in entry 1, which cannot be read" in releases.format_listing(name, report)
        assert is_in_doubt == (what in ("cut", "gone"))
    if what in ("edited", "more files"):
        access.roll_back(released, candidate.id, "why", "me")
    assert access.check_release(released, None).problems == ()


def test_what_is_no_id_never_becomes_a_path_and_the_beginning_of_an_id_has_to_be_of_one_release(
    released: Store, candidate: Candidate
) -> None:
    for release in ("..", "../../etc", "A" * 16, "0" * 15, "0" * 17, "", "log", "28426903/../../"):
        for use in (partial(bundle.locate_file, release, "model.json"), partial(open_release, released, release)):
            with pytest.raises(ReleaseError):
                use()
    assert open_release(released, candidate.id[:4]).id == candidate.id
    released.create(bundle.locate_file(candidate.id[:4] + "0" * 12, "x"), b"")
    with pytest.raises(ReleaseError, match="begins 2 ids"):
        open_release(released, candidate.id[:4])


# What else can lie in a folder.


def link(path: Path) -> None:
    path.symlink_to(path.rename(path.parents[3] / f"moved-{path.name}"))


def replace_by_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def enlarge(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**12)


@pytest.mark.parametrize(
    ("change", "name", "because"),
    [
        (Path.touch, "model.pkl", r"model\.pkl does not belong there"),
        (Path.touch, ".hidden", r"\.hidden does not belong there"),
        (link, "model.json", r"model\.json .*leads out of .* by a symbolic link"),
        (replace_by_pipe, "model.json", r"model\.json .*no regular file"),
        (enlarge, "model.json", r"model\.json has 1,000,000,000,000 bytes; allowed are"),
        (enlarge, bundle.MANIFEST, r"manifest\.json .*1,000,000,000,000 bytes; allowed are"),
        (replace_by_pipe, "../log/000003.json", r"000003\.json cannot be read .*no regular file"),
    ],
)
def test_what_was_added_is_too_large_or_no_regular_file_is_not_read(
    released: Store, candidate: Candidate, tmp_path: Path, change: Callable[[Path], None], name: str, because: str
) -> None:
    change(tmp_path / "store/releases" / candidate.id / name)
    is_refused(released, because, candidate.id)


def test_a_link_in_the_place_of_a_bundle_is_not_followed_and_a_file_in_that_of_the_log_is_no_empty_log(
    tmp_path: Path, released: Store, challenger: Candidate
) -> None:
    link(tmp_path / "store/releases" / challenger.id)
    with pytest.raises(BcwError, match=r"releases/.* leads out of .* by a symbolic link"):
        open_release(released, None)
    (tmp_path / "store/releases/log").rename(tmp_path / "elsewhere")
    (tmp_path / "store/releases/log").write_bytes(b"")
    with pytest.raises(BcwError, match=r"releases/log in .* is no folder"):
        open_release(released, None)


def test_a_folder_in_the_place_of_an_entry_and_a_file_in_that_of_a_bundle_are_named(
    tmp_path: Path, released: Store, candidate: Candidate
) -> None:
    folder = tmp_path / "store/releases"
    (folder / "log/000003.json").mkdir()
    with pytest.raises(ReleaseError, match=r"has no place: .*000003\.json in .* is no regular file\. Move it away"):
        access.roll_back(released, None, "why", "me")
    (folder / candidate.id).rename(tmp_path / "elsewhere")
    (folder / candidate.id).touch()
    says = r"manifest\.json cannot be used \(.* is no folder\. Move it away"
    is_refused(released, says, candidate.id)
    assert re.search(says, releases.format_listing("list", releases.report_list(released)))
