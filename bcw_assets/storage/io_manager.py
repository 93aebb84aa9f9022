"""Stores each asset's value and loads it again: format by the value's type, place by the asset's metadata."""

from dataclasses import dataclass
from typing import Any

import dagster as dg

from bcw_assets.errors import ArtifactError, KeyMissing
from bcw_assets.failures import explained
from bcw_assets.storage import formats
from bcw_assets.storage.formats import FormatError
from bcw_assets.storage.stores import Store

FOLDER = "folder"
"""The key of an asset's metadata that says in which folder its files are."""

DATA_VERSION = "dagster/data_version"  # the tag of a materialisation; Dagster exports no name for it


@dataclass(frozen=True)
class Loaded:
    """A value, and the proof of what it was read from."""

    value: Any
    address: str
    version: str
    recorded: str | None


class ArtifactIOManager(dg.IOManager):
    """The one IO manager: what differs between a laptop and S3 is the store behind it."""

    def __init__(self, store: Store) -> None:
        """Keep every artifact in `store`."""
        self._store = store

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store a value, and record its SHA-256 as the materialisation's data version."""
        key = f"{context.definition_metadata[FOLDER]}/{context.asset_key.to_user_string()}"
        files = formats.dump(obj, key)
        with explained():
            self._store.write(files)
        context.step_context.set_data_version(context.asset_key, dg.DataVersion(formats.version(files)))
        context.add_output_metadata(
            {
                "path": dg.MetadataValue.path(self._store.address(list(files)[-1])),
                "files": ", ".join(files),
                "bytes": sum(map(len, files.values())),
            }
        )

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the value of an upstream asset as the type that the downstream one annotates."""
        upstream = context.upstream_output
        folder = (upstream.definition_metadata if upstream else context.definition_metadata)[FOLDER]
        with explained():
            return self.load(context.asset_key, folder, context.dagster_type.typing_type, context.instance).value

    def load(self, asset: dg.AssetKey, folder: str, kind: type, instance: dg.DagsterInstance) -> Loaded:
        """Load what is stored of an asset, and hold it against what its latest materialisation recorded.

        Raises:
            ArtifactError: it is missing, damaged, or not what was recorded; the text names the command that mends it.
        """
        name = asset.to_user_string()
        key = f"{folder}/{name}"
        try:
            value, version = formats.load(kind, key, self._store.read)
        except KeyMissing as error:
            raise ArtifactError(f"{name} has not been materialised: {error}", name) from error
        except FormatError as error:
            raise ArtifactError(f"{name} is damaged: {error}", name) from error
        recorded = _recorded(asset, instance)
        if recorded not in (None, version):
            raise ArtifactError(
                f"{name} in {self._store.address(key)} is not what its latest materialisation recorded: its SHA-256 is "
                f"{version[:12]}…, recorded is {recorded[:12]}…",
                name,
            )
        return Loaded(value, self._store.address(key), version, recorded)


def _recorded(asset: dg.AssetKey, instance: dg.DagsterInstance) -> str | None:
    """Return the data version of the latest materialisation in the history; None without one."""
    records = instance.fetch_materializations(asset, limit=1).records
    materialization = records[0].asset_materialization if records else None
    return (materialization.tags or {}).get(DATA_VERSION) if materialization else None
