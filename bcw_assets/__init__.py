"""A Dagster asset graph that trains, measures and publishes a classifier of the Wisconsin (Diagnostic) table."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bcw_assets.definitions import defs

__all__ = ["defs"]


def __getattr__(name: str) -> Any:
    """Load Dagster and the graph when somebody asks for `defs`, and not before."""
    if name != "defs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from bcw_assets.definitions import defs  # 2 s of imports, which `bcw --help` and scoring do without

    return defs


def __dir__() -> list[str]:
    """Name `defs` too: Dagster looks for it among the names of the module."""
    return [*globals(), "defs"]
