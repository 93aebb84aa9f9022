"""Bytes under keys in a bucket of S3, or of a server that speaks its language."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property, partial
from io import BytesIO
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote_plus, urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

from bcw_assets.deadline import within
from bcw_assets.errors import KeyMissing, StorageError, StorageRefused
from bcw_assets.places import Bucket
from bcw_assets.storage.stores import TEMPORARY, require_key, require_length, require_prefix

Result = TypeVar("Result")

CONNECTING, ANSWERING = 5, 15  # seconds of silence after which one attempt is given up
ATTEMPTS = 5  # of every request, with growing pauses between them
PATIENCE = 60  # seconds for a request with all its attempts, and for each piece of a body, however it drips
PAUSE = 0.1  # seconds, doubled each time, before what boto3 does not try again by itself
PIECE = 2**20  # bytes

NO_CONTENT, SERVER_ERROR = 204, 500  # statuses, the second and all above
MISSING = {"NoSuchKey", "404"}
EXISTS = {"PreconditionFailed", "412"}
MAY_PASS = {"ConditionalRequestConflict", "OperationAborted", "BadDigest", "IncompleteBody"}
"""Codes of answers after which trying again is the remedy, and boto3 does not: two writers met, bytes were lost."""
BROKEN_OFF = (FlexibleChecksumError, IncompleteReadError, ResponseParserError, ResponseStreamingError)
FAILURES = (BotoCoreError, ClientError, ResponseParserError, TimeoutError)

IS_OF_S3: dict[str, Callable[[dict[str, Any]], bool]] = {
    "get_object": lambda answer: "ETag" in answer,
    "put_object": lambda answer: "ETag" in answer,
    "list_objects_v2": lambda answer: "Name" in answer,
    "delete_object": lambda answer: answer["ResponseMetadata"]["HTTPStatusCode"] == NO_CONTENT,
}
"""What S3 answers, and the page of a proxy that asks for a password does not."""

NEW_SESSION = (
    "the session has expired. Get new credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
)
NO_PERMISSION = (
    "these credentials may not do that. Let their policy allow s3:GetObject, s3:PutObject, s3:DeleteObject and "
    "s3:ListBucket there"
)
OTHER_REGION = "the bucket is in another region{}. Set AWS_DEFAULT_REGION"
LACKING = (
    "the server lacks checksums or conditional writes. For the first, set AWS_REQUEST_CHECKSUM_CALCULATION="
    "when_required; for the second, set BCW_RELEASES to a place that has them, like a folder on a local disk"
)
REFUSALS = {
    "NoSuchBucket": "there is no such bucket. Create it, or set BCW_STORAGE (BCW_RELEASES for releases) to another",
    "InvalidBucketName": "that is no name of a bucket. Set BCW_STORAGE (BCW_RELEASES for releases) to another",
    "InvalidAccessKeyId": (
        "the access key is not known there. Set AWS_ACCESS_KEY_ID, and AWS_SESSION_TOKEN only for a key that has one"
    ),
    "SignatureDoesNotMatch": "the secret is not that of the access key. Set AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": NEW_SESSION,
    "ExpiredTokenException": NEW_SESSION,
    "InvalidToken": NEW_SESSION,
    "TokenRefreshRequired": NEW_SESSION,
    "RequestTimeTooSkewed": "the clocks of this machine and of the server differ too much. Set this machine's clock",
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
        with self._explained("read", key):
            self._fetch(key, target, at_most)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Put one object after another; put the old ones back if one cannot be put."""
        for key in files:
            require_key(key)
        with self._explained("write", ", ".join(files)):
            before = {key: self._content(key) for key in files}
            begun = []
            try:
                for key, content in files.items():
                    begun.append(key)  # an answer that is lost, or says 500, may hide that it was stored
                    self._put(key, content)
            except FAILURES as error:
                self._put_back({key: before[key] for key in begun}, error)
                raise

    def create(self, key: str, content: bytes) -> bool:
        """Put the object on the condition that there is none, which succeeds for one writer only."""
        require_key(key)
        with self._explained("create", key):
            try:
                self._put(key, content, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in EXISTS:
                    return False
                raise
            return True

    def list(self, prefix: str) -> list[str]:
        """Return the keys of the objects, page by page."""
        require_prefix(prefix)
        with self._explained("list", prefix):
            keys = [found["Key"].removeprefix(self._root) for found in self._listed(self._root + prefix)]
            # Consoles make an object with a slash at its end to show an empty folder.
            return sorted(key for key in keys if not key.endswith((TEMPORARY, "/")))

    def exists(self, key: str) -> bool:
        """Say whether there is such an object. By a listing: an answer to HEAD could not say what is wrong."""
        require_key(key)
        with self._explained("look up", key):
            found = next(self._listed(self._root + key, MaxKeys=1), None)  # the shortest key is listed first
            return found is not None and found["Key"] == self._root + key

    def delete(self, key: str) -> None:
        """Remove the object."""
        require_key(key)
        with self._explained("delete", key):
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
            connect_timeout=CONNECTING,
            read_timeout=ANSWERING,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        )
        try:
            return boto3.session.Session().client("s3", config=config)
        except BotoCoreError:  # some are ValueErrors, too
            raise
        except ValueError as error:  # what boto3 raises for an endpoint that is no URL
            raise StorageRefused(f"{error}. AWS_ENDPOINT_URL must be a URL like http://127.0.0.1:8333") from None

    def _listed(self, asked: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Return what begins with `asked`, page by page."""
        while True:
            page = self._ask("list_objects_v2", Prefix=asked, **options)
            found = page.get("Contents", [])
            # SeaweedFS 4.48 decodes what it echoes twice.
            answered = unquote_plus(page.get("Prefix", "")) == unquote_plus(asked)
            if not answered or not all(one["Key"].startswith(asked) for one in found):
                raise StorageError(f"{self._endpoint} listed something else than {asked!r}. Correct AWS_ENDPOINT_URL")
            yield from found
            following = page.get("NextContinuationToken")
            if following is None:
                return
            if following == options.get("ContinuationToken"):
                raise StorageError(f"{self._endpoint} lists the same page of {asked!r} for ever")
            options = {"ContinuationToken": following}

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
            body, piece = within(PATIENCE, partial(self._opened, key, at_most))
            with closing(body):
                target.write(piece)
                while len(piece) == PIECE:
                    piece = within(PATIENCE, partial(_next_piece, body))
                    target.write(piece)

        try:
            _again(attempt)
        except ClientError as error:
            if _code(error) in MISSING:
                raise KeyMissing(f"{key} is not in {self._place}") from None
            raise

    def _opened(self, key: str, at_most: int | None) -> tuple[Any, bytes]:
        """Return the body of an object, and its first piece."""
        answer = self._asked("get_object", Key=self._root + key)
        try:
            require_length(key, answer["ContentLength"], at_most)
            return answer["Body"], _next_piece(answer["Body"])
        except BaseException:
            answer["Body"].close()
            raise

    def _put(self, key: str, content: bytes, **conditions: str) -> None:
        self._ask("put_object", Key=self._root + key, Body=content, **conditions)

    def _put_back(self, files: Mapping[str, bytes | None], error: Exception) -> None:
        try:
            for key, content in files.items():
                if self._content(key) == content:
                    continue
                if content is None:
                    self._ask("delete_object", Key=self._root + key)
                else:
                    self._put(key, content)
        except FAILURES as worse:
            raise StorageError(
                f"Could not write {', '.join(files)} in {self._place}: {self._reason(error)[0]}; nor could what was "
                f"there be put back: {self._reason(worse)[0]}. Old and new may be mixed now, which loading refuses; "
                f"make the artifact again"
            ) from None

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        seconds = PATIENCE * (1 + len(arguments.get("Body", b"")) / PIECE)  # a slow line is no fault
        return _again(lambda: within(seconds, partial(self._asked, operation, **arguments)))

    def _asked(self, operation: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._place.name, **arguments)
        if not IS_OF_S3[operation](answer):
            raise ResponseParserError(f"{operation} was not answered by S3")
        return answer

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            reason, may_pass = self._reason(error)
            kind = StorageError if may_pass else StorageRefused
            unchanged = "" if verb == "delete" else ". What was stored before is unchanged"
            # Without the cause, whose text may show what the request was signed with.
            raise kind(
                f"Could not {verb} {key or 'what is'} in {self._place}: {reason}, and try again{unchanged}"
            ) from None

    def _reason(self, error: Exception) -> tuple[str, bool]:
        """Return in one line what is wrong and what to do, without secrets; and whether it may pass by itself."""
        if isinstance(error, ClientError):
            code, said = _code(error), error.response.get("Error", {})
            if code in REFUSALS:
                region = said.get("Region")
                return REFUSALS[code].format(f", {region}" if region else ""), False
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            may_pass = status >= SERVER_ERROR or code in MAY_PASS
            return f"{self._endpoint} answered {status} {code}. Look at its log", may_pass
        return self._reason_without_answer(error)

    def _reason_without_answer(self, error: Exception) -> tuple[str, bool]:
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return "there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE", False
        if isinstance(error, SSLError):
            return f"{self._endpoint} has no valid certificate. Set AWS_CA_BUNDLE, or correct AWS_ENDPOINT_URL", False
        if isinstance(error, TimeoutError):
            return f"{self._endpoint} gave {error}. See whether it is overloaded", True
        if isinstance(error, BROKEN_OFF):
            return f"{self._endpoint} broke off its answers, or they are none of S3. Correct AWS_ENDPOINT_URL", True
        if isinstance(error, NoConnection | HTTPClientError):
            return f"{self._endpoint} cannot be reached, or does not answer. Start it, or set AWS_ENDPOINT_URL", True
        words = " ".join(str(error).split())[:300].rstrip(".")  # of the settings and files that boto3 reads
        return f"{words}. Correct the AWS_ variables or the files that they name", False

    @property
    def _endpoint(self) -> str:
        """The server, without credentials that may stand in its address."""
        address = urlsplit(self._client.meta.endpoint_url)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"


def _again(act: Callable[[], Result]) -> Result:
    """Do something again that boto3 does not: when two writers met, and when an answer broke off."""
    for attempt in range(1, ATTEMPTS):
        try:
            return act()
        except BROKEN_OFF:
            pass
        except ClientError as error:
            if _code(error) not in MAY_PASS:
                raise
        time.sleep(PAUSE * 2**attempt)
    return act()


def _next_piece(body: Any) -> bytes:
    """Return the next bytes of a body, fewer than a piece only at its end."""
    try:
        piece: bytes = body.read(PIECE)
        if len(piece) < PIECE:
            body.read(PIECE)  # at the end, boto3 holds length and checksum against what the server promised
    except ReadTimeoutError as error:
        raise ResponseStreamingError(error=error) from error
    return piece


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
