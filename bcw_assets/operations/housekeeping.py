"""Deletes old runs from Dagster's history, which otherwise keeps them for ever."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import dagster as dg

from bcw_assets.checks import specify_checks
from bcw_assets.operations.history import ENDED
from bcw_assets.storage.io_manager import latest


def delete_old_runs(instance: dg.DagsterInstance, before: datetime, places: Mapping[dg.AssetKey, str]) -> int:
    """Delete the runs that were created before a time and have ended; return how many.

    The runs stay that say what the stored assets are: which content was recorded, and what the checks found.

    Args:
        instance: whose runs are deleted, with their events.
        before: the time, with its zone.
        places: where every asset is (`checks.locate_assets`).
    """
    spared = set(_evidence(instance, places))
    old = instance.get_run_records(dg.RunsFilter(statuses=ENDED, created_before=before))
    gone = [one.dagster_run.run_id for one in old if one.dagster_run.run_id not in spared]
    for run_id in gone:
        instance.delete_run(run_id)
    return len(gone)


def _evidence(instance: dg.DagsterInstance, places: Mapping[dg.AssetKey, str]) -> Iterable[str]:
    """Return the ids of the runs by which the assets are judged."""
    for key, place in places.items():
        if made := latest(key, place, instance):
            yield made.run_id
        for spec in specify_checks(key):
            for record in instance.event_log_storage.get_asset_check_execution_history(spec.key, limit=1):
                yield record.run_id
