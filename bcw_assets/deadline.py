"""A limit on the time that something may take."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

Value = TypeVar("Value")


def within(seconds: float, call: Callable[[], Value]) -> Value:
    """Return what `call` returns, or raise a TimeoutError; what it does after the limit is lost."""
    future: Future[Value] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 (handed over, and raised by the caller)
            future.set_exception(error)

    # No time-out of a socket covers a look-up of the host, or what drips; no program waits for a daemon at its end.
    threading.Thread(target=work, daemon=True, name="limited in time").start()
    if not wait([future], max(0.0, seconds)).done:
        raise TimeoutError(f"no whole answer within {seconds:.3g} s")
    return future.result()
