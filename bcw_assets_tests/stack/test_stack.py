"""The whole stack, from the first `make up` to backup and upgrade. The tests tell one story, in their order."""

import json
import os
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from bcw_assets_tests.servers import wait_until
from bcw_assets_tests.stack.conftest import PROJECT, RECEIVER, Stack, call, docker

pytestmark = pytest.mark.stack
OURS = ("code", "webserver", "daemon", "exporter")
SERVICES = (*OURS, "postgres", "seaweedfs", "s3", "proxy", "prometheus")
SCHEDULE = """{ scheduleOrError(scheduleSelector: {
    scheduleName: "refresh_schedule", repositoryName: "__repository__", repositoryLocationName: "bcw_assets"
}) { ... on Schedule { scheduleState { status } } } }"""
LISTING = "import boto3; print(boto3.client('s3').list_objects_v2(Bucket='bcw')['Contents'])"
UNREACHABLE = [
    ("proxy", "postgres", 5432), ("proxy", "s3", 8333), ("proxy", "code", 4000),
    ("prometheus", "postgres", 5432), ("prometheus", "s3", 8333), ("prometheus", "webserver", 3000),
    ("code", "seaweedfs", 8888), ("code", "s3", 8888), ("code", "s3", 9333), ("webserver", "seaweedfs", 8333),
]  # fmt: skip


def test_up_ends_when_all_is_healthy(stack: Stack) -> None:
    begun = time.monotonic()
    assert "is open to user bcw" in stack.make("up").stdout
    print(f"make up: {time.monotonic() - begun:.0f} s")
    docker(  # what BCW_NOTIFY_URLS names, in a container: none reaches this machine
        "run", "--detach", "--name", f"{PROJECT}-receiver", "--network", f"{PROJECT}_inside",
        "--network-alias", "receiver", "bcw-assets:local", "python", "-c", RECEIVER,
    )  # fmt: skip
    assert stack.sick() == []
    assert set(stack.services()) == {*SERVICES, "migrate"}
    stack.compose("config", "-q")


def test_a_run_ends_green_with_everything_in_s3_and_a_second_publishes_nothing(stack: Stack) -> None:
    done = stack.make("run")
    (release,) = re.findall("Release (28426903[0-9a-f]{8}): promoted", done.stdout)
    objects = stack.inside("code", "python", "-c", LISTING).stdout
    for key in ("data/raw_data.csv", "results/metrics.json", f"releases/{release}/manifest.json"):
        assert key in objects
    scores = stack.inside("code", "bcw", "predict", "s3://bcw/data/raw_data.csv").stdout
    assert len(scores.splitlines()) == 570
    assert f"Release {release}: unchanged" in stack.make("run").stdout


def test_a_failed_run_fails_here_too(stack: Stack) -> None:
    stack.set(BCW_SOURCE="/nowhere/wdbc.data")
    stack.make("up")
    done = stack.make("run", check=False)
    assert done.returncode != 0
    assert "raw_data: " in done.stdout
    assert "The refresh ended as FAILURE" in done.stderr
    assert "logs/" in stack.inside("code", "python", "-c", LISTING).stdout  # what a step said
    wait_until(lambda: any("failed" in line for line in stack.messages()), 90)


def test_the_schedule_fires_by_itself_and_is_green_and_the_second_time_publishes_nothing(stack: Stack) -> None:
    before = set(stack.runs())
    stack.set(BCW_SOURCE="embedded", BCW_SCHEDULE_CRON="* * * * *")
    stack.make("up")
    wait_until(lambda: [status for run, status in stack.runs().items() if run not in before].count("SUCCESS") >= 2, 300)
    wait_until(lambda: any("Recovered" in line for line in stack.messages()), 90)
    stack.set(BCW_SCHEDULE_CRON="0 0 1 1 *")
    stack.make("up")
    assert len(re.findall("promote", stack.releases())) == 1


def test_only_the_proxy_is_published_and_only_on_loopback(stack: Stack) -> None:
    published = {name: docker("port", row["ID"]) for name, row in stack.services().items()}
    assert [name for name, ports in published.items() if ports] == ["proxy"]
    assert set(re.findall(r"-> (\S+):\d+", published["proxy"])) == {"127.0.0.1"}
    for path in ("server_info", "prometheus/-/healthy"):
        for login, status in ((None, 401), (("bcw", "guess"), 401), (stack.login, 200)):
            assert requests.get(f"{stack.url}/{path}", auth=login, timeout=10).status_code == status


def test_a_container_reaches_no_more_than_it_needs(stack: Stack) -> None:
    doors = [(here, "bash", "-c", f"exec 3<>/dev/tcp/{there}/{port}") for here, there, port in UNREACHABLE]
    with ThreadPoolExecutor(len(doors)) as pool:  # a name that nobody knows takes 10 s
        for done in pool.map(lambda door: stack.inside(*door), doors):
            assert done.returncode != 0, done.args
            assert re.search("refused|unknown|not known|unreachable|timed out|resolution", done.stderr), done.args


@pytest.mark.parametrize("service", OURS)
def test_our_containers_are_locked(stack: Stack, service: str) -> None:
    done = stack.inside(service, "sh", "-c", "id -u; touch /app/x 2>&1; ls /run/docker.sock 2>&1; which gcc uv")
    for line in ("10001\n", "Read-only file system", "cannot access '/run/docker.sock'"):
        assert line in done.stdout
    assert not re.search("/(gcc|uv)", done.stdout)


