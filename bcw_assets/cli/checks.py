"""`bcw checks`: the latest result of every check, and the newest failure that nothing has mended since."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from tabulate import tabulate

import bcw_assets
from bcw_assets import settings
from bcw_assets.assets import GRAPH
from bcw_assets.checks import locate_assets, specify_checks
from bcw_assets.errors import SettingsError
from bcw_assets.operations import history
from bcw_assets.storage.formats import cut_suffix
from bcw_assets.storage.io_manager import PATH, Materialization, Places, find_latest

LONGEST_EVIDENCE = 100  # characters of evidence in a line


def find_places() -> Places:
    """Return where every asset of this machine is (`checks.locate_assets`), or raise that it has no history yet."""
    if not Path(home := settings.dagster_home()).is_dir():
        raise SettingsError(
            f"There is no history in {home}, so nothing was made from here yet: bcw refresh. If another folder has it, "
            f"go there, or name its .dagster in DAGSTER_HOME"
        )
    resources = bcw_assets.defs.resources or {}
    return locate_assets(GRAPH, resources["io_manager"], resources["releases"])


def read_latest_report() -> dict[str, Any]:
    """Return the report of this machine's history and storage, or raise that there is no history to look into."""
    places = find_places()
    with history.open_history() as instance:
        return read_report(instance, places)


def read_report(instance: dg.DagsterInstance, places: Places) -> dict[str, Any]:
    """Return the latest result of every check of what is stored at these places (`checks.locate_assets`), by a history.

    It is good if every blocking check ran on the latest materialisation of its asset, and passed. Outdated is what was
    made from something else than is there now. The failure says what the newest failed run said, when, and which of the
    artifacts here that run made; None without one.
    """
    materialisations = {key: find_latest(key, place, instance) for key, place in places.items()}
    results = [
        history.read_check_result(instance, spec, made)
        for key, made in materialisations.items()
        for spec in specify_checks(key)
    ]
    present = {key.to_user_string(): made for key, made in materialisations.items() if made}
    return {
        "good": all(result.result == history.PASSED for result in results if result.blocking),
        "checks": [result._asdict() for result in results],
        "outdated": [name for name, made in present.items() if any(map(made.is_older_than, present, present.values()))],
        "failure": _explain_newest_failure(instance, places, materialisations),
    }


def format_report(report: dict[str, Any]) -> str:
    """Return the report as a table for people."""
    rows = [list(report["checks"][0])]  # as headers they would be two characters wider
    for check in report["checks"]:
        line = check["evidence"].partition("\n")[0]
        evidence = line if len(line) <= LONGEST_EVIDENCE else f"{line[: LONGEST_EVIDENCE - 1]}…"
        rows.append([*(check | {"blocking": "yes" if check["blocking"] else "no", "evidence": evidence}).values()])
    table = tabulate(rows, tablefmt="plain", disable_numparse=True)
    outdated = f"Made from something else than is there now: {', '.join(report['outdated'])}"
    outdated += "" if report["failure"] else ". To mend it: bcw refresh"
    return "\n\n".join(filter(None, [table, outdated if report["outdated"] else "", report["failure"]]))


def _explain_newest_failure(
    instance: dg.DagsterInstance, places: Places, materialisations: Mapping[dg.AssetKey, Materialization | None]
) -> str | None:
    times = {key: made.timestamp if made else 0.0 for key, made in materialisations.items()}
    for failure in history.find_failures(instance, lambda key: times.get(key, 0.0), after=min(times.values())):
        addresses = {
            cut_suffix(str(event.step_materialization_data.materialization.metadata[PATH].value))
            for event in failure.events
            if event.is_step_materialization
        }
        if addresses and addresses.isdisjoint(map(cut_suffix, places.values())):
            continue  # it ran with another BCW_STORAGE
        made_by_it = [
            key.to_user_string() for key, made in materialisations.items() if made and made.run_id == failure.run_id
        ]
        changed = f"The run that made {', '.join(made_by_it)} failed"
        which = changed if made_by_it else "A later run failed, and changed nothing here"
        why = "; ".join(history.explain_failure(failure.events))
        return f"{which}: {history.format_time(failure.ended)}, {why}"
    return None
