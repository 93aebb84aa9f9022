"""`bcw dev`: Dagster's UI and daemon on this machine, alone on their history."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import click

from bcw_assets import settings
from bcw_assets.errors import BcwError

HOST = "127.0.0.1"
# All of them: the UI shows a closed box for every group that its address does not name.
OPEN_GROUPS = ",".join(f"global@global:{name}" for name in ("data", "model", "evaluation", "release"))
PAGES = """\
In some seconds, and until Ctrl-C, open
everything   http://{0}/
the graph    http://{0}/asset-groups?expanded={1}
the refresh  http://{0}/locations/bcw_assets/jobs/refresh_job"""
# The warning is of a program that only developers have.
DAGSTER = (sys.executable, "-W", "ignore:Function `dev_command` is superseded", "-m", "dagster", "dev")


def serve_ui(port: int) -> None:
    """Run `dagster dev` until Ctrl-C, or raise a BcwError: a setting, the port, the disk, or another one forbids it."""
    settings.read_environment()
    home = Path(settings.dagster_home())
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        text = f"Port {port} of {HOST} cannot be used: {os.strerror(error.errno or 0)}. Take another: --port {port + 1}"
        raise BcwError(f"{text} (make dev PORT={port + 1})") from error
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(home / "dev.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BcwError(
            f"Another `bcw dev`, or what is left of one, works on the history in {home}, and both would start what is "
            f"scheduled. Stop it, with Ctrl-C where it runs or by kill -- -{os.read(lock, 20).decode()}, or set "
            f"DAGSTER_HOME to another folder"
        ) from error
    except OSError as error:
        raise BcwError(f"{home} cannot be used: {error.strerror}. Set DAGSTER_HOME to another folder") from error
    from bcw_assets.operations import history  # brings Dagster, when nothing is refused any more

    with history.open_history():
        pass  # it makes the tables, for which the processes of Dagster would race
    click.echo(PAGES.format(f"{HOST}:{port}", OPEN_GROUPS))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # the first, too, where a script's & ignores it
        signal.signal(number, signal.default_int_handler)
    # As standard input, all processes of Dagster hold the lock, and as long as the last of them lives. Their group is
    # their own: of Ctrl-C `dagster dev` alone hears, and ends the others in order.
    options = ("--module-name", "bcw_assets", "--host", HOST, "--port", str(port), "--log-level", "warning")
    process = subprocess.Popen(  # noqa: S603 (nothing in it is a user's text)
        DAGSTER + options, stdin=lock, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    )
    os.truncate(lock, 0)
    os.write(lock, str(process.pid).encode())
    try:
        for line in process.stdout or ():
            click.echo(line, nl=False, err=True)
            if "address already in use" in line:  # by who took it since; the others would run on without it
                raise BcwError(f"Port {port} of {HOST} was taken meanwhile. Take another: --port {port + 1}")
        sys.exit(process.wait())
    except KeyboardInterrupt:
        click.echo("\nStopping, in some seconds")
        process.send_signal(signal.SIGINT)
        # What is interrupted while it starts prints a traceback, to nobody's use.
        threading.Thread(target=process.stdout.read if process.stdout else None, daemon=True).start()
        process.wait()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it left behind would keep the lock
