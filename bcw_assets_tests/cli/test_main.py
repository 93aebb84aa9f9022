"""`bcw refresh` as a person and as a script meet it: processes of their own, on a terminal and in a pipe."""

import fcntl
import os
import pty
import re
import shlex
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import dagster as dg
import pytest
from click.testing import CliRunner

from bcw_assets.cli.main import main, releases
from bcw_assets_tests import programs
from bcw_assets_tests.conftest import Graph
from bcw_assets_tests.loopback import hang, serve


def test_in_a_pipe_a_refresh_says_only_the_summary_(graph: Graph) -> None:
    done = graph.process("bcw", "refresh")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"accuracy +0\.9737 +0\.9793, 0\.964 to 0\.988", done.stdout)
    assert f"Source       {graph.source}\n" in done.stdout
    assert "Fingerprint  ae5f3663df59" in done.stdout
    assert f"Files        {graph.store.address('data')}/ and {graph.store.address('results')}/\n" in done.stdout
    assert f" of the log ({graph.store.address('releases')}/" in done.stdout
    assert re.search(rf"bcw predict {graph.store.address('releases')}/\w+/example.csv\n", done.stdout)
    assert "Gate         not judged: there is no champion before it\n" in done.stdout
    with dg.DagsterInstance.from_config(str(graph.home("home"))) as instance:
        (run,) = instance.get_runs(dg.RunsFilter(tags={".dagster/repository": "__repository__@bcw_assets"}))
        assert run.remote_job_origin
        assert run.remote_job_origin.location_name == "bcw_assets"  # for the timeline of the UI


def test_named_assets_alone_are_made_in_their_order_and_what_is_older_now_is_said(graph: Graph) -> None:
    graph.prepare()
    before = graph.files()
    done = graph.process("bcw", "refresh", "model", "ready_data")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"ready_data       {graph.store.address('data/ready_data.json')}",
        f"model            {graph.store.address('results/model.json')}",
        "Next             make again what is older than that: bcw refresh cross_validation metrics release",
    ]
    assert graph.files() == before
    with dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs()
        steps = {step.step_key for step in instance.get_run_step_stats(run.run_id)}
    assert run.job_name == "__ASSET_JOB"
    assert steps == {"ready_data", "ready_data_checks", "model", "model_checks"}


def read_terminal(controller: int) -> str:
    content = b""
    with suppress(OSError):
        while part := os.read(controller, 4096):
            content += part
    return content.decode().replace("\r\n", "\n")


def test_on_a_terminal_a_refresh_shows_each_stage_while_it_works(graph: Graph) -> None:
    controller, terminal = pty.openpty()
    process = programs.start(("bcw", "refresh"), graph.environment(), graph.folder, [os.ttyname(terminal)] * 3)
    with ThreadPoolExecutor(1) as pool:  # a terminal that nobody reads blocks who writes
        output = pool.submit(read_terminal, controller)
        process.join()
        os.close(terminal)
        text = re.sub(r".*\x1b\[K", "", output.result())  # without what is written over
    os.close(controller)
    stages = re.findall(r"^(\w+) … +\d+\.\d s$", text, flags=re.MULTILINE)
    assert stages == ["raw_data", "ready_data", "model", "cross_validation", "metrics", "release"]
    assert not re.search("DEBUG|Warning", text)


def test_a_failure_a_wrong_setting_and_a_wrong_env_file_are_said_in_a_line(graph: Graph) -> None:
    graph.source.write_bytes(b"<html>moved</html>")
    done = graph.process("bcw", "refresh")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("Failed: raw_data: It is an HTML or XML page: give the file itself.*\n", done.stderr)
    done = graph.process("bcw", "refresh", BCW_SORCE="auto")
    assert re.fullmatch(r"Failed: BCW_SORCE is no setting; did you mean BCW_SOURCE\?.*\n", done.stderr)
    done = graph.process("bcw", "refresh", DAGSTER_HOME="/proc/none")
    assert re.fullmatch("Failed: Dagster could not keep or read the history in /proc/none.*\n", done.stderr)
    done = graph.process("bcw", "refresh", "raw_data", "metrix")
    nearest = "did you mean metrics? Allowed are raw_data, ready_data, model, cross_validation, metrics, release"
    assert done.stderr == f"Failed: metrix is no asset; {nearest}\n"
    (graph.folder / ".env").write_bytes(b"\xff\xfe")
    assert re.fullmatch(r"Failed: \.env cannot be read .*\n", graph.process("bcw", "refresh").stderr)


def test_a_full_standard_output_and_a_history_that_cannot_be_kept_are_said_and_harm_nothing(graph: Graph) -> None:
    graph.prepare()
    before, errors = graph.files(), graph.folder / "errors"
    streams = (os.devnull, "/dev/full", str(errors))
    process = programs.start(("bcw", "checks"), graph.environment(), graph.folder, streams)  # which makes a history
    process.join()
    assert (process.exitcode, errors.read_text()) == (1, "Failed: [Errno 28] No space left on device\n")
    for path in (graph.folder / "home" / "history").rglob("*.db"):
        path.write_bytes(b"garbage" * 1000)
    done = graph.process("bcw", "refresh")
    assert done.returncode == 1
    assert f"Dagster could not keep or read the history in {graph.folder}/home: " in done.stderr
    assert "Traceback" not in done.stderr
    assert graph.files() == before


