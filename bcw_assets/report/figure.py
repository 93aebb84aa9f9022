"""The report as one picture: discrimination, calibration and usefulness, for the screen and for print."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.backends.backend_agg  # `savefig` would import it later, and then the garbage collector runs
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator

from bcw_assets.ml.evaluation.report import Report
from bcw_assets.ml.evaluation.scores import Interval, Summary
from bcw_assets.ml.evaluation.utility import THRESHOLDS, Curve
from bcw_assets.report.formatting import format_interval, format_score

# Of Okabe and Ito's palette, which colour-blind people can tell apart; the lines differ in style for grey prints too.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
INCHES, DOTS_PER_INCH = (8.0, 8.6), 120  # the width of the dialog in the UI
STYLE = Path(__file__).with_name("figure.mplstyle")
QUARTERS = [0, 0.25, 0.5, 0.75, 1]
SIDES = (0.2, 0.4, 1.0)  # of the corner that is shown of a curve: the smallest that holds its bend and its points
DEEPEST = 0.5  # net benefit is shown down to this share of the prevalence below 0; it falls without end
MARKERS: tuple[dict[str, Any], ...] = (  # of the operating points: each can be seen where both are at one place
    {"marker": "o", "markersize": 6, "markeredgecolor": "white", "markeredgewidth": 0.6},
    {"marker": "s", "markersize": 8, "markerfacecolor": "none", "markeredgewidth": 1.5},
)


def draw(report: Report) -> bytes:
    """Return the figure as PNG, 960 × 1032 pixels."""
    with matplotlib.rc_context(fname=STYLE):  # and defaults, whatever a user's matplotlibrc says
        picture = io.BytesIO()
        compose(report).savefig(picture, format="png", dpi=DOTS_PER_INCH, pil_kwargs={"compress_level": 3})
    return picture.getvalue()


def compose(report: Report) -> Figure:
    """Return the figure's four panels; the third has two parts."""
    figure = Figure(figsize=INCHES)
    grid = figure.add_gridspec(2, 2, left=0.085, right=0.975, top=0.908, bottom=0.12, wspace=0.24, hspace=0.37)
    parts = grid[1, 0].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.12)
    roc = figure.add_subplot(grid[0, 0])
    _draw_curves(roc, figure.add_subplot(grid[0, 1]), report)
    _draw_reliability(figure.add_subplot(parts[0]), figure.add_subplot(parts[1]), report)
    _draw_decision(figure.add_subplot(grid[1, 1]), report)
    figure.legend(handles=roc.lines[1:], loc="upper left", bbox_to_anchor=(0.085, 0.99), ncols=3, columnspacing=2)
    how = report.provenance.resampling
    title = f"{how.repeats} × {how.folds}-fold cross-validation of {report.provenance.rows} patients."
    note = "Bands of the upper curves: range over the repeats.\nBars, band and brackets: 95 % intervals."
    figure.text(0.085, 0.02, f"{title} {note}", fontsize=8.5, color=GREY, linespacing=1.5)
    return figure


def _draw_curves(roc: Axes, precision_recall: Axes, report: Report) -> None:
    specificity, sensitivity, ppv = (_collect_rates(report, name) for name in ("specificity", "sensitivity", "ppv"))
    corner = _draw_curve(roc, report.roc, 0, np.array([1 - specificity, sensitivity]))
    roc.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1, label="by chance; in the reliability panel: perfect")
    roc.set_xlabel("1 - specificity (share of benign called malignant)")
    roc.set_ylabel("sensitivity (share of malignant found)")
    _set_title(roc, f"ROC curve{corner}\nAUC", report.cross_validation["roc_auc"])
    corner = _draw_curve(precision_recall, report.precision_recall, 1, np.array([sensitivity, ppv]))
    precision_recall.axhline(report.provenance.prevalence, linestyle=":", color=GREY, linewidth=1)  # all called so
    precision_recall.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)")
    average_precision = report.cross_validation["pr_auc"]
    _set_title(precision_recall, f"Precision-recall curve{corner}\naverage precision", average_precision)


