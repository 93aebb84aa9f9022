"""The graph on one screen: what each stage is, and what the UI shows of it. How it is done stands in `ml`."""

import base64
from dataclasses import asdict
from datetime import datetime

import dagster as dg
import pandas as pd
from pydantic import Field
from sklearn.pipeline import Pipeline

from bcw_assets import source
from bcw_assets.errors import ReleaseRefused
from bcw_assets.ml import expectations
from bcw_assets.ml.evaluation.report import Evaluation, evaluate
from bcw_assets.ml.model import numbers, preparation, resampling, training
from bcw_assets.ml.model.preparation import Prepared, Split
from bcw_assets.ml.model.resampling import CrossValidation, Resampling
from bcw_assets.ml.table import admission, canonical, columns
from bcw_assets.releases import bundle, gate, promotion
from bcw_assets.releases.candidate import SHORT, Candidate
from bcw_assets.report import card, figure
from bcw_assets.report.formatting import format_percent
from bcw_assets.settings import Settings
from bcw_assets.stages import show_rows, stage
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
    """The patients: diagnosis and 30 measurements.

    One row is one patient whose breast mass was sampled with a fine needle; a program measured the cell nuclei in one
    image of the sample. The rows are sorted by id.
    """
    download = source.fetch(settings, tell=context.log.info)
    left_out: list[str] = []
    patients = admission.read_table(download.content, download.origin, left_out.append)
    is_malignant = canonical.read_truths(patients)
    return dg.MaterializeResult(
        value=patients,
        metadata={
            "source": download.origin,
            "malignant": f"{is_malignant.sum()} of {len(patients)} patients ({format_percent(is_malignant.mean())})",
            # A page of the UI has no place for more.
            **show_rows("first rows", patients.iloc[:3, :4].to_dict("records")),
            **show_rows("tries", list(map(asdict, download.tries))),
            "fallback": download.fallback,
            canonical.CHOSEN: settings.source_is_named,
            **({canonical.LEFT_OUT: ", ".join(left_out)} if left_out else {}),
            "columns": _build_schema(patients, columns.DESCRIPTIONS),
            "fingerprint": canonical.fingerprint(patients)[:SHORT],
            "dagster/row_count": len(patients),
        },
    )


@stage("preprocess", "data", "csv", "scikitlearn")
def ready_data(raw_data: pd.DataFrame, config: SplitConfig) -> dg.MaterializeResult[Prepared]:
    """The same patients, divided and on one scale.

    Each is a training row or a test row. Each measurement is given in standard deviations from its mean over the
    training rows, so that nothing of the test rows leaks into the model.
    """
    prepared = preparation.prepare(raw_data, Split(config.test_size, config.seed, config.stratify))
    return dg.MaterializeResult(
        value=prepared,
        metadata={
            "settings": dg.MetadataValue.json(asdict(prepared.split)),
            "columns": _build_schema(prepared.rows, preparation.READY_DESCRIPTIONS),
            "dagster/row_count": len(prepared.rows),
        },
    )


@stage("train", "results", "scikitlearn")
def model(ready_data: Prepared, config: TrainingConfig) -> dg.MaterializeResult[Pipeline]:
    """The chance of malignancy, as a formula.

    A logistic regression: from a patient's 30 raw measurements to the probability that the mass is malignant. Load it
    from `model.json`, which is numbers only; `model.pkl` is the same for those who expect a pickle.
    """
    pipeline = training.train(ready_data, config.C)
    coefficients = numbers.Scorer.load(numbers.dump_model(pipeline)).list_coefficients()
    return dg.MaterializeResult(
        value=pipeline,
        metadata={
            "settings": dg.MetadataValue.json(training.read_settings(pipeline)),
            **show_rows("coefficients", coefficients),
        },
    )


