"""Bytes under keys: what every store can do, and which one a place is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from bcw_assets.errors import KeyRefused, StorageError, StorageRefused
from bcw_assets.locations import is_key, parse_bucket

TEMPORARY = ".bcw-tmp"  # the ending of files that are being written; never listed


class Store(Protocol):
    """Bytes under keys like `results/model.json`; every method raises StorageError, naming the key, when it cannot."""

    def read(self, key: str, at_most: int | None = None) -> bytes:
        """Return what is stored under `key`; KeyMissing if nothing is, KeyRefused if it is longer than `at_most`."""

    def write(self, files: Mapping[str, bytes]) -> None:
        """Store all files in the mapping's order, each as a whole; an error may leave old beside new ones."""

    def create(self, key: str, content: bytes) -> bool:
        """Store `content` if nothing is under `key` yet, and say whether it was stored."""

    def list(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix`, sorted."""

    def exists(self, key: str) -> bool:
        """Say whether something is stored under `key`."""

    def delete(self, key: str) -> None:
        """Remove what is under `key`; no error if nothing is."""

    def address(self, key: str) -> str:
        """Return where `key` is, for people: a path or a URI."""


def open_store(place: str) -> Store:
    """Return the store of a place: the path of a folder, or `s3://bucket/prefix`.

    Raises:
        StorageRefused: it is no place.
    """
    try:
        bucket = parse_bucket(place)
    except ValueError as error:
        raise StorageRefused(str(error)) from error
    # Each imports what is above; and boto3 takes 0.2 s, which is not needed on disk.
    if bucket is None:
        from bcw_assets.storage.folder import FolderStore

        return FolderStore(Path(place).expanduser())
    from bcw_assets.storage.s3 import S3Store

    return S3Store(bucket)


def require_key(key: str) -> None:
    """Refuse what cannot be a key, or would lead out of the store.

    >>> require_key("../etc/passwd")
    Traceback (most recent call last):
    bcw_assets.errors.StorageError: '../etc/passwd' is no key; allowed are names joined by /, without . and ..
    """
    if not is_key(key):
        raise StorageError(f"{key!r} is no key; allowed are names joined by /, without . and ..")


def require_prefix(prefix: str) -> None:
    """Refuse what no key can begin with."""
    above, slash, _ = prefix.rpartition("/")
    if slash:
        require_key(above)


def require_length(key: str, length: int, at_most: int | None) -> None:
    """Refuse what other people may have put there, and is too large to be read."""
    if at_most is not None and length > at_most:
        raise KeyRefused(f"{key} has {length:,} bytes; allowed are {at_most:,}")
