"""Who is champion, which one was before, and what was rolled back, by the entries alone."""

from typing import Literal

import pytest

from bcw_assets import documents
from bcw_assets.errors import ReleaseError
from bcw_assets.releases import log
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import once_elsewhere


def write(store: Store, *steps: str) -> log.Log:
    """Write one entry a step: "a" promotes a, "<a" rolls back to a."""
    for step in steps:
        action: Literal["promote", "rollback"] = "rollback" if step.startswith("<") else "promote"
        log.append(store, log.read(store), action, (step[-1] * 16, "0" * 64), "me", step)
    return log.read(store)


def first(store: Store) -> documents.Document:
    """Return the first entry of a log that has no other."""
    write(store, "a")
    return documents.unseal(store.read("releases/log/000001.json"))


@once_elsewhere(
    "steps,way,rolled_back",
    [
        ("a b c", "abc", ""),
        ("a", "a", ""),
        ("a b <a", "a", "b"),
        ("a b c <b <a", "a", "bc"),
        ("a b c <a", "a", "c"),
        ("a b <a c", "ac", "b"),
        ("a b <a b", "ab", ""),
        ("a b <a <b", "ab", "a"),
        ("a a b", "ab", ""),
        ("a b a", "aba", ""),
        ("a b a <b", "ab", "a"),
    ],
)
def test_a_rollback_walks_the_way_back(store: Store, steps: str, way: str, rolled_back: str) -> None:
    found = write(store, *steps.split())
    assert [entry.release for entry in found.champions()] == [one * 16 for one in way]
    assert set(found.rolled_back()) == {one * 16 for one in rolled_back}
    assert found.current().release == way[-1] * 16


@pytest.mark.every_store
def test_entries_are_numbered_chained_and_sealed(store: Store) -> None:
    found = write(store, "a", "b")
    assert store.list("") == ["releases/log/000001.json", "releases/log/000002.json"]
    assert [entry.sequence for entry in found.entries] == [1, 2]
    assert found.entries[1].previous == documents.digest(store.read("releases/log/000001.json"))
    assert documents.unseal(store.read("releases/log/000002.json"))["reason"] == "b"


def test_a_forged_last_number_stops_the_log_until_it_is_moved_away(store: Store) -> None:
    write(store, "a")
    store.create("releases/log/999999.json", b"{}")
    with pytest.raises(ReleaseError, match=r"999999\.json takes the last number there is"):
        write(store, "b")
    store.delete("releases/log/999999.json")
    assert write(store, "b").current().release == "b" * 16


def test_a_first_entry_that_names_one_before_it_is_damaged(store: Store) -> None:
    entry = first(store)
    store.write({"releases/log/000001.json": documents.seal(entry | {"previous": "0" * 64})})
    with pytest.raises(ReleaseError, match=r"000001\.json cannot be read \(it names an entry before it"):
        log.read(store).current()


def test_an_entry_with_a_right_seal_and_wrong_values_is_damaged(store: Store) -> None:
    entry = first(store)
    for name, value in {
        "release": "../../etc",
        "sequence": 0,
        "action": "steal",
        "manifest": "x",
        "gate": None,
    }.items():
        store.write({"releases/log/000001.json": documents.seal(entry | {name: value})})
        said = log.read(store).damage["000001.json"]
        assert f"cannot be read ({name}" in said
        assert "another, perhaps newer, version of bcw_assets wrote it: install the newest" in said


@once_elsewhere("reason", ["two\nlines", "\x1b[31m", "bad \udcff byte"])
def test_a_reason_that_would_spoil_the_log_or_a_terminal_is_refused(store: Store, reason: str) -> None:
    with pytest.raises(ReleaseError, match="allowed is printable text on one line"):
        log.append(store, log.read(store), "promote", ("a" * 16, "0" * 64), "me", reason)
    assert store.list("") == []


def test_a_prune_changes_no_champion_and_keeps_others_from_going_back(store: Store) -> None:
    found = write(store, "a", "b", "c")
    log.append(store, found, "prune", ("c" * 16, "0" * 64), "me", pruned=["a" * 16])
    found = log.read(store)
    assert (found.current().release, [one.release[0] for one in found.champions()]) == ("c" * 16, ["a", "b", "c"])
    assert found.rolled_back() == {}
    with pytest.raises(ReleaseError, match="was deleted by bcw releases prune"):
        found.require(store, "a" * 16)
    assert write(store, "a").pruned() == set()
