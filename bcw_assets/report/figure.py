"""The report as one picture: discrimination, calibration and usefulness, for the screen and for print."""

import base64
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from bcw_assets.ml.curves import Curve
from bcw_assets.ml.evaluation import Report
from bcw_assets.ml.performance import Interval, Score, Summary, limits, written
from bcw_assets.ml.utility import THRESHOLDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of Okabe and Ito's palette, which colour-blind people can tell apart; the lines differ in style for grey prints too.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#555555"
INCHES, DOTS_PER_INCH = (8.0, 8.6), 120  # the width of the dialog in the UI
STYLE: dict[Any, Any] = {
    "font.size": 9.5, "axes.titlesize": 10.5, "legend.fontsize": 8.5, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#DDDDDD",
    "axes.titlelocation": "left", "axes.titley": 1.01,  # a place of its own: to look for one takes 0.1 s
}  # fmt: skip
QUARTERS = [0, 0.25, 0.5, 0.75, 1]
ALIKE = 0.01  # mean difference of a pixel, whose values are 0 to 1
CORNER = 0.2  # side of the corner in which a good curve has its bend


def draw(report: Report) -> bytes:
    """Return the figure as PNG, 960 × 1032 pixels."""
    # Imported here: it takes 0.3 s, and nobody needs it who only loads the definitions.
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever a user's matplotlibrc says
        matplotlib.rcParams.update(STYLE)
        picture = io.BytesIO()
        compose(report).savefig(picture, format="png", dpi=DOTS_PER_INCH, pil_kwargs={"compress_level": 3})
    return picture.getvalue()


def is_alike(content: bytes, other: bytes) -> bool:
    """Say whether two PNG pictures differ no more than by the drawing of letters and lines."""
    from matplotlib.image import imread  # as above

    try:
        pixels, others = (imread(io.BytesIO(one), format="png") for one in (content, other))
    except (OSError, SyntaxError, ValueError):  # what Pillow says of bytes that are no picture
        return False
    return pixels.shape == others.shape and float(np.abs(pixels - others).mean()) <= ALIKE


def compose(report: Report) -> "Figure":
    """Return the figure's four panels; the third has two parts."""
    from matplotlib.figure import Figure  # as above

    figure = Figure(figsize=INCHES)
    grid = figure.add_gridspec(2, 2, left=0.085, right=0.975, top=0.955, bottom=0.115, wspace=0.24, hspace=0.3)
    parts = grid[1, 0].subgridspec(2, 1, height_ratios=[3, 1], hspace=0.12)
    _roc(figure.add_subplot(grid[0, 0]), report)
    _precision_recall(figure.add_subplot(grid[0, 1]), report)
    _reliability(figure.add_subplot(parts[0]), figure.add_subplot(parts[1]), report)
    _decision(figure.add_subplot(grid[1, 1]), report)
    how = report.provenance.resampling
    note = (
        f"{how.repeats} × {how.folds}-fold cross-validation of {report.provenance.rows} patients. Bands of the upper "
        "curves: range over the repeats.\nBars and band of the lower: 95 % intervals, which leave out the variance of "
        "the training set."
    )
    figure.text(0.085, 0.02, note, fontsize=8.5, color=GREY, linespacing=1.5)
    return figure


def inline(picture: bytes) -> str:
    """Return Markdown that shows a PNG."""
    return f"![evaluation](data:image/png;base64,{base64.b64encode(picture).decode()})"


def _roc(axes: "Axes", report: Report) -> None:
    _curve(axes, report.roc, (0, 1 - CORNER), "upper left")
    axes.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    _mark(axes, 1 - _numbers(one.specificity.estimate for one in report.operating_points), _found(report))
    axes.set_xlabel("1 - specificity (share of benign called malignant)")
    axes.set_ylabel("sensitivity (share of malignant found)")
    axes.set_title(f"ROC: AUC {_told(report.cross_validation['roc_auc'])}")


def _precision_recall(axes: "Axes", report: Report) -> None:
    _curve(axes, report.precision_recall, (1 - CORNER, 1 - CORNER), "upper right")
    axes.axhline(report.provenance.prevalence, linestyle=":", color=GREY, linewidth=1)  # everybody called malignant
    _mark(axes, _found(report), _numbers(one.ppv.estimate for one in report.operating_points))
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (PPV)")
    axes.set_title(f"Precision-recall: average {_told(report.cross_validation['pr_auc'])}")


