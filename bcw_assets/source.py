"""Where the table comes from: tries, one deadline, checksums and the fallback. Returns bytes and their origin."""

import errno
import gzip
import hashlib
import io
import re
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, NameResolutionError, ReadTimeoutError, SSLError
from urllib3.util.retry import Retry

from bcw_assets import settings as environment
from bcw_assets.deadline import within
from bcw_assets.errors import SourceRefused, SourceUnavailable
from bcw_assets.ml.table.reading import DAMAGES, UCI_TABLE
from bcw_assets.settings import EMBEDDED, Settings

UCI_ADDRESSES = (
    "https://archive.ics.uci.edu/ml/machine-learning-databases/breast-cancer-wisconsin/wdbc.data",
    "https://archive.ics.uci.edu/static/public/17/breast+cancer+wisconsin+diagnostic.zip",
)
UCI_SHA256 = "d606af411f3e5be8a317a5a8b652b425aaf0ff38ca683d5327ffff94c3695f4a"
UCI_LIMIT = 10 * 2**20  # bytes; the file has 124,103 and the zip 51,284
UCI_DEADLINE = 10.0  # seconds of wall clock for all tries of both addresses; each may use half of them
UCI_TRIES = 4  # of each address: an answer that fails at once should not cost ten seconds
NAMED_DEADLINE = 60.0  # seconds of wall clock for all tries of a source that the user named
NAMED_LIMIT = 2**32  # bytes; ten million rows have 2.5 thousand million
SILENCE = 10.0  # seconds without a byte after which one try of a named source is given up
BACK_OFF = 0.25  # seconds, times 0, 2, 6, 14, 30 and 32 after the tries that failed
CHUNK = 2**16
PASSING_STATUSES = {429, *range(500, 600)}  # statuses after which another try may help

SLOW = "no whole answer in time"
EMBEDDED_ORIGIN = "scikit-learn's embedded copy"


@dataclass(frozen=True)
class Try:
    """An attempt: how it ended, where, and after how many seconds, to a tenth; people meet them in this order."""

    outcome: str
    address: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.address}: {self.outcome} ({self.seconds} s)"


@dataclass(frozen=True)
class Download:
    """The bytes of the table, where they are from, and what it took."""

    content: bytes
    origin: str
    tries: tuple[Try, ...] = ()
    fallback: bool = False  # whether the embedded copy stands in for a source that could not be reached


class _Failure(Exception):
    """Why a try failed, whether another cannot help, and the seconds that the server asked to wait."""

    def __init__(self, outcome: str, *, final: bool = False, pause: float | None = None) -> None:
        super().__init__(outcome)
        self.final, self.pause = final, pause


def fetch(settings: Settings, tell: Callable[[str], object]) -> Download:
    """Return the table's bytes from where the settings say; `tell` gets a line about each try when it ends.

    A source that the user named and that does not answer in time raises SourceUnavailable, a wrong checksum
    SourceRefused.
    """
    if settings.source == EMBEDDED:
        return Download(_read_embedded(), EMBEDDED_ORIGIN)
    tries: list[Try] = []
    checksum, what = settings.source_sha256, "BCW_SOURCE_SHA256"
    if not settings.source_is_named:
        try:
            content, origin = _fetch_first(UCI_ADDRESSES, tries, tell, UCI_DEADLINE, UCI_LIMIT, UCI_TRIES)
        except SourceUnavailable:
            return Download(_read_embedded(), EMBEDDED_ORIGIN, tuple(tries), fallback=True)
        if urlsplit(origin).path.endswith(".zip"):
            content = _unpack_member(content, origin)
        checksum, what = UCI_SHA256, "UCI's file"
    elif "://" in settings.source:
        content, origin = _fetch_first((settings.source,), tries, tell, NAMED_DEADLINE, NAMED_LIMIT)
    else:
        content, origin = _read_file(Path(settings.source).expanduser()), settings.source
    if checksum and (actual := hashlib.sha256(content).hexdigest()) != checksum:
        raise SourceRefused(
            f"{origin} has SHA-256 {actual}, and {what} has {checksum}: these are other bytes. Nothing was changed. "
            f"If they are wanted, name the address as BCW_SOURCE and the new checksum as BCW_SOURCE_SHA256; "
            f"BCW_SOURCE=embedded works without any address"
        )
    return Download(content, origin, tuple(tries))


