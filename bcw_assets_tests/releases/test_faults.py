"""A release, killed at every moment, in a full store, beside others that do the same, and beside damaged ones."""

import errno
import os
import re
import shutil
import signal
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from bcw_assets import documents
from bcw_assets.errors import ReleaseError, ReleaseRefused, StorageError
from bcw_assets.releases import access, bundle, log, promotion
from bcw_assets.releases.access import open_release
from bcw_assets.releases.candidate import Candidate
from bcw_assets.releases.log import Overtaken
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests.conftest import STORES, Graph, Place, contents, with_all
from bcw_assets_tests.releases.candidates import MEMBERS

CHANGES = ("write", "create", "delete")
BUNDLE = len(MEMBERS) + 1  # files, with the manifest; the first promotion takes three changes for the probe
SWEEP = pytest.mark.sweep
DISK_AND_SWEEP = pytest.mark.parametrize("place", ["disk", pytest.param("s3", marks=SWEEP)], indirect=True)


class Interrupted:
    """A store that does something before or after its n-th operation of some kinds."""

    def __init__(self, store: Store, number: int, when: str, act: Callable[[], object], kinds: tuple[str, ...]) -> None:
        self.store, self.number, self.when, self.act, self.kinds, self.count = store, number, when, act, kinds, 0

    def __getattr__(self, name: str) -> Any:
        operation: Callable[..., object] = getattr(self.store, name)
        if name not in self.kinds:
            return operation

        def call(*arguments: object) -> object:
            self.count += 1
            if self.count != self.number:
                return operation(*arguments)
            if self.when == "before":
                self.act()
            result = operation(*arguments)
            if self.when == "after":
                self.act()
            return result

        return call


def status_of_child(act: Callable[[], object]) -> int:
    """Do something in a process of its own and return how it ended; its store must not have been used here before.

    Otherwise both would speak on one connection to the server, and hear each other's answers.
    """
    with warnings.catch_warnings():
        # From Python 3.12 on: NumPy's threads are there, and the child uses none of their locks.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fill() -> None:
    raise StorageError(os.strerror(errno.ENOSPC))


def require_whole(store: Store) -> str | None:
    """Hold that the log is whole and the champion verifies; return its id."""
    current_log = log.read_log(store)
    assert dict(current_log.damage) == {}
    return open_release(store, None).id if current_log.newest else None


def each_change(count: int) -> list[Any]:
    """Return (kind of store, number of a change): one in the middle on a disk, all of them in the sweep."""
    cases = [(kind, number) for kind in STORES for number in range(1, count + 1)]
    return [pytest.param(*case, marks=[] if case == ("disk", count // 2) else SWEEP) for case in cases]


# A kill before a change, or at a read, leaves what one after the change before it leaves.
@pytest.mark.parametrize("has_champion", [True, pytest.param(False, marks=SWEEP)])
@pytest.mark.parametrize(("place", "number"), each_change(3 + BUNDLE + 1), indirect=["place"])
def test_a_release_killed_at_any_change_leaves_a_champion_and_the_next_run_finishes(
    place: Place, one_release: dict[str, bytes], candidate: Candidate, challenger: Candidate,
    monkeypatch: pytest.MonkeyPatch, has_champion: bool, number: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what a process wrote is there after its end without it
    assert challenger.files  # built once, and not in every child
    store = with_all(open_store(place("store")), one_release if has_champion else {})
    interrupted: Any = Interrupted(open_store(place("store")), number, "after", kill, CHANGES)
    status = status_of_child(partial(promotion.promote, interrupted, challenger, [], "killed"))
    assert status == (signal.SIGKILL if number <= BUNDLE + 1 + 3 * (not has_champion) else 0)
    assert require_whole(store) in (candidate.id if has_champion else None, challenger.id)
    promotion.promote(store, challenger, [], "again")
    assert require_whole(store) == challenger.id
    assert log.read_log(store).newest == 1 + has_champion
    assert len(bundle.list_ids(store)) == 1 + has_champion


@pytest.mark.parametrize(("place", "number"), each_change(2 + BUNDLE + 1), indirect=["place"])
def test_a_store_that_is_full_at_any_write_loses_nothing_and_the_next_run_finishes(
    store: Store, candidate: Candidate, number: int
) -> None:
    interrupted: Any = Interrupted(store, number, "before", fill, ("write", "create"))
    with pytest.raises(StorageError):
        promotion.promote(interrupted, candidate, [], "full")
    assert require_whole(store) is None
    assert promotion.promote(store, candidate, [], "again").result == "promoted"
    assert require_whole(store) == candidate.id


@DISK_AND_SWEEP
@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=SWEEP)])
def test_of_sixteen_that_write_the_log_at_once_each_gets_a_number_of_its_own(place: Place, rounds: int) -> None:
    texts: list[str] = []

    def write(place: str, run: int) -> None:
        """Append an entry, trying again whenever another was first."""
        store = open_store(place)
        while True:
            try:
                log.append(store, log.read_log(store), "promote", ("0" * 16, "0" * 64), f"run {run}")
            except Overtaken as error:
                texts.append(str(error))
            else:
                return

    for turn in range(rounds):
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(partial(write, place(f"log-{turn}")), range(16)))
        current_log = log.read_log(open_store(place(f"log-{turn}")))
        assert dict(current_log.damage) == {}
        assert [entry.sequence for entry in current_log.entries] == list(range(1, 17))
        assert {entry.run for entry in current_log.entries} == {f"run {run}" for run in range(16)}
    says_who = r"releases/log/\d{6}\.json was written by another run .*promote of 0+ by run \d+"
    assert [text for text in texts if not re.match(says_who, text)] == []


