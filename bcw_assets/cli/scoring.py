"""Scores rows with the numbers of a released model, and says which rows it does not score, and why.

What belongs here is arithmetic on chunks of rows, without scikit-learn, pandas and Dagster. Files are for `predict`.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field

import numpy as np

from bcw_assets.ml.evaluation import scores
from bcw_assets.ml.evaluation.scores import Confusion
from bcw_assets.ml.model.numbers import Scorer, compute_probability
from bcw_assets.ml.table import columns, rules
from bcw_assets.ml.table.identity import fingerprint_row, round_values
from bcw_assets.ml.table.reading import Rows
from bcw_assets.ml.table.rules import Rule
from bcw_assets.report.formatting import format_interval

MOST_CONTRIBUTIONS = 3  # contributions that are given of a row
WARNING = "warning: "
UNREADABLE = "unreadable"  # stands for a rule's code where a row cannot be read
NEAR = 1e-6  # of a row's log odds, relative: float32 moves them by half of it, and fingerprints tell the rest apart
REMEMBERED = 10_000  # rows whose fingerprints are kept; there are 569 to look for


@dataclass(frozen=True, eq=False)
class RowPredictions:
    """What is said of n rows.

    Attributes:
        log_odds, probability: not a number where a row is not scored.
        remarks: row → its problems if it is not scored, and warnings, which begin with `warning: `.
        codes: of rules that rows which are not scored break → how many do.
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
    remarks = {row: list(texts) for row, texts in rows.problems.items()}
    breaches = _find_breaches(rules.HARD, rows)
    for row, texts in breaches.items():
        remarks.setdefault(row, []).extend(texts.values())
    for row, warnings in rows.warnings.items():
        remarks.setdefault(row, []).extend(WARNING + text for text in warnings)
    for row, texts in _find_breaches(rules.ADVICE, rows).items():
        remarks.setdefault(row, []).extend(WARNING + text for text in texts.values())
    with np.errstate(all="ignore"):  # a row that breaks a rule may overflow, and gets no probability
        log_odds = scorer.compute_log_odds(rows.measurements)
    log_odds[[*breaches, *rows.problems]] = np.nan
    codes = Counter(code for texts in breaches.values() for code in texts)
    codes.update({UNREADABLE: len(rows.problems)})
    return RowPredictions(log_odds, compute_probability(log_odds), remarks, +codes)


def _find_breaches(table: Iterable[Rule], rows: Rows) -> dict[int, dict[str, str]]:
    """Return row → code → what is wrong by the first of the rules of that code that the readable row breaks."""
    values = dict(zip(columns.MEASUREMENTS, rows.measurements, strict=True))
    is_readable = np.ones(len(rows), dtype=bool)
    is_readable[list(rows.problems)] = False
    breaches: dict[int, dict[str, str]] = {}
    for rule in table:
        for row in np.flatnonzero(rule.is_broken(values) & is_readable).tolist():
            if rule.code not in (texts := breaches.setdefault(row, {})):
                texts[rule.code] = rule.describe({name: float(column[row]) for name, column in values.items()})
    return breaches


def explain_rows(scorer: Scorer, measurements: np.ndarray, is_scored: np.ndarray) -> list[list[str]]:
    """Return for each rank the contribution to every row's log odds, as name and number; empty if it is not scored."""
    contributions = scorer.compute_contributions(measurements[:, is_scored])
    order = np.argsort(-np.abs(contributions), axis=0, kind="stable")[:MOST_CONTRIBUTIONS]
    texts = np.full((MOST_CONTRIBUTIONS, len(is_scored)), "", dtype=object)
    for rank, numbers in enumerate(np.take_along_axis(contributions, order, axis=0).tolist()):
        names = (scorer.features[place] for place in order[rank].tolist())
        texts[rank, is_scored] = [f"{name} {number:+.2f}" for name, number in zip(names, numbers, strict=True)]
    return list(texts.tolist())


