"""Whether the numbers of a report are what they must be: floors, calibration, labels."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from bcw_assets.ml.evaluation import patients
from bcw_assets.ml.evaluation.report import Evaluation, Report
from bcw_assets.ml.evaluation.scores import SCORES, Summary
from bcw_assets.ml.findings import Fact, Findings

TOLERABLE_SLOPES = (0.7, 1.6)  # what the interval of the calibration slope must overlap
MAX_SUSPECT_SHARE = 0.02  # of all labels; more, and the table is doubted
MOST_SUSPECTS = 20  # that are listed


@dataclass(frozen=True)
class Floor:
    """What a cross-validated score must reach, what it does reach, in words, and whether it misses the limit."""

    title: str
    limit: str
    reach: str
    summary: Summary
    is_missed: bool


def compare_with_floors(report: Report) -> Iterator[Floor]:
    """Hold the cross-validated scores against their floors; one that another version's metrics lack is missed."""
    absent = Summary(None, None, None, "not in these metrics")
    for name, profile in SCORES.items():
        if profile.floor is not None:
            (kind, limit), summary = profile.floor, report.cross_validation.get(name, absent)
            best = summary.interval[kind == "at least"] if summary.interval else summary.estimate
            reach = f"nothing ({summary.reason})" if best is None else f"{best:.4f}, at the best end of its interval,"
            is_missed = best is None or (best < limit if kind == "at least" else best > limit)
            yield Floor(profile.title, f"{kind} {limit}", reach, summary, is_missed)


def check_floors(metrics: Evaluation) -> Findings:
    """Find cross-validated scores whose whole interval lies beyond their floor."""
    floors = list(compare_with_floors(metrics.report))
    missed = [f"{floor.title} reaches {floor.reach} and must be {floor.limit}" for floor in floors if floor.is_missed]
    return Findings(tuple(missed), {f"{floor.title}, {floor.limit}": floor.summary.estimate for floor in floors})


def check_calibration(metrics: Evaluation) -> Findings:
    """Find a calibration slope whose interval lies outside what is tolerable: probabilities too extreme or cautious."""
    slope, (low, high) = metrics.report.calibration.slope, TOLERABLE_SLOPES
    lower, upper = slope.interval or (math.nan, math.nan)
    outside = f"the interval of the calibration slope is {lower:.2f} to {upper:.2f}, and must overlap {low} to {high}"
    return Findings.of(
        (f"the calibration slope has no interval: {slope.reason}", slope.interval is None),
        (outside, upper < low or lower > high),
        slope=slope.estimate,
        tolerable=f"{low} to {high}",
    )


def check_labels(metrics: Evaluation) -> Findings:
    """Find more labels than chance leaves that models of the other patients think nearly impossible."""
    suspects, rows = metrics.report.label_suspects, metrics.report.provenance.rows
    names = [f"{patient.id} ({patient.diagnosis}, {patient.probability:.3f})" for patient in suspects[:MOST_SUSPECTS]]
    evidence: dict[str, Fact] = {"suspects": ", ".join(names) or "none"}
    if len(suspects) <= MAX_SUSPECT_SHARE * rows:
        return Findings((), evidence)
    problem = (
        f"{len(suspects)} of {rows} labels ({100 * len(suspects) / rows:.1f} %) have an out-of-fold probability below "
        f"{patients.SUSPICIOUS}; allowed are {100 * MAX_SUSPECT_SHARE:.0f} %. Compare them with their source"
    )
    return Findings((problem,), evidence, tuple(map(asdict, suspects)))
