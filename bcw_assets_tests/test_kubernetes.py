"""What the files for Kubernetes promise, rendered by kubectl; bcw_assets_tests/k8s applies them to a cluster."""

import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient
from kubernetes_validate import ValidationError, utils

from bcw_assets import settings
from bcw_assets_tests.conftest import BIN, CHECKOUT

FOLDER = CHECKOUT / "deploy" / "kubernetes"
RUN_LAUNCHER: Any = K8sRunLauncher  # which has no types
VERSIONS = [f"1.{minor}" for minor in range(31, 38)]
HAVE_A_TOKEN = {"webserver": "dagster", "daemon": "dagster", "migrate": "run", "run": "run"}
OURS = ("code", "webserver", "daemon", "exporter", "migrate", "run", "predict")
REACHED_BY = {
    "proxy": {("anybody", 8080)},
    "webserver": {("proxy", 3000), ("exporter", 3000)},
    "code": {("webserver", 4000), ("daemon", 4000)},
    "exporter": {("namespace monitoring", 9464)},
    "postgres": {(name, 5432) for name in OURS},
    "seaweedfs": {(name, 8333) for name in OURS},
}


def render(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run([BIN / "kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


@functools.cache
def read_manifests() -> list[dict[str, Any]]:
    """Return all that is applied for trying, the Job that scores a folder, and the Job of a run."""
    return [*render(FOLDER / "example"), yaml.safe_load((FOLDER / "predict.yaml").read_text()), make_run()]


def make_run(**tags: Any) -> Any:
    """Return the Job that Dagster makes for a run with these wishes, by the settings that are applied."""
    launcher = yaml.safe_load((FOLDER / "base/dagster.yaml").read_text())["run_launcher"]
    with mock.patch.dict(os.environ, NAMESPACE="bcw"), mock.patch("dagster_k8s.launcher.load_kubernetes_config"):
        config = process_config(resolve_to_config_type(RUN_LAUNCHER.config_type()), launcher["config"])
        made = RUN_LAUNCHER.from_config_value(None, config.value)
        context = K8sContainerContext.create_for_run(
            mock.Mock(job_code_origin=None, tags={"dagster-k8s/config": json.dumps(tags)}), made, include_run_tags=True
        )
        job = construct_dagster_k8s_job(
            context.get_k8s_job_config("bcw-assets:local", made), ["dagster"], "run", context.run_k8s_config, "run",
            component="run_worker",
        )  # fmt: skip
    return ApiClient().sanitize_for_serialization(job)


def list_pods() -> dict[str, dict[str, Any]]:
    """Return what every pod is made from, by its label `app`."""
    templates = [
        manifest["spec"]["template"] for manifest in read_manifests() if "template" in manifest.get("spec", {})
    ]
    return {template["metadata"]["labels"]["app"]: template["spec"] for template in templates}


@pytest.mark.parametrize("version", VERSIONS)
def test_each_version_of_kubernetes_knows_every_field(version: str) -> None:
    with mock.patch.object(utils, "schema_contents", functools.cache(utils.schema_contents)):
        for manifest in read_manifests():
            assert utils.validate(manifest, version, strict=True) == version
        with pytest.raises(ValidationError, match="unknownField"):
            utils.validate({**manifest, "unknownField": 1}, version, strict=True)


def test_every_pod_is_locked_limited_and_watched() -> None:
    pods = list_pods()
    assert set(pods) == {*REACHED_BY, "daemon", "migrate", "run", "predict"}
    for name, pod in pods.items():
        (container,) = pod["containers"]
        assert re.search(r":(?!latest)[\w.]+$", container["image"]), name
        assert pod["enableServiceLinks"] is False, name
        assert pod.get("serviceAccountName") == HAVE_A_TOKEN.get(name), name
        assert pod["automountServiceAccountToken"] is (name in HAVE_A_TOKEN), name
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["runAsUser"] == (999 if name in ("postgres", "seaweedfs") else 10001), name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        added = {"add": ["NET_BIND_SERVICE"]} if name == "proxy" else {}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]} | added
        }, name  # fmt: skip
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume), name
        is_watched = {"startupProbe", "livenessProbe"} <= set(container)
        assert is_watched is (pod.get("restartPolicy", "Always") == "Always"), name


def test_no_secret_and_no_volume_is_part_of_what_is_applied_and_deleted() -> None:
    for manifest in read_manifests():
        assert manifest["kind"] not in ("Secret", "Namespace", "PersistentVolumeClaim")
        assert manifest.get("metadata", {}).get("namespace", "bcw") == "bcw"
        if manifest["kind"] == "ConfigMap":
            assert not any(map(settings.SECRET.search, manifest["data"]))
    for name, pod in list_pods().items():
        values = {entry["name"] for entry in pod["containers"][0].get("env", []) if "value" in entry}
        assert not any(map(settings.SECRET.search, values)), name


def test_who_may_reach_whom() -> None:
    reached: dict[str, set[tuple[str, int]]] = {}
    policies = {entry["metadata"]["name"]: entry["spec"] for entry in read_manifests() if "Policy" in entry["kind"]}
    assert policies.pop("nobody") == {"podSelector": {}, "policyTypes": ["Ingress"]}
    for name, policy in policies.items():
        assert policy["podSelector"] == {"matchLabels": {"app": name}}
        for rule in policy["ingress"]:
            ports = [port["port"] for port in rule["ports"]]
            reached.setdefault(name, set()).update((who, *ports) for who in list_peers(rule.get("from")))
    assert reached == REACHED_BY
    (webserver, names) = policies["proxy"]["egress"]  # of what is open to the world nothing else is reached
    assert webserver == {
        "to": [{"podSelector": {"matchLabels": {"app": "webserver"}}}],
        "ports": [{"port": 3000}],
    }
    assert {port["port"] for port in names["ports"]} == {53}


