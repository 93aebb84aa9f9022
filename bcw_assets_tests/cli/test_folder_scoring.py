"""A folder of files: which outputs there are, that each is there once and whole, and what is said of the rest."""

import io
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pandas as pd
import psutil
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from bcw_assets.cli.executors import MOST_DEATHS, Processes, list_fatal_errors
from bcw_assets.cli.folder_scoring import MARK, find_inputs, score_files
from bcw_assets.cli.main import main
from bcw_assets.errors import StorageUnavailable, TableError
from bcw_assets.releases.access import Release, open_release
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import open_store
from bcw_assets_tests.conftest import BIN, CHECKOUT, Place, contents, sweep, with_all
from bcw_assets_tests.ml.table.test_forms import parquet
from bcw_assets_tests.releases.candidates import Candidate
from bcw_assets_tests.servers import wait_until
from bcw_assets_tests.tables import shuffled, uci_form

PAGE = b"<html>moved</html>"


def open_champion() -> Release:
    return open_release(open_store(os.environ["BCW_STORAGE"]), None)


def bcw(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["predict", *arguments])


NAMES = (
    *("~a.csv", "~b.csv.GZ"),
    *("a.csv", "b.csv.gz", "c.data", "d.parquet", "e.CSV", "f.xlsx", "sub/a.csv", "sub/deep/g.parquet"),
    *("_SUCCESS", ".hidden.csv", "_old/h.csv"),
)


OUTPUTS = {
    "in/~a.csv": "~a.csv",
    "in/": "a.csv b.csv c.data.csv d.parquet e.CSV f.xlsx.csv sub/a.csv sub/deep/g.parquet ~a.csv ~b.csv",
    "in/*.csv": "a.csv ~a.csv",
    "in/[a-c].* in/sub/deep/": "a.csv b.csv c.data.csv g.parquet",
    "in/s*/*": "sub/a.csv",
    "in/d.parquet in/f.xlsx in/d.parquet in/none.csv": "d.parquet f.xlsx.csv none.csv",
    "in/_old/": "h.csv",
    "in/a.csv in/sub/": "Both .*/in/a.csv and .*/in/sub/a.csv would become .*/out/a.csv",
    "in/ in/*.txt": "There is no file to score in .*in/.*txt",
    "nowhere/": "There is no file to score in ",
    "out/": "There is no file to score in .*/out are left out",
}
"""Inputs → outputs, or what is said."""


@pytest.mark.every_store
def test_an_output_has_the_name_of_its_input_below_what_was_asked_for(place: Place) -> None:
    with_all(open_store(place("in")), dict.fromkeys(NAMES, b"a table"))
    with_all(open_store(place("out")), {"a.csv": b"scores"})
    root = place("x").removesuffix("x")
    for sources, outputs in OUTPUTS.items():
        paths = [root + source for source in sources.split()]
        if outputs[0].isupper():
            with pytest.raises(TableError, match=outputs):
                find_inputs(paths, place("out"))
        else:
            inputs = find_inputs(paths, place("out"))
            assert " ".join(sorted(inputs)) == outputs
            assert all(path.startswith(f"{root}in/") for path in inputs.values())
    for source in ("-", ""):  # the last, of an empty variable of a shell
        with pytest.raises(TableError, match=f"'{source}' has no name for an output"):
            find_inputs([source], place("out"))


def fill(place: Place, raw: pd.DataFrame, files: int = 2, times: int = 1) -> dict[str, bytes]:
    """Store tables in `in`, one of them as Parquet, the others with so many times the rows, each in its own order."""
    inputs = {f"{number % 3}/{number}.csv": shuffled(uci_form(), number) * times for number in range(files)}
    inputs["q.parquet"] = parquet(raw)
    with_all(open_store(place("in")), inputs)
    return inputs


def read_scores(place: Place, name: str = "out") -> dict[str, bytes]:
    outputs = contents(open_store(place(name)))
    assert outputs.pop(MARK)
    return outputs


