"""The model card: the report in words for clinicians and engineers, with every number from it."""

import textwrap

import yaml

from bcw_assets.ml.evaluation import patients
from bcw_assets.ml.evaluation.calibration import Calibration
from bcw_assets.ml.evaluation.patients import Patient, Subgroup
from bcw_assets.ml.evaluation.report import ENOUGH, FEW, STANDARD_NAMES, Report
from bcw_assets.ml.evaluation.scores import THRESHOLD, Summary
from bcw_assets.ml.evaluation.thresholds import TOLERABLE_SLOPES
from bcw_assets.ml.evaluation.utility import OperatingPoint
from bcw_assets.ml.table import canonical, columns
from bcw_assets.report import guidelines, tables
from bcw_assets.report.formatting import format_interval, format_percent, format_percent_interval, format_score
from bcw_assets.report.guidelines import AUTHOR
from bcw_assets.report.tables import escaped, markdown

NAME = "Breast Cancer Wisconsin (Diagnostic)"
CITATION = (
    "Wolberg, W., Mangasarian, O., Street, N. & Street, W. (1993). *Breast Cancer Wisconsin (Diagnostic)*. UCI Machine "
    "Learning Repository. https://doi.org/10.24432/C5DW2B. Licence: CC BY 4.0."
)
ABOUT = (
    "An interval is about what models of this table would reach on further patients like these. It leaves out the "
    "choices made by people who know the table."
)

# Score of the cross-validation → its type on Hugging Face.
HUGGING_FACE = {
    "accuracy": "accuracy",
    "sensitivity": "recall",
    "ppv": "precision",
    "f1": "f1",
    "roc_auc": "roc_auc",
    "brier": "brier_score",
}


def write(report: Report) -> str:
    """Return the card in Markdown, with the front matter that Hugging Face reads."""
    is_known = report.provenance.fingerprint == canonical.UCI_FINGERPRINT
    sections = [
        _front_matter(report, is_known=is_known),
        _headline(report),
        INTENDED_USE,
        _data(report, is_known=is_known),
        _training(report),
        _performance(report),
        _operating_points(report),
        _calibration(report.calibration),
        _subgroups(report.subgroups),
        _hardest(report),
        _coefficients(report),
        _limits(report, is_known=is_known),
        _risk_of_bias(report, is_known=is_known),
        _citation(is_known=is_known),
        _tripod(is_known=is_known),
        _provenance(report),
    ]
    return "\n\n".join(map(_filled, sections)) + "\n"


INTENDED_USE = """## Intended use

For learning, for teaching, and as the base of your own pipeline: it shows what a logistic regression can say about
these measurements, and how far that can be trusted.

It is **no medical device** and must not decide about patients. It has not been tried on patients from elsewhere. It
is not for screening, not for masses that would not be sampled with a needle, and not for any other kind of cell. A
low probability does not rule cancer out."""


def _filled(section: str) -> str:
    """Wrap the paragraphs; headings, tables, lists, pictures and the front matter stay as they are."""
    fill = textwrap.TextWrapper(100, break_long_words=False, break_on_hyphens=False).fill
    return "\n\n".join(
        block if block.startswith(("#", "|", "- ", "!", "---")) else fill(block) for block in section.split("\n\n")
    )


def _front_matter(report: Report, *, is_known: bool) -> str:
    dataset = {"name": NAME, "type": "uci-breast-cancer-wisconsin-diagnostic"}
    if not is_known:
        dataset = {"name": "a table with the columns of " + NAME, "type": "own"}
    metrics = [
        {"type": kind, "name": f"{name} (cross-validated)", "value": report.cross_validation[name].estimate}
        for name, kind in HUGGING_FACE.items()
        if report.cross_validation[name].estimate is not None
    ]
    task = {"type": "tabular-classification", "name": "malignant or benign breast mass"}
    front = {
        "language": "en",
        "license": "mit",
        "library_name": "sklearn",
        "pipeline_tag": "tabular-classification",
        "tags": ["sklearn", "tabular-classification", "logistic-regression", "breast-cancer", "not-a-medical-device"],
        "metrics": [kind for kind in HUGGING_FACE.values() if kind != "brier_score"],
        "model-index": [
            {"name": "bcw_assets", "results": [{"task": task, "dataset": dataset, "metrics": metrics}]},
        ],
    }
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---"


