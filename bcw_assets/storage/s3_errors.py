"""What S3 and boto3 say when something goes wrong, in words that say what to set, and without secrets."""

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
    ResponseStreamingError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

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


def code_of(error: ClientError) -> str:
    """Return what S3 calls the error; the status, where it says nothing."""
    return str(error.response.get("Error", {}).get("Code", ""))


def words(error: Exception, endpoint: str) -> tuple[str, str, bool]:
    """Return what is wrong, what to do, and whether it may pass by itself.

    Args:
        error: one of the `FAILURES`. Its own text may show a signature, and is told only of settings.
        endpoint: the address of the server, for people.
    """
    if isinstance(error, ClientError):
        return _answered(error, endpoint)
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
    said = " ".join(str(error).split())[:300].rstrip(".")
    return said, "Correct the AWS_ variables or the files that they name", False


def _answered(error: ClientError, endpoint: str) -> tuple[str, str, bool]:
    code = code_of(error)
    if code in REFUSALS:
        problem, remedy = REFUSALS[code]
        region = error.response.get("Error", {}).get("Region")
        return problem.format(f", {region}" if region else ""), remedy, False
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    may_pass = status >= SERVER_ERROR or code in MAY_PASS
    return f"{endpoint} answered {status} {code if code.isalnum() else ''}".rstrip(), "Look at its log", may_pass
