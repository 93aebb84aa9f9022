"""What people read of a report: every number of it is the report's, for any report."""

import io
import json
import re
import sys
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from bcw_assets.ml import evaluation, preparation, resampling, training
from bcw_assets.ml.evaluation import Report
from bcw_assets.ml.preparation import Split
from bcw_assets.ml.resampling import Resampling
from bcw_assets.report import card, figure, guidelines, tables
from bcw_assets.storage import formats
from bcw_assets_tests.conftest import CHECKOUT


@pytest.fixture(scope="session")
def report(made: dict[str, Any]) -> Report:
    found: Report = made["metrics"].report
    return found


@pytest.fixture(scope="session")
def of_own_table(raw: pd.DataFrame) -> Report:
    """The report on the smallest table that is welcome."""
    few = pd.concat([raw[raw["diagnosis"] == "M"].head(10), raw[raw["diagnosis"] == "B"].head(10)], ignore_index=True)
    ready = preparation.prepare(few, Split(0.4, 1, stratify=True))
    model = training.train(ready, 0.5)
    return evaluation.evaluate(few, ready, model, resampling.out_of_fold(few, model, Resampling(5, 3, 7)))


def leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in leaves(one)]
    return [value]


def is_told(text: str, numbers: list[float]) -> bool:
    """Return whether a number in the card is one of the report's, rounded, or in percent."""
    told, half = float(text), 0.5 * 10.0 ** -len(text.partition(".")[2]) + 1e-9
    return any(abs(told - number) <= half or abs(told - 100 * number) <= half for number in numbers)


# What stands in the card about no run: names, sources, the two thresholds of words, items of the guidelines.
CONSTANT = (
    r"10\.24432/C5DW2B", r"1993", r"before 1996", r"95 %", r"ROC AUC 0\.5", r"30 measurements", r"below 0\.05",
    r"fewer than 20 patients", r"^\| \d+[a-c]? \|.*$", r"^\|[^|]*\| \d\.\d \|", r"0 is (best|right)", r"1 is right",
    r"(below|above) 1", r"newton-cholesky", r"`[^`]*`", r"fewer than 10 events", r"L2", r"Python [\d.]+", r"1e-08",
    r"(numpy|pandas|scipy|sklearn) [\d.]+",
)  # fmt: skip


def numbers_of(text: str) -> list[str]:
    for constant in CONSTANT:
        text = re.sub(constant, "", text, flags=re.MULTILINE)
    return re.findall(r"(?<![\w.])-?\+?\d+(?:\.\d+)?(?![\w])", text)


@pytest.mark.parametrize("which", ["report", "of_own_table"])
def test_every_number_of_the_card_is_in_the_report(which: str, request: pytest.FixtureRequest) -> None:
    of: Report = request.getfixturevalue(which)
    curves = {"roc", "precision_recall", "decision_curve"}  # so many values that something would always fit
    document = {name: value for name, value in asdict(of).items() if name not in curves}
    known = [float(one) for one in leaves(document) if isinstance(one, int | float) and not isinstance(one, bool)]
    known += [float(one.id) for one in of.hardest_rows if one.id.isdigit()]
    known += [float(len(of.hardest_rows)), float(len(of.label_suspects)), float(of.confusion.total)]
    known += [float(of.provenance.rows - of.confusion.total), 1 - 1 / of.provenance.resampling.folds]
    known += [len(of.decision_curve.thresholds), of.decision_curve.thresholds[0], of.decision_curve.thresholds[-1]]
    known += [
        float(
            sum(
                model > max(everybody, 0)
                for model, everybody in zip(of.decision_curve.model, of.decision_curve.treat_all, strict=True)
            )
        )
    ]
    body = card.write(of).split("---\n", 2)[2]
    found = numbers_of(body)
    assert len(found) > 150
    assert [one for one in found if not is_told(one, known)] == []


def test_another_report_gives_another_card(report: Report, of_own_table: Report) -> None:
    lines = set(card.write(report).splitlines())
    changed = replace(report, cross_validation=of_own_table.cross_validation)
    assert len(set(card.write(changed).splitlines()) - lines) > 10


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
    assert "| called malignant and rightly so (PPV) | not defined | no interval |" in written
    assert "| ppv | not defined | no interval | not defined | not defined in 10 of 10 repeats |" in written


def _metrics(written: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(written.split("---\n")[1])["model-index"][0]["results"][0]["metrics"]
    return found


def test_the_card_says_what_it_must(report: Report) -> None:
    text = card.write(report).replace("\n", " ")
    for words in (
        "no medical device", "569 patients, 212 of them (37.3 %)", "No age, no sex, no ethnicity", "before 1996",
        "96.4 % | 93.0 to 98.2 %", "71 patients: 90.7 % (81.7 to 95.5 %) are found", "judges the recipe",
        "chosen by people who knew this table", "**High**, by PROBAST's own questions", "10.24432/C5DW2B",
    ):  # fmt: skip
        assert words in text, words


def test_of_another_table_the_card_claims_nothing_that_only_a_person_knows(of_own_table: Report) -> None:
    text = card.write(of_own_table)
    assert "Wisconsin)" not in text
    assert "1996" not in text
    assert "10.24432/C5DW2B" not in text
    assert "a person must say here" in text
    assert "a person must answer them" in text
    assert "| 6a | Setting, number and location of centres | a person must |" in text
    assert "no rate of fewer than 20 patients" in text


def test_the_guidelines_are_whole() -> None:
    items = [code for code, *_ in guidelines.TRIPOD_AI]
    assert sorted({int(re.sub(r"\D", "", code)) for code in items}) == list(range(1, 28))
    assert len(items) == len(set(items)) == 52
    assert {who for _, _, who, _ in guidelines.TRIPOD_AI} == {
        guidelines.RUN, guidelines.PERSON, guidelines.NOT_APPLICABLE,
    }  # fmt: skip
    assert [code for _, code, *_ in guidelines.PROBAST] == [
        "1.1", "1.2", "2.1", "2.2", "2.3",
        *(f"3.{one}" for one in range(1, 7)),
        *(f"4.{one}" for one in range(1, 10)),
    ]  # fmt: skip


def test_what_the_guidelines_point_to_is_in_the_card(report: Report) -> None:
    sections = re.findall(r"^## (.*)$", card.write(report), flags=re.MULTILINE)
    for _, _, who, where in guidelines.TRIPOD_AI:
        for named in re.findall(r"[A-Z][a-z]+(?: [a-z]+)*", where) if who == guidelines.RUN else []:
            assert named in sections, named


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
    with Image.open(CHECKOUT / "docs" / "evaluation.png") as kept, Image.open(io.BytesIO(made["metrics"].figure)) as now:
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
