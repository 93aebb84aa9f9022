"""The project on a real cluster, from `kubectl apply -k` to the way back. The tests tell one story, in their order."""

import itertools
import os
import signal
import time
from collections.abc import Callable

import pytest
import requests

from bcw_assets_tests.conftest import CHECKOUT
from bcw_assets_tests.k8s.conftest import NAMESPACE, PASSWORD, Cluster
from bcw_assets_tests.servers import wait_until

pytestmark = pytest.mark.k8s
NEVER = "0 0 1 1 *"
SETTINGS = {"BCW_NOTIFY_URLS": "json://receiver:8000", "BCW_SCHEDULE_CRON": NEVER}
GRAPH = ("raw_data", "ready_data", "model", "cross_validation", "metrics", "release")
LISTING = "import boto3; [print(e['Key']) for e in boto3.client('s3').list_objects_v2(Bucket='bcw')['Contents']]"
PUT = """import boto3
for key in ('in/0.csv', 'in/1.csv', 'in/2.csv'):
    boto3.client('s3').copy_object(Bucket='bcw', CopySource='bcw/data/raw_data.csv', Key=key)"""
PREVIOUS = """import dagster._core.storage.alembic as scripts; from alembic.script import ScriptDirectory
history = ScriptDirectory(*scripts.__path__); head = history.get_current_head()
print(head, history.get_revision(head).down_revision)"""
PSQL = ("exec", "postgres-0", "--", "sh", "-c", 'PGPASSWORD=$POSTGRES_PASSWORD psql -qtAU dagster -h 127.0.0.1 -c "$0"')


def test_all_is_ready_after_one_command(cluster: Cluster) -> None:
    begun = time.monotonic()
    cluster.set(**SETTINGS)
    print(f"apply: {time.monotonic() - begun:.0f} s until all is ready")
    for pod in cluster.objects("pods", "--selector", "app in (code, webserver, daemon, exporter, proxy)"):
        assert pod["status"]["containerStatuses"][0]["ready"]


def test_the_only_door_has_a_password(cluster: Cluster) -> None:
    for login, status in ((None, 401), (("bcw", "guess"), 401), (("bcw", PASSWORD), 200)):
        assert requests.get(f"{cluster.url}/server_info", auth=login, timeout=30).status_code == status
    answer = requests.get(cluster.url, auth=("bcw", PASSWORD), headers={"Host": "evil.example"}, timeout=30)
    assert answer.status_code == 421


def test_materialize_all_is_a_job_with_a_locked_pod_and_leaves_everything_in_the_bucket(cluster: Cluster) -> None:
    begun = time.monotonic()
    run = cluster.launch("__ASSET_JOB", assetSelection=[{"path": [name]} for name in GRAPH])
    selector = f"dagster/run-id={run}"
    wait_until(lambda: [pod for pod in cluster.objects("pods", "-l", selector) if pod["status"]["phase"] == "Running"])
    (pod,) = cluster.objects("pods", "-l", selector)
    done = cluster.kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", "id -u; touch /x", check=False)
    assert done.startswith("10001\n")
    assert "Read-only file system" in done
    wait_until(lambda: cluster.status(run) in ("SUCCESS", "FAILURE"))
    print(f"materialize all: {time.monotonic() - begun:.0f} s from the click to {cluster.status(run)}")
    assert cluster.status(run) == "SUCCESS"
    (job,) = cluster.objects("jobs", "-l", selector)
    assert job["metadata"]["name"] == f"dagster-run-{run}"
    keys = cluster.inside("python", "-c", LISTING).split()
    (manifest,) = [key for key in keys if key.endswith("manifest.json")]
    assert manifest.startswith("releases/28426903")
    assert {"data/raw_data.csv", "results/model.json", "results/metrics.json"} <= set(keys)


def test_the_schedule_fires(cluster: Cluster) -> None:
    before = cluster.runs()
    cluster.set(**SETTINGS | {"BCW_SCHEDULE_CRON": "* * * * *"})
    wait_until(lambda: "SUCCESS" in [run["status"] for key, run in cluster.runs().items() if key not in before])
    cluster.set(**SETTINGS)
    assert cluster.releases().count("promote") == 1
    wait_until(cluster.is_idle)


def test_a_folder_is_scored_by_the_pods_of_a_job(cluster: Cluster) -> None:
    cluster.inside("python", "-c", PUT)
    text = (CHECKOUT / "deploy/kubernetes/predict.yaml").read_text()
    cluster.apply(text)
    cluster.kubectl("wait", "--for", "condition=complete", "job/predict", "--timeout", "300s")
    assert {"out/0.csv", "out/1.csv", "out/2.csv"} <= set(cluster.inside("python", "-c", LISTING).split())


def test_a_run_has_no_rights_and_who_starts_runs_reads_no_secrets(cluster: Cluster) -> None:
    def may(account: str, *question: str) -> bool:
        user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
        return cluster.kubectl("auth", "can-i", *question, user, check=False).startswith("yes")

    for account in ("dagster", "run", "default"):
        assert not may(account, "get", "secrets")
        assert not may(account, "list", "pods", "--namespace", "kube-system")
        assert not may(account, "create", "pods")
        assert may(account, "create", "jobs") is (account == "dagster")
    answer = cluster.kubectl("get", "secret", "bcw", f"--as=system:serviceaccount:{NAMESPACE}:run", check=False)
    assert "Forbidden" in answer


def test_a_foreign_pod_does_not_reach_the_web_server(cluster: Cluster) -> None:
    ask = "import urllib.request as r; print(r.urlopen('http://webserver.{}:3000/server_info', timeout=5).read())"
    command = ["python", "-c", ask.format(NAMESPACE)]
    options = ["--image=bcw-assets:local", "--restart=Never", "--rm", "--attach", "--quiet", "--command", "--"]
    answer = cluster.kubectl("--namespace", "default", "run", "foreign", *options, *command, check=False)
    if "dagster_webserver_version" in answer:
        pytest.skip("the network of this cluster enforces no NetworkPolicy")


