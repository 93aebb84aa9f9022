"""A limit on the time that something may take."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return what `call` returns; what it does after the limit is lost.

    A thread, since no time-out of a socket covers a look-up of the host, or headers and bodies that drip.

    Raises:
        TimeoutError: it takes longer.

    >>> within(10, lambda: 42)
    42
    """
    answer: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()

    def put_answer() -> None:
        try:
            answer.put(call())
        except BaseException as error:  # noqa: BLE001 (handed over, and raised by the caller)
            answer.put(error)

    threading.Thread(target=put_answer, daemon=True, name="limited in time").start()
    try:
        result = answer.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise TimeoutError(f"no whole answer within {seconds:.3g} s") from None
    if isinstance(result, BaseException):
        raise result
    return result
