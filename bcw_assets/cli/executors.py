"""Where the files of a folder are scored: in processes here, or on a Dask cluster. Both are a standard `Executor`."""

import asyncio
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from bcw_assets.deadline import within
from bcw_assets.errors import ScoringError

if TYPE_CHECKING:
    from distributed import Client

MOST_DEATHS = 5  # of processes by the same piece of work
ANSWER_LIMIT, PULSE = 20, 5  # seconds in which a scheduler has to answer, and between questions
SAME_EVERYWHERE = ("distributed", "bcw-assets", "numpy", "pyarrow")  # the first is the protocol, the others the bytes


def open_executor(workers: int = 1, scheduler: str | None = None) -> AbstractContextManager[futures.Executor]:
    """Give so many processes of this machine, or the Dask cluster of a scheduler's address."""
    return _connect(scheduler) if scheduler else Processes(workers)


def list_fatal_errors() -> tuple[type[Exception], ...]:
    """Return what a piece of work raises that killed process after process."""
    distributed = sys.modules.get("distributed")
    return (futures.BrokenExecutor, *([distributed.KilledWorker] if distributed else []))


class Processes(futures.ThreadPoolExecutor):
    """As many processes as threads, each of which has its own: if that dies, a new one does the same work again.

    A single pool of processes would lose the work of all when one dies, and not know whose it was.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._of_thread, (self._end, self._life) = threading.local(), multiprocessing.Pipe(duplex=False)

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> futures.Future[Any]:
        """Do a piece of work in a process."""
        return super().submit(self._do_in_process, partial(call, *arguments, **options))

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        """End the processes, after a failure at once: what they have not stored is lost."""
        if kind:
            self._life.close()
            self.shutdown(wait=False, cancel_futures=True)
        super().__exit__(kind, *error)

    def _do_in_process(self, work: Callable[[], Any], deaths: int = 0) -> Any:
        if not hasattr(self._of_thread, "process"):  # spawned, for a fork would copy locks that other threads hold
            context = multiprocessing.get_context("spawn")
            self._of_thread.process = futures.ProcessPoolExecutor(1, context, _live_as_long_as, (self._end,))
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which a terminal sends to the process, too
        try:
            return self._of_thread.process.submit(work).result()
        except futures.BrokenExecutor:
            del self._of_thread.process
            if deaths == MOST_DEATHS or self._life.closed:
                raise
        return self._do_in_process(work, deaths + 1)


def _live_as_long_as(pipe: Connection) -> None:
    """Let this process end when the other end of a pipe is closed, also by the death of who holds it."""

    def watch() -> None:
        wait([pipe])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Cluster(futures.Executor):
    """The workers of a Dask client. If its scheduler is lost, all futures end, where some of Dask's wait for ever."""

    def __init__(self, client: "Client") -> None:
        self._executor, self._futures = client.get_executor(pure=False), list[futures.Future[Any]]()
        threading.Thread(target=self._watch, args=(client,), daemon=True).start()

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> futures.Future[Any]:
        self._futures.append(self._executor.submit(call, *arguments, **options))
        return self._futures[-1]

    def _watch(self, client: "Client") -> None:
        with suppress(Exception):  # whatever it is, it is no answer
            while client.status == "running":
                time.sleep(PULSE)
                within(ANSWER_LIMIT, lambda: client.sync(client.scheduler.identity))
        if client.scheduler_comm:  # or closing would wait for an answer, too
            client.loop.add_callback(client.scheduler_comm.comm.abort)
        time.sleep(1)  # Dask ends most by itself now
        for future in self._futures:
            with suppress(futures.InvalidStateError):  # it has ended
                future.set_exception(futures.CancelledError())


@contextmanager
def _connect(address: str) -> Iterator[futures.Executor]:
    try:
        from distributed import Client  # the extra [dask]; 0.5 s
    except ModuleNotFoundError as error:
        raise ScoringError("--scheduler needs Dask, which is not installed: pip install 'bcw-assets[dask]'") from error
    # One line of ours says what these say in many.
    for name in ("distributed", "distributed.client", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        _require_same_versions(address, *within(ANSWER_LIMIT, lambda: asyncio.run(_ask_versions(address))))
        client = within(ANSWER_LIMIT / 2, lambda: Client(address, timeout=ANSWER_LIMIT / 2, set_as_default=False))
    except ScoringError:
        raise
    except Exception as error:  # a scheduler of another version may answer with any
        raise ScoringError(
            f"No Dask scheduler of our version answers at {address} ({str(error)[:200]}). Give the address that it "
            f"names when it starts, like tcp://host:8786, and install {' and '.join(SAME_EVERYWHERE[:2])} as here"
        ) from error
    try:
        yield _Cluster(client)
    finally:
        with suppress(TimeoutError):
            client.close(timeout=1)


async def _ask_versions(address: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a scheduler has, and what each of its workers has; a Client of another version may get no answer."""
    from distributed import rpc

    packages = list(SAME_EVERYWHERE)
    async with rpc(address) as scheduler:
        of_workers = {"op": "versions", "packages": packages}
        return await scheduler.versions(packages=packages), await scheduler.broadcast(msg=of_workers, on_error="ignore")


def _require_same_versions(address: str, scheduler: Mapping[str, Any], workers: Mapping[str, Any]) -> None:
    if not workers:
        raise ScoringError(f"The Dask scheduler at {address} has no workers; start some: dask worker {address}")
    for node, answer in {f"scheduler {address}": scheduler, **workers}.items():
        for name in SAME_EVERYWHERE[: 1 if answer is scheduler else None]:
            if (theirs := answer["packages"].get(name)) != (ours := version(name)):
                raise ScoringError(
                    f"Dask's {node} has {name} {theirs or '(none)'}, and here is {ours}; install the same in both"
                )
