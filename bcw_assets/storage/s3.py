"""Bytes under keys in a bucket of S3, or of a server that speaks its language; what its errors mean is in a table."""

import csv
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as boto
from botocore.config import Config
from botocore.parsers import ResponseParserError

from bcw_assets.deadline import within
from bcw_assets.errors import KeyMissing, KeyRefused, StorageError, StorageUnavailable
from bcw_assets.locations import S3, TEMPORARY, Bucket, require_key, require_length

CONNECT_TIMEOUT, READ_TIMEOUT = 5, 10  # seconds of silence after which boto3 gives one attempt up
ATTEMPTS = 5  # of a request by boto3; and again by us, where boto3 gives up what may pass
REQUEST_LIMIT = 75  # seconds for a request with all its attempts, and for each piece of a body, however it drips
PAUSE = 0.1  # seconds, doubled each time, before what boto3 does not try again by itself
PIECE = 2**20  # bytes

# What an answer of S3 has, and the page of a proxy that asks for a password has not; that to a deletion is empty.
SIGNS = {"get_object": "ETag", "put_object": "ETag", "list_objects_v2": "Name"}
MISSING = {"NoSuchKey", "404"}
EXISTS = {"PreconditionFailed", "412"}
# After these trying again helps, and boto3 does not: two writers met, or bytes were lost.
CONFLICTS = {"ConditionalRequestConflict", "OperationAborted", "BadDigest", "IncompleteBody"}
BROKEN_OFF = (boto.FlexibleChecksumError, boto.IncompleteReadError, ResponseParserError, boto.ResponseStreamingError)
FAILURES = (boto.BotoCoreError, boto.ClientError, ResponseParserError, TimeoutError)
ERRORS = Path(__file__).with_name("s3_errors.csv")  # code, or class of an exception → what is wrong, what to do


class S3Store:
    """What is below a prefix in a bucket; nothing is asked for before the first use."""

    def __init__(self, place: Bucket) -> None:
        self._place = place
        self._root = f"{place.prefix}/" if place.prefix else ""

    def read(self, key: str, at_most: int | None = None) -> bytes:
        self.download(key, content := BytesIO(), at_most)
        return content.getvalue()

    def download(self, key: str, target: BinaryIO, at_most: int | None = None) -> None:
        """Write the bytes of the object into a file, which is emptied before every attempt."""

        def attempt() -> None:
            target.seek(0)
            target.truncate()
            answer = within(REQUEST_LIMIT, partial(self._send, "get_object", Key=self._locate(key)))
            try:
                require_length(key, answer["ContentLength"], at_most)
            except KeyRefused:
                answer["Body"].close()
                raise
            while piece := within(REQUEST_LIMIT, partial(_read_piece, answer["Body"])):
                target.write(piece)

        with self._explain_errors("read", key):
            _retry(attempt)

    def write(self, files: Mapping[str, bytes]) -> None:
        with self._explain_errors("write", ", ".join(files)):
            for key, content in files.items():
                self._ask("put_object", Key=self._locate(key), Body=content)

    def create(self, key: str, content: bytes) -> bool:
        """Put the object on the condition that there is none, which succeeds for one writer only."""
        with self._explain_errors("create", key):
            try:
                self._ask("put_object", Key=self._locate(key), Body=content, IfNoneMatch="*")
            except FAILURES as error:
                if get_code(error) in EXISTS:
                    return False
                with suppress(StorageError):
                    if self.read(key) == content:  # the answer was lost
                        return True
                raise
            return True

    def list(self, prefix: str) -> list[str]:
        if "/" in prefix:
            require_key(prefix.rpartition("/")[0])
        keys, options = [], {"Prefix": self._root + prefix}
        with self._explain_errors("list", prefix or "what is"):
            while page := self._ask("list_objects_v2", **options):
                keys += [item["Key"].removeprefix(self._root) for item in page.get("Contents", [])]
                if "NextContinuationToken" not in page:
                    break
                options["ContinuationToken"] = page["NextContinuationToken"]
        # Consoles make an object with a slash at its end to show an empty folder.
        return sorted(key for key in keys if not key.endswith((TEMPORARY, "/")))

    def delete(self, key: str) -> None:
        with self._explain_errors("delete", key):
            self._ask("delete_object", Key=self._locate(key))

    def address(self, key: str) -> str:
        return f"{S3}{self._place.name}/{self._locate(key)}"

    @cached_property
    def _client(self) -> Any:
        # Not dagster_aws' S3Resource, which takes no time-outs and would bring Dagster to `bcw predict`.
        retries: Any = {"mode": "standard", "total_max_attempts": ATTEMPTS}
        config = Config(connect_timeout=CONNECT_TIMEOUT, read_timeout=READ_TIMEOUT, retries=retries)
        try:
            return boto3.session.Session().client("s3", config=config)
        except boto.BotoCoreError:  # some are ValueErrors, too
            raise
        except ValueError:  # of an endpoint that is no URL
            allowed = "allowed is one like http://127.0.0.1:8333"
            raise StorageError(f"AWS_ENDPOINT_URL is no URL; {allowed}. Set it, and try again") from None

    def _locate(self, key: str) -> str:
        require_key(key)
        return self._root + key

    def _ask(self, operation: str, **arguments: Any) -> Any:
        seconds = REQUEST_LIMIT * (1 + len(arguments.get("Body", b"")) / PIECE)  # a slow line is no fault
        return _retry(lambda: within(seconds, partial(self._send, operation, **arguments)))

    def _send(self, operation: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._place.name, **arguments)
        is_empty = answer["ResponseMetadata"]["HTTPStatusCode"] == 204  # no content
        if not (SIGNS[operation] in answer if operation in SIGNS else is_empty):
            raise ResponseParserError(f"{operation} was not answered by S3")
        return answer

    @contextmanager
    def _explain_errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except FAILURES as error:
            if verb == "read" and get_code(error) in MISSING:
                raise KeyMissing(f"{key} is not in {self._place}") from None
            problem, remedy, kind = explain(error, self._endpoint)
            state = ". Files may be new now; loading refuses old and new ones mixed" if verb == "write" else ""
            if verb == "create" and kind is StorageUnavailable:  # a refusal stores nothing
                state = ". It may be there all the same: look first"
            # Without the cause, whose text may show what the request was signed with.
            raise kind(f"Could not {verb} {key} in {self._place}: {problem}{state}. {remedy}, and try again") from None

    @property
    def _endpoint(self) -> str:
        """The server, without credentials that may stand in its address."""
        if "_client" not in vars(self):  # it could not be made
            return "S3"
        address = urlsplit(self._client.meta.endpoint_url)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"


