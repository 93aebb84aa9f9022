"""Probabilities by the numbers of a model: the same as the pipeline's, for every row that can be one of a nucleus."""

import io
import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bcw_assets.cli import scoring
from bcw_assets.cli.scoring import RowPredictions, Tally, TrainingRows
from bcw_assets.errors import ScoringError
from bcw_assets.ml.model.numbers import Scorer
from bcw_assets.ml.table import canonical, columns, reading, rules
from bcw_assets.ml.table.reading import Rows
from bcw_assets.releases.bundle import load_scorer
from bcw_assets.releases.candidate import Candidate
from bcw_assets_tests.ml.table.test_forms import with_numbers


@pytest.fixture
def files(candidate: Candidate) -> dict[str, bytes]:
    return candidate.files


@pytest.fixture
def scorer(files: dict[str, bytes]) -> Scorer:
    return load_scorer(files)


def of(frame: pd.DataFrame) -> Rows:
    numbers = frame[list(columns.MEASUREMENTS)].to_numpy().T.copy()
    return Rows(frame["id"].tolist(), frame["diagnosis"].to_numpy(dtype="<U1"), numbers)


def test_probabilities_are_those_of_the_pipeline_to_the_last_bit_in_any_company(
    raw: pd.DataFrame, made: dict[str, Any], scorer: Scorer
) -> None:
    scored = scoring.score_rows(scorer, of(raw))
    expected = made["model"].predict_proba(raw[list(columns.MEASUREMENTS)])[:, 1]
    np.testing.assert_allclose(scored.probability, expected, rtol=1e-12, atol=0)
    assert scored.remarks == {}
    for size in (1, 7, 100):
        parts = [scoring.score_rows(scorer, of(raw[start : start + size])).probability for start in range(0, 569, size)]
        assert np.concatenate(parts).tobytes() == scored.probability.tobytes()


def change(files: dict[str, bytes], **changes: object) -> dict[str, bytes]:
    """Return the files of a release with another model."""
    return {"model.json": json.dumps(json.loads(files["model.json"]) | changes).encode()}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"features": ["age", ["x"]]}, "does not know ('age', ['x']); perhaps another version of bcw_assets"),
        ({"classes": [False, True]}, "has the classes [False, True]; allowed are [0, 1]"),
        ({"mean": [1.0]}, "has no 30 finite numbers as mean"),
        ({"scale": [0.0] * 30}, "has a scale that is not above 0"),
        ({"coefficients": [float("nan")] * 30}, "it is no JSON object of finite numbers"),
    ],
)
def test_what_is_no_model_is_refused_by_what_is_wrong_with_it(
    files: dict[str, bytes], changes: dict[str, object], says: str
) -> None:
    with pytest.raises(ScoringError, match=re.escape(says)):
        load_scorer(change(files, **changes))


def test_a_model_of_some_measurements_in_any_order_takes_them_by_name(
    raw: pd.DataFrame, files: dict[str, bytes], scorer: Scorer
) -> None:
    document = json.loads(files["model.json"])
    chosen, names = [27, 3, 12], ("features", "mean", "scale", "coefficients")
    model = load_scorer(change(files, **{name: [document[name][place] for place in chosen] for name in names}))
    measurements = of(raw).measurements
    expected = scorer.compute_contributions(measurements)[chosen]
    np.testing.assert_array_equal(model.compute_contributions(measurements), expected)
    log_odds = expected.sum(axis=0) + scorer.intercept
    np.testing.assert_allclose(model.compute_log_odds(measurements), log_odds, atol=1e-12)


def break_rule(raw: pd.DataFrame, rule: rules.Rule) -> pd.DataFrame:
    """Return the first row of the table so changed that it breaks the rule."""
    row = raw.head(1).astype(dict.fromkeys(columns.MEASUREMENTS, "float64"))
    tries = (
        row.assign(**{name: row[name] * factor})
        for name in (rule.subject, *rule.program.co_names)
        if name in row
        for factor in (0.0, -1.0, 0.01, 0.3, 3.0, 30.0, 1e6)
    )
    return next(
        each for each in tries if rule.is_broken({name: each[name].to_numpy() for name in columns.MEASUREMENTS})[0]
    )


