"""Every promise about every asset, as one table, and the factory that makes Dagster's checks of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from typing import Any

import dagster as dg

from bcw_assets.errors import ArtifactError
from bcw_assets.ml.evaluation import thresholds
from bcw_assets.ml.findings import Findings
from bcw_assets.ml.model import preparation, resampling, training
from bcw_assets.ml.table import canonical, rules
from bcw_assets.releases import access, bundle
from bcw_assets.stages import FOLDER, as_table
from bcw_assets.storage.io_manager import ArtifactIOManager, Loaded, latest
from bcw_assets.storage.store import Store


@dataclass(frozen=True)
class Promise:
    """One promise about a stored asset.

    Attributes:
        asset: whose promise it is.
        name: of the check.
        predicate: lists what is wrong; it gets the stored values of the assets that its parameters are named after,
            and as `facts` what the asset's latest materialisation recorded (its metadata).
        blocking: whether a broken promise stops what comes after (ERROR), or is advice (WARN).
    """

    asset: str
    name: str
    predicate: Callable[..., Findings]
    blocking: bool = True


PROMISES = (
    Promise("raw_data", "schema", canonical.schema),
    Promise("raw_data", "invariants", rules.invariants),
    Promise("raw_data", "plausibility", rules.plausibility, blocking=False),
    Promise("raw_data", "source", canonical.is_from_uci_or_named, blocking=False),
    Promise("ready_data", "split", preparation.split_is_sound),
    Promise("ready_data", "scaling", preparation.scaled_by_training_rows),
    Promise("ready_data", "features", preparation.features_are_measurements),
    Promise("model", "finite", training.is_finite),
    Promise("model", "converged", training.has_converged),
    Promise("model", "classes", training.classes_in_order),
    Promise("cross_validation", "coverage", resampling.covers_every_row),
    Promise("metrics", "arithmetic", thresholds.follows_from_counts),
    Promise("metrics", "beats_always_benign", thresholds.beats_always_benign, blocking=False),
    Promise("metrics", "floors", thresholds.reaches_floors, blocking=False),
    Promise("metrics", "calibration", thresholds.is_calibrated, blocking=False),
    Promise("metrics", "label_suspects", thresholds.labels_are_plausible, blocking=False),
)

CHECKS = "_checks"  # the ending of the name of the step that checks an asset
STORED = "stored"
# The one asset that is not stored by the IO manager, so its check reads it back as those who use it do.
RELEASE, PUBLISHED = dg.AssetKey("release"), "published"
FACTS = "facts"
STORED_SAYS = "What is stored can be read, and still is what the latest materialisation recorded."


def build_checks(graph: Sequence[dg.AssetsDefinition]) -> list[dg.AssetChecksDefinition]:
    """Return one multi-check per asset of the graph: that it is stored as recorded, and its promises."""
    folders, types = folders_and_types(graph)
    return [*(_check(key, folders, types) for key in folders), _check_release()]


def addresses(
    graph: Sequence[dg.AssetsDefinition], artifacts: ArtifactIOManager, releases: Store
) -> dict[dg.AssetKey, str]:
    """Return where every asset is, as its materialisations record it: a path or a URI."""
    folders, types = folders_and_types(graph)
    stored = {key: artifacts.address(key, folder, types[key]) for key, folder in folders.items()}
    return stored | {RELEASE: releases.address(bundle.PLACE)}


def broken_promises(values: Mapping[str, Any]) -> list[str]:
    """Return what the blocking promises find in the values of all assets, by name.

    The release asks itself, because a run of it alone executes no check of the assets before it.
    """
    return [
        f"{promise.asset}, {promise.name}: {problem}"
        for promise in PROMISES
        if promise.blocking
        for problem in promise.predicate(**{name: values[name] for name in _reads(promise)}).problems
    ]


def folders_and_types(graph: Sequence[dg.AssetsDefinition]) -> tuple[dict[dg.AssetKey, str], dict[dg.AssetKey, type]]:
    """Return the folder and the type of the value of every asset that the IO manager stores."""
    stored = [asset for asset in graph if FOLDER in asset.metadata_by_key[asset.key]]
    folders = {asset.key: str(asset.metadata_by_key[asset.key][FOLDER]) for asset in stored}
    return folders, {asset.key: asset.op.output_defs[0].dagster_type.typing_type for asset in stored}


def every_check(asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return the specification of every check of an asset."""
    if asset == RELEASE:
        says = (access.is_published.__doc__ or "").partition("\n")[0]
        return [dg.AssetCheckSpec(PUBLISHED, asset=asset, blocking=True, description=says)]
    promises = [promise for promise in PROMISES if promise.asset == asset.to_user_string()]
    stored = dg.AssetCheckSpec(STORED, asset=asset, blocking=True, description=STORED_SAYS)
    return [stored, *map(_spec, promises)]


