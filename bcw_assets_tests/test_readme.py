"""README and docs: each kind of command runs and says what is shown, and every other name in them exists."""

import csv
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import click
import dagster as dg
import pandas as pd
import pytest
import yaml
from dagster._cli import create_dagster_cli
from dagster_dg_cli.cli import create_dg_cli

from bcw_assets.assets import ReleaseConfig, ResamplingConfig, SplitConfig, TrainingConfig
from bcw_assets.cli.main import main
from bcw_assets.ml.table import canonical
from bcw_assets.settings import PREFIX, Settings
from bcw_assets.storage.store import open_store
from bcw_assets_tests import programs
from bcw_assets_tests.conftest import CHECKOUT, Graph, contents, with_all
from bcw_assets_tests.seaweed import BUCKET, Seaweed

FIRST = CHECKOUT / "README.md"
PAGES = {path.name: path.read_text() for path in (FIRST, CHECKOUT / "SECURITY.md", *sorted(CHECKOUT.glob("docs/*.md")))}
EVERYTHING = "\n".join(PAGES.values())


def find_blocks(language: str, text: str = EVERYTHING) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


COMMANDS = [line for block in find_blocks("sh") for line in block.splitlines()]
PROGRAMS = [line.partition(".venv/bin/")[2] for line in COMMANDS if ".venv/bin/" in line]
# The last command before an output → what it says, at least.
OUTPUTS = dict(re.findall(r"\.venv/bin/(.*)\n```\n\n```(?:text|csv)\n([^`]*)", EVERYTHING))
OUTPUTS["bcw refresh"] = find_blocks("text")[0]  # which is what `make materialize` runs
# The first command of each kind, which is told by the words before options and paths.
KINDS = {" ".join(takewhile(str.isalpha, line.split())): line for line in [*reversed(PROGRAMS), *OUTPUTS]}
del KINDS["bcw exporter"]  # which runs until it is stopped


@pytest.fixture(scope="session")
def at_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    folder = tmp_path_factory.mktemp("readme")
    graph = Graph(folder, str(folder), dg.DagsterInstance.ephemeral())
    with dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"]) as graph.instance:
        assert graph.run(config={"ready_data": {"seed": 7}, "cross_validation": {}}).success  # the release before
        assert graph.refresh(source="embedded").success
        yield graph


def mask(output: str) -> set[str]:
    """Return the lines of an output without what differs: last digits, sizes, releases, times."""
    different = r"(?<=\.\d{6})\d+|\b[0-9a-f]{16}\b|\b[\d,]+(?= bytes)|\b20\d\d-\S+"
    return {line.rstrip() for line in re.sub(different, "…", output).splitlines()}


@pytest.mark.parametrize("command", sorted({*KINDS.values(), *OUTPUTS}))
def test_each_kind_of_command_runs_and_says_what_is_shown(at_home: Graph, tmp_path: Path, command: str) -> None:
    folder = at_home.folder if command.startswith("bcw ") else CHECKOUT
    environment = at_home.environment(BCW_SOURCE="embedded")
    if "rollback" in command:  # the others need what is rolled back from
        folder = shutil.copytree(at_home.folder, tmp_path / "copy", symlinks=True)
        environment |= {"BCW_STORAGE": str(folder)}
    done = programs.run(shlex.split(command), environment, folder)
    assert done.returncode == 0, done.stderr
    scores = (folder / "scores.csv").read_text() if "scores.csv" in command else ""
    assert mask(OUTPUTS.get(command, "")) <= mask(done.stdout + done.stderr + scores)


def parse(command: str) -> dict[str, Any]:
    name, *words = shlex.split(command)
    make_parser: dict[str, Any] = {"dagster": create_dagster_cli, "dg": create_dg_cli}
    known: click.Command = make_parser.get(name, lambda: main)()
    context = click.Context(known)
    while isinstance(known, click.Group):
        _, subcommand, words = known.resolve_command(context, words)
        assert subcommand, command
        known, context = subcommand, click.Context(subcommand, context)
    return known.make_context(name, words, context.parent).params


def test_what_every_command_names_is_there() -> None:
    from bcw_assets.definitions import build_definitions  # reads the environment, which is clean by now

    defs = build_definitions(Settings())
    assets = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    for options in map(parse, [*PROGRAMS, *(line for line in COMMANDS if line.startswith("bcw "))]):
        selection = options.get("select") or options.get("assets") or "*"
        names = selection.split(",") if isinstance(selection, str) else selection
        assert selection == "*" or set(names) <= assets
        job = defs.resolve_job_def(options.get("job") or options.get("job_name") or "refresh_job")
        assert dg.validate_run_config(job, json.loads(options.get("config_json") or "{}"))


