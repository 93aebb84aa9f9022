"""Tells what the latest result of every check is, from the history alone."""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

import bcw_assets
from bcw_assets import settings
from bcw_assets.assets import GRAPH
from bcw_assets.checks import CHECKS, locate_assets, specify_checks
from bcw_assets.cli.terminal import aligned
from bcw_assets.errors import BcwError
from bcw_assets.operations import history
from bcw_assets.storage.io_manager import Made, latest

PASSED, FAILED, NOT_RUN, NOT_MATERIALISED = "passed", "failed", "not run", "not materialised"
CRASHED = "crashed"
EVALUATIONS = 1000  # that are searched for the beginning of a result
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
    """All checks, and the newest failure that nothing has mended since.

    Attributes:
        failure: what the failed run said, when, and what of the artifacts here it made; None without one.
    """

    checks: tuple[Line, ...]
    failure: str | None

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
        lines = aligned([head, *(_cells(line) for line in self.checks)])
        if self.failure:
            lines += ["", self.failure]
        return "\n".join(lines)


def latest_report() -> CheckReport:
    """Return the report of this machine's history and storage.

    Raises:
        BcwError: there is no history to look into.
    """
    if not settings.dagster_home():
        raise BcwError("DAGSTER_HOME is not set, so there is no history of checks. `make install` sets it")
    with history.opened() as instance:
        resources = bcw_assets.defs.resources or {}
        return report(instance, locate_assets(GRAPH, resources["io_manager"], resources["releases"]))


def report(instance: dg.DagsterInstance, places: Mapping[dg.AssetKey, str]) -> CheckReport:
    """Return the latest result of every check of what is stored at places (`checks.locate_assets`), by a history."""
    made = {key: latest(key, place, instance) for key, place in places.items()}
    return CheckReport(tuple(lines(instance, made)), _failure(instance, made))


def lines(
    instance: dg.DagsterInstance, made: Mapping[dg.AssetKey, Made | None], evaluations: int = EVALUATIONS
) -> Iterator[Line]:
    """Return the latest result of every check of these materialisations.

    Args:
        instance: holds the history.
        made: asset → its latest materialisation; None without one.
        evaluations: how many of a check's are looked at, which limits how far back `since` can be.
    """
    return (_line(instance, spec, made[key], evaluations) for key in made for spec in specify_checks(key))


def _line(instance: dg.DagsterInstance, spec: dg.AssetCheckSpec, made: Made | None, evaluations: int) -> Line:
    def line(result: str, since: float | None = None, evidence: str = "") -> Line:
        when = None if since is None else datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds")
        name, severity = spec.asset_key.to_user_string(), "ERROR" if spec.blocking else "WARN"
        return Line(name, spec.name, spec.blocking, severity, result, when, evidence)

    if made is None:
        return line(NOT_MATERIALISED)
    records = instance.event_log_storage.get_asset_check_execution_history(spec.key, limit=evaluations)
    if records and _crashed(instance, records[0], made):
        return line(CRASHED, _when(records[0]), f"see run {records[0].run_id}")
    done = [
        (evaluation, _when(one)) for one in records if isinstance(evaluation := one.evaluation, dg.AssetCheckEvaluation)
    ]
    target = done[0][0].target_materialization_data if done else None
    if target is None or target.storage_id != made.storage_id:
        return line(NOT_RUN)
    same = itertools.takewhile(lambda one: one[0].passed == done[0][0].passed, done)
    since = [when for _, when in same][-1]
    evaluation = done[0][0]
    evidence = evaluation.description or ", ".join(_evidence(evaluation))
    return line(PASSED if evaluation.passed else FAILED, since, evidence)


def _crashed(instance: dg.DagsterInstance, execution: Any, made: Made) -> bool:
    """Say whether the newest execution of a check broke off: its step failed, and it said nothing."""
    if isinstance(execution.evaluation, dg.AssetCheckEvaluation) or _when(execution) < made.timestamp:
        return False
    step = execution.key.asset_key.to_user_string() + CHECKS
    events = (entry.dagster_event for entry in instance.all_logs(execution.run_id))
    return any(event.is_step_failure and event.step_key == step for event in events if event)


def _when(execution: Any) -> float:
    """Return when a check was executed; the history's own time stamp knows whole seconds only."""
    return float(execution.event.timestamp if execution.event else execution.create_timestamp)


def _evidence(evaluation: dg.AssetCheckEvaluation) -> Iterator[str]:
    for name, entry in evaluation.metadata.items():
        value = entry.value
        if isinstance(value, bool | int | str):
            yield f"{name} {value}"
        elif isinstance(value, float):
            yield f"{name} {value:.4g}"


def _failure(instance: dg.DagsterInstance, made: Mapping[dg.AssetKey, Made | None]) -> str | None:
    """Return what the newest failed run said, unless all that failed in it was made anew since."""
    for run in instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]), limit=1):
        run_id, ended = run.dagster_run.run_id, run.end_time or 0.0
        events = [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event]
        failed = {dg.AssetKey((event.step_key or "").removesuffix(CHECKS)) for event in events if event.is_step_failure}
        of_it = [key.to_user_string() for key, record in made.items() if record and record.run_id == run_id]
        since = [made[key] for key in failed if key in made]
        if since and all(record and record.timestamp > ended for record in since):
            return None
        when = datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds")
        which = (
            f"The run that made {', '.join(of_it)} failed" if of_it else "A later run failed, and changed nothing here"
        )
        return f"{which}: {when}, {'; '.join(history.reasons(events)) or 'before its first step'}"
    return None


def _cells(line: Line) -> tuple[str, ...]:
    evidence = line.evidence.partition("\n")[0]
    shown = evidence if len(evidence) <= LONGEST else f"{evidence[: LONGEST - 1]}…"
    blocking = "yes" if line.blocking else "no"
    return (line.asset, line.check, blocking, line.severity, line.result, line.since or "", shown)
