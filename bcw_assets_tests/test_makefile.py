"""What `make` does beside calling programs: help, a friendly no to an old Python, and a clean-up that spares."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bcw_assets_tests.conftest import CHECKOUT, Golden

PRODUCED = [
    "data/raw_data.csv", "data/ready_data.csv", "data/ready_data.json", "data/.raw_data.csv.0123abcd.bcw-tmp",
    "results/model.json", "results/model.pkl", "results/cross_validation.csv", "results/cross_validation.json",
    "data/raw_data.parquet", "results/cross_validation.parquet",
    "results/evaluation.png", "results/MODEL_CARD.md", ".dagster/history/runs.db", ".dagster/storage/x",
]  # fmt: skip
SPARED = ["data/mine.csv", "data/raw_data.csv.mine", "results/notes.txt", "releases/log/000001.json"]


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout, in a path with a space and an umlaut, whose owner tracks an artifact too."""
    folder = tmp_path / "an ümlaut"
    for name in [*PRODUCED, *SPARED, "results/metrics.json"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    originals = ("Makefile", ".gitignore", ".dagster/dagster.yaml")
    for name in originals:
        shutil.copy(CHECKOUT / name, folder / name)
    for command in (["init", "-q"], ["add", "-f", *originals, "results/metrics.json"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def test_bare_make_lists_the_targets() -> None:
    assert {"install", "test-all", "clean", "upgrade"} <= set(re.findall(r"^make (\S+) ", make(CHECKOUT).stdout, re.M))


def test_clean_asks_and_removes_what_runs_produced_and_nothing_else(checkout: Path) -> None:
    done = make(checkout, "clean")
    assert done.returncode == 2
    assert "Nothing was removed. Without a terminal: make clean FORCE=1" in done.stdout
    for answer, count in ((b"\n", len(PRODUCED)), (b"y\n", 0)):
        ours, theirs = os.openpty()
        os.write(ours, answer)
        output = subprocess.run(["make", "clean"], cwd=checkout, stdin=theirs, capture_output=True, check=False).stdout
        os.close(ours)
        os.close(theirs)
        assert b"Go on? [y/N]" in output
        assert sum((checkout / name).exists() for name in PRODUCED) == count
    (checkout / PRODUCED[0]).touch()
    done = make(checkout, "clean", "FORCE=1")
    assert "This removes what runs produced in data/ and results/, and the history in .dagster/" in done.stdout
    assert not (checkout / PRODUCED[0]).exists()
    for name in (*SPARED, "results/metrics.json", "Makefile", ".dagster/dagster.yaml"):
        assert (checkout / name).exists(), name


def test_without_a_stack_its_targets_say_how_to_start_one(checkout: Path) -> None:
    for target in ("down", "run", "backup"):
        done = make(checkout, target)
        assert done.returncode == 2
        assert "No stack was started here, for deploy/stack.env is missing; start one: make up" in done.stdout


DOCKERS = {
    "There is no program docker here; install Docker Engine with Compose v2: https://": None,
    "This docker has no Compose v2": 'case $1 in compose) echo "unknown command: docker compose" >&2; exit 1; esac',
    "Docker's daemon cannot be used; .* It says: No daemon$": "case $1 in version) echo No daemon >&2; exit 1; esac",
}


@pytest.mark.parametrize("says", DOCKERS)
def test_what_is_missing_of_docker_is_said_in_a_line(checkout: Path, says: str) -> None:
    for folder in ("deploy", "programs"):
        (checkout / folder).mkdir()
    (checkout / "deploy" / "stack.env").touch()
    for name in ("sh", "make", "cat"):
        (checkout / "programs" / name).symlink_to(shutil.which(name) or "")
    if program := DOCKERS[says]:
        (checkout / "programs" / "docker").write_text(f"#!/bin/sh\n{program}\n")
        (checkout / "programs" / "docker").chmod(0o755)
    for target in ("up", "run", "logs", "image", "backup", "notify-test"):
        done = make(checkout, target, f"PATH={checkout / 'programs'}")
        assert (done.returncode, len(done.stdout.splitlines())) == (2, 1), target
        assert re.match(says, done.stdout.strip()), target


def test_clean_knows_every_file_that_a_run_stores(golden: Golden) -> None:
    files = {key for key in golden.files if not key.startswith("releases/")}
    assert {*PRODUCED, "results/metrics.json"} >= files


def test_an_old_python_is_refused_by_its_version(checkout: Path) -> None:
    old = checkout / "old python"
    old.write_text('#!/bin/sh\ntest "$1" = -V && echo "Python 3.9.18"\nexit 1\n')
    old.chmod(0o755)
    for name in ("requirements.lock", "pyproject.toml"):
        (checkout / name).touch()
    done = make(checkout, "install", f"PYTHON={old}")
    assert done.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 is needed" in done.stdout
    assert "is Python 3.9.18; try make PYTHON=python3.12 install" in done.stdout
