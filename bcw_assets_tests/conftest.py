"""A clean environment, the real table, and a graph in a fresh folder for every test that asks."""

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pandas as pd
import pytest

from bcw_assets.assets import GRAPH
from bcw_assets.checks import addresses
from bcw_assets.ml import evaluation, preparation, resampling, table, training
from bcw_assets.ml.evaluation import Evaluation
from bcw_assets.ml.preparation import Split
from bcw_assets.ml.resampling import Resampling
from bcw_assets.releases.candidate import Candidate
from bcw_assets.report import card, figure
from bcw_assets.settings import Settings
from bcw_assets.storage.io_manager import ArtifactIOManager
from bcw_assets.storage.stores import LocalStore, Store
from bcw_assets_tests.releases.candidates import candidate_of
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
    return table.read(uci_form(), "wdbc.data")


@pytest.fixture(scope="session")
def made(raw: pd.DataFrame) -> dict[str, Any]:
    """The value of every asset on the real table, with the settings of the published numbers."""
    ready = preparation.prepare(raw, Split(0.2, 42, stratify=False))
    model = training.train(ready, 1.0)
    predicted = resampling.out_of_fold(raw, model, Resampling(10, 10, 0))
    report = evaluation.evaluate(raw, ready, model, predicted)
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


@pytest.fixture(params=["disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A fresh place of every kind of store: a test that asks for it runs on each."""
    return {"disk": lambda: LocalStore(tmp_path / "store")}[request.param]()


class Graph:
    """The graph with a folder and a history of its own."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.folder = folder
        self.instance = instance
        self.source = folder / "wdbc.data"
        self.source.write_bytes(uci_form())

    def environment(self, **changes: str) -> dict[str, str]:
        """Return the environment of a process that works on this folder, with a history beside it."""
        own = {"BCW_SOURCE": str(self.source), "BCW_STORAGE": str(self.folder), "DAGSTER_HOME": str(self.home("home"))}
        return dict(os.environ) | own | changes

    def home(self, name: str) -> Path:
        """Return a folder for a history, with the settings of the project."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / ".dagster" / "dagster.yaml", home)
        return home

    def process(self, *command: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run one of the programs of the virtual environment in the folder to its end."""
        return subprocess.run(
            [BIN / command[0], *command[1:]],
            env=self.environment(**changes),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def settings(self, **changes: str) -> Settings:
        return Settings.model_validate({"source": str(self.source), "storage": str(self.folder)} | changes)

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
        """Make everything once, for tests of something else."""
        assert self.run().success

    def check(self, asset: str) -> dg.ExecuteInProcessResult:
        """Run the checks of one asset on what is stored, as the UI can."""
        return self.select(dg.AssetSelection.checks_for_assets(dg.AssetKey(asset)))

    def artifacts(self) -> ArtifactIOManager:
        """Return what reads and writes the folder."""
        return ArtifactIOManager(LocalStore(self.folder))

    def places(self) -> dict[dg.AssetKey, str]:
        """Return where every asset is."""
        return addresses(GRAPH, self.artifacts(), LocalStore(self.folder))

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

    def without_history(self) -> "Graph":
        """Return the same folder with a history of its own, which knows of nothing that was made."""
        other = copy.copy(self)
        other.instance = dg.DagsterInstance.ephemeral()
        return other

    def files(self) -> dict[str, bytes]:
        """Return every stored file, by its key."""
        found = (path for folder in ("data", "results") for path in (self.folder / folder).rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Graph(tmp_path, instance)


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
