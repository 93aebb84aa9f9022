"""A release, killed at every moment, in a full store, and beside others that do the same."""

import errno
import multiprocessing
import os
import re
import signal
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, cast

import pytest

from bcw_assets.errors import BcwError, ReleaseError, StorageError
from bcw_assets.releases import access, bundle, log, promotion
from bcw_assets.releases.access import open_release
from bcw_assets.releases.candidate import Candidate
from bcw_assets.releases.log import Overtaken
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests.conftest import Graph, Place, contents, once_elsewhere, with_all
from bcw_assets_tests.releases.candidates import MEMBERS

OPERATIONS = ("read", "write", "create", "list", "exists", "delete")
CHANGES = ("write", "create", "delete")
BUNDLE = len(MEMBERS) + 1  # files, with the manifest; the first promotion takes three changes for the probe


class Interrupted:
    """A store that does something before or after its n-th operation of some kinds."""

    def __init__(
        self, store: Store, number: int, when: str, act: Callable[[], object], kinds: tuple[str, ...] = OPERATIONS
    ) -> None:
        self.store, self.number, self.when, self.act, self.kinds, self.count = store, number, when, act, kinds, 0

    def __getattr__(self, name: str) -> Any:
        operation: Callable[..., object] = getattr(self.store, name)
        if name not in self.kinds:
            return operation

        def call(*arguments: object) -> object:
            self.count += 1
            is_due = self.count == self.number
            if is_due and self.when == "before":
                self.act()
            result = operation(*arguments)
            if is_due and self.when == "after":
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


def all_is_well(store: Store) -> str | None:
    """Hold that the log is whole and the champion verifies; return its id."""
    found = log.read(store)
    assert dict(found.damage) == {}
    return open_release(store, None).id if found.newest else None


