"""When the graph runs by itself."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from bcw_assets import housekeeping
from bcw_assets.assets import GRAPH
from bcw_assets.checks import addresses
from bcw_assets.errors import SettingsError
from bcw_assets.settings import Settings

refresh_job = dg.define_asset_job(
    "refresh_job",
    selection=dg.AssetSelection.all(),
    description="Downloads the table and makes everything from it again, with every check.",
)


@dg.op(required_resource_keys={"settings", "io_manager", "releases"})
def delete_old_runs(context: dg.OpExecutionContext) -> None:
    """Delete the runs that are older than BCW_KEEP_DAYS, but for those that say what is stored now."""
    keep = timedelta(days=context.resources.settings.keep_days)
    places = addresses(GRAPH, context.resources.io_manager, context.resources.releases)
    deleted = housekeeping.delete_old_runs(context.instance, datetime.now(UTC) - keep, places)
    context.log.info(f"{deleted} runs deleted that were older than {keep.days} days")


@dg.job(description="Deletes old runs from the history, which otherwise grows for ever.")
def housekeeping_job() -> None:
    """Delete old runs."""
    delete_old_runs()


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return the schedule of the refresh, and the one that tidies up after it every night."""
    nightly = dg.ScheduleDefinition(
        name="housekeeping_schedule",
        job=housekeeping_job,
        cron_schedule="30 3 * * *",
        execution_timezone=settings.schedule_timezone,
        default_status=_status(settings),
        description="Runs housekeeping_job every night at 3:30 in BCW_SCHEDULE_TIMEZONE.",
    )
    return [build_schedule(settings), nightly]


def _status(settings: Settings) -> dg.DefaultScheduleStatus:
    return dg.DefaultScheduleStatus.RUNNING if settings.autostart else dg.DefaultScheduleStatus.STOPPED


def build_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Return the schedule of the refresh, which always runs: a run takes seconds, and what it finds is its result."""
    try:
        return dg.ScheduleDefinition(
            name="refresh_schedule",
            job=refresh_job,
            cron_schedule=settings.schedule_cron,
            execution_timezone=settings.schedule_timezone,
            default_status=_status(settings),
            description="Runs refresh_job at BCW_SCHEDULE_CRON in BCW_SCHEDULE_TIMEZONE.",
        )
    except dg.DagsterInvalidDefinitionError as error:
        raise SettingsError(
            f"BCW_SCHEDULE_CRON is {settings.schedule_cron!r}; allowed are five fields of cron, like '0 6 * * 1'"
        ) from error
