"""What must hold in a row, and in a file, of this table: rules as data, and one evaluator for all of them.

Every bound is true of all 569 rows of the Diagnostic table and, for rows, of all 198 of the Prognostic one, which was
measured by the same program. Not a rule: concave points at most concavity, which true rows break.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from types import CodeType
from typing import TYPE_CHECKING

import numpy as np

from bcw_assets.errors import TableError
from bcw_assets.ml.findings import Fact, Findings
from bcw_assets.ml.table import columns
from bcw_assets.ml.table.ranks import compute_aucs

if TYPE_CHECKING:  # who scores rows does without pandas
    import pandas as pd

MOST_ROWS = 20  # of offending rows that evidence shows
ABOVE_ZERO = 5e-324  # the smallest number above 0
BELOW_HALF, BELOW_ONE = float(np.nextafter(0.5, 0)), float(np.nextafter(1, 0))
LARGEST = 1.7976931348623157e308  # the largest finite number
FULL = 569  # rows from which a table is compared with the known one as a whole
NAMES = {"pi": np.pi, "abs": np.abs}


def evaluate_expression(expression: str | CodeType, values: dict[str, np.ndarray]) -> np.ndarray:
    """Return the value of an expression for every row of columns given as arrays of shape (n,)."""
    with np.errstate(all="ignore"):  # what is not finite is outside every bound
        values_of_rows: np.ndarray = eval(expression, {"__builtins__": {}}, NAMES | values)  # noqa: S307 (the table's own text)
    return values_of_rows


def format_bounds(low: float, high: float) -> str:
    """Return the allowed values in words.

    >>> [format_bounds(*both) for both in ((0, 4), (ABOVE_ZERO, LARGEST), (-LARGEST, 0), (300, LARGEST))]
    ['0 to 4', 'above 0', 'at most 0', 'at least 300']
    """
    if low == high:
        return f"exactly {low:g}"
    if low == ABOVE_ZERO:
        return "above 0"
    if low == -LARGEST:
        return "a finite number" if high == LARGEST else f"at most {high:g}"
    return f"at least {low:g}" if high == LARGEST else f"{low:g} to {high:g}"


@dataclass(frozen=True)
class Rule:
    """One row of the table of rules: an expression over the columns of a row, and the bounds of its value.

    Attributes:
        code: R1, R2 and so on; several rows of the table may share one.
        subject: the column that is named when the rule is broken.
        expression: over the names of columns, `pi` and `abs`.
        low, high: the allowed values, bounds included.
        meaning: why it holds.
        expected: what the subject should be about, as an expression, and the column it is computed from.
        is_hard: whether a broken rule refuses the table, or is advice.
    """

    code: str
    subject: str
    expression: str
    low: float
    high: float
    meaning: str
    expected: tuple[str, str] | None = None
    is_hard: bool = True
    program: CodeType = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "program", compile(self.expression, self.code, "eval"))

    def values(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """Return the expression's value for every row of columns given as arrays of shape (n,)."""
        return evaluate_expression(self.program, values)

    def is_broken(self, values: dict[str, np.ndarray]) -> np.ndarray:
        """Return for every row whether the value is outside the bounds; a value that is no number is."""
        numbers = self.values(values)
        return ~((numbers >= self.low) & (numbers <= self.high))

    def describe(self, row: dict[str, float]) -> str:
        """Say how one row, given by its measurements, breaks the rule."""
        single = {name: np.array([value]) for name, value in row.items()}
        value = f"{self.subject} is {row[self.subject]:.6g}"
        if self.expected:
            expression, basis = self.expected
            about = evaluate_expression(expression, single)[0]
            value += f" but {basis} {row[basis]:.6g} makes about {about:.4g}"
        if self.low == self.high:
            all_of_them = ", ".join(f"{name} {row[name]:.4g}" for name in self.program.co_names if name in row)
            return f"{value}, among {all_of_them} ({self.code}: {self.meaning})"
        if self.expression == self.subject:
            return f"{value}; allowed is {format_bounds(self.low, self.high)} ({self.code}: {self.meaning})"
        computed = f"{self.expression} is {self.values(single)[0]:.4g}"
        return f"{value}; {computed}, allowed is {format_bounds(self.low, self.high)} ({self.code}: {self.meaning})"


