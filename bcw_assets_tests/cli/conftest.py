"""What tests of scoring share."""

from pathlib import Path

import pytest

from bcw_assets.storage.store import open_store
from bcw_assets_tests.conftest import Place, with_all


@pytest.fixture
def places(place: Place, one_release: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Places of which `store` has a release, in a working folder that has nothing."""
    with_all(open_store(place("store")), one_release)
    monkeypatch.setenv("BCW_STORAGE", place("store"))
    monkeypatch.chdir(tmp_path)
    return place
