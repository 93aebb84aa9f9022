"""Every expectation about every asset, as one table: `checks` makes Dagster's checks of it, the release asks it itself.

A new check is a predicate, beside what it looks at, and a row here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from bcw_assets.ml.evaluation import thresholds
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.table import canonical, rules

FACTS = "facts"


@dataclass(frozen=True)
class Expectation:
    """What is expected of a stored asset; its title is what is true when the check `name` passes.

    The predicate finds what is wrong. It gets the stored values of the assets that its parameters are named after, and
    as `facts` what the asset's latest materialisation recorded. A failure stops what comes after where it is blocking
    (ERROR), and is advice otherwise (WARN).
    """

    asset: str
    name: str
    title: str
    predicate: Callable[..., Findings]
    blocking: bool = True

    @property
    def inputs(self) -> list[str]:
        """The names of what the predicate gets."""
        return list(signature(self.predicate).parameters)


EXPECTATIONS = (
    Expectation("raw_data", "schema",
        "Every patient has an id, a diagnosis and 30 measurements that are numbers, and the rows are sorted by id.",
        canonical.check_schema),
    Expectation("raw_data", "invariants",
        "The measurements of every patient can be those of cell nuclei, no patient and no id is in it twice, and the "
        "diagnoses are M and B and fit the measurements.",
        rules.check_invariants),
    Expectation("raw_data", "plausibility",
        "The patients are like the 569 that are known.", rules.check_plausibility, blocking=False),
    Expectation("raw_data", "source",
        "The table is UCI's, or one that the user named, and no column of it was left out.",
        canonical.check_source, blocking=False),
    Expectation("ready_data", "split",
        "Every patient is either a training row or a test row, and both sides have both diagnoses.",
        preparation.check_split),
    Expectation("ready_data", "scaling",
        "The measurements are standardised by the training rows alone: the model knows nothing of the test rows.",
        preparation.check_scaling),
    Expectation("ready_data", "features",
        "No measurement is the diagnosis, the id or the order of the rows in disguise.", preparation.check_features),
    Expectation("model", "converged",
        "The model is the best that its settings allow on the training rows: the fit was not stopped early.",
        training.check_convergence),
    Expectation("cross_validation", "coverage",
        "Every patient has a probability in every repeat, by a model that was trained without this patient.",
        resampling.check_coverage),
    Expectation("metrics", "beats_always_benign",
        "The model is clearly better than to call every patient benign: its balanced accuracy is at least "
        f"{thresholds.BALANCED_ACCURACY_FLOOR}, and that of calling every patient benign is 0.5.",
        thresholds.check_balanced_accuracy, blocking=False),
    Expectation("metrics", "floors",
        "No cross-validated score misses its floor: a floor is missed when the whole interval lies beyond it.",
        thresholds.check_floors, blocking=False),
    Expectation("metrics", "calibration",
        "The predicted probabilities are neither too extreme nor too cautious: the interval of the calibration slope "
        "overlaps {} to {}.".format(*thresholds.TOLERABLE_SLOPES),
        thresholds.check_calibration, blocking=False),
    Expectation("metrics", "labels",
        f"At most {thresholds.MAX_SUSPECT_SHARE:.0%} of the diagnoses look wrong to models that were trained without "
        "the patient.",
        thresholds.check_labels, blocking=False),
)  # fmt: skip


def find_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what the blocking expectations find in the values of all assets: a release that runs alone checks none."""
    return [
        f"{expectation.asset}, {expectation.name}: {problem}"
        for expectation in EXPECTATIONS
        if expectation.blocking
        for problem in expectation.predicate(**{name: values[name] for name in expectation.inputs}).problems
    ]