def test_the_env_file_is_read_a_fallback_is_said_and_the_history_is_by_default_here(graph: Graph) -> None:
    # A proxy that refuses stands for a network without UCI.
    (graph.folder / ".env").write_text("BCW_SOURCE=auto\nDAGSTER_HOME=\n")
    environment = graph.environment(https_proxy="http://127.0.0.1:9", no_proxy="")
    del environment["BCW_SOURCE"], environment["DAGSTER_HOME"]
    done = programs.run(("bcw", "refresh"), environment, graph.folder)
    assert done.returncode == 0
    why = "UCI could not be reached: the proxy that https_proxy names cannot be used"
    assert f"Source       scikit-learn's embedded copy ({why})\n" in done.stdout
    assert done.stderr == ""
    assert programs.run(("bcw", "checks"), environment, graph.folder).returncode == 0
    assert (graph.folder / ".dagster" / "history").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_refresh_with_a_line_and_the_history_says_so(graph: Graph, number: int) -> None:
    errors = graph.folder / "errors"
    with serve(hang) as server:
        environment, streams = graph.environment(BCW_SOURCE=server.url), (os.devnull, os.devnull, str(errors))
        process = programs.start(("bcw", "refresh"), environment, graph.folder, streams, is_session=True)
        while not server.requests and process.is_alive():
            time.sleep(0.05)
        os.killpg(process.pid or 0, number)  # as a terminal does for Ctrl-C
        process.join()
    says = "Failed: raw_data: stopped by a signal. What was stored before is unchanged; run it again\n"
    assert (process.exitcode, errors.read_text()) == (1, says)
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        assert instance.get_runs()[0].status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def test_first_commands_at_once_on_a_new_home_all_end_well(graph: Graph) -> None:
    errors = [graph.folder / f"errors-{number}" for number in range(4)]
    start = partial(programs.start, ("bcw", "checks"), graph.environment(), graph.folder)
    processes = [start((os.devnull, os.devnull, str(file))) for file in errors]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [1] * 4  # for nothing was made yet
    assert [file.read_text() for file in errors] == [""] * 4


def test_a_port_that_is_taken_while_the_ui_starts_ends_it(graph: Graph) -> None:
    (graph.folder / "dagster.py").write_text("print('[Errno 98] address already in use', flush=True)\ninput()\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = graph.process("bcw", "dev", "--port", str(port))
    says = f"Failed: Port {port} of 127.0.0.1 was taken meanwhile. Take another: --port {port + 1}\n"
    assert (done.returncode, done.stderr.endswith(says)) == (1, True)


def test_settings_of_dagster_that_are_no_yaml_are_named(graph: Graph) -> None:
    environment, home = graph.environment(), graph.folder / "home"
    (home / "dagster.yaml").write_text("{[")
    done = programs.run(("bcw", "refresh", "raw_data"), environment, graph.folder)
    assert done.stderr.startswith(f"Failed: Dagster could not keep or read the history in {home}: while parsing a flow")


def test_every_help_is_uncut_and_ends_with_an_example_that_is_allowed() -> None:
    run = partial(CliRunner().invoke, main, env={"COLUMNS": "80"}, prog_name="bcw")
    for above, group in (([], main), (["releases"], releases)):
        assert not re.search(r"\w\.\.\.$", run([*above, "--help"]).stdout, re.MULTILINE)
        for name, command in group.commands.items():
            if command is not releases:
                example = shlex.split(run([*above, name, "--help"]).stdout.rpartition("Example: ")[2])
                assert example[: len(above) + 2] == ["bcw", *above, name]
                command.make_context(name, example[len(above) + 2 :])
    assert re.fullmatch(r"bcw, version \d.*\n", run(["--version"]).stdout)


def test_the_ui_is_refused_on_a_taken_port_and_beside_what_lives_of_another_on_its_history(graph: Graph) -> None:
    # Stands for Dagster, which `python -m` looks for here first: a process that starts another.
    fake = "import subprocess\nprint('it runs', flush=True)\nsubprocess.run(['sleep', '1000'])\n"
    (graph.folder / "dagster.py").write_text(fake)
    output, errors, lock = graph.folder / "output", graph.folder / "errors", graph.folder / "home" / "dev.lock"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        done = graph.process("bcw", "dev", "--port", port)
    assert re.fullmatch(f"Failed: Port {port} of 127.0.0.1 cannot be used: .* Take another: .*\n", done.stderr)
    command, streams = ("bcw", "dev", "--port", port), (os.devnull, str(output), str(errors))
    for number in (signal.SIGKILL, signal.SIGINT):
        errors.write_text("")
        process = programs.start(command, graph.environment(), graph.folder, streams)
        while "it runs" not in errors.read_text() and process.is_alive():
            time.sleep(0.05)
        os.kill(process.pid or 0, number)
        process.join()
        if number == signal.SIGKILL:
            done = graph.process(*command)
            group = int(re.findall(f"works on the history in {lock.parent}, .* by kill -- -([0-9]+), ", done.stderr)[0])
            os.killpg(group, signal.SIGTERM)
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # once the last process ended
    assert process.exitcode == 0
    page = f"http://127.0.0.1:{port}/locations/bcw_assets/jobs/refresh_job"
    assert output.read_text().endswith(f" {page}\n\nStopping, in some seconds\n")
