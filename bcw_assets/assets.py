"""The graph on one screen: what each stage is, and what the UI shows of it. How it is done stands in `ml`."""

from dataclasses import asdict

import dagster as dg
import pandas as pd
from pydantic import Field
from sklearn.pipeline import Pipeline

from bcw_assets import source
from bcw_assets.ml import expectations
from bcw_assets.ml.evaluation.report import Evaluation, evaluate
from bcw_assets.ml.model import numbers, preparation, resampling, training
from bcw_assets.ml.model.preparation import Prepared, Split
from bcw_assets.ml.model.resampling import CrossValidation, Resampling
from bcw_assets.ml.table import admission, canonical, columns
from bcw_assets.releases import bundle, promotion
from bcw_assets.releases.candidate import Candidate
from bcw_assets.report import card, figure, tables
from bcw_assets.settings import Settings
from bcw_assets.stages import as_table, stage
from bcw_assets.storage.io_manager import PATH
from bcw_assets.storage.store import Store


class SplitConfig(dg.Config):
    """How the rows are divided; the defaults are those of the published numbers."""

    test_size: float = Field(0.2, gt=0, lt=1, allow_inf_nan=False, description="share of rows that only test the model")
    seed: int = Field(42, ge=0, lt=2**32, description="of the random split")
    stratify: bool = Field(default=False, description="keep the share of malignant rows equal on both sides")


class TrainingConfig(dg.Config):
    """How strongly the model is regularised."""

    C: float = Field(1.0, gt=0, allow_inf_nan=False, description="inverse strength of the penalty on the coefficients")


class ResamplingConfig(dg.Config):
    """How the rows are resampled."""

    folds: int = Field(10, ge=2, description="parts of the table; each is predicted by a model of the others")
    repeats: int | None = Field(None, ge=1, description="times that all of it is done; chosen by the rows unless given")
    seed: int = Field(0, ge=0, lt=2**31, description="of the first repeat's parts; the next has seed + 1")


class ReleaseConfig(dg.Config):
    """A reason to release against the gate."""

    override: str = Field("", max_length=1000, description="why to release what the gate refuses; the log keeps it")


