"""A clean environment, the real table, and a graph in a fresh folder for every test that asks."""

import copy
import os
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import botocore.loaders
import dagster as dg
import pandas as pd
import pytest

from bcw_assets.assets import GRAPH
from bcw_assets.checks import locate_assets
from bcw_assets.ml.evaluation.report import Evaluation, evaluate
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.model.preparation import Split
from bcw_assets.ml.model.resampling import Resampling
from bcw_assets.ml.table import canonical
from bcw_assets.releases import promotion
from bcw_assets.releases.candidate import Candidate
from bcw_assets.report import card, figure
from bcw_assets.settings import Settings
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.io_manager import ArtifactIOManager
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests import programs
from bcw_assets_tests import seaweed as seaweed_server
from bcw_assets_tests.releases.candidates import candidate_of
from bcw_assets_tests.seaweed import Seaweed
from bcw_assets_tests.tables import uci_form

CHECKOUT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("BCW_") or name == "DAGSTER_HOME":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def raw() -> pd.DataFrame:
    """The real table, canonical."""
    return canonical.read_table(uci_form(), "wdbc.data")


@pytest.fixture(scope="session")
def made(raw: pd.DataFrame) -> dict[str, Any]:
    """The value of every asset on the real table, with the settings of the published numbers."""
    ready = preparation.prepare(raw, Split(0.2, 42, stratify=False))
    model = training.train(ready, 1.0)
    predicted = resampling.predict_out_of_fold(raw, model, Resampling(10, 10, 0))
    report = evaluate(raw, ready, model, predicted)
    return {
        "raw_data": raw,
        "ready_data": ready,
        "model": model,
        "cross_validation": predicted,
        "metrics": Evaluation(report, figure.draw(report), card.write(report)),
    }


@pytest.fixture(scope="session")
def candidate(made: dict[str, Any]) -> Candidate:
    """What a refresh of the real table would release."""
    return Candidate(**made)


@pytest.fixture(scope="session")
def challenger(made: dict[str, Any], raw: pd.DataFrame) -> Candidate:
    """The same with another split."""
    return candidate_of(made["metrics"], raw, seed=7)


@pytest.fixture(scope="session")
def one_release(candidate: Candidate) -> dict[str, bytes]:
    """The files of a store in which the candidate was released, to be copied: a release takes three times as long."""
    with TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        promotion.promote(store, candidate, [], f"run of {candidate.id}")
        return contents(store)


