"""Bytes under keys: what every store can do, and which one a place is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from bcw_assets.errors import StorageError
from bcw_assets.locations import parse_bucket
from bcw_assets.storage.folder import FolderStore


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

    def delete(self, key: str) -> None:
        """Remove what is under `key`; no error if nothing is."""

    def address(self, key: str) -> str:
        """Return where `key` is, for people: a path or a URI."""


def open_store(place: str) -> Store:
    """Return the store of a place, a folder's path or `s3://bucket/prefix`, or raise a StorageError."""
    try:
        bucket = parse_bucket(place)
    except ValueError as error:
        raise StorageError(str(error)) from error
    if bucket is None:
        return FolderStore(Path(place).expanduser())
    from bcw_assets.storage.s3 import S3Store  # boto3 takes 0.2 s, and is not needed on disk

    return S3Store(bucket)
