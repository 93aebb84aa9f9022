"""What every store promises, on every store; and what a disk can do to one."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bcw_assets.errors import KeyMissing, KeyRefused, StorageError
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store

pytestmark = pytest.mark.every_store
OLD = {"results/model.pkl": b"old pickle", "results/model.json": b"old numbers"}
NEW = {"results/model.pkl": b"new pickle", "results/model.json": b"new numbers"}


def test_what_is_written_is_read_listed_measured_and_deleted(store: Store) -> None:
    store.write(NEW | {"data/raw_data.csv": b""})
    assert store.read("results/model.pkl") == b"new pickle"
    assert store.list("") == ["data/raw_data.csv", "results/model.json", "results/model.pkl"]
    assert store.list("results/model.j") == ["results/model.json"]
    assert store.list("nothing/") == []
    assert store.read("data/raw_data.csv") == b""
    store.delete("results/model.pkl")
    store.delete("results/model.pkl")
    assert [store.exists(key) for key in sorted(NEW)] == [True, False]


def test_a_write_replaces_what_was_there(store: Store) -> None:
    store.write(OLD)
    store.write(NEW)
    assert {key: store.read(key) for key in store.list("")} == NEW


def test_a_missing_key_is_named(store: Store) -> None:
    with pytest.raises(KeyMissing, match=r"results/model\.json is not in"):
        store.read("results/model.json")


def test_what_is_longer_than_allowed_is_not_read(store: Store) -> None:
    store.write(NEW)
    assert store.read("results/model.pkl", 10) == b"new pickle"
    with pytest.raises(KeyRefused, match=r"results/model\.pkl has 10 bytes; allowed are 9$"):
        store.read("results/model.pkl", 9)


def test_only_the_first_create_stores(store: Store) -> None:
    assert store.create("releases/log/000001.json", b"first")
    assert not store.create("releases/log/000001.json", b"second")
    assert store.read("releases/log/000001.json") == b"first"
    assert store.list("") == ["releases/log/000001.json"]


def test_of_many_creators_at_once_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        for turn in range(5):
            won = list(pool.map(lambda one, turn=turn: store.create(f"log/{turn}", str(one).encode()), range(16)))
            assert sum(won) == 1
            assert store.read(f"log/{turn}") == str(won.index(True)).encode()


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a\\..\\b", "a\0b", "a/"])
def test_a_key_cannot_leave_the_store(store: Store, key: str) -> None:
    for call in (store.read, store.exists, store.delete, store.address):
        with pytest.raises(StorageError, match="is no key"):
            call(key)
    with pytest.raises(StorageError, match="is no key"):
        store.write({key: b""})
    with pytest.raises(StorageError, match="is no key"):
        store.create(key, b"")


@pytest.mark.parametrize("prefix", ["../", "/etc/", "a/../../", "a//b"])
def test_a_listing_cannot_leave_the_store(store: Store, prefix: str) -> None:
    store.write(NEW)
    with pytest.raises(StorageError, match="is no key"):
        store.list(prefix)


def test_who_may_read_a_file_is_decided_by_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        FolderStore(tmp_path).write(NEW)
    finally:
        os.umask(before)
    assert (tmp_path / "results" / "model.json").stat().st_mode & 0o777 == 0o640


def everything(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Fault:
    """Makes the n-th file operation fail."""

    OPERATIONS = ("open", "fsync", "replace", "link", "unlink", "mkdir", "close", "stat")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.number, self.count = number, 0
        for name in self.OPERATIONS:
            monkeypatch.setattr(os, name, self.failing(getattr(os, name)))
        monkeypatch.setattr(Path, "read_bytes", self.failing(Path.read_bytes))

    def failing(self, operation: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            self.count += 1
            if self.count == self.number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return operation(*arguments, **options)

        return call


def faults(folder: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Store], object]) -> int:
    """Do `act` on copies of `folder`, with the 1st, the 2nd, … operation failing until none is left; count them."""
    before = everything(folder)
    act(FolderStore(shutil.copytree(folder, folder.with_name("done"))))
    after = everything(folder.with_name("done"))
    for number in range(1, 1000):
        copy = shutil.copytree(folder, folder.with_name(f"fault-{number}"))
        with monkeypatch.context() as patch:
            fault = Fault(patch, number)
            said = ""
            try:
                act(FolderStore(copy))
            except StorageError as error:
                said = str(error)
        # An operation may fail without harm, like the making of a folder that is there.
        assert everything(copy) == (before if said else after), f"after operation {number} failed"
        if fault.count < number:
            return number - 1
        assert not said or "No space left on device" in said
    raise AssertionError("it never came to an end")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


def test_whichever_operation_of_a_write_fails_everything_is_as_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FolderStore(folder).write(OLD)
    assert faults(folder, monkeypatch, lambda store: store.write(NEW)) > 10


def test_whichever_operation_of_a_first_write_fails_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert faults(folder, monkeypatch, lambda store: store.write(NEW)) > 10


def test_whichever_operation_of_a_create_fails_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faults(folder, monkeypatch, lambda store: store.create("log/1", b"entry")) > 5


def test_without_links_too_whichever_operation_of_a_create_fails_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", no_links)
    assert faults(folder, monkeypatch, lambda store: store.create("log/1", b"entry")) > 5


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_when_the_old_files_cannot_be_put_back_either_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FolderStore(tmp_path).write(OLD)
    replace, calls = os.replace, []

    def fails_from_the_second_on(*arguments: Path) -> None:
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(*arguments)

    monkeypatch.setattr(os, "replace", fails_from_the_second_on)
    with pytest.raises(StorageError, match="nor could the old files be put back: Input/output error"):
        FolderStore(tmp_path).write(NEW)


def test_where_there_are_no_links_create_still_stores_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    store = FolderStore(tmp_path)
    assert [store.create("log/1", b"first"), store.create("log/1", b"second")] == [True, False]
    assert everything(tmp_path) == {"log/1": b"first"}


WRITES_MUCH = """
import resource, sys
from pathlib import Path
from bcw_assets.errors import StorageError
from bcw_assets.storage.folder import FolderStore
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    FolderStore(Path(sys.argv[1])).write({"results/model.pkl": b"new", "results/model.json": bytes(2000)})
except StorageError as error:
    sys.exit(str(error))
"""


def test_a_file_that_may_not_grow_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    FolderStore(tmp_path).write(OLD)
    done = subprocess.run(
        [sys.executable, "-c", WRITES_MUCH, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Could not write results/model.pkl, results/model.json" in done.stderr
    assert "File too large" in done.stderr
    assert everything(tmp_path) == OLD
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # only the child was limited


def test_a_folder_in_the_place_of_a_file_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "results" / "model.json").mkdir(parents=True)
    with pytest.raises(StorageError, match="Is a directory"):
        FolderStore(tmp_path).write(NEW)
    assert everything(tmp_path) == {}


def test_a_file_in_the_place_of_a_folder_is_an_error_that_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "results").write_bytes(b"")
    with pytest.raises(StorageError, match=r"Could not write results/model\.pkl, results/model\.json"):
        FolderStore(tmp_path).write(NEW)
    assert everything(tmp_path) == {"results": b""}
