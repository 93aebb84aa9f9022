"""JSON as this project writes it: an object of finite numbers and texts, and where it stands alone, sealed."""

import hashlib
import json
from typing import Any, TypeVar

import msgspec

from bcw_assets.errors import OTHER_VERSION

Document = dict[str, Any]
T = TypeVar("T")
SEAL = "seal"  # the name in a sealed document of the SHA-256 of the rest of it


class NotUnderstood(ValueError):
    """A document is as it was sealed, and this version cannot make of it what it should be."""


def encode(document: Document) -> bytes:
    """Return the document as bytes, the same for the same content in the same order."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def parse(content: bytes) -> Document:
    """Return the document that bytes hold, or raise a ValueError: they are no JSON object of finite numbers."""
    try:
        return msgspec.json.decode(content, type=Document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON object of finite numbers ({error})") from error


def seal(document: Document) -> bytes:
    """Return the document as bytes that say when a byte of them was changed."""
    return encode(document | {SEAL: digest(encode(document))})


def read_sealed(kind: type[T], content: bytes) -> T:
    """Return what `seal` made the bytes of, as `kind`, or raise ValueError (changed) or NotUnderstood (another)."""
    document = parse(content)
    document.pop(SEAL, None)
    if seal(document) != content:
        raise ValueError("it was changed or cut short after it was written: its seal is another")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise NotUnderstood(f"{error}; {OTHER_VERSION}") from error


def digest(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
