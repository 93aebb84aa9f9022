"""Programs of the virtual environment, forked from a process that has imported what they import.

A program that starts anew imports for three seconds, which few tests are about.
"""

import importlib.metadata
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

# Not the definitions themselves: they are made from the environment, which every program has its own of.
IMPORTED = [
    *("bcw_assets.assets", "bcw_assets.automation", "bcw_assets.cli.refresh", "dagster._cli"),
    *("matplotlib.figure", "skl2onnx"),  # which the package imports when it needs them
]

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(IMPORTED)


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `bcw`, `dagster` or `dg` in a folder to its end, with nothing to read, as `subprocess.run` would."""
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        program = start(command, environment, folder, (os.devnull, output.name, errors.name))
        program.join()
        return subprocess.CompletedProcess(command, program.exitcode or 0, output.read(), errors.read())


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    streams: Sequence[str],
    is_session: bool = False,
) -> BaseProcess:
    """Start such a program, perhaps in a session of its own; its three streams are the files of these paths."""
    program = _server.Process(target=_become, args=(command, environment, folder, streams, is_session))
    program.start()
    return program


def _become(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, streams: Sequence[str], is_session: bool
) -> None:
    """Be the program that the installed script of this name is."""
    if is_session:
        os.setsid()
    for number, (path, mode) in enumerate(zip(streams, "rww", strict=True)):
        with open(path, mode) as file:
            os.dup2(file.fileno(), number)
    sys.argv = list(command)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    (script,) = importlib.metadata.entry_points(group="console_scripts", name=command[0])
    sys.exit(script.load()())
