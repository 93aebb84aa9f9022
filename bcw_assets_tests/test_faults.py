"""What is left when a full disk or a signal stops a run: the old artifacts whole, or a command that mends them."""

import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from bcw_assets.storage.s3 import S3Store
from bcw_assets_tests.conftest import Graph, sweep, why
from bcw_assets_tests.tables import shuffled, uci_form

ASSETS = ["raw_data", "ready_data", "model", "cross_validation", "metrics"]
FILES = ["ready_data.csv", "model.pkl", "cross_validation.csv", "raw_data.csv"]


def prepare_another_table(graph: Graph) -> None:
    graph.prepare()
    graph.source.write_bytes(b"".join(shuffled(uci_form()).splitlines(keepends=True)[:400]))


@pytest.mark.parametrize("asset", sweep(["model", "raw_data", "ready_data", "cross_validation", "metrics"]))
def test_a_full_disk_stops_the_run_at_any_stage_and_leaves_what_was_stored(graph: Graph, asset: str) -> None:
    prepare_another_table(graph)
    earlier = ASSETS[: ASSETS.index(asset)]
    assert not earlier or graph.run(*earlier).success
    before = graph.files()
    with mock.patch.object(os, "fsync", side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
        result = graph.run(asset)
    assert not result.success
    assert "No space left on device. What was stored before is unchanged. Make room" in why(result)
    assert graph.files() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk; CI is root")
def test_a_disk_of_three_mebibytes_that_is_full_fails_bcw_refresh_with_the_message(
    graph: Graph, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=True)
    try:
        on_disk = graph.at(str(disk))
        on_disk.prepare()
        before = on_disk.files()
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        process = on_disk.process("bcw", "refresh")
        assert process.returncode == 1
        assert re.match(r"Failed: raw_data: Could not write data/raw_data\.csv.*No space left on dev", process.stderr)
        assert on_disk.files() == before
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def run_until_a_kill(graph: Graph, file: str) -> int:
    """Run everything in a process that SIGKILL ends when `file` is in place; return how the process ended."""

    def kill_after(put_in_place: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            answer = put_in_place(*arguments, **options)
            if any(str(path_or_key).endswith(f"/{file}") for path_or_key in (*arguments, options.get("Key"))):
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        return call

    child = os.fork()  # everything is imported already: a new program would take three seconds more
    if not child:
        os.replace = kill_after(os.replace)  # type: ignore[assignment]
        S3Store._ask = kill_after(S3Store._ask)  # type: ignore[method-assign]
        graph.run()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on; the child only runs and dies
@pytest.mark.every_store
@pytest.mark.parametrize("file", sweep(FILES))
def test_a_kill_between_two_files_or_before_the_record_is_refused_on_loading_with_the_command_that_mends_it(
    graph: Graph, file: str
) -> None:
    prepare_another_table(graph)
    assert run_until_a_kill(graph, file) == -signal.SIGKILL
    asset = file.partition(".")[0]
    result = graph.run(ASSETS[ASSETS.index(asset) + 1])
    assert not result.success
    assert f"To make it: bcw refresh {asset}" in why(result)
    assert graph.run(*ASSETS).success