@pytest.mark.every_store
def test_an_output_is_what_a_single_file_would_be_and_what_is_there_is_left(
    places: Place, raw: pd.DataFrame, candidate: Candidate
) -> None:
    inputs = fill(places, raw)
    with_all(open_store(places("in")), {"bad.csv": PAGE, "0/odd.csv": uci_form().replace(b",17.99,", b",1799,", 1)})
    done = bcw(places("in") + "/", "-o", places("out") + "/", "--workers", "2", "--explain")
    assert done.exit_code == 3
    outputs, alone = read_scores(places), bcw(places("in/1/1.csv"), "--explain")
    assert {*outputs} == {*inputs, "0/odd.csv"}
    assert outputs["1/1.csv"] == alone.stdout_bytes
    table = pyarrow.parquet.read_table(io.BytesIO(outputs["q.parquet"]))
    assert table.schema.metadata == {b"release": candidate.id.encode(), b"threshold": b"0.5"}
    frames = (pd.read_csv(io.BytesIO(outputs["1/1.csv"]), dtype={"id": str}, na_filter=False), table.to_pandas())
    of_csv, of_parquet = (frame.sort_values("id", ignore_index=True) for frame in frames)
    pd.testing.assert_frame_equal(of_csv, of_parquet, check_dtype=False)
    *first, problem, files, rows = done.stderr.splitlines()
    assert first == alone.stderr.splitlines()[:2]
    assert problem.startswith("It is an HTML or XML page")
    assert problem.endswith(f"{places('in/bad.csv')} cannot be scored")
    assert files == "5 files: 4 scored, 0 were there, 1 cannot be scored"
    assert rows.startswith("2,276 rows, 1 of them not scored; ")

    open_store(places("out")).write({"q.parquet": b"as it was"})
    open_store(places("out")).delete("1/1.csv")
    again = bcw(places("in/*/*.csv"), places("in/q.parquet"), "-o", places("out") + "/", "--explain")
    assert (again.exit_code, "4 files: 1 scored, 3 were there, 0 cannot be scored" in again.stderr) == (0, True)
    assert read_scores(places) == outputs | {"q.parquet": b"as it was"}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("in/ -o out/ --threshold 0.1", 1, '"threshold": 0.5, "explain": false}, not of {"release": "'),
        ("in/ -o out/ --explain", 1, "give another folder to -o, or the same --release, --threshold and --explain"),
        ("in/ -o foreign/", 1, f"foreign/q.parquet is there, and no {MARK} that says what scored it"),
        ("in/ -o file/", 1, "file"),
        ("bad.csv worse.csv -o empty/", 2, "worse.csv cannot be read: No such file or directory"),
        ("nothing/ -o empty/", 2, "There is no file to score in nothing/; allowed are a file, a folder, a pattern"),
        ("in/ -o empty/ --scheduler nowhere:1:2", 1, "No Dask scheduler of our version answers at nowhere:1:2"),
        ("in/ -o empty/ --scheduler a:1 --workers 2", 2, "Give --workers or --scheduler, not both"),
        ("in/ in/q.parquet", 2, "Several files, --workers and --scheduler need a folder: -o FOLDER/"),
        ("in/q.parquet -o out.csv --workers 2", 2, "need a folder: -o FOLDER/"),
        ("in/ -o out.csv", 2, "in/ cannot be read: Is a directory. Give a file, or s3://bucket/key; or a folder"),
    ],
)
def test_what_cannot_be_scored_together_is_refused_with_a_reason(
    places: Place, raw: pd.DataFrame, tmp_path: Path, arguments: str, code: int, says: str
) -> None:
    fill(places, raw)
    with ThreadPoolExecutor(1) as executor:
        score_files(executor, open_champion(), ["in/q.parquet"], "out/")
    with_all(open_store("foreign"), {"q.parquet": b""})
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "bad.csv").write_bytes(PAGE)
    before = read_scores(places)
    done = bcw(*arguments.split())
    assert done.exit_code == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert read_scores(places) == before


def test_a_store_that_fails_is_no_fault_of_a_file(
    places: Place, raw: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places, raw)
    fails = mock.Mock(side_effect=StorageUnavailable("the server is away"))
    monkeypatch.setattr(FolderStore, "create", fails)
    with ThreadPoolExecutor(1) as executor, pytest.raises(StorageUnavailable, match="is away"):
        score_files(executor, open_champion(), [places("in") + "/"], places("out") + "/")


