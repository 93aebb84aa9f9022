"""The example of deploy/kubernetes in a namespace of its own, on whatever cluster KUBECONFIG names."""

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from bcw_assets_tests.conftest import BIN, CHECKOUT
from bcw_assets_tests.servers import find_ports, run_server, wait_until
from bcw_assets_tests.stack.conftest import RECEIVER

NAMESPACE = "bcw-test"  # beside an installation of one's own
PASSWORD = "password-of-the-tests"
HASH = "$2a$10$pa4NvWc/FEDx6cxyFrFFDOE/V3K7hp83O9ST9B0LGgBCYA1fdQ1uS"  # caddy hash-password --bcrypt-cost 10
# Everybody in BCW_NOTIFY_URLS: what the pod says is what was told.
TOLD = """
apiVersion: v1
kind: List
items:
  - apiVersion: v1
    kind: Service
    metadata: {name: receiver}
    spec: {selector: {app: receiver}, ports: [{port: 8000, protocol: TCP}]}
  - apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata: {name: receiver}
    spec: {podSelector: {matchLabels: {app: receiver}}, ingress: [{}]}
  - apiVersion: v1
    kind: Pod
    metadata: {name: receiver, labels: {app: receiver}}
    spec:
      enableServiceLinks: false
      containers: [{name: receiver, image: "bcw-assets:local", args: [python, -u, -c, PROGRAM]}]
"""
CODE = "{ repositoriesOrError { ... on RepositoryConnection { nodes { displayMetadata { key value } } } } }"
RUNS = "{ runsOrError { ... on Runs { results { runId status startTime endTime tags { key value } } } } }"
STEPS = """query ($run: ID!) { runOrError(runId: $run) { ... on Run { status stepStats { stepKey status } } } }"""
LAUNCH = """mutation ($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on Error { message } } }"""


