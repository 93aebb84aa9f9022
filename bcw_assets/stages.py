"""What every asset has in common: its decorator, its place and its code version."""

import hashlib
import inspect
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import dagster as dg

from bcw_assets.failures import explained
from bcw_assets.storage.io_manager import FOLDER

PACKAGE = __name__.partition(".")[0]


def stage(name: str, folder: str, *kinds: str) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Make a function an asset: one stage of the refresh, whose value is stored in `folder`."""

    def decorate(function: Callable[..., Any]) -> dg.AssetsDefinition:
        return dg.asset(
            metadata={FOLDER: folder, **_link(function)},
            tags={"stage": name},
            kinds={"python", *kinds},
            owners=["team:bcw"],
            group_name="refresh",
            code_version=code_version(function),
        )(explained()(function))

    return decorate


def _link(function: Callable[..., Any]) -> dict[str, dg.CodeReferencesMetadataValue]:
    """Return the metadata that shows the function's source in the UI.

    Dagster's own `with_source_code_references` would show the decorator that explains failures.
    """
    path = inspect.getsourcefile(function) or ""
    with warnings.catch_warnings():
        # In beta in Dagster 1.13: it may change at an upgrade, and no user needs to hear of it.
        warnings.simplefilter("ignore", dg.BetaWarning)
        reference = dg.LocalFileCodeReference(file_path=path, line_number=function.__code__.co_firstlineno)
        return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}


def code_version(function: Callable[..., Any]) -> str:
    """Return a hash of the function's source and of every module of this package that it reaches by name."""
    named = (function.__globals__.get(name) for name in function.__code__.co_names)
    modules: dict[str, ModuleType] = {}
    for value in named:
        _collect(value, modules)
    sources = [inspect.getsource(function), *(inspect.getsource(modules[name]) for name in sorted(modules))]
    return hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]


def _collect(value: object, modules: dict[str, ModuleType]) -> None:
    """Add the module that defines `value`, if it is of this package, and all that this module uses in turn."""
    module = value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
    if module is None or module.__name__ in modules or not module.__name__.startswith(f"{PACKAGE}."):
        return
    modules[module.__name__] = module
    for used in list(vars(module).values()):
        _collect(used, modules)
