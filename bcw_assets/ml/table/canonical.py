"""The canonical table, which a model is trained on: its text, its checks, and when two tables are the same."""

import csv
import hashlib
import io
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bcw_assets.ml.findings import Findings
from bcw_assets.ml.table import columns
from bcw_assets.ml.table.identity import format_number, round_values

UCI_FINGERPRINT = "ae5f3663df59b8d56b571fb9ff28b36cfba023a6075f2d98c2d5a9e76a6499b2"
"""The fingerprint of the 569 rows that UCI has served since 1995, in any of their forms."""

ROWS_AT_ONCE = 1 << 14  # rows of which there are texts at once
_LATEST: dict[bytes, list[str]] = {}  # SHA-256 of the content → the row fingerprints

# The names of what is recorded of the download.
LEFT_OUT, CHOSEN = "columns left out", "chosen by the user"


def write_table(table: pd.DataFrame) -> bytes:
    """Return a canonical table as CSV: a header, LF, every float by the shortest text that gives it back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    numbers = (_format_numbers(table[name].to_numpy()).to_pylist() for name in columns.MEASUREMENTS)
    writer.writerows(zip(table[columns.ID], table[columns.DIAGNOSIS], *numbers, strict=True))
    return text.getvalue().encode()


def fingerprint_rows(table: pd.DataFrame) -> list[str]:
    """Return, row by row, the SHA-256 of diagnosis and rounded measurements: the patient, whatever the id.

    Many ask for them in a run, so those of the latest table are kept.
    """
    diagnoses = pa.array(table[columns.DIAGNOSIS], pa.string())
    measurements = [np.ascontiguousarray(table[name]) for name in columns.MEASUREMENTS]
    content = hashlib.sha256("\n".join(diagnoses.to_pylist()).encode())
    for numbers in measurements:
        content.update(numbers.data)
    patients = _LATEST.get(content.digest(), [])
    if not patients:
        for start in range(0, len(table), ROWS_AT_ONCE):
            texts = [_format_numbers(round_values(numbers[start : start + ROWS_AT_ONCE])) for numbers in measurements]
            rows = pc.binary_join_element_wise(diagnoses[start : start + ROWS_AT_ONCE], *texts, ",").cast(pa.binary())
            patients += [hashlib.sha256(row).hexdigest() for row in rows.to_pylist()]
        _LATEST.clear()
        _LATEST[content.digest()] = patients
    return patients


def fingerprint(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the row fingerprints in the table's order, one a line."""
    return hashlib.sha256("\n".join([*fingerprint_rows(table), ""]).encode()).hexdigest()


def read_truths(table: pd.DataFrame) -> np.ndarray:
    """Return 1 for each malignant row of a canonical table and 0 for each benign one, as int64 of shape (n,)."""
    return (table[columns.DIAGNOSIS] == columns.MALIGNANT).to_numpy(dtype=np.int64)


def check_schema(raw_data: pd.DataFrame) -> Findings:
    """Find where a table is not canonical: columns, types, ids and their order, finite numbers."""
    ids = raw_data[columns.ID].tolist() if columns.ID in raw_data else []
    numeric = raw_data.select_dtypes("float64")
    return Findings.of(
        ("the columns are not id, diagnosis and the 30 measurements in order", list(raw_data) != list(columns.RAW)),
        ("not every measurement is a float", set(columns.MEASUREMENTS) != set(numeric)),
        ("an id is empty or no text", not all(isinstance(name, str) and name for name in ids)),
        ("the rows are not sorted by id", list(map(str, ids)) != sorted(map(str, ids))),
        ("a measurement is not finite", not np.isfinite(numeric.to_numpy()).all()),
        rows=len(raw_data),
        malignant=int(read_truths(raw_data).sum()) if columns.DIAGNOSIS in raw_data else 0,
    )


def check_source(raw_data: pd.DataFrame, facts: Mapping[str, object]) -> Findings:
    """Find a table that stands in for UCI's, or that is another than UCI's although nobody named a source."""
    is_named, its_fingerprint = bool(facts.get(CHOSEN)), fingerprint(raw_data)
    return Findings.of(
        ("nothing is recorded of where the table is from", not facts),
        (f"UCI could not be reached, and {facts.get('source')} stands in", bool(facts.get("fallback"))),
        (
            f"it is not UCI's table (fingerprint {its_fingerprint[:12]}…), and nobody named it",
            not is_named and its_fingerprint != UCI_FINGERPRINT,
        ),
        (f"columns were left out that the model has no use for: {facts.get(LEFT_OUT)}", bool(facts.get(LEFT_OUT))),
        source=str(facts.get("source")),
        chosen_by_the_user=is_named,
        fingerprint=its_fingerprint,
        fingerprint_of_uci=UCI_FINGERPRINT,
    )


def _format_numbers(numbers: np.ndarray) -> pa.Array:
    """Return each number as `format_number` does."""
    sizes = np.abs(numbers)
    is_short = (sizes == 0) | ((sizes >= 1e-4) & (sizes < 1e9))  # beyond, Arrow has other exponents
    texts = pc.cast(pa.array(numbers + 0.0), pa.string())  # -0 is 0
    others = map(format_number, numbers[~is_short].tolist())
    return pc.replace_with_mask(texts, ~is_short, pa.array(others, pa.string()))
