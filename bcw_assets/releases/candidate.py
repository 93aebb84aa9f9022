"""What a run would release: which release it is, and the files of its bundle."""

import dataclasses
import io
import math
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import sklearn
from sklearn.pipeline import Pipeline

from bcw_assets import documents
from bcw_assets.errors import OTHER_VERSION, ArtifactError, ReleaseError
from bcw_assets.ml.evaluation import patients
from bcw_assets.ml.evaluation.comparison import Comparison, Predictions, compare
from bcw_assets.ml.evaluation.report import Evaluation, Report, require_one_history
from bcw_assets.ml.model import numbers, preparation, sql, training
from bcw_assets.ml.model.resampling import CrossValidation
from bcw_assets.ml.table import canonical, columns
from bcw_assets.releases import bundle
from bcw_assets.report import card, page
from bcw_assets.storage import formats

EXAMPLES = 10  # rows of the example
TOLERANCE = 1e-12  # of a probability, by the other forms of the model
OPSETS = {"": 18, "ai.onnx.ml": 3}  # of 2022; any runtime reads it, and the bytes do not change with skl2onnx's newest
SHORT = 16  # digits of a fingerprint that stand for a patient


@dataclass(frozen=True, eq=False)
class Candidate:
    """The values of all assets, by their names, and what is made of them, once."""

    raw_data: pd.DataFrame
    ready_data: preparation.Prepared
    model: Pipeline
    cross_validation: CrossValidation
    metrics: Evaluation

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """What decides the release: two runs with the same are one."""
        return {
            "fingerprint": self.ready_data.fingerprint,
            "split": dataclasses.asdict(self.ready_data.split),
            "settings": training.read_settings(self.model),
            "resampling": dataclasses.asdict(self.cross_validation.resampling),
            "scikit_learn": ".".join(sklearn.__version__.split(".")[:2]),
        }

    @cached_property
    def fingerprints(self) -> list[str]:
        """The fingerprint of every row."""
        return canonical.fingerprint_rows(self.raw_data)

    def compare(self, champion: Predictions) -> Comparison:
        """Hold what the recipe says of patients that it has not seen against what a champion's says of the same."""
        malignant = canonical.read_truths(self.raw_data)
        others = np.where(malignant, columns.BENIGN, columns.MALIGNANT)
        relabelled = canonical.fingerprint_rows(self.raw_data.assign(**{columns.DIAGNOSIS: others}))
        predictions = Predictions(self.fingerprints, malignant, self.cross_validation.probabilities)
        return compare(predictions, relabelled, champion)

    def require_one_history(self) -> None:
        """Refuse values that do not belong together by an ArtifactError, which names the stage to run again."""
        require_one_history(self.raw_data, self.ready_data, self.model, self.cross_validation)
        report = self.metrics.report
        if any(self.inputs.get(name, value) != value for name, value in dataclasses.asdict(report.provenance).items()):
            raise ArtifactError("metrics are of another table or model than the one stored now", "metrics")
        ids = {patient.id for patient in (*report.hardest_rows, *report.label_suspects)}
        if strangers := ids.difference(self.raw_data[columns.ID]):
            raise ArtifactError(f"metrics name the patient {min(strangers)}, and raw_data has other ids", "metrics")

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The files of the bundle but for SHA256SUMS, in the order in which they are stored.

        Patients are named by fingerprints: the copy of UCI's table that has no ids makes the same bytes. If model.onnx
        or model.sql does not give the model's probabilities, a ReleaseError says so.
        """
        report, document = self._replace_ids(), numbers.dump_model(self.model)
        scorer, measurements = numbers.Scorer.load(document), self.raw_data[list(columns.MEASUREMENTS)]
        # To the same last digit as `bcw predict`; scikit-learn's depend on where the rows lie.
        log_odds = scorer.compute_log_odds(measurements.to_numpy().T)
        probability = numbers.compute_probability(log_odds)
        examples = np.unique(np.linspace(0, len(probability) - 1, EXAMPLES).astype(int))  # rows from all over the table
        files = {
            "model.json": documents.encode(document),
            "model.onnx": _make_onnx(self.model, measurements, probability),
            "model.sql": _make_sql(scorer, measurements.iloc[examples], probability[examples]),
            "metrics.json": documents.encode(dataclasses.asdict(report)),
            "cross_validation.csv": self._format_predictions(log_odds),
            "evaluation.png": self.metrics.figure,
            "MODEL_CARD.md": card.write_card(report).encode(),
            "example.csv": self._format_example(examples, probability[examples]),
            "README.txt": (card.TEXTS / "bundle.txt").read_bytes(),
        }
        return {**files, "index.html": page.write_page(report, files, bundle.hash_inputs(self.inputs)).encode()}

    def name_patients(self, text: str) -> str:
        """Return a text in which patients have their ids in the place of the digits that stand for them."""
        ids = dict(zip([digits[:SHORT] for digits in self.fingerprints], self.raw_data[columns.ID], strict=True))
        return re.sub(rf"\b[0-9a-f]{{{SHORT}}}\b", lambda match: ids.get(match[0], match[0]), text)

    def _replace_ids(self) -> Report:
        fingerprints = dict(zip(self.raw_data[columns.ID], self.fingerprints, strict=True))
        report = self.metrics.report
        hardest, suspects = (
            patients.sort_worst_first([dataclasses.replace(row, id=fingerprints[row.id][:SHORT]) for row in rows])
            for rows in (report.hardest_rows, report.label_suspects)
        )
        return dataclasses.replace(report, hardest_rows=hardest, label_suspects=suspects)

    def _format_predictions(self, log_odds: np.ndarray) -> bytes:
        """Return one row a patient: fingerprint, diagnosis, split, the model's own log odds, and every repeat."""
        rows = self.cross_validation.rows.rename(columns={columns.ID: "fingerprint"})
        rows["fingerprint"] = self.fingerprints
        rows.insert(2, preparation.SPLIT, self.ready_data.rows[preparation.SPLIT])
        rows.insert(3, "log_odds", log_odds)
        return formats.format_csv(rows)

    def _format_example(self, places: np.ndarray, probability: np.ndarray) -> bytes:
        """Return these rows of the table as a file that can be scored, with their probabilities."""
        ids = [f"example-{number + 1}" for number in range(len(places))]
        rows = self.raw_data.iloc[places].drop(columns=columns.DIAGNOSIS).assign(**{columns.ID: ids})
        return formats.format_csv(rows.assign(**{columns.PROBABILITY: probability}))