@dataclass
class Cluster:
    """A copy of `deploy` with its installation; `url` is the proxy's."""

    folder: Path
    url: str = ""

    @property
    def overlay(self) -> Path:
        return self.folder / "kubernetes" / "example"

    def kubectl(self, *arguments: str, text: str = "", check: bool = True) -> str:
        done = subprocess.run(
            [BIN / "kubectl", "--namespace", NAMESPACE, *arguments],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}\n{done.stderr}"
        return done.stdout + ("" if check else done.stderr)

    def objects(self, kinds: str, *arguments: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kinds, "--output", "json", *arguments))["items"]
        return items

    def set(self, tag: str = "local", **values: str) -> None:
        """Write the overlay with another tag and further settings, apply it, and wait until all is ready."""
        example = yaml.safe_load((CHECKOUT / "deploy/kubernetes/example/kustomization.yaml").read_text())
        example["namespace"] = NAMESPACE
        example["images"][0]["newTag"] = tag
        example["configMapGenerator"][0]["literals"] += [f"{name}={value}" for name, value in values.items()]
        (self.overlay / "kustomization.yaml").write_text(yaml.safe_dump(example))
        is_first = not self.objects("deployments")
        self.kubectl("delete", "job", "migrate", "--ignore-not-found")
        self.apply(self.kubectl("kustomize", str(self.overlay)))
        if not is_first:
            self.kubectl("rollout", "restart", "deployment")
        self.wait()
        wait_until(lambda: f"'bcw-assets:{tag}'" in str(self.ask(CODE)))  # it may know the code of before for a while

    def apply(self, text: str) -> None:
        """Apply manifests, also to a Kubernetes of before 1.21, which had older names for two of our things."""
        version = json.loads(self.kubectl("version", "--output", "json"))["serverVersion"]
        if int(re.sub(r"\D", "", version["minor"])) < 21:
            text = text.replace("policy/v1\n", "policy/v1beta1\n")
            text = re.sub(" *completionMode: .*\n", "", text)
        self.kubectl("apply", "--filename", "-", text=text)

    def wait(self) -> None:
        for name in ("statefulset/postgres", "statefulset/seaweedfs"):
            self.kubectl("rollout", "status", name, "--timeout", "600s")
        self.kubectl("wait", "--for", "condition=complete", "job/migrate", "--timeout", "600s")
        for name in ("code", "webserver", "daemon", "exporter", "proxy"):
            self.kubectl("rollout", "status", f"deployment/{name}", "--timeout", "600s")
        # A web server that was there before the code looks again after some seconds.
        wait_until(lambda: self.ask(CODE)["repositoriesOrError"].get("nodes"))

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the data of the answer, once there is one: what is between us and the web server may be away."""
        answers: list[Any] = []

        def ask_once() -> bool:
            body = {"query": query, "variables": variables}
            try:
                answer = requests.post(f"{self.url}/graphql", json=body, auth=("bcw", PASSWORD), timeout=30)
                answers.append(answer.json()["data"])
            except (requests.RequestException, ValueError, KeyError):
                return False
            return all((answers[-1] or {"": None}).values())  # nothing is selected of an error

        wait_until(ask_once)
        return answers[-1]

    def runs(self) -> dict[str, dict[str, Any]]:
        """Return all runs, the newest first, by their ids, but for clicks that were refused."""
        runs = self.ask(RUNS)["runsOrError"]["results"]
        runs = [run | {"tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in runs]
        return {
            run["runId"]: run
            for run in runs
            if run["status"] != "NOT_STARTED" or "dagster/parent_run_id" in run["tags"]
        }

    def launch(self, job: str = "refresh_job", **selection: Any) -> str:
        """Start a run as a click does, and return its id."""
        selector = {"repositoryLocationName": "bcw_assets", "repositoryName": "__repository__", "jobName": job}
        params = {"selector": selector | selection, "runConfigData": {}}
        answers: list[Any] = []

        def click() -> bool:  # again if need be: the web server has to find out that its connections are gone
            answers.append(self.ask(LAUNCH, params=params)["launchRun"])
            return bool(answers[-1]["__typename"] == "LaunchRunSuccess")

        wait_until(click, 60)
        if answers[1:]:
            print(f"refused before it was accepted: {[answer.get('message', '')[:200] for answer in answers[:-1]]}")
        return str(answers[-1]["run"]["runId"])

    def status(self, run: str) -> str:
        return str(self.ask(STEPS, run=run)["runOrError"]["status"])

    def has_done(self, run: str, step: str) -> bool:
        steps = self.ask(STEPS, run=run)["runOrError"]["stepStats"]
        return any(entry["stepKey"] == step and entry["status"] == "SUCCESS" for entry in steps)

    def is_idle(self) -> bool:
        """Whether every run has ended, and none is about to be tried again."""
        runs = self.runs().values()
        retried = {run["tags"].get("dagster/parent_run_id") for run in runs}
        failed = [run for run in runs if run["status"] == "FAILURE"]
        # Whether there will be another try is said a moment after the failure.
        undecided = [run for run in failed if run["tags"].get("dagster/will_retry", "true") == "true"]
        ended = {"SUCCESS", "FAILURE", "CANCELED"}
        return all(run["runId"] in retried for run in undecided) and {run["status"] for run in runs} <= ended

    def refresh(self) -> str:
        """Run a refresh to its end, and return how it ended."""
        run = self.launch()
        wait_until(lambda: self.status(run) in ("SUCCESS", "FAILURE", "CANCELED"))
        return self.status(run)

    def inside(self, *command: str) -> str:
        return self.kubectl("exec", "deployment/code", "--", *command)

    def releases(self) -> str:
        return self.inside("bcw", "releases", "list")

    def messages(self) -> list[str]:
        return self.kubectl("logs", "receiver").splitlines()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not os.environ.get("KUBECONFIG"):
        pytest.fail("KUBECONFIG names no cluster; the nodes of the one it names need the images, too")
    cluster = Cluster(tmp_path_factory.mktemp("k8s") / "deploy")
    shutil.copytree(CHECKOUT / "deploy", cluster.folder)
    cluster.kubectl("create", "namespace", NAMESPACE)
    try:
        values = {
            name: secrets.token_hex(16) for name in ("POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        }
        for secret, entries in (("bcw", values), ("proxy", {"BCW_USER": "bcw", "BCW_PASSWORD_HASH": HASH})):
            literals = [f"--from-literal={name}={value}" for name, value in entries.items()]
            cluster.kubectl("create", "secret", "generic", secret, *literals)
        cluster.kubectl("apply", "--filename", "-", text=TOLD.replace("PROGRAM", json.dumps(RECEIVER)))
        (port,) = find_ports(1)
        # kubectl ends when the pod behind it does.
        forward = f"until false; do {BIN}/kubectl -n {NAMESPACE} port-forward service/proxy {port}:80; sleep 0.2; done"
        cluster.url = f"http://127.0.0.1:{port}"
        log = tmp_path_factory.mktemp("forward") / "log"
        with run_server(log, ["sh", "-c", forward], os.environ, lambda: None):
            yield cluster
    finally:
        subprocess.run([BIN / "kubectl", "delete", "namespace", NAMESPACE], capture_output=True, check=False)
