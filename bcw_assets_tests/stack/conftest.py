"""One stack for all tests of this folder: the compose file, really started with whatever DOCKER_HOST names."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from bcw_assets_tests.conftest import CHECKOUT
from bcw_assets_tests.servers import find_ports

PROJECT = "bcw-assets-test"  # beside a stack of one's own
NOWHERE = "http://127.0.0.1:9"  # the proxy that every container and every command is told to use
RECEIVER = """
import http.server, json
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(body["title"].replace("\\n", " "), flush=True)
        self.send_response_only(200)
        self.end_headers()
http.server.HTTPServer(("0.0.0.0", 8000), Receiver).serve_forever()
"""


@dataclass
class Stack:
    """A checkout with its stack."""

    folder: Path

    @property
    def settings(self) -> dict[str, str]:
        text = (self.folder / "deploy/stack.env").read_text()
        return dict(re.findall(r"^(\w+)='?(.*?)'?$", text, flags=re.MULTILINE))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.settings['BCW_PORT']}"

    @property
    def login(self) -> tuple[str, str]:
        return self.settings["BCW_USER"], self.settings["BCW_PASSWORD"]

    def set(self, **values: str) -> None:
        """Add lines to the settings; the last of a name counts."""
        with (self.folder / "deploy/stack.env").open("a") as file:
            file.writelines(f"{name}='{value}'\n" for name, value in values.items())

    def make(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return call(["make", "--no-print-directory", *arguments], self.folder, check=check)

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return call(["docker", "compose", "--env-file", "deploy/stack.env", *arguments], self.folder, check=check)

    def inside(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self.compose("exec", "-T", service, *command, check=False)

    def services(self) -> dict[str, dict[str, str]]:
        rows = map(json.loads, self.compose("ps", "--all", "--format", "json").stdout.splitlines())
        return {row["Service"]: row for row in rows}

    def sick(self) -> list[str]:
        return [name for name, row in self.services().items() if name != "migrate" and row["Health"] != "healthy"]

    def ask(self, query: str) -> Any:
        answer = requests.post(f"{self.url}/graphql", json={"query": query}, auth=self.login, timeout=60)
        return answer.json()["data"]

    def runs(self) -> dict[str, str]:
        answer = self.ask("{ runsOrError { ... on Runs { results { runId status } } } }")
        return {run["runId"]: run["status"] for run in answer["runsOrError"]["results"]}

    def releases(self) -> str:
        done = self.inside("code", "bcw", "releases", "list")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def messages(self) -> list[str]:
        return docker("logs", f"{PROJECT}-receiver").splitlines()


def call(command: list[str], folder: Path, *, check: bool) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"COMPOSE_PROJECT_NAME": PROJECT, "http_proxy": NOWHERE},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=1800,
    )  # fmt: skip
    assert not check or done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    monkeypatch = pytest.MonkeyPatch()
    stack = Stack(tmp_path_factory.mktemp("stack"))
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in call(command, CHECKOUT, check=True).stdout.splitlines():
        (stack.folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, stack.folder / name)
    call(["git", "init", "-q"], stack.folder, check=True)
    configuration = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    shutil.copytree(configuration, stack.folder / "docker", ignore=shutil.ignore_patterns("config.json"))
    proxies = {"default": {"httpProxy": NOWHERE, "httpsProxy": NOWHERE}}
    (stack.folder / "docker/config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(stack.folder / "docker"))
    docker("network", "prune", "--force")
    call(["python3", "deploy/stack.py", "settings"], stack.folder, check=True)
    stack.set(BCW_PORT=str(find_ports(1)[0]), COMPOSE_PROFILES="monitoring", BCW_SOURCE="embedded",
              BCW_NOTIFY_URLS="json://receiver:8000", NO_PROXY="receiver", BCW_SCHEDULE_CRON="0 0 1 1 *")  # fmt: skip
    try:
        yield stack
    finally:
        subprocess.run(["docker", "rm", "--force", f"{PROJECT}-receiver"], capture_output=True, check=False)
        stack.make("clean", "FORCE=1", check=False)
        monkeypatch.undo()
