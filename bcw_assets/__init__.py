"""A Dagster asset graph that trains, measures and publishes a classifier of the Wisconsin (Diagnostic) table."""

import atexit
import gc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bcw_assets.definitions import defs

__all__ = ["defs"]


def __getattr__(name: str) -> Any:
    """Load Dagster and the graph when somebody asks for `defs`, and not before."""
    if name != "defs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The imports leave hundreds of thousands of objects that stay. Looking through them again and again for garbage,
    # while they are loaded, afterwards and when the process ends, would take an eighth of a refresh.
    gc.disable()
    try:
        from threadpoolctl import threadpool_limits

        from bcw_assets.definitions import defs  # 1.5 s of imports, which `bcw --help` does without
    finally:
        gc.enable()
    gc.freeze()
    gc.set_threshold(1_000_000, 50, 1000)
    atexit.register(gc.freeze)
    # Of 30 columns a second thread of linear algebra only waits for the first, which costs CPU time; and the last digit
    # of a number shall not depend on how many cores there are.
    threadpool_limits(1, "blas")
    globals()["defs"] = defs  # asked for once
    return defs


def __dir__() -> list[str]:
    """Name `defs` too: Dagster looks for it among the names of the module."""
    return [*globals(), "defs"]
