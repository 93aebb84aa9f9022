"""Whether the numbers of a report are what they must be: floors, calibration, labels."""

from dataclasses import asdict, dataclass

from bcw_assets.ml.evaluation import patients
from bcw_assets.ml.evaluation.report import Evaluation, Report
from bcw_assets.ml.evaluation.scores import Score, Summary
from bcw_assets.ml.findings import Fact, Findings

AT_LEAST, AT_MOST = "at least", "at most"

FLOORS = {
    "accuracy": (AT_LEAST, 0.97),
    "sensitivity": (AT_LEAST, 0.945),
    "roc_auc": (AT_LEAST, 0.992),
    "log_loss": (AT_MOST, 0.09),
}
"""Cross-validated score → what it must reach; it is missed only when the whole interval lies beyond."""

ABSENT = Summary(None, None, None, "not in these metrics")  # of a floor's score; another version wrote them

RESOLUTION = "with 1 % wrong labels 5 of 20 copies of UCI's table pass all floors, with 2 % none of 20"

TOLERABLE_SLOPES = (0.7, 1.6)  # what the interval of the calibration slope must overlap
MAX_SUSPECT_SHARE = 0.02  # of all labels; more, and the table is doubted
MOST = 20  # suspects that are listed
BALANCED_ACCURACY_FLOOR = 0.7  # to call every patient benign has 0.5


def check_balanced_accuracy(metrics: Evaluation) -> Findings:
    """Find a model that is hardly better than calling every patient benign."""
    accuracy = metrics.report.balanced_accuracy
    is_low = accuracy is None or accuracy < BALANCED_ACCURACY_FLOOR
    return Findings.of(
        (f"balanced accuracy is {accuracy}, below {BALANCED_ACCURACY_FLOOR}", is_low), balanced_accuracy=accuracy
    )


@dataclass(frozen=True)
class Floor:
    """What a cross-validated score must reach, and whether it does.

    Attributes:
        score: its name.
        limit: in words.
        value: the estimate with its interval, in words.
        is_missed: the whole interval lies beyond the limit.
    """

    score: str
    limit: str
    value: str
    is_missed: bool


def compare_with_floors(report: Report) -> list[Floor]:
    """Hold the cross-validated scores against their floors."""
    floors = []
    for name, (kind, floor) in FLOORS.items():
        summary = report.cross_validation.get(name, ABSENT)
        best = _best(summary, kind)
        is_missed = best is None or (best < floor if kind == AT_LEAST else best > floor)
        floors.append(Floor(name, f"{kind} {floor}", f"{summary:.4f}", is_missed))
    return floors


def check_floors(metrics: Evaluation) -> Findings:
    """Find cross-validated scores whose whole interval lies beyond their floor."""
    floors = compare_with_floors(metrics.report)
    problems = [f"{floor.score} is {floor.value}, and must be {floor.limit}" for floor in floors if floor.is_missed]
    evidence = {f"{floor.score.replace('_', ' ')}, {floor.limit}": floor.value for floor in floors}
    return Findings(tuple(problems), {**evidence, "resolution": RESOLUTION})


def check_calibration(metrics: Evaluation) -> Findings:
    """Find a calibration slope whose interval lies outside what is tolerable: probabilities too extreme or cautious."""
    slope, (low, high) = metrics.report.calibration.slope, TOLERABLE_SLOPES
    is_outside = slope.interval is None or slope.interval[1] < low or slope.interval[0] > high
    return Findings.of(
        (f"the calibration slope is {slope:.2f}, and its interval must overlap {low} to {high}", is_outside),
        slope=f"{slope:.2f}",
        tolerable=f"{low} to {high}",
    )


def check_labels(metrics: Evaluation) -> Findings:
    """Find more labels than chance leaves that models of the other patients think nearly impossible.

    The suspects are listed in any case.
    """
    suspects, rows = metrics.report.label_suspects, metrics.report.provenance.rows
    names = [f"{patient.id} ({patient.diagnosis}, {patient.probability:.3f})" for patient in suspects[:MOST]]
    evidence: dict[str, Fact] = {"suspects": ", ".join(names) or "none"}
    if len(suspects) <= MAX_SUSPECT_SHARE * rows:
        return Findings((), evidence)
    problem = (
        f"{len(suspects)} of {rows} labels ({100 * len(suspects) / rows:.1f} %) have an out-of-fold probability below "
        f"{patients.SUSPICIOUS}; allowed are {100 * MAX_SUSPECT_SHARE:.0f} %. Compare them with their source"
    )
    return Findings((problem,), evidence, tuple(map(asdict, suspects)))


def _best(summary: Summary, kind: str) -> Score:
    """Return the end of the interval that is nearest to reaching the floor; the estimate without an interval."""
    if summary.interval is None:
        return summary.estimate
    return summary.interval[1] if kind == AT_LEAST else summary.interval[0]
