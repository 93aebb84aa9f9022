"""What the files of the stack promise, as far as one can see without Docker; bcw_assets_tests/stack starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from bcw_assets import settings
from bcw_assets_tests.conftest import CHECKOUT
from bcw_assets_tests.loopback import body, serve, status

TEXT = (CHECKOUT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MAKES_ENV = ("POSTGRES_PASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "BCW_USER", "BCW_PASSWORD_HASH")


def test_every_service_is_locked_limited_and_watched() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":(?!latest)[\w.]+$", service["image"]), name
        assert {"init", "read_only", "mem_limit"} <= {key for key, value in service.items() if value}, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert "docker.sock" not in str(service.get("volumes")), name
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        assert name == "migrate" or service["healthcheck"]["test"][0] == "CMD", name
        for dependency, rule in service.get("depends_on", {}).items():
            ends = dependency == "migrate"
            assert rule["condition"] == ("service_completed_successfully" if ends else "service_healthy"), name


def test_no_container_asks_another_through_a_proxy() -> None:
    for service in SERVICES.values():
        for name in ("NO_PROXY", "no_proxy"):
            assert {"localhost", "127.0.0.1", *SERVICES} - {"migrate"} <= set(service["environment"][name].split(","))
        check = service.get("healthcheck", {"test": []})["test"]
        assert "wget" not in check or check[check.index("wget") + 1 :][:2] == ["-Y", "off"]  # BusyBox has no NO_PROXY


def test_who_meets_whom_on_a_network_and_one_service_is_published_on_loopback() -> None:
    members: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for network in service["networks"]:
            members.setdefault(network, set()).add(name)
    assert members == {
        "outside": {"proxy", "webserver"},
        "monitoring": {"proxy", "prometheus"},
        "metrics": {"prometheus", "exporter"},
        "inside": {"webserver", "daemon", "exporter", "code"},
        "data": {"postgres", "s3", "migrate", "code", "daemon", "webserver", "exporter"},
        "vault": {"s3", "seaweedfs"},
    }
    internal = {name for name, network in COMPOSE["networks"].items() if network.get("internal")}
    assert internal == {"monitoring", "metrics", "data", "vault"}
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(ports) == ["proxy"]
    assert all(port.startswith("${BCW_BIND:-127.0.0.1}:") for port in ports["proxy"])


def test_no_password_has_a_default_and_the_refusal_says_what_to_do() -> None:
    for name in MAKES_ENV:
        uses = set(re.findall(rf"\${{{name}([^}}]*)}}", TEXT))
        assert {use.partition(". ")[0] for use in uses} == {":?deploy/stack.env is missing or not read; run make up"}


def test_the_containers_get_every_setting_of_the_project() -> None:
    given = {name for name in SERVICES["code"]["environment"] if name.startswith(settings.PREFIX)}
    known = {settings.PREFIX + name.upper() for name in settings.PARSERS}
    assert known - given == {"BCW_RELEASES"}  # releases are where everything else is
    assert given <= known


def test_the_settings_are_made_once_with_random_passwords_for_their_owner_only(tmp_path: Path) -> None:
    first, second = make_settings(tmp_path / "a"), make_settings(tmp_path / "b")
    assert set(MAKES_ENV) | {"BCW_PASSWORD"} == set(first)
    assert len(first["BCW_PASSWORD"]) == 32
    assert [name for name in first if first[name] == second[name]] == ["BCW_USER", "BCW_PASSWORD_HASH"]
    assert first["BCW_PASSWORD_HASH"] == "$2a$14$as docker says"
    assert make_settings(tmp_path / "a") == first
    done = stack(tmp_path / "of an earlier stack", "settings", volumes="bcw-assets_postgres")
    assert done.returncode == 1
    assert "not the data of an earlier stack, which only the passwords in it open" in done.stderr
    assert "make clean" in done.stderr


def test_a_question_is_asked_again_but_for_a_refusal_and_no_proxy_of_the_network_learns_the_password(
    tmp_path: Path,
) -> None:
    make_settings(tmp_path)
    answer = b'{"data": {"answer": {"__typename": "Repository", "schedules": [], "sensors": []}}}'
    with serve(status(502), body(answer), status(401)) as proxy, serve(status(403)) as foreign:
        add_setting(tmp_path, f"BCW_PORT={urlsplit(proxy.url).port}")
        assert stack(tmp_path, "pause", http_proxy=foreign.url, no_proxy="").returncode == 0
        done = stack(tmp_path, "pause")
    assert done.returncode == 1
    assert re.fullmatch(r"Failed: http\S+ refuses the BCW_PASSWORD of .*stack\.env; put it right, .*\n", done.stderr)
    assert (len(proxy.requests), foreign.requests) == (3, [])


def test_the_address_follows_the_settings(tmp_path: Path) -> None:
    make_settings(tmp_path)
    for line, address in (
        ("", "http://127.0.0.1:8080"),
        ("BCW_BIND=0.0.0.0\nBCW_PORT=8090\n# BCW_PORT=1", "http://127.0.0.1:8090"),
        ("BCW_SITE=bcw.example.org", "https://bcw.example.org"),
    ):
        add_setting(tmp_path, line)
        assert stack(tmp_path, "address").stdout.startswith(f"{address} is open to user bcw with the BCW_PASSWORD of ")


def test_a_backup_that_breaks_off_is_none_and_no_other_is_written_over(tmp_path: Path) -> None:
    make_settings(tmp_path)
    (tmp_path / "deploy/stack.env").unlink()
    assert call(tmp_path, "make", "image").returncode == 0  # which needs settings, and makes them
    (tmp_path / "bin/docker").write_text(
        '#!/bin/sh\ncase "$*" in *version) exit ;; esac\necho "$*" >> questions\n'
        'case "$*" in *pg_dump*) echo history ;; *bucket.py*) printf half; exit 1 ;; esac\n'
    )
    assert call(tmp_path, "make", "backup", "BACKUP=backups/mine").returncode != 0
    before = (tmp_path / "questions").read_text()
    assert "File exists" in call(tmp_path, "make", "backup", "BACKUP=backups/mine").stderr
    done = call(tmp_path, "make", "restore", "BACKUP=backups/mine")
    assert done.returncode != 0
    assert "backups/mine holds no whole history.dump and bucket.tar" in done.stdout
    assert (tmp_path / "questions").read_text() == before


def add_setting(folder: Path, line: str) -> None:
    with (folder / "deploy/stack.env").open("a") as file:
        file.write(f"{line}\n")


def make_settings(folder: Path) -> dict[str, str]:
    """Make the settings in a folder and return them."""
    done = stack(folder, "settings")
    assert done.returncode == 0, done.stderr
    file = folder / "deploy/stack.env"
    assert file.stat().st_mode & 0o777 == 0o600
    lines = re.findall(r"^(\w+)=(.*)", file.read_text(), flags=re.MULTILINE)
    return {name: value.strip("'") for name, value in lines}


def call(folder: Path, *command: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the Docker of the folder."""
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"} | changes
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def stack(folder: Path, verb: str, volumes: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    """Run stack.py in a folder, with a Docker that has these volumes and hashes every password alike."""
    for name in ("deploy/stack.py", "docker-compose.yml", "Makefile"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((CHECKOUT / name).read_bytes())
    docker = folder / "bin/docker"
    docker.parent.mkdir(exist_ok=True)
    docker.write_text(f'#!/bin/sh\ntest "$1" = volume && echo "{volumes}" || echo "\\$2a\\$14\\$as docker says"\n')
    docker.chmod(0o755)
    return call(folder, sys.executable, folder / "deploy/stack.py", verb, **changes)
