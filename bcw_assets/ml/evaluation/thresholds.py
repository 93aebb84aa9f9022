"""Whether the numbers of a report are what they must be: arithmetic, floors, calibration, labels."""

from dataclasses import asdict, dataclass

from bcw_assets.ml.evaluation import patients, scores
from bcw_assets.ml.evaluation.report import STANDARD_NAMES, Evaluation, Report
from bcw_assets.ml.evaluation.scores import Interval, Score, Summary
from bcw_assets.ml.findings import Findings

AT_LEAST, AT_MOST = "at least", "at most"

FLOORS = {
    "accuracy": (AT_LEAST, 0.97),
    "sensitivity": (AT_LEAST, 0.945),
    "roc_auc": (AT_LEAST, 0.992),
    "log_loss": (AT_MOST, 0.09),
}
"""Cross-validated score → what it must reach; it is missed only when the whole interval lies beyond."""

ABSENT = Summary(None, None, None, "not in these metrics")  # of a floor's score; another version wrote them

RESOLUTION = "of copies of UCI's table with 1 % wrong labels 13 of 80 pass all floors, with 2 % none of 60"

TOLERABLE_SLOPES = (0.7, 1.6)  # what the interval of the calibration slope must overlap
MAX_SUSPECT_SHARE = 0.02  # of all labels; more, and the table is doubted
MOST = 20  # suspects that are listed
MARGIN_OVER_ALWAYS_BENIGN = 0.2  # "always benign" has balanced accuracy 0.5


def follows_from_counts(metrics: Evaluation) -> Findings:
    """Find scores and intervals of the test split that are not those of the confusion counts."""
    report = metrics.report
    counted = report.confusion.scores()
    said: dict[str, Score] = report.published() | {
        name: getattr(report, name) for name in ("specificity", "npv", "balanced_accuracy")
    }
    expected = {name: counted[STANDARD_NAMES.get(name, name)] for name in said}
    wrong = [name for name, value in said.items() if not _same(value, expected[name])]
    intervals = [
        name
        for name, limits in report.confusion.intervals().items()
        if not _same_limits(limits, report.intervals.get(name))
    ]
    return Findings.of(
        *((f"the interval of {name} is not that of the counts", True) for name in intervals),
        *((f"{name} is {said[name]}, the counts give {expected[name]}", True) for name in wrong),
        **asdict(report.confusion),
        scores_compared=len(said),
    )


def beats_always_benign(metrics: Evaluation) -> Findings:
    """Find a model that is hardly better than calling everybody benign."""
    floor = 0.5 + MARGIN_OVER_ALWAYS_BENIGN
    reached = metrics.report.balanced_accuracy
    return Findings.of(
        (f"balanced accuracy is {reached}, below {floor}", reached is None or reached < floor),
        balanced_accuracy=reached,
        floor=floor,
    )


@dataclass(frozen=True)
class Floor:
    """What a cross-validated score must reach, and whether it does.

    Attributes:
        score: its name.
        limit: in words.
        found: the estimate with its interval, in words.
        is_missed: the whole interval lies beyond the limit.
    """

    score: str
    limit: str
    found: str
    is_missed: bool


def floors(report: Report) -> list[Floor]:
    """Hold the cross-validated scores against their floors."""
    found = []
    for name, (kind, floor) in FLOORS.items():
        summary = report.cross_validation.get(name, ABSENT)
        best = _best(summary, kind)
        is_missed = best is None or (best < floor if kind == AT_LEAST else best > floor)
        found.append(Floor(name, f"{kind} {floor}", f"{summary:.4f}", is_missed))
    return found


def reaches_floors(metrics: Evaluation) -> Findings:
    """Find cross-validated scores whose whole interval lies beyond their floor."""
    found = floors(metrics.report)
    problems = [f"{one.score} is {one.found}, and must be {one.limit}" for one in found if one.is_missed]
    evidence = {f"{one.score}, {one.limit}": one.found for one in found}
    return Findings(tuple(problems), {**evidence, "resolution": RESOLUTION})


def is_calibrated(metrics: Evaluation) -> Findings:
    """Find a calibration slope whose interval lies outside what is tolerable: probabilities too extreme or cautious."""
    slope, (low, high) = metrics.report.calibration.slope, TOLERABLE_SLOPES
    says, allowed = f"{slope:.2f}", f"{low} to {high}"
    if slope.interval is None:
        return Findings.of((f"the calibration slope is {says}", True), slope=says, tolerable=allowed)
    misses = slope.interval[1] < low or slope.interval[0] > high
    return Findings.of(
        (f"the calibration slope is {says}, and its interval must overlap {allowed}", misses),
        slope=says,
        tolerable=allowed,
    )


def labels_are_plausible(metrics: Evaluation) -> Findings:
    """Find more labels than chance leaves that models of the other patients think nearly impossible.

    The suspects are listed in any case.
    """
    suspects, rows = metrics.report.label_suspects, metrics.report.provenance.rows
    listed = ", ".join(f"{one.id} ({one.diagnosis}, {one.probability:.3f})" for one in suspects[:MOST]) or "none"
    if len(suspects) <= MAX_SUSPECT_SHARE * rows:
        return Findings((), {"suspects": listed})
    problem = (
        f"{len(suspects)} of {rows} labels ({100 * len(suspects) / rows:.1f} %) have an out-of-fold probability below "
        f"{patients.SUSPICIOUS}; allowed are {100 * MAX_SUSPECT_SHARE:.0f} %. Compare them with their source"
    )
    return Findings((problem,), {"suspects": listed}, tuple(map(asdict, suspects)))


def _best(summary: Summary, kind: str) -> Score:
    """Return the end of the interval that is nearest to keeping the promise; the estimate without an interval."""
    if summary.interval is None:
        return summary.estimate
    return summary.interval[1] if kind == AT_LEAST else summary.interval[0]


def _same_limits(ones: Interval, others: Interval) -> bool:
    if ones is None or others is None:
        return ones is others
    return len(ones) == len(others) and all(_same(one, other) for one, other in zip(ones, others, strict=True))


def _same(one: Score, other: Score) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= scores.ROUNDING
