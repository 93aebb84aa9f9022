"""Tables of a report's numbers in Markdown, for the UI and the model card."""

from tabulate import tabulate

from bcw_assets.ml.evaluation.report import PUBLISHED_SCORES, Report
from bcw_assets.ml.evaluation.scores import SCORES
from bcw_assets.report.formatting import format_interval, format_score, shorten


def tabulate_scores(report: Report, *, is_brief: bool = False) -> str:
    """Return the cross-validated scores and the calibration, with intervals and, where one is missing, the reason.

    In brief it has a line a score. The UI shows Markdown of less than 1,000 characters without a click.
    """
    summaries = {SCORES[name].title: row for name, row in report.cross_validation.items() if name in SCORES} | {
        "calibration slope": report.calibration.slope,
        "calibration-in-the-large": report.calibration.calibration_in_the_large,
        "observed / expected": report.calibration.observed_expected_ratio,
    }
    rows = [
        [title, format_score(row.estimate, 3), format_interval(row.interval), format_score(row.sd), row.reason or ""]
        for title, row in summaries.items()
    ]
    heads = ["cross-validated", "estimate", "95 % interval", "sd over repeats", "note"]
    if is_brief:
        heads, rows = heads[:3], [[shorten(cell) for cell in row[:3]] for row in rows]
    table: str = tabulate(rows, heads, "pipe", disable_numparse=True)  # else it would write 0.9640 as 0.964
    return table


def tabulate_published(report: Report) -> str:
    """Return the four published numbers and ours for the same names."""
    rows = [[name, *map(format_score, (getattr(report, name), known))] for name, known in PUBLISHED_SCORES.items()]
    table: str = tabulate(rows, ["score", "this run", "published"], "pipe", disable_numparse=True)
    return table
