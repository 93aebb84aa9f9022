"""`bcw storage copy`: a run that goes on at another place, whatever stops the way there."""

import dataclasses
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from bcw_assets.assets import GRAPH
from bcw_assets.checks import folders_and_types
from bcw_assets.cli.main import main
from bcw_assets.copying import Copied, copy, run
from bcw_assets.errors import ArtifactError, CopyRefused, ReleaseError, StorageError
from bcw_assets.ml.evaluation.report import Evaluation
from bcw_assets.releases import access, bundle, log, promotion
from bcw_assets.releases.access import open_release
from bcw_assets.releases.candidate import Candidate
from bcw_assets.storage import formats
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests.conftest import STORES, Graph, Place, contents, on_disk_only, once_elsewhere, why, with_all
from bcw_assets_tests.releases.candidates import MEMBERS
from bcw_assets_tests.releases.test_faults import Interrupted, all_is_well

ARTIFACTS, RELEASES, ENTRIES = 5, 2, 3
FILES = 10 + RELEASES * 10 + ENTRIES


@pytest.fixture(scope="session")
def kept(
    tmp_path_factory: pytest.TempPathFactory, made: dict[str, Any], two_releases: dict[str, bytes]
) -> dict[str, bytes]:
    """The files of a run: every artifact, two releases, and a rollback to the first."""
    store = with_all(FolderStore(tmp_path_factory.mktemp("kept")), two_releases)
    for asset, folder in folders_and_types(GRAPH)[0].items():
        name = asset.to_user_string()
        store.write(formats.dump(made[name], f"{folder}/{name}"))
    access.rollback(store, None, "alarms", "me")
    files = contents(store)
    assert len(files) == FILES
    return files


@pytest.fixture(scope="session")
def earlier(kept: dict[str, bytes], challenger: Candidate) -> dict[str, bytes]:
    """The files of the same run when the log had one entry: with another model, and without metrics."""
    gone = ("releases/log/000002.json", "releases/log/000003.json", *formats.keys(Evaluation, "results/metrics"))
    before = {key: content for key, content in kept.items() if key not in gone}
    return before | formats.dump(challenger.model, "results/model")


