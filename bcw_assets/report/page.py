"""The page of a release, for clinicians and students: the words are in `page.html.j2`, what it does in `page.js`."""

import base64
import csv
import hashlib
import json
from collections.abc import Mapping

from bcw_assets.ml.evaluation.report import Report
from bcw_assets.ml.evaluation.scores import SCORES, THRESHOLD
from bcw_assets.ml.evaluation.thresholds import compare_with_floors
from bcw_assets.ml.table import canonical, columns, forms, rules
from bcw_assets.report.card import TEXTS
from bcw_assets.report.templates import open_templates

# What page.js knows a table by, and the words of `bcw predict` for what is wrong with a field.
OF_COLUMNS = (
    *("ID", "DIAGNOSIS", "TARGET", "PROBABILITY", "MEASUREMENTS", "ALIASES", "SCIKIT_LEARN", "ID_NAMES"),
    *("LABEL_NAMES", "INDEX_NAMES", "WORDS", "TARGET_CODES", "CODES"),
)
OF_FORMS = (
    *("BLANK", "LONGEST_ID", "LONGEST_QUOTE", "MOST_NAMES", "PRINTABLE", "NUMBER_IS", "COMMA_NUMBER_IS"),
    *("LABEL_IS", "TARGET_IS"),
)


def write_page(report: Report, files: Mapping[str, bytes], inputs: str) -> str:
    """Return the page in HTML, whole in itself: nothing is loaded, and only its own script and style are executed.

    `files` are the others of the bundle, and `inputs` are the digits that its id begins with: the rest of the id
    depends on this page, which reads it from the name of its folder.
    """
    script, style = ((TEXTS / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    templates = open_templates(TEXTS)
    templates.filters["zip"] = zip
    return templates.get_template("page.html.j2").render(
        report=report,
        is_uci=report.provenance.fingerprint == canonical.UCI_FINGERPRINT,
        profiles=SCORES,
        threshold=THRESHOLD,
        floors=compare_with_floors(report),
        columns=columns,
        known=rules.KNOWN,
        inputs=inputs,
        sums={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        script=script,
        style=style,
        hashes=[base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)],
        data=_collect_data(files, inputs),
    )


def _collect_data(files: Mapping[str, bytes], inputs: str) -> str:
    """Return what the script works with, as JSON that can stand within HTML."""
    example = csv.DictReader(files["example.csv"].decode().splitlines())
    rows = sorted(example, key=lambda row: float(row[columns.PROBABILITY]))
    least_certain = min(rows, key=lambda row: abs(float(row[columns.PROBABILITY]) - THRESHOLD))
    data: dict[str, object] = {
        **{name: getattr(columns, name) for name in OF_COLUMNS},
        **{name: getattr(forms, name) for name in OF_FORMS},
        "inputs": inputs,
        "model": json.loads(files["model.json"]),
        "patients": [rows[0], least_certain, rows[-1]],
        "rules": [
            {**vars(rule), "program": None, "bounds": rules.format_bounds(rule.low, rule.high)} for rule in rules.ROWS
        ],
    }
    return json.dumps(data, default=sorted, allow_nan=False).replace("<", "\\u003c")