def list_peers(peers: Any) -> list[str]:
    if peers is None:
        return ["anybody"]
    (peer,) = peers
    if "namespaceSelector" in peer:
        return [f"namespace {next(iter(peer['namespaceSelector']['matchLabels'].values()))}"]
    (expression,) = peer["podSelector"]["matchExpressions"]
    return list(expression["values"])


def test_who_may_do_what() -> None:
    (role,) = [manifest for manifest in read_manifests() if manifest["kind"] == "Role"]
    (binding,) = [manifest for manifest in read_manifests() if manifest["kind"] == "RoleBinding"]
    assert [subject["name"] for subject in binding["subjects"]] == ["dagster"]  # runs have no rights at all
    allowed = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert {resource for resource, _ in allowed} == {"jobs", "jobs/status", "pods", "pods/log", "events"}
    assert {(resource, verb) for resource, verb in allowed if verb not in ("get", "list")} == {
        ("jobs", "create"), ("jobs", "delete"), ("pods", "delete")
    }  # fmt: skip


def test_a_run_gets_the_image_of_the_code_and_there_is_one_daemon(tmp_path: Path) -> None:
    shutil.copytree(CHECKOUT / "deploy", tmp_path / "deploy")
    file = tmp_path / "deploy/kubernetes/kustomization.yaml"
    file.write_text(
        file.read_text().replace("newName: bcw-assets, newTag: local", "newName: example.org/a, newTag: '2'")
    )
    deployments = {
        entry["metadata"]["name"]: entry["spec"] for entry in render(file.parent) if entry["kind"] == "Deployment"
    }
    (code,) = deployments["code"]["template"]["spec"]["containers"]
    assert code["image"] == "example.org/a:2"
    assert {"name": "DAGSTER_CURRENT_IMAGE", "value": "example.org/a:2"} in code["env"]
    assert (deployments["daemon"]["replicas"], deployments["daemon"]["strategy"]) == (1, {"type": "Recreate"})


def test_the_instance_is_that_of_the_stack_but_for_what_is_elsewhere() -> None:
    ours, stack = (
        yaml.safe_load(path.read_text()) for path in (FOLDER / "base/dagster.yaml", CHECKOUT / "deploy/dagster.yaml")
    )
    for name in ("start_timeout_seconds", "max_runtime_seconds"):
        assert ours["run_monitoring"].pop(name) > stack["run_monitoring"].pop(name)
    elsewhere = {"storage", "compute_logs", "run_launcher"}
    assert {key: ours[key] for key in ours.keys() - elsewhere} == {key: stack[key] for key in stack.keys() - elsewhere}


def test_the_settings_are_settings() -> None:
    (config,) = [
        entry["data"] for entry in read_manifests() if entry["metadata"].get("name") == "bcw" and "data" in entry
    ]
    known = {settings.PREFIX + name.upper() for name in settings.PARSERS}
    assert {name for name in config if name.startswith(settings.PREFIX)} <= known
    assert config["BCW_STORAGE"] == f"s3://{config['S3_BUCKET']}"


@pytest.mark.parametrize(
    "wish",
    [
        {"pod_spec_config": {"service_account_name": "dagster"}},
        {"pod_spec_config": {"volumes": [{"name": "root", "host_path": {"path": "/"}}]}},
        {"container_config": {"env": [{"name": "PYTHONPATH", "value": "/tmp"}]}},
    ],
)
def test_who_starts_a_run_may_give_it_more_memory_and_no_other_rights(wish: dict[str, Any]) -> None:
    limits = {"limits": {"memory": "8Gi"}}
    pod = make_run(container_config={"resources": limits})["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == limits["limits"]
    with pytest.raises(Exception, match="violated the allowed list"):
        make_run(**wish)


def test_the_official_chart_gets_the_same_pods_and_limits() -> None:
    values = yaml.safe_load((FOLDER / "values.yaml").read_text())
    (code,) = values["dagster-user-deployments"]["deployments"]
    webserver, daemon = values["dagsterWebserver"], values["dagsterDaemon"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    pods = list_pods()
    for name, entry in (("code", code), ("webserver", webserver), ("daemon", daemon)):
        assert entry["podSecurityContext"] == pods[name]["securityContext"]
        (container,) = pods[name]["containers"]
        for key in ("securityContext", "resources"):
            assert entry[key] == container[key]
        assert "{repository}:{tag}".format(**entry["image"]) == container["image"]
    assert launcher["securityContext"] == pods["run"]["containers"][0]["securityContext"]
    assert launcher["resources"] == pods["run"]["containers"][0]["resources"]
    assert launcher["runK8sConfig"]["podSpecConfig"]["securityContext"] == pods["run"]["securityContext"]
    assert webserver["service"]["port"] == webserver["readinessProbe"]["httpGet"]["port"] > 1024
    instance = yaml.safe_load((FOLDER / "base/dagster.yaml").read_text())
    concurrent = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]["maxConcurrentRuns"]
    assert concurrent == instance["concurrency"]["runs"]["max_concurrent_runs"]
    assert daemon["runMonitoring"]["startTimeoutSeconds"] == instance["run_monitoring"]["start_timeout_seconds"]
