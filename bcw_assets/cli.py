"""The `bcw` command: options and exit codes. What a command does stands in a module that it imports when it runs."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from bcw_assets import settings
from bcw_assets.errors import BcwError


@click.group()
def main() -> None:
    """Train and measure a classifier of the Breast Cancer Wisconsin (Diagnostic) table."""


@contextmanager
def _explained() -> Iterator[None]:
    """End with the error's message and exit code 1, without a traceback."""
    try:
        settings.read_env_file()
        yield
    except (BcwError, OSError) as error:  # the second: standard output is full
        click.echo(f"Failed: {error}", err=True)
        sys.exit(1)


@main.command()
def refresh() -> None:
    """Make every asset again, with every check.

    This is the run of `dagster asset materialize -m bcw_assets --select '*'`. Progress goes to the terminal while it
    works, and a summary to standard output. The exit code is 0, or 1 if an asset or a blocking check failed: the last
    lines then say why, and what to do.
    """
    with _explained():
        # Dagster and scikit-learn are 1.5 s of imports, which `bcw --help` does without.
        from bcw_assets.refresh import run

        click.echo(run(show_progress=sys.stderr.isatty()))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of a table.")
def checks(*, as_json: bool) -> None:
    """Show the latest result of every check of the latest materialisations.

    Nothing is run and no server is needed. The exit code is 0 if every blocking check passed, and 1 if one did not, or
    has not run.
    """
    with _explained():
        # Dagster and scikit-learn are 1.5 s of imports, which `bcw --help` does without.
        from bcw_assets.check_report import latest_report

        found = latest_report()
        click.echo(found.as_json() if as_json else found.as_text())
        if not found.is_good:
            sys.exit(1)
