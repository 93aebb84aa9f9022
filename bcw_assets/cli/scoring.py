"""Scores rows with the numbers of a released model, and says which rows it does not score, and why.

What belongs here is arithmetic on chunks of rows, without scikit-learn, pandas and Dagster. Files are for `predict`.
"""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import astuple, dataclass, field
from functools import lru_cache
from operator import add

import numpy as np

from bcw_assets.ml.evaluation import scores
from bcw_assets.ml.model.numbers import Scorer, compute_probability
from bcw_assets.ml.table import columns, rules
from bcw_assets.ml.table.identity import format_number, hash_row, round_values
from bcw_assets.ml.table.reading import Rows

MOST_CONTRIBUTIONS = 3  # contributions that are given of a row
WARNING = "warning: "
UNREADABLE = "unreadable"  # stands for a rule's code where a row cannot be read
NEAR = 1e-6  # of a row's log odds, relative: float32 moves them by half of it, and fingerprints tell the rest apart
REMEMBERED = 10_000  # rows whose fingerprints are kept; there are 569 to look for


@dataclass(frozen=True, eq=False)
class RowPredictions:
    """What is said of n rows; log odds and probability are not a number where a row is not scored.

    `remarks` are the problems of a row that is not scored, and warnings, which begin with `warning: `. `codes` has the
    rules that rows which are not scored break, with how many do.
    """

    log_odds: np.ndarray
    probability: np.ndarray
    remarks: dict[int, list[str]]
    codes: Counter[str]

    @property
    def is_scored(self) -> np.ndarray:
        """Which rows have a probability."""
        return np.asarray(~np.isnan(self.probability))


def score_rows(scorer: Scorer, rows: Rows) -> RowPredictions:
    """Return the probabilities of rows; a row that cannot be read, or that breaks a hard rule, gets none."""
    breaches, codes = _describe_breaches(rules.HARD, rows)
    advice, _ = _describe_breaches(rules.ADVICE, rows)
    remarks: dict[int, list[str]] = {}
    for prefix, texts_of_rows in (("", rows.problems), ("", breaches), (WARNING, rows.warnings), (WARNING, advice)):
        for row, texts in texts_of_rows.items():
            remarks.setdefault(row, []).extend(prefix + text for text in texts)
    with np.errstate(all="ignore"):  # a row that breaks a rule may overflow, and gets no probability
        log_odds = scorer.compute_log_odds(rows.measurements)
    log_odds[[*breaches, *rows.problems]] = np.nan
    codes.update({UNREADABLE: len(rows.problems)})
    return RowPredictions(log_odds, compute_probability(log_odds), remarks, +codes)


def _describe_breaches(table: Sequence[rules.Rule], rows: Rows) -> tuple[dict[int, list[str]], Counter[str]]:
    """Return row → what is wrong by the first rule of each code that the readable row breaks, and code → rows."""
    values = dict(zip(columns.MEASUREMENTS, rows.measurements, strict=True))
    texts: dict[int, list[str]] = {}
    codes: Counter[str] = Counter()
    for code, places in rules.find_breaches(values, table).items():
        places[list(rows.problems)] = -1
        for row in np.flatnonzero(places >= 0).tolist():
            texts.setdefault(row, []).append(table[places[row]].describe(values, row))
            codes[code] += 1
    return texts, codes


def explain_rows(scorer: Scorer, measurements: np.ndarray, is_scored: np.ndarray) -> list[list[str]]:
    """Return for each rank the contribution to every row's log odds, as name and number; empty if it is not scored."""
    contributions = scorer.compute_contributions(measurements[:, is_scored])
    order = np.argsort(-np.abs(contributions), axis=0, kind="stable")[:MOST_CONTRIBUTIONS]
    texts = np.full((MOST_CONTRIBUTIONS, len(is_scored)), "", dtype=object)
    for rank, numbers in enumerate(np.take_along_axis(contributions, order, axis=0).tolist()):
        names = (scorer.features[place] for place in order[rank].tolist())
        texts[rank, is_scored] = [f"{name} {number:+.2f}" for name, number in zip(names, numbers, strict=True)]
    return list(texts.tolist())


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The rows that a model was trained on, as its release lists them: their log odds, rising, and fingerprints."""

    log_odds: np.ndarray
    fingerprints: Set[str]

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> "TrainingRows | None":
        """Return the training rows of a release; None if it does not list them, as another version's may not."""
        try:
            lines = io.TextIOWrapper(io.BytesIO(files["cross_validation.csv"]), "utf-8", newline="")
            rows = (row for row in csv.DictReader(lines, strict=True) if row["split"] == "train")
            patients = {row["fingerprint"]: float(row["log_odds"]) for row in rows}
            return cls(np.sort([*patients.values()]), patients.keys())
        except (LookupError, TypeError, ValueError, csv.Error):
            return None

    def count(self, rows: Rows, log_odds: np.ndarray) -> int:
        """Return how many of the rows, whose log odds are given, the model was trained on, under either diagnosis.

        A fingerprint takes longer than a probability, so only rows are looked at whose log odds are those of one.
        """
        if not len(self.log_odds):
            return 0
        after = np.searchsorted(self.log_odds, log_odds).clip(0, len(self.log_odds) - 1)
        nearest = np.minimum(*(np.abs(self.log_odds[place] - log_odds) for place in (after, np.maximum(after - 1, 0))))
        is_near = nearest <= NEAR * np.maximum(1, np.abs(log_odds))
        candidates = round_values(np.ascontiguousarray(rows.measurements[:, is_near].T))
        return sum(not self.fingerprints.isdisjoint(_compute_fingerprints(row.tobytes())) for row in candidates)


@lru_cache(REMEMBERED)
def _compute_fingerprints(measurements: bytes) -> set[str]:
    """Return the fingerprints of a row, given by its 30 rounded doubles, under either diagnosis."""
    texts = list(map(format_number, np.frombuffer(measurements).tolist()))
    return {hash_row([diagnosis, *texts]) for diagnosis in columns.LABELS}


@dataclass
class Tally:
    """What is counted while rows are scored; of the training rows None where nobody knows them.

    `codes` has the rules that rows which are not scored break. Of the scored rows that have a diagnosis, `confusion`
    counts what was said and what the input says, and `in_training` those that the model was trained on.
    """

    training_rows: TrainingRows | None
    scored: int = 0
    not_scored: int = 0
    malignant: int = 0
    with_warnings: int = 0
    in_training: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    confusion: scores.Confusion = field(default_factory=lambda: scores.Confusion(0, 0, 0, 0))

    def add(self, rows: Rows, predictions: RowPredictions, threshold: float) -> None:
        """Count more rows."""
        self.scored += int(predictions.is_scored.sum())
        self.not_scored += int((~predictions.is_scored).sum())
        is_malignant = predictions.probability >= threshold
        self.malignant += int(is_malignant.sum())
        remarks = predictions.remarks.values()
        self.with_warnings += sum(any(text.startswith(WARNING) for text in texts) for texts in remarks)
        self.codes += predictions.codes
        has_both = predictions.is_scored & (rows.diagnoses != "")
        more = scores.Confusion.count(rows.diagnoses[has_both] == columns.MALIGNANT, is_malignant[has_both])
        self.confusion = scores.Confusion(*map(add, astuple(self.confusion), astuple(more)))
        if self.training_rows is not None:
            self.in_training += self.training_rows.count(rows, np.where(has_both, predictions.log_odds, np.nan))
