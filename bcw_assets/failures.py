"""Turns this project's errors into Dagster's, which the UI shows and retries obey."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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
            metadata={
                "error": type(error).__name__,
                **({error.rows_are: as_table(error.rows)} if error.rows else {}),
            },
            allow_retries=error.retry_may_help,
        ) from error


def as_table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return rows that all have the same names as a table for the UI."""
    schema = dg.TableSchema([dg.TableColumn(name) for name in rows[0]] if rows else [])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema)