@stage("evaluate", "results", "csv", "scikitlearn")
def cross_validation(
    context: dg.AssetExecutionContext, raw_data: pd.DataFrame, model: Pipeline, config: ResamplingConfig
) -> dg.MaterializeResult[CrossValidation]:
    """What models say of patients they never saw.

    The probability of malignancy, one row a patient and one column a repeat: in each, the patients are divided into
    folds, and each fold is predicted by a model with the settings of `model` that was refitted on the others.
    """
    repeats = config.repeats or resampling.choose_repeats(len(raw_data))
    how = Resampling(config.folds, repeats, config.seed)
    probabilities = resampling.predict_out_of_fold(raw_data, model, how, context.log.info)
    return dg.MaterializeResult(
        value=probabilities,
        metadata={
            "settings": dg.MetadataValue.json(asdict(how)),
            "columns": _build_schema(probabilities.rows, resampling.describe_columns(repeats)),
            "dagster/row_count": len(probabilities.rows),
        },
    )


@stage("evaluate", "results", "json", "scikitlearn")
def metrics(
    raw_data: pd.DataFrame, ready_data: Prepared, model: Pipeline, cross_validation: CrossValidation
) -> dg.MaterializeResult[Evaluation]:
    """How good the model is, and how sure that is.

    Scores with 95 % intervals, a figure and a model card. The cross-validated scores are evidence. The four published
    ones are of the test rows of one split: an anchor for comparison.
    """
    report = evaluate(raw_data, ready_data, model, cross_validation)
    picture, text = figure.draw(report), card.write_card(report)
    return dg.MaterializeResult(
        value=Evaluation(report, picture, text),
        metadata={
            "figure": dg.MetadataValue.md(f"![evaluation](data:image/png;base64,{base64.b64encode(picture).decode()})"),
            "scores": dg.MetadataValue.md(card.tabulate_scores(report, is_brief=True)),
            "model card": dg.MetadataValue.md(card.cut_card(text)),
            f"published split, {report.confusion.total} rows": dg.MetadataValue.md(card.tabulate_published(report)),
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
    """The model that others use, if it is good enough.

    A folder of files that never changes. It becomes the champion if the gate lets it pass, which asks for enough
    quality, and for no less than the champion has. The same table and settings are the same release: then nothing is
    written.
    """
    candidate = Candidate(raw_data, ready_data, model, cross_validation, metrics)
    problems = expectations.find_problems(vars(candidate))
    try:
        result, entry = promotion.promote(releases, candidate, problems, context.run.run_id, config.override)
    except ReleaseRefused as refusal:  # the asset's events list it; of a failed run they show the last alone
        seen = dg.AssetObservation(context.asset_key, str(refusal), metadata=show_rows("gate", refusal.rows))
        context.log_event(seen)
        raise
    unjudged = gate.explain_unjudged(entry.gate)
    pages = releases.list(bundle.locate_file(entry.release, "index.html"))  # none if an earlier version made it
    return dg.MaterializeResult(
        metadata={
            "result": result,
            "release": entry.release,
            "champion since": dg.MetadataValue.timestamp(datetime.fromisoformat(entry.made)),
            **({"page": dg.MetadataValue.path(releases.address(pages[0]))} if pages else {}),
            **show_rows("gate", gate.fold_table(entry.gate)),
            **({"not judged": unjudged} if unjudged else {}),
            **({"override": entry.reason} if entry.reason else {}),
            "log entry": entry.sequence,
            "bundle": dg.MetadataValue.path(releases.address(f"{bundle.PLACE}/{entry.release}")),
            PATH: dg.MetadataValue.path(releases.address(bundle.PLACE)),
        },
        data_version=dg.DataVersion(entry.manifest),
    )


GRAPH = [raw_data, ready_data, model, cross_validation, metrics, release]


def _build_schema(frame: pd.DataFrame, descriptions: dict[str, tuple[str, str]]) -> dg.TableSchema:
    texts = {name: f"{meaning} [{unit}]" if unit else meaning for name, (meaning, unit) in descriptions.items()}
    return dg.TableSchema([dg.TableColumn(name, str(frame[name].dtype), text) for name, text in texts.items()])
