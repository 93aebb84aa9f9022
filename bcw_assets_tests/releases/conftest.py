"""A store in which two candidates were released."""

import pytest

from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import with_all


@pytest.fixture
def released(store: Store, two_releases: dict[str, bytes]) -> Store:
    """A store with a champion, the challenger, and the one before it, the candidate."""
    return with_all(store, two_releases)
