"""The model card, for clinicians and engineers, and its tables: the words are in `card.md.j2`, and no number is."""

import csv
import re
import textwrap
from pathlib import Path

import yaml
from tabulate import tabulate

from bcw_assets.ml.evaluation import patients
from bcw_assets.ml.evaluation.report import PUBLISHED_SCORES, STANDARD_NAMES, TEST_HEADLINE, Report
from bcw_assets.ml.evaluation.scores import SCORES
from bcw_assets.ml.evaluation.thresholds import TOLERABLE_SLOPES
from bcw_assets.ml.table import canonical
from bcw_assets.report.formatting import format_interval, format_score, open_templates, shorten

TEXTS = Path(__file__).parent


def write_card(report: Report) -> str:
    """Return the card in Markdown, with the front matter that Hugging Face reads."""
    gains = zip(report.decision_curve.model, report.decision_curve.treat_all, strict=True)
    templates = open_templates(TEXTS)
    templates.filters |= {"format": format, "to_yaml": yaml.safe_dump}  # Python's `format`; Jinja's is %
    text = templates.get_template("card.md.j2").render(
        report=report,
        is_uci=report.provenance.fingerprint == canonical.UCI_FINGERPRINT,
        table_of_scores=tabulate_scores(report),
        useful_thresholds=sum(model > max(everybody, 0) for model, everybody in gains),
        tolerable_slopes=TOLERABLE_SLOPES,
        standard_names=STANDARD_NAMES,
        test_headline=TEST_HEADLINE,
        patients=patients,
        probast=read_guideline("probast"),
        tripod_ai=read_guideline("tripod_ai"),
    )
    return "\n\n".join(map(_wrap, re.split(r"\n{2,}", text.strip()))) + "\n"


def cut_card(text: str) -> str:
    """Return a card for the UI: without the front matter, and without the picture, which is another file."""
    return re.sub(r"!\[.*\]\(.*\)\n\n", "", text.split("---\n", 2)[2])


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


def read_guideline(name: str) -> list[dict[str, str]]:
    """Return what `probast` or `tripod_ai` asks, an item a row, and the answer of this project."""
    with (TEXTS / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _wrap(block: str) -> str:
    """Wrap a paragraph; a heading, a table, a list, a picture and the front matter stay as they are."""
    is_paragraph = not block.startswith(("#", "|", "- ", "!", "---"))
    return textwrap.fill(block, 100, break_long_words=False, break_on_hyphens=False) if is_paragraph else block
