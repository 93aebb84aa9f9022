"""Tables of a report's numbers in Markdown, for the UI and the model card."""

from collections.abc import Iterable, Sequence

from bcw_assets.ml.evaluation import PUBLISHED, Report
from bcw_assets.ml.performance import Interval, Score, Summary, written


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def limits(interval: Interval, digits: int = 3) -> str:
    """Return an interval for people.

    >>> limits([0.92975, 0.98203])
    '0.930 to 0.982'
    """
    return "no interval" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def number(value: Score, digits: int = 3) -> str:
    """Return a score for people."""
    return "not defined" if value is None else f"{value:.{digits}f}"


def scores(report: Report) -> str:
    """Return the cross-validated scores and the calibration, with intervals and, where one is missing, the reason."""
    named = report.cross_validation | {
        "calibration slope": report.calibration.slope,
        "calibration-in-the-large": report.calibration.calibration_in_the_large,
        "observed / expected": report.calibration.observed_expected_ratio,
    }
    heads = ["cross-validated", "estimate", "95 % interval", "sd over repeats", "note"]
    return markdown(heads, [_row(name, one) for name, one in named.items()])


def beside_published(report: Report) -> str:
    """Return the four published numbers and ours for the same names."""
    rows = [[name, written(ours), written(PUBLISHED[name])] for name, ours in report.published().items()]
    return markdown(["test split", "this run", "published"], rows)


def _row(name: str, one: Summary) -> list[str]:
    return [name.replace("_", " "), number(one.estimate), limits(one.interval), number(one.sd, 4), one.reason or ""]
