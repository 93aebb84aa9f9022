"""What people read of a report: every number of it is the report's, for any report."""

import csv
import io
import json
import re
import sys
from dataclasses import fields, is_dataclass, replace
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from PIL import Image

from bcw_assets.ml.evaluation.report import Report
from bcw_assets.ml.evaluation.scores import SCORES, Summary
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.report import card, figure
from bcw_assets.storage import formats
from bcw_assets_tests.conftest import CHECKOUT
from bcw_assets_tests.ml.evaluation.samples import report_on
from bcw_assets_tests.releases.candidates import flipped


@pytest.fixture(scope="session")
def report(made: dict[str, Any]) -> Report:
    report: Report = made["metrics"].report
    return report


@pytest.fixture(scope="session")
def smallest(raw: pd.DataFrame) -> Report:
    """The report on the smallest table that is welcome; it is not UCI's."""
    rows = pd.concat([raw[raw["diagnosis"] == "M"].head(10), raw[raw["diagnosis"] == "B"].head(10)], ignore_index=True)
    return report_on(rows, Resampling(5, 3, 7), C=0.5)


def change_numbers(value: Any) -> Any:
    """Return a report, or a part of it, in which every number is another and every id too."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{field.name: change_numbers(getattr(value, field.name)) for field in fields(value)})
    if isinstance(value, dict):
        return {name: change_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [change_numbers(part) for part in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"9{value}" if isinstance(value, str) and value.isdigit() else value
    return value + 1 if isinstance(value, int) else value * 1.08 + 0.06


# Numbers that stand in the card about no run: sources, units, items of the guidelines, what is right or best.
CONSTANT = (
    r"10\.24432/C5DW2B", r"\(1993\)", r"before 1996", r"95 %", r"on 30 measurements", r"below 0\.05", r"L2",
    r"fewer than (10|20)", r"^\| \d+[a-c]? \|.*$", r"^\|[^|]*\| \d\.\d \|", r"\b[01] is (best|right)",
    r"(below|above) 1\b", r"`[^`]*`", r"Python [\d.]+", r"(numpy|pandas|scipy|sklearn) [\d.]+", r"(at|of) 0\.5 ",
    r"at \d+ of the \d+ thresholds", r"CC BY 4\.0", r"Repeats: [^)]*\)", r"synthetic tables of 50 to 569 patients",
    r"with 50 patients", r"nobody 0\.",
)  # fmt: skip


def find_numbers(text: str) -> list[str]:
    text = re.sub(r"(?<!\n)\n(?=[^\n|#-])", " ", text.split("---\n", 2)[2])  # a paragraph is one line
    for constant in CONSTANT:
        text = re.sub(constant, "", text, flags=re.MULTILINE)
    return re.findall(r"(?<![\w.])-?\+?\d+(?:\.\d+)?(?![\w])", text)


def test_every_number_of_the_card_is_the_reports(report: Report) -> None:
    numbers, others = find_numbers(card.write_card(report)), find_numbers(card.write_card(change_numbers(report)))
    assert len(numbers) == len(others) > 300
    same = [number for number, other in zip(numbers, others, strict=True) if number == other]
    assert same == [str(len(report.hardest_rows)), str(len(report.label_suspects))]


def test_the_front_matter_is_what_hugging_face_reads_without_the_scores_that_are_not_defined(report: Report) -> None:
    undefined = Summary(None, None, None, "not defined in 10 of 10 repeats")
    tiny = replace(report.cross_validation["brier"], estimate=1.5e-5)  # which YAML 1.1 takes for text as 1.5e-05
    scores = report.cross_validation | {"ppv": undefined, "brier": tiny}
    text = card.write_card(replace(report, cross_validation=scores))
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["library_name"]) == ("mit", "sklearn")
    (result,) = front["model-index"][0]["results"]
    assert (result["task"]["type"], result["dataset"]["type"]) == (
        "tabular-classification", "uci-breast-cancer-wisconsin-diagnostic",
    )  # fmt: skip
    names = {"accuracy": "accuracy", "recall": "sensitivity", "f1": "f1", "roc_auc": "roc_auc", "brier_score": "brier"}
    expected = {kind: scores[name].estimate for kind, name in names.items()}
    assert {score["type"]: score["value"] for score in result["metrics"]} == expected
    assert "that are malignant (PPV) | not defined | not defined in 10 of 10 repeats |" in text


def test_the_card_says_what_it_must(report: Report) -> None:
    text = card.write_card(report).replace("\n", " ")
    for words in (
        "no medical device", "569 patients, 212 of them (37.3 %)", "No age, no sex, no ethnicity", "before 1996",
        "96.4 % | 93.0 to 98.2 %", "71 patients: 90.7 % (81.7 to 95.5 %) are called malignant", "judges the recipe",
        "chosen by people who knew this table", "**High**, by PROBAST's own questions", "10.24432/C5DW2B",
    ):  # fmt: skip
        assert words in text, words


def test_of_another_table_the_card_claims_nothing_that_only_its_author_knows(smallest: Report) -> None:
    text = card.write_card(smallest).replace("\n", " ").replace("number and location of centres |", "")
    claims = ("Wisconsin)", "1996", "10.24432/C5DW2B", "one hospital", "by hand", "who knew this table", "centres |")
    assert [claim for claim in claims if claim in text] == []
    for words in ("must say here", "must answer them", "must say how to cite it"):
        assert f"the author {words}" in text
    assert re.search(r"\| 5a \| [^|]* \| the author \|  \|", text)


def test_an_id_from_a_users_file_is_only_shown(report: Report) -> None:
    patient = replace(report.hardest_rows[0], id="a|b`<img src=x>_![x](http://x)")
    text = card.write_card(replace(report, hardest_rows=[patient]))
    assert r"| a\|b\`\<img src\=x\>\_\!\[x\]\(http\:\/\/x\) | M | 0.00" in text


def test_the_guidelines_are_whole_and_point_to_sections_of_the_card(report: Report) -> None:
    questions, items = card.read_guideline("probast"), card.read_guideline("tripod_ai")
    assert [question["code"][0] for question in questions] == [*"11222333333", *"4" * 9]
    assert len({item["item"] for item in items}) == len(items) == 52
    assert {item["answered_by"] for item in items} == {"this run", "the author", "does not apply"}
    answers = [item["where"] for item in items if item["answered_by"] == "this run"]
    sections = {name for answer in answers for name in re.findall(r"[A-Z][a-z]+(?: [a-z]+)*", answer)}
    assert len(sections) > 7
    assert sections <= set(re.findall(r"^## (.*)$", card.write_card(report), flags=re.MULTILINE))


def test_the_figure_shows_the_numbers_of_the_report(report: Report) -> None:
    panels: list[Any] = figure.compose(report).axes
    roc, precision_recall, reliability, _, decision = panels
    for line, numbers in (
        (roc.lines[0], report.roc.mean),
        (precision_recall.lines[0], report.precision_recall.mean),
        (reliability.lines[1], [point.observed for point in report.calibration.reliability]),
        (decision.lines[0], report.decision_curve.model),
        (decision.lines[1], report.decision_curve.treat_all),
    ):
        np.testing.assert_array_equal(line.get_ydata(), numbers)


def show_the_longest_texts(report: Report) -> Report:
    """Return a report with the longest titles and ticks there can be, and with a point that one panel cannot show."""
    undefined = Summary(None, None, None, "not defined in 2 of 2 repeats, where nobody is called malignant")
    first, last = report.operating_points
    bins = [replace(point, patients=point.patients * 1000) for point in report.calibration.reliability]
    return replace(
        report,
        cross_validation=dict.fromkeys(report.cross_validation, undefined),
        calibration=replace(report.calibration, slope=undefined, reliability=bins),
        operating_points=[replace(first, ppv=undefined), last],
    )


def list_texts(picture: Figure) -> list[Text]:
    """Return every text that can be seen. An axis also has labels for ticks beyond its limits."""
    texts = [*picture.texts, *(text for legend in picture.findobj(Legend) for text in legend.get_texts())]
    for axes in picture.axes:
        texts += [child for child in axes.get_children() if isinstance(child, Text)]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            texts += [axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)]
    return [text for text in texts if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("kind", ["10 % wrong labels", "AUC of 1", "longest texts"])
def test_the_figure_shows_every_point_bend_and_gain_and_no_text_that_is_cut_or_covers_anything(
    kind: str, raw: pd.DataFrame, report: Report, smallest: Report
) -> None:
    if kind == "10 % wrong labels":
        report = report_on(flipped(raw, 57), Resampling(10, 2, 0))
    else:
        report = smallest if kind == "AUC of 1" else show_the_longest_texts(report)
    with matplotlib.rc_context(fname=figure.STYLE):
        picture = figure.compose(report)
        picture.set_dpi(figure.DOTS_PER_INCH)
        canvas: Any = FigureCanvasAgg(picture)
        canvas.draw()
    boxes: dict[Any, Any] = {text: text.get_window_extent() for text in list_texts(picture)}
    assert (len(picture.findobj(Legend)), len(boxes) > 40) == (2, True)
    for text, box in boxes.items():
        assert picture.bbox.x0 <= box.x0 < box.x1 <= picture.bbox.x1, text
        assert picture.bbox.y0 <= box.y0 < box.y1 <= picture.bbox.y1, text
        assert [other for other in boxes if other is not text and box.overlaps(boxes[other])] == [], text
    lines = [line for axes in picture.axes for line in axes.lines]
    marks = [line for line in lines if str(line.get_label()).startswith("called malignant")]
    visible: list[Any] = [line for line in marks if np.isfinite(line.get_xydata()).all()]
    assert (len(marks), len(visible)) == (6, 6 - sum(point.ppv.estimate is None for point in report.operating_points))
    covered = [axes.bbox for axes in picture.axes] + [line.get_window_extent() for line in visible]
    for artist in (*picture.findobj(Legend), *boxes):
        assert not any(artist.get_window_extent().overlaps(place) for place in covered), artist
    places = [(line.axes, *line.get_xydata()[0]) for line in visible]
    for axes, best in zip(picture.axes[:2], (0, 1), strict=True):
        x, y = np.asarray(axes.lines[0].get_data())
        bend = np.argmin(np.maximum(np.abs(x - best), 1 - y))
        places.append((axes, x[bend], y[bend]))
    gains = zip(report.decision_curve.thresholds, report.decision_curve.intervals, strict=True)
    places += [(picture.axes[-1], threshold, interval[1]) for threshold, interval in gains if interval]
    for axes, x, y in places:
        assert axes.viewLim.contains(x, y), (axes.get_ylabel(), x, y)


def test_the_figure_is_the_same_whatever_a_users_matplotlibrc_says_and_brings_no_pyplot(
    report: Report, made: dict[str, Any]
) -> None:
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        content = figure.draw(report)
        assert matplotlib.rcParams["font.size"] == 30
    assert content == made["metrics"].figure
    assert "matplotlib.pyplot" not in sys.modules


def test_the_picture_in_the_readme_is_that_of_a_run(made: dict[str, Any]) -> None:
    pictures = CHECKOUT / "docs" / "evaluation.png", io.BytesIO(made["metrics"].figure)
    kept, current = (np.asarray(Image.open(picture), dtype=float) for picture in pictures)
    assert np.abs(kept - current).mean() < 0.5, "run: make docs"


def test_the_table_of_scores_shows_intervals_and_reasons(smallest: Report) -> None:
    head, _, *rows = csv.reader(re.sub(r" *\| *", "|", card.tabulate_scores(smallest)).splitlines(), delimiter="|")
    assert head[1:-1] == ["cross-validated", "estimate", "95 % interval", "sd over repeats", "note"]
    assert ["", "sensitivity", "1.000", "0.722 to 1.000", "0.0000", "", ""] in rows
    (roc_auc,) = [row for row in rows if row[1] == "ROC AUC"]
    assert roc_auc[2:4] == ["1.000", "no interval"]
    assert roc_auc[5].startswith("no interval: every patient contributes the same")
    assert len(rows) == len(smallest.cross_validation) + 3


SUMMARY = {"estimate", "sd", "interval", "reason"}


def paths(value: object, here: str = "") -> set[str]:
    """Return the names in a document, with [] for the elements of a list; a summary and an interval are one thing."""
    if isinstance(value, dict) and set(value) != SUMMARY:
        return {path for name, part in value.items() for path in paths(part, f"{here}.{name}" if here else name)}
    is_interval = re.search(r"interval(s\.\w+|s\[\]|)$", here)
    if isinstance(value, list) and not is_interval:
        return {path for part in value for path in paths(part, f"{here}[]")}
    return {here}


def test_every_name_of_metrics_json_is_documented_and_no_other(made: dict[str, Any]) -> None:
    document = json.loads(formats.dump(made["metrics"], "results/metrics")["results/metrics.json"])
    text = (CHECKOUT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(.*?)` \|", text, flags=re.MULTILINE)) == paths(document)
    summaries = set(re.findall(r"^\| `(.*?)` \| summary", text, flags=re.MULTILINE))
    assert len(summaries) == len(SCORES) + 3 + 7 + 1
