"""Where the files of a folder are scored: in processes here, or on a Dask cluster. Both are a standard `Executor`."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from bcw_assets.deadline import within
from bcw_assets.errors import ScoringError

if TYPE_CHECKING:
    from distributed import Client

MOST_DEATHS = 5  # of processes with the same piece of work
SILENCE = 20  # seconds without an answer after which a scheduler is away, or lost
PULSE = 5  # seconds between questions to a scheduler
SAME_EVERYWHERE = ("distributed", "bcw-assets", "numpy", "pyarrow")  # the first is the protocol, the others the bytes


@contextmanager
def open_executor(workers: int = 1, scheduler: str | None = None) -> Iterator[Executor]:
    """Give so many processes of this machine, or the Dask cluster of a scheduler's address, as an Executor."""
    with _connect(scheduler) if scheduler else Processes(workers) as executor:
        yield executor


def list_deaths() -> tuple[type[Exception], ...]:
    """Return what a piece of work ends with whose process died again and again."""
    distributed = sys.modules.get("distributed")
    return (BrokenExecutor, *([distributed.KilledWorker] if distributed else []))


class Processes(Executor):
    """Processes of this machine; if it kills one, the piece of work that it was at is done again in a new one.

    A single `ProcessPoolExecutor` of them all would lose the work of all, and not know whose it was.
    """

    def __init__(self, count: int) -> None:
        self._threads = ThreadPoolExecutor(count)
        self._idle: SimpleQueue[ProcessPoolExecutor] = SimpleQueue()
        for _ in range(count):
            self._idle.put(_open_process())

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Do a piece of work as soon as a process is idle; it ends with a BrokenExecutor if it kills too many."""
        return self._threads.submit(self._do, partial(call, *arguments, **options))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 (Executor's)
        """End the processes, as every Executor does."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        while not self._idle.empty():
            self._idle.get().shutdown(wait)

    def _do(self, work: Callable[[], Any]) -> Any:
        process = self._idle.get()
        try:
            for death in range(MOST_DEATHS + 1):
                try:
                    return process.submit(work).result()
                except BrokenExecutor:
                    process = _open_process()
                    if death == MOST_DEATHS:
                        raise
        finally:
            self._idle.put(process)


def _open_process() -> ProcessPoolExecutor:
    # A fork would copy locks that threads of this process hold.
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _end_with_parent)


def _end_with_parent() -> None:
    """Let this process end when the one that started it does, however that ends; it would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to both
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel] if parent else [])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


@contextmanager
def _connect(address: str) -> Iterator[Executor]:
    """Give the workers of a scheduler, if there are some and all have our versions."""
    try:
        from distributed import Client  # the extra [dask]; 0.5 s
    except ModuleNotFoundError as error:
        raise ScoringError("--scheduler needs Dask, which is not installed: pip install 'bcw-assets[dask]'") from error
    for name in ("distributed", "distributed.client"):  # what they say in many lines, is said here in one
        logging.getLogger(name).setLevel(logging.CRITICAL)
    is_over = threading.Event()
    try:
        client = within(SILENCE, lambda: Client(address, timeout=SILENCE, set_as_default=False))
        nodes = within(SILENCE, lambda: client.get_versions(packages=SAME_EVERYWHERE))
    except (OSError, ValueError) as error:
        raise ScoringError(
            f"No Dask scheduler answers at {address} ({error}). Give the address that it names when it starts, like "
            f"tcp://host:8786"
        ) from error
    try:
        _require_same_versions(nodes, address)
        threading.Thread(target=_watch_scheduler, args=(client, is_over), daemon=True).start()
        yield client.get_executor(pure=False)
    finally:
        is_over.set()
        client.close(timeout=1)


def _require_same_versions(nodes: Mapping[str, Any], address: str) -> None:
    if not nodes["workers"]:
        raise ScoringError(f"The Dask scheduler at {address} has no workers; start some: dask worker {address}")
    ours = nodes["client"]["packages"]
    for node, answer in [("scheduler", nodes["scheduler"]), *nodes["workers"].items()]:
        for name in SAME_EVERYWHERE[: 1 if node == "scheduler" else None]:
            if (theirs := answer["packages"].get(name)) != ours[name]:
                raise ScoringError(
                    f"The Dask {node if node == 'scheduler' else f'worker {node}'} of {address} has {name} "
                    f"{theirs or '(none)'}, and here is {ours[name]}; install the same there and here"
                )


def _watch_scheduler(client: "Client", is_over: threading.Event) -> None:
    """Break the connection, which gives all work up, if no answer comes through it although it stands."""
    while not is_over.wait(PULSE):
        try:
            within(SILENCE, lambda: client.sync(client.scheduler.identity))
        except Exception:  # noqa: BLE001 (whatever it is, it is no answer)
            if client.scheduler_comm:
                client.loop.add_callback(client.scheduler_comm.comm.abort)
            return