def test_a_row_that_breaks_a_rule_is_named_by_it_and_the_others_are_scored(raw: pd.DataFrame, scorer: Scorer) -> None:
    first = {rule.code: rule for rule in reversed(rules.HARD) if rule.code != "R1"}  # what is no number cannot be read
    for code, rule in first.items():
        predictions = scoring.score_rows(scorer, of(pd.concat([raw.head(3), break_rule(raw, rule), raw.tail(3)])))
        assert np.isnan(predictions.probability).tolist() == [False] * 3 + [True] + [False] * 3, code
        assert sum(f"({code}: {rule.meaning})" in remark for remark in predictions.remarks[3]) == 1, code
        assert predictions.codes[code] == 1


def test_advice_is_a_warning_and_an_unreadable_row_keeps_its_reason(scorer: Scorer, raw: pd.DataFrame) -> None:
    predictions = scoring.score_rows(scorer, of(raw.head(1).assign(texture_mean=85.0, texture_worst=90.0)))
    assert (predictions.is_scored.tolist(), predictions.codes) == ([True], {})
    assert predictions.remarks[0][0].startswith("warning: texture_mean is 85; allowed is ")
    _, (rows,) = reading.read_rows(io.BytesIO(canonical.write_table(raw.head(3)).replace(b"17.99", b"?")))
    predictions = scoring.score_rows(scorer, rows)
    assert predictions.remarks[0][0].startswith("Line 2, id 10003: radius_mean is '?'")
    assert predictions.codes == {"unreadable": 1}


def count(scorer: Scorer, training_rows: TrainingRows | None, rows: Rows) -> Tally:
    tally = Tally(training_rows)
    tally.add(rows, scoring.score_rows(scorer, rows), 0.5)
    return tally


def test_rows_of_the_training_are_counted_and_others_are_not(
    raw: pd.DataFrame, made: dict[str, Any], files: dict[str, bytes], scorer: Scorer
) -> None:
    training_rows = TrainingRows.load(files)
    assert count(scorer, training_rows, of(raw)).in_training == 455
    assert count(scorer, training_rows, of(raw.assign(diagnosis="B", id="x"))).in_training == 455
    assert count(scorer, training_rows, of(raw.assign(texture_mean=raw["texture_mean"] * 0.9999))).in_training == 0
    noisy = raw[list(columns.MEASUREMENTS)].astype("float32").astype(float)
    assert count(scorer, training_rows, of(with_numbers(raw, noisy))).in_training == 455
    ready = made["ready_data"].rows.set_index("id")["split"]
    assert count(scorer, training_rows, of(raw[raw["id"].map(ready) == "test"])).in_training == 0
    assert count(scorer, training_rows, of(raw.assign(diagnosis=""))).in_training == 0
    assert TrainingRows(np.array([]), frozenset()).count(of(raw), np.zeros(569)) == 0


def test_of_a_release_that_does_not_say_which_rows_were_in_training_it_is_not_known(
    raw: pd.DataFrame, scorer: Scorer
) -> None:
    for content in (b"id,diagnosis\n1,M\n", b"\xff", b"fingerprint,split,log_odds\na,train,x\n", b"split\ntrain\n"):
        assert TrainingRows.load({"cross_validation.csv": content}) is None
    assert TrainingRows.load({}) is None
    tally = count(scorer, None, of(raw.assign(diagnosis=["", "M"] + ["B"] * 567)))
    assert (tally.scored, tally.confusion.total) == (569, 568)  # agreement is with the diagnoses that are there


def test_the_largest_contributions_are_named(raw: pd.DataFrame, scorer: Scorer) -> None:
    contributions = scorer.compute_contributions(of(raw).measurements)
    texts = scoring.explain_rows(scorer, of(raw).measurements, np.ones(569, dtype=bool))
    for row, numbers in enumerate(contributions.T):
        order = np.argsort(-np.abs(numbers))[:3]
        expected = [f"{columns.MEASUREMENTS[place]} {numbers[place]:+.2f}" for place in order]
        assert [text[row] for text in texts] == expected


def test_a_row_exactly_at_the_threshold_is_malignant(raw: pd.DataFrame) -> None:
    for threshold, malignant in ((0.5, 1), (0.500001, 0)):
        tally = Tally(None)
        tally.add(of(raw.head(1)), RowPredictions(np.zeros(1), np.array([0.5]), {}, Counter()), threshold)
        assert tally.malignant == malignant
