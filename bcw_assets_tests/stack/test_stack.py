"""The whole stack, from the first `make up` to backup and upgrade. The tests tell one story, in their order."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import requests

from bcw_assets_tests.stack.conftest import PROJECT, Stack, call, copied, docker, until

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


def test_without_settings_plain_compose_says_what_to_do(tmp_path: Path) -> None:
    done = call(["docker", "compose", "up"], copied(tmp_path), check=False)
    assert done.returncode != 0
    assert "run make up" in done.stderr


def test_up_is_healthy_within_two_minutes(stack: Stack) -> None:
    begun = time.monotonic()
    assert "is open to user bcw" in stack.make("up").stdout
    took = time.monotonic() - begun
    stack.receive_messages()
    print(f"healthy after {took:.0f} s")
    assert took < 120
    assert stack.sick() == []
    assert set(stack.services()) == {*SERVICES, "migrate"}
    assert (stack.folder / "deploy/stack.env").stat().st_mode & 0o777 == 0o600
    stack.compose("config", "-q")


def test_memory_of_the_idle_stack(stack: Stack) -> None:
    names = [f"{PROJECT}-{name}-1" for name in SERVICES]
    lines = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *names)
    print(lines)
    assert lines.count("MiB") >= len(SERVICES)


def test_run_ends_green_through_the_password_and_everything_is_in_s3(stack: Stack) -> None:
    done = stack.make("run")
    assert "Release 284269039b34fac6: promoted" in done.stdout
    listed = stack.inside("code", "python", "-c", LISTING).stdout
    for key in ("data/raw_data.csv", "results/metrics.json", "releases/284269039b34fac6/manifest.json"):
        assert key in listed
    scored = stack.inside("code", "bcw", "predict", "s3://bcw/data/raw_data.csv")
    assert scored.returncode == 0
    assert len(scored.stdout.splitlines()) == 570


def test_a_second_run_publishes_nothing(stack: Stack) -> None:
    assert "Release 284269039b34fac6: unchanged" in stack.make("run").stdout


def test_a_failed_run_fails_here_too(stack: Stack) -> None:
    stack.set(BCW_SOURCE="/nowhere/wdbc.data")
    stack.make("up")
    done = stack.make("run", check=False)
    assert done.returncode != 0
    assert "raw_data: " in done.stdout
    assert "The refresh ended as FAILURE" in done.stderr
    assert "logs/" in stack.inside("code", "python", "-c", LISTING).stdout  # what a step said
    until(lambda: any("failed" in line for line in stack.told()), 90)
    stack.set(BCW_SOURCE="embedded")
    stack.make("up")
    stack.make("run")
    until(lambda: any("Recovered" in line for line in stack.told()), 90)


def test_only_the_proxy_is_published_and_only_on_loopback(stack: Stack) -> None:
    published = {name: docker("port", row["ID"]) for name, row in stack.services().items()}
    assert [name for name, ports in published.items() if ports] == ["proxy"]
    assert set(re.findall(r"-> (\S+):\d+", published["proxy"])) == {"127.0.0.1"}
    assert requests.get(f"{stack.url}/server_info", timeout=10).status_code == 401
    assert requests.get(f"{stack.url}/server_info", auth=("bcw", "guess"), timeout=10).status_code == 401
    assert requests.get(f"{stack.url}/server_info", auth=stack.login, timeout=10).status_code == 200
    assert requests.get(f"{stack.url}/prometheus/-/healthy", timeout=10).status_code == 401
    assert requests.get(f"{stack.url}/prometheus/-/healthy", auth=stack.login, timeout=10).status_code == 200


@pytest.mark.parametrize(("here", "there", "port"), UNREACHABLE)
def test_a_container_reaches_no_more_than_it_needs(stack: Stack, here: str, there: str, port: int) -> None:
    tried = stack.inside(here, "bash", "-c", f"exec 3<>/dev/tcp/{there}/{port}")
    assert tried.returncode != 0
    assert re.search("refused|unknown|not known|unreachable|timed out|resolution", tried.stderr)


@pytest.mark.parametrize("service", OURS)
def test_our_containers_are_locked(stack: Stack, service: str) -> None:
    found = stack.inside(service, "sh", "-c", "id -u; touch /app/x 2>&1; ls /run/docker.sock 2>&1; which gcc uv")
    assert "10001\n" in found.stdout
    assert "Read-only file system" in found.stdout
    assert "cannot access '/run/docker.sock'" in found.stdout
    assert "/gcc" not in found.stdout
    assert "/uv" not in found.stdout


def test_pause_unpause_reload_bash_and_python(stack: Stack) -> None:
    assert "refresh_schedule is paused" in stack.make("pause").stdout
    assert "STOPPED" in str(stack.ask(SCHEDULE))
    assert "refresh_schedule runs" in stack.make("unpause").stdout
    assert "RUNNING" in str(stack.ask(SCHEDULE))
    assert "The code is loaded" in stack.make("reload").stdout
    assert "bcw_assets" in stack.inside("code", "python", "-c", "import bcw_assets; print(bcw_assets.__file__)").stdout


def test_the_schedule_fires_by_itself_and_the_second_time_publishes_nothing(stack: Stack) -> None:
    before = {run["runId"] for run in stack.runs()}
    stack.set(BCW_SCHEDULE_CRON="* * * * *")
    stack.make("up")

    def done() -> list[str]:
        return [run["runId"] for run in stack.runs() if run["runId"] not in before and run["status"] == "SUCCESS"]

    until(lambda: len(done()) >= 2, 300)
    stack.set(BCW_SCHEDULE_CRON="0 0 1 1 *")
    stack.make("up")
    assert len(re.findall("promote", stack.releases())) == 1


def running(stack: Stack) -> subprocess.Popen[str]:
    """Start a refresh and return when it works."""
    process = subprocess.Popen(
        ["make", "--no-print-directory", "run"], cwd=stack.folder, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    until(lambda: any(run["status"] == "STARTED" for run in stack.runs()), 60)
    return process


def ends(stack: Stack, process: subprocess.Popen[str], begun: float, told: int) -> None:
    """Say how the refresh ends; a failure is told, and that it is over when the next one is green."""
    output, _ = process.communicate(timeout=900)
    print(f"the run ended after {time.monotonic() - begun:.0f} s with {process.returncode}: {output.splitlines()[-1]}")
    failed = [r"bcw_assets: The run of refresh_job failed.*"] if process.returncode else []
    if failed:
        until(lambda: len(stack.told()) > told, 90)
    stack.make("run")
    if failed:
        until(lambda: len(stack.told()) > told + 1, 90)
    assert re.fullmatch("\n".join(failed + [f"Recovered: {title}" for title in failed]), "\n".join(stack.told()[told:]))


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_dies_during_a_run_and_nothing_is_lost(stack: Stack, service: str) -> None:
    releases, before, told = stack.releases(), len(stack.runs()), len(stack.told())
    process = running(stack)
    stack.kill(service)
    begun = time.monotonic()
    until(lambda: stack.sick() or time.monotonic() > begun + 5, 30)
    print(f"{service}: healthy after {stack.until_healthy():.0f} s", end="; ")
    ends(stack, process, begun, told)
    assert stack.releases() == releases
    assert len(stack.runs()) > before


@pytest.mark.parametrize("service", ["postgres", "seaweedfs"])
def test_history_or_bucket_away_for_twenty_seconds(stack: Stack, service: str) -> None:
    releases, told = stack.releases(), len(stack.told())
    process = running(stack)
    stack.compose("stop", service)
    time.sleep(20)
    stack.compose("start", service)
    begun = time.monotonic()
    print(f"{service}: healthy after {stack.until_healthy():.0f} s", end="; ")
    ends(stack, process, begun, told)
    assert stack.releases() == releases


def test_a_full_disk_of_the_code_fails_the_run_or_does_not_touch_it(stack: Stack) -> None:
    releases = stack.releases()
    assert "No space left" in stack.inside("code", "sh", "-c", "cat /dev/zero > /tmp/full").stderr
    done = stack.make("run", check=False)
    print(f"the run ended with {done.returncode}: {(done.stdout + done.stderr).splitlines()[-1]}")
    stack.inside("code", "rm", "/tmp/full")
    assert stack.releases() == releases
    stack.make("run")


def test_everything_is_started_again(stack: Stack) -> None:
    releases, runs = stack.releases(), {run["runId"] for run in stack.runs()}
    stack.make("down")
    begun = time.monotonic()
    stack.make("up")
    print(f"healthy after {time.monotonic() - begun:.0f} s")
    assert stack.releases() == releases
    assert {run["runId"] for run in stack.runs()} == runs
    stack.make("run")


def test_backup_wipe_and_restore_bring_back_history_and_releases(stack: Stack) -> None:
    releases, runs = stack.releases(), {run["runId"]: run["status"] for run in stack.runs()}
    port = stack.settings["BCW_PORT"]
    stack.make("backup", "BACKUP=backups/mine")
    assert (stack.folder / "backups/mine").stat().st_mode & 0o777 == 0o700
    assert "File exists" in stack.make("backup", "BACKUP=backups/mine", check=False).stderr
    docker("rm", "--force", f"{PROJECT}-receiver")
    refused = stack.make("clean", check=False)
    assert refused.returncode != 0
    assert "make clean FORCE=1" in refused.stdout
    stack.make("clean", "FORCE=1")
    assert docker("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}") == ""
    call(["python3", "deploy/stack.py", "settings"], stack.folder, check=True)
    stack.set(BCW_PORT=port, BCW_SOURCE="embedded", COMPOSE_PROFILES="monitoring")
    stack.make("up")
    assert stack.runs() == []
    shutil.copytree(stack.folder / "backups/mine", stack.folder / "backups/broken")
    os.truncate(stack.folder / "backups/broken/bucket.tar", 1_000_000)
    assert "no whole" in stack.make("restore", "BACKUP=backups/broken", check=False).stdout
    stack.make("restore", "BACKUP=backups/mine")
    assert {run["runId"]: run["status"] for run in stack.runs()} == runs
    assert stack.releases() == releases
    assert stack.inside("code", "bcw", "releases", "verify", "--all").returncode == 0
    assert "unchanged" in stack.make("run").stdout


def test_an_upgrade_loses_nothing(stack: Stack) -> None:
    releases, runs = stack.releases(), {run["runId"] for run in stack.runs()}
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
    assert runs <= {run["runId"] for run in stack.runs()}
    assert "unchanged" in stack.make("run").stdout
