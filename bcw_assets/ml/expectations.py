"""Every expectation about every asset, as one table: `checks` makes checks of it, and the release asks it itself."""

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from inspect import signature
from pkgutil import resolve_name
from typing import Any

from bcw_assets.ml.evaluation import thresholds
from bcw_assets.ml.findings import Findings

FACTS = "facts"


@dataclass(frozen=True)
class Expectation:
    """What is expected of a stored asset.

    The predicate gets the stored values of the assets that its parameters are named after, and as `facts` what the
    asset's latest materialisation recorded.
    """

    asset: str
    name: str  # of the check
    title: str  # what is true when it passes
    predicate: Callable[..., Findings]
    blocking: bool = True  # stops what comes after (ERROR), or is advice (WARN)

    @property
    def inputs(self) -> list[str]:
        """The names of what the predicate gets."""
        return list(signature(self.predicate).parameters)


def _read_expectations() -> Iterator[Expectation]:
    """Return the rows of expectations.csv, in whose titles the limits are those of `thresholds`."""
    for row in csv.DictReader((resources.files(__package__) / "expectations.csv").read_text("utf-8").splitlines()):
        title, predicate = row["title"].format_map(vars(thresholds)), resolve_name(f"{__package__}.{row['predicate']}")
        yield Expectation(row["asset"], row["name"], title, predicate, row["blocking"] == "yes")


EXPECTATIONS = tuple(_read_expectations())


def find_problems(values: Mapping[str, Any]) -> list[str]:
    """Return what the blocking expectations find in the values of all assets: a release that runs alone checks none."""
    return [
        f"{expectation.asset}, {expectation.name}: {problem}"
        for expectation in EXPECTATIONS
        if expectation.blocking
        for problem in expectation.predicate(**{name: values[name] for name in expectation.inputs}).problems
    ]
