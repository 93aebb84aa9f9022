"""Runs the graph in this process and tells a person at a terminal about it; the words are in `refresh.j2`."""

import shlex
import shutil
import sys
import uuid
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import click
import dagster as dg
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin  # of 1.13; not public
from tabulate import tabulate

import bcw_assets
from bcw_assets.assets import GRAPH
from bcw_assets.automation import refresh_job
from bcw_assets.checks import CHECKS
from bcw_assets.errors import BcwError
from bcw_assets.ml.evaluation.report import STANDARD_NAMES, TEST_HEADLINE
from bcw_assets.ml.evaluation.scores import SCORES
from bcw_assets.operations import history
from bcw_assets.releases.promotion import ALREADY_CHAMPION
from bcw_assets.report.formatting import open_templates

ASSET_NAMES = [asset.key.to_user_string() for asset in GRAPH]
WIDTHS = [18, 28, 18, 10]  # characters of the gate's columns, so that a terminal shows them side by side
# What Dagster logs is kept in the history; on the terminal it would bury the progress and the summary.
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def refresh_graph(names: Sequence[str], *, show_progress: bool) -> str:
    """Materialise the named assets, or everything, and return the closing summary.

    With progress, every stage is a line on standard error. A BcwError says which name no asset has, or why a stage or a
    blocking check failed, and what to do.
    """
    for name in sorted({*names}.difference(ASSET_NAMES)):
        (near,) = get_close_matches(name, ASSET_NAMES, n=1, cutoff=0)
        raise BcwError(f"{name} is no asset; did you mean {near}? Allowed are {', '.join(ASSET_NAMES)}")
    defs, run_id = bcw_assets.defs, str(uuid.uuid4())
    # The second is what Dagster calls a run of chosen assets: whoever watches refresh_job takes no part for the whole.
    job = defs.resolve_implicit_global_asset_job_def() if names else defs.resolve_job_def(refresh_job.name)
    chosen = [dg.AssetKey(name) for name in names] or None
    with history.open_history() as instance:
        if show_progress:
            instance.add_event_listener(run_id, _report_stage)
        result = job.execute_in_process(
            instance=instance, run_id=run_id, raise_on_error=False, run_config=SILENT, asset_selection=chosen
        )
        _assign_run(instance, result.dagster_run)
    if not result.success:
        gate = tabulate(history.read_gate(result.all_events), "firstrow", disable_numparse=True, maxcolwidths=WIDTHS)
        raise BcwError("\n".join([*history.explain_failure(result.all_events), *filter(None, [gate])]))
    return _describe_refresh(result, [name for name in ASSET_NAMES if name in names or not names])


def _assign_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Assign a run to the code location, as `dagster run migrate-repository` does: the UI's timeline asks for it."""
    location = RegisteredCodeLocationOrigin(bcw_assets.__name__)  # the name in workspace.yaml and pyproject.toml
    repository = RemoteRepositoryOrigin(location, "__repository__")
    instance.add_run_tags(run.run_id, {".dagster/repository": repository.get_label()})
    if stored_run := instance.get_run_by_id(run.run_id):
        instance.run_storage.replace_job_origin(stored_run, repository.get_job_origin(run.job_name))


def _report_stage(entry: dg.EventLogEntry) -> None:
    """Write a line about each stage; what the stage tells meanwhile is written over it."""
    event = entry.dagster_event
    if event and event.is_step_up_for_retry:
        click.echo(history.explain_retry(event), err=True)
    if entry.step_key is None or entry.step_key.endswith(CHECKS):
        return
    start = f"{entry.step_key + ' …':<20}"
    again = f"\r\x1b[K{start}"
    if event is None:
        message = entry.user_message[: shutil.get_terminal_size().columns - len(start) - 1]
        click.echo(f"{again} {message}", nl=False, err=True)
    elif event.is_step_start or event.is_step_restarted:
        click.echo(start, nl=False, err=True)
    elif event.is_step_success:
        click.echo(f"{again}{event.step_success_data.duration_ms / 1000:5.1f} s", err=True)
    elif event.is_step_failure:
        click.echo(f"{again}failed", err=True)


def _describe_refresh(result: dg.ExecuteInProcessResult, names: Sequence[str]) -> str:
    later = dg.AssetSelection.assets(*names).downstream(include_self=False).resolve(GRAPH)
    templates = open_templates(Path(__file__).parent)
    templates.filters["quote"] = shlex.quote
    templates.filters["list_rows"] = lambda table: [record.data for record in table.records]
    return templates.get_template("refresh.j2").render(
        report=result.asset_value("metrics").report if len(names) == len(ASSET_NAMES) else None,
        headline={name: STANDARD_NAMES.get(name, name) for name in TEST_HEADLINE}, titles=SCORES,
        already_champion=ALREADY_CHAMPION,
        made={name: result.asset_materializations_for_node(name)[0].metadata for name in names},
        later=[name for name in ASSET_NAMES if dg.AssetKey(name) in later],
        failed_checks=[history.describe_check(check) for _, check in history.list_failed_checks(result.all_events)],
        program="bcw" if shutil.which("bcw") == sys.argv[0] else sys.argv[0],
    )  # fmt: skip