def list_workers(command: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the processes that score for a command which may have ended."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in psutil.Process(command.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    return []


@contextmanager
def start(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command, at most to the end of the block."""
    with subprocess.Popen(
        [BIN / "bcw", "predict", *arguments], stderr=subprocess.PIPE, text=True, process_group=0,
        # What starts in the background of a shell ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.every_store
@pytest.mark.parametrize("seed", sweep([*range(5)]))
def test_two_commands_whose_processes_are_killed_leave_every_output_once_and_whole(
    places: Place, raw: pd.DataFrame, tmp_path: Path, seed: int
) -> None:
    files = fill(places, raw, files=6, times=20)
    with ThreadPoolExecutor(1) as executor:
        score_files(executor, open_champion(), [places("in") + "/"], places("undisturbed") + "/")
    moments = random.Random(seed)
    arguments = places("in") + "/", "-o", places("out") + "/", "--workers", "2"
    with start(*arguments) as first, start(*arguments) as second:
        wait_until(lambda: open_store(places("out")).list(MARK))
        for number in range(6):
            time.sleep(moments.uniform(0, 0.5))
            for process in [first] if number == 3 else list_workers(second)[:1]:
                process.kill()
        _, says = second.communicate()
        assert second.returncode == 0, says
    assert bcw(*arguments).exit_code == 0
    assert read_scores(places) == read_scores(places, "undisturbed")
    assert {*read_scores(places)} == {*files}
    assert list(tmp_path.rglob("*.bcw-tmp")) == []


DIE = """
import os, signal
with open("deaths", "a") as file:
    file.write(".")
if os.path.getsize("deaths") <= {}:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_work_that_kills_its_process_again_and_again_is_given_up_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Processes(2) as executor:
        assert executor.submit(exec, DIE.format(MOST_DEATHS)).exception() is None
        too_often = executor.submit(exec, DIE.format(2 * MOST_DEATHS + 2))
        assert executor.submit(abs, -1).result() == 1
        assert isinstance(too_often.exception(), list_fatal_errors())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_command(places: Place, raw: pd.DataFrame, number: signal.Signals) -> None:
    fill(places, raw, files=4, times=100)
    with start(places("in"), "-o", places("out") + "/", "--workers", "2") as command:
        wait_until(lambda: len(list_workers(command)) == 2)
        workers = list_workers(command)
        command.send_signal(number)
        assert "Traceback" not in command.communicate()[1]
        assert psutil.wait_procs(workers, timeout=300)[1] == []


def test_ctrl_c_early_or_late_also_thrice_ends_a_command_that_waits_for_an_input(
    places: Place, raw: pd.DataFrame, tmp_path: Path
) -> None:
    fill(places, raw)
    os.mkfifo(tmp_path / "nobody writes.csv")
    waiting = str(tmp_path / "nobody writes.csv")
    for out, last in (("early", MARK), ("late", "1/1.csv")):  # at the start, and when it waits
        with start(waiting, places("in"), "-o", places(out) + "/", "--workers", "2") as command:
            wait_until(partial(open_store(places(out)).list, last))
            for _ in range(3):
                os.killpg(command.pid, signal.SIGINT)
                time.sleep(0.05)
            assert command.communicate()[1].splitlines()[2:] == ["", "Aborted!"]
            assert command.returncode == 1


def test_what_killed_writers_left_of_an_output_is_removed(places: Place, raw: pd.DataFrame, tmp_path: Path) -> None:
    fill(places, raw)
    folder, leftovers = tmp_path / "out" / "0", list[Path]()
    for name in ("0.csv", "of another command.csv"):
        # As SIGKILL does, let nobody tidy up.
        with (
            mock.patch("os.link", side_effect=KeyboardInterrupt),
            mock.patch("pathlib.Path.unlink"),
            suppress(KeyboardInterrupt),
        ):
            FolderStore(folder).create(name, b"half of a")
        leftovers += {*folder.iterdir()}.difference(leftovers)
    assert len(leftovers) == 2
    with ThreadPoolExecutor(1) as executor:
        score_files(executor, open_champion(), [places("in")], places("out"))
    assert [*tmp_path.rglob("*.bcw-tmp")] == leftovers[1:]


def test_a_name_may_be_as_long_as_the_file_system_allows_and_a_longer_one_is_named(
    places: Place, raw: pd.DataFrame, tmp_path: Path
) -> None:
    fill(places, raw)
    for name in ("ü" * 125 + "1.csv", "new/" + "a" * 255):
        (tmp_path / "in/new").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(uci_form())
    done = bcw(places("in") + "/", "-o", places("out") + "/")
    assert done.exit_code == 3
    assert "5 files: 4 scored" in done.stderr
    assert re.search(r"/a{255} cannot be scored: .*: File name too long", done.stderr)
    assert {*read_scores(places)} == {"0/0.csv", "1/1.csv", "q.parquet", "ü" * 125 + "1.csv"}


def test_an_output_that_is_empty_is_made_and_one_that_is_no_file_is_named(
    places: Place, raw: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places, raw, files=4)
    bcw(places("in") + "/", "-o", places("out") + "/")
    whole = read_scores(places)
    for name in ("q.parquet", "0/0.csv"):
        (tmp_path / "out" / name).write_bytes(b"")  # as a killed writer leaves it where there are no hard links
    for name in ("1/1.csv", "2/2.csv"):
        (tmp_path / "out" / name).unlink()
    (tmp_path / "out/1/1.csv").mkdir()
    (tmp_path / "out/2/2.csv").symlink_to("/nowhere")
    (tmp_path / "out/0/3.csv").unlink()
    (tmp_path / "out/0/3.csv").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in/pipe.csv")  # is no file, and reading it would wait for ever
    monkeypatch.setattr(os, "link", mock.Mock(side_effect=PermissionError))
    with ThreadPoolExecutor(2) as executor:
        summary = score_files(executor, open_champion(), [places("in") + "/"], places("out"))
    assert (summary.files, summary.scored) == (5, 2)
    problems = sorted(problem.partition("cannot be scored: ")[2] for problem in summary.problems)
    assert [problem[:7] for problem in problems] == ["0/3.csv", "1/1.csv", "2/2.csv"]
    assert "is no regular file. Move it away" in problems[0]
    assert all((tmp_path / "out" / name).read_bytes() == whole[name] for name in ("q.parquet", "0/0.csv"))


def test_the_asset_of_the_documentation_scores_what_is_new(places: Place, raw: pd.DataFrame) -> None:
    fill(places, raw)
    page = (CHECKOUT / "docs/scoring.md").read_text()
    program, *_ = re.findall(r"```python\n(import dagster.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(program.replace("s3://my-bucket/breast-cancer", places("store")).replace("s3://my-bucket", "."), names)
    for scored in (3, 0):
        (event,) = dg.materialize([names["scores"]]).get_asset_materialization_events()
        assert event.materialization.metadata["files"].value == 3
        assert event.materialization.metadata["scored"].value == scored
