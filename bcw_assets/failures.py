"""Turns this project's errors into Dagster's, which the UI shows and retries obey."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from bcw_assets.errors import BcwError


@contextmanager
def explained() -> Iterator[None]:
    """Let a BcwError within fail the step with its own words, and let a retry policy try again only where it may help.

    As a decorator it does the same for a whole function.
    """
    try:
        yield
    except BcwError as error:
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__},
            allow_retries=error.retry_may_help,
        ) from error
