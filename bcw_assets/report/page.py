"""The page of a release, for clinicians and students: the words are in `page.html.j2`, what it does in `page.js`."""

import base64
import csv
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from bcw_assets.ml.evaluation import patients
from bcw_assets.ml.evaluation.report import Report
from bcw_assets.ml.evaluation.scores import SCORES, THRESHOLD
from bcw_assets.ml.evaluation.thresholds import compare_with_floors
from bcw_assets.ml.table import canonical, columns, forms, rules
from bcw_assets.report.card import TEXTS
from bcw_assets.report.templates import open_templates

# What page.js knows a table by, and says of it, in the words of `bcw predict`.
NAMES: dict[ModuleType, tuple[str, ...]] = {
    columns: (
        *("ID", "DIAGNOSIS", "TARGET", "PROBABILITY", "ALIASES", "SCIKIT_LEARN", "ID_NAMES", "LABEL_NAMES"),
        *("INDEX_NAMES", "WORDS", "TARGET_CODES", "CODES"),
    ),
    forms: (
        *("BLANK", "LONGEST_ID", "LONGEST_QUOTE", "MOST_NAMES", "PRINTABLE", "NUMBER_IS", "COMMA_NUMBER_IS"),
        *("LABEL_IS", "TARGET_IS"),
    ),
}


def write_page(report: Report, files: Mapping[str, bytes], inputs: str) -> str:
    """Return the page in HTML, whole in itself: nothing is loaded, and only its own script and style are executed.

    `files` are the others of the bundle, and `inputs` are the digits that its id begins with: the rest of the id
    depends on this page, which reads it from the name of its folder.
    """
    script, style = ((TEXTS / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    model = json.loads(files["model.json"])
    templates = open_templates(TEXTS)
    templates.filters["zip"] = zip
    return templates.get_template("page.html.j2").render(
        report=report,
        is_uci=report.provenance.fingerprint == canonical.UCI_FINGERPRINT,
        profiles=SCORES,
        threshold=THRESHOLD,
        floors=compare_with_floors(report),
        fewest=patients.FEWEST,
        families=columns.FAMILIES,
        statistics=columns.STATISTICS,
        known=rules.KNOWN,
        inputs=inputs,
        model=model,
        sums={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        script=script,
        style=style,
        policy=f"default-src 'none'; script-src {_hash_source(script)}; style-src {_hash_source(style)}; "
        "base-uri 'none'; form-action 'none'",
        data=_collect_data(model, files["example.csv"], inputs),
    )  # fmt: skip


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _collect_data(model: dict[str, Any], example: bytes, inputs: str) -> str:
    """Return what the script works with, as JSON that can stand within HTML."""
    rows = list(csv.DictReader(example.decode().splitlines()))
    by_probability = sorted(rows, key=lambda row: float(row[columns.PROBABILITY]))
    least_certain = min(rows, key=lambda row: abs(float(row[columns.PROBABILITY]) - THRESHOLD))
    data = {name: getattr(module, name) for module, names in NAMES.items() for name in names} | {
        "inputs": inputs,
        "model": {name: model[name] for name in ("features", "mean", "scale", "coefficients", "intercept")},
        "measurements": columns.MEASUREMENTS,
        "patients": [rows[0], by_probability[0], least_certain, by_probability[-1]],
        "rules": [
            {
                **{field.name: getattr(rule, field.name) for field in dataclasses.fields(rule) if field.repr},
                "bounds": rules.format_bounds(rule.low, rule.high),
            }
            for rule in rules.ROWS
        ],
        "OTHER_FILES": {
            begin.decode("latin-1"): what for begins, what in forms.OTHER_FILES.items() for begin in begins
        },
    }
    return json.dumps(data, default=sorted, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