def _draw_reliability(axes: Axes, histogram: Axes, report: Report) -> None:
    bins = report.calibration.reliability
    axes.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    predicted, observed = np.array([[point.predicted, point.observed] for point in bins], dtype=np.float64).T
    axes.vlines(predicted, *_to_limits(point.interval for point in bins), color=BLUE, linewidth=1.2)
    axes.plot(predicted, observed, "o", color=BLUE, markersize=4.5)
    axes.set(ylabel="share that is malignant", xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), yticks=QUARTERS)
    axes.set_xticks(QUARTERS, labels=[])
    _set_title(axes, "Reliability\ncalibration slope", report.calibration.slope, 2)
    counts, widths = [point.patients for point in bins], [point.high - point.low for point in bins]
    histogram.bar([point.low for point in bins], counts, widths, align="edge", color="#9CC7E4", edgecolor="white")
    histogram.set(yscale="log", ylim=(0.5, max(10, 2 * max(counts))), xlim=(-0.02, 1.02), xticks=QUARTERS)
    histogram.yaxis.set_major_locator(LogLocator(numticks=4))
    histogram.yaxis.set_major_formatter(EngFormatter(sep=""))  # 10k: a longer label has no place
    histogram.minorticks_off()
    histogram.set(xlabel="predicted P(malignant)", ylabel="patients")


def _draw_decision(axes: Axes, report: Report) -> None:
    curve, prevalence = report.decision_curve, report.provenance.prevalence
    low, high = _to_limits(curve.intervals)
    axes.fill_between(curve.thresholds, low, high, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(curve.thresholds, curve.model, "-", color=BLUE, label="act on the model")
    axes.plot(curve.thresholds, curve.treat_all, "--", color=ORANGE, label="treat all")
    axes.axhline(0, linestyle="-.", color=GREY, linewidth=1, label="treat none")
    axes.legend(handles=axes.lines, loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3, columnspacing=1.2)
    gained = _collect_rates(report, "net_benefit")
    _mark_points(axes, np.array([THRESHOLDS, gained]))
    lowest = np.nanmin([0, *gained, max(np.min(curve.model), -DEEPEST * prevalence)])
    highest = np.nanmax([prevalence, *gained, *high])
    edge = 0.05 * (highest - lowest)
    axes.set(xlim=(-0.02, 1.02), xticks=QUARTERS, ylim=(lowest - edge, highest + edge))
    axes.set(xlabel="threshold probability", ylabel="net benefit (true positives per patient)")
    axes.locator_params(axis="y", nbins=6)
    axes.set_title("Decision curve", y=1.075)


def _draw_curve(axes: Axes, curve: Curve, best: int, points: np.ndarray) -> str:
    """Draw a curve, its band and its operating points (2 × n), and enlarge the corner that holds its bend and them all.

    The best that a curve can reach is (best, 1). Returns what the title says of the corner.
    """
    axes.fill_between(curve.x, curve.lowest, curve.highest, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(curve.x, curve.mean, "-", color=BLUE, linewidth=1.4)
    _mark_points(axes, points)
    corner = np.array([[best], [1]])
    bend = np.abs(np.array([curve.x, curve.mean]) - corner).max(axis=0).min()
    needed = np.nanmax([2 * bend, *np.abs(points - corner).max(axis=0)])  # twice: both sides of the bend are seen
    side = next((side for side in SIDES if side >= needed), 1.0)
    left, bottom, edge, ticks = best * (1 - side), 1 - side, 0.02 * side, np.linspace(0, side, 5)
    limits = {"xlim": (left - edge, left + side + edge), "ylim": (bottom - edge, 1 + edge)}
    axes.set(**limits, xticks=left + ticks, yticks=bottom + ticks)
    return "" if side == 1 else f", upper {'right' if best else 'left'} corner"


def _set_title(axes: Axes, name: str, summary: Summary, digits: int = 3) -> None:
    # Without the reason where there is no interval: there is no place for it.
    axes.set_title(f"{name} {format_score(summary.estimate, digits)} ({format_interval(summary.interval, digits)})")


def _mark_points(axes: Axes, points: np.ndarray) -> None:
    """Mark the operating points, of shape (2, n)."""
    for (x, y), threshold, marker in zip(points.T, THRESHOLDS, MARKERS, strict=True):
        axes.plot(x, y, **marker, linestyle="", color=ORANGE, clip_on=False, label=f"called malignant from {threshold}")


def _collect_rates(report: Report, name: str) -> np.ndarray:
    """Return a rate at the operating points; NaN, which is not drawn, where it is not defined."""
    return np.array([getattr(point, name).estimate for point in report.operating_points], dtype=np.float64)


def _to_limits(intervals: Iterable[Interval]) -> np.ndarray:
    """Return the lower limits and the upper ones, of shape (2, n)."""
    return np.array([interval or [np.nan, np.nan] for interval in intervals]).T