def _headline(report: Report) -> str:
    scores, how = report.cross_validation, report.provenance.resampling
    rows = [
        ["malignant masses that are called malignant (sensitivity)", *_percent(scores["sensitivity"])],
        ["benign masses that are called benign (specificity)", *_percent(scores["specificity"])],
        ["masses called malignant that are malignant (PPV)", *_percent(scores["ppv"])],
        ["masses called benign that are benign (NPV)", *_percent(scores["npv"])],
        ["calls that are right (accuracy)", *_percent(scores["accuracy"])],
        [
            "chance that a malignant mass has a higher probability than a benign one (ROC AUC)",
            *_plain(scores["roc_auc"]),
        ],
        ["log loss (0 is best)", *_plain(scores["log_loss"])],
    ]
    return f"""# Malignant or benign? A logistic regression on 30 measurements of cell nuclei

A program measured the nuclei in one image of cells from a breast mass. From these measurements the model gives the
probability that the mass is malignant.

By {how.repeats} × {how.folds}-fold cross-validation of all {report.provenance.rows} patients, each predicted by models
that have not seen the patient, and called malignant at a probability of {THRESHOLD:g} or more:

{markdown(["", "estimate", "95 % interval"], rows)}

{ABOUT}

![ROC curve, precision-recall curve, reliability and decision curve](evaluation.png)"""


def _data(report: Report, *, is_known: bool) -> str:
    facts = report.provenance
    counted = (
        f"{facts.rows} patients, {facts.malignant} of them ({format_percent(facts.prevalence)}) with a malignant mass"
    )
    if not is_known:
        return f"""## The data

{counted}. The table is not the one of the UCI repository: who they are, where and when they were seen, and how the
diagnosis was made, **{AUTHOR} must say here**."""
    return f"""## The data

{counted}, of one hospital (University of Wisconsin), before 1996. The diagnosis was confirmed by biopsy or, of benign
masses, by follow-up. So many malignant masses are those of a referral clinic; where fewer are malignant, the PPV is
lower (see Operating points).

**No age, no sex, no ethnicity, no stage and no date is recorded.** Nobody can say from this table whether the model
serves all groups of people alike. Why some patients are in the table and others are not is not recorded either."""


def _training(report: Report) -> str:
    size, split, held_out = report.sample_size, report.provenance.split, report.confusion
    ill = held_out.true_positives + held_out.false_negatives
    return f"""## Training

The {size.predictors} measurements are standardised and go into a logistic regression with an L2 penalty
(C = {report.provenance.settings["C"]:g}, not tuned by this run). The model in `model.json` was fitted on
{report.provenance.rows - held_out.total} patients, {report.provenance.malignant - ill} of them malignant;
{held_out.total} were held out, {ill} of them malignant (test_size {split.test_size:g}, seed {split.seed},
{"stratified" if split.stratify else "not stratified"}).

Sample size: {size.events} training patients have the rarer diagnosis, {size.events_per_predictor:.1f} per measurement.
That is {size.meaning}."""


def _performance(report: Report) -> str:
    heads = ["held-out patients", "value", "95 % interval"]
    rows = [
        [
            name,
            format_score(getattr(report, name), 4),
            format_interval(report.intervals.get(STANDARD_NAMES.get(name, name))),
        ]
        for name in (*report.published(), "roc_auc", "log_loss")
    ]
    return f"""## Performance

Cross-validated on all patients. The sd is what other folds would change, not what other patients would.

{tables.scores(report)}

On the {report.confusion.total} held-out patients alone, an anchor for comparisons and little evidence:

{markdown(heads, rows)}"""


def _operating_points(report: Report) -> str:
    curve = report.decision_curve
    better = sum(model > max(everybody, 0) for model, everybody in zip(curve.model, curve.treat_all, strict=True))
    points = "\n\n".join(map(_operating_point, report.operating_points))
    return f"""## Operating points

{points}

Net benefit weighs cancers found against false alarms. By its estimate, acting on the model is better than treating
everybody and than treating nobody at {better} of the {len(curve.thresholds)} thresholds from {curve.thresholds[0]:g} to
{curve.thresholds[-1]:g} (decision curve in the figure)."""


