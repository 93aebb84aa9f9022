"""Where the table comes from: tries, one deadline, checksums and the fallback. Returns bytes and their origin."""

import hashlib
import io
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pandas as pd
import requests
from urllib3.exceptions import HTTPError, InvalidHeader, NameResolutionError, ReadTimeoutError, SSLError
from urllib3.util.retry import RequestHistory, Retry

from bcw_assets.deadline import within
from bcw_assets.errors import SourceRefused, SourceUnavailable
from bcw_assets.settings import EMBEDDED, Settings

UCI_ADDRESSES = (
    "https://archive.ics.uci.edu/ml/machine-learning-databases/breast-cancer-wisconsin/wdbc.data",
    "https://archive.ics.uci.edu/static/public/17/breast+cancer+wisconsin+diagnostic.zip",
)
UCI_SHA256 = "d606af411f3e5be8a317a5a8b652b425aaf0ff38ca683d5327ffff94c3695f4a"
UCI_MEMBER = "wdbc.data"
UCI_LIMIT = 10 * 2**20  # bytes; the file has 124,103 and the zip 51,284
UCI_DEADLINE = 10.0  # seconds of wall clock for all tries of both addresses
UCI_PATIENCE = 4.0  # seconds for one try, so that the second address has its turn
UCI_TRIES = 4  # of each address: an answer that fails at once should not cost ten seconds
NAMED_DEADLINE = 60.0  # seconds of wall clock for all tries of a source that the user named
IDLE = 10.0  # seconds without a byte after which one try of a named source is given up
CHUNK = 2**16
TOO_MANY_REQUESTS, SERVER_ERROR = 429, 500  # statuses, the second and all above, that may pass at the next try

SLOW = "no whole answer in time"
EMBEDDED_ORIGIN = "scikit-learn's embedded copy"


@dataclass(frozen=True)
class Try:
    """One attempt: where, after how many seconds it ended, and how."""

    address: str
    seconds: float
    outcome: str

    def __str__(self) -> str:
        return f"{self.address}: {self.outcome} ({self.seconds:.1f} s)"


@dataclass(frozen=True)
class Download:
    """The bytes of the table, where they are from, and what it took.

    Attributes:
        fallback: whether the embedded copy stands in for a source that could not be reached.
    """

    content: bytes
    origin: str
    tries: tuple[Try, ...] = ()
    fallback: bool = False