@stage("download", "data", "csv")
def raw_data(
    context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[pd.DataFrame]:
    """The table of patients: an id, the diagnosis, and 30 measurements of the cell nuclei in one image each.

    One row is one patient whose breast mass was sampled with a fine needle. The rows are sorted by id.
    """
    download = source.fetch(settings, tell=context.log.info)
    left_out: list[str] = []
    patients = admission.read_table(download.content, download.origin, left_out.append)
    return dg.MaterializeResult(
        value=patients,
        metadata={
            "dagster/row_count": len(patients),
            "dagster/column_schema": _schema(patients, columns.DESCRIPTIONS),
            "source": download.origin,
            "source_is_named": settings.source_is_named,
            "fallback": download.fallback,
            "tries": as_table([asdict(attempt) for attempt in download.tries]),
            "fingerprint": canonical.fingerprint(patients),
            canonical.LEFT_OUT: ", ".join(left_out),
            "malignant": int(canonical.malignant(patients).sum()),
        },
    )


@stage("preprocess", "data", "csv", "scikitlearn")
def ready_data(raw_data: pd.DataFrame, config: SplitConfig) -> dg.MaterializeResult[Prepared]:
    """The table made ready for training: divided into training and test rows, and standardised.

    Each measurement is given in standard deviations from its mean over the training rows, so that nothing of the test
    rows leaks into the model.
    """
    prepared = preparation.prepare(raw_data, Split(config.test_size, config.seed, config.stratify))
    return dg.MaterializeResult(
        value=prepared,
        metadata={
            "dagster/row_count": len(prepared.rows),
            "dagster/column_schema": _schema(prepared.rows, preparation.READY_DESCRIPTIONS),
            "settings": dg.MetadataValue.json(asdict(prepared.split)),
        },
    )


@stage("train", "results", "scikitlearn")
def model(ready_data: Prepared, config: TrainingConfig) -> dg.MaterializeResult[Pipeline]:
    """The classifier: from a patient's 30 raw measurements to the probability that the mass is malignant.

    A logistic regression on standardised measurements. Load it from `model.json`, which is numbers only; `model.pkl` is
    the same for those who expect a pickle.
    """
    pipeline = training.train(ready_data, config.C)
    coefficients = numbers.Scorer.load(numbers.dump_model(pipeline)).list_coefficients()
    return dg.MaterializeResult(
        value=pipeline,
        metadata={
            "settings": dg.MetadataValue.json(training.read_settings(pipeline)),
            "coefficients": as_table(coefficients),
        },
    )


@stage("evaluate", "results", "csv", "scikitlearn")
def cross_validation(
    raw_data: pd.DataFrame, model: Pipeline, config: ResamplingConfig
) -> dg.MaterializeResult[CrossValidation]:
    """The probability of malignancy of every patient by models that were trained without that patient.

    One row a patient, one column a repeat: in each, the table is divided into folds, and each fold is predicted by a
    model with the settings of `model` that was refitted on the others.
    """
    repeats = config.repeats or resampling.choose_repeats(len(raw_data))
    probabilities = resampling.predict_out_of_fold(raw_data, model, Resampling(config.folds, repeats, config.seed))
    return dg.MaterializeResult(
        value=probabilities,
        metadata={
            "dagster/row_count": len(probabilities.rows),
            "dagster/column_schema": _schema(probabilities.rows, resampling.describe_columns(repeats)),
            "settings": dg.MetadataValue.json(asdict(probabilities.resampling)),
        },
    )


@stage("evaluate", "results", "json", "scikitlearn")
def metrics(
    raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline, cross_validation: CrossValidation
) -> dg.MaterializeResult[Evaluation]:
    """How good the model is, and how far that can be trusted: numbers with intervals, a figure and a model card.

    The four published numbers are of the test rows of one split: an anchor for comparison. The cross-validated ones are
    evidence.
    """
    report = evaluate(raw_data, ready_data, model, cross_validation)
    picture = figure.draw(report)
    return dg.MaterializeResult(
        value=Evaluation(report, picture, card.write_card(report)),
        metadata={
            "evaluation": dg.MetadataValue.md(figure.inline(picture)),
            "scores with intervals": dg.MetadataValue.md(tables.tabulate_scores(report)),
            "beside the published numbers": dg.MetadataValue.md(tables.tabulate_published(report)),
            **report.collect_numbers(),
        },
    )


@stage("upload", None, "json", "onnx")
def release(
    context: dg.AssetExecutionContext,
    releases: dg.ResourceParam[Store],
    raw_data: pd.DataFrame,
    ready_data: Prepared,
    model: Pipeline,
    cross_validation: CrossValidation,
    metrics: Evaluation,
    config: ReleaseConfig,
) -> dg.MaterializeResult[None]:
    """The model that others use: a bundle of files that never changes, made champion if the gate lets it pass.

    The same table and settings are the same release: then nothing is written.
    """
    candidate = Candidate(raw_data, ready_data, model, cross_validation, metrics)
    problems = expectations.find_problems(vars(candidate))
    result, entry = promotion.promote(releases, candidate, problems, context.run.run_id, config.override)
    return dg.MaterializeResult(
        metadata={
            "release": entry.release,
            "result": result,
            "sequence": entry.sequence,
            "bundle": dg.MetadataValue.path(releases.address(f"{bundle.PLACE}/{entry.release}")),
            PATH: dg.MetadataValue.path(releases.address(bundle.PLACE)),
            **({"override": entry.reason} if entry.reason else {}),
            "gate": as_table(entry.gate),
        },
        data_version=dg.DataVersion(entry.manifest),
    )


GRAPH = [raw_data, ready_data, model, cross_validation, metrics, release]


def _schema(frame: pd.DataFrame, descriptions: dict[str, tuple[str, str]]) -> dg.TableSchema:
    texts = {name: f"{meaning} [{unit}]" if unit else meaning for name, (meaning, unit) in descriptions.items()}
    return dg.TableSchema([dg.TableColumn(name, str(frame[name].dtype), text) for name, text in texts.items()])