def _check(
    asset: dg.AssetKey, folders: dict[dg.AssetKey, str], types: dict[dg.AssetKey, type]
) -> dg.AssetChecksDefinition:
    name = asset.to_user_string()
    promises = [promise for promise in PROMISES if promise.asset == name]

    @dg.multi_asset_check(
        name=name + CHECKS,
        specs=every_check(asset),
        required_resource_keys={"io_manager"},
        can_subset=True,  # without it the UI has no button for running checks alone
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        artifacts: ArtifactIOManager = context.resources.io_manager

        @cache
        def read(key: dg.AssetKey) -> Loaded:
            return artifacts.read(key, folders[key], types[key])

        def verify(loaded: Loaded) -> None:
            artifacts.verify(asset, loaded, context.instance, context.run.run_id)

        selected = {key.name for key in context.selected_asset_check_keys}
        if STORED in selected:
            yield _result(asset, STORED, _is_stored(asset, read, verify))
        for promise in promises:
            if promise.name in selected:
                findings = _is_kept(promise, read, lambda: _facts(read(asset), asset, context.instance))
                yield _result(asset, promise.name, findings, blocking=promise.blocking)

    return check


def _check_release() -> dg.AssetChecksDefinition:
    """Return the check that a release was published."""

    @dg.multi_asset_check(
        name=RELEASE.to_user_string() + CHECKS,
        specs=every_check(RELEASE),
        required_resource_keys={"releases"},
        can_subset=True,
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        releases: Store = context.resources.releases
        made = latest(RELEASE, releases.address(bundle.PLACE), context.instance)
        yield _result(RELEASE, PUBLISHED, access.is_published(releases, made.facts["release"] if made else None))

    return check


def _spec(promise: Promise) -> dg.AssetCheckSpec:
    others = [name for name in _reads(promise) if name not in (promise.asset, FACTS)]
    says = (promise.predicate.__doc__ or "").partition("\n")[0]
    return dg.AssetCheckSpec(
        promise.name, asset=promise.asset, blocking=promise.blocking, description=says, additional_deps=others
    )


def _reads(promise: Promise) -> list[str]:
    return list(signature(promise.predicate).parameters)


def _is_stored(asset: dg.AssetKey, read: Callable[[dg.AssetKey], Loaded], verify: Callable[[Loaded], None]) -> Findings:
    try:
        loaded = read(asset)
        verify(loaded)
    except ArtifactError as error:
        return Findings((str(error),), {})
    return Findings((), {"path": loaded.address, "sha256": loaded.version})


def _is_kept(promise: Promise, read: Callable[[dg.AssetKey], Loaded], facts: Callable[[], dict[str, Any]]) -> Findings:
    try:
        values = {name: facts() if name == FACTS else read(dg.AssetKey(name)).value for name in _reads(promise)}
    except ArtifactError as error:
        return Findings((f"Not looked at: {error}",), {})
    return promise.predicate(**values)


def _facts(loaded: Loaded, asset: dg.AssetKey, instance: dg.DagsterInstance) -> dict[str, Any]:
    made = latest(asset, loaded.address, instance)
    return made.facts if made else {}


def _result(asset: dg.AssetKey, name: str, findings: Findings, *, blocking: bool = True) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=not findings.problems,
        asset_key=asset,
        check_name=name,
        severity=dg.AssetCheckSeverity.ERROR if blocking else dg.AssetCheckSeverity.WARN,
        description="; ".join(findings.problems) or None,
        metadata={**findings.evidence, **({"offending rows": as_table(findings.rows)} if findings.rows else {})},
    )
