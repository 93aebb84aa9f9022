"""Runs the whole graph in this process and tells a person at a terminal about it."""

import shlex
import subprocess
import uuid
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace

import click
import dagster as dg
from dagster._core.execution import compute_logs

import bcw_assets
from bcw_assets.automation import refresh_job
from bcw_assets.checks import CHECKS
from bcw_assets.errors import BcwError
from bcw_assets.ml.evaluation.report import STANDARD_NAMES, TEST_HEADLINE, Report
from bcw_assets.ml.evaluation.scores import SCORES
from bcw_assets.operations import history
from bcw_assets.releases.gate import NOT_JUDGED
from bcw_assets.releases.promotion import ALREADY_CHAMPION
from bcw_assets.report.formatting import format_interval, format_score

# What Dagster logs is kept in the history; on the terminal it would bury the progress and the summary.
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def refresh_graph(*, show_progress: bool) -> str:
    """Materialise everything, perhaps with a line on standard error for every stage, and return the closing summary.

    Raises:
        BcwError: a stage or a blocking check failed; the text is the one that says what to do.
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
    if not result.success:
        raise BcwError("\n".join(history.explain_failure(result.all_events)))
    return _describe_refresh(result)


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
    data, results = (str(each["path"].value).rpartition("/")[0] + "/" for each in (facts, place))
    example = f"{released['bundle'].value}/example.csv"
    failed_checks = history.list_failed_checks(result.all_events)
    how, rows = report.provenance.resampling, report.provenance.rows
    cross_validation = f"{how.repeats} × {how.folds}-fold cross-validation of all {rows} rows, 95 % interval"
    lines = [f"{'':<21} {report.confusion.total} test rows   {cross_validation}"]
    for name in TEST_HEADLINE:
        standard = STANDARD_NAMES.get(name, name)
        summary, title = report.cross_validation[standard], SCORES[standard].title
        label = name if standard == name else f"{name} ({title})"
        estimate = f"{format_score(summary.estimate)}, {format_interval(summary.interval)}"
        lines.append(f"{label:<21} {format_score(getattr(report, name)):<13} {estimate}")
    lines += [
        "",
        f"Source       {facts['source'].value}{_explain_fallback(facts)}",
        f"Fingerprint  {report.provenance.fingerprint}",
        f"Files        {data} and {results}",
        *(f"Warning      {history.describe_check(check)}" for _, check in failed_checks),
        *_describe_outcome(released),
        f"Next         score a table with it: .venv/bin/bcw predict {shlex.quote(example)}",
        f"             read {results}MODEL_CARD.md, or see the run and its checks in the browser: make dev",
    ]
    return "\n".join(lines)


def _explain_fallback(facts: Mapping[str, dg.MetadataValue]) -> str:
    tries = facts["tries"]
    if not facts["fallback"].value or not isinstance(tries, dg.TableMetadataValue):
        return ""
    outcomes = dict.fromkeys(str(record.data["outcome"]) for record in tries.records)
    return f" (UCI could not be reached: {', '.join(outcomes)})"


def _describe_outcome(released: Mapping[str, dg.MetadataValue]) -> list[str]:
    """Return lines on the release, and of a candidate that the gate judged now, on what it could not compare."""
    is_unchanged, gate = released["result"].value == ALREADY_CHAMPION, released["gate"]
    outcome = "unchanged: the champion since" if is_unchanged else "the new champion, by"
    log = f"entry {released['sequence'].value} of the log ({released['bundle'].value}/)"
    lines = [f"Release      {released['release'].value}, {outcome} {log}"]
    if not is_unchanged and isinstance(gate, dg.TableMetadataValue):
        rules = [record.data for record in gate.records if record.data["verdict"] == NOT_JUDGED]
        lines += [f"Gate         not compared: {reason}" for reason in dict.fromkeys(rule["value"] for rule in rules)]
    return lines
