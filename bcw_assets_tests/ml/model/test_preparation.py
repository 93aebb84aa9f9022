"""The split and the standardisation."""

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from bcw_assets.errors import TrainingError
from bcw_assets.ml.model import preparation
from bcw_assets.ml.model.preparation import Split


def test_the_default_split_is_the_published_one_and_a_stratified_one_keeps_the_share(raw: pd.DataFrame) -> None:
    ready = preparation.prepare(raw, Split(0.2, 42, stratify=False))
    _, test = train_test_split(raw["id"], test_size=0.2, random_state=42)
    assert set(ready.rows.loc[ready.rows["split"] == "test", "id"]) == set(test)
    assert (len(test), ready.select_truths("test").sum()) == (114, 43)
    stratified = preparation.prepare(raw, Split(0.2, 42, stratify=True))
    assert [stratified.select_truths(side).sum() for side in ("test", "train")] == [42, 170]


def test_values_are_in_standard_deviations_of_the_training_rows_and_raw_data_stays(raw: pd.DataFrame) -> None:
    before = raw.copy()
    ready = preparation.prepare(raw, Split(0.3, 1, stratify=False))
    train = raw.loc[ready.rows["split"] == "train", "area_worst"]
    by_hand = (raw["area_worst"] - train.mean()) / train.std(ddof=0)
    np.testing.assert_allclose(ready.rows["area_worst"], by_hand, rtol=1e-12)
    pd.testing.assert_frame_equal(raw, before)


@pytest.mark.parametrize(
    ("rows", "split", "says"),
    [
        (10, Split(0.2, 42, stratify=False), "leaves 8 malignant among 8 train rows"),
        (569, Split(0.0001, 42, stratify=False), "leaves 0 malignant among 1 test rows"),
        (569, Split(0.001, 42, stratify=True), "cannot divide 569 rows: The test_size = 1 should be greater or equal"),
    ],
)
def test_a_split_that_lacks_a_diagnosis_on_a_side_is_refused(
    raw: pd.DataFrame, rows: int, split: Split, says: str
) -> None:
    with pytest.raises(TrainingError) as error:
        preparation.prepare(raw.head(rows), split)
    assert says in str(error.value)


@pytest.mark.parametrize("value", [0.1, 1e-320, 1e300], ids=["constant", "nearly 0", "beyond all bounds"])
def test_a_column_that_does_not_vary_within_bounds_is_refused_by_name(raw: pd.DataFrame, value: float) -> None:
    wrong = raw.assign(area_se=np.where(np.arange(len(raw)) % 2, value, 1 if value > 1 else value))
    with pytest.raises(
        TrainingError, match=r"area_se cannot be standardised: .* its variance \S+; allowed are columns"
    ):
        preparation.prepare(wrong, Split(0.2, 42, stratify=False))