@DISK_AND_SWEEP
def test_of_many_promotions_of_two_candidates_at_once_none_is_lost(
    store: Store, candidate: Candidate, challenger: Candidate
) -> None:
    assert candidate.files
    assert challenger.files
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda each: promotion.promote(store, each, [], "run"), [candidate, challenger] * 4))
    current_log = log.read_log(store)
    assert dict(current_log.damage) == {}
    numbers = sorted(outcome.entry.sequence for outcome in outcomes if outcome.result == "promoted")
    assert numbers == list(range(1, current_log.newest + 1))
    assert bundle.list_ids(store) == sorted([candidate.id, challenger.id])
    assert [bundle.read_bundle(store, release).problems for release in bundle.list_ids(store)] == [(), ()]


def test_a_writer_that_hears_of_its_own_entry_that_it_exists_has_won(store: Store) -> None:
    with mock.patch.object(store, "create", lambda key, content: store.write({key: content})):
        entry = log.append(store, log.read_log(store), "promote", ("0" * 16, "0" * 64), "r", None)
    assert log.read_log(store).entries == (entry,)


def test_a_rollback_that_another_overtakes_does_nothing_and_says_who_was_first(
    released: Store, candidate: Candidate
) -> None:
    def overtake() -> None:
        access.roll_back(released, candidate.id, "first", "somebody else")

    late: Any = Interrupted(released, 1, "before", overtake, ("create",))
    with pytest.raises(Overtaken, match=r"000003\.json was written by another run .*by somebody else\).*nothing was"):
        access.roll_back(late, candidate.id, "second", "me")
    assert log.read_log(released).newest == 3


def test_a_store_that_lets_a_key_be_created_twice_is_refused_before_the_first_promotion(
    store: Store, candidate: Candidate
) -> None:
    says = "lets a key be created twice, so no log of releases can be kept there"
    with mock.patch.object(store, "create", return_value=True), pytest.raises(StorageError, match=says):
        promotion.promote(store, candidate, [], "first")
    assert store.list("") == []


# Machines and damage: who writes other bytes, and who finds other bytes, takes another folder.


def of_another_machine(candidate: Candidate) -> Candidate:
    """Return the candidate as another Python and another linear algebra library may make it."""
    files = dict(candidate.files)
    metrics = files["metrics.json"].replace(b'"python": "3.', b'"python": "4.')
    changed = Candidate(**candidate.values)
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

    def overtake() -> None:
        promotion.promote(store, candidate, [], "first")

    if not is_late:
        overtake()
    late: Any = Interrupted(store, BUNDLE + 2 + is_late, "before", overtake, ("create",))
    outcome = promotion.promote(late if is_late else store, other, [], "second")
    assert (outcome.result, outcome.entry.release) == ("unchanged", candidate.id)
    assert bundle.list_ids(store) == sorted([candidate.id, *([other.id] if is_late else [])])
    assert require_whole(store) == candidate.id


