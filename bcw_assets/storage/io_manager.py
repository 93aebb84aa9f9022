"""Stores each asset's value and loads it again: format by the value's type, place by the asset's metadata."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import dagster as dg

from bcw_assets.documents import digest
from bcw_assets.errors import ArtifactError, KeyMissing
from bcw_assets.locations import PARQUET_SUFFIX
from bcw_assets.stages import FOLDER_KEY, explain_failures
from bcw_assets.storage import formats
from bcw_assets.storage.store import Store

PATH = "path"  # the key of a materialisation's metadata that says where it is stored
FAR_BACK = 100  # materialisations that are searched for one stored at the same place
# Tags of a materialisation, for which Dagster exports no names; after the second comes the name of an input.
DATA_VERSION, INPUT_VERSION = "dagster/data_version", "dagster/input_data_version/"
Places = Mapping[dg.AssetKey, str]  # asset → where it is, a path or a URI, as its materialisations record it


class StoredValue(NamedTuple):
    """An asset's value, and the proof of what it was read from."""

    value: Any
    address: str  # of the file that speaks for all, a path or a URI
    version: str  # the SHA-256 of that file


class Materialization(NamedTuple):
    """What the history says of a materialisation."""

    run_id: str
    storage_id: int  # its number in the history, which checks refer to
    timestamp: float  # seconds since 1970
    version: str | None  # the SHA-256 that was recorded
    inputs: dict[str, str]  # asset that it was made from → the SHA-256 that was recorded of it then
    facts: dict[str, Any]  # its metadata, by name

    def is_older_than(self, name: str, other: "Materialization") -> bool:
        """Say whether an asset of this name, which it was made from, has become another since."""
        return self.storage_id < other.storage_id and self.inputs.get(name, other.version) != other.version


class ArtifactIOManager(dg.IOManager):
    """The one IO manager: what differs between a laptop and S3 is the store behind it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._versions: dict[tuple[str, str], str] = {}  # run and asset → the version that the run stored
        self._values: dict[str, tuple[list[str], Any]] = {}  # asset → the hashes and the value of its last files

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Store a value, delete its files of the other type, and record its SHA-256 as the data version."""
        name = context.asset_key.to_user_string()
        place = f"{context.definition_metadata[FOLDER_KEY]}/{name}"
        files = formats.dump(obj, place)
        keys = {*formats.list_keys(type(obj), place), *formats.list_keys(type(obj), place, PARQUET_SUFFIX)}
        twins = keys.difference(files)  # of an earlier run, when the table had another size
        with explain_failures():
            self._store.write(files)
            for twin in twins:
                self._store.delete(twin)
        hashes = list(map(digest, files.values()))
        self._values[name], self._versions[context.run_id, name] = (hashes, obj), hashes[-1]
        # An IO manager cannot return a data version; Dagster 1.13 takes it from here, and the checks' tests notice.
        context.step_context.set_data_version(context.asset_key, dg.DataVersion(hashes[-1]))
        address, length = dg.MetadataValue.path(self._store.address([*files][-1])), sum(map(len, files.values()))
        rule = {"file type": formats.SUFFIX_RULE} if twins else {}
        context.add_output_metadata({PATH: address, "files": ", ".join(files), **rule, "dagster/size_bytes": length})

    def load_input(self, context: dg.InputContext) -> Any:
        """Load the value of an upstream asset as the type that the downstream one annotates."""
        folder = (context.upstream_output or context).definition_metadata[FOLDER_KEY]
        with explain_failures():
            stored = self.read(context.asset_key, folder, context.dagster_type.typing_type)
            self.verify(context.asset_key, stored, context.instance, context.step_context.run_id)
        return stored.value

    def address(self, asset: dg.AssetKey, folder: str, kind: type) -> str:
        """Return where the file that speaks for an asset is: a path or a URI."""
        return self._store.address(formats.list_keys(kind, f"{folder}/{asset.to_user_string()}")[-1])

    def read(self, asset: dg.AssetKey, folder: str, kind: type) -> StoredValue:
        """Read an asset's value of type `kind` in `folder`, or raise an ArtifactError: it is missing or damaged."""
        name = asset.to_user_string()
        try:
            files = self._read_files(kind, f"{folder}/{name}")
            hashes = list(map(digest, files.values()))
            if self._values.get(name, ([], None))[0] != hashes:  # the same bytes are the same value
                self._values[name] = (hashes, formats.load(kind, files))
        except KeyMissing as error:
            raise ArtifactError(f"{name} has not been materialised, or is not whole: {error}", name) from error
        except formats.FormatError as error:
            raise ArtifactError(f"{name} cannot be used: {error}", name) from error
        return StoredValue(self._values[name][1], self._store.address([*files][-1]), hashes[-1])

    def _read_files(self, kind: type, key: str) -> dict[str, bytes]:
        """Read the files of a value of the type that is there; what lacks both has the first's KeyMissing."""
        keys, twins = formats.list_keys(kind, key), formats.list_keys(kind, key, PARQUET_SUFFIX)
        try:
            return {file: self._store.read(file) for file in keys}
        except KeyMissing:
            if keys == twins or not self._store.list(twins[0]):
                raise
        return {file: self._store.read(file) for file in twins}

    def verify(self, asset: dg.AssetKey, stored: StoredValue, instance: dg.DagsterInstance, run: str) -> None:
        """Raise an ArtifactError if it is not what the run of this id stored, or else what the history recorded last.

        Without a record of this place it may be anything.
        """
        name = asset.to_user_string()
        if own_version := self._versions.get((run, name)):
            if own_version != stored.version:
                problem = f"was replaced by another run while this one was at work ({stored.address})"
                raise ArtifactError(f"{name} {problem}", name)
            return
        latest = find_latest(asset, stored.address, instance)
        if latest and latest.version not in (None, stored.version):
            problem = f"the SHA-256 of {stored.address} is {stored.version[:12]}…, recorded is {latest.version[:12]}…"
            raise ArtifactError(f"{name} is not what its latest materialisation recorded: {problem}", name)


def find_latest(asset: dg.AssetKey, address: str, instance: dg.DagsterInstance) -> Materialization | None:
    """Return the latest materialisation in the history that was stored at `address`; None without one.

    Another folder's, which the same history may hold after a change of BCW_STORAGE, says nothing of what is here.
    """
    for limit in (1, FAR_BACK):
        for record in instance.fetch_materializations(asset, limit=limit).records:
            event = record.asset_materialization
            place = event.metadata.get(PATH) if event else None
            if event and place and formats.cut_suffix(str(place.value)) == formats.cut_suffix(address):
                facts = {name: entry.value for name, entry in event.metadata.items()}
                tags = event.tags or {}
                inputs = {
                    name.removeprefix(INPUT_VERSION): tags[name] for name in tags if name.startswith(INPUT_VERSION)
                }
                version = tags.get(DATA_VERSION)
                return Materialization(record.run_id, record.storage_id, record.timestamp, version, inputs, facts)
    return None
