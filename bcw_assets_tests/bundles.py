"""The files of a release that scoring reads, made from the values of a refresh."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bcw_assets.ml import columns, table
from bcw_assets.storage import formats

RELEASE = "ab12" * 16


def bundle(made: Mapping[str, Any]) -> dict[str, bytes]:
    """Return name → content; `made` has raw_data, ready_data, model, cross_validation, and metrics' report."""
    raw, ready, model = made["raw_data"], made["ready_data"], made["model"]
    rows = made["cross_validation"].rows.drop(columns=columns.ID)
    split = ready.rows.set_index(columns.ID)["split"]
    rows.insert(0, "fingerprint", table.row_fingerprints(raw))
    rows.insert(2, "split", raw[columns.ID].map(split))
    rows.insert(3, "log_odds", model.decision_function(raw[list(columns.MEASUREMENTS)]))
    return {
        "model.json": formats.dump(model, "results/model")["results/model.json"],
        "metrics.json": json.dumps(asdict(made["metrics"].report)).encode(),
        "cross_validation.csv": rows.to_csv(index=False).encode(),
    }


def put(folder: Path, files: Mapping[str, bytes], release: str = RELEASE) -> None:
    """Write a release where `bcw predict` looks for it."""
    for name, content in files.items():
        path = folder / "releases" / release / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