def _retry(act: Callable[[], Any]) -> Any:
    """Do something again that boto3 does not: when two writers met, and when an answer broke off."""
    for attempt in range(1, ATTEMPTS):
        try:
            return act()
        except (*BROKEN_OFF, boto.ClientError) as error:
            if isinstance(error, boto.ClientError) and get_code(error) not in CONFLICTS:
                raise
        time.sleep(PAUSE * 2**attempt)
    return act()


def _read_piece(body: Any) -> bytes:
    """Return the next bytes of a body, none at its end, where boto3 looks at length and checksum."""
    try:
        return bytes(body.read(PIECE))
    except boto.ReadTimeoutError as error:
        raise boto.ResponseStreamingError(error=error) from error


def get_code(error: Exception) -> str:
    """Return what S3 calls the error, or the status where it says nothing; nothing if it is no answer of S3."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, boto.ClientError) else ""


def explain(error: Exception, endpoint: str) -> tuple[str, str, type[StorageError]]:
    """Return of one of the `FAILURES` what is wrong, what to do, and the error to raise.

    The error's own text may show a signature: it is only taken of settings and of our own limit.
    """
    answer = error.response if isinstance(error, boto.ClientError) else {}
    code, region = get_code(error), answer.get("Error", {}).get("Region")
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    with ERRORS.open(encoding="utf-8", newline="") as file:
        rows = {name: row for row in csv.DictReader(file) for name in row["names"].split()}
    names = [code, f"{status // 100}xx", *(kind.__name__ for kind in type(error).__mro__)]
    row = next(rows[name] for name in names if name in rows)
    problem = row["problem"].format(
        endpoint=endpoint,
        region=f", {region}" if region else "",
        answer=f"{status} {code if code.isalnum() else ''}".rstrip(),
        text=" ".join(str(error).split())[:300].rstrip("."),
    )
    return problem, row["remedy"], {"yes": StorageUnavailable, "no": StorageError}[row["may_pass"]]
