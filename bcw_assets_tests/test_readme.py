"""Every kind of command in the README runs; the options and names of all others, and all other names, are there."""

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest

from bcw_assets.assets import ResamplingConfig, SplitConfig, TrainingConfig
from bcw_assets.cli.main import main
from bcw_assets.ml.evaluation.scores import wilson
from bcw_assets.settings import Settings
from bcw_assets.storage.store import open_store
from bcw_assets_tests import programs
from bcw_assets_tests.conftest import CHECKOUT, Graph, contents, with_all
from bcw_assets_tests.seaweed import BUCKET, Seaweed

README = (CHECKOUT / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL) for line in block.splitlines()]
TARGETS = set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE))


PROGRAMS = [
    command.removeprefix(".venv/bin/")
    for command in COMMANDS
    if not command.startswith("make ") and "s3://" not in command
]
KINDS = {" ".join(takewhile(str.isalpha, command.split())): command for command in reversed(PROGRAMS)}
"""By the words before options and paths: the first command of its kind."""


@pytest.fixture(scope="session")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    """A folder in which everything was made, with a history on disk."""
    folder = tmp_path_factory.mktemp("readme")
    graph = Graph(folder, str(folder), dg.DagsterInstance.ephemeral())
    with dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"]) as graph.instance:
        assert graph.run(config={"ready_data": {"seed": 7}, "cross_validation": {}}).success  # the release before
        assert graph.refresh().success
        yield graph


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_kind_of_command_in_the_readme_runs(at_home: Graph, tmp_path: Path, kind: str) -> None:
    folder, environment = CHECKOUT, at_home.environment()
    if kind.startswith("bcw "):
        folder = at_home.folder  # with all that was made
    if kind == "bcw releases rollback":  # the others need what is rolled back from
        folder = shutil.copytree(at_home.folder, tmp_path / "copy", symlinks=True)
        environment = at_home.environment(BCW_STORAGE=str(folder))
    done = programs.run(shlex.split(KINDS[kind]), environment, folder)
    assert done.returncode == 0, done.stderr
    if kind == "bcw refresh":
        assert re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)[0] in done.stdout


def parse(command: str) -> dict[str, Any]:
    """Return the options of a command of the README, all of which are known."""
    from dagster._cli import create_dagster_cli
    from dagster_dg_cli.cli import create_dg_cli

    groups: dict[str, Callable[[], click.Command]]
    groups = {"bcw": lambda: main, "dagster": create_dagster_cli, "dg": create_dg_cli}
    name, *words = shlex.split(command)
    known = groups[name]()
    context = click.Context(known)
    while isinstance(known, click.Group):
        _, found, words = known.resolve_command(context, words)
        assert found, command
        known, context = found, click.Context(found, context)
    return known.make_context(name, words, context.parent).params


def test_what_every_command_of_the_readme_names_is_there() -> None:
    from bcw_assets.definitions import build_definitions  # reads the environment, which is clean by now

    defs = build_definitions(Settings())
    names = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    for command in PROGRAMS:
        options = parse(command)
        selection = options.get("select") or options.get("assets") or "*"
        assert selection == "*" or set(selection.split(",")) <= names, command
        job = defs.resolve_job_def(options.get("job") or options.get("job_name") or "refresh_job")
        config = options.get("config_json")
        assert dg.validate_run_config(job, json.loads(config) if config else {}), command


def here(text: str) -> str:
    """Return what the README says of a bucket, of the one that there is."""
    return text.replace("my-bucket", BUCKET)


def test_what_the_readme_says_of_s3_works(at_home: Graph, seaweed: Seaweed) -> None:
    (said,) = re.findall(r"```ini\n(.*?)```", README, flags=re.DOTALL)
    for name, value in seaweed.environment.items():
        said, found = re.subn(rf"^{name}=\S+", f"{name}={value}", said, flags=re.MULTILINE)
        assert found == 1
    (predict,) = (here(command) for command in COMMANDS if "s3://" in command)
    env_file = at_home.folder / ".env"
    env_file.write_text(here(said))
    with pytest.MonkeyPatch.context() as patched:
        seaweed.use(patched)
        with_all(open_store(f"s3://{BUCKET}/breast-cancer"), contents(at_home.store))
    try:
        for command in (".venv/bin/bcw releases verify --all", predict):
            done = at_home.process(*shlex.split(command.removeprefix(".venv/bin/")))
            assert done.returncode == 0, done.stderr
    finally:
        env_file.unlink()
    assert len((at_home.folder / "scores.csv").read_text().splitlines()) == 1 + 569


def test_the_logs_of_steps_go_to_the_bucket_as_the_readme_says(
    at_home: Graph, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (said,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    home = at_home.home("logs-on-s3")
    with (home / "dagster.yaml").open("a") as file:
        file.write(here(said))
    done = at_home.process(
        *("dagster", "asset", "materialize", "-m", "bcw_assets", "--select", "raw_data"),
        **seaweed.environment, DAGSTER_HOME=str(home),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seaweed.use(monkeypatch)
    assert open_store(f"s3://{BUCKET}/breast-cancer").list("logs/")


def test_every_target_of_make_in_the_readme_is_one() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(re.findall(r"`([^`\n]+)`", README) + COMMANDS)))
    assert {"materialize", "test", "dev", "clean", "bench"} <= named <= TARGETS


def test_every_file_in_the_readme_is_there() -> None:
    text = README.partition("## Map of files")[2].partition("## From Airflow")[0]
    rows = re.findall(r"^\| (`.*?) \|", text, flags=re.MULTILINE)
    for row in rows:
        first, *others = re.findall(r"`(.*?)`", row)
        folder = CHECKOUT / first.rpartition("/")[0]
        for path in (CHECKOUT / first, *(folder / other for other in others)):
            assert path.exists(), path
    assert len(rows) == 10


def test_the_files_in_the_table_of_assets_are_those_of_a_run(at_home: Graph) -> None:
    named = set(re.findall(r"`((?:data|results)/[\w.]+)`", README))
    assert named <= set(at_home.files()) | {"data/", "results/"}
    assert len(named) >= 6


def test_every_knob_and_its_default_is_in_the_readme() -> None:
    for config in (one.model_validate({}) for one in (SplitConfig, TrainingConfig, ResamplingConfig)):
        for name, value in config.model_dump().items():
            default = "by the rows" if value is None else str(value).lower()
            assert re.search(rf"`{name}`.*{default}", README), name


def test_the_interval_in_the_readme_is_the_recalls() -> None:
    low, high = wilson(41, 43) or [0, 0]
    assert f"from {low:.3f} to {high:.3f}" in README.replace("\n", " ")


def test_every_messenger_in_the_readme_is_one_that_can_be_told() -> None:
    from apprise import Apprise

    urls = re.findall(r"^\| [^|]+ \| `([a-z]+://[^`]+)`", README, flags=re.MULTILINE)
    assert [url.partition("://")[0] for url in urls] == ["slack", "tgram", "workflows", "mailtos", "jsons"]
    assert all(map(Apprise.instantiate, urls))
