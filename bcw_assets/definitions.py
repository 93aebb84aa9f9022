"""Wires assets, checks, job, schedule and storage together for Dagster. Only wiring."""

from datetime import timedelta
from functools import cache

import dagster as dg

from bcw_assets import settings as environment
from bcw_assets.assets import GRAPH
from bcw_assets.automation import build_alerts, build_schedules, housekeeping_job, refresh_job
from bcw_assets.checks import RELEASE_KEY, build_checks
from bcw_assets.storage.io_manager import ArtifactIOManager
from bcw_assets.storage.store import open_store


def build_definitions(settings: environment.Settings) -> dg.Definitions:
    """Return all that Dagster runs, for these settings."""
    open_once = cache(open_store)  # in one place on S3, artifacts and releases share a client
    checks = build_checks(GRAPH)
    policy = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=settings.stale_days))
    return dg.Definitions(
        assets=dg.map_asset_specs(
            lambda spec: dg.apply_freshness_policy(spec, policy) if spec.key == RELEASE_KEY else spec, GRAPH
        ),
        asset_checks=checks,
        jobs=[refresh_job, housekeeping_job],
        schedules=build_schedules(settings),
        sensors=[build_alerts(settings, [key for check in checks for key in check.check_keys], RELEASE_KEY)],
        resources={
            "io_manager": ArtifactIOManager(open_once(settings.storage)),
            "releases": open_once(settings.releases_place),
            "settings": settings,
        },
        # One process: a new one for each step would spend 1.5 s on imports for work of milliseconds.
        executor=dg.in_process_executor,
    )


defs = build_definitions(environment.read_environment())