# A kill before a change, or at a read, leaves what one after the change before it leaves.
@pytest.mark.parametrize(("has_champion", "changes"), [(False, 3 + BUNDLE + 1), (True, BUNDLE + 1)])
def test_a_release_killed_at_any_change_leaves_a_champion_and_the_next_run_finishes(
    place: Place, one_release: dict[str, bytes], candidate: Candidate, challenger: Candidate,
    monkeypatch: pytest.MonkeyPatch, has_champion: bool, changes: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what a process wrote is there after its end without it
    assert challenger.files  # built once, and not in every child
    before = candidate.id if has_champion else None
    for number in range(1, 1000):
        copy = with_all(open_store(place(str(number))), one_release if has_champion else {})
        interrupted: Any = Interrupted(open_store(place(str(number))), number, "after", kill, CHANGES)
        ended = status_of_child(partial(promotion.promote, interrupted, challenger, [], "killed"))
        assert all_is_well(copy) in (before, challenger.id)
        promotion.promote(copy, challenger, [], "again")
        assert all_is_well(copy) == challenger.id
        assert log.read(copy).newest == 1 + has_champion
        if ended == 0:
            assert number == changes + 1
            return
        assert ended == signal.SIGKILL


@pytest.mark.parametrize(("what", "changes"), [("rollback", 1), ("prune", 1 + BUNDLE)])
def test_a_rollback_or_a_prune_killed_at_any_change_leaves_a_champion_and_can_be_done_again(
    released: Store, place: Place, candidate: Candidate, challenger: Candidate, what: str, changes: int
) -> None:
    def act(store: Any) -> object:
        return access.rollback(store, None, "why", "me") if what == "rollback" else access.prune(store, 1, "me")

    if what == "prune":
        access.rollback(released, None, "so that the challenger may go", "me")
    before = contents(released)
    for number in range(1, 100):
        store = with_all(open_store(place(str(number))), before)
        interrupted: Any = Interrupted(open_store(place(str(number))), number, "after", kill, CHANGES)
        ended = status_of_child(partial(act, interrupted))
        champion = all_is_well(store)
        assert champion in ((candidate.id, challenger.id) if what == "rollback" else (candidate.id,))
        if champion == challenger.id or what == "prune":
            act(store)
        assert all_is_well(store) == candidate.id
        if ended == 0:
            break
        assert ended == signal.SIGKILL
    assert number == changes + 1
    assert (bundle.stored_ids(store) == [candidate.id]) == (what == "prune")


def test_a_store_that_is_full_at_any_write_loses_nothing_and_the_next_run_finishes(
    place: Place, candidate: Candidate
) -> None:
    def full() -> None:
        raise StorageError(os.strerror(errno.ENOSPC))

    for number in range(1, 1000):
        store = open_store(place(str(number)))
        interrupted: Any = Interrupted(store, number, "before", full, ("write", "create"))
        try:
            promotion.promote(interrupted, candidate, [], "full")
        except StorageError:
            assert all_is_well(store) is None
        else:
            assert number == 2 + BUNDLE + 1 + 1  # probe twice, bundle, log, and none
            return
        assert promotion.promote(store, candidate, [], "again").result == "promoted"
        assert all_is_well(store) == candidate.id


WRITERS = 16
ROUNDS = {"disk": 20, "s3": 5}  # a server takes two seconds for one


class Remembering:
    """A store that reads nothing twice: entries of a log never change, and a server takes its time for each."""

    def __init__(self, store: Store) -> None:
        self.list, self.create, self.address = store.list, store.create, store.address
        self.read = cache(store.read)


def test_of_sixteen_processes_that_write_the_log_at_once_each_gets_a_number_of_its_own(
    request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = ROUNDS[request.node.callspec.params["place"]]
    monkeypatch.setattr(os, "fsync", lambda _: None)  # who is first does not depend on it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks beside NumPy's threads, as above
        context = multiprocessing.get_context("fork")
        all_here, told = context.Barrier(WRITERS + 1, timeout=60), context.SimpleQueue()
        processes = [
            context.Process(target=write_rounds, args=(place("log"), str(one), rounds, all_here, told))
            for one in range(WRITERS)
        ]
        for process in processes:
            process.start()
    store, logs = open_store(place("log")), []
    for _ in range(rounds):
        all_here.wait()
        all_here.wait()
        logs.append(log.read(store))
        for key in store.list(""):
            store.delete(key)
    lost = sum(told.get() for _ in range(WRITERS))
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for found in logs:
        assert dict(found.damage) == {}
        assert [entry.sequence for entry in found.entries] == list(range(1, WRITERS + 1))
        assert sorted(entry.run for entry in found.entries) == sorted(map(str, range(WRITERS)))
    assert lost > rounds  # there were races


def write_rounds(place: str, name: str, rounds: int, all_here: Any, told: Any) -> None:
    """Append one entry a round, trying again whenever another was first and said who it was."""
    lost = 0
    store = open_store(place)  # a fresh one: two processes cannot speak on one connection
    for _ in range(rounds):
        all_here.wait()
        known = cast(Store, Remembering(store))
        while True:
            found = log.read(known)
            try:
                log.append(known, found, "promote", ("0" * 16, "0" * 64), name, None)
                break
            except Overtaken as error:
                says_who = (
                    rf"releases/log/{found.newest + 1:06}\.json was written by another run .*promote of 0+ by \d+"
                )
                lost += bool(re.match(says_who, str(error)))
        all_here.wait()
    told.put(lost)


def test_of_sixteen_promotions_of_two_candidates_at_once_none_is_lost(
    store: Store, candidate: Candidate, challenger: Candidate
) -> None:
    both = [candidate, challenger] * 8
    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(lambda one: promotion.promote(store, one, [], "one of many"), both))
    found = log.read(store)
    assert dict(found.damage) == {}
    assert sorted(one.entry.sequence for one in outcomes if one.result == "promoted") == list(
        range(1, found.newest + 1)
    )
    assert [bundle.read(store, one.id).problems for one in both[:2]] == [(), ()]


def test_a_writer_that_is_told_exists_of_its_own_entry_has_won(store: Store) -> None:
    class Deaf(Interrupted):
        def __getattr__(self, name: str) -> Any:
            operation = getattr(self.store, name)
            return (lambda *arguments: operation(*arguments) and False) if name == "create" else operation

    deaf = Deaf(store, 0, "never", kill)
    entry = log.append(deaf, log.read(store), "promote", ("0" * 16, "0" * 64), "r", None)
    assert log.read(store).entries == (entry,)


def test_a_rollback_that_another_overtakes_does_nothing_and_says_who_was_first(
    released: Store, candidate: Candidate, challenger: Candidate
) -> None:
    def another() -> None:
        access.rollback(released, candidate.id, "first", "somebody else")

    late = Interrupted(released, 0, "before", another)
    late.number = operations(released, lambda store: access.rollback(store, candidate.id, "second", "me"))
    access.rollback(released, challenger.id, "back", "me")
    with pytest.raises(Overtaken, match=r"000005\.json was written by another run .*by somebody else\).*nothing was"):
        access.rollback(late, candidate.id, "second", "me")
    assert log.read(released).newest == 5


def operations(store: Store, act: Callable[[Store], object]) -> int:
    """Return how many operations something takes."""
    counting = Interrupted(store, 0, "never", kill)
    act(counting)
    return counting.count


def test_a_store_that_lets_a_key_be_created_twice_is_refused_before_the_first_promotion(
    store: Store, candidate: Candidate
) -> None:
    class Careless(Interrupted):
        def __getattr__(self, name: str) -> Any:
            return self.create_always if name == "create" else getattr(self.store, name)

        def create_always(self, key: str, content: bytes) -> bool:
            self.store.write({key: content})
            return True

    with pytest.raises(StorageError, match="lets a key be created twice, so no log of releases can be kept there"):
        promotion.promote(cast(Store, Careless(store, 0, "never", kill)), candidate, [], "first")
    assert store.list("") == []


def of_another_machine(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return a bundle's files as another Python and another linear algebra library may make them."""
    metrics = files["metrics.json"].replace(b'"python": "3.', b'"python": "4.')
    return {
        "metrics.json": metrics.replace(b"0.9641509433962263", b"0.9641509433962264"),
        "MODEL_CARD.md": re.sub(rb"pandas\s3\.\d+\.\d+,\s", b"pandas 4.10.11,\n", files["MODEL_CARD.md"]),
        "model.json": re.sub(rb"(\d\.\d{13})\d+", rb"\g<1>", files["model.json"]),
    }


def test_files_of_another_machine_under_the_same_id_are_kept_and_listed(store: Store, candidate: Candidate) -> None:
    theirs = of_another_machine(candidate.files)
    for name, content in theirs.items():
        assert content != candidate.files[name]
        store.create(bundle.key(candidate.id, name), content)
    promotion.promote(store, candidate, [], "first")
    stored = open_release(store, None).files
    assert {name: stored[name] for name in theirs} == theirs


@once_elsewhere("name", [name for name in MEMBERS if name not in (bundle.SUMS, "README.txt")])
def test_a_remnant_that_says_something_else_is_not_released(
    store: Store, candidate: Candidate, challenger: Candidate, name: str
) -> None:
    changed = {"evaluation.png": b"no picture", "MODEL_CARD.md": b"card"}
    for content in (b"garbage", changed.get(name, challenger.files[name])):
        store.write({bundle.key(candidate.id, name): content})
        with pytest.raises(ReleaseError, match=re.escape(name)):
            promotion.promote(store, candidate, [], "first")
        assert log.read(store).newest == 0


def test_a_remnant_of_the_checksums_is_made_anew(store: Store, candidate: Candidate) -> None:
    store.create(bundle.key(candidate.id, bundle.SUMS), b"garbage")
    promotion.promote(store, candidate, [], "first")
    assert all_is_well(store) == candidate.id


def test_a_champion_whose_manifest_is_gone_is_not_certified_anew_with_other_numbers(
    store: Store, candidate: Candidate
) -> None:
    promotion.promote(store, candidate, [], "first")
    for name in (bundle.MANIFEST, bundle.SUMS):
        store.delete(bundle.key(candidate.id, name))
    sensitivity = repr(candidate.report.cross_validation["sensitivity"].estimate).encode()
    better = candidate.files["metrics.json"].replace(sensitivity, b"0.9999999999999999")
    store.write({bundle.key(candidate.id, "metrics.json"): better})
    with pytest.raises(ReleaseError, match=r"metrics\.json was there already and says something else"):
        promotion.promote(store, candidate, [], "second")


def test_behind_a_damaged_newest_entry_the_gate_judges_again(
    released: Store, challenger: Candidate, candidate: Candidate
) -> None:
    access.rollback(released, None, "harmful", "me")
    released.write({"releases/log/000003.json": b"cut"})
    outcome = promotion.promote(released, challenger, [], "next")
    assert (outcome.result, outcome.entry.sequence) == ("promoted", 4)
    assert "log loss beside the champion" in [row["rule"] for row in outcome.entry.gate if row["verdict"] == "kept"]


def test_a_rollback_and_a_prune_at_once_never_leave_a_champion_that_is_deleted(
    released: Store, candidate: Candidate, challenger: Candidate
) -> None:
    access.rollback(released, candidate.id, "so that the challenger may go", "me")

    def back() -> None:
        access.rollback(released, challenger.id, "meanwhile", "somebody else")

    late = Interrupted(released, 0, "before", back)
    late.number = operations_until_create(released)
    with pytest.raises(Overtaken, match="nothing was deleted"):
        access.prune(late, 1, "me")
    assert all_is_well(released) == challenger.id


def operations_until_create(store: Store) -> int:
    """Return the number of the first operation of a prune that would change something."""

    class Stopped(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    counting = Interrupted(store, 0, "never", kill)
    counting.create = stop  # type: ignore[attr-defined]
    with pytest.raises(Stopped):
        access.prune(counting, 1, "me")
    return counting.count + 1


def test_what_is_missing_of_the_champion_is_put_back_by_the_next_run(store: Store, candidate: Candidate) -> None:
    promotion.promote(store, candidate, [], "first")
    store.delete(bundle.key(candidate.id, "MODEL_CARD.md"))
    assert promotion.promote(store, candidate, [], "second").result == "promoted"
    assert all_is_well(store) == candidate.id


def test_what_is_damaged_of_the_champion_is_not_written_over(store: Store, candidate: Candidate) -> None:
    promotion.promote(store, candidate, [], "first")
    store.write({bundle.key(candidate.id, "MODEL_CARD.md"): b"damaged"})
    with pytest.raises(BcwError, match=r"MODEL_CARD\.md was there already and says something else"):
        promotion.promote(store, candidate, [], "second")
    assert store.read(bundle.key(candidate.id, "MODEL_CARD.md")) == b"damaged"


def test_two_refreshes_of_the_same_inputs_at_once_leave_one_bundle_and_are_both_green(graph: Graph) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(
                lambda home: graph.process("bcw", "refresh", DAGSTER_HOME=home),
                (str(graph.home("one")), str(graph.home("two"))),
            )
        )
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    assert len(bundle.stored_ids(graph.store)) == 1
    assert all_is_well(graph.store)
    assert log.read(graph.store).newest == 1
