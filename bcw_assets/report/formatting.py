"""How numbers, and ids of a user's file, look to people. Imports nothing heavy: `bcw predict` writes numbers too."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bcw_assets.ml.evaluation.scores import SCORES, THRESHOLD, Interval, Score, Summary

if TYPE_CHECKING:
    import jinja2


def open_templates(folder: Path) -> "jinja2.Environment":
    """Return the templates of a folder, with the functions of this module as filters; an unknown name is an error."""
    import jinja2  # `bcw predict` does without

    templates = jinja2.Environment(
        autoescape=jinja2.select_autoescape(["html.j2"]),  # the card's template escapes a user's ids itself
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    filters = {name: call for name, call in globals().items() if name.startswith(("format_", "escape_"))}
    templates.filters |= {**filters, "zip": zip}
    templates.globals |= {"profiles": SCORES, "threshold": THRESHOLD}
    return templates


def format_score(value: Score, digits: int = 4) -> str:
    """Return a score, or that it is not defined."""
    return "not defined" if value is None else f"{value:.{digits}f}"


def format_interval(interval: Interval, digits: int = 3) -> str:
    """Return an interval, or that there is none."""
    return "no interval" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def format_estimate(summary: Summary, digits: int = 3) -> str:
    """Return an estimate and its interval, or why there is none.

    >>> format_estimate(Summary(0.9641, 0.002, [0.9297, 0.9820]))
    '0.964 (0.930 to 0.982)'
    >>> format_estimate(Summary(1.0, 0.0, None, "no interval: every patient contributes the same"))
    '1.000 (no interval: every patient contributes the same)'
    """
    interval = format_interval(summary.interval, digits) if summary.interval else summary.reason or "no interval"
    return f"{format_score(summary.estimate, digits)} ({interval})"


def format_percent(value: Score, digits: int = 1) -> str:
    """Return a share in percent."""
    return "not defined" if value is None else f"{100 * value:.{digits}f} %"


def format_probability(value: float) -> str:
    """Return a probability in percent, which is never said to be 0 or 1.

    >>> [format_probability(value) for value in (0.0001, 0.967, 0.9999)]
    ['< 0.1 %', '96.7 %', '> 99.9 %']
    """
    return "< 0.1 %" if value < 0.0005 else "> 99.9 %" if value >= 0.9995 else format_percent(value)


def format_percent_interval(interval: Interval) -> str:
    """Return an interval in percent."""
    return "no interval" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def shorten(text: str) -> str:
    """Return a text for a narrow cell of the UI, which does not break it if it is no longer than an interval."""
    text = text.replace("at least", "≥").replace("at most", "≤")
    return text.replace(" ", "\u00a0") if len(text) <= len("0.9642 (0.9297 to 0.9820)") else text


def escape_markdown(text: str) -> str:
    r"""Return text from a user's file as Markdown that shows it and does nothing else.

    >>> print(escape_markdown("a|b<i>"))
    a\|b\<i\>
    """
    return re.sub(r"([^\w\s.-])|_", r"\\\g<0>", text)
