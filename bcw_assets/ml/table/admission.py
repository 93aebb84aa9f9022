"""Which tables a model is trained on: those whose rows can all be read, and that keep every hard rule."""

import io
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from bcw_assets.errors import TableError
from bcw_assets.ml.table import columns, reading, rules
from bcw_assets.ml.table.forms import LABEL_IS, Form, explain_value
from bcw_assets.ml.table.identity import find_repeats
from bcw_assets.ml.table.reading import Rows

FEWEST_OF_A_DIAGNOSIS = 10  # the ten folds of the cross-validation need one patient of each diagnosis in each
MOST_PROBLEMS = 20  # of a table that are shown; all are counted
NO_DIAGNOSES = "It has no diagnoses, so no model can be trained on it; allowed is a column diagnosis with M and B"


def read_table(content: bytes, where: str, leave_out: Callable[[str], object] = str) -> pd.DataFrame:
    """Return the canonical table that `content` holds in any form that `reading` knows, once it can be trained on.

    Rows come back sorted by id as text; a table without ids gets `row-0001`, `row-0002`, … as ids.
    It has n rows × 32 columns (`columns.RAW`): id and diagnosis as text, 30 measurements as float64. Anything else
    raises a TableError with the line, the id, the column, the value and what is allowed. `where` is the file's name or
    address, for messages; `leave_out` is called with the names of columns that the model has no use for, if any.
    """
    try:
        form, parts = reading.read_rows(io.BytesIO(content))
        if not form.labels:
            raise TableError(
                f"It has no diagnoses that say who was malignant: {form.codes}" if form.codes else NO_DIAGNOSES
            )
        table, lines, problems = _gather(parts, form)

        def name(row: int) -> str:
            return form.name_row(lines[row], table[columns.ID].iloc[row])

        _refuse(problems)
        ids, first = table[columns.ID], dict[str, int]()
        twice = np.flatnonzero(ids.duplicated(keep=False)).tolist()
        repeats = [(row, before) for row in twice if (before := first.setdefault(ids.iloc[row], row)) != row]
        _require_once(repeats, "its id is that", "each id once", name)
        repeats = find_repeats(table[list(columns.MEASUREMENTS)].to_numpy())
        _require_once(repeats, "its 30 measurements are those", "each patient once (F5)", name)
        _require_both(table[columns.DIAGNOSIS])
        rules.require(table, name)
    except TableError as error:
        raise TableError(f"{error}. {where} cannot be used", error.rows) from error
    if form.left_out:
        leave_out(form.left_out)
    order = table[columns.ID].argsort()
    return table.iloc[order].reset_index(drop=True)  # the same layout in memory, whatever the order was


def _gather(parts: Iterable[Rows], form: Form) -> tuple[pd.DataFrame, list[int], list[str]]:
    """Return the rows of all parts as one table in their order, the line of each, and what is wrong with them."""
    every = list(parts)
    ids = [name for rows in every for name in rows.ids]
    measurements = np.hstack([np.zeros((len(columns.MEASUREMENTS), 0)), *(rows.measurements for rows in every)])
    table = pd.DataFrame(measurements.T, columns=list(columns.MEASUREMENTS), copy=False)
    table.insert(0, columns.ID, pd.Series(ids, dtype="str"))
    diagnoses = np.concatenate([np.zeros(0, "<U1"), *(rows.diagnoses for rows in every)])
    table.insert(1, columns.DIAGNOSIS, pd.Series(diagnoses, dtype="str"))
    problems = [text for rows in every for text in _list_problems(rows, form)]
    return table, [line for rows in every for line in rows.lines], problems


def _list_problems(rows: Rows, form: Form) -> Iterator[str]:
    """Return what keeps rows from being trained on, in their order."""
    for row in sorted({*rows.problems, *rows.warnings, *np.flatnonzero(rows.diagnoses == "").tolist()}):
        name = form.name_row(rows.lines[row], rows.ids[row])
        empty = f"{name}: {explain_value(columns.DIAGNOSIS, '', LABEL_IS)}"
        yield from [*rows.problems.get(row, []), *rows.warnings.get(row, [])] or [empty]


def _refuse(problems: list[str]) -> None:
    """Raise all problems as one, if there are any: the first are shown, and all counted."""
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS:,} more problems"] if len(problems) > MOST_PROBLEMS else []
        raise TableError("\n".join(problems[:MOST_PROBLEMS] + more))


def _require_once(repeats: Iterable[tuple[int, int]], what: str, allowed: str, name: Callable[[int], str]) -> None:
    """Refuse a table that repeats a row; `repeats` are pairs of a row and the first one like it."""
    _refuse([f"{name(row)}: {what} of {name(before)} again; allowed is {allowed}" for row, before in repeats])


def _require_both(diagnoses: pd.Series) -> None:
    malignant, benign = (int((diagnoses == label).sum()) for label in columns.LABELS)
    if min(malignant, benign) < FEWEST_OF_A_DIAGNOSIS:
        raise TableError(
            f"It has {malignant} malignant and {benign} benign rows; allowed are at least {FEWEST_OF_A_DIAGNOSIS} of "
            f"each, because each of ten folds needs one of each"
        )
