"""A folder of files on a Dask cluster: its workers die, its scheduler is away, of another version, or lost."""

import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest

from bcw_assets.cli import executors
from bcw_assets.cli.folder_scoring import MARK, score_files
from bcw_assets.storage.store import open_store
from bcw_assets_tests import loopback
from bcw_assets_tests.cli.test_folder_scoring import bcw, fill, open_champion, read_scores, start
from bcw_assets_tests.conftest import Place, sweep
from bcw_assets_tests.servers import find_ports, run_server, wait_until

NODE = """
from distributed import versions
find_version = versions._version_cached
versions._version_cached = lambda name: "2001.1.0" if name == {!r} else find_version(name)
from distributed.cli.dask_{} import main
main()
"""
"""A node of a cluster, which says that it has another version of a package."""

Node = subprocess.Popen[bytes]


def start_cluster(
    stack: ExitStack, folder: Path, workers: int = 2, *, old: dict[str, str] | None = None
) -> tuple[str, list[Node]]:
    """Start a scheduler and workers on ports of their own, and return the address, and the processes."""
    port, nodes = find_ports(1)[0], []
    address = f"tcp://127.0.0.1:{port}"
    of_worker = (address, "--no-nanny", "--nthreads", "1")
    for number, kind in enumerate(["scheduler", *["worker"] * workers]):
        log, options = (
            folder / f"{kind}-{number}",
            of_worker if number else ("--host", "127.0.0.1", "--port", str(port)),
        )
        program = [sys.executable, "-c", NODE.format((old or {}).get(kind), kind), *options, "--no-dashboard"]
        is_up = lambda log=log: b"Regist" in log.read_bytes() or b"Scheduler at" in log.read_bytes()  # noqa: E731
        nodes.append(stack.enter_context(run_server(log, program, os.environ, lambda: None)))
        wait_until(is_up)
    return address, nodes


@pytest.mark.sweep
def test_a_cluster_one_of_whose_workers_is_killed_gives_the_same_bytes(
    places: Place, raw: pd.DataFrame, tmp_path: Path
) -> None:
    fill(places, raw, files=12, times=20)
    with ThreadPoolExecutor(1) as executor:
        score_files(executor, open_champion(), [places("in")], places("undisturbed"))
    with ExitStack() as stack:
        address, (_, _, worker) = start_cluster(stack, tmp_path)
        command = stack.enter_context(start(places("in"), "-o", places("out") + "/", "--scheduler", address))
        wait_until(lambda: len(open_store(places("out")).list("")) > 3)
        worker.kill()
        # A worker may be killed between an output and its report: then another finds it there.
        assert re.search(r"13 files: 1[23] scored, [01] were there, 0 cannot be scored", command.communicate()[1])
        assert command.returncode == 0
    assert read_scores(places) == read_scores(places, "undisturbed")


@pytest.mark.sweep
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_lost_is_said_in_a_line_and_what_is_scored_stays(
    places: Place, raw: pd.DataFrame, tmp_path: Path, number: signal.Signals
) -> None:
    fill(places, raw, files=12, times=100)
    with ExitStack() as stack:
        address, (scheduler, *_) = start_cluster(stack, tmp_path)
        command = stack.enter_context(start(places("in"), "-o", places("out") + "/", "--scheduler", address))
        wait_until(lambda: len(open_store(places("out")).list("")) > 3)
        scheduler.send_signal(number)
        lines = command.communicate()[1].splitlines()
        assert (command.returncode, lines[3:]) == (1, [])
        assert lines[-1] == "Failed: The scheduler was lost. Start it, and then this command again, which goes on"
    assert bcw("in", "-o", "out/").exit_code == 0
    assert len(read_scores(places)) == 13


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("workers", "old", "says"),
    [
        (0, {}, "has no workers; start some: dask worker tcp://127.0.0.1:"),
        (1, {"scheduler": "distributed"}, " has distributed 2001.1.0, and here is "),
        (1, {"worker": "bcw-assets"}, " has bcw-assets 2001.1.0, and here is "),
        (1, {"scheduler": "bcw-assets"}, ""),
    ],
)
def test_a_cluster_that_would_score_otherwise_is_refused(
    places: Place, raw: pd.DataFrame, tmp_path: Path, workers: int, old: dict[str, str], says: str
) -> None:
    fill(places, raw)
    with ExitStack() as stack:
        address, _ = start_cluster(stack, tmp_path, workers, old=old)
        command = stack.enter_context(start(places("in"), "-o", places("out") + "/", "--scheduler", address))
        lines = command.communicate()[1].splitlines()
    assert command.returncode == (1 if says else 0)
    assert says in lines[2]
    assert len(lines) == (3 if says else 4)
    assert (MARK in open_store(places("out")).list("")) == (not says)


@pytest.mark.parametrize("step", sweep([loopback.hang, loopback.refuse, loopback.body(b"a page")]))
def test_a_scheduler_that_does_not_answer_is_said_in_a_line(
    places: Place, raw: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, step: loopback.Step
) -> None:
    monkeypatch.setattr(executors, "ANSWER_LIMIT", 1)
    fill(places, raw)
    with loopback.serve(step) as server:
        address = server.url.replace("http", "tcp")
        done = bcw("in", "-o", "out/", "--scheduler", address)
    *_, line = done.stderr.splitlines()
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 3)
    assert line.startswith(f"Failed: No Dask scheduler of our version answers at {address} (")
    assert not Path("out").exists()