def test_pause_unpause_reload_bash_and_python(stack: Stack) -> None:
    assert "refresh_schedule is paused" in stack.make("pause").stdout
    assert "STOPPED" in str(stack.ask(SCHEDULE))
    assert "refresh_schedule runs" in stack.make("unpause").stdout
    assert "RUNNING" in str(stack.ask(SCHEDULE))
    assert "The code is loaded" in stack.make("reload").stdout
    assert "bcw_assets" in stack.inside("code", "python", "-c", "import bcw_assets; print(bcw_assets.__file__)").stdout


FAULTS = [*(("kill", service) for service in SERVICES), ("stop", "postgres"), ("stop", "seaweedfs")]


@pytest.mark.parametrize(("fault", "service"), FAULTS)
def test_a_container_dies_or_is_away_during_a_run_and_nothing_is_lost(stack: Stack, fault: str, service: str) -> None:
    releases, runs, count = stack.releases(), stack.runs(), len(stack.messages())
    with ThreadPoolExecutor() as pool:
        refresh = pool.submit(stack.make, "run", check=False)
        wait_until(lambda: "STARTED" in stack.runs().values(), 60)
        if fault == "kill":
            stack.inside(service, "sh", "-c", "kill -9 -1")  # as if it crashed: Docker starts it again
            end = time.monotonic() + 5
            wait_until(lambda: stack.sick() or time.monotonic() > end, 30)
        else:
            stack.compose("stop", service)
            time.sleep(20)
            stack.compose("start", service)
        wait_until(lambda: not stack.sick(), 180)
        done = refresh.result()
    print(f"{fault} {service}: the run ended with {done.returncode}")
    assert fault == "kill" or done.returncode == 0  # what is away for 20 s is waited for
    titles: list[str] = []
    if done.returncode:  # a message says so, and another that the next run is green
        titles = [r"bcw_assets: The run of refresh_job failed.*", r"Recovered: bcw_assets: The run of refresh_job.*"]
        wait_until(lambda: len(stack.messages()) > count, 90)
        stack.make("run")
        wait_until(lambda: len(stack.messages()) >= count + len(titles), 90)
    assert re.fullmatch("\n".join(titles), "\n".join(stack.messages()[count:]))
    assert stack.releases() == releases
    assert len(stack.runs()) > len(runs)


def test_a_full_disk_of_the_code_fails_the_run_or_does_not_touch_it(stack: Stack) -> None:
    releases = stack.releases()
    assert "No space left" in stack.inside("code", "sh", "-c", "cat /dev/zero > /tmp/full").stderr
    stack.make("run", check=False)
    stack.inside("code", "rm", "/tmp/full")
    assert stack.releases() == releases
    stack.make("run")


def test_down_and_up_lose_nothing_and_backup_wipe_and_restore_bring_back_history_and_releases(stack: Stack) -> None:
    releases, runs, port = stack.releases(), stack.runs(), stack.settings["BCW_PORT"]
    stack.make("down")
    stack.make("up")
    assert (stack.releases(), set(stack.runs())) == (releases, set(runs))
    stack.make("run")
    runs = stack.runs()
    stack.make("backup", "BACKUP=backups/mine")
    assert (stack.folder / "backups/mine").stat().st_mode & 0o777 == 0o700
    docker("rm", "--force", f"{PROJECT}-receiver")
    stack.make("clean", "FORCE=1")
    assert docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}") == ""
    call(["python3", "deploy/stack.py", "settings"], stack.folder, check=True)
    stack.set(BCW_PORT=port, BCW_SOURCE="embedded", COMPOSE_PROFILES="monitoring")
    stack.make("up")
    assert stack.runs() == {}
    shutil.copytree(stack.folder / "backups/mine", stack.folder / "backups/broken")
    os.truncate(stack.folder / "backups/broken/bucket.tar", 1_000_000)
    assert "no whole" in stack.make("restore", "BACKUP=backups/broken", check=False).stdout
    stack.make("restore", "BACKUP=backups/mine")
    assert (stack.releases(), stack.runs()) == (releases, runs)
    assert stack.inside("code", "bcw", "releases", "verify", "--all").returncode == 0
    assert "unchanged" in stack.make("run").stdout


def test_an_upgrade_loses_nothing(stack: Stack) -> None:
    releases, runs = stack.releases(), stack.runs()
    before = docker("image", "inspect", "--format", "{{.Id}}", "bcw-assets:local")
    with (stack.folder / "bcw_assets/errors.py").open("a") as file:
        file.write("\n# another version\n")
    # Without it an engine whose builds reach the network as the host does, or not at all, would build every layer anew.
    as_the_host = {"services": {name: {"build": {"network": "host"}} for name in (*OURS, "migrate")}}
    (stack.folder / "docker-compose.override.yml").write_text(json.dumps(as_the_host))
    stack.make("upgrade")
    assert docker("image", "inspect", "--format", "{{.Id}}", "bcw-assets:local") != before
    assert "another version" in stack.inside("code", "sh", "-c", "cat /project/bcw_assets/errors.py").stdout
    assert stack.releases() == releases
    assert set(runs) <= set(stack.runs())
    assert "unchanged" in stack.make("run").stdout
