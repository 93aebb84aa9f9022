"""Where the files of a folder are scored: in processes here, or on a Dask cluster. Both are a standard `Executor`."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from bcw_assets.deadline import within
from bcw_assets.errors import ScoringError

if TYPE_CHECKING:
    from distributed import Client

MOST_DEATHS = 5  # of processes by the same piece of work
ANSWER_LIMIT, PULSE = 20, 5  # seconds in which a scheduler has to answer, and between questions
SAME_EVERYWHERE = ("distributed", "bcw-assets", "numpy", "pyarrow")  # the first is the protocol, the others the bytes


@contextmanager
def open_executor(workers: int = 1, scheduler: str | None = None) -> Iterator[Executor]:
    """Give so many processes of this machine, or the Dask cluster of a scheduler's address."""
    with _connect(scheduler) if scheduler else Processes(workers) as executor:
        yield executor


def list_deaths() -> tuple[type[Exception], ...]:
    """Return what a piece of work raises that killed process after process."""
    distributed = sys.modules.get("distributed")
    return (BrokenExecutor, *([distributed.KilledWorker] if distributed else []))


class Processes(ThreadPoolExecutor):
    """As many processes as threads, each of which has its own: if that dies, a new one does the same work again.

    A single pool of processes would lose the work of all when one dies, and not know whose it was.
    """

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Do a piece of work in a process."""
        return super().submit(_do_in_process, partial(call, *arguments, **options))


thread = threading.local()


def _do_in_process(work: Callable[[], Any], deaths: int = 0) -> Any:
    if not hasattr(thread, "process"):  # spawned, for a fork would copy locks that other threads hold
        thread.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        return thread.process.submit(work).result()
    except BrokenExecutor:
        del thread.process
        if deaths == MOST_DEATHS:
            raise
    return _do_in_process(work, deaths + 1)


def _end_with_parent() -> None:
    """Let this process end when the one that started it does, however that ends: it would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to both
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel] if parent else [])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _connect(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client  # the extra [dask]; 0.5 s
        from distributed.versions import VersionMismatchWarning
    except ModuleNotFoundError as error:
        raise ScoringError("--scheduler needs Dask, which is not installed: pip install 'bcw-assets[dask]'") from error
    warnings.simplefilter("ignore", VersionMismatchWarning)
    for name in ("distributed", "distributed.client"):  # what they say in many lines is said here in one
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = within(ANSWER_LIMIT, lambda: Client(address, timeout=ANSWER_LIMIT, set_as_default=False))
        nodes = within(ANSWER_LIMIT / 2, lambda: client.get_versions(packages=SAME_EVERYWHERE))
    except (OSError, ValueError) as error:
        raise ScoringError(
            f"No Dask scheduler answers at {address} ({error}). Give the address that it names when it starts, like "
            f"tcp://host:8786"
        ) from error
    is_over = threading.Event()
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
    ours, scheduler = nodes["client"]["packages"], {f"scheduler {address}": nodes["scheduler"]}
    for node, answer in (scheduler | nodes["workers"]).items():
        for name in SAME_EVERYWHERE[: 1 if node in scheduler else None]:
            if (theirs := answer["packages"].get(name)) != ours[name]:
                raise ScoringError(
                    f"Dask's {node} has {name} {theirs or '(none)'}, and here is {ours[name]}; install the same in both"
                )


def _watch_scheduler(client: "Client", is_over: threading.Event) -> None:
    """Break a connection through which no answer comes although it stands: that gives all work up."""
    while not is_over.wait(PULSE):
        try:
            within(ANSWER_LIMIT, lambda: client.sync(client.scheduler.identity))
        except Exception:  # noqa: BLE001 (whatever it is, it is no answer)
            if client.scheduler_comm:
                client.loop.add_callback(client.scheduler_comm.comm.abort)
            return
