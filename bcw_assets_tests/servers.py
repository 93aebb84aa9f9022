"""Servers of the tests on loopback: ports that are free, and programs that answer before a test goes on."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

PATIENCE = 60  # seconds, more than any answer takes on a busy machine


def find_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]


def wait_until(happened: Callable[[], object], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def clean(**own: str) -> dict[str, str]:
    """Return an environment without what a server would read of this process's."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | own


@contextmanager
def run_server(
    log: Path, command: Sequence[str | Path], environment: Mapping[str, str], ask: Callable[[], object]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in the folder of its log, from its first answer to `ask` to the end of the block."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                ask()
                break
            except (OSError, BotoCoreError, ClientError):  # the first: whatever requests raises, too
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]  # noqa: PT018
                time.sleep(0.05)
        yield process
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