def _fetch_first(
    urls: Sequence[str], tries: list[Try], tell: Callable[[str], object],
    seconds: float, limit: int, most_tries: int | None = None,
) -> tuple[bytes, str]:  # fmt: skip
    """Return what the first address answers, or the next where it fails, and which; `tries` grows.

    Each has its share of the seconds. If none answers, a SourceUnavailable says so.
    """
    start = time.monotonic()
    for turn, url in enumerate(urls, 1):
        parts = urlsplit(url)  # the query may hold a token
        address = urlunsplit((parts.scheme, parts.netloc, parts.path, "…" if parts.query else "", ""))
        end, pause, failures = start + turn * seconds / len(urls), 0.0, 0
        while time.monotonic() + pause < end and failures != most_tries:
            time.sleep(pause)
            began, failure = time.monotonic(), None
            try:
                content = within(end - began, partial(_get, url, end, limit))
            except TimeoutError:
                failure = _Failure(SLOW)
            except _Failure as error:
                failure = error
            outcome = str(failure or f"{len(content):,} bytes")
            tries.append(Try(outcome, address, round(time.monotonic() - began, 1)))
            tell(str(tries[-1]))
            if failure is None:
                return content, address
            if failure.final:
                break
            failures += 1
            pause = BACK_OFF * min(32, 2**failures - 2) if failure.pause is None else failure.pause
    raise SourceUnavailable(
        f"The table could not be downloaded ({address}: {tries[-1].outcome}; tries: {len(tries)}, seconds: "
        f"{time.monotonic() - start:.0f}). Nothing was changed. Check BCW_SOURCE and the network and try again, or set "
        f"BCW_SOURCE=embedded to work offline"
    )


def _get(url: str, end: float, limit: int) -> bytes:
    """Return the body of one GET, decoded, of at most `limit` bytes."""
    timeout = min(SILENCE, max(0.01, end - time.monotonic()))
    try:
        with requests.get(url, stream=True, timeout=timeout, headers={"Accept-Encoding": "identity"}) as response:
            if response.status_code != requests.codes.ok:
                pause = _read_retry_after(response)
                outcome = f"status {response.status_code}" + ("" if pause is None else f", asks to wait {pause:,.0f} s")
                raise _Failure(outcome, final=response.status_code not in PASSING_STATUSES, pause=pause)
            body = bytearray()
            read: Callable[[int], bytes] = partial(response.raw.read1, decode_content=True)
            if response.headers.get("Content-Encoding") == "gzip":  # urllib3 would not say that it ends too soon
                read = gzip.GzipFile(fileobj=response.raw).read1
            # read1 returns what has arrived; read would wait for a whole chunk however slowly it drips.
            while chunk := read(CHUNK):
                body += chunk
                if len(body) > limit:
                    raise _Failure(f"more than {limit:,} bytes", final=True)
                if time.monotonic() >= end:
                    raise _Failure(SLOW)
            return bytes(body)
    except (requests.RequestException, HTTPError, ValueError, OSError, EOFError, zlib.error) as error:
        raise _explain(error, url) from error


def _read_retry_after(response: requests.Response) -> float | None:
    try:
        return Retry().get_retry_after(response.raw)
    except (InvalidHeader, ValueError, OverflowError):  # the last two: numbers and years beyond all bounds
        return None


def _explain(error: Exception, url: str) -> _Failure:
    """Say in words what went wrong. The error's own text is not shown: it holds the address with its query."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    proxy, bundle = environment.find_network_variables(url)
    is_malformed = isinstance(error, ValueError) and re.search("SOCKS|[Pp]roxy|parse", str(error))
    is_of_proxy = is_malformed or isinstance(error, requests.exceptions.ProxyError)
    is_of_tls = isinstance(error, requests.exceptions.SSLError) or isinstance(reason, SSLError)
    cases = (  # whether it is this, how it is called, whether another try cannot help
        (proxy and is_of_proxy, f"the proxy that {proxy} names cannot be used", True),
        ("certificate bundle, invalid path" in str(error), f"{bundle or 'the default set'} names no file", True),
        (isinstance(reason, NameResolutionError), "the host is unknown", True),
        (is_of_tls, "the certificate is not valid", True),
        (isinstance(error, requests.TooManyRedirects), "redirected for ever", True),
        (isinstance(error, requests.Timeout | ReadTimeoutError), SLOW, False),
        (isinstance(error, ValueError), "no valid http address", True),  # as are InvalidSchema and InvalidURL
        (isinstance(error, requests.ConnectionError), "the connection was refused or reset", False),
        (True, "the answer was cut short", False),
    )
    return next(_Failure(outcome, final=final) for is_so, outcome, final in cases if is_so)


def _unpack_member(content: bytes, origin: str) -> bytes:
    """Return the file inside UCI's zip, by its exact name; of a bomb only what the checksum needs."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(UCI_TABLE) as file:
            return file.read(UCI_LIMIT)
    except (*DAMAGES, KeyError, ValueError) as error:
        raise SourceRefused(f"{origin} is no zip from which {UCI_TABLE} can be read ({error})") from error


def _read_file(path: Path) -> bytes:
    try:
        if path.is_fifo() or path.is_char_device():
            raise OSError(errno.EINVAL, "it is no regular file")
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "it does not fit into the memory"
        problem = f"BCW_SOURCE is {str(path)[:200]!r}: {reason}. Nothing was changed"
        raise SourceUnavailable(f"{problem}; allowed are auto, embedded, an http(s) URL or a path") from error


def _read_embedded() -> bytes:
    """Return scikit-learn's copy as CSV: its names, its target (0 = malignant), the rows in UCI's order, no ids."""
    from sklearn.datasets import load_breast_cancer  # only this path needs the data sets, 0.2 s

    return bytes(load_breast_cancer(as_frame=True).frame.to_csv(index=False).encode())