def _make_onnx(model: Pipeline, measurements: pd.DataFrame, probability: np.ndarray) -> bytes:
    # 0.4 s of imports that only a new release needs.
    import skl2onnx
    from onnx.reference import ReferenceEvaluator
    from skl2onnx.common.data_types import DoubleTensorType

    inputs = [("measurements", DoubleTensorType([None, len(columns.MEASUREMENTS)]))]
    onnx_model = skl2onnx.convert_sklearn(model, "bcw_assets", inputs, options={"zipmap": False}, target_opset=OPSETS)
    evaluator = ReferenceEvaluator(onnx_model)
    (probabilities,) = evaluator.run(["probabilities"], {"measurements": measurements.to_numpy()})
    _require_agreement("model.onnx", np.asarray(probabilities)[:, 1], probability)
    onnx_model.opset_import.sort(key=lambda opset: opset.domain)  # their order is not the same in every process
    return bytes(onnx_model.SerializeToString(deterministic=True))


def _make_sql(scorer: numbers.Scorer, measurements: pd.DataFrame, probability: np.ndarray) -> bytes:
    query = sql.write_query(scorer)
    with closing(sqlite3.connect(":memory:")) as database:
        # Not every SQLite has an EXP. Python's raises an error where it would overflow, as other engines do.
        database.create_function("EXP", 1, math.exp)
        measurements.to_sql("measurements", database, index=False)
        rows = pd.read_sql_query(query, database)
    _require_agreement("model.sql", rows[columns.PROBABILITY].to_numpy(), probability)
    return query.encode()


def _require_agreement(name: str, probabilities: np.ndarray, expected: np.ndarray) -> None:
    error_size = float(np.abs(probabilities - expected).max())
    if not error_size <= TOLERANCE:
        raise ReleaseError(
            f"{name} gives other probabilities than the model, by {error_size:.3g}; allowed is {TOLERANCE:g}. "
            f"Nothing was released. Install bcw_assets anew, with the versions that it asks for"
        )


def read_predictions(files: Mapping[str, bytes]) -> Predictions:
    """Return what the recipe of a bundle says of patients that it had not seen, or raise a ValueError."""
    if (table := files.get("cross_validation.csv")) is None:
        raise ValueError("it has no cross_validation.csv")
    try:
        rows = pd.read_csv(io.BytesIO(table), dtype={"fingerprint": "str"}, keep_default_na=False)
        codes = rows[columns.DIAGNOSIS].map({columns.BENIGN: 0, columns.MALIGNANT: 1}.__getitem__)  # or a KeyError
        malignant = codes.to_numpy(np.int64)
        probabilities = rows.filter(regex="^repeat_").to_numpy(np.float64)
        predictions = Predictions(rows["fingerprint"].tolist(), malignant, probabilities)
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(f"its cross_validation.csv cannot be read ({error!r}; {OTHER_VERSION})") from error
    if not (probabilities.size and ((probabilities >= 0) & (probabilities <= 1)).all()):
        raise ValueError(f"its cross_validation.csv has no probabilities of 0 to 1; {OTHER_VERSION}")
    return predictions