@pytest.fixture(params=itertools.product(STORES, STORES), ids="-to-".join)
def ends(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Two places, on every pair of kinds of stores."""
    one, other = request.param
    return STORES[one](request)("from"), STORES[other](request)("to")


@pytest.fixture
def source(place: Place, kept: dict[str, bytes]) -> Store:
    """A store with everything."""
    return with_all(open_store(place("from")), kept)


@pytest.fixture
def target(place: Place) -> Store:
    """A store with nothing."""
    return open_store(place("to"))


def test_everything_is_copied_and_the_second_time_nothing(ends: tuple[str, str], kept: dict[str, bytes]) -> None:
    source, target = map(open_store, ends)
    with_all(source, kept)
    done = copy(source, target)
    assert contents(target) == contents(source) == kept
    assert done == Copied(ARTIFACTS, RELEASES, ENTRIES, FILES, done.sizes)
    assert sorted(done.sizes) == sorted(map(len, kept.values()))
    assert copy(source, target) == dataclasses.replace(done, sizes=[])


def test_what_is_not_the_projects_or_not_of_a_release_stays_behind(
    source: Store, target: Store, kept: dict[str, bytes]
) -> None:
    foreign = ("README.md", "data/mine.csv", "results/notes/model.json", "releases/notes.txt", "releases/probe-1234")
    unknown = (
        f"releases/{'0' * 16}/model.json",
        f"releases/{'1' * 16}/manifest.json",
        f"releases/refused/{'1' * 16}.json",
    )
    with_all(source, dict.fromkeys((*foreign, *unknown), b"not to be copied"))
    copy(source, target)
    assert contents(target) == kept


def test_of_the_target_an_earlier_state_is_replaced_and_what_is_not_the_projects_is_left_alone(
    source: Store, target: Store, kept: dict[str, bytes], earlier: dict[str, bytes]
) -> None:
    with_all(target, earlier | {"data/mine.csv": b"mine", "README.md": b"mine"})
    done = copy(source, target)
    assert contents(target) == kept | {"data/mine.csv": b"mine", "README.md": b"mine"}
    assert len(done.sizes) == 2 + 2 + 3  # entries, and two artifacts whole
    assert done.files == FILES


@once_elsewhere("only", ["data/", "releases/"])
def test_artifacts_without_releases_are_copied_and_releases_without_artifacts(
    place: Place, kept: dict[str, bytes], only: str
) -> None:
    part = {key: content for key, content in kept.items() if key.startswith(only)}
    with_all(open_store(place("from")), part)
    told = run(place("from"), place("to"))
    assert contents(open_store(place("to"))) == part
    if only == "data/":
        assert "Artifacts: 2, releases: 0, entries of the log: 0." in told
        assert told.endswith(f"Next: set BCW_STORAGE={place('to')}")
    else:
        assert "Artifacts: 0, releases: 2, entries of the log: 3." in told
        assert told.endswith(f"Next: set BCW_RELEASES={place('to')}")


@on_disk_only
def test_a_run_goes_on_at_the_other_place_and_back(request: pytest.FixtureRequest, graph: Graph) -> None:
    other = graph.at(STORES["s3"](request)("other"))
    graph.prepare()
    run(graph.place, other.place)
    assert other.check("model").success
    assert outcome(other.run()) == ("unchanged", 1)
    assert outcome(other.run(config={"ready_data": {"seed": 7}})) == ("promoted", 2)
    assert all_is_well(other.store) != all_is_well(graph.store)
    run(other.place, graph.place)
    assert contents(graph.store) == contents(other.store)
    assert outcome(graph.run(config={"ready_data": {"seed": 7}})) == ("unchanged", 2)


def outcome(result: dg.ExecuteInProcessResult) -> tuple[object, object]:
    """Return what became of the candidate of a run, and the entry of the log."""
    assert result.success, why(result)
    (made,) = result.asset_materializations_for_node("release")
    return made.metadata["result"].value, made.metadata["sequence"].value


class Watched:
    """A store that does something before each change, which is told the keys."""

    def __init__(self, store: Store, before: Callable[[list[str]], object]) -> None:
        self.store, self.before = store, before

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def create(self, key: str, content: bytes) -> bool:
        self.before([key])
        return self.store.create(key, content)

    def write(self, files: dict[str, bytes]) -> None:
        self.before([*files])
        self.store.write(files)

    def delete(self, key: str) -> None:
        self.before([key])
        self.store.delete(key)


def watched(store: Store, before: Callable[[list[str]], object]) -> Any:
    return Watched(store, before)


def before(key: str, act: Callable[[], object]) -> Callable[[list[str]], object]:
    """Return what acts before a change of this key."""
    return lambda keys: act() if key in keys else None


class Torn(Interrupted):
    """A store that stops in the middle of its n-th change: of several files that are written, one is stored."""

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name in ("create", "write", "delete") else getattr(self.store, name)

    def write(self, files: dict[str, bytes]) -> None:
        if self.count + 1 == self.number:
            self.store.write(dict([*files.items()][:1]))
        self.__getattr__("write")(files)


class Stopped(Exception):
    pass


def stop() -> None:
    raise Stopped


def without_probes(store: Store) -> dict[str, bytes]:
    """Return what is stored, but for what a stopped test of the store itself left."""
    return {key: content for key, content in contents(store).items() if not key.startswith("releases/probe-")}


@pytest.mark.parametrize("has_earlier", [False, True])
def test_a_copy_stopped_at_any_change_leaves_a_champion_and_the_next_one_does_the_rest(
    tmp_path: Path, kept: dict[str, bytes], earlier: dict[str, bytes], candidate: Candidate, challenger: Candidate,
    monkeypatch: pytest.MonkeyPatch, has_earlier: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what a process wrote is there after its end without it
    source, champions = with_all(FolderStore(tmp_path / "from"), kept), []
    for number in itertools.count(1):
        target = with_all(FolderStore(tmp_path / str(number)), earlier if has_earlier else {})
        stopped: Any = Torn(target, number, "before", stop)
        try:
            copy(source, stopped)
        except Stopped:
            champions.append(all_is_well(target))
            there = [key for key in kept if target.exists(key) and target.read(key) == kept[key]]
            copied = len(copy(source, target).sizes)
            assert FILES - len(there) <= copied <= FILES - len(there) + 2  # of a torn artifact all files
            assert without_probes(target) == kept
        else:
            assert contents(target) == kept
            break
    order = [candidate.id, challenger.id]  # and the candidate again by the last change of all
    assert [one for one, _ in itertools.groupby(champions)] == (order if has_earlier else [None, *order])
    assert len(champions) == RELEASES * 10 + ENTRIES + (2 if has_earlier else 3 + ARTIFACTS)


def test_the_log_is_copied_last_and_a_manifest_behind_its_files(source: Store, target: Store) -> None:
    order: list[str] = []
    copy(source, watched(target, order.extend))
    names = [key.rpartition("/")[2] for key in order if "probe" not in key]
    assert names[:20] == [*MEMBERS, bundle.MANIFEST] * 2
    assert names[-3:] == ["000001.json", "000002.json", "000003.json"]


def damaged(what: bytes) -> Callable[[Store, str], None]:
    return lambda store, key: store.write({key: what})


def gone(store: Store, key: str) -> None:
    store.delete(key)


@once_elsewhere(
    "key,change,says",
    [
        ("releases/{challenger}/model.onnx", damaged(b"other"), "{key} has 5 bytes, not .*Put the files back from a"),
        ("releases/{challenger}/MODEL_CARD.md", gone, "{key} is missing"),
        ("releases/{challenger}/manifest.json", gone, "{key} is missing, so the bundle is unfinished"),
        ("releases/log/000002.json", damaged(b"{{}}"), "{key} cannot be read .*let a run go past it: bcw refresh"),
        ("releases/log/000002.json", gone, "{key} is missing, and 000003.json is there: nobody .*from/releases"),
        ("releases/log/000003.json", damaged(b""), "{key} cannot be read"),
        ("releases/log/notes.txt", damaged(b""), "{key} is no entry of the log and .*move away what does not belong"),
        ("results/metrics.json", damaged(b"{{}}"), "metrics is damaged: .*To make it: dagster .* --select metrics"),
        ("results/model.pkl", damaged(b""), "model is damaged: model.pkl and model.json are not of one run"),
        ("data/ready_data.json", gone, "ready_data .* is not whole: {key} is not in .*To make it: .* ready_data"),
    ],
)
def test_what_is_damaged_is_named_and_nothing_is_copied(
    source: Store, target: Store, challenger: Candidate, key: str, change: Callable[[Store, str], None], says: str
) -> None:
    key = key.format(challenger=challenger.id)
    change(source, key)
    with pytest.raises((ReleaseError, ArtifactError), match=says.format(key=re.escape(key))):
        copy(source, target)
    assert target.list("") == []


def test_damage_of_the_log_that_a_run_went_past_is_copied_as_it_is_and_comes_back(
    source: Store, target: Store, challenger: Candidate
) -> None:
    source.write({"releases/log/000002.json": b"cut", "releases/log/notes.txt": b"a stray"})
    source.delete("releases/log/000001.json")
    promotion.promote(source, challenger, [], "past the damage")
    with pytest.raises(Stopped):
        copy(source, watched(target, before("releases/log/000004.json", stop)))
    copy(source, target)
    assert "releases/log/notes.txt" not in target.list("")
    found = log.read(target)
    assert list(found.damage) == ["000001.json", "000002.json"]
    assert (found.unknown_damage, open_release(target, None).id) == ({}, challenger.id)
    access.rollback(target, None, "goes on here", "me")
    assert len(copy(target, source).sizes) == 1
    assert log.read(source).files == log.read(target).files


def test_two_places_that_are_one_are_refused(
    tmp_path: Path, kept: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_all(FolderStore(tmp_path / "store"), kept)
    (tmp_path / "link").symlink_to("store")
    for other in ("store", "store/", "./store", "link", f"{tmp_path}/x/../store"):
        with pytest.raises(
            CopyRefused, match=rf"FROM and TO are one place: both have {tmp_path}/store/releases\. Give"
        ):
            run(str(tmp_path / "store"), other)
    done = CliRunner().invoke(main, ["storage", "copy", "store", "./store/"])
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("Failed: FROM and TO are one place")
    with pytest.raises(CopyRefused, match="one place: both have s3://bucket/prefix/releases"):
        run("s3://bucket/prefix", "s3://bucket/prefix/")
    for one, other in (("", "/releases/log"), ("/data", "")):
        with pytest.raises(CopyRefused, match=r"One place is within s3://bucket/prefix/\w+ of the other\. Give"):
            run(f"s3://bucket/prefix{one}", f"s3://bucket/prefix{other}")


def test_a_place_with_nothing_to_copy_is_refused_and_what_was_looked_for_is_said(place: Place) -> None:
    source = with_all(open_store(place("from")), {"data/mine.csv": b"", f"releases/{'0' * 16}/model.json": b""})
    with pytest.raises(CopyRefused, match=r"There is nothing to copy in FROM\. Looked for ") as refused:
        run(place("from"), place("to"))
    for key in ("data/raw_data.csv", "data/ready_data.json", "results/metrics.json", "releases"):
        assert source.address(key) in str(refused.value)


def test_what_is_no_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"allowed is the path of a folder, or s3://bucket/prefix, not 'gs://x'"):
        run(str(tmp_path), "gs://x")


@once_elsewhere("number", [1, 2])
def test_another_log_is_refused_by_the_first_entry_that_differs(
    source: Store, target: Store, kept: dict[str, bytes], earlier: dict[str, bytes], challenger: Candidate, number: int
) -> None:
    if number == 2:
        with_all(target, earlier)
    promotion.promote(target, challenger, [], "a run at the other place")
    before = contents(target)
    for one, other in ((source, target), (target, source)):
        with pytest.raises(CopyRefused, match=rf"another log than .*: releases/log/00000{number}\.json is the first"):
            copy(one, other)
    assert (contents(target), contents(source)) == (before, kept)


@once_elsewhere("entries", [0, 1])
def test_a_target_that_is_ahead_is_refused_with_the_way_round(
    source: Store, target: Store, kept: dict[str, bytes], earlier: dict[str, bytes], entries: int
) -> None:
    left = ("data/", "releases/") if entries else ("data/",)
    with_all(target, {key: content for key, content in earlier.items() if key.startswith(left)})
    says = (
        rf"from/releases is ahead of .*to/releases: its log has 3 entries, and only the first {entries} are in FROM\. "
    )
    with pytest.raises(CopyRefused, match=says + "Copy the other way, with FROM and TO exchanged"):
        copy(target, source)
    assert contents(source) == kept


def test_an_artifact_without_a_log_is_not_replaced_and_once_it_is_moved_away_all_is_copied(
    source: Store, target: Store, kept: dict[str, bytes]
) -> None:
    other = {"results/model.json": b"somebody's", "data/raw_data.csv": kept["data/raw_data.csv"]}
    with_all(target, other)
    with pytest.raises(CopyRefused, match=r"/to/results/model\.json is another than in FROM, and no log .*Move it"):
        copy(source, target)
    assert contents(target) == other
    target.delete("results/model.json")
    copy(source, target)
    assert contents(target) == kept


def test_damage_of_the_targets_log_is_named_and_nothing_is_copied(source: Store, target: Store) -> None:
    target.write({"releases/log/notes.txt": b"a stray"})
    with pytest.raises(ReleaseError, match=r"releases/log/notes\.txt is no entry .*to/releases .*move away"):
        copy(source, target)
    assert target.list("") == ["releases/log/notes.txt"]


def test_a_remnant_with_other_bytes_is_named_and_once_it_is_moved_away_all_is_copied(
    source: Store, target: Store, kept: dict[str, bytes], challenger: Candidate
) -> None:
    key = bundle.key(challenger.id, "model.json")
    target.write({key: b"of another machine"})
    with pytest.raises(CopyRefused, match=rf"/to/{key} is there with other bytes than in FROM\. .*move it away"):
        copy(source, target)
    assert target.read(key) == b"of another machine"
    assert target.list(log.FOLDER) == []
    target.delete(key)
    copy(source, target)
    assert contents(target) == kept


def test_another_writer_of_the_targets_log_is_noticed(source: Store, target: Store) -> None:
    def another() -> None:
        access.rollback(target, None, "meanwhile", "somebody else")

    with pytest.raises(
        CopyRefused, match=r"/to/releases/log/000003\.json is there with other bytes .*wait for its end"
    ):
        copy(source, watched(target, before("releases/log/000003.json", another)))
    assert log.read(target).last.run == "somebody else"


def test_another_writer_who_is_faster_at_the_end_is_noticed(
    source: Store, target: Store, challenger: Candidate
) -> None:
    class Overtaken(Watched):
        def list(self, prefix: str) -> list[str]:
            if prefix == log.FOLDER and self.store.list(prefix)[-1:] == ["releases/log/000003.json"]:
                access.rollback(target, challenger.id, "meanwhile", "somebody else")
            return self.store.list(prefix)

    overtaken: Any = Overtaken(target, lambda keys: None)
    with pytest.raises(CopyRefused, match=r"000004\.json is not what was copied: another process wrote there at the"):
        copy(source, overtaken)


def test_an_artifact_that_was_made_after_the_log_is_not_replaced(
    source: Store, target: Store, kept: dict[str, bytes], earlier: dict[str, bytes]
) -> None:
    newer = kept | {key: earlier[key] for key in ("results/model.pkl", "results/model.json")}
    with_all(target, newer)
    with pytest.raises(CopyRefused, match=r"/to/results/model\.\w+ is another than in FROM, and no log in TO says"):
        copy(source, target)
    assert contents(target) == newer


def test_an_artifact_that_is_not_what_the_history_says_is_not_copied(graph: Graph, place: Place) -> None:
    graph.prepare()
    graph.damage("data/raw_data.csv", b",0.1184,", b",0.1185,")
    target = open_store(place("to"))
    with pytest.raises(ArtifactError, match="raw_data is not what its latest materialisation recorded"):
        copy(graph.store, target, graph.instance)
    assert target.list("") == []


def test_what_is_added_to_the_source_meanwhile_waits_for_the_next_copy(
    source: Store, target: Store, kept: dict[str, bytes], challenger: Candidate
) -> None:
    def another() -> None:
        access.rollback(source, challenger.id, "meanwhile", "somebody else")

    assert copy(source, watched(target, before("releases/log/000001.json", another))).entries == 3
    assert contents(target) == kept
    assert len(copy(source, target).sizes) == 1
    assert log.read(target).last.run == "somebody else"


class Garbling(Watched):
    """A store that loses the last byte of what it is given under one key."""

    def __init__(self, store: Store, key: str) -> None:
        super().__init__(store, lambda keys: None)
        self.key = key

    def create(self, key: str, content: bytes) -> bool:
        return super().create(key, content[:-1] if key == self.key else content)

    def write(self, files: dict[str, bytes]) -> None:
        super().write({key: content[:-1] if key == self.key else content for key, content in files.items()})


@once_elsewhere(
    "key,says",
    [
        ("releases/{candidate}/evaluation.png", "{key} has"),
        ("releases/{candidate}/manifest.json", "{key} cannot be used"),
        ("releases/log/000001.json", "/to/{key} is not what was copied"),
        ("results/model.pkl", "/to/{key} is not what was copied: another process wrote there at the same time"),
    ],
)
def test_what_is_not_read_back_as_it_was_written_is_an_error(
    source: Store, target: Store, candidate: Candidate, challenger: Candidate, key: str, says: str
) -> None:
    key = key.format(candidate=candidate.id, challenger=challenger.id)
    garbling: Any = Garbling(target, key)
    with pytest.raises((ReleaseError, CopyRefused), match=says.format(key=re.escape(key))):
        copy(source, garbling)


def test_a_target_that_lets_a_key_be_created_twice_is_refused_before_anything_is_copied(
    source: Store, target: Store
) -> None:
    class Careless(Watched):
        def create(self, key: str, content: bytes) -> bool:
            self.store.write({key: content})
            return True

    careless: Any = Careless(target, lambda keys: None)
    with pytest.raises(StorageError, match="lets a key be created twice, so no log of releases can be kept there"):
        copy(source, careless)
    assert target.list("") == []


def test_a_release_that_was_pruned_stays_behind_and_where_it_still_is_it_is_left_alone(
    source: Store, place: Place, kept: dict[str, bytes], candidate: Candidate, challenger: Candidate
) -> None:
    assert access.prune(source, 1, "me") == [challenger.id]
    fresh, older = open_store(place("fresh")), with_all(open_store(place("older")), kept)
    assert copy(source, fresh).releases == 1
    assert copy(source, older).releases == 1
    assert (bundle.stored_ids(fresh), all_is_well(fresh)) == ([candidate.id], candidate.id)
    assert contents(older) == kept | contents(fresh)


def test_the_command_says_what_it_did_and_what_to_do_next(graph: Graph, kept: dict[str, bytes]) -> None:
    with_all(FolderStore(graph.folder / "a run"), kept)
    done = graph.process("bcw", "storage", "copy", "a run", graph.place)
    size = f"{sum(map(len, kept.values())):,}"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"Copied {FILES} files ({size} bytes); 0 were there already. Artifacts: 5, releases: 2, entries of the log: 3. "
        f"All were read back and are the same\nNext: set BCW_STORAGE={graph.place}\n"
    )
    assert contents(graph.store) == kept


def test_the_second_time_the_command_says_that_all_was_there_and_quotes_the_place(
    tmp_path: Path, kept: dict[str, bytes]
) -> None:
    with_all(FolderStore(tmp_path / "from"), kept)
    places = (str(tmp_path / "from"), str(tmp_path / "a run"))
    run(*places)
    assert run(*places) == (
        f"Copied 0 files (0 bytes); {FILES} were there already. Artifacts: 5, releases: 2, entries of the log: 3. All "
        f"were read back and are the same\nNext: set BCW_STORAGE='{tmp_path}/a run'"
    )