@dataclass
class _Address:
    """An address with its turn: when it may be tried again, and the failures that decide how long that takes."""

    url: str
    ready_at: float
    retry: Retry = field(
        default_factory=lambda: Retry(total=None, backoff_factor=0.25, backoff_max=8, backoff_jitter=0.25)
    )

    @property
    def label(self) -> str:
        """The address without its query, which may hold a token."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "…" if parts.query else "", ""))


class _Failure(Exception):
    """Why one try failed.

    Attributes:
        final: whether trying this address again cannot help.
        wait: seconds that the server asked to wait.
    """

    def __init__(self, outcome: str, *, final: bool = False, wait: float | None = None) -> None:
        super().__init__(outcome)
        self.final = final
        self.wait = wait


def fetch(settings: Settings, tell: Callable[[str], object]) -> Download:
    """Return the table's bytes from where the settings say.

    Args:
        settings: name the source.
        tell: is called with a line about each try when it ends.

    Raises:
        SourceUnavailable: a source that the user named did not answer in time.
        SourceRefused: what arrived has not the checksum that it must have.
    """
    if settings.source == EMBEDDED:
        return Download(_read_embedded(), EMBEDDED_ORIGIN)
    if not settings.source_is_named:
        return _fetch_from_uci(tell)
    if "://" in settings.source:
        download = _download((settings.source,), tell, NAMED_DEADLINE, NAMED_DEADLINE)
    else:
        download = Download(_read(Path(settings.source).expanduser()), settings.source)
    if settings.source_sha256:
        _require(download.content, settings.source_sha256, download.origin, "BCW_SOURCE_SHA256")
    return download


def _fetch_from_uci(tell: Callable[[str], object]) -> Download:
    try:
        download = _download(UCI_ADDRESSES, tell, UCI_DEADLINE, UCI_PATIENCE, limit=UCI_LIMIT, most_tries=UCI_TRIES)
    except _NoAnswer as error:
        return Download(_read_embedded(), EMBEDDED_ORIGIN, error.tries, fallback=True)
    content = download.content
    if urlsplit(download.origin).path.endswith(".zip"):
        content = _unpack_member(content, download.origin)
    _require(content, UCI_SHA256, download.origin, "UCI's file")
    return Download(content, download.origin, download.tries)


class _NoAnswer(SourceUnavailable):
    """No address answered in time; `tries` tell the story."""

    def __init__(self, tries: tuple[Try, ...], seconds: float) -> None:
        last: dict[str, Try] = {attempt.address: attempt for attempt in tries}
        story = "; ".join(f"{address}: {attempt.outcome}" for address, attempt in last.items())
        super().__init__(
            f"The table could not be downloaded in {len(tries)} tries and {seconds:.0f} s ({story}). Nothing was "
            f"changed. Check BCW_SOURCE and the network and try again, or set BCW_SOURCE=embedded to work offline"
        )
        self.tries = tries


def _download(
    urls: tuple[str, ...],
    tell: Callable[[str], object],
    seconds: float,
    patience: float,
    limit: int | None = None,
    most_tries: int | None = None,
) -> Download:
    """Try the addresses in turn until one answers, none is left, or the time is over."""
    start = time.monotonic()
    deadline = start + seconds
    tries: list[Try] = []
    addresses = [_Address(url, start) for url in urls]
    while addresses:
        address = min(addresses, key=lambda address: address.ready_at)
        if address.ready_at >= deadline:
            break
        time.sleep(max(0.0, address.ready_at - time.monotonic()))
        began = time.monotonic()
        end = min(deadline, began + patience)
        try:
            content = _get_until(end, address.url, limit)
        except _Failure as failure:
            now = time.monotonic()
            tries.append(Try(address.label, now - began, str(failure)))
            tell(str(tries[-1]))
            address.retry = address.retry.new(
                history=(*address.retry.history, RequestHistory("GET", None, failure, None, None))
            )
            wait = address.retry.get_backoff_time() if failure.wait is None else failure.wait
            address.ready_at = now + wait
            if failure.final or len(address.retry.history) == most_tries:
                addresses.remove(address)
        else:
            tries.append(Try(address.label, time.monotonic() - began, f"{len(content):,} bytes"))
            tell(str(tries[-1]))
            return Download(content, address.label, tuple(tries))
    raise _NoAnswer(tuple(tries), time.monotonic() - start)


def _get_until(end: float, url: str, limit: int | None) -> bytes:
    try:
        return within(end - time.monotonic(), partial(_get, url, end, limit))
    except TimeoutError:
        raise _Failure(SLOW) from None


def _get(url: str, end: float, limit: int | None) -> bytes:
    """Return the body of one GET, decoded, of at most `limit` bytes."""
    timeout = min(IDLE, max(0.01, end - time.monotonic()))
    try:
        with requests.get(url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"}) as response:
            if response.status_code != requests.codes.ok:
                wait = _read_retry_after(response)
                asks = "" if wait is None else f", asks to wait {wait:,.0f} s"
                may_pass = response.status_code == TOO_MANY_REQUESTS or response.status_code >= SERVER_ERROR
                raise _Failure(f"status {response.status_code}{asks}", final=not may_pass, wait=wait)
            body = bytearray()
            # read1 returns what has arrived; read would wait for a whole chunk however slowly it drips.
            while chunk := response.raw.read1(CHUNK, decode_content=True):
                body += chunk
                if limit and len(body) > limit:
                    raise _Failure(f"more than {limit:,} bytes", final=True)
                if time.monotonic() >= end:
                    raise _Failure(SLOW)
            return bytes(body)
    except (requests.RequestException, HTTPError, ValueError) as error:  # the last: a redirection to no address
        raise _explain(error) from error


def _read_retry_after(response: requests.Response) -> float | None:
    try:
        return Retry().get_retry_after(response.raw)
    except (InvalidHeader, ValueError, OverflowError):  # the last two: numbers and years beyond all bounds
        return None


def _explain(error: Exception) -> _Failure:
    """Say in words what went wrong. The error's own text is not shown: it holds the address with its query."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    if isinstance(reason, NameResolutionError):
        return _Failure("the host is unknown", final=True)
    if isinstance(error, requests.exceptions.SSLError) or isinstance(reason, SSLError):
        return _Failure("the certificate is not valid", final=True)
    if isinstance(error, requests.TooManyRedirects):
        return _Failure("redirected for ever", final=True)
    if isinstance(error, requests.Timeout | ReadTimeoutError):
        return _Failure(SLOW)
    if isinstance(error, ValueError):  # among them requests' InvalidSchema and InvalidURL
        return _Failure("no valid http address", final=True)
    if isinstance(error, requests.ConnectionError) and not isinstance(error, requests.exceptions.ChunkedEncodingError):
        return _Failure("the connection was refused or reset")
    return _Failure("the answer was cut short")


def _unpack_member(content: bytes, origin: str) -> bytes:
    """Return the file inside UCI's zip, taken by its exact name and no larger than it may be."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if member.filename == UCI_MEMBER]
            if len(members) != 1 or members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise SourceRefused(f"{origin} holds {len(members)} files named {UCI_MEMBER}; allowed is one, deflated")
            with archive.open(members[0]) as file:
                inside = file.read(UCI_LIMIT + 1)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, OSError, ValueError) as error:
        raise SourceRefused(f"{origin} is no zip that can be read ({error})") from error
    if len(inside) > UCI_LIMIT:
        raise SourceRefused(f"{UCI_MEMBER} in {origin} is larger than {UCI_LIMIT:,} bytes")
    return inside


def _require(content: bytes, expected: str, origin: str, what: str) -> None:
    checksum = hashlib.sha256(content).hexdigest()
    if checksum != expected:
        raise SourceRefused(
            f"{origin} has SHA-256 {checksum}, and {what} has {expected}: these are other bytes. Nothing was changed. "
            f"If they are wanted, name the address as BCW_SOURCE and the new checksum as BCW_SOURCE_SHA256; "
            f"BCW_SOURCE=embedded works without any address"
        )


def _read(path: Path) -> bytes:
    try:
        if path.is_file():
            return path.read_bytes()
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it does not fit into the memory"
        raise SourceUnavailable(f"BCW_SOURCE is {str(path)[:200]!r}: {reason}. Nothing was changed") from error
    raise SourceUnavailable(
        f"BCW_SOURCE is {str(path)!r}, which is no file; allowed are auto, embedded, an http(s) URL or a path"
    )


def _read_embedded() -> bytes:
    """Return scikit-learn's copy as CSV: its names, its target (0 = malignant), the rows in UCI's order, no ids."""
    from sklearn.datasets import load_breast_cancer  # only this path needs the data sets, 0.2 s

    frame: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    return frame.to_csv(index=False).encode()
