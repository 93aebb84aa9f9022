"""A release, killed at every moment, in a full store, beside others that do the same, and beside damaged ones."""

import dataclasses
import multiprocessing
import os
import re
import signal
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any
from unittest import mock

import pytest

from bcw_assets.errors import ReleaseError, ReleaseRefused, StorageError
from bcw_assets.releases import access, bundle, log, promotion
from bcw_assets.releases.access import open_release
from bcw_assets.releases.log import Entry, Overtaken
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests.conftest import STORES, Place, contents, sweep, with_all
from bcw_assets_tests.releases.candidates import MEMBERS, Candidate

BUNDLE = len(MEMBERS) + 1  # files, with the manifest; the first promotion takes three changes for the probe
SWEEP = pytest.mark.sweep
DISK_AND_SWEEP = pytest.mark.parametrize("place", ["disk", pytest.param("s3", marks=SWEEP)], indirect=True)


class Interrupted:
    """A store that does something before its n-th operation of some kinds."""

    def __init__(self, store: Store, number: int, act: Callable[[], object], kinds: tuple[str, ...]) -> None:
        self.store, self.left, self.act, self.kinds = store, number, act, kinds

    def __getattr__(self, name: str) -> Any:
        if name in self.kinds:
            self.left -= 1
            if self.left == 0:
                self.act()
        return getattr(self.store, name)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def require_whole(store: Store) -> str | None:
    """Hold that the log is whole and the champion verifies; return its id."""
    current_log = log.read_log(store)
    assert dict(current_log.damage) == {}
    return open_release(store, None).id if current_log.newest else None


# A kill at a read, or a store that is full at a change, leaves what a kill before the next change leaves.
@pytest.mark.parametrize("has_champion", [True, pytest.param(False, marks=SWEEP)])
@pytest.mark.parametrize(
    ("place", "number"),
    sweep([("disk", 7), *((kind, number) for kind in STORES for number in range(1, 3 + BUNDLE + 2))]),
    indirect=["place"],
)
def test_a_release_killed_at_any_change_leaves_a_champion_and_the_next_run_finishes(
    place: Place, one_release: dict[str, bytes], candidate: Candidate, challenger: Candidate,
    monkeypatch: pytest.MonkeyPatch, has_champion: bool, number: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what a process wrote is there after its end without it
    assert challenger.files  # built once, and not in every child
    store = with_all(open_store(place("store")), one_release if has_champion else {})
    # On a store of its own: both would speak on one connection to the server, and hear each other's answers.
    interrupted = Interrupted(open_store(place("store")), number, kill, ("write", "create", "delete"))
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=promotion.promote, args=(interrupted, challenger, [], "killed"))
    with warnings.catch_warnings():
        # From Python 3.12 on: NumPy's threads are there, and the child uses none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join()
    assert child.exitcode == (-signal.SIGKILL if number <= BUNDLE + 1 + 3 * (not has_champion) else 0)
    assert require_whole(store) in (candidate.id if has_champion else None, challenger.id)
    promotion.promote(store, challenger, [], "again")
    assert require_whole(store) == challenger.id
    assert log.read_log(store).newest == len(bundle.list_ids(store)) == 1 + has_champion


@DISK_AND_SWEEP
@pytest.mark.parametrize("turn", sweep(range(5)))
def test_of_sixteen_that_write_the_log_at_once_each_gets_a_number_of_its_own(place: Place, turn: int) -> None:
    def write(number: int) -> Entry:
        """Append an entry, trying again whenever another was first."""
        store = open_store(place("store"))
        while True:
            with suppress(Overtaken):
                return log.append(store, log.read_log(store), "promote", ("0" * 16, "0" * 64), f"{turn}.{number}")

    with ThreadPoolExecutor(16) as pool:
        entries = list(pool.map(write, range(16)))
    current_log = log.read_log(open_store(place("store")))
    assert (dict(current_log.damage), current_log.newest) == ({}, 16)
    assert list(current_log.entries) == sorted(entries, key=lambda entry: entry.sequence)


@DISK_AND_SWEEP
def test_of_many_promotions_of_two_candidates_at_once_none_is_lost(
    store: Store, candidate: Candidate, challenger: Candidate
) -> None:
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda each: promotion.promote(store, each, [], "run"), [candidate, challenger] * 4))
    current_log = log.read_log(store)
    assert dict(current_log.damage) == {}
    numbers = sorted(entry.sequence for result, entry in outcomes if result == "promoted")
    assert numbers == list(range(1, current_log.newest + 1))
    assert bundle.list_ids(store) == sorted([candidate.id, challenger.id])
    assert [bundle.read_bundle(store, release).problems for release in bundle.list_ids(store)] == [(), ()]


