"""Bytes under keys in a bucket of S3, or of a server that speaks its language, and what it says when that fails."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from io import BytesIO
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote_plus, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

from bcw_assets.deadline import within
from bcw_assets.errors import KeyMissing, KeyRefused, StorageError, StorageRefused
from bcw_assets.locations import TEMPORARY, Bucket, require_key, require_length, require_prefix

Result = TypeVar("Result")

CONNECT_TIMEOUT, READ_TIMEOUT = 5, 10  # seconds of silence after which one attempt is given up
ATTEMPTS = 5  # of a request by boto3; and again by us, where boto3 gives up what may pass
PATIENCE = 75  # seconds for a request with all its attempts, and for each piece of a body, however it drips
PAUSE = 0.1  # seconds, doubled each time, before what boto3 does not try again by itself
PIECE = 2**20  # bytes

IS_OF_S3: dict[str, Callable[[dict[str, Any]], bool]] = {
    "get_object": lambda answer: "ETag" in answer,
    "put_object": lambda answer: "ETag" in answer,
    "list_objects_v2": lambda answer: "Name" in answer,
    "delete_object": lambda answer: answer["ResponseMetadata"]["HTTPStatusCode"] == 204,  # no content
}
"""What S3 answers, and the page of a proxy that asks for a password does not."""

MISSING = {"NoSuchKey", "404"}
EXISTS = {"PreconditionFailed", "412"}
MAY_PASS = {"ConditionalRequestConflict", "OperationAborted", "BadDigest", "IncompleteBody"}
"""Codes of answers after which trying again is the remedy, and boto3 does not: two writers met, bytes were lost."""

BROKEN_OFF = (FlexibleChecksumError, IncompleteReadError, ResponseParserError, ResponseStreamingError)
FAILURES = (BotoCoreError, ClientError, ResponseParserError, TimeoutError)
SERVER_ERROR = 500  # status, like all above

NEW_SESSION = (
    "the session has expired",
    "Get new credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
)
NO_PERMISSION = (
    "these credentials may not do that",
    "Let their policy allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket there",
)
OTHER_REGION = ("the bucket is in another region{}", "Set AWS_DEFAULT_REGION")
LACKING = (
    "the server lacks checksums or conditional writes",
    "For the first, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required; for the second, BCW_RELEASES to another place",
)
ANOTHER_BUCKET = "name another (BCW_STORAGE, BCW_RELEASES for releases, or the input)"
REFUSALS = {
    "NoSuchBucket": ("there is no such bucket", f"Create it, or {ANOTHER_BUCKET}"),
    "InvalidBucketName": ("that is no name of a bucket", f"Please {ANOTHER_BUCKET}"),
    "InvalidAccessKeyId": (
        "the access key is not known there",
        "Set AWS_ACCESS_KEY_ID, and AWS_SESSION_TOKEN only for a key that has one",
    ),
    "SignatureDoesNotMatch": ("the secret is not that of the access key", "Set AWS_SECRET_ACCESS_KEY"),
    "ExpiredToken": NEW_SESSION,
    "ExpiredTokenException": NEW_SESSION,
    "InvalidToken": NEW_SESSION,
    "TokenRefreshRequired": NEW_SESSION,
    "RequestTimeTooSkewed": (
        "the clocks of this machine and of the server differ too much",
        "Set this machine's clock",
    ),
    "AccessDenied": NO_PERMISSION,
    "403": NO_PERMISSION,
    "AuthorizationHeaderMalformed": OTHER_REGION,
    "IllegalLocationConstraintException": OTHER_REGION,
    "PermanentRedirect": OTHER_REGION,
    "301": OTHER_REGION,
    "NotImplemented": LACKING,
    "501": LACKING,
}
"""Code of an answer that will be the same at the next attempt → what is wrong, and what to do."""


class S3Store:
    """What is below a prefix in a bucket."""

    def __init__(self, place: Bucket) -> None:
        """Keep everything at `place`; nothing is asked for before the first use."""
        self._place = place

    def read(self, key: str, at_most: int | None = None) -> bytes:
        """Return the bytes of the object."""
        content = BytesIO()
        self.download(key, content, at_most)
        return content.getvalue()

    def download(self, key: str, target: BinaryIO, at_most: int | None = None) -> None:
        """Write the bytes of the object into a file, which is emptied before."""
        require_key(key)
        with self._explain_errors("read", key):
            self._fetch(key, target, at_most)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Put one object after the other."""
        for key in files:
            require_key(key)
        with self._explain_errors("write", ", ".join(files)):
            for key, content in files.items():
                self._put(key, content)

    def create(self, key: str, content: bytes) -> bool:
        """Put the object on the condition that there is none, which succeeds for one writer only."""
        require_key(key)
        with self._explain_errors("create", key):
            try:
                self._put(key, content, IfNoneMatch="*")
            except FAILURES as error:
                if isinstance(error, ClientError) and get_code(error) in EXISTS:
                    return False
                if self._content(key) != content:  # if it is, the answer was lost
                    raise
            return True

    def list(self, prefix: str) -> list[str]:
        """Return the keys of the objects, page by page."""
        require_prefix(prefix)
        with self._explain_errors("list", prefix):
            keys = [item["Key"].removeprefix(self._root) for item in self._find(self._root + prefix)]
            # Consoles make an object with a slash at its end to show an empty folder.
            return sorted(key for key in keys if not key.endswith((TEMPORARY, "/")))

    def exists(self, key: str) -> bool:
        """Say whether there is such an object. By a listing: an answer to HEAD could not say what is wrong."""
        require_key(key)
        with self._explain_errors("look up", key):
            item = next(self._find(self._root + key, MaxKeys=1), None)  # the shortest key is listed first
            return item is not None and item["Key"] == self._root + key

    def delete(self, key: str) -> None:
        """Remove the object."""
        require_key(key)
        with self._explain_errors("delete", key):
            self._ask("delete_object", Key=self._root + key)

    def address(self, key: str) -> str:
        """Return the URI."""
        require_key(key)
        return f"{self._place}/{key}"

    @property
    def _root(self) -> str:
        return f"{self._place.prefix}/" if self._place.prefix else ""

    @cached_property
    def _client(self) -> Any:
        # Not dagster_aws' S3Resource, which takes no time-outs and would bring Dagster to `bcw predict`.
        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        try:
            return boto3.session.Session().client("s3", config=config)
        except BotoCoreError:  # some are ValueErrors, too
            raise
        except ValueError:  # what boto3 raises for an endpoint that is no URL
            raise StorageRefused(
                "AWS_ENDPOINT_URL is no URL; allowed is one like http://127.0.0.1:8333. Set it, and try again"
            ) from None

    def _find(self, prefix: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Return the objects whose key begins with `prefix`, page by page."""
        while True:
            page = self._ask("list_objects_v2", Prefix=prefix, **options)
            items = page.get("Contents", [])
            # SeaweedFS 4.48 decodes what it echoes twice.
            is_answer = unquote_plus(page.get("Prefix", "")) == unquote_plus(prefix)
            if not is_answer or not all(item["Key"].startswith(prefix) for item in items):
                raise StorageError(f"{self._endpoint} listed something else than {prefix!r}. Correct AWS_ENDPOINT_URL")
            yield from items
            token = page.get("NextContinuationToken")
            if token is None:
                return
            if token == options.get("ContinuationToken"):
                raise StorageError(f"{self._endpoint} lists the same page of {prefix!r} for ever")
            options = {"ContinuationToken": token}

    def _content(self, key: str) -> bytes | None:
        content = BytesIO()
        try:
            self._fetch(key, content)
        except KeyMissing:
            return None
        return content.getvalue()

    def _fetch(self, key: str, target: BinaryIO, at_most: int | None = None) -> None:
        def attempt() -> None:
            target.seek(0)
            target.truncate()
            body, piece = within(PATIENCE, partial(self._open, key, at_most))
            target.write(piece)
            while len(piece) == PIECE:
                piece = within(PATIENCE, partial(_next_piece, body))
                target.write(piece)

        try:
            _retry(attempt)
        except ClientError as error:
            if get_code(error) in MISSING:
                raise KeyMissing(f"{key} is not in {self._place}") from None
            raise

    def _open(self, key: str, at_most: int | None) -> tuple[Any, bytes]:
        """Return the body of an object, and its first piece."""
        answer = self._send("get_object", Key=self._root + key)
        try:
            require_length(key, answer["ContentLength"], at_most)
        except KeyRefused:
            answer["Body"].close()
            raise
        return answer["Body"], _next_piece(answer["Body"])

    def _put(self, key: str, content: bytes, **conditions: str) -> None:
        self._ask("put_object", Key=self._root + key, Body=content, **conditions)

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        seconds = PATIENCE * (1 + len(arguments.get("Body", b"")) / PIECE)  # a slow line is no fault
        return _retry(lambda: within(seconds, partial(self._send, operation, **arguments)))

    def _send(self, operation: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._place.name, **arguments)
        if not IS_OF_S3[operation](answer):
            raise ResponseParserError(f"{operation} was not answered by S3")
        return answer

    @contextmanager
    def _explain_errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            problem, remedy, may_pass = explain(error, self._endpoint)
            kind = StorageError if may_pass else StorageRefused
            state = ". Old and new files may be mixed now, which loading refuses" if verb == "write" else ""
            if verb == "create" and may_pass:
                state = ". It may be there all the same: look first"
            # Without the cause, whose text may show what the request was signed with.
            raise kind(
                f"Could not {verb} {key or 'what is'} in {self._place}: {problem}{state}. {remedy}, and try again"
            ) from None

    @property
    def _endpoint(self) -> str:
        """The server, without credentials that may stand in its address."""
        if "_client" not in vars(self):  # it could not be made
            return "S3"
        address = urlsplit(self._client.meta.endpoint_url)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"


def _retry(act: Callable[[], Result]) -> Result:
    """Do something again that boto3 does not: when two writers met, and when an answer broke off."""
    for attempt in range(1, ATTEMPTS):
        try:
            return act()
        except BROKEN_OFF:
            pass
        except ClientError as error:
            if get_code(error) not in MAY_PASS:
                raise
        time.sleep(PAUSE * 2**attempt)
    return act()


def _next_piece(body: Any) -> bytes:
    """Return the next bytes of a body, fewer than a piece only at its end.

    Closes the body itself: while a thread waits for bytes, another that closes would wait with it.
    """
    piece: bytes = b""
    try:
        piece = body.read(PIECE)
        if len(piece) < PIECE:
            body.read(PIECE)  # at the end, boto3 holds length and checksum against what the server promised
    except ReadTimeoutError as error:
        raise ResponseStreamingError(error=error) from error
    finally:
        if len(piece) < PIECE:
            body.close()
    return piece


def get_code(error: ClientError) -> str:
    """Return what S3 calls the error; the status, where it says nothing."""
    return str(error.response.get("Error", {}).get("Code", ""))


def explain(error: Exception, endpoint: str) -> tuple[str, str, bool]:
    """Return what is wrong, what to do, and whether it may pass by itself.

    Args:
        error: one of the `FAILURES`. Its own text may show a signature, and is told only of settings.
        endpoint: the address of the server, for people.
    """
    if isinstance(error, ClientError):
        return _explain_answer(error, endpoint)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return "there are no credentials", "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE", False
    if isinstance(error, CredentialRetrievalError):
        return "no credentials could be had", "Look at AWS_PROFILE and the program or service that it names", True
    if isinstance(error, ProxyConnectionError):
        return "the proxy cannot be reached", "Start it, or set HTTP_PROXY, HTTPS_PROXY or NO_PROXY", True
    if isinstance(error, SSLError):
        return f"{endpoint} has no valid certificate", "Set AWS_CA_BUNDLE, or correct AWS_ENDPOINT_URL", False
    if isinstance(error, TimeoutError):
        return f"{endpoint} gave {error}", "See whether it is overloaded", True
    if isinstance(error, BROKEN_OFF):
        return f"{endpoint} broke off its answers, or they are none of S3", "Correct AWS_ENDPOINT_URL", True
    if isinstance(error, NoConnection | HTTPClientError):
        return f"{endpoint} cannot be reached, or does not answer", "Start it, or set AWS_ENDPOINT_URL", True
    text = " ".join(str(error).split())[:300].rstrip(".")
    return text, "Correct the AWS_ variables or the files that they name", False


def _explain_answer(error: ClientError, endpoint: str) -> tuple[str, str, bool]:
    code = get_code(error)
    if code in REFUSALS:
        problem, remedy = REFUSALS[code]
        region = error.response.get("Error", {}).get("Region")
        return problem.format(f", {region}" if region else ""), remedy, False
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    may_pass = status >= SERVER_ERROR or code in MAY_PASS
    return f"{endpoint} answered {status} {code if code.isalnum() else ''}".rstrip(), "Look at its log", may_pass
