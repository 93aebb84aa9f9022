"""What every asset has in common: its decorator, its place, its code version, and how its errors become Dagster's."""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg

from bcw_assets.errors import BcwError

# What modules read of the files beside them.
DATA = (".css", ".csv", ".j2", ".js", ".json", ".mplstyle", ".sql", ".txt")
GROUPS = {"download": "data", "preprocess": "data", "train": "model", "evaluate": "evaluation", "upload": "release"}
FOLDER_KEY = "folder"  # in an asset's metadata: the folder of its files
# Tries after the first where waiting may help, and the seconds between them; with a store's own tries, a minute.
RETRIES, RETRY_SECONDS = 3, 10.0


def stage(name: str, folder: str | None, *kinds: str) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Make a function an asset: one stage of the refresh, whose value is stored in `folder`, or by the stage itself."""

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        return dg.asset(
            metadata={FOLDER_KEY: folder} if folder else {},
            tags={"stage": name},
            kinds={"python", *kinds},
            owners=["team:bcw"],
            group_name=GROUPS[name],
            code_version=hash_sources(function),
        )(explain_failures()(function))

    return decorate


@contextmanager
def explain_failures() -> Iterator[None]:
    """Let a BcwError within fail the step with its own words, at once or after the tries that may help.

    No RetryPolicy asks for these: it would also try again after Ctrl-C, and what is wrong in the code.
    """
    try:
        yield
    except BcwError as error:
        failure = dg.Failure(str(error), {**show_rows(error.rows_are, error.rows), "error": type(error).__name__})
        if error.retry_may_help:
            raise dg.RetryRequested(RETRIES, RETRY_SECONDS) from failure
        raise failure from error


def show_rows(name: str, rows: Sequence[Mapping[Any, Any]]) -> dict[str, dg.TableMetadataValue]:
    """Return metadata that shows rows, which all have the same names, as a table in the UI; empty without rows."""
    if not rows:
        return {}
    schema = dg.TableSchema([dg.TableColumn(column) for column in rows[0]])
    return {name: dg.MetadataValue.table([dg.TableRecord({**row}) for row in rows], schema)}


def hash_sources(function: Callable[..., Any]) -> str:
    """Return a hash of what makes an asset: its function, its config, the modules it uses, and the data beside them."""
    parameters, modules = inspect.get_annotations(function).values(), find_modules(function)
    configs = [kind for kind in parameters if isinstance(kind, type) and issubclass(kind, dg.Config)]
    folders = {Path(inspect.getfile(module)).parent for module in modules}
    files = sorted(path for folder in folders for path in folder.iterdir() if path.suffix in DATA)
    sources = [inspect.getsource(function), *map(inspect.getsource, configs), *map(inspect.getsource, modules)]
    sources += [path.read_text(encoding="utf-8") for path in files]
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]


def find_modules(function: Callable[..., Any]) -> list[ModuleType]:
    """Return the modules of this package that a function names, other than its own, and all that these use in turn."""
    modules: dict[str, ModuleType] = {}
    values = [function.__globals__.get(name) for name in function.__code__.co_names]
    for value in values:  # which grow
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None) or ""
        if name.startswith("bcw_assets.") and name not in (function.__module__, *modules):
            modules[name] = sys.modules[name]
            values += vars(modules[name]).values()
    return [modules[name] for name in sorted(modules)]
