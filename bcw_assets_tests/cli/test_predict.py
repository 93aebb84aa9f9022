"""`bcw predict` as its users meet it: what it writes, what it says, and the exit code."""

import csv
import io
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from bcw_assets.cli import predict
from bcw_assets.cli.main import main
from bcw_assets.ml.table import columns
from bcw_assets.releases import log
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests.conftest import BIN, Graph, Place, with_all
from bcw_assets_tests.ml.table.test_forms import WITH_IDS, Form, labels, parquet, table
from bcw_assets_tests.releases.candidates import Candidate
from bcw_assets_tests.tables import uci_form


@pytest.fixture
def folder(tmp_path: Path, one_release: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a release, and the table in it."""
    with_all(FolderStore(tmp_path), one_release)
    (tmp_path / "table.csv").write_bytes(uci_form())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def released(
    store: Store, place: Place, one_release: dict[str, bytes], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Store:
    """A store with a release, which the environment names, and a working folder with the table."""
    with_all(store, one_release)
    monkeypatch.setenv("BCW_STORAGE", place("store"))
    return store


def bcw(*arguments: str, given: bytes | None = None) -> Result:
    """Run `bcw predict` in this process, with the bytes on standard input."""
    return CliRunner().invoke(main, ["predict", *arguments], input=given)


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


@pytest.fixture(scope="session")
def expected(raw: pd.DataFrame, made: dict[str, Any]) -> dict[str, float]:
    """The pipeline's probability of every id."""
    numbers = made["model"].predict_proba(raw[list(columns.MEASUREMENTS)])[:, 1]
    return dict(zip(raw["id"], numbers.tolist(), strict=True))


@pytest.mark.every_store
def test_every_row_gets_its_probability_and_the_streams_say_the_rest(
    released: Store, candidate: Candidate, expected: dict[str, float]
) -> None:
    done = bcw("table.csv")
    assert done.exit_code == 0
    rows = rows_of(done.stdout_bytes)
    assert [row["id"] for row in rows] == [*expected]
    for row in rows:
        assert float(row["probability_malignant"]) == pytest.approx(expected[row["id"]], abs=1e-12)
        assert row["malignant"] == str(int(float(row["probability_malignant"]) >= 0.5))
        assert (row["release"], row["problems"]) == (candidate.id, "")
    assert done.stdout_bytes.startswith(b"id,probability_malignant,malignant,release,problems\n")
    assert b"\r" not in done.stdout_bytes
    first, *rest = done.stderr.splitlines()
    assert re.fullmatch(
        rf"Release {candidate.id}, the champion, made 20[-0-9T:+]+; cross-validated sensitivity 0\.964 \(0\.930 to "
        r"0\.982\), ROC AUC 0\.995 \(0\.985 to 0\.998\), with 95 % intervals",
        first,
    )
    assert rest == [
        "This is no medical device: nothing here may decide about a patient.",
        "569 rows scored, 209 of them malignant at a threshold of 0.5",
        (
            "Agreement with the diagnoses of the input: 0.9842 (0.970 to 0.992), with its 95 % interval, of 569 rows; "
            "this release was trained on 455 of them, so that is not an evaluation"
        ),
    ]


@pytest.mark.parametrize("name", ["Excel", "a zip", "semicolons, decimal commas", "float32", "Parquet"])
def test_other_forms_from_a_pipe_give_the_same_probabilities(
    folder: Path, raw: pd.DataFrame, expected: dict[str, float], name: str
) -> None:
    done = bcw("-", given=WITH_IDS[name](raw))
    assert done.exit_code == 0
    numbers = sorted(float(row["probability_malignant"]) for row in rows_of(done.stdout_bytes))
    np.testing.assert_allclose(numbers, sorted(expected.values()), rtol=1e-6 if name == "float32" else 1e-12)
    assert "this release was trained on 455 of them, so that is not an evaluation" in done.stderr


def test_what_is_not_the_table_ends_with_its_reason_and_code_2_and_leaves_nothing(folder: Path) -> None:
    (folder / "patients.csv").write_bytes(b"<html>moved</html>")
    before = sorted(folder.iterdir())
    done = bcw("patients.csv", "-o", "out.csv")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("Failed: It is an HTML or XML page: give the file itself")
    assert done.stderr.endswith(". patients.csv cannot be scored\n")
    assert done.stderr.count("\n") == 1
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("none.csv", "No such file or directory"),
        ("https://host/table.csv", "no address is, but s3://bucket/key. Download it"),
        ("releases", "Is a directory"),
        ("/proc/self/mem", "Input/output error"),
    ],
)
def test_an_input_that_cannot_be_read_ends_with_code_2(folder: Path, source: str, says: str) -> None:
    done = bcw(source)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Failed: {source} cannot be read: {says}")