class TrainingRows:
    """The rows that a model was trained on, as its release lists them: their log odds and fingerprints."""

    def __init__(self, log_odds: np.ndarray, fingerprints: frozenset[str]) -> None:
        self._log_odds = np.sort(log_odds)
        self._fingerprints = fingerprints
        self._remembered: dict[bytes, bool] = {}

    @classmethod
    def load(cls, files: Mapping[str, bytes]) -> "TrainingRows | None":
        """Return the training rows of a release; None if it does not list them, as another version's may not."""
        try:
            reader = csv.DictReader(io.StringIO(files["cross_validation.csv"].decode()), strict=True)
            rows = [row for row in reader if row["split"] == "train"]
            log_odds = np.array([float(row["log_odds"]) for row in rows])
            return cls(log_odds, frozenset(row["fingerprint"] for row in rows))
        except (LookupError, TypeError, ValueError, csv.Error):
            return None

    def count(self, rows: Rows, log_odds: np.ndarray) -> int:
        """Return how many of the rows, whose log odds are given, the model was trained on, under either diagnosis.

        A fingerprint takes longer than a probability, so only rows are looked at whose log odds are those of one.
        """
        if not len(self._log_odds):
            return 0
        after = np.searchsorted(self._log_odds, log_odds).clip(0, len(self._log_odds) - 1)
        nearest = np.minimum(*(np.abs(self._log_odds[place] - log_odds) for place in (after, np.maximum(after - 1, 0))))
        candidates = np.flatnonzero(nearest <= NEAR * np.maximum(1, np.abs(log_odds)))
        return sum(map(self._is_known, round_values(rows.measurements[:, candidates].T.copy())))

    def _is_known(self, numbers: np.ndarray) -> bool:
        key = numbers.tobytes()
        if key not in self._remembered:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            texts = {fingerprint_row(diagnosis, numbers) for diagnosis in columns.LABELS}
            self._remembered[key] = not texts.isdisjoint(self._fingerprints)
        return self._remembered[key]


@dataclass
class Tally:
    """What is counted while rows are scored.

    Attributes:
        training_rows: those of the model; None if nobody knows.
        rows, scored, malignant, with_warnings: numbers of rows; malignant are those called so.
        codes: of rules → how many rows that are not scored break them.
        in_training: scored rows with a diagnosis that the model is known to have been trained on.
    """

    training_rows: TrainingRows | None
    rows: int = 0
    scored: int = 0
    malignant: int = 0
    with_warnings: int = 0
    in_training: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    _cells: np.ndarray = field(default_factory=lambda: np.zeros(4, dtype=np.int64))

    def add(self, rows: Rows, predictions: RowPredictions, threshold: float) -> None:
        """Count more rows."""
        self.rows += len(rows)
        self.scored += int(predictions.is_scored.sum())
        is_malignant = predictions.probability >= threshold
        self.malignant += int(is_malignant.sum())
        remarks = predictions.remarks.values()
        self.with_warnings += sum(any(text.startswith(WARNING) for text in texts) for texts in remarks)
        self.codes += predictions.codes
        if rows.has_diagnoses:
            has_both = predictions.is_scored & (rows.diagnoses != "")
            self._cells += astuple(
                Confusion.count(rows.diagnoses[has_both] == columns.MALIGNANT, is_malignant[has_both])
            )
            if self.training_rows is not None:
                self.in_training += self.training_rows.count(rows, np.where(has_both, predictions.log_odds, np.nan))

    @property
    def not_scored(self) -> int:
        """Rows without a probability."""
        return self.rows - self.scored

    @property
    def confusion(self) -> Confusion:
        """The scored rows that have a diagnosis, by what was said and what the input says."""
        return Confusion(*self._cells.tolist())

    def format_agreement(self) -> str:
        """Return how often probability and diagnosis agree, for people; there must be such rows."""
        right, total = self.confusion.proportions["accuracy"]
        return f"{right / total:.4f} ({format_interval(scores.compute_wilson(right, total))})"
