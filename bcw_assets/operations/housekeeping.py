"""Deletes old runs from Dagster's history, which otherwise keeps them for ever."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import dagster as dg

from bcw_assets.operations.history import ENDED
from bcw_assets.storage.io_manager import find_latest


def delete_runs_before(
    instance: dg.DagsterInstance,
    before: datetime,
    places: Mapping[dg.AssetKey, str],
    checks: Iterable[dg.AssetCheckKey],
) -> int:
    """Delete the runs that were created before a time and have ended; return how many.

    The runs stay that say what the assets at these places are: which content was recorded, and what the checks found.
    """
    latest = [find_latest(key, place, instance) for key, place in places.items()]
    evidence = {made.run_id for made in latest if made}
    executions = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    evidence |= {execution.run_id for execution in executions.values()}
    records = instance.get_run_records(dg.RunsFilter(statuses=ENDED, created_before=before))
    old = {record.dagster_run.run_id for record in records}
    for run in old - evidence:
        instance.delete_run(run)
    return len(old - evidence)
