"""The canonical table, which a model is trained on: its text, its checks, and when two tables are the same."""

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from bcw_assets.ml.findings import Findings
from bcw_assets.ml.table import columns
from bcw_assets.ml.table.identity import format_number, hash_row, round_values

UCI_FINGERPRINT = "ae5f3663df59b8d56b571fb9ff28b36cfba023a6075f2d98c2d5a9e76a6499b2"
"""The fingerprint of the 569 rows that UCI has served since 1995, in any of their forms."""

# The names of what is recorded of the download.
LEFT_OUT, CHOSEN = "columns left out", "chosen by the user"


def write_table(table: pd.DataFrame) -> bytes:
    """Return a canonical table as CSV: a header, LF, every float by the shortest text that gives it back."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(
        (identifier, *row) for identifier, row in zip(table[columns.ID], _format_patients(table), strict=True)
    )
    return text.getvalue().encode()


def fingerprint_rows(table: pd.DataFrame) -> list[str]:
    """Return, row by row, the SHA-256 of diagnosis and rounded measurements: the patient, whatever the id."""
    rounded = table.assign(**{name: round_values(table[name].to_numpy()) for name in columns.MEASUREMENTS})
    return list(map(hash_row, _format_patients(rounded)))


def fingerprint(table: pd.DataFrame) -> str:
    """Return the SHA-256 of the row fingerprints in the table's order, one a line."""
    return hashlib.sha256("".join(f"{row}\n" for row in fingerprint_rows(table)).encode()).hexdigest()


def malignant(table: pd.DataFrame) -> np.ndarray:
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
        malignant=int(malignant(raw_data).sum()) if columns.DIAGNOSIS in raw_data else 0,
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


def _format_patients(table: pd.DataFrame) -> Iterator[tuple[str, ...]]:
    """Return each row's diagnosis and numbers as texts; a number that a column has often is formatted once."""
    texts = [table[columns.DIAGNOSIS].tolist()]
    for name in columns.MEASUREMENTS:
        codes, numbers = pd.factorize(table[name].to_numpy() + 0.0, use_na_sentinel=False)  # -0 is 0
        texts.append(np.array(list(map(format_number, numbers.tolist())), dtype=object)[codes].tolist())
    return zip(*texts, strict=True)
