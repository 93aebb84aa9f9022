"""The factory of Dagster's checks: of the expectations in `ml.expectations`, and of what is stored and published."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import dagster as dg

from bcw_assets.errors import ArtifactError
from bcw_assets.ml.expectations import EXPECTATIONS, FACTS
from bcw_assets.ml.findings import Findings
from bcw_assets.releases import access, bundle
from bcw_assets.stages import FOLDER_KEY, explain_failures, show_rows
from bcw_assets.storage.io_manager import ArtifactIOManager, StoredValue, find_latest
from bcw_assets.storage.store import Store

CHECKS = "_checks"  # the ending of the name of the step that checks an asset
STORED = "stored"
STORED_TITLE = "The stored files can be read, and are those that the latest run recorded."
# The one asset that is not stored by the IO manager, so its check reads it back as those who use it do.
RELEASE_KEY, PUBLISHED_CHECK = dg.AssetKey("release"), "published"
PUBLISHED_TITLE = "The release can be used: all its files and the log are as they were published."


def build_checks(graph: Sequence[dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Return one multi-check per asset of the graph: that it is stored as recorded, and what is expected of it."""
    artifacts = _find_artifacts(graph)
    return [_build_check(asset, artifacts) for asset in (*artifacts, RELEASE_KEY)]


def locate_assets(
    graph: Sequence[dg.AssetsDefinition], artifacts: ArtifactIOManager, releases: Store
) -> dict[dg.AssetKey, str]:
    """Return where every asset is, as its materialisations record it: a path or a URI."""
    addresses = {asset: artifacts.address(asset, *stored) for asset, stored in _find_artifacts(graph).items()}
    return addresses | {RELEASE_KEY: releases.address(bundle.PLACE)}


def specify_checks(asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return the specification of every check of an asset."""
    name, title = (PUBLISHED_CHECK, PUBLISHED_TITLE) if asset == RELEASE_KEY else (STORED, STORED_TITLE)
    expected = [
        dg.AssetCheckSpec(
            row.name,
            asset=asset,
            blocking=row.blocking,
            description=row.title,
            additional_deps=[name for name in row.inputs if name not in (row.asset, FACTS)],
        )
        for row in EXPECTATIONS
        if row.asset == asset.to_user_string()
    ]
    return [dg.AssetCheckSpec(name, asset=asset, blocking=True, description=title), *expected]


def _find_artifacts(graph: Sequence[dg.AssetsDefinition]) -> dict[dg.AssetKey, tuple[str, type]]:
    """Return the folder and the type of the value of every asset that the IO manager stores."""
    return {
        asset.key: (str(asset.metadata_by_key[asset.key][FOLDER_KEY]), asset.op.output_defs[0].dagster_type.typing_type)
        for asset in graph
        if FOLDER_KEY in asset.metadata_by_key[asset.key]
    }


def _build_check(asset: dg.AssetKey, stored: dict[dg.AssetKey, tuple[str, type]]) -> dg.AssetChecksDefinition:
    specs, expectations = specify_checks(asset), {row.name: row for row in EXPECTATIONS}

    @dg.multi_asset_check(
        name=asset.to_user_string() + CHECKS,
        specs=specs,
        required_resource_keys={"io_manager", "releases"},
        can_subset=True,  # without it the UI has no button for running checks alone
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        artifacts: ArtifactIOManager = context.resources.io_manager
        releases: Store = context.resources.releases

        @cache
        def load(key: dg.AssetKey) -> StoredValue:
            return artifacts.read(key, *stored[key])

        def find_facts(address: str) -> Mapping[str, Any]:
            made = find_latest(asset, address, context.instance)
            return made.facts if made else {}

        def examine(name: str) -> Findings:
            if name == PUBLISHED_CHECK:
                return access.check_release(releases, find_facts(releases.address(bundle.PLACE)).get("release"))
            try:
                if name == STORED:
                    artifacts.verify(asset, load(asset), context.instance, context.run.run_id)
                    return Findings((), {"path": load(asset).address, "sha256": load(asset).version})
                inputs = {
                    key: find_facts(load(asset).address) if key == FACTS else load(dg.AssetKey(key)).value
                    for key in expectations[name].inputs
                }
            except ArtifactError as error:
                return Findings((str(error) if name == STORED else f"Not looked at: {error}",), {})
            return expectations[name].predicate(**inputs)

        selected = context.selected_asset_check_keys
        with explain_failures():
            results = [_report(spec, examine(spec.name)) for spec in specs if spec.key in selected]
        yield from results

    return check


def _report(spec: dg.AssetCheckSpec, findings: Findings) -> dg.AssetCheckResult:
    evidence = {name: float(f"{fact:.4g}") if type(fact) is float else fact for name, fact in findings.evidence.items()}
    return dg.AssetCheckResult(
        passed=not findings.problems,
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=dg.AssetCheckSeverity.ERROR if spec.blocking else dg.AssetCheckSeverity.WARN,
        description="; ".join(findings.problems) or None,
        metadata={**evidence, **show_rows("offending rows", findings.rows)},
    )
