"""What every store promises, on every store; and what a disk can do to one."""

import errno
import os
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from bcw_assets.errors import KeyMissing, KeyRefused, StorageError
from bcw_assets.locations import TEMPORARY
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
        is_winner = list(pool.map(lambda number: store.create("log/1", str(number).encode()), range(16)))
    assert sum(is_winner) == 1
    assert store.read("log/1") == str(is_winner.index(True)).encode()


def test_a_key_or_a_listing_cannot_leave_the_store(store: Store) -> None:
    for key in ("", "/etc/passwd", "../up", "a/../../up", "a//b", "./a", "a\\..\\b", "a\0b", "a/"):
        for call in (
            *(store.read, store.exists, store.delete, store.address),
            lambda key: store.write({key: b""}),
            lambda key: store.create(key, b""),
        ):
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


def fail_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch, act: Callable[[Store], object]
) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Do `act` on copies of `folder`, with the 1st, the 2nd, … operation failing; give what is said, and is left."""
    for number in range(1, 1000):
        copy = shutil.copytree(folder, folder.with_name(f"fault-{number}"))
        said = ""
        with monkeypatch.context() as patch:
            fault = Fault(patch, number)
            try:
                act(FolderStore(copy))
            except StorageError as error:
                said = str(error)
        # The removal of a temporary file may have failed, which nobody lists.
        yield said, {key: content for key, content in everything(copy).items() if not key.endswith(TEMPORARY)}
        if fault.count < number:
            assert number > 6
            return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


def test_whichever_operation_of_a_write_fails_each_file_is_whole_and_a_mixture_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FolderStore(folder).write(OLD)
    for said, files in fail_each(folder, monkeypatch, lambda store: store.write(NEW)):
        assert files.keys() == NEW.keys()
        assert all(content in (OLD[key], NEW[key]) for key, content in files.items())
        assert files == NEW if not said else files == OLD or "Files may be new now" in said


@pytest.mark.parametrize("has_links", [True, False])
def test_whichever_operation_of_a_create_fails_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", partial(refuse, errno.EPERM))
    for said, files in fail_each(folder, monkeypatch, lambda store: store.create("log/1", b"entry")):
        assert files == ({} if said else {"log/1": b"entry"})


def refuse(number: int, *_: object) -> None:
    raise OSError(number, os.strerror(number))


@pytest.mark.parametrize("name", ["EPERM", "EOPNOTSUPP", "ENOSYS", "EACCES", "EXDEV", "EMLINK", "EINVAL", "EIO"])
def test_where_there_are_no_links_create_still_stores_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "link", partial(refuse, getattr(errno, name)))
    store = FolderStore(tmp_path)
    assert [store.create("log/1", b"first"), store.create("log/1", b"second")] == [True, False]
    assert everything(tmp_path) == {"log/1": b"first"}


def test_a_share_that_cannot_fsync_a_folder_is_used_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda file: refuse(errno.EINVAL) if stat.S_ISDIR(os.fstat(file).st_mode) else fsync(file)
    )
    store = FolderStore(tmp_path)
    store.write(NEW)
    assert store.create("log/1", b"entry")
    assert everything(tmp_path) == NEW | {"log/1": b"entry"}


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


def test_a_folder_in_the_place_of_a_file_and_a_file_in_the_place_of_a_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "results" / "model.json").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"Is a directory\. Files may be new now; loading refuses old and new"):
        FolderStore(tmp_path).write(NEW)
    (tmp_path / "data").write_bytes(b"")
    with pytest.raises(
        StorageError, match=r"Could not write data/raw_data\.csv in .* What was stored before is unchang"
    ):
        FolderStore(tmp_path).write({"data/raw_data.csv": b""})
