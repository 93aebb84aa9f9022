"""Runs the whole graph in this process and tells a person at a terminal about it."""

import os
import shlex
import uuid
from collections.abc import Mapping

import click
import dagster as dg

import bcw_assets
from bcw_assets.checks import CHECKS
from bcw_assets.errors import BcwError
from bcw_assets.locations import S3
from bcw_assets.ml.evaluation.report import STANDARD_NAMES, TEST_HEADLINE, Report
from bcw_assets.ml.evaluation.scores import SCORES
from bcw_assets.operations import history
from bcw_assets.releases.gate import NOT_JUDGED
from bcw_assets.releases.promotion import ALREADY_CHAMPION
from bcw_assets.report.formatting import format_interval, format_score

# What Dagster logs is kept in the history; on the terminal it would bury the progress and the summary.
SILENT = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def refresh_graph(*, show_progress: bool) -> str:
    """Materialise everything and return the closing summary.

    Args:
        show_progress: whether to write a line for every stage to standard error while it works.

    Raises:
        BcwError: a stage or a blocking check failed; the text is the one that says what to do.
    """
    with history.open_history() as instance:
        job = bcw_assets.defs.resolve_job_def("refresh_job")
        run_id = str(uuid.uuid4())
        if show_progress:
            instance.add_event_listener(run_id, _progress)
        result = job.execute_in_process(instance=instance, run_id=run_id, raise_on_error=False, run_config=SILENT)
    if not result.success:
        raise BcwError("\n".join(history.explain_failure(result.all_events)))
    return _summary(result)


def _progress(entry: dg.EventLogEntry) -> None:
    event = entry.dagster_event
    if event is None or event.step_key is None or event.step_key.endswith(CHECKS):
        return
    if event.is_step_start:
        click.echo(f"{event.step_key + ' …':<20}", nl=False, err=True)
    elif event.is_step_success:
        click.echo(f"{event.step_success_data.duration_ms / 1000:5.1f} s", err=True)
    elif event.is_step_failure:
        click.echo("failed", err=True)


def _summary(result: dg.ExecuteInProcessResult) -> str:
    report: Report = result.asset_value("metrics").report
    facts, place, released = (
        result.asset_materializations_for_node(name)[0].metadata for name in ("raw_data", "metrics", "release")
    )
    example = _abbreviate(f"{released['bundle'].value}/example.csv")
    card = _abbreviate(f"{_folder(place['path'].value)}MODEL_CARD.md")
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
        f"Source       {facts['source'].value}{' (UCI could not be reached)' if facts['fallback'].value else ''}",
        f"Fingerprint  {report.provenance.fingerprint}",
        f"Files        {_folder(facts['path'].value)} and {_folder(place['path'].value)}",
        *(
            f"Warning      {history.describe_check(check)}"
            for _, check in history.list_failed_checks(result.all_events)
        ),
        f"Release      {released['release'].value}, {_result(released)}",
        *_describe_skipped_rules(released),
        f"Next         score a table with it: .venv/bin/bcw predict {shlex.quote(example)}",
        f"             read {card}, or see the run and its checks in the browser: make dev",
    ]
    return "\n".join(lines)


def _result(released: Mapping[str, dg.MetadataValue]) -> str:
    sequence, where = released["sequence"].value, released["bundle"].value
    if released["result"].value == ALREADY_CHAMPION:
        return f"unchanged: the champion since entry {sequence} of the log ({where}/)"
    return f"the new champion, by entry {sequence} of the log ({where}/)"


def _describe_skipped_rules(released: Mapping[str, dg.MetadataValue]) -> list[str]:
    """Return what the gate could not compare, of a candidate that it judged in this run."""
    table = released["gate"]
    if released["result"].value == ALREADY_CHAMPION or not isinstance(table, dg.TableMetadataValue):
        return []
    rules = [record.data for record in table.records if record.data["verdict"] == NOT_JUDGED]
    reasons = dict.fromkeys(str(rule["value"]) for rule in rules)
    return [f"Gate         not compared: {reason}" for reason in reasons]


def _abbreviate(address: str) -> str:
    """Return an address as a user types it in this folder."""
    return address if address.startswith(S3) else os.path.relpath(address)


def _folder(path: object) -> str:
    return str(path).rpartition("/")[0] + "/"
