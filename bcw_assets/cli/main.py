"""The `bcw` command: options and exit codes. What a command does stands in a module that it imports when it runs.

Dagster and scikit-learn take 1.5 s to import, and NumPy 0.1 s, which `bcw --help` does without.
"""

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

from bcw_assets import settings
from bcw_assets.errors import BcwError, SettingsError, TableError
from bcw_assets.operations import notifiers
from bcw_assets.storage.store import Store, open_store

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON instead of text.")


class _Commands(click.Group):
    """Ends a command that fails with the error's message and an exit code, without a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            settings.read_env_file()
            return super().invoke(context)
        except (BcwError, OSError) as error:  # the second: standard output is full
            click.echo(f"Failed: {error}", err=True)
            sys.exit(2 if isinstance(error, TableError) else 1)


@click.group(cls=_Commands)
@click.version_option(package_name="bcw-assets")
def main() -> None:
    """Train and measure a classifier of the Breast Cancer Wisconsin (Diagnostic) table."""


@main.command(epilog="Example: bcw refresh metrics release")
@click.argument("assets", metavar="[ASSET]...", nargs=-1)
def refresh(assets: tuple[str, ...]) -> None:
    """Make every asset again, or the named ones.

    ASSET is raw_data, ready_data, model, cross_validation, metrics or release; each is made with its checks, from what
    the stages before it stored. Progress goes to the terminal, and a summary to standard output. The exit code is 0,
    or 1 if an asset or a blocking check failed: the last lines then say why, and what to do.
    """
    from bcw_assets import defs  # noqa: F401 (it first saves a fifth of the time)
    from bcw_assets.cli.refresh import refresh_graph

    click.echo(refresh_graph(assets, show_progress=sys.stderr.isatty()))


@main.command(epilog="Example: bcw dev --port 3001")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Of 127.0.0.1.")
def dev(port: int) -> None:
    """Show graph, runs and checks in the browser, until Ctrl-C.

    This is Dagster's UI, with its schedules, of the history in DAGSTER_HOME, by default in the folder .dagster here.
    """
    from bcw_assets.cli.dev import serve_ui

    serve_ui(port)


@main.command(epilog="Example: bcw checks --json")
@json_option
def checks(*, as_json: bool) -> None:
    """Show the latest result of every check.

    It is about what was made last, and names what was made from something else than is there now. Nothing is run and no
    server is needed. The exit code is 0 if every blocking check passed, and 1 if one did not, or has not run.
    """
    from bcw_assets.cli.checks import format_report, read_latest_report

    report = read_latest_report()
    _write(report, format_report, as_json=as_json)
    if not report["good"]:
        sys.exit(1)


@main.command(epilog="Example: bcw predict my_table.csv -o scores.csv")
@click.argument("sources", metavar="INPUT...", nargs=-1, required=True)
@click.option("-o", "target", metavar="OUT", default="-", help="The file for the rows; standard output if left out.")
@click.option("--release", metavar="ID", help="The first characters of a release's id; the champion if left out.")
@click.option(
    "--threshold", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Malignant from this probability."
)
@click.option("--explain", is_flag=True, help="Add the three measurements that move each row most.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes, for a folder.")
@click.option("--scheduler", metavar="URL", help="A Dask cluster, for a folder, like tcp://host:8786.")
def predict(sources: tuple[str, ...], target: str, workers: int, scheduler: str | None, **options: Any) -> None:
    """Score the rows of a table with a release.

    INPUT is any form of the table, with or without diagnoses: CSV, Excel, LibreOffice or Parquet, perhaps packed. Give
    a path, s3://bucket/key, or - for standard input. The rows come out in their order, with a probability or with what
    is wrong with them. OUT is written whole or not at all.

    If OUT ends with /, it is a folder, or a prefix on S3, and INPUT any number of files, folders, patterns and prefixes
    that end with /. Each file gets an output of its name, as Parquet if that ends so, else as CSV. What is there is not
    scored again, so that a command goes on where it was stopped, and any number of machines may share the work.

    The exit code is 0; 3 if some rows or files were not scored; 2 if no input can be used; 1 if anything else failed.
    """
    from bcw_assets.cli.predict import Request, score_file

    if math.isnan(options["threshold"]):  # no comparison tells it from what is within a range
        raise click.BadParameter("nan is no number; allowed are 0 to 1", param_hint="'--threshold'")
    request = Request(sources[0], target, **options)
    if workers > 1 and scheduler:
        raise click.UsageError("Give --workers or --scheduler, not both")
    if target.endswith("/"):
        from bcw_assets.cli.folder_scoring import score_folder

        sys.exit(score_folder(sources, request, workers, scheduler))
    if len(sources) > 1 or workers > 1 or scheduler:
        raise click.UsageError("Several files, --workers and --scheduler need a folder: -o FOLDER/, with / at its end")
    sys.exit(score_file(request))


@main.command("notify-test", epilog="Example: bcw notify-test")
def notify_test() -> None:
    """Send a test message to every messenger in BCW_NOTIFY_URLS.

    Each is named by its position and its scheme, for its URL is a secret. The exit code is 0 if all accepted the
    message, and 1 if one did not (it says why) or there is none.
    """
    results = notifiers.send_test(settings.read_environment())
    for messenger, reason in results.items():
        click.echo(f"{messenger}: {f'not accepted: {reason}' if reason else 'accepted'}")
    if any(results.values()):
        raise SettingsError("not all accepted the message; correct BCW_NOTIFY_URLS, or see whether they are up")


@main.group()
def releases() -> None:
    """Look at releases, verify them, go back to an earlier one.

    They are where BCW_RELEASES says, or BCW_STORAGE. A release is named by the beginning of its id.
    """


@releases.command("list", epilog="Example: bcw releases list")
@json_option
def list_releases(*, as_json: bool) -> None:
    """Show every promotion and rollback, the champion last."""
    _show("list", as_json=as_json)


@releases.command(epilog="Example: bcw releases show 2842")
@click.argument("release", required=False)
@json_option
def show(release: str | None, *, as_json: bool) -> None:
    """Show a release, or the champion: inputs, scores, gate, files."""
    _show("release", release, as_json=as_json)


@releases.command(epilog="Example: bcw releases verify --all")
@click.argument("release", required=False)
@click.option("--all", "everything", is_flag=True, help="Every release, and the whole log.")
@json_option
def verify(release: str | None, *, everything: bool, as_json: bool) -> None:
    """Compare every byte of a release with what was published.

    By default of the champion. The exit code is 1 if something is not as it was published. Checksums find damage and
    accidental changes; whoever can write all files of a bundle and the log can forge them.
    """
    if release and everything:
        raise click.UsageError("Give RELEASE or --all, not both")
    if not _show("verification", release, everything=everything, as_json=as_json)["good"]:
        sys.exit(1)


@releases.command(epilog="Example: bcw releases diff 2842 5f0a")
@click.argument("first")
@click.argument("second")
@json_option
def diff(first: str, second: str, *, as_json: bool) -> None:
    """Show how two releases differ: inputs, scores, patients."""
    _show("comparison", first, second, as_json=as_json)


@releases.command("rollback", epilog="Example: bcw releases rollback --reason 'two labels were exchanged'")
@click.argument("release", required=False)
@click.option("--reason", required=True, help="Why, for the log.")
@json_option
def roll_release_back(release: str | None, *, reason: str, as_json: bool) -> None:
    """Make an earlier release the champion again.

    By default the one before this champion. What is gone back from stays stored, and a refresh does not release it
    again without an override.
    """
    if not reason.strip():
        raise click.UsageError("--reason is empty; the log needs to say why")
    from bcw_assets.releases import access

    entry = access.roll_back(_releases(), release, reason.strip(), "bcw releases rollback")
    report = {"release": entry.release, "sequence": entry.sequence, "reason": entry.reason}
    text = "Release {release} is the champion again, by entry {sequence} of the log".format_map
    _write(report, text, as_json=as_json)


@main.command(epilog="Example: bcw exporter --port 9465")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=9464, show_default=True, help="0 for any that is free.")
@click.option("--webserver", metavar="URL", default="http://127.0.0.1:3000", show_default=True, help="Of Dagster's UI.")
def exporter(host: str, port: int, webserver: str) -> None:
    """Tell Prometheus about runs, checks and releases, at /metrics.

    The numbers are collected at every scrape. A source that is away then, or hangs, is left out, and named.
    """
    from bcw_assets import defs
    from bcw_assets.cli.checks import find_places
    from bcw_assets.operations.exporter import build_exporter, serve

    serve(build_exporter(defs, find_places(), webserver.rstrip("/")), host, port)


def _releases() -> Store:
    return open_store(settings.read_environment().releases_place)


def _show(name: str, *arguments: Any, as_json: bool, **options: bool) -> dict[str, Any]:
    """Write one of the reports of `cli.releases`, and return it."""
    from bcw_assets.cli import releases

    report: dict[str, Any] = getattr(releases, f"report_{name}")(_releases(), *arguments, **options)
    _write(report, partial(releases.format_listing, name), as_json=as_json)
    return report


def _write(report: dict[str, Any], text: Callable[[dict[str, Any]], str], *, as_json: bool) -> None:
    lines = json.dumps(report, indent=2, ensure_ascii=False) if as_json else text(report)
    click.echo(lines.encode(errors="backslashreplace"))  # a damaged file may hold what is no character
