"""What must hold in a row, and in a file, of this table: rules as data, and one evaluator for all of them.

Every bound is true of all 569 rows of the Diagnostic table and, for rows, of all 198 of the Prognostic one, which was
measured by the same program; also after both were rounded to three significant digits or to float32, or scaled and
scaled back. Not a rule: concave points at most concavity, which true rows break.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from types import CodeType
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bcw_assets.errors import TableError
from bcw_assets.ml.findings import Fact, Findings
from bcw_assets.ml.table import columns
from bcw_assets.ml.table.identity import NOISE, find_repeats

if TYPE_CHECKING:  # who scores rows does without pandas
    import pandas as pd

MOST_ROWS = 20  # of offending rows that evidence shows
ABOVE_ZERO = 5e-324  # the smallest number above 0
HIGHEST = 1.7976931348623157e308
FUNCTIONS = {"pi": np.pi, "abs": np.abs}


def evaluate_expression(expression: str | CodeType, values: dict[str, np.ndarray]) -> np.ndarray:
    """Return the value of an expression for every row of columns given as arrays of shape (n,)."""
    with np.errstate(all="ignore"):  # what is not finite is outside every bound
        return np.asarray(eval(expression, {"__builtins__": {}}, FUNCTIONS | values))  # noqa: S307 (the table's own text)


def format_bounds(low: float, high: float) -> str:
    """Return the allowed values in words.

    >>> [format_bounds(*both) for both in ((0, 4), (ABOVE_ZERO, HIGHEST), (-HIGHEST, 0), (300, HIGHEST))]
    ['0 to 4', 'above 0', 'at most 0', 'at least 300']
    """
    low = 0 if low == -NOISE else low
    if low == high:
        return f"exactly {low:g}"
    if low == ABOVE_ZERO:
        return "above 0"
    if low == -HIGHEST:
        return "a finite number" if high == HIGHEST else f"at most {high:g}"
    return f"at least {low:g}" if high == HIGHEST else f"{low:g} to {high:g}"


@dataclass(frozen=True)
class Rule:
    """One row of the table of rules: an expression over the columns of a row, and the bounds of its value."""

    code: str  # R1, R2 and so on; several rows of the table may share one
    subject: str  # the column that is named when the rule is broken
    expression: str  # over the names of columns, `pi` and `abs`
    low: float  # the allowed values, bounds included
    high: float
    meaning: str  # why it holds
    expected: tuple[str, str] | None = None  # what the subject should be about, and the column it is computed from
    is_hard: bool = True  # whether a broken rule refuses the table, or is advice
    program: CodeType = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "program", compile(self.expression, self.code, "eval"))

    def is_broken(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """Return for every row whether the value is outside the bounds; a value that is no number is."""
        numbers = evaluate_expression(self.program, values)
        return ~((numbers >= self.low) & (numbers <= self.high))

    def describe(self, values: dict[str, np.ndarray], row: int) -> str:
        """Say how a row breaks the rule."""
        single = {name: values[name][row : row + 1] for name in self.program.co_names if name in values}
        numbers = {name: float(value[0]) for name, value in single.items()}
        value = f"{self.subject} is {numbers[self.subject]:.6g}"
        allowed = f"; allowed is {format_bounds(self.low, self.high)}"
        if self.expected:
            expression, basis = self.expected
            value += f" but {basis} {numbers[basis]:.6g} makes about {evaluate_expression(expression, single)[0]:.4g}"
        if self.low == self.high:
            among = ", ".join(f"{name} {number:.4g}" for name, number in numbers.items())
            value, allowed = f"{value}, among {among}", ""
        elif self.expression != self.subject:
            value += f"; {self.expression} is {evaluate_expression(self.program, single)[0]:.4g}"
            allowed = allowed.replace(";", ",", 1)
        return f"{value}{allowed} ({self.code}: {self.meaning})"


@dataclass(frozen=True)
class FileRule:
    """One rule about a whole table."""

    code: str
    name: str  # of what is measured
    measure: str  # its name in MEASURES
    low: float  # the allowed values, bounds included
    high: float
    from_rows: int  # the size from which the rule applies
    is_hard: bool  # whether a broken rule refuses the table, or is advice
    hint: str  # what a broken rule says first

    def describe(self, value: float) -> str:
        """Say how a table breaks the rule."""
        value_and_bounds = f"it is {value:.4g}, allowed is {format_bounds(self.low, self.high)} ({self.code})"
        return ": ".join(filter(None, [self.hint, self.name, value_and_bounds]))


def read_data(name: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file of this folder, by the names of its columns."""
    with open(__file__.removesuffix("rules.py") + name, encoding="utf-8") as file:  # importlib.resources takes 5 ms
        return list(csv.DictReader(file))


KNOWN = {
    row["column"]: (float(row["smallest"]), float(row["median"]), float(row["largest"]))
    for row in read_data("known.csv")
}
"""Column → smallest, median and largest of the 569 rows."""


def _expand_rules() -> Iterator[Rule]:
    """Return the rows of rules.csv, each for the families and statistics that it names, or for all of them."""
    for row in read_data("rules.csv"):
        families = row["families"].split() or [family.name for family in columns.FAMILIES]
        for statistic, family in product(row["statistics"].split() or columns.STATISTICS, families):
            texts = {name: text.format(f=family, s=statistic) for name, text in row.items()}
            yield Rule(
                texts["code"],
                texts["subject"],
                texts["expression"],
                float(texts["low"] or -HIGHEST),
                float(texts["high"] or HIGHEST),
                texts["meaning"],
                (texts["about"], texts["basis"]) if texts["about"] else None,
            )
    for name, (low, _, high) in KNOWN.items():
        meaning = "within half and twice of what is known"
        yield Rule("R14", name, name, low / 2 or -NOISE, high * 2, meaning, is_hard=False)


