"""A store in which two candidates were released."""

import pytest

from bcw_assets.releases import promotion
from bcw_assets.releases.candidate import Candidate
from bcw_assets.storage.stores import Store


@pytest.fixture
def released(store: Store, candidate: Candidate, challenger: Candidate) -> Store:
    """A store with a champion, the challenger, and the one before it, the candidate."""
    for one in (candidate, challenger):
        promotion.promote(store, one, [], f"run of {one.id}")
    return store