def test_bad_rows_are_scored_around_named_and_counted(folder: Path) -> None:
    unreadable = uci_form().partition(b"\n")[0].replace(b"17.99", b"\xe9") + b"\n"
    impossible = unreadable.replace(b"\xe9", b"1799")
    (folder / "many.csv").write_bytes(uci_form() + unreadable + impossible * 2 + uci_form())
    done = bcw("many.csv", "-o", "out.csv")
    assert done.exit_code == 3
    rows = rows_of((folder / "out.csv").read_bytes())
    says = ("Line 570: it holds the byte 0xe9", *["radius_worst is 25.38; radius_worst - radius_mean is -1774"] * 2)
    for row, beginning in zip(rows[569:-569], says, strict=True):
        assert (row["probability_malignant"], row["malignant"]) == ("", "")
        assert row["problems"].startswith(beginning)
    assert all(row["probability_malignant"] for row in rows[:569] + rows[-569:])
    assert "1,138 rows scored" in done.stderr
    assert re.search(r"^3 rows not scored, most often because of R\d+ \(2 rows\)$", done.stderr, re.M)


def test_warnings_do_not_prevent_scores(folder: Path) -> None:
    done = bcw("-", given=uci_form().replace(b",M,", b",ill,", 2))
    assert done.exit_code == 0
    first = rows_of(done.stdout_bytes)[0]
    assert first["problems"] == "warning: Line 1, id 10003: diagnosis is 'ill'; allowed is M or B"
    assert "2 rows with warnings" in done.stderr
    assert "of 567 rows" in done.stderr


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (table(["diagnosis"]), ["569 rows scored, 209 of them malignant at a threshold of 0.5"]),
        (
            table(assign={"diagnosis": labels(1, 0), "age": 50}),
            [
                "The input has no diagnoses that say who was malignant: the column 'diagnosis' holds 0 and 1,",
                "Left out, because the model has no use for it: 'age'",
                "569 rows scored",
            ],
        ),
        (
            table(assign={"diagnosis": labels("B", "M")}),
            [
                "569 rows scored",
                "The diagnoses of the input look inverted: most of them are the other than the model's",
                "Agreement with the diagnoses of the input: ",
            ],
        ),
        (table(assign={"diagnosis": "M"}), ["569 rows scored", "Agreement with the diagnoses of the input: "]),
    ],
    ids=["no diagnoses", "what is not looked at", "inverted", "one diagnosis only"],
)
def test_of_an_input_is_said_what_it_lacks_and_nothing_else(
    folder: Path, raw: pd.DataFrame, make: Form, says: list[str]
) -> None:
    lines = bcw("-", given=make(raw)).stderr.splitlines()[2:]
    assert [line[: len(beginning)] for line, beginning in zip(lines, says, strict=True)] == says


def test_a_header_alone_gives_a_header(folder: Path) -> None:
    done = bcw("-", given=",".join(columns.RAW).encode())
    assert (done.exit_code, done.stdout) == (0, "id,probability_malignant,malignant,release,problems\n")


def test_an_id_that_needs_quotes_keeps_its_commas(folder: Path) -> None:
    done = bcw("-", given=b'"a,""1"""' + uci_form()[5:])
    assert rows_of(done.stdout_bytes)[0]["id"] == 'a,"1"'


def test_the_threshold_decides_who_is_called_malignant(folder: Path) -> None:
    counts = {}
    for threshold in ("0", "0.1", "0.9", "1"):
        done = bcw("table.csv", "--threshold", threshold)
        counts[threshold] = sum(row["malignant"] == "1" for row in rows_of(done.stdout_bytes))
        assert f"{counts[threshold]} of them malignant at a threshold of {threshold}" in done.stderr
        assert "look inverted" not in done.stderr
    assert counts["0"] == 569 > counts["0.1"] > counts["0.9"] > counts["1"]


@pytest.mark.parametrize("threshold", ["nan", "-0.1", "1.1", "half"])
def test_a_threshold_that_is_no_probability_is_refused(folder: Path, threshold: str) -> None:
    done = bcw("table.csv", "--threshold", threshold)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Invalid value for '--threshold'" in done.stderr


