"""Who is champion, which one was before, and what was rolled back, by the entries alone."""

from pathlib import Path

import pytest
import yaml

from bcw_assets.errors import ReleaseError
from bcw_assets.releases import log
from bcw_assets.storage.store import Store

HISTORIES = yaml.safe_load(Path(__file__).with_name("histories.yaml").read_text())


def append(store: Store, *steps: str) -> log.Log:
    """Write one entry a step."""
    actions: dict[str, log.Action] = {"<": "rollback", "!": "prune"}
    for step in steps:
        name = step.lstrip("<!")
        release = name[0] * 8 + name[-1] * 8
        action = actions.get(step[0], "promote")
        log.append(store, log.read_log(store), action, (release, "0" * 64), "me", step)
    return log.read_log(store)


@pytest.mark.parametrize(("steps", "way", "rolled_back"), HISTORIES["ways back"])
def test_a_rollback_walks_the_way_back(store: Store, steps: str, way: str, rolled_back: str) -> None:
    current_log = append(store, *steps.split())
    assert "".join(entry.release[-1] for entry in reversed(current_log.list_way_back())) == way[:-1]
    assert {release[-1] for release in current_log.list_rolled_back()} == set(rolled_back)
    assert current_log.require_champion().release[-1] == way[-1]


def test_a_forged_last_number_stops_the_log_until_it_is_moved_away(store: Store) -> None:
    append(store, "a")
    store.create("releases/log/999999.json", b"{}")
    with pytest.raises(ReleaseError, match=r"999999\.json takes the last number there is"):
        append(store, "b")
    store.delete("releases/log/999999.json")
    assert append(store, "b").require_champion().release == "b" * 16


@pytest.mark.parametrize(("steps", "hidden", "doubtful"), HISTORIES["doubts"])
def test_what_damage_may_have_rolled_back_is_in_doubt_until_it_is_back(
    store: Store, steps: str, hidden: int, doubtful: str
) -> None:
    append(store, *steps.split())
    store.write({f"releases/log/00000{hidden}.json": b"cut"})
    current_log = log.read_log(store)
    doubts = [name for name in "abcd" if current_log.find_hidden_entry(name * 8, is_stored=name in "ab")]
    assert "".join(doubts) == doubtful


def test_a_reason_that_would_spoil_the_log_or_a_terminal_is_refused(store: Store) -> None:
    with pytest.raises(ReleaseError, match="allowed is printable text on one line"):
        log.append(store, log.read_log(store), "promote", ("a" * 16, "0" * 64), "me", "\x1b[31m")
    assert store.list("") == []
