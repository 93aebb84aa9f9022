"""What people read of a report: every number of it is the report's, for any report."""

import io
import json
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from bcw_assets.ml.evaluation.report import Report, evaluate
from bcw_assets.ml.evaluation.scores import Summary
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.report import card, figure, guidelines, tables
from bcw_assets.storage import formats
from bcw_assets_tests.conftest import CHECKOUT
from bcw_assets_tests.releases.candidates import flipped, part

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text


@pytest.fixture(scope="session")
def report(made: dict[str, Any]) -> Report:
    found: Report = made["metrics"].report
    return found


@pytest.fixture(scope="session")
def of_own_table(raw: pd.DataFrame) -> Report:
    """The report on the smallest table that is welcome."""
    few = pd.concat([raw[raw["diagnosis"] == "M"].head(10), raw[raw["diagnosis"] == "B"].head(10)], ignore_index=True)
    return report_of(few, Split(0.4, 1, stratify=True), 0.5, Resampling(5, 3, 7))


def report_of(table: pd.DataFrame, split: Split, C: float, how: Resampling) -> Report:  # noqa: N803 (scikit-learn's)
    ready = preparation.prepare(table, split)
    model = training.train(ready, C)
    return evaluate(table, ready, model, resampling.predict_out_of_fold(table, model, how))


