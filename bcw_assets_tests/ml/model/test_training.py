"""The classifier: its optimum, its recipe, and what it says when there is none."""

import pandas as pd
import pytest

from bcw_assets.errors import TrainingError
from bcw_assets.ml.model import preparation, training
from bcw_assets.ml.model.preparation import Prepared, Split

# Of RECIPE 1 on the published split, in the order of the measurements. When they move, the way of fitting has changed:
# raise training.RECIPE, which makes other releases of the same table, and write the new ones here.
COEFFICIENTS = [
    0.427808844556, 0.393858372623, 0.389475778240, 0.464310620547, 0.066777039455, -0.542163868481,
    0.796779465678, 1.117116689058, -0.235715170718, -0.076664949376, 1.271152001963, -0.188670534443,
    0.609404372093, 0.909832374847, 0.312493448748, -0.686011199232, -0.180826608526, 0.317697458515,
    -0.499972717145, -0.613381462407, 0.878594460789, 1.342239042811, 0.587571479032, 0.846673465039,
    0.549849386175, -0.005148621367, 0.945688848022, 0.773408851731, 1.208525686609, 0.154154458104,
]  # fmt: skip
INTERCEPT = -0.443534002502


@pytest.fixture(scope="session")
def ready(raw: pd.DataFrame) -> Prepared:
    return preparation.prepare(raw, Split(0.2, 42, stratify=False))


def test_the_coefficients_of_the_recipe_are_pinned_to_nine_digits(ready: Prepared) -> None:
    classifier = training.train(ready, 1.0)[training.CLASSIFIER]
    assert training.RECIPE == 1
    assert classifier.coef_[0] == pytest.approx(COEFFICIENTS, rel=1e-9)
    assert classifier.intercept_[0] == pytest.approx(INTERCEPT, rel=1e-9)


def test_a_fit_that_does_not_converge_is_a_training_error(ready: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.SOLVER, "max_iter", 2)
    with pytest.raises(TrainingError, match=r"could not be fitted with C = 1: .*Try a smaller C"):
        training.train(ready, 1.0)