def rewrite_manifest(store: Store, release: str) -> None:
    """Put a bundle there that another version would have written: other files, and a manifest that names them."""
    for key in store.list(bundle.locate_file(release, "")):
        store.delete(key)
    manifest = {"release": release, "schema_version": 9, "forms": ["more.json"]}
    store.create(bundle.locate_file(release, "more.json"), b"{}")
    store.create(bundle.locate_file(release, bundle.MANIFEST), documents.seal(manifest))


DAMAGE: dict[str, Callable[[Store, str], object]] = {
    "a changed file": lambda store, release: store.write({bundle.locate_file(release, "MODEL_CARD.md"): b"damaged"}),
    "a missing file": lambda store, release: store.delete(bundle.locate_file(release, "evaluation.png")),
    "a changed manifest": lambda store, release: store.write({bundle.locate_file(release, bundle.MANIFEST): b"{}"}),
    "a missing manifest": lambda store, release: store.delete(bundle.locate_file(release, bundle.MANIFEST)),
    "a file more": lambda store, release: store.create(bundle.locate_file(release, "more.json"), b"{}"),
    "a bundle of another version": rewrite_manifest,
    "no entry in the log": lambda store, _: store.delete("releases/log/000001.json"),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_a_damaged_champion_is_made_whole_by_a_run_that_changes_no_byte_of_what_is_there(
    store: Store, candidate: Candidate, one_release: dict[str, bytes], what: str
) -> None:
    with_all(store, one_release)
    DAMAGE[what](store, candidate.id)
    before = contents(store)
    outcome = promotion.promote(store, candidate, [], "second")
    assert outcome.result == "promoted"
    assert require_whole(store) == outcome.entry.release
    assert outcome.entry.release[:8] == candidate.id[:8]
    after = contents(store)
    assert {key: after[key] for key in before} == before
    is_its_own = what in ("a missing file", "a missing manifest", "no entry in the log")  # the rest of it is unharmed
    assert (outcome.entry.release == candidate.id) == is_its_own
    folder = bundle.locate_file(candidate.id, "")
    assert is_its_own or {key for key in after if key.startswith(folder)} <= before.keys()
    assert promotion.promote(store, candidate, [], "third").result == "unchanged"


@SWEEP
def test_two_refreshes_of_the_same_inputs_at_once_leave_one_bundle_and_are_both_green(graph: Graph) -> None:
    homes = [str(graph.home(name)) for name in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda home: graph.process("bcw", "refresh", DAGSTER_HOME=home), homes))
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    assert len(bundle.list_ids(graph.store)) == 1
    assert require_whole(graph.store)
    assert log.read_log(graph.store).newest == 1


@pytest.mark.parametrize("entry", [1, 2])
def test_a_hole_before_a_rollback_neither_leads_back_nor_lets_in_what_was_rolled_back_from(
    released: Store, challenger: Candidate, entry: int
) -> None:
    access.roll_back(released, None, "alarms", "me")
    released.write({f"releases/log/00000{entry}.json": b"cut"})
    with pytest.raises(ReleaseError, match="is the first: there is none before it"):
        access.roll_back(released, None, "by mistake", "me")
    with pytest.raises(ReleaseRefused, match="rolled back from"):
        promotion.promote(released, challenger, [], "again")
    assert promotion.promote(released, challenger, [], "again", "it was the cable").entry.sequence == 4


def test_where_damage_hides_all_but_a_prune_its_champion_is_the_champion(tmp_path: Path) -> None:
    past = Path(__file__).parent / "past" / "schema_1"
    store = FolderStore(Path(shutil.copytree(past, tmp_path / "store")))
    for sequence in (1, 2, 3):
        store.write({f"releases/log/00000{sequence}.json": b"cut"})
    store.delete("releases/log/000005.json")
    current_log = log.read_log(store)
    assert current_log.require_champion().release == "9608d4b4ccf0c61d"