def test_explain_adds_the_three_largest_contributions(folder: Path) -> None:
    done = bcw("-", "--explain", given=uci_form().replace(b"17.99", b"?", 1))
    first, second = rows_of(done.stdout_bytes)[:2]
    names = ["contribution_1", "contribution_2", "contribution_3"]
    assert [first[name] for name in names] == ["", "", ""]
    sizes = [abs(float(second[name].split()[1])) for name in names]
    assert sizes == sorted(sizes, reverse=True)
    assert all(re.fullmatch(r"\w+ [+-]\d+\.\d\d", second[name]) for name in names)


def test_an_output_file_is_what_standard_output_would_be_and_who_may_read_it_stays_as_it_was(folder: Path) -> None:
    before = os.umask(0o027)
    try:
        assert bcw("table.csv", "-o", "out.csv").exit_code == 0
    finally:
        os.umask(before)
    assert (folder / "out.csv").read_bytes() == bcw("table.csv", "-o", "-").stdout_bytes
    assert stat.S_IMODE((folder / "out.csv").stat().st_mode) == 0o640
    (folder / "out.csv").chmod(0o600)
    assert bcw("table.csv", "-o", "out.csv").exit_code == 0
    assert stat.S_IMODE((folder / "out.csv").stat().st_mode) == 0o600


def test_a_link_to_the_output_and_a_device_are_written_to_and_not_replaced(folder: Path) -> None:
    (folder / "link.csv").symlink_to("out.csv")
    bcw("table.csv", "-o", "link.csv")
    assert (folder / "link.csv").is_symlink()
    assert (folder / "out.csv").stat().st_size > 10_000
    assert bcw("table.csv", "-o", os.devnull).exit_code == 0
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


def test_a_failure_in_the_middle_leaves_the_old_file_and_no_other(folder: Path) -> None:
    (folder / "out.csv").write_text("old")
    before = sorted(folder.iterdir())
    format_rows = mock.Mock(side_effect=[b"first\n", OSError(28, "No space left on device")])
    with mock.patch.object(predict, "format_rows", format_rows):
        done = bcw("table.csv", "-o", "out.csv")
    assert format_rows.call_count == 2
    assert done.exit_code == 1
    assert (folder / "out.csv").read_text() == "old"
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("table.csv", "table.csv is the input, which is never written to; give another file to -o"),
        ("./releases/../table.csv", "is the input"),
        ("releases", "releases cannot be written: Is a directory. What was there before is unchanged"),
        ("none/out.csv", "none/out.csv cannot be written: No such file or directory"),
        ("/dev/full", "/dev/full cannot be written: No space left on device"),
    ],
)
def test_an_output_that_cannot_be_written_ends_with_code_1(folder: Path, target: str, says: str) -> None:
    done = bcw("table.csv", "-o", target)
    assert done.exit_code == 1
    assert says in done.stderr
    assert (folder / "table.csv").read_bytes() == uci_form()


def test_standard_input_is_not_written_to_either_and_a_link_to_itself_gets_the_output(folder: Path) -> None:
    command = [str(BIN / "bcw"), "predict", "-", "-o", "table.csv"]
    with open(folder / "table.csv", "rb") as source:
        done = subprocess.run(command, stdin=source, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "table.csv is the input" in done.stderr) == (1, True)
    assert (folder / "table.csv").read_bytes() == uci_form()
    (folder / "loop").symlink_to("loop")
    assert bcw("table.csv", "-o", "loop").exit_code == 0
    assert (folder / "loop").stat().st_size > 10_000


def test_a_damaged_release_ends_with_code_1_and_its_file(released: Store, candidate: Candidate) -> None:
    released.write({f"releases/{candidate.id}/model.json": b"{}"})
    done = bcw("table.csv")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"releases/{candidate.id}/model.json is not what the manifest says" in done.stderr


