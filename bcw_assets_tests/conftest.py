"""A clean environment, the real table, and a graph in a fresh folder for every test that asks."""

import copy
import fcntl
import os
import pickle
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar
from unittest import mock

import botocore.loaders
import dagster as dg
import pandas as pd
import pytest
import requests
from xdist.scheduler import LoadScopeScheduling

from bcw_assets.assets import GRAPH
from bcw_assets.checks import locate_assets
from bcw_assets.ml.evaluation.report import Evaluation, evaluate
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import admission
from bcw_assets.releases import promotion
from bcw_assets.report import card, figure
from bcw_assets.settings import Settings
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.io_manager import ArtifactIOManager
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests import programs
from bcw_assets_tests import seaweed as seaweed_server
from bcw_assets_tests.releases.candidates import Candidate, candidate_of
from bcw_assets_tests.seaweed import Seaweed
from bcw_assets_tests.servers import find_ports, run_server
from bcw_assets_tests.tables import uci_form

ASSETS = ("raw_data", "ready_data", "model", "cross_validation", "metrics")  # but for the release
CHECKOUT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
Value = TypeVar("Value")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("BCW_") or name == "DAGSTER_HOME":
            monkeypatch.delenv(name)


def make_once(folders: pytest.TempPathFactory, name: str, make: Callable[[], Value]) -> Value:
    """Return what the first process of this session that asks makes for all of them."""
    folder = folders.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / f"{name}.pickle").open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if content := file.read():
            value: Value = pickle.loads(content)
            return value
        value = make()
        pickle.dump(value, file)
        return value


@pytest.fixture(scope="session")
def raw() -> pd.DataFrame:
    """The real table, canonical."""
    return admission.read_table(uci_form(), "wdbc.data")


