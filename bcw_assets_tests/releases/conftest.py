"""A second candidate, and a store in which both were released."""

from typing import Any

import pandas as pd
import pytest

from bcw_assets.releases import promotion
from bcw_assets.releases.candidate import Candidate
from bcw_assets.storage.stores import Store
from bcw_assets_tests.releases.candidates import candidate_of


@pytest.fixture(scope="session")
def challenger(made: dict[str, Any], raw: pd.DataFrame) -> Candidate:
    """The real table with another split."""
    return candidate_of(made, raw, seed=7)


@pytest.fixture
def released(store: Store, candidate: Candidate, challenger: Candidate) -> Store:
    """A store with a champion, the challenger, and the one before it, the candidate."""
    for one in (candidate, challenger):
        promotion.promote(store, one, [], f"run of {one.id}", None)
    return store
