"""Tables of a report's numbers in Markdown, for the UI and the model card."""

import re
from collections.abc import Iterable, Sequence

from bcw_assets.ml.evaluation.report import PUBLISHED, Report
from bcw_assets.ml.evaluation.scores import Summary
from bcw_assets.report.formatting import format_interval, format_score


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    r"""Return text from a user's file as Markdown that shows it and does nothing else.

    >>> print(escaped("a|b<i>"))
    a\|b\<i\>
    """
    return re.sub(r"([^\w\s.-])", r"\\\1", text).replace("_", r"\_")


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
    rows = [[name, format_score(ours), format_score(PUBLISHED[name])] for name, ours in report.published().items()]
    return markdown(["test split", "this run", "published"], rows)


def _row(name: str, one: Summary) -> list[str]:
    told = [format_score(one.estimate, 3), format_interval(one.interval), format_score(one.sd)]
    return [name.replace("_", " "), *told, one.reason or ""]