@pytest.fixture(scope="session")
def two_releases(one_release: dict[str, bytes], challenger: Candidate) -> dict[str, bytes]:
    """The files of that store after the challenger was released too, which is the champion then."""
    with TemporaryDirectory() as folder:
        store = with_all(FolderStore(Path(folder)), one_release)
        promotion.promote(store, challenger, [], f"run of {challenger.id}")
        return contents(store)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3 server, started when the first test asks for it."""
    if not seaweed_server.WEED.exists():
        assert "REQUIRE_ALL" not in os.environ, "SeaweedFS is needed, and its program is not in the virtual environment"
        pytest.skip("SeaweedFS, the S3 server of the tests, has no program for this platform")
    with seaweed_server.running(tmp_path_factory.mktemp("seaweed") / "data") as server:
        yield server


Place = Callable[[str], str]


def on_disk(request: pytest.FixtureRequest) -> Place:
    folder: Path = request.getfixturevalue("tmp_path")
    return lambda name: str(folder / name)


one_loader = cache(botocore.loaders.create_loader)  # makes the second client of a process in 10 ms, not 80


def on_s3(request: pytest.FixtureRequest) -> Place:
    server: Seaweed = request.getfixturevalue("seaweed")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    server.use(monkeypatch)
    monkeypatch.setattr(botocore.loaders, "create_loader", one_loader)
    fresh = secrets.token_hex(8)
    return lambda name: f"s3://{seaweed_server.BUCKET}/{fresh}/{name}"


STORES = {"disk": on_disk, "s3": on_s3}
"""Every kind of store: a new one is a line here, and all tests that ask for a place run on it too."""


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    """Places for this test alone, by their names, on every kind of store."""
    return STORES[request.param](request)


on_disk_only = pytest.mark.parametrize("place", ["disk"], indirect=True)
"""For a test of what only a disk does, or of what does not depend on the store."""


def once_elsewhere(names: str, values: Sequence[Any]) -> pytest.MarkDecorator:
    """Try every value on a disk, and on other kinds of stores the first alone, which takes the same way there."""
    several = "," in names
    cases = [
        (kind, *(value if several else [value]))
        for kind in STORES
        for value in (values if kind == "disk" else values[:1])
    ]
    return pytest.mark.parametrize(f"place,{names}", cases, indirect=["place"])


@pytest.fixture
def store(place: Place) -> Store:
    """A store with nothing in it, of every kind."""
    return open_store(place("store"))


def contents(store: Store) -> dict[str, bytes]:
    """Return everything that is stored."""
    return {key: store.read(key) for key in store.list("")}


def with_all(store: Store, files: dict[str, bytes]) -> Store:
    """Return the store with these files in it."""
    for key, content in files.items():
        store.write({key: content})
    return store


class Graph:
    """The graph with a folder, a place for what it makes, and a history of its own."""

    def __init__(
        self,
        folder: Path,
        place: str,
        instance: dg.DagsterInstance,
        prepared: "Callable[[], Prepared] | None" = None,
    ) -> None:
        self.folder = folder
        self.place = place
        self.store = open_store(place)
        self.instance = instance
        self.prepared = prepared
        self.source = folder / "wdbc.data"
        self.source.write_bytes(uci_form())

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a process that works on this place, with a history in the folder."""
        own = {"BCW_SOURCE": str(self.source), "BCW_STORAGE": self.place, "DAGSTER_HOME": str(self.home("home"))}
        return dict(os.environ) | own | changes

    def home(self, name: str) -> Path:
        """Return a folder for a history, with the settings of the project."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / ".dagster" / "dagster.yaml", home)
        return home

    def process(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run `bcw`, `dagster` or `dg` in the folder to its end."""
        return programs.run(command, self.environment(**changes), self.folder)

    def python(self, program: str) -> str:
        """Run a program in the folder in a new Python, which has imported nothing yet, and return its output."""
        return subprocess.run(
            [sys.executable, "-c", program],
            env=self.environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def settings(self, **changes: str) -> Settings:
        return Settings.model_validate({"source": str(self.source), "storage": self.place} | changes)

    def run(self, *assets: str, config: dict[str, object] | None = None, **changes: str) -> dg.ExecuteInProcessResult:
        """Materialise the named assets, or all, with their checks; the run may fail.

        The cross-validation takes no time unless its config is given, and no figure is drawn.
        """
        quick = {"cross_validation": {"folds": 5, "repeats": 1}} if not assets or "cross_validation" in assets else {}
        selection = dg.AssetSelection.assets(*assets) if assets else dg.AssetSelection.all()
        with mock.patch.object(figure, "draw", return_value=b"no picture"):
            return self.select(selection, quick | (config or {}), **changes)

    def refresh(self, **changes: str) -> dg.ExecuteInProcessResult:
        """Materialise everything with the defaults of the project; the run may fail."""
        return self.select(dg.AssetSelection.all(), None, **changes)

    def prepare(self) -> None:
        """Have what a quick run of everything leaves, files and history, for tests of something else."""
        assert self.prepared
        self.prepared().put(self)

    def check(self, asset: str) -> dg.ExecuteInProcessResult:
        """Run the checks of one asset on what is stored, as the UI can."""
        return self.select(dg.AssetSelection.checks_for_assets(dg.AssetKey(asset)))

    def artifacts(self) -> ArtifactIOManager:
        """Return what reads and writes the artifacts."""
        return ArtifactIOManager(self.store)

    def places(self) -> dict[dg.AssetKey, str]:
        """Return where every asset is."""
        return locate_assets(GRAPH, self.artifacts(), self.store)

    def select(
        self, selection: dg.AssetSelection, config: dict[str, object] | None = None, **changes: str
    ) -> dg.ExecuteInProcessResult:
        """Run a selection of assets and checks; the run may fail."""
        from bcw_assets.definitions import build_definitions  # reads the environment, which is clean by now

        defs = dg.Definitions.merge(
            build_definitions(self.settings(**changes)),
            dg.Definitions(jobs=[dg.define_asset_job("selected", selection)]),
        )
        return defs.resolve_job_def("selected").execute_in_process(
            instance=self.instance,
            run_config={
                "ops": {name: {"config": values} for name, values in (config or {}).items()},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            raise_on_error=False,
        )

    def at(self, place: str) -> "Graph":
        """Return the graph at another place, with the same history."""
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
        """Replace something in a stored file."""
        content = self.store.read(key)
        assert what in content
        self.store.write({key: content.replace(what, by)})


class Prepared:
    """What a quick run of everything left, to be put elsewhere: a copy takes a twentieth of the run's time."""

    def __init__(self, graph: Graph) -> None:
        assert graph.run().success
        self.place, self.source, self.files = graph.place, str(graph.source), contents(graph.store)
        self.history = ["\n".join(one.iterdump()) for one in databases(graph.instance)]

    def put(self, graph: Graph) -> None:
        """Store the files, and let the history say that they were made where they are now."""
        with_all(graph.store, self.files)
        for text, database in zip(self.history, databases(graph.instance), strict=True):
            with closing(sqlite3.connect(":memory:")) as moved:
                moved.executescript(text.replace(self.place, graph.place).replace(self.source, str(graph.source)))
                moved.backup(database)


def databases(instance: dg.DagsterInstance) -> list[sqlite3.Connection]:
    """Return what an ephemeral instance keeps in memory of runs and of events."""
    storages: list[Any] = [instance.run_storage, instance.event_log_storage]
    return [one._held_conn.connection.driver_connection for one in storages]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("prepared")
    with dg.DagsterInstance.ephemeral() as instance:
        return Prepared(Graph(folder, str(folder / "store"), instance))


@pytest.fixture
def graph(request: pytest.FixtureRequest, tmp_path: Path, place: Place) -> Iterator[Graph]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(tmp_path, place("store"), instance, partial(request.getfixturevalue, "prepared"))


def why(result: dg.ExecuteInProcessResult) -> str:
    """Return what the failed steps of a run say."""
    texts = []
    for event in result.get_step_failure_events():
        failure = event.step_failure_data
        texts.append((failure.user_failure_data and failure.user_failure_data.description) or str(failure.error))
    return "\n".join(texts)


def broken(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], str]:
    """Return the checks that failed: (asset, check) → what it says."""
    return {
        (one.asset_key.to_user_string(), one.check_name): one.description or ""
        for one in result.get_asset_check_evaluations()
        if not one.passed
    }
