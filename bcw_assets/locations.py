"""How a place to keep things is written: the path of a folder, or `s3://bucket/prefix`. Imports nothing."""

import re
from dataclasses import dataclass

S3 = "s3://"
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")
ALLOWED = "allowed is the path of a folder, or s3://bucket/prefix"


@dataclass(frozen=True)
class Bucket:
    """A place in a bucket.

    Attributes:
        name: of the bucket.
        prefix: with which all keys begin, without a slash at either end; empty for the whole bucket.
    """

    name: str
    prefix: str

    def __str__(self) -> str:
        return f"{S3}{self.name}/{self.prefix}".rstrip("/")


def parse_bucket(place: str) -> Bucket | None:
    """Return the bucket that a place names; None for a folder.

    Raises:
        ValueError: it is no place; the text says what is wrong and what is allowed.

    >>> parse_bucket("s3://my-bucket/some/prefix/")
    Bucket(name='my-bucket', prefix='some/prefix')
    >>> parse_bucket("/some/folder") is None
    True
    """
    if "@" in place.partition("://")[2].partition("/")[0]:
        raise ValueError("credentials must not stand in a URI, where they would be logged; set AWS_ACCESS_KEY_ID")
    if not place.startswith(S3):
        if not place or "://" in place or place.lower().startswith(("s3:", "s3//")):
            raise ValueError(f"{ALLOWED}, not {place!r}")
        return None
    name, _, prefix = place.removeprefix(S3).partition("/")
    if not BUCKET.fullmatch(name) or ".." in name or ADDRESS.fullmatch(name):
        raise ValueError(
            f"{name!r} in {place!r} is no name of a bucket; allowed are 3 to 63 lower-case letters, digits, "
            f"hyphens and dots"
        )
    prefix = prefix.strip("/")
    if prefix and not (is_key(prefix) and prefix.isprintable() and prefix == prefix.strip()):
        raise ValueError(
            f"{prefix!r} in {place!r} is no prefix; allowed are printable names joined by /, without . and .."
        )
    return Bucket(name, prefix)


def is_key(text: str) -> bool:
    """Say whether a text can name something within a place, and lead nowhere else.

    >>> [is_key("results/model.json"), is_key("../model.json"), is_key("results//model.json"), is_key("")]
    [True, False, False, False]
    """
    return not ("\\" in text or "\0" in text or any(part in ("", ".", "..") for part in text.split("/")))