def test_a_rollback_that_another_overtakes_does_nothing_and_says_who_was_first(
    released: Store, candidate: Candidate
) -> None:
    overtake = partial(access.roll_back, released, candidate.id, "first", "somebody else")
    late: Any = Interrupted(released, 1, overtake, ("create",))
    with pytest.raises(
        Overtaken, match=r"000003\.json was written by another run .*by somebody else\)\. Nothing was changed\. "
    ):
        access.roll_back(late, candidate.id, "second", "me")
    assert log.read_log(released).newest == 3


def test_a_store_that_creates_a_key_twice_or_says_that_a_new_key_is_there_is_refused_before_the_first_promotion(
    store: Store, candidate: Candidate
) -> None:
    for answer, says in ((True, "lets a key be created twice"), (False, "says of a new key that it is there")):
        with mock.patch.object(store, "create", return_value=answer), pytest.raises(StorageError, match=says):
            promotion.promote(store, candidate, [], "first")
    assert store.list("") == []


# Machines and damage: who writes other bytes, and who finds other bytes, takes another folder.


def of_another_machine(candidate: Candidate) -> Candidate:
    """Return the candidate as another Python and another linear algebra library may make it."""
    files = dict(candidate.files)
    metrics = files["metrics.json"].replace(b'"python": "3.', b'"python": "4.')
    changed = dataclasses.replace(candidate)
    vars(changed)["files"] = files | {
        "metrics.json": metrics.replace(b"0.9641509433962263", b"0.9641509433962264"),
        "model.json": re.sub(rb"(\d\.\d{13})\d+", rb"\g<1>", files["model.json"]),
    }
    return changed


@pytest.mark.parametrize("is_late", [False, True])
def test_two_machines_whose_last_digits_differ_are_one_release(
    store: Store, candidate: Candidate, is_late: bool
) -> None:
    other = of_another_machine(candidate)
    assert (other.id[:8], other.id == candidate.id) == (candidate.id[:8], False)
    overtake = partial(promotion.promote, store, candidate, [], "first")
    if not is_late:
        overtake()
    late: Any = Interrupted(store, BUNDLE + 2 + is_late, overtake, ("create",))
    result, entry = promotion.promote(late if is_late else store, other, [], "second")
    assert (result, entry.release) == ("unchanged", candidate.id)
    assert bundle.list_ids(store) == sorted([candidate.id, *([other.id] if is_late else [])])
    assert require_whole(store) == candidate.id


DAMAGE: dict[str, Callable[[Store, str], object]] = {
    "a changed file": lambda store, release: store.write({bundle.locate_file(release, "MODEL_CARD.md"): b"damaged"}),
    "a missing file": lambda store, release: store.delete(bundle.locate_file(release, "evaluation.png")),
    "a changed manifest": lambda store, release: store.write({bundle.locate_file(release, bundle.MANIFEST): b"{}"}),
    "a file more": lambda store, release: store.create(bundle.locate_file(release, "more.json"), b"{}"),
    "no entry in the log": lambda store, _: store.delete("releases/log/000001.json"),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_a_damaged_champion_is_made_whole_by_a_run_that_changes_no_byte_of_what_is_there(
    store: Store, candidate: Candidate, one_release: dict[str, bytes], what: str
) -> None:
    with_all(store, one_release)
    DAMAGE[what](store, candidate.id)
    before = contents(store)
    result, entry = promotion.promote(store, candidate, [], "second")
    assert result == "promoted"
    assert require_whole(store) == entry.release
    assert entry.release[:8] == candidate.id[:8]
    after = contents(store)
    assert after.items() >= before.items()
    is_its_own = what in ("a missing file", "no entry in the log")  # the rest of it is unharmed
    assert (entry.release == candidate.id) == is_its_own
    folder = bundle.locate_file(candidate.id, "")
    assert is_its_own or {key for key in after if key.startswith(folder)} <= before.keys()
    assert promotion.promote(store, candidate, [], "third")[0] == "unchanged"


@pytest.mark.parametrize("entry", [1, 2])
def test_a_hole_before_a_rollback_neither_leads_back_nor_lets_in_what_was_rolled_back_from(
    released: Store, challenger: Candidate, entry: int
) -> None:
    access.roll_back(released, None, "alarms", "me")
    released.write({f"releases/log/00000{entry}.json": b"cut"})
    with pytest.raises(ReleaseError, match=rf"has none before it that the log can name \(releases/log/00000{entry}"):
        access.roll_back(released, None, "by mistake", "me")
    with pytest.raises(ReleaseRefused, match="rolled back from"):
        promotion.promote(released, challenger, [], "again")
    assert promotion.promote(released, challenger, [], "again", "it was the cable")[1].sequence == 4