@dataclass(frozen=True)
class FileRule:
    """One rule about a whole table.

    Attributes:
        name: of what is measured.
        measure: table → the number that is bounded.
        low, high: the allowed values, bounds included.
        from_rows: the size from which the rule applies.
        is_hard: whether a broken rule refuses the table, or is advice.
        hint: what a broken rule says first.
    """

    code: str
    name: str
    measure: "Callable[[pd.DataFrame], float]"
    low: float
    high: float
    from_rows: int = 0
    is_hard: bool = True
    hint: str = ""

    def is_kept(self, value: float) -> bool:
        """Return whether what was measured is allowed."""
        return self.low <= value <= self.high

    def describe(self, value: float) -> str:
        """Say how a table breaks the rule."""
        value_and_bounds = f"it is {value:.4g}, allowed is {format_bounds(self.low, self.high)} ({self.code})"
        return ": ".join(filter(None, [self.hint, self.name, value_and_bounds]))


# Column: smallest, median and largest value of the 569 rows.
KNOWN = {
    "radius_mean": (6.981, 13.37, 28.11),
    "texture_mean": (9.71, 18.84, 39.28),
    "perimeter_mean": (43.79, 86.24, 188.5),
    "area_mean": (143.5, 551.1, 2501),
    "smoothness_mean": (0.05263, 0.09587, 0.1634),
    "compactness_mean": (0.01938, 0.09263, 0.3454),
    "concavity_mean": (0, 0.06154, 0.4268),
    "concave_points_mean": (0, 0.0335, 0.2012),
    "symmetry_mean": (0.106, 0.1792, 0.304),
    "fractal_dimension_mean": (0.04996, 0.06154, 0.09744),
    "radius_se": (0.1115, 0.3242, 2.873),
    "texture_se": (0.3602, 1.108, 4.885),
    "perimeter_se": (0.757, 2.287, 21.98),
    "area_se": (6.802, 24.53, 542.2),
    "smoothness_se": (0.001713, 0.00638, 0.03113),
    "compactness_se": (0.002252, 0.02045, 0.1354),
    "concavity_se": (0, 0.02589, 0.396),
    "concave_points_se": (0, 0.01093, 0.05279),
    "symmetry_se": (0.007882, 0.01873, 0.07895),
    "fractal_dimension_se": (0.0008948, 0.003187, 0.02984),
    "radius_worst": (7.93, 14.97, 36.04),
    "texture_worst": (12.02, 25.41, 49.54),
    "perimeter_worst": (50.41, 97.66, 251.2),
    "area_worst": (185.2, 686.5, 4254),
    "smoothness_worst": (0.07117, 0.1313, 0.2226),
    "compactness_worst": (0.02729, 0.2119, 1.058),
    "concavity_worst": (0, 0.2267, 1.252),
    "concave_points_worst": (0, 0.09993, 0.291),
    "symmetry_worst": (0.1565, 0.2822, 0.6638),
    "fractal_dimension_worst": (0.05504, 0.08004, 0.2075),
}

SIX_ZEROS = " + ".join(
    f"({name}_{statistic} == 0) * 1" for name in ("concavity", "concave_points") for statistic in columns.STATISTICS
)
MAY_BE_ZERO = ("concavity", "concave_points")
BOUNDED = (
    ("smoothness", 0, BELOW_HALF, "a relative variation of the radius"),
    ("symmetry", 0, BELOW_ONE, "a relative difference of lengths"),
    ("fractal_dimension", 0.02, 0.5, "between a line and a plane"),
    ("texture", 0, 127.5, "half of 255 grey levels at most"),
)
GROWS_FASTER = ("compactness", "concavity", "concave_points")