def test_s3_works_as_documented(at_home: Graph, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    home = at_home.home("on-s3")
    (lines,) = find_blocks("ini", PAGES["README.md"])
    assert all(f"{name}=" in lines for name in seaweed.environment)
    own = "".join(f"{name}={value}\n" for name, value in seaweed.environment.items())
    (home / ".env").write_text(lines.replace("my-bucket", BUCKET) + own)  # the last line of a name counts
    with (home / "dagster.yaml").open("a") as file:
        file.write("".join(find_blocks("yaml")).replace("my-bucket", BUCKET))
    seaweed.use(monkeypatch)
    bucket = with_all(open_store(f"s3://{BUCKET}/breast-cancer"), contents(at_home.store))
    predict, *_ = (line.replace("my-bucket", BUCKET) for line in PROGRAMS if "s3://" in line)
    for command in ("bcw releases verify --all", predict, "dagster asset materialize -m bcw_assets --select raw_data"):
        done = programs.run(shlex.split(command), at_home.environment(DAGSTER_HOME=str(home)), home)
        assert done.returncode == 0, done.stderr
    assert len((home / "scores.csv").read_text().splitlines()) == 1 + 569
    assert bucket.list("logs/")


def test_every_target_of_make_is_one() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (CHECKOUT / "Makefile").read_text(), flags=re.MULTILINE))
    names = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", "\n".join(re.findall(r"`([^`\n]+)`", EVERYTHING) + COMMANDS)))
    assert {"materialize", "test"} <= names <= targets


def test_every_link_and_file_is_there(at_home: Graph) -> None:
    for page, text in PAGES.items():
        folder = CHECKOUT if (CHECKOUT / page).exists() else CHECKOUT / "docs"
        for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", text):
            assert (folder / path).exists(), f"{path} in {page}"
            assert not anchor or f"\n## {anchor.replace('-', ' ')}\n" in (folder / path).read_text().lower(), anchor
    places = re.findall(r"`((?:bcw_assets|bcw_assets_tests|bench|deploy|docs)/[\w./]*)`", EVERYTHING)
    assert [name for name in places if not (CHECKOUT / name).exists() and not name.endswith("stack.env")] == []
    assert set(re.findall(r"`((?:data|results)/[\w.]+)`", EVERYTHING)) == set(at_home.files())


def outline(text: str) -> dict[str, list[Any]]:
    """Return what a translation has in common with its original, but for the link from each to the other."""
    block = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"README(\.ru)?\.md", "README", block.sub("", text))
    tables = re.findall(r"(?:^\|.*\n)+", prose, flags=re.MULTILINE)
    return {
        "heading levels": re.findall(r"^#+ ", prose, flags=re.MULTILINE),
        "code blocks": block.findall(text),
        "code in first columns": [
            [re.findall(r"`[^`]+`", row.split("|")[1]) for row in table.splitlines()] for table in tables
        ],
        "links": re.findall(r"\]\(([^)]*)\)", prose),
    }


def test_both_languages_are_in_step_and_short() -> None:
    assert outline((CHECKOUT / "README.ru.md").read_text()) == outline(PAGES["README.md"])
    assert len(PAGES["README.md"].splitlines()) <= 190
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", PAGES["README.md"])
    assert [name for name in pictures if (CHECKOUT / name).stat().st_size > 250_000] == []


def test_the_citation_is_of_this_version_and_of_its_data() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what CFF 1.2.0 asks for
    assert {name: citation[name] for name in ("version", "license")} == {
        name: project[name] for name in ("version", "license")
    }
    assert f"bcw_assets-{citation['version']}-py3-none-any.whl" in PAGES["README.md"]
    assert f"DOI {citation['references'][0]['doi']}" in PAGES["README.md"]


def test_the_check_of_ones_own_finds_a_small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    (function,), (row,) = (find_blocks(language, PAGES["own-table.md"]) for language in ("python", "csv"))
    exec(function, names := {**vars(canonical)})
    monkeypatch.setattr(canonical, "check_size", names["check_size"], raising=False)
    header = (CHECKOUT / "bcw_assets/ml/expectations.csv").read_text().splitlines()[0]
    (fields,) = csv.DictReader([header, row.strip()])
    predicate = resolve_name(f"bcw_assets.ml.{fields['predicate']}")
    assert (fields["asset"], fields["blocking"]) == ("raw_data", "no")
    assert not predicate(rows := pd.DataFrame(index=range(300))).problems
    assert predicate(rows[1:]).problems == ("it has 299 rows; allowed are at least 300",)


def test_the_tables_of_settings_are_those_of_the_code_and_every_variable_is_one() -> None:
    configs = (SplitConfig, TrainingConfig, ResamplingConfig, ReleaseConfig)
    options = [item for config in configs for item in config.model_validate({}).model_dump().items()]
    settings = [(PREFIX + name.upper(), value) for name, value in vars(Settings()).items()]
    row = r"^\| (?:(?:`[a-z_]+` )?\| )?`(\w+)` \| `?([^`|]+?)`? \|"
    assert re.findall(row, PAGES["settings.md"], flags=re.MULTILINE) == [
        (name, "unset" if str(value) in ("", "None") else str(value).lower() if value is False else str(value))
        for name, value in settings + options
    ]
    compose = "".join((CHECKOUT / name).read_text() for name in ("docker-compose.yml", "deploy/proxy/Caddyfile"))
    for name in set(re.findall(rf"\b{PREFIX}\w+", EVERYTHING)) - {"BCW_PASSWORD"} - {name for name, _ in settings}:
        assert re.search(rf"\b{name}:", compose), name


def test_every_messenger_is_one_that_exists() -> None:
    from apprise import Apprise

    urls = re.findall(r"^\| [^|]+ \| `([a-z]+://[^`]+)`", PAGES["operations.md"], flags=re.MULTILINE)
    assert [url.partition("://")[0] for url in urls] == ["slack", "tgram", "workflows", "mailtos", "jsons"]
    assert all(map(Apprise.instantiate, urls))