def test_without_a_release_the_command_that_makes_one_or_says_why_it_was_refused_is_said(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BCW_STORAGE", place("store"))
    says = f"Failed: There is no release in {place('store')}/releases yet"
    done = bcw("table.csv")
    assert (done.exit_code, done.stderr) == (1, f"{says}. To make one: bcw refresh\n")
    open_store(place("store")).write({f"{log.REFUSAL_PREFIX}of-the-gate.json": b"{}"})
    assert bcw("table.csv").stderr == f"{says}: the gate refused what was made. Why: bcw checks\n"


@pytest.fixture
def scoring_graph(graph: Graph, one_release: dict[str, bytes]) -> Graph:
    with_all(graph.store, one_release)
    return graph


@pytest.mark.parametrize(
    ("words", "code", "output", "says"),
    [
        ("bcw predict - < table.parquet", 0, 570, "Agreement with the diagnoses of the input: 0.9842"),
        ("bcw predict many.csv | head -1", 0, 1, "This is no medical device: nothing here may decide about a patient."),
        (
            "bcw predict table.csv > /dev/full",
            1,
            0,
            "Failed: Standard output cannot be written: No space left",
        ),
        ("bcw predict table.csv >&-", 1, 0, "Failed: Standard output is closed; give a file to -o"),
        ("bcw predict - <&-", 2, 0, "Failed: Standard input is closed; give the path of a file"),
        ("bcw predict table.csv -o /dev/stdout", 0, 570, "Agreement with the diagnoses of the input: 0.9842"),
    ],
)
def test_a_standard_stream_that_is_a_pipe_full_closed_or_named_is_met(
    scoring_graph: Graph, raw: pd.DataFrame, words: str, code: int, output: int, says: str
) -> None:
    for name, content in (("csv", uci_form()), ("parquet", parquet(raw))):
        (scoring_graph.folder / f"table.{name}").write_bytes(content)
    (scoring_graph.folder / "many.csv").write_bytes(uci_form() * 20)
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; PATH='{BIN}':$PATH; {words}"],
        env=scoring_graph.environment(), cwd=scoring_graph.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.count("\n")) == (code, output)
    assert done.stderr.splitlines()[-1].startswith(says)
    assert "Traceback" not in done.stderr


def test_a_signal_in_the_middle_leaves_the_old_file_and_no_other(scoring_graph: Graph) -> None:
    (scoring_graph.folder / "out.csv").write_text("old")
    for number, code in ((signal.SIGINT, 1), (signal.SIGTERM, 143)):
        process = subprocess.Popen(
            [BIN / "bcw", "predict", "-", "-o", "out.csv"], env=scoring_graph.environment(), cwd=scoring_graph.folder,
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
            # What starts in the background of a shell ignores SIGINT, and so would the tests' children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert process.stdin
        process.stdin.write(uci_form() * 3)
        process.stdin.flush()
        while not list(scoring_graph.folder.glob(".*.bcw-tmp")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate()
        assert process.returncode == code
        assert (scoring_graph.folder / "out.csv").read_text() == "old"
        assert list(scoring_graph.folder.glob(".*.bcw-tmp")) == []


def test_a_person_at_a_terminal_sees_a_table_with_reasons(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "two.csv").write_bytes(b"".join(uci_form().splitlines(keepends=True)[:2]).replace(b",17.99,", b",x,"))
    controller, terminal = pty.openpty()
    with open(terminal, "w") as output, monkeypatch.context() as at_a_terminal:
        at_a_terminal.setattr(sys, "stdout", output)
        assert predict.score_file(predict.Request("two.csv", "-", None, 0.5, explain=False)) == 3
        header, first, second = os.read(controller, 10_000).decode().splitlines()
    os.close(controller)
    assert header.split()[:3] == ["id", "malignant", "call"]
    assert re.search(r"^\S+ +not scored  .*radius_mean is 'x'", first)
    assert re.search(r"^\S+ +(> )?\d+\.\d %  malignant   \w+ [+-]\d\.\d\d, \w+ [+-]\d\.\d\d, \w+ [+-]", second)


@pytest.mark.parametrize(("rows", "without"), [(1, {"pyarrow"}), (1138, set())])
def test_scoring_needs_no_pandas_scikit_learn_or_dagster_and_few_rows_no_pyarrow(
    scoring_graph: Graph, rows: int, without: set[str]
) -> None:
    (scoring_graph.folder / "some.csv").write_bytes(b"".join((uci_form() * 2).splitlines(keepends=True)[:rows]))
    program = (
        "import sys; from bcw_assets.cli.main import main; sys.argv[1:] = ['predict', 'some.csv', '-o', 'out.csv']\n"
        "try: main()\nexcept SystemExit: print(*sys.modules)"
    )
    modules = scoring_graph.python(program).split()
    assert "bcw_assets.cli.scoring" in modules
    without = without | {"pandas", "sklearn", "scipy", "dagster", "matplotlib", "requests"}
    loaded = {name.split(".")[0] for name in modules}
    assert loaded & without == set()
    assert ("pyarrow" in loaded) == (rows == 1138)