def _row_rules() -> Iterator[Rule]:
    families = [family.name for family in columns.FAMILIES]
    for name in columns.MEASUREMENTS:
        yield Rule("R1", name, name, -LARGEST, LARGEST, "a measurement is a finite number")
    for name in columns.MEASUREMENTS:
        low = 0 if name.rpartition("_")[0] in MAY_BE_ZERO else ABOVE_ZERO
        yield Rule("R2", name, name, low, LARGEST, "sizes and their errors are positive, concave parts may be absent")
    for name in families:
        difference = f"{name}_worst - {name}_mean"
        yield Rule("R3", f"{name}_worst", difference, 0, LARGEST, "the three largest are not below the mean")
    for name in families:
        yield Rule("R4", f"{name}_se", f"{name}_mean - {name}_se", 0, LARGEST, "an error is not above its mean")
    for statistic in ("mean", "worst"):
        radius, perimeter, area = f"radius_{statistic}", f"perimeter_{statistic}", f"area_{statistic}"
        circle, disc = f"2 * pi * {radius}", f"pi * {radius} ** 2"
        roundness = f"{perimeter} ** 2 / (4 * pi * {area})"
        yield Rule(
            "R5", perimeter, f"{perimeter} / ({circle})", 0.95, 1.30, "an outline is nearly a circle", (circle, radius)
        )
        yield Rule("R6", area, f"{area} / ({disc})", 0.78, 1.10, "a nucleus is nearly a disc", (disc, radius))
        yield Rule("R7", area, roundness, 1.0, 1.6, "no shape has a shorter outline than a disc")
        extra = 0.16 if statistic == "mean" else 1.3
        difference = f"compactness_{statistic} - ({roundness} - 1)"
        yield Rule("R8", f"compactness_{statistic}", difference, 0, extra, "compactness is made of perimeter and area")
    yield Rule(
        "R9",
        "concavity_mean",
        f"abs(2 * ({SIX_ZEROS}) - 6)",
        6,
        6,
        "the six concave values are 0 together or not at all",
    )
    for name in families:
        excess = f"{name}_worst - {name}_mean - 30 * {name}_se"
        yield Rule("R10", f"{name}_worst", excess, -LARGEST, 0, "worst is within 30 errors of the mean")
    for name in families:
        times = 12 if name in GROWS_FASTER else 4
        excess = f"{name}_worst - {times} * {name}_mean"
        yield Rule("R11", f"{name}_worst", excess, -LARGEST, 0, f"worst is at most {times} times the mean")
    circle = "2 * pi * radius_se"
    yield Rule("R12", "perimeter_se", f"perimeter_se / ({circle})", 0.5, 5, "outlines vary as radii do")
    ring = "2 * pi * radius_mean * radius_se"
    yield Rule("R12", "area_se", f"area_se / ({ring})", 0.4, 1.8, "areas vary as radii do")
    for statistic, (family, low, high, meaning) in product(("mean", "worst"), BOUNDED):
        yield Rule("R13", f"{family}_{statistic}", f"{family}_{statistic}", low, high, meaning)
    for name, (smallest, _, largest) in KNOWN.items():
        yield Rule(
            "R14", name, name, smallest / 2, largest * 2, "within half and twice of what is known", is_hard=False
        )


ROWS = tuple(_row_rules())
HARD = tuple(rule for rule in ROWS if rule.is_hard)
ADVICE = tuple(rule for rule in ROWS if not rule.is_hard)


def _is_malignant(table: "pd.DataFrame") -> np.ndarray:
    return (table[columns.DIAGNOSIS] == columns.MALIGNANT).to_numpy()


def _count_wrong_labels(table: "pd.DataFrame") -> float:
    return float(len(set(table[columns.DIAGNOSIS]) ^ {columns.MALIGNANT, columns.BENIGN}))