def _operating_point(one: OperatingPoint) -> str:
    heads = ["if so many are malignant", "PPV", "95 % interval", "NPV", "95 % interval"]
    rows = [[format_percent(at.prevalence, 0), *_percent(at.ppv), *_percent(at.npv)] for at in one.at_prevalences]
    cost = f"{one.cost_ratio} false alarm{'' if one.cost_ratio == 1 else 's'}"
    return f"""**Malignant from {one.threshold:g}**: a missed cancer counts as much as {cost}. As means over the
repeats, {one.true_positives:.1f} malignant masses are found and {one.false_negatives:.1f} missed; of the benign ones
{one.false_positives:.1f} are false alarms and {one.true_negatives:.1f} are called benign. Sensitivity
{_in_words(one.sensitivity)}, specificity {_in_words(one.specificity)}. Net benefit per patient
{one.net_benefit:.3f}; treating everybody {one.treat_all:.3f},
treating nobody {one.treat_none:g}. With the same kinds of patients in other shares:

{markdown(heads, rows)}"""


def _calibration(found: Calibration) -> str:
    heads = ["predicted", "patients", "mean prediction", "malignant among them", "95 % interval"]
    rows = [
        [
            f"{one.low:.1f} to {one.high:.1f}",
            f"{one.patients:.1f}",
            format_percent(one.predicted),
            format_percent(one.observed),
            format_percent_interval(one.interval),
        ]
        for one in found.reliability
    ]
    large, ratio = found.calibration_in_the_large, found.observed_expected_ratio
    return f"""## Calibration

Slope {found.slope:.2f}: {_slope_in_words(found.slope)}
Calibration-in-the-large {large:.2f} in log odds; 0 is right. Observed
over expected malignant {ratio:.3f}; 1 is right.

{markdown(heads, rows)}"""


def _slope_in_words(slope: Summary) -> str:
    if slope.interval is None or (slope.interval[0] < TOLERABLE_SLOPES[0] and slope.interval[1] > TOLERABLE_SLOPES[1]):
        return "these patients cannot tell whether the probabilities are too extreme or too cautious."
    low, high = slope.interval
    if low > 1:
        return "the probabilities are too cautious, too near to the middle."
    if high < 1:
        return "the probabilities are too extreme."
    return "1 is right and lies within; below 1 the probabilities are too extreme, above 1 too cautious."


def _subgroups(groups: list[Subgroup]) -> str:
    lines = "\n".join(f"- {_subgroup(one)}" for one in groups)
    return f"""## Subgroups

By the size of the nuclei, the patients of each diagnosis in three parts:

{lines}

Of a part with fewer than {patients.FEWEST} patients no rate is given. Other groups (age, ethnicity) cannot be looked
at: the table does not have them."""


def _subgroup(one: Subgroup) -> str:
    kind = "malignant" if one.diagnosis == columns.MALIGNANT else "benign"
    if one.low is None or one.high is None:
        return f"{kind}: a third without patients, because many have the same {one.measurement}."
    which = f"{kind}, {one.measurement} {one.low:.2f} to {one.high:.2f}, {one.patients} patients"
    if one.rate.estimate is None:
        return f"{which}: {one.rate.reason}."
    return f"{which}: {_in_words(one.rate)} are called {kind}."


def _hardest(report: Report) -> str:
    heads = ["id", "diagnosis", "probability of malignancy", "wrong in"]
    rows = markdown(heads, map(_patient, report.hardest_rows)) if report.hardest_rows else ""
    return f"""## The hardest patients

Patients on the wrong side of {THRESHOLD:g} in nearly every one of the {report.provenance.resampling.repeats} repeats:
{len(report.hardest_rows)}. Patients whose recorded diagnosis has an out-of-fold probability below
{patients.SUSPICIOUS:g}: {len(report.label_suspects)}; the label may be wrong, or the patient unlike the others.

{rows}""".rstrip()


def _patient(one: Patient) -> list[str]:
    return [escaped(one.id), one.diagnosis, f"{one.probability:.3f}", f"{one.misclassified} repeats"]