def _reliability(axes: "Axes", histogram: "Axes", report: Report) -> None:
    bins = report.calibration.reliability
    axes.plot([0, 1], [0, 1], ":", color=GREY, linewidth=1)
    predicted = _numbers(one.predicted for one in bins)
    axes.vlines(predicted, *_limits(one.interval for one in bins), color=BLUE, linewidth=1.2)
    axes.plot(predicted, _numbers(one.observed for one in bins), "o", color=BLUE, markersize=4.5)
    axes.set(ylabel="share that is malignant", xlim=(-0.02, 1.02), ylim=(-0.03, 1.03), yticks=QUARTERS)
    axes.set_xticks(QUARTERS, labels=[])
    axes.set_title(f"Reliability: slope {_told(report.calibration.slope, 2)}")
    counts, widths = [one.patients for one in bins], [one.high - one.low for one in bins]
    histogram.bar([one.low for one in bins], counts, widths, align="edge", color="#9CC7E4", edgecolor="white")
    histogram.set_yscale("log")
    histogram.set_yticks([1, 10, 100, 1000], labels=["1", "10", "100", "1000"])
    histogram.set_ylim(0.5, max(10, 2 * max(counts)))
    histogram.minorticks_off()
    histogram.set(xlabel="predicted P(malignant)", ylabel="patients", xlim=(-0.02, 1.02), xticks=QUARTERS)


def _decision(axes: "Axes", report: Report) -> None:
    curve, prevalence = report.decision_curve, report.provenance.prevalence
    axes.fill_between(curve.thresholds, *_limits(curve.intervals), color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(curve.thresholds, curve.model, "-", color=BLUE, label="act on the model")
    axes.plot(curve.thresholds, curve.treat_all, "--", color=ORANGE, label="treat all")
    axes.axhline(0, linestyle="-.", color=GREY, linewidth=1, label="treat none")
    points = report.operating_points
    gained = _numbers(one.net_benefit.estimate for one in points)
    axes.plot([one.threshold for one in points], gained, "o", color=BLUE, markersize=5)
    axes.set(
        xlabel="threshold probability",
        ylabel="net benefit (true positives per patient)",
        xlim=(-0.02, 1.02),
        xticks=QUARTERS,
    )
    axes.set_ylim(-0.15 * prevalence, 1.15 * prevalence)
    axes.set_title(f"Decision curve, thresholds {curve.thresholds[0]} to {curve.thresholds[-1]}")
    axes.legend(loc="center right", bbox_to_anchor=(1, 0.5))


def _curve(axes: "Axes", curve: Curve, corner: tuple[float, float], place: str) -> None:
    """Draw a curve with its band: the corner alone where a good one has all that can be seen of it."""
    axes.fill_between(curve.x, curve.lowest, curve.highest, color=BLUE, alpha=0.25, linewidth=0)
    axes.plot(curve.x, curve.mean, "-", color=BLUE, linewidth=1.4)
    (x, y), side = corner, 1.0
    if np.interp(x or CORNER, curve.x, curve.mean) > y:
        side = CORNER
        axes.text(
            0.5, 0.06, f"enlarged: the {place} corner", transform=axes.transAxes, color=GREY, fontsize=8.5, ha="center"
        )
    else:
        x = y = 0
    edge, ticks = 0.02 * side, np.linspace(0, side, 5)
    axes.set(xlim=(x - edge, x + side + edge), ylim=(y - edge, y + side + edge), xticks=x + ticks, yticks=y + ticks)


def _mark(axes: "Axes", places: np.ndarray, heights: np.ndarray) -> None:
    for x, y, threshold, marker in zip(places, heights, THRESHOLDS, "os", strict=True):
        axes.plot(x, y, marker, color=ORANGE, markersize=5, label=f"called malignant from {threshold}")
    axes.legend(loc="center")


def _found(report: Report) -> np.ndarray:
    return _numbers(one.sensitivity.estimate for one in report.operating_points)


def _numbers(values: Iterable[Score]) -> np.ndarray:
    """Return scores as an array, with NaN, which is not drawn, for those that are not defined."""
    return np.array(list(values), dtype=np.float64)


def _limits(intervals: Iterable[Interval]) -> np.ndarray:
    """Return the lower limits and the upper ones, of shape (2, n)."""
    return np.array([interval or [np.nan, np.nan] for interval in intervals]).T


def _told(summary: Summary, digits: int = 3) -> str:
    return f"{written(summary.estimate, digits)} ({limits(summary.interval, digits)})"