ROWS = tuple(_expand_rules())
HARD, ADVICE = (tuple(rule for rule in ROWS if rule.is_hard == is_hard) for is_hard in (True, False))


def compute_aucs(values: np.ndarray, malignant: np.ndarray) -> np.ndarray:
    """Return the ROC AUC of each column of values (n × d) alone, of shape (d,); equal values count half.

    Of the n truths, 1 or 0, both must occur.
    """
    areas = []
    for column in values.T:
        ill, well = np.sort(column[malignant == 1]), np.sort(column[malignant == 0])
        below, not_above = (int(np.searchsorted(well, ill, side).sum()) for side in ("left", "right"))
        areas.append((below + not_above) / (2 * len(ill) * len(well)))
    return np.array(areas)


def _measure_auc_of_outlines(table: "pd.DataFrame") -> float:
    is_malignant = (table[columns.DIAGNOSIS] == columns.MALIGNANT).to_numpy()
    is_mixed = is_malignant.any() and not is_malignant.all()
    return float(compute_aucs(table[["perimeter_worst"]].to_numpy(), is_malignant)[0]) if is_mixed else 0.0


def _measure_largest_shift(table: "pd.DataFrame") -> float:
    medians = table[list(columns.MEASUREMENTS)].median()
    return float(max(abs(medians[name] / median - 1) for name, (_, median, _) in KNOWN.items()))


MEASURES: dict[str, Callable[["pd.DataFrame"], float]] = {  # what the rules of a file bound, of a canonical table
    "wrong_labels": lambda table: len({*table[columns.DIAGNOSIS].unique()}.symmetric_difference(columns.LABELS)),
    "share_malignant": lambda table: (table[columns.DIAGNOSIS] == columns.MALIGNANT).mean(),
    "repeated_ids": lambda table: table[columns.ID].duplicated().sum(),
    "repeated_patients": lambda table: len(find_repeats(table[list(columns.MEASUREMENTS)].to_numpy())),
    "auc_of_outlines": _measure_auc_of_outlines,
    "fewest_distinct": lambda table: table[list(columns.MEASUREMENTS)].nunique().min(),
    "largest_shift": _measure_largest_shift,
}
FILES = msgspec.convert(read_data("file_rules.csv"), tuple[FileRule, ...], strict=False)


def find_breaches(values: dict[str, np.ndarray], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    """Return code → for every row the place of the first rule of that code that it breaks, or -1."""
    breaches: dict[str, np.ndarray] = {}
    for place, rule in enumerate(rules):
        broken = rule.is_broken(values)
        if broken.any():
            places = breaches.setdefault(rule.code, np.full(len(broken), -1))
            places[broken & (places < 0)] = place
    return breaches


def require(table: "pd.DataFrame", name: Callable[[int], str]) -> None:
    """Refuse a canonical table that breaks a hard rule by a TableError: the rule that most rows break comes first.

    `name` says which row is meant: position in the table → its line and id.
    """
    findings = _check(table, name, is_hard=True)
    if findings.problems:
        raise TableError("\n".join(findings.problems), findings.rows)


def check_invariants(raw_data: "pd.DataFrame") -> Findings:
    """Find rows and properties that no true table of these measurements has."""
    return _check(raw_data, lambda row: f"id {raw_data[columns.ID].iloc[row]}", is_hard=True)


def check_plausibility(raw_data: "pd.DataFrame") -> Findings:
    """Find what is possible but unlike the 569 known patients."""
    return _check(raw_data, lambda row: f"id {raw_data[columns.ID].iloc[row]}", is_hard=False)


def _check(table: "pd.DataFrame", name: Callable[[int], str], *, is_hard: bool) -> Findings:
    values = {column: table[column].to_numpy(dtype=np.float64) for column in columns.MEASUREMENTS}
    rules = HARD if is_hard else ADVICE
    problems: list[str] = []
    rows: list[dict[str, Fact]] = []
    for code, places in sorted(find_breaches(values, rules).items(), key=lambda breach: -int((breach[1] >= 0).sum())):
        broken = np.flatnonzero(places >= 0).tolist()
        first = rules[places[broken[0]]].describe(values, broken[0])
        count = f" ({len(broken)} rows break {code}, this is the first)" if len(broken) > 1 else ""
        problems.append(f"{name(broken[0])}: {first}{count}")
        for row in broken[: MOST_ROWS - len(rows)]:
            problem = rules[places[row]].describe(values, row)
            rows.append({"id": str(table[columns.ID].iloc[row]), "rule": code, "problem": problem})
    evidence: dict[str, Fact] = {"rows": len(table)}
    for rule in FILES:
        if rule.is_hard == is_hard and len(table) >= rule.from_rows:
            value = float(MEASURES[rule.measure](table))
            if not rule.low <= value <= rule.high:
                problems.append(rule.describe(value))
            if rule.low == rule.high:  # a number that never changes would be plotted
                evidence[rule.name] = f"{value:g}"
            else:
                evidence |= {rule.name: value, f"{rule.name}, allowed": format_bounds(rule.low, rule.high)}
    return Findings(tuple(problems), evidence, tuple(rows))