@pytest.fixture(scope="session")
def made(raw: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The value of every asset on the real table, with the settings of the published numbers."""

    def make() -> dict[str, Any]:
        ready = preparation.prepare(raw, Split(0.2, 42, stratify=False))
        model = training.train(ready, 1.0)
        predicted = resampling.predict_out_of_fold(raw, model, Resampling(10, 10, 0))
        report = evaluate(raw, ready, model, predicted)
        metrics = Evaluation(report, figure.draw(report), card.write_card(report))
        return dict(zip(ASSETS, (raw, ready, model, predicted, metrics), strict=True))

    return make_once(tmp_path_factory, "values", make)


@pytest.fixture(scope="session")
def candidate(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """What a refresh of the real table would release."""
    return make_once(tmp_path_factory, "candidate", lambda: pack(Candidate(**made)))


@pytest.fixture(scope="session")
def challenger(raw: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return make_once(tmp_path_factory, "challenger", lambda: pack(candidate_of(raw, seed=7)))


def pack(candidate: Candidate) -> Candidate:
    """Return a candidate that keeps its files: made in another process, the last digits and so the id may differ."""
    assert candidate.id
    return candidate


@pytest.fixture(scope="session")
def one_release(candidate: Candidate, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a store in which the candidate was released, to be copied: a release takes three times as long."""
    return make_once(tmp_path_factory, "one_release", lambda: release_into({}, candidate))


@pytest.fixture(scope="session")
def two_releases(
    one_release: dict[str, bytes], challenger: Candidate, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The files of that store after the challenger was released too, which is the champion then."""
    return make_once(tmp_path_factory, "two_releases", lambda: release_into(one_release, challenger))


def release_into(files: dict[str, bytes], candidate: Candidate) -> dict[str, bytes]:
    with TemporaryDirectory() as folder:
        store = with_all(FolderStore(Path(folder)), files)
        promotion.promote(store, candidate, [], f"run of {candidate.id}")
        return contents(store)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server, started when the first test asks for it."""
    if not seaweed_server.WEED.exists():
        assert "REQUIRE_ALL" not in os.environ, "SeaweedFS is needed, and its program is not in the virtual environment"
        pytest.skip("SeaweedFS, the S3 server of the tests, has no program for this platform")
    with seaweed_server.run_server(tmp_path_factory.mktemp("seaweed") / "data") as server:
        yield server


Place = Callable[[str], str]


def on_disk(request: pytest.FixtureRequest) -> Place:
    folder: Path = request.getfixturevalue("tmp_path")  # here: pytest's fixtures cannot be asked for by threads
    return lambda name: str(folder / name)


load_once = cache(botocore.loaders.create_loader)  # makes the second client of a process in 10 ms, not 80


def on_s3(request: pytest.FixtureRequest) -> Place:
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    request.getfixturevalue("seaweed").use(monkeypatch)
    monkeypatch.setattr(botocore.loaders, "create_loader", load_once)
    fresh = secrets.token_hex(8)
    return lambda name: f"s3://{seaweed_server.BUCKET}/{fresh}/{name}"


STORES = {"disk": on_disk, "s3": on_s3}
"""Every kind of store: a new one is a line here, and all tests that are marked with `every_store` run on it, too."""

SERVERS = {"test_proxy.py", "test_readme.py"}
ON_S3 = {"test_s3.py", "test_history.py"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on every kind of store if storage is its subject."""
    if "place" in metafunc.fixturenames and metafunc.definition.get_closest_marker("every_store"):
        metafunc.parametrize("place", STORES, indirect=True)


class ByServer(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Gives all tests of a server that takes seconds to start to one worker, and other tests to whoever is free.

    xdist_group would say the same; xdist 3.8 writes it where pytest 9.2 does not look.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).name
        return "seaweed" if file in ON_S3 or "[s3" in nodeid else file if file in SERVERS else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServer:
    return ByServer(config, log)


def sweep(cases: Sequence[Any]) -> list[Any]:
    """Return parameters of a test: `make test` tries the first, which stands for its class, `make test-all` all."""
    rest = [case if isinstance(case, tuple) else (case,) for case in cases[1:]]
    return [cases[0], *(pytest.param(*case, marks=pytest.mark.sweep) for case in rest)]


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Places for this test alone, by their names: on disk, unless the test asks for another kind of store."""
    return STORES[getattr(request, "param", "disk")](request)


@pytest.fixture
def store(place: Place) -> Store:
    return open_store(place("store"))


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.read(key) for key in store.list("")}


def with_all(store: Store, files: dict[str, bytes]) -> Store:
    for key, content in files.items():
        store.write({key: content})
    return store


class Graph:
    """The graph with a folder, a place for what it makes, and a history of its own."""

    def __init__(
        self, folder: Path, place: str, instance: dg.DagsterInstance, golden: "Callable[[], Golden] | None" = None
    ) -> None:
        self.folder, self.place, self.store = folder, place, open_store(place)
        self.instance, self.golden = instance, golden
        self.source = folder / "wdbc.data"
        self.source.write_bytes(uci_form())

    def environment(self, **changes: str) -> dict[str, str]:
        own = {"BCW_SOURCE": str(self.source), "BCW_STORAGE": self.place, "DAGSTER_HOME": str(self.home("home"))}
        return dict(os.environ) | own | changes

    def home(self, name: str) -> Path:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / ".dagster" / "dagster.yaml", home)
        return home

    def process(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `bcw`, `dagster` or `dg` in the folder to its end."""
        return programs.run(command, self.environment(**changes), self.folder)

    def python(self, program: str) -> str:
        """Run a program in the folder in a new Python, which has imported nothing yet, and return its output."""
        how: dict[str, Any] = {"env": self.environment(), "cwd": self.folder, "stdin": subprocess.DEVNULL}
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, **how)
        return str(done.stdout)

    def settings(self, **changes: Any) -> Settings:
        return replace(Settings(source=str(self.source), storage=self.place), **changes)

    def run(self, *assets: str, config: dict[str, object] | None = None, **changes: str) -> dg.ExecuteInProcessResult:
        """Materialise the named assets, or all, with their checks; the run may fail.

        The cross-validation has 2 × 2 folds unless its config is given, and no figure is drawn.
        """
        quick = {"cross_validation": {"folds": 2, "repeats": 2}} if not assets or "cross_validation" in assets else {}
        selection = dg.AssetSelection.assets(*assets) if assets else dg.AssetSelection.all()
        with mock.patch.object(figure, "draw", return_value=b"no picture"):
            return self.select(selection, quick | (config or {}), **changes)

    def refresh(self, **changes: str) -> dg.ExecuteInProcessResult:
        """Materialise everything with the defaults of the project; the run may fail."""
        return self.select(dg.AssetSelection.all(), None, **changes)

    def prepare(self) -> None:
        """Have what a quick run of everything leaves, files and history."""
        assert self.golden
        self.golden().put(self)

    def check(self, asset: str) -> dg.ExecuteInProcessResult:
        return self.select(dg.AssetSelection.checks_for_assets(dg.AssetKey(asset)))

    def places(self) -> dict[dg.AssetKey, str]:
        return locate_assets(GRAPH, ArtifactIOManager(self.store), self.store)

    def select(
        self, selection: dg.AssetSelection, config: dict[str, object] | None = None, **changes: str
    ) -> dg.ExecuteInProcessResult:
        from bcw_assets.definitions import build_definitions  # reads the environment, which is clean by now

        job = dg.Definitions(jobs=[dg.define_asset_job("selected", selection)])
        defs = dg.Definitions.merge(build_definitions(self.settings(**changes)), job)
        ops = {name: {"config": values} for name, values in (config or {}).items()}
        run_config = {"ops": ops, "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        return defs.resolve_job_def("selected").execute_in_process(run_config, self.instance, raise_on_error=False)

    def at(self, place: str) -> "Graph":
        other = copy.copy(self)
        other.place, other.store = place, open_store(place)
        return other

    def without_history(self) -> "Graph":
        """Return the same place with a history of its own, which knows of nothing that was made."""
        other = copy.copy(self)
        other.instance = dg.DagsterInstance.ephemeral()
        return other

    def files(self) -> dict[str, bytes]:
        """Return the files of every artifact, by their keys."""
        return {key: self.store.read(key) for folder in ("data/", "results/") for key in self.store.list(folder)}

    def damage(self, key: str, what: bytes, by: bytes) -> None:
        content = self.store.read(key)
        assert what in content
        self.store.write({key: content.replace(what, by)})


class Golden:
    """What a quick run of everything left, to be put elsewhere: a copy takes a thirtieth of the run's time."""

    def __init__(self, graph: Graph) -> None:
        assert graph.run().success
        self.place, self.source, self.files = graph.place, str(graph.source), contents(graph.store)
        self.history = ["\n".join(database.iterdump()) for database in databases(graph.instance)]

    def put(self, graph: Graph) -> None:
        """Store the files, and let the history say that they were made where they are now."""
        with_all(graph.store, self.files)
        for text, database in zip(self.history, databases(graph.instance), strict=True):
            with closing(sqlite3.connect(":memory:")) as moved:
                moved.executescript(text.replace(self.place, graph.place).replace(self.source, str(graph.source)))
                moved.backup(database)


def databases(instance: dg.DagsterInstance) -> list[sqlite3.Connection]:
    storages: list[Any] = [instance.run_storage, instance.event_log_storage]
    return [storage._held_conn.connection.driver_connection for storage in storages]


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Golden:
    def run() -> Golden:
        folder = tmp_path_factory.mktemp("golden")
        with dg.DagsterInstance.ephemeral() as instance:
            return Golden(Graph(folder, str(folder / "store"), instance))

    return make_once(tmp_path_factory, "golden", run)


@pytest.fixture
def graph(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> Iterator[Graph]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(tmp_path, place("store"), instance, partial(request.getfixturevalue, "golden"))


def why(result: dg.ExecuteInProcessResult) -> str:
    """Return what the failed steps of a run say."""
    failures = [event.step_failure_data for event in result.get_step_failure_events()]
    descriptions = [each.user_failure_data and each.user_failure_data.description for each in failures]
    return "\n".join(text or str(failure.error) for text, failure in zip(descriptions, failures, strict=True))


def broken(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], str]:
    """Return the checks that failed: (asset, check) → what it says."""
    checks = [check for check in result.get_asset_check_evaluations() if not check.passed]
    return {(check.asset_key.to_user_string(), check.check_name): check.description or "" for check in checks}


@pytest.fixture
def ui_address(graph: Graph) -> Iterator[str]:
    """The address of the web server that `make dev` starts, with the daemon."""
    (port,) = find_ports(1)
    address, command = f"http://127.0.0.1:{port}", ["make", "--no-print-directory", "-C", str(CHECKOUT), "dev"]
    environment = graph.environment() | {"PORT": str(port)}
    try:
        with run_server(graph.folder / "ui.log", command, environment, lambda: requests.get(f"{address}/server_info")):
            yield address
    finally:  # at SIGTERM the code server waits for calls that are under way
        os.killpg(int((graph.folder / "home" / "dev.lock").read_text()), signal.SIGKILL)