def _auc(table: "pd.DataFrame") -> float:
    malignant = _is_malignant(table)
    if malignant.all() or not malignant.any():
        return 0.0
    return float(compute_aucs(table[["perimeter_worst"]], malignant)[0])


def _fewest_distinct(table: "pd.DataFrame") -> float:
    return float(table[list(columns.MEASUREMENTS)].nunique().min())


def _largest_shift(table: "pd.DataFrame") -> float:
    medians = table[list(columns.MEASUREMENTS)].median()
    return float(max(abs(medians[name] / median - 1) for name, (_, median, _) in KNOWN.items()))


OUTLINES = "ROC AUC of the largest outlines"
FILES = (
    FileRule("F2", "wrong or missing labels", _count_wrong_labels, 0, 0, hint="the labels are not M and B"),
    FileRule("F3", "share malignant", lambda table: float(_is_malignant(table).mean()), 0.3, 0.45, FULL, is_hard=False),
    FileRule("F4", "repeated ids", lambda table: float(table[columns.ID].duplicated().sum()), 0, 0),
    FileRule("F5", "repeated patients", lambda table: float(table.duplicated(list(columns.MEASUREMENTS)).sum()), 0, 0),
    FileRule("F6", OUTLINES, _auc, 0.8, 1, hint="the diagnoses look inverted or mixed up"),
    FileRule("F6b", OUTLINES, _auc, 0.93, 1, FULL, is_hard=False),
    FileRule("F7", "fewest distinct values of a column", _fewest_distinct, 300, LARGEST, FULL, is_hard=False),
    FileRule("F8", "largest shift of a column's median", _largest_shift, 0, 0.25, FULL, is_hard=False),
)


@dataclass(frozen=True)
class Breach:
    """A code that is broken, by how many rows, and the first of them with the rule that it breaks."""

    code: str
    count: int
    first: int
    rule: Rule

    def describe(self, table: "pd.DataFrame", name: Callable[[int], str]) -> str:
        """Say it in words; `name` says which row."""
        row = table.iloc[self.first]
        values = {column: float(row[column]) for column in columns.MEASUREMENTS}
        count = f" ({self.count} rows break {self.code}, this is the first)" if self.count > 1 else ""
        return f"{name(self.first)}: {self.rule.describe(values)}{count}"


def find_breaches(table: "pd.DataFrame", rules: Iterable[Rule]) -> list[Breach]:
    """Return the codes that rows of the table break: the one that most rows break first, ties by number."""
    values = {name: table[name].to_numpy(dtype=np.float64) for name in columns.MEASUREMENTS}
    masks: dict[str, np.ndarray] = {}
    firsts: dict[str, tuple[int, Rule]] = {}
    for rule in rules:
        broken = rule.is_broken(values)
        if broken.any():
            first = int(broken.argmax())
            masks[rule.code] = masks.get(rule.code, False) | broken
            if rule.code not in firsts or first < firsts[rule.code][0]:
                firsts[rule.code] = (first, rule)
    unordered = [Breach(code, int(mask.sum()), *firsts[code]) for code, mask in masks.items()]
    return sorted(unordered, key=lambda breach: (-breach.count, int(breach.code[1:])))


def find_offending_rows(table: "pd.DataFrame", rules: Sequence[Rule]) -> tuple[dict[str, Fact], ...]:
    """Return rows that break a rule, those of the code that most rows break first, with id, code and what is wrong."""
    values = {name: table[name].to_numpy(dtype=np.float64) for name in columns.MEASUREMENTS}
    order = [breach.code for breach in find_breaches(table, rules)]
    rows: list[dict[str, Fact]] = []
    for rule in sorted((rule for rule in rules if rule.code in order), key=lambda rule: order.index(rule.code)):
        for position in np.flatnonzero(rule.is_broken(values))[:MOST_ROWS]:
            row = {name: float(values[name][position]) for name in values}
            identifier = str(table[columns.ID].iloc[position])
            rows.append({"id": identifier, "rule": rule.code, "problem": rule.describe(row)})
            if len(rows) == MOST_ROWS:
                return tuple(rows)
    return tuple(rows)


