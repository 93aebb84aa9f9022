"""Runs the whole graph in this process and tells a person at a terminal about it; the words are in `refresh.j2`."""

import shlex
import subprocess
import uuid
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import click
import dagster as dg
from dagster._core.execution import compute_logs
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

import bcw_assets
from bcw_assets.automation import refresh_job
from bcw_assets.checks import CHECKS
from bcw_assets.errors import BcwError
from bcw_assets.ml.evaluation.report import STANDARD_NAMES, TEST_HEADLINE, Report
from bcw_assets.ml.evaluation.scores import SCORES
from bcw_assets.operations import history
from bcw_assets.releases.promotion import ALREADY_CHAMPION
from bcw_assets.report.templates import open_templates

# What Dagster logs is kept in the history; on the terminal it would bury the progress and the summary.
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def refresh_graph(*, show_progress: bool) -> str:
    """Materialise everything, perhaps with a line on standard error for every stage, and return the closing summary.

    A stage or a blocking check that fails raises a BcwError, which says what to do.
    """
    with history.open_history() as instance:
        job = bcw_assets.defs.resolve_job_def(refresh_job.name)
        run_id = str(uuid.uuid4())
        if show_progress:
            instance.add_event_listener(run_id, _report_stage)
        # Ctrl-C reaches all processes of a terminal's group, and those that copy what a step writes print tracebacks
        # of it: they get a group of their own. Dagster ends them.
        vars(compute_logs)["subprocess"] = SimpleNamespace(Popen=partial(subprocess.Popen, process_group=0))
        result = job.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False, run_config=SILENT)
        _assign_run(instance, result.dagster_run)
    if not result.success:
        raise BcwError("\n".join(history.explain_failure(result.all_events)))
    return _describe_refresh(result)


def _assign_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Assign a run to the code location, as `dagster run migrate-repository` does: the UI's timeline asks for it."""
    location = RegisteredCodeLocationOrigin(bcw_assets.__name__)  # the name in workspace.yaml and pyproject.toml
    repository = RemoteRepositoryOrigin(location, "__repository__")
    instance.add_run_tags(run.run_id, {".dagster/repository": repository.get_label()})
    if stored_run := instance.get_run_by_id(run.run_id):
        instance.run_storage.replace_job_origin(stored_run, repository.get_job_origin(run.job_name))


def _report_stage(entry: dg.EventLogEntry) -> None:
    event = entry.dagster_event
    if event is None or event.step_key is None or event.step_key.endswith(CHECKS):
        return
    if event.is_step_start:
        click.echo(f"{event.step_key + ' …':<20}", nl=False, err=True)
    elif event.is_step_success:
        click.echo(f"{event.step_success_data.duration_ms / 1000:5.1f} s", err=True)
    elif event.is_step_failure:
        click.echo("failed", err=True)


def _describe_refresh(result: dg.ExecuteInProcessResult) -> str:
    report: Report = result.asset_value("metrics").report
    facts, place, released = (
        result.asset_materializations_for_node(name)[0].metadata for name in ("raw_data", "metrics", "release")
    )
    scores = []
    for name in TEST_HEADLINE:
        standard = STANDARD_NAMES.get(name, name)
        label = name if standard == name else f"{name} ({SCORES[standard].title})"
        scores.append((label, getattr(report, name), report.cross_validation[standard]))
    templates = open_templates(Path(__file__).parent)
    templates.filters["quote"] = shlex.quote
    templates.filters["list_rows"] = lambda table: [record.data for record in table.records]
    return templates.get_template("refresh.j2").render(
        report=report, facts=facts, place=place, released=released, scores=scores,
        already_champion=ALREADY_CHAMPION,
        failed_checks=[history.describe_check(check) for _, check in history.list_failed_checks(result.all_events)],
    )  # fmt: skip