MOMENTS = ("PENDING", "STARTED", "raw_data", "cross_validation", "metrics")


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_pod_of_a_run_is_lost_and_the_refresh_is_done_all_the_same(cluster: Cluster, moment: str) -> None:
    def begin() -> str:
        run = cluster.launch()
        if moment == "PENDING":
            wait_until(lambda: cluster.objects("pods", "-l", f"dagster/run-id={run}"))
        elif moment == "STARTED":
            wait_until(lambda: cluster.status(run) == "STARTED")
        else:
            wait_until(lambda: cluster.has_done(run, moment))
        return f"dagster/run-id={run}"

    survive(cluster, f"run's pod after {moment}", lambda: delete(cluster, begin()))


@pytest.mark.parametrize("service", ["code", "daemon", "webserver", "proxy", "postgres", "seaweedfs"])
def test_a_pod_is_lost_during_a_run_and_nothing_is(cluster: Cluster, service: str) -> None:
    def strike() -> None:
        run = cluster.launch()
        wait_until(lambda: cluster.status(run) == "STARTED")
        delete(cluster, f"app={service}")

    survive(cluster, service, strike)


def test_the_kubelet_is_away_for_a_minute(cluster: Cluster) -> None:
    if not (kubelet := os.environ.get("KUBELET_PID")):
        pytest.skip("KUBELET_PID names no process of this machine")

    def strike() -> None:
        run = cluster.launch()
        wait_until(lambda: cluster.status(run) == "STARTED")
        os.kill(int(kubelet), signal.SIGSTOP)
        try:
            time.sleep(60)
        finally:
            os.kill(int(kubelet), signal.SIGCONT)

    survive(cluster, "kubelet", strike)


def delete(cluster: Cluster, selector: str) -> None:
    """Kill pods at once, as if their node had died."""
    cluster.kubectl("delete", "pods", "--selector", selector, "--force", "--grace-period", "0")


def survive(cluster: Cluster, name: str, strike: Callable[[], None]) -> None:
    """Strike during a refresh, and hold that nothing is lost, nothing half published, and who is told of it."""
    releases, before, count = cluster.releases(), cluster.runs(), len(cluster.messages())
    strike()
    begun = time.monotonic()
    wait_until(cluster.is_idle, 900)
    idle = time.monotonic() - begun
    cluster.wait()
    new = [run for key, run in cluster.runs().items() if key not in before]
    spans = sorted((run["startTime"], run["endTime"]) for run in new if run["startTime"])
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans)), spans
    ends = [run["status"] for run in reversed(new)]
    if ends[-1] != "SUCCESS":
        wait_until(lambda: len(cluster.messages()) > count, 120)
    assert cluster.refresh() == "SUCCESS"
    print(f"{name}: runs {', '.join(ends)}; {idle:.0f} s until the last had ended, "
          f"{time.monotonic() - begun:.0f} s until the next was green; told: {cluster.messages()[count:]}")  # fmt: skip
    assert cluster.releases() == releases
    assert "fail" not in cluster.inside("bcw", "releases", "verify", "--all")


def test_another_tag_with_a_migration_and_back_lose_nothing(cluster: Cluster) -> None:
    tag = os.environ.get("BCW_NEXT_TAG", "next")
    releases, runs = cluster.releases(), cluster.runs()
    head, previous = cluster.inside("python", "-c", PREVIOUS).split()
    cluster.kubectl(*PSQL, f"UPDATE alembic_version SET version_num = '{previous}'")
    for image in (tag, "local"):
        begun = time.monotonic()
        cluster.set(image, **SETTINGS)
        print(f"to {image}: {time.monotonic() - begun:.0f} s")
        assert cluster.kubectl(*PSQL, "SELECT version_num FROM alembic_version").strip() == head
        assert cluster.refresh() == "SUCCESS"
        newest = max(cluster.objects("jobs", "-l", "dagster/job"), key=lambda job: job["metadata"]["creationTimestamp"])
        assert newest["spec"]["template"]["spec"]["containers"][0]["image"] == f"bcw-assets:{image}"
        assert cluster.releases() == releases
        assert set(runs) < set(cluster.runs())


def test_uninstalled_only_the_data_of_the_user_is_left_and_installed_again_it_is_used(cluster: Cluster) -> None:
    releases, runs = cluster.releases(), cluster.runs()
    text = cluster.kubectl("kustomize", str(cluster.overlay))
    cluster.kubectl(
        "delete", "--filename", "-", "--ignore-not-found", text=text.replace("policy/v1\n", "policy/v1beta1\n")
    )
    cluster.kubectl("delete", "jobs", "--selector", "dagster/run-id")
    cluster.kubectl("delete", "job", "predict", "--ignore-not-found")
    wait_until(lambda: {pod["metadata"]["name"] for pod in cluster.objects("pods")} <= {"receiver"})
    kinds = "secrets,configmaps,services,deployments,statefulsets,jobs,pvc,roles,rolebindings,networkpolicies,pdb"
    left = {f"{item['kind']} {item['metadata']['name']}" for item in cluster.objects(kinds)}
    assert {name for name in left if "token" not in name and "receiver" not in name and "kube-root" not in name} == {
        "Secret bcw", "Secret proxy", "PersistentVolumeClaim data-postgres-0", "PersistentVolumeClaim data-seaweedfs-0"
    }  # fmt: skip
    cluster.set(**SETTINGS)
    assert (cluster.releases(), set(cluster.runs())) == (releases, set(runs))
    assert cluster.refresh() == "SUCCESS"
