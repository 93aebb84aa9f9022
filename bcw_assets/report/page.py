"""The page of a release, for clinicians and students: the words are in `page.html.j2`, what it does in `page.js`."""

import base64
import csv
import hashlib
import json
import re
from collections.abc import Iterable, Mapping

from bcw_assets.ml.evaluation.report import Report
from bcw_assets.ml.evaluation.scores import THRESHOLD
from bcw_assets.ml.evaluation.thresholds import compare_with_floors
from bcw_assets.ml.table import canonical, columns, forms, rules
from bcw_assets.report.card import TEXTS
from bcw_assets.report.formatting import open_templates


def write_page(report: Report, files: Mapping[str, bytes], inputs: str) -> str:
    """Return the page in HTML, whole in itself: nothing is loaded, and only its own script and style are executed.

    `files` are the others of the bundle, `inputs` the digits that its id begins with: the rest depends on this page.
    """
    script, style = ((TEXTS / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    template = open_templates(TEXTS).get_template("page.html.j2")
    return template.render(
        report=report,
        is_uci=report.provenance.fingerprint == canonical.UCI_FINGERPRINT,
        floors=compare_with_floors(report),
        columns=columns,
        known=rules.KNOWN,
        inputs=inputs,
        sums={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        script=script,
        style=style,
        hashes=[base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)],
        data=_collect_data(files, inputs, re.findall(r"release\.([A-Z_]+)", script)),
    )


def _collect_data(files: Mapping[str, bytes], inputs: str, names: Iterable[str]) -> str:
    """Return what the script works with, as JSON that can stand within HTML; by the names, what it knows a table by."""
    example = csv.DictReader(files["example.csv"].decode().splitlines())
    rows = sorted(example, key=lambda row: float(row[columns.PROBABILITY]))
    least_certain = min(rows, key=lambda row: abs(float(row[columns.PROBABILITY]) - THRESHOLD))
    data: dict[str, object] = {
        **{name: (vars(columns) | vars(forms))[name] for name in sorted(set(names))},
        "inputs": inputs,
        "model": json.loads(files["model.json"]),
        "patients": [rows[0], least_certain, rows[-1]],
        "rules": [
            {**vars(rule), "program": None, "bounds": rules.format_bounds(rule.low, rule.high)} for rule in rules.ROWS
        ],
    }
    return json.dumps(data, default=sorted, allow_nan=False).replace("<", "\\u003c")
