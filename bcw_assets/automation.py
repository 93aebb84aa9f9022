"""When the graph runs by itself."""

import dagster as dg

from bcw_assets.errors import SettingsError
from bcw_assets.settings import Settings

refresh_job = dg.define_asset_job(
    "refresh_job",
    selection=dg.AssetSelection.all(),
    description="Downloads the table and makes everything from it again, with every check.",
)


def build_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Return the schedule of the refresh, which always runs: a run takes seconds, and what it finds is its result."""
    try:
        return dg.ScheduleDefinition(
            name="refresh_schedule",
            job=refresh_job,
            cron_schedule=settings.schedule_cron,
            execution_timezone=settings.schedule_timezone,
            default_status=(
                dg.DefaultScheduleStatus.RUNNING if settings.autostart else dg.DefaultScheduleStatus.STOPPED
            ),
            description="Runs refresh_job at BCW_SCHEDULE_CRON in BCW_SCHEDULE_TIMEZONE.",
        )
    except dg.DagsterInvalidDefinitionError as error:
        raise SettingsError(
            f"BCW_SCHEDULE_CRON is {settings.schedule_cron!r}; allowed are five fields of cron, like '0 6 * * 1'"
        ) from error