def changed(value: Any) -> Any:
    """Return a report, or a part of one, in which every number is another and every id too."""
    if is_dataclass(value) and not isinstance(value, type):
        return type(value)(**{one.name: changed(getattr(value, one.name)) for one in fields(value)})
    if isinstance(value, dict):
        return {name: changed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [changed(one) for one in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"9{value}" if isinstance(value, str) and value.isdigit() else value
    return value + 1 if isinstance(value, int) else value * 1.08 + 0.06


# Numbers that stand in the card about no run: sources, units, items of the guidelines, what is right or best.
CONSTANT = (
    r"10\.24432/C5DW2B", r"\(1993\)", r"before 1996", r"95 %", r"on 30 measurements", r"below 0\.05", r"L2",
    r"fewer than (10|20)", r"^\| \d+[a-c]? \|.*$", r"^\|[^|]*\| \d\.\d \|", r"\b[01] is (best|right)",
    r"(below|above) 1\b", r"`[^`]*`", r"Python [\d.]+", r"(numpy|pandas|scipy|sklearn) [\d.]+", r"(at|of) 0\.5 ",
    r"at \d+ of the \d+ thresholds", r"CC BY 4\.0", r"Repeats: [^;]*;",
)  # fmt: skip


def numbers_of(text: str) -> list[str]:
    text = re.sub(r"(?<!\n)\n(?=[^\n|#-])", " ", text.split("---\n", 2)[2])  # a paragraph is one line
    for constant in CONSTANT:
        text = re.sub(constant, "", text, flags=re.MULTILINE)
    return re.findall(r"(?<![\w.])-?\+?\d+(?:\.\d+)?(?![\w])", text)


def test_every_number_of_the_card_is_the_reports(report: Report) -> None:
    of_this, of_another = numbers_of(card.write(report)), numbers_of(card.write(changed(report)))
    assert len(of_this) == len(of_another) > 300
    same = [one for one, other in zip(of_this, of_another, strict=True) if one == other]
    assert same == [str(len(report.hardest_rows)), str(len(report.label_suspects))]


def test_the_front_matter_is_what_hugging_face_reads(report: Report) -> None:
    front = yaml.safe_load(card.write(report).split("---\n")[1])
    assert (front["license"], front["library_name"]) == ("mit", "sklearn")
    (model,) = front["model-index"]
    (result,) = model["results"]
    assert result["task"]["type"] == "tabular-classification"
    assert result["dataset"]["name"] == "Breast Cancer Wisconsin (Diagnostic)"
    assert {one["type"]: one["value"] for one in result["metrics"]}["accuracy"] == pytest.approx(0.979, abs=0.001)


def test_a_card_without_a_defined_score_leaves_it_out_of_the_front_matter(report: Report) -> None:
    none = report.cross_validation["ppv"].__class__(None, None, None, "not defined in 10 of 10 repeats")
    written = card.write(replace(report, cross_validation=report.cross_validation | {"ppv": none}))
    assert "precision" not in {one["type"] for one in _metrics(written)}
    assert "| masses called malignant that are malignant (PPV) | not defined | no interval |" in written
    assert "| ppv | not defined | no interval | not defined | not defined in 10 of 10 repeats |" in written


def _metrics(written: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(written.split("---\n")[1])["model-index"][0]["results"][0]["metrics"]
    return found


def test_the_card_says_what_it_must(report: Report) -> None:
    text = card.write(report).replace("\n", " ")
    for words in (
        "no medical device", "569 patients, 212 of them (37.3 %)", "No age, no sex, no ethnicity", "before 1996",
        "96.4 % | 93.0 to 98.2 %", "71 patients: 90.7 % (81.7 to 95.5 %) are called malignant", "judges the recipe",
        "chosen by people who knew this table", "**High**, by PROBAST's own questions", "10.24432/C5DW2B",
    ):  # fmt: skip
        assert words in text, words


def test_of_another_table_the_card_claims_nothing_that_only_its_author_knows(of_own_table: Report) -> None:
    text = re.sub(r" +", " ", card.write(of_own_table).replace("\n", " "))
    for claim in (
        "Wisconsin)",
        "1996",
        "10.24432/C5DW2B",
        "one hospital",
        "by hand",
        "who knew this table",
        "centres |",
    ):
        assert claim not in text.replace("number and location of centres |", ""), claim
    assert "the author must say here" in text
    assert "the author must answer them" in text
    assert "the author must say how to cite it" in text
    for item in ("5a", "6a", "8a", "9c", "12d", "18e", "20a", "23b", "26"):
        assert re.search(rf"\| {item} \| [^|]* \| the author \| \|", text), item
    assert "no rate of fewer than 20 patients" in text


def test_an_id_from_a_users_file_is_only_shown(report: Report) -> None:
    patient = replace(report.hardest_rows[0], id="a|b`<img src=x>_![x](http://x)")
    text = card.write(replace(report, hardest_rows=[patient]))
    assert r"| a\|b\`\<img src\=x\>\_\!\[x\]\(http\:\/\/x\) | M | 0.00" in text


def test_the_guidelines_are_whole() -> None:
    items = [one.code for one in guidelines.TRIPOD_AI]
    assert sorted({int(re.sub(r"\D", "", code)) for code in items}) == list(range(1, 28))
    assert len(items) == len(set(items)) == 52
    answers = {guidelines.RUN, guidelines.AUTHOR, guidelines.NOT_APPLICABLE}
    assert {one.by for one in guidelines.TRIPOD_AI} == answers
    assert [one.code for one in guidelines.PROBAST] == [
        "1.1", "1.2", "2.1", "2.2", "2.3",
        *(f"3.{one}" for one in range(1, 7)),
        *(f"4.{one}" for one in range(1, 10)),
    ]  # fmt: skip


def test_what_the_guidelines_point_to_is_in_the_card(report: Report) -> None:
    sections = re.findall(r"^## (.*)$", card.write(report), flags=re.MULTILINE)
    named = [
        name
        for one in guidelines.TRIPOD_AI
        if one.by == guidelines.RUN
        for name in re.findall(r"[A-Z][a-z]+(?: [a-z]+)*", one.where)
    ]
    assert len(named) > 12
    assert set(named) <= set(sections)


def test_the_figure_shows_the_numbers_of_the_report(report: Report) -> None:
    panels: list[Any] = figure.compose(report).axes
    roc, precision_recall, reliability, histogram, decision = panels
    np.testing.assert_array_equal(roc.lines[0].get_ydata(), report.roc.mean)
    np.testing.assert_array_equal(precision_recall.lines[0].get_ydata(), report.precision_recall.mean)
    for axes, places, heights in (
        (roc, [1 - 0.98824, 1 - 0.90364], [0.96415, 0.98349]),
        (precision_recall, [0.96415, 0.98349], [0.97989, 0.85841]),
    ):
        marks = [line for line in axes.lines if line.get_label().startswith("called malignant from")]
        assert [float(mark.get_xdata()[0]) for mark in marks] == pytest.approx(places, abs=1e-5)
        assert [float(mark.get_ydata()[0]) for mark in marks] == pytest.approx(heights, abs=1e-5)
    observed = [one.observed for one in report.calibration.reliability]
    np.testing.assert_array_equal(reliability.lines[1].get_ydata(), observed)
    patients = [one.patients for one in report.calibration.reliability]
    assert [bar.get_height() for bar in histogram.patches] == pytest.approx(patients)
    np.testing.assert_array_equal(decision.lines[0].get_ydata(), report.decision_curve.model)
    np.testing.assert_array_equal(decision.lines[1].get_ydata(), report.decision_curve.treat_all)


TABLES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "100 rows": lambda raw: part(raw, 100),
    "10 % wrong labels": lambda raw: flipped(raw, 57),
}


def without_scores(report: Report) -> Report:
    """Return a report with the longest titles there can be, and with a point that one panel cannot show."""
    undefined = Summary(None, None, None, "not defined in 2 of 2 repeats, where nobody is called malignant")
    first, *others = report.operating_points
    return replace(
        report,
        cross_validation=dict.fromkeys(report.cross_validation, undefined),
        calibration=replace(report.calibration, slope=undefined),
        operating_points=[replace(first, ppv=undefined), *others],
    )


@pytest.fixture(scope="module", params=["UCI's", *TABLES, "AUC of 1", "no interval"])
def drawing(request: pytest.FixtureRequest, raw: pd.DataFrame) -> tuple[Report, "Figure"]:
    """A report and its figure, laid out as for the file."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    if request.param in TABLES:
        report = report_of(TABLES[request.param](raw), Split(0.2, 42, stratify=True), 1.0, Resampling(10, 2, 0))
    else:
        report = request.getfixturevalue("of_own_table" if request.param == "AUC of 1" else "report")
        report = without_scores(report) if request.param == "no interval" else report
    with matplotlib.rc_context(figure.STYLE):
        picture = figure.compose(report)
        picture.set_dpi(figure.DOTS_PER_INCH)
        canvas: Any = FigureCanvasAgg(picture)
        canvas.draw()
    return report, picture


def legends_of(picture: "Figure") -> list["Legend"]:
    return [legend for legend in (*picture.legends, *(axes.get_legend() for axes in picture.axes)) if legend]


def texts_of(picture: "Figure") -> list["Text"]:
    """Return every text that can be seen. An axis also has labels for ticks beyond its limits."""
    from matplotlib.text import Text

    texts = [*picture.texts, *(text for legend in legends_of(picture) for text in legend.get_texts())]
    for axes in picture.axes:
        texts += [child for child in axes.get_children() if isinstance(child, Text)]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()
            texts += [axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)]
    return [text for text in texts if text.get_visible() and text.get_text()]


def marks_of(picture: "Figure") -> list[Any]:
    return [
        line for axes in picture.axes for line in axes.lines if str(line.get_label()).startswith("called malignant")
    ]


def test_the_figure_cuts_no_text_and_no_text_lies_on_another(drawing: tuple[Report, "Figure"]) -> None:
    _, picture = drawing
    boxes = {text: text.get_window_extent() for text in texts_of(picture)}
    assert len(boxes) > 40
    for text, box in boxes.items():
        assert picture.bbox.x0 <= box.x0 < box.x1 <= picture.bbox.x1, text
        assert picture.bbox.y0 <= box.y0 < box.y1 <= picture.bbox.y1, text
        assert [other for other in boxes if other is not text and box.overlaps(boxes[other])] == [], text


def test_no_legend_and_no_text_lies_in_a_panel_of_the_figure_or_on_a_mark(drawing: tuple[Report, "Figure"]) -> None:
    _, picture = drawing
    assert len(legends_of(picture)) == 2
    marks = [line.get_window_extent() for line in marks_of(picture) if np.isfinite(line.get_xydata()).all()]
    for artist in (*legends_of(picture), *texts_of(picture)):
        box = artist.get_window_extent()
        assert not any(box.overlaps(panel) for panel in (*(axes.bbox for axes in picture.axes), *marks)), artist


def test_the_figure_shows_every_operating_point_the_bend_of_each_curve_and_what_may_be_gained(
    drawing: tuple[Report, "Figure"],
) -> None:
    report, picture = drawing
    undefined = sum(point.ppv.estimate is None for point in report.operating_points)
    marks = [(line.axes, *line.get_xydata()[0]) for line in marks_of(picture)]
    places = [place for place in marks if np.isfinite(place[1:]).all()]
    assert (len(marks), len(places)) == (6, 6 - undefined)
    for axes, best in zip(picture.axes[:2], (0, 1), strict=True):
        x, y = np.asarray(axes.lines[0].get_data())
        bend = np.argmin(np.maximum(np.abs(x - best), 1 - y))
        places.append((axes, x[bend], y[bend]))
    gains = zip(report.decision_curve.thresholds, report.decision_curve.intervals, strict=True)
    places += [(picture.axes[-1], threshold, interval[1]) for threshold, interval in gains if interval]
    for axes, x, y in places:
        assert axes.viewLim.contains(x, y), (axes.get_ylabel(), x, y)


@pytest.mark.parametrize(
    ("specificity", "highest", "side"), [(0.9, 1, 0.2), (0.79, 1, 0.4), (0.59, 1, 1), (0.9, 0.85, 0.4), (0.9, 0.4, 1)]
)
def test_the_figure_enlarges_a_corner_no_more_than_its_points_and_its_bend_allow(
    report: Report, specificity: float, highest: float, side: float
) -> None:
    point, last = report.operating_points
    other_point = replace(point, specificity=replace(point.specificity, estimate=specificity))
    curve = replace(report.roc, mean=np.minimum(report.roc.mean, highest).tolist())
    roc = figure.compose(replace(report, operating_points=[other_point, last], roc=curve)).axes[0]
    assert np.ptp(roc.get_xlim()) == pytest.approx(1.04 * side)
    assert ("upper left corner" in roc.get_title()) == (side < 1)


@pytest.mark.parametrize("which", ["report", "of_own_table"])
def test_the_figure_is_a_picture_and_the_same_each_time(which: str, request: pytest.FixtureRequest) -> None:
    of: Report = request.getfixturevalue(which)
    content = figure.draw(of)
    assert figure.draw(of) == content
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (960, 1032)
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours = {tuple(one) for one in np.unique(pixels, axis=0).tolist()}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours


def test_the_picture_in_the_readme_is_that_of_a_run(made: dict[str, Any]) -> None:
    with (
        Image.open(CHECKOUT / "docs" / "evaluation.png") as kept,
        Image.open(io.BytesIO(made["metrics"].figure)) as now,
    ):
        difference = np.abs(np.asarray(kept, dtype=float) - np.asarray(now, dtype=float))
    assert difference.mean() < 0.5, "run: make docs"


def test_the_figure_does_not_depend_on_a_users_matplotlibrc(report: Report) -> None:
    import matplotlib

    before = figure.draw(report)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        assert figure.draw(report) == before
        assert matplotlib.rcParams["font.size"] == 30


def test_the_figure_brings_no_pyplot(report: Report) -> None:
    figure.draw(report)
    assert "matplotlib.figure" in sys.modules
    assert "matplotlib.pyplot" not in sys.modules


def test_the_table_of_scores_shows_intervals_and_reasons(report: Report) -> None:
    text = tables.scores(report)
    assert "| sensitivity | 0.964 | 0.930 to 0.982 | 0.0033 |  |" in text
    assert text.count("\n") == 1 + len(report.cross_validation) + 3


SUMMARY = {"estimate", "sd", "interval", "reason"}


def paths(value: object, here: str = "") -> set[str]:
    """Return the names in a document, with [] for the elements of a list; a summary and an interval are one thing."""
    if isinstance(value, dict) and set(value) != SUMMARY:
        return {path for name, one in value.items() for path in paths(one, f"{here}.{name}" if here else name)}
    is_interval = re.search(r"interval(s\.\w+|s\[\]|)$", here)
    if isinstance(value, list) and not is_interval:
        return {path for one in value for path in paths(one, f"{here}[]")}
    return {here}


def test_every_name_of_metrics_json_is_documented_and_no_other(made: dict[str, Any]) -> None:
    document = json.loads(formats.dump(made["metrics"], "results/metrics")["results/metrics.json"])
    text = (CHECKOUT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(.*?)` \|", text, flags=re.MULTILINE)) == paths(document)
    summaries = set(re.findall(r"^\| `(.*?)` \| summary", text, flags=re.MULTILINE))
    assert len(summaries) == 11 + 3 + 7 + 1