def require(table: "pd.DataFrame", name: Callable[[int], str]) -> None:
    """Refuse a table that breaks a hard rule.

    Args:
        table: canonical; n rows × 32 columns.
        name: says which row is meant: position in the table → its line and id.

    Raises:
        TableError: the first line names the rule that most rows break, how many do, and the first of them.
    """
    row_breaches = find_breaches(table, HARD)
    problems = [breach.describe(table, name) for breach in row_breaches]
    problems += [rule.describe(value) for rule, value in find_file_breaches(table, is_hard=True)]
    if problems:
        raise TableError("\n".join(problems), find_offending_rows(table, HARD) if row_breaches else ())


def check_invariants(raw_data: "pd.DataFrame") -> Findings:
    """Find rows and properties that no true table of these measurements has."""
    return _check(raw_data, HARD, is_hard=True)


def check_plausibility(raw_data: "pd.DataFrame") -> Findings:
    """Find what is possible but unlike the 569 known patients."""
    return _check(raw_data, ADVICE, is_hard=False)


def _check(table: "pd.DataFrame", rules: tuple[Rule, ...], *, is_hard: bool) -> Findings:
    breaches = find_breaches(table, rules)
    problems = [breach.describe(table, lambda row: f"id {table[columns.ID].iloc[row]}") for breach in breaches]
    evidence: dict[str, Fact] = {"rows": len(table)}
    for rule, value in _measure(table, is_hard=is_hard):
        if not rule.is_kept(value):
            problems.append(rule.describe(value))
        if rule.low == rule.high:  # a number that never changes would be plotted
            evidence[rule.name] = f"{value:g}"
        else:
            evidence |= {rule.name: value, f"{rule.name}, allowed": format_bounds(rule.low, rule.high)}
    return Findings(tuple(problems), evidence, find_offending_rows(table, rules) if breaches else ())


def find_file_breaches(table: "pd.DataFrame", *, is_hard: bool) -> list[tuple[FileRule, float]]:
    """Return the rules of a whole table that are broken, hard ones or advice, each with what was measured."""
    return [(rule, value) for rule, value in _measure(table, is_hard=is_hard) if not rule.is_kept(value)]


def _measure(table: "pd.DataFrame", *, is_hard: bool) -> list[tuple[FileRule, float]]:
    applicable = [rule for rule in FILES if rule.is_hard == is_hard and len(table) >= rule.from_rows]
    return [(rule, rule.measure(table)) for rule in applicable]


def document_rules() -> str:
    """Return the list of all rules as Markdown: what `docs/rules.md` holds."""
    lines = [
        "# Rules of the table",
        "",
        "Made by `make docs` from `bcw_assets/ml/table/rules.py`. A hard rule refuses a table; advice is a warning.",
        "",
        "## Of a row",
        "",
        "| code | value | allowed | why | |",
        "|---|---|---|---|---|",
        *(
            f"| {rule.code} | `{rule.expression}` | {_bounds(rule)} | {rule.meaning} | {_force(rule)} |"
            for rule in ROWS
        ),
        "",
        "## Of a file",
        "",
        "| code | value | allowed | from rows | |",
        "|---|---|---|---|---|",
        *(
            f"| {rule.code} | {rule.name} | {_bounds(rule)} | {rule.from_rows or 1} | {_force(rule)} |"
            for rule in FILES
        ),
    ]
    return "\n".join(lines) + "\n"


def _bounds(rule: Rule | FileRule) -> str:
    return format_bounds(rule.low, rule.high)


def _force(rule: Rule | FileRule) -> str:
    return "hard" if rule.is_hard else "advice"