def _coefficients(report: Report) -> str:
    heads = ["measurement", "log odds per sd", "same sign elsewhere", "ROC AUC alone", "sign"]
    rows = [
        [
            one.measurement,
            f"{one.coefficient:+.2f}",
            "not known" if one.sign_stability is None else format_percent(one.sign_stability, 0),
            f"{one.univariate_auc:.2f}",
            "opposes" if one.opposes_univariate else "",
        ]
        for one in report.coefficients
    ]
    return f"""## What the model weighs

A coefficient says what one measurement adds while the others stay as they are, which they never do: they go together.
One marked *opposes* has the other sign than the measurement alone suggests. Where other training patients would nearly
surely give the same sign that is collinearity, where they might not it is noise; in neither case is it biology.

{markdown(heads, rows)}"""


def _limits(report: Report, *, is_known: bool) -> str:
    facts = report.provenance
    learned, of_fold = facts.rows - report.confusion.total, format_percent(1 - 1 / facts.resampling.folds, 0)
    own = """
- One table is one hospital, one microscope and one program. Nothing here says how the model does elsewhere: that takes
  patients from there.
- The measurements start from outlines that somebody drew by hand; another hand draws others.
- The kind of model, its penalty and the thresholds were chosen by people who knew this table."""
    return f"""## Limits

- Cross-validation judges the recipe, of which each model saw {of_fold} of the patients, and not the model in
  `model.json`, which saw {learned} of {facts.rows}. That one was tried on {report.confusion.total} patients only.
- {ABOUT}
- A probability is about patients like these. PPV and NPV hold for this share of malignant masses
  only.{own * is_known}"""


def _risk_of_bias(report: Report, *, is_known: bool) -> str:
    if not is_known:
        return f"""## Risk of bias

PROBAST's questions are about how the patients of this table came into it: {AUTHOR} must answer them."""
    per_predictor = report.sample_size.events_per_predictor
    levels = (guidelines.NO, guidelines.UNLIKELY, guidelines.LIKELY)
    enough = levels[(per_predictor >= FEW) + (per_predictor >= ENOUGH)]
    rows = [
        [one.domain, one.code, one.asks, one.answer or enough, one.why or f"{per_predictor:.1f} events per predictor"]
        for one in guidelines.PROBAST
    ]
    return f"""## Risk of bias

**High**, by PROBAST's own questions: how the patients were chosen is not recorded, benign and malignant were not
confirmed in the same way, nobody knows who was blinded to what, and there was no other hospital to test on.

{markdown(["domain", "", "question", "answer", "why"], rows)}"""


def _citation(*, is_known: bool) -> str:
    whose = CITATION if is_known else f"The table is not that of the UCI repository: {AUTHOR} must say how to cite it."
    return f"## How to cite the data\n\n{whose}"


def _tripod(*, is_known: bool) -> str:
    rows = []
    for one in guidelines.TRIPOD_AI:
        is_open = one.of_uci_only and not is_known
        rows.append([one.code, one.asks, AUTHOR if is_open else one.by, "" if is_open else one.where])
    return f"""## TRIPOD+AI

What the guideline for reporting prediction models asks, and who answers it.

{markdown(["item", "asks for", "answered by", "where, or why not"], rows)}"""


def _provenance(report: Report) -> str:
    facts = report.provenance
    libraries = ", ".join(f"{name} {version}" for name, version in facts.libraries.items())
    settings = ", ".join(f"{name} {value}" for name, value in facts.settings.items())
    return f"""## Provenance

Table `{facts.fingerprint}`. Settings: {settings}. Repeats: {facts.repeats_reason}; seed {facts.resampling.seed}.
Python {facts.python}, {libraries}. All numbers are in `metrics.json`; `docs/metrics.md` defines them."""


def _percent(one: Summary) -> list[str]:
    return [format_percent(one.estimate), format_percent_interval(one.interval)]


def _plain(one: Summary) -> list[str]:
    return [format_score(one.estimate, 3), format_interval(one.interval)]


def _in_words(one: Summary) -> str:
    return f"{format_percent(one.estimate)} ({format_percent_interval(one.interval)})"
