"""How places and the keys in them are written: a folder, or `s3://bucket/prefix`. Imports errors alone."""

import re
from typing import NamedTuple

from bcw_assets.errors import KeyTooLarge, StorageError

S3 = "s3://"
CSV_SUFFIX, PARQUET_SUFFIX, GZIP_SUFFIX = ".csv", ".parquet", ".gz"
TEMPORARY = ".bcw-tmp"  # the ending of files that are being written; never listed
BUCKET = re.compile(r"(?!.*\.\.|[0-9]+(\.[0-9]+){3}$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


class Bucket(NamedTuple):
    """A bucket's name, and the prefix of all keys, without a slash at either end; empty for the whole bucket."""

    name: str
    prefix: str

    def __str__(self) -> str:
        return f"{S3}{self.name}/{self.prefix}".rstrip("/")


def parse_bucket(place: str) -> Bucket | None:
    """Return the bucket that a place names, None for a folder, or raise a ValueError that says what is allowed.

    >>> parse_bucket("s3://my-bucket/some/prefix/")
    Bucket(name='my-bucket', prefix='some/prefix')
    """
    if "@" in place.partition("://")[2].partition("/")[0]:
        raise ValueError("credentials must not stand in a URI, where they would be logged; set AWS_ACCESS_KEY_ID")
    if not place.startswith(S3):
        if not place or "://" in place or place.lower().startswith(("s3:", "s3//")):
            raise ValueError(f"allowed is the path of a folder, or s3://bucket/prefix, not {place!r}")
        return None
    name, _, prefix = place.removeprefix(S3).partition("/")
    if not BUCKET.fullmatch(name):
        allowed = "3 to 63 lower-case letters, digits, hyphens and dots"
        raise ValueError(f"{name!r} in {place!r} is no name of a bucket; allowed are {allowed}")
    prefix = prefix.strip("/")
    if prefix and not (_is_key(prefix) and prefix.isprintable() and prefix == prefix.strip()):
        allowed = "printable names joined by /, without . and .."
        raise ValueError(f"{prefix!r} in {place!r} is no prefix; allowed are {allowed}")
    return Bucket(name, prefix)


def require_key(key: str) -> None:
    """Refuse what cannot be a key, or would lead out of the store."""
    if not _is_key(key):
        raise StorageError(f"{key!r} is no key; allowed are names joined by /, without . and ..")


def require_length(key: str, length: int, at_most: int | None) -> None:
    """Refuse what other people may have put there, and is too large to be read."""
    if at_most is not None and length > at_most:
        raise KeyTooLarge(f"{key} has {length:,} bytes; allowed are {at_most:,}")


def _is_key(text: str) -> bool:
    return not ("\\" in text or "\0" in text or any(part in ("", ".", "..") for part in text.split("/")))
