"""Tells what the latest result of every check is, from the history alone."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import dagster as dg

from bcw_assets import history, settings
from bcw_assets.assets import GRAPH
from bcw_assets.checks import every_check
from bcw_assets.errors import BcwError

PASSED, FAILED, NOT_RUN, NOT_MATERIALISED = "passed", "failed", "not run", "not materialised"
FAR_BACK = 1000  # evaluations that are searched for the beginning of a result
LONGEST = 100  # characters of evidence in a line


@dataclass(frozen=True)
class Line:
    """The latest result of one check of the latest materialisation of its asset.

    Attributes:
        severity: ERROR for a promise, WARN for advice.
        result: passed, failed, not run (on that materialisation), or not materialised (the asset).
        since: when the check began to have this result, in UTC; None if it has none.
        evidence: what it said or looked at.
    """

    asset: str
    check: str
    blocking: bool
    severity: str
    result: str
    since: str | None
    evidence: str


@dataclass(frozen=True)
class CheckReport:
    """All checks, and whether a run failed after the latest materialisation.

    Attributes:
        later_failure: what that run said, and when; None without one.
    """

    checks: tuple[Line, ...]
    later_failure: str | None

    @property
    def is_good(self) -> bool:
        """Whether every blocking check ran on the latest materialisation of its asset, and passed."""
        return all(line.result == PASSED for line in self.checks if line.blocking)

    def as_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps({"good": self.is_good} | asdict(self), indent=2, ensure_ascii=False)

    def as_text(self) -> str:
        """Return the report as a table for people."""
        head = ("asset", "check", "blocking", "severity", "result", "since", "evidence")
        rows = [head, *(_cells(line) for line in self.checks)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if self.later_failure:
            lines += ["", f"A later run failed, and left these as they were: {self.later_failure}"]
        return "\n".join(lines)


def latest_report() -> CheckReport:
    """Return the report of this machine's history.

    Raises:
        BcwError: there is no history to look into.
    """
    if not settings.dagster_home():
        raise BcwError("DAGSTER_HOME is not set, so there is no history of checks. `make install` sets it")
    with history.opened() as instance:
        return report(instance)


def report(instance: dg.DagsterInstance) -> CheckReport:
    """Return the latest result of every check in a history."""
    latest = {asset.key: _latest(instance, asset.key) for asset in GRAPH}
    lines = tuple(_line(instance, spec, latest[spec.asset_key]) for asset in GRAPH for spec in every_check(asset.key))
    newest = max((one.timestamp for one in latest.values() if one), default=0.0)
    return CheckReport(lines, _later_failure(instance, newest))


def _latest(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dg.EventLogRecord | None:
    return next(iter(instance.fetch_materializations(asset, limit=1).records), None)


def _line(instance: dg.DagsterInstance, spec: dg.AssetCheckSpec, latest: dg.EventLogRecord | None) -> Line:
    evaluations = list(_evaluations(instance, spec.key, latest)) if latest else []
    if not evaluations:
        result = NOT_RUN if latest else NOT_MATERIALISED
        return Line(spec.asset_key.to_user_string(), spec.name, spec.blocking, _severity(spec), result, None, "")
    evaluation, when = evaluations[0]
    for earlier, then in evaluations:
        if earlier.passed != evaluation.passed:
            break
        when = then
    return Line(
        spec.asset_key.to_user_string(),
        spec.name,
        spec.blocking,
        _severity(spec),
        PASSED if evaluation.passed else FAILED,
        datetime.fromtimestamp(when, UTC).isoformat(timespec="seconds"),
        evaluation.description or ", ".join(_evidence(evaluation)),
    )


def _evaluations(
    instance: dg.DagsterInstance, check: dg.AssetCheckKey, latest: dg.EventLogRecord
) -> Iterator[tuple[dg.AssetCheckEvaluation, float]]:
    """Return what a check said, newest first; nothing if it did not look at the latest materialisation."""
    records = instance.event_log_storage.get_asset_check_execution_history(check, limit=FAR_BACK)
    done = [(one.evaluation, one.create_timestamp) for one in records if one.status.value in ("SUCCEEDED", "FAILED")]
    target = done[0][0].target_materialization_data if done and done[0][0] else None
    if target and target.storage_id == latest.storage_id:
        yield from ((evaluation, when) for evaluation, when in done if evaluation)


def _evidence(evaluation: dg.AssetCheckEvaluation) -> Iterator[str]:
    for name, entry in evaluation.metadata.items():
        value = entry.value
        if isinstance(value, bool | int | str):
            yield f"{name} {value}"
        elif isinstance(value, float):
            yield f"{name} {value:.4g}"


def _severity(spec: dg.AssetCheckSpec) -> str:
    return "ERROR" if spec.blocking else "WARN"


def _later_failure(instance: dg.DagsterInstance, newest: float) -> str | None:
    """Return what the latest run said if it failed and began to fail after the latest materialisation."""
    for record in instance.get_run_records(limit=1):
        if record.dagster_run.status is dg.DagsterRunStatus.FAILURE and (record.end_time or 0) > newest:
            entries = instance.all_logs(record.dagster_run.run_id)
            reasons = history.reasons([entry.dagster_event for entry in entries if entry.dagster_event])
            when = datetime.fromtimestamp(record.end_time or 0, UTC).isoformat(timespec="seconds")
            return f"{when}, {'; '.join(reasons) or 'before its first step'}"
    return None


def _cells(line: Line) -> tuple[str, ...]:
    evidence = line.evidence.partition("\n")[0]
    shown = evidence if len(evidence) <= LONGEST else f"{evidence[: LONGEST - 1]}…"
    blocking = "yes" if line.blocking else "no"
    return (line.asset, line.check, blocking, line.severity, line.result, line.since or "", shown)
