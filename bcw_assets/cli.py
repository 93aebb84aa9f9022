"""The `bcw` command: options and exit codes. What a command does stands in a module that it imports when it runs."""

import sys

import click

from bcw_assets import settings
from bcw_assets.errors import BcwError


@click.group()
def main() -> None:
    """Train and measure a classifier of the Breast Cancer Wisconsin (Diagnostic) table."""


@main.command()
def refresh() -> None:
    """Make every asset again, with every check.

    This is the run of `dagster asset materialize -m bcw_assets --select '*'`. Progress goes to the terminal while it
    works, and a summary to standard output. The exit code is 0, or 1 if an asset or a blocking check failed: the last
    lines then say why, and what to do.
    """
    try:
        settings.read_env_file()
        from bcw_assets.refresh import run  # 1.5 s of imports, which `bcw --help` does without

        click.echo(run(show_progress=sys.stderr.isatty()))
    except (BcwError, OSError) as error:  # the second: standard output is full
        click.echo(f"Failed: {error}", err=True)
        sys.exit(1)
