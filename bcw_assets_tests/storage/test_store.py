"""What every store promises, on every store; and what a disk can do to one."""

import errno
import os
import resource
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bcw_assets.errors import KeyMissing, KeyRefused, StorageError
from bcw_assets.locations import TEMPORARY
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import contents

pytestmark = pytest.mark.every_store
OLD = {"results/model.pkl": b"old pickle", "results/model.json": b"old numbers"}
NEW = {"results/model.pkl": b"new pickle", "results/model.json": b"new numbers"}
LOST = ["EIO", "ENOSPC", "EDQUOT"]


def test_what_is_written_is_read_listed_replaced_and_deleted(store: Store) -> None:
    store.write(OLD)
    store.write(NEW | {"data/raw_data.csv": b""})
    assert contents(store) == NEW | {"data/raw_data.csv": b""}
    assert store.list("") == ["data/raw_data.csv", "results/model.json", "results/model.pkl"]
    assert store.list("results/model.j") == ["results/model.json"]
    assert store.list("nothing/") == []
    store.delete("results/model.pkl")
    store.delete("results/model.pkl")
    assert store.list("results/model") == ["results/model.json"]


def test_what_is_missing_or_longer_than_allowed_is_named(store: Store) -> None:
    with pytest.raises(KeyMissing, match=r"results/model\.pkl is not in"):
        store.read("results/model.pkl")
    store.write(NEW)
    assert store.read("results/model.pkl", 10) == b"new pickle"
    with pytest.raises(KeyRefused, match=r"results/model\.pkl has 10 bytes; allowed are 9$"):
        store.read("results/model.pkl", 9)


def test_of_many_creators_at_once_one_wins_and_a_later_one_changes_nothing(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        is_winner = list(pool.map(lambda number: store.create("log/1", str(number).encode()), range(16)))
    assert sum(is_winner) == 1
    assert not store.create("log/1", b"later")
    assert contents(store) == {"log/1": str(is_winner.index(True)).encode()}


def test_a_key_or_a_listing_cannot_leave_the_store(store: Store) -> None:
    calls: list[Callable[[str], object]] = [
        *(store.read, store.delete, store.address),
        lambda key: store.write({key: b""}),
        lambda key: store.create(key, b""),
    ]
    for key in ("", "/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a\\..\\b", "a\0b", "a/"):
        for call in calls:
            with pytest.raises(StorageError, match="is no key"):
                call(key)
    for prefix in ("../", "/etc/", "a/../../", "a//b"):
        with pytest.raises(StorageError, match="is no key"):
            store.list(prefix)


def test_who_may_read_a_file_is_decided_by_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        FolderStore(tmp_path).write(NEW)
    finally:
        os.umask(before)
    assert (tmp_path / "results" / "model.json").stat().st_mode & 0o777 == 0o640


def read_tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fail(number: int, *_: object) -> Any:
    raise OSError(number, os.strerror(number))


def fail_at_each_operation(
    folder: Path, before: dict[str, bytes], act: Callable[[Store], object]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Do `act` on stores of files, with the 1st, the 2nd, … operation failing; give the error, and what is left."""
    names = ("open", "fsync", "replace", "link", "unlink", "mkdir", "close", "stat")
    for number in range(1, 1000):
        turns, text, store = count(1), "", FolderStore(folder / str(number))
        store.write(before)

        def call(operation: Callable[..., Any], *arguments: object, **options: object) -> Any:
            return fail(errno.ENOSPC) if next(turns) == number else operation(*arguments, **options)  # noqa: B023

        with pytest.MonkeyPatch.context() as patch:
            for owner, name in [*((os, name) for name in names), (Path, "open")]:
                operation = getattr(owner, name)
                patch.setattr(owner, name, lambda *a, operation=operation, **o: call(operation, *a, **o))
            try:
                act(store)
            except StorageError as error:
                text = str(error)
        # The removal of a temporary file may have failed, which nobody lists.
        yield text, {key: kept for key, kept in read_tree(folder / str(number)).items() if not key.endswith(TEMPORARY)}
        if next(turns) <= number:
            assert number > 6
            return


def test_whichever_operation_of_a_write_fails_each_file_is_whole_and_a_mixture_is_said(tmp_path: Path) -> None:
    for text, files in fail_at_each_operation(tmp_path, OLD, lambda store: store.write(NEW)):
        assert files.keys() == NEW.keys()
        assert all(content in (OLD[key], NEW[key]) for key, content in files.items())
        assert files == NEW if not text else files == OLD or "Files may be new now" in text


@pytest.mark.parametrize("has_links", [True, False])
def test_whichever_operation_of_a_create_fails_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", partial(fail, errno.EPERM))
    for text, files in fail_at_each_operation(tmp_path, {}, lambda store: store.create("log/1", b"entry")):
        assert files == ({} if text else {"log/1": b"entry"})


@pytest.mark.parametrize("name", ["EPERM", "ENOTSUP", "ENOSYS", "EACCES", "EINVAL", "EXDEV", "EMLINK", *LOST])
def test_a_file_system_without_links_or_fsync_of_folders_is_used_unless_it_says_that_a_name_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fsync, number, store, is_lost = os.fsync, getattr(errno, name), FolderStore(tmp_path), name in LOST
    monkeypatch.setattr(os, "link", partial(fail, number))
    monkeypatch.setattr(os, "fsync", lambda file: fail(number) if stat.S_ISDIR(os.fstat(file).st_mode) else fsync(file))
    for act in (partial(store.write, NEW), partial(store.create, "log/1", b"first")):
        with pytest.raises(StorageError, match=os.strerror(number)) if is_lost else nullcontext():
            act()
    assert is_lost or not store.create("log/1", b"second")
    assert read_tree(tmp_path) == NEW | ({} if is_lost else {"log/1": b"first"})


def test_a_file_that_may_not_grow_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    FolderStore(tmp_path).write(OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StorageError, match=r"Could not write results/model\.pkl, results/model\.json.*too large"):
            FolderStore(tmp_path).write({"results/model.pkl": b"new", "results/model.json": bytes(2000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_tree(tmp_path) == OLD


def test_a_folder_in_the_place_of_a_file_and_a_file_in_the_place_of_a_folder_are_said(tmp_path: Path) -> None:
    (tmp_path / "results" / "model.json").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"Is a directory\. Files may be new now; loading refuses old and new"):
        FolderStore(tmp_path).write(NEW)
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(StorageError, match=r"Could not write data/raw_data\.csv .* What was stored before is unchang"):
        FolderStore(tmp_path).write({"data/raw_data.csv": b""})


def test_what_cannot_be_listed_or_looked_at_is_not_taken_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    store = FolderStore(tmp_path)
    store.write({"releases/log/000001.json": b"{}"})
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        store.list("releases/log/")
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        store.read("releases/log/000001.json")
