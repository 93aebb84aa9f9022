"""When the graph runs by itself."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import msgspec

from bcw_assets.assets import GRAPH
from bcw_assets.checks import locate_assets, specify_checks
from bcw_assets.errors import SettingsError
from bcw_assets.operations import alerts, history
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
    places = locate_assets(GRAPH, context.resources.io_manager, context.resources.releases)
    checks = [spec.key for asset in places for spec in specify_checks(asset)]
    deleted = history.delete_runs_before(context.instance, datetime.now(UTC) - keep, places, checks)
    context.log.info(f"{deleted} runs deleted that were older than {keep.days} days")


@dg.job
def housekeeping_job() -> None:
    """Delete old runs from the history, which otherwise grows for ever."""
    delete_old_runs()


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return the schedule of the refresh, and the one that tidies up after it every night."""
    times: list[tuple[Any, str, str]] = [  # Dagster exports no name for the type of refresh_job
        (refresh_job, settings.schedule_cron, "at BCW_SCHEDULE_CRON"),
        (housekeeping_job, "30 3 * * *", "every night at 3:30"),
    ]
    try:
        return [
            dg.ScheduleDefinition(
                name=job.name.replace("_job", "_schedule"),
                job=job,
                cron_schedule=cron,
                execution_timezone=settings.schedule_timezone,
                default_status=dg.DefaultScheduleStatus("RUNNING" if settings.autostart else "STOPPED"),
                description=f"Runs {job.name} {when} in BCW_SCHEDULE_TIMEZONE.",
            )
            for job, cron, when in times
        ]
    except dg.DagsterInvalidDefinitionError as error:
        allowed = "allowed are five fields of cron, like '0 6 * * 1'"
        raise SettingsError(f"BCW_SCHEDULE_CRON is {settings.schedule_cron!r}; {allowed}") from error


def build_alerts(settings: Settings, checks: Sequence[dg.AssetCheckKey], release: dg.AssetKey) -> dg.SensorDefinition:
    """Return the sensor that tells everybody in BCW_NOTIFY_URLS what is wrong, and when it is over."""
    jobs = {job.name: job.name for job in (refresh_job, housekeeping_job)} | {alerts.SELECTED: refresh_job.name}
    watched = alerts.Watchlist(jobs, checks, release, settings.stale_days)

    @dg.sensor(
        name=alerts.SENSOR,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus("RUNNING" if settings.autostart else "STOPPED"),
        description="Tells BCW_NOTIFY_URLS of failed runs and checks, refused and missing releases, and of recoveries.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        state, done = alerts.tick(context.instance, context.cursor, watched, settings)
        context.update_cursor(msgspec.json.encode(state).decode())
        return dg.SkipReason(done)

    return sensor
