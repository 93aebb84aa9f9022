"""Whom the gate lets pass and whom it keeps out, on the real table."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from bcw_assets import documents
from bcw_assets.errors import ReleaseRefused
from bcw_assets.ml.table import columns
from bcw_assets.releases import bundle, gate, log, promotion
from bcw_assets.releases.bundle import Bundle
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import contents, with_all
from bcw_assets_tests.releases.candidates import Candidate, candidate_of, flipped, part

BESIDE = [rule for rule, _ in gate.BESIDE_CHAMPION]


def round_to_float32(raw: pd.DataFrame) -> pd.DataFrame:
    names = columns.MEASUREMENTS
    return raw.astype(dict.fromkeys(names, "float32")).astype(dict.fromkeys(names, "float64"))


def add_patients(raw: pd.DataFrame) -> pd.DataFrame:
    """Return the table with 100 more patients, who are a little larger than known ones."""
    more = part(raw, 100, seed=1)
    more[[name for name in columns.MEASUREMENTS if name.startswith("texture")]] *= 1.001
    return pd.concat([raw, more.assign(id=[f"z{number:03}" for number in range(100)])], ignore_index=True)


@pytest.mark.parametrize(
    ("make", "because"),
    [
        (lambda raw: candidate_of(flipped(raw, 28)), "log loss: "),
        (lambda raw: candidate_of(raw, C=0.0001), "sensitivity beside the champion"),
        (lambda raw: candidate_of(flipped(raw, 7)), "relabelled rows: 7 of 569"),
        (lambda raw: candidate_of(round_to_float32(flipped(raw, 6))), "relabelled rows: 6 of 569"),
    ],
    ids=["wrong labels", "C=0.0001", "relabelled rows", "through float32"],
)
def test_the_gate_keeps_out(
    store: Store, raw: pd.DataFrame, one_release: dict[str, bytes], make: Any, because: str
) -> None:
    worse = make(raw)
    with pytest.raises(ReleaseRefused, match=because) as refusal:
        promotion.promote(with_all(store, one_release), worse, [], "second")
    table = [dict(row) for row in refusal.value.rows]
    assert {row["verdict"] for row in table} >= {"kept", "broken"}
    after = contents(store)
    stored = documents.parse(after.pop(f"releases/refused/{bundle.hash_inputs(worse.inputs)}.json"))["gate"]
    assert [row | {"value": worse.name_patients(row["value"])} for row in stored] == table
    assert after == one_release


def test_a_refusal_names_patients_by_their_ids_and_the_champion_if_there_is_one(
    store: Store, raw: pd.DataFrame, one_release: dict[str, bytes]
) -> None:
    worse = candidate_of(flipped(raw, 7))
    changed = sorted(raw["id"][raw["diagnosis"] != worse.raw_data["diagnosis"]])
    why = rf"relabelled rows: 7 of 569: {', '.join(changed)}\. The champion \w+ stays"
    with pytest.raises(ReleaseRefused, match=why):
        promotion.promote(with_all(store, one_release), worse, [], "second")


def test_a_refusal_without_a_champion_says_what_was_not_judged(store: Store, raw: pd.DataFrame) -> None:
    why = r"not judged: there is no champion before it\. Nothing was released"
    with pytest.raises(ReleaseRefused, match=why):
        promotion.promote(store, candidate_of(raw, C=0.0001), [], "first")


@pytest.mark.parametrize(
    "make", [lambda raw: candidate_of(raw, folds_seed=100), lambda raw: candidate_of(add_patients(raw))]
)
def test_the_gate_lets_pass(store: Store, raw: pd.DataFrame, one_release: dict[str, bytes], make: Any) -> None:
    result, entry = promotion.promote(with_all(store, one_release), make(raw), [], "second")
    assert (result, entry.sequence, entry.reason) == ("promoted", 2, None)
    assert {row["verdict"] for row in entry.gate} == {"kept"}


def test_as_the_first_release_and_beside_few_malignant_patients_in_common_only_floors_count_which_is_said(
    store: Store, raw: pd.DataFrame
) -> None:
    for rows, unjudged, says in ((300, BESIDE, "there is no champion before it"), (569, BESIDE[:2], "fewer than 150")):
        entry = promotion.promote(store, candidate_of(part(raw, rows)), [], "a run", "not needed")[1]
        assert entry.reason is None
        values = {row["rule"]: row["value"] for row in entry.gate if row["verdict"] == "not judged"}
        assert list(values) == unjudged
        assert all(says in value for value in values.values())
        assert gate.find_broken(entry.gate) == []


def test_beside_a_damaged_champion_nothing_passes_but_by_a_reason(
    released: Store, candidate: Candidate, challenger: Candidate
) -> None:
    released.write({f"releases/{challenger.id}/cross_validation.csv": b"damaged"})
    with pytest.raises(
        ReleaseRefused, match=r"cannot be compared with: .*cross_validation\.csv is not .* says \(7 of "
    ):
        promotion.promote(released, candidate, [], "run")
    _, entry = promotion.promote(released, candidate, [], "run", "looked at by hand")
    assert [row["rule"] for row in gate.find_broken(entry.gate)] == BESIDE


def test_a_damaged_champion_against_the_gate_is_made_again_by_the_same_inputs_but_not_with_broken_promises(
    store: Store, raw: pd.DataFrame
) -> None:
    worse = candidate_of(raw, C=0.0001)
    first = promotion.promote(store, worse, [], "first", "for a comparison")[1]
    store.write({bundle.locate_file(first.release, "metrics.json"): b"damaged"})
    with pytest.raises(ReleaseRefused, match="blocking checks: raw_data, invariants: inverted"):
        promotion.promote(store, worse, ["raw_data, invariants: inverted"], "second", "I insist")
    again = promotion.promote(store, worse, [], "second")[1]
    assert (again.reason, again.release[:8]) == ("for a comparison", first.release[:8])
    assert again.release != first.release
    assert [row["rule"] for row in again.gate if row["verdict"] == "not judged"] == BESIDE


def test_a_share_of_exactly_one_percent_relabelled_rows_passes(store: Store, raw: pd.DataFrame) -> None:
    small = part(raw, 300)
    first, changed = (candidate_of(table) for table in (small, flipped(small, 3)))
    table = gate.judge(changed, [], Bundle(first.id, first.files, None, ()), log.read_log(store))
    labels = next(row for row in table if row["rule"] == "relabelled rows")
    assert (labels["verdict"], labels["value"].partition(":")[0]) == ("kept", "3 of 300")
    rows = np.flatnonzero(small[columns.DIAGNOSIS] != changed.raw_data[columns.DIAGNOSIS])
    assert [changed.fingerprints[row][:16] in labels["value"] for row in rows] == [True] * 3
