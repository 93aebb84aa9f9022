"""Stores that earlier versions wrote, and such as a later one may write: what this version does with their releases.

Each folder under `past/` is one more store of the past; it needs nothing here.
"""

import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from bcw_assets import documents
from bcw_assets.cli.main import main
from bcw_assets.errors import OTHER_VERSION, ReleaseError, ReleaseRefused
from bcw_assets.ml.table import columns
from bcw_assets.releases import bundle, gate, log, promotion
from bcw_assets.releases.access import open_release
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import contents, sweep, with_all
from bcw_assets_tests.releases.candidates import Candidate, candidate_of, flipped

PAST = sorted((Path(__file__).parent / "past").glob("schema_*"))
BESIDE = [rule for rule, _ in gate.BESIDE_CHAMPION]

Change = Callable[[dict[str, Any]], object]


def leave(document: dict[str, Any]) -> None:
    pass


def change(
    store: Store, *releases: str, files: Change = leave, manifest: Change = leave, entry: Change = leave
) -> None:
    """Change the files and manifests of some bundles, or of all, and every entry; hash, chain and seal all anew."""
    for release in releases or bundle.list_ids(store):
        prefix = bundle.locate_file(release, "")
        stored = {key.removeprefix(prefix): store.read(key) for key in store.list(prefix)}
        document = documents.read_sealed(dict, stored.pop(bundle.MANIFEST))
        changed = dict(stored)
        files(changed)
        sums = (f"{documents.digest(content)}  {name}\n" for name, content in changed.items() if name != bundle.SUMS)
        changed[bundle.SUMS] = "".join(sums).encode()
        for name in stored.keys() - changed.keys():
            store.delete(prefix + name)
        document["files"] = {
            name: {"bytes": len(content), "sha256": documents.digest(content)} for name, content in changed.items()
        }
        manifest(document)
        changed[bundle.MANIFEST] = documents.seal(document)
        with_all(store, {prefix + name: content for name, content in changed.items()})
    before = None
    for key in store.list(log.LOG_PREFIX):
        document = documents.read_sealed(dict, store.read(key)) | {"previous": before}
        place = bundle.locate_file(document["release"], bundle.MANIFEST)
        if place in store.list(place):
            document["manifest"] = documents.digest(store.read(place))
        entry(document)
        store.write({key: documents.seal(document)})
        before = documents.digest(store.read(key))


def without(*names: str) -> Change:
    return lambda files: [files.pop(name) for name in names]


def with_model(**changes: object) -> Change:
    return lambda files: files.update({"model.json": documents.encode(documents.parse(files["model.json"]) | changes)})


def change_much(store: Store) -> None:
    """Add a score, a file, parts of the model and fields everywhere, in a newer schema."""
    score = {"estimate": 0.9, "sd": None, "interval": [0.8, 0.95], "unit": "none", "bounds": {"method": "exact"}}

    def add_to_files(files: dict[str, Any]) -> None:
        metrics = documents.parse(files["metrics.json"]) | {"schema_version": 9, "fairness": {}}
        metrics["cross_validation"]["calibration_slope"] = score
        files |= {"Threshold-1_a.json": b"{}", "metrics.json": documents.encode(metrics)}
        with_model(calibration=None, steps="many")(files)

    def add_fields(document: dict[str, Any]) -> None:
        document |= {"bcw_assets": "9.0", "signature": {"key": "x", "value": None}}
        for row in [*document.get("gate", []), *document.get("files", {}).values()]:
            row["more"] = 1

    def add_to_manifest(manifest: dict[str, Any]) -> None:
        manifest["headline"]["calibration_slope"] = score
        manifest["schema_version"] = 99
        add_fields(manifest)

    change(store, files=add_to_files, manifest=add_to_manifest, entry=add_fields)


def drop_much(store: Store) -> None:
    """Leave only what this version cannot do without, and a score that it does not know."""

    def drop_inputs(manifest: dict[str, Any]) -> None:
        del manifest["inputs"]
        manifest["headline"] = {"brier": {"estimate": 0.02, "sd": 0.001, "interval": None}}

    def drop_fields(entry: dict[str, Any]) -> None:
        for name in ("gate", "reason"):
            if not entry[name]:
                del entry[name]

    dropped = without("metrics.json", "model.onnx", "evaluation.png")
    change(store, files=dropped, manifest=drop_inputs, entry=drop_fields)


on_newest = pytest.mark.parametrize("past", PAST[-1:], indirect=True, ids=lambda path: path.name)
"""For a test of what does not depend on which version wrote the store."""


@pytest.fixture(params=PAST, ids=lambda path: path.name)
def past(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of a store of the past, in whose folder we are."""
    shutil.copytree(request.param, tmp_path / "store")
    monkeypatch.chdir(tmp_path / "store")
    return FolderStore(tmp_path / "store")


@pytest.fixture(params=[lambda store: None, change_much, drop_much], ids=["as it was", "much changed", "little left"])
def store(request: pytest.FixtureRequest, past: Store) -> Store:
    """The same, as it was written, and as a version would have written it that has another form."""
    request.param(past)
    return past


@pytest.fixture(scope="session")
def newcomer(raw: pd.DataFrame) -> Candidate:
    return candidate_of(raw, seed=11)


@pytest.fixture(scope="session")
def worse(raw: pd.DataFrame) -> Candidate:
    return candidate_of(flipped(raw, 28))


@pytest.fixture(scope="session")
def returning(raw: pd.DataFrame) -> Candidate:
    """The candidate of the inputs of the release that was rolled back from in every store of the past."""
    return candidate_of(raw, seed=7, folds=5, repeats=3)


def bcw(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def releases(*arguments: str) -> str:
    """Return what `bcw releases` says; it must not fail."""
    done = bcw("releases", *arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def champion_and_other(store: Store) -> tuple[str, str]:
    """Return the champion, and a release that is stored beside it."""
    champion = log.read_log(store).require_champion().release
    return champion, next(release for release in bundle.list_ids(store) if release != champion)


def beside(rows: Any) -> dict[str, str]:
    return {row["rule"]: row["verdict"] for row in rows if row["rule"] in BESIDE}


def test_releases_and_log_are_whole_listed_shown_and_compared_with_all_that_they_say_of_themselves(
    store: Store,
) -> None:
    champion, other = champion_and_other(store)
    report = json.loads(releases("list", "--json"))
    assert [entry["sequence"] for entry in report["entries"]] == [*range(1, log.read_log(store).newest + 1)]
    assert (report["damage"], report["problem"]) == ([], None)
    assert re.search(rf"{champion} .*champion", releases("list"))
    text = releases("verify", "--all")
    for release in (champion, other):
        assert re.search(rf"^{release}  whole: \d+ files", text, re.MULTILINE)
        folder = Path("releases", release)
        done = subprocess.run(["sha256sum", "-c", bundle.SUMS], cwd=folder, capture_output=True, text=True, check=True)
        names = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
        assert names == {path.name for path in folder.iterdir()} - {bundle.MANIFEST, bundle.SUMS}
        manifest = documents.read_sealed(dict, store.read(bundle.locate_file(release, bundle.MANIFEST)))
        report = json.loads(releases("show", release, "--json"))["manifest"]
        assert (report["headline"].keys(), report["files"].keys()) == (
            manifest["headline"].keys(),
            names | {bundle.SUMS},
        )
        assert [name for name in (*manifest["headline"], *names) if name not in releases("show", release)] == []
    report = json.loads(releases("diff", champion, other, "--json"))
    assert report["scores"].keys() == open_release(store, champion).headline.keys()
    assert all(len(values) == 2 and None not in values for values in report["scores"].values())
    assert report["patients"]["in_one_only"] == [0, 0]
    assert "Patients in both: 569" in releases("diff", other, champion)


def test_models_give_what_their_examples_promise(store: Store) -> None:
    champion, other = champion_and_other(store)
    for release, options in ((champion, []), (other, ["--release", other[:8]])):
        done = bcw("predict", f"releases/{release}/example.csv", *options)
        assert done.exit_code == 0, done.stderr
        assert done.stderr.startswith(f"Release {release}, {'not ' if options else ''}the champion, made ")
        assert ("sensitivity 0." in done.stderr) == ("sensitivity" in open_release(store, release).headline)
        promised = read_example(store, release)
        assert len(promised) > 1
        given = pd.read_csv(io.BytesIO(done.stdout_bytes))
        np.testing.assert_allclose(given[columns.PROBABILITY], promised[columns.PROBABILITY], rtol=0, atol=1e-9)


def read_example(store: Store, release: str) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(store.read(bundle.locate_file(release, "example.csv"))))


def test_a_champion_is_rolled_back_forth_and_back_and_what_was_removed_is_listed_so(store: Store) -> None:
    champion, other = champion_and_other(store)
    for number, release in enumerate((other, champion), log.read_log(store).newest + 1):
        releases("rollback", release, "--reason", "a test")
        assert (log.read_log(store).require_champion().release, log.read_log(store).newest) == (release, number)
    assert "whole" in releases("verify")
    shutil.rmtree(Path("releases", other))
    stored = bundle.list_ids(store)
    for entry in json.loads(releases("list", "--json"))["entries"]:
        assert ("removed" in entry["state"]) == (entry["release"] not in stored)


def test_the_same_inputs_change_nothing_a_worse_candidate_is_refused_and_another_follows_the_champion(
    store: Store, candidate: Candidate, newcomer: Candidate, worse: Candidate
) -> None:
    before, newest = contents(store), log.read_log(store).newest
    result, entry = promotion.promote(store, candidate, [], "a run")
    assert (result, entry.release) == ("unchanged", champion_and_other(store)[0])
    assert contents(store) == before
    with pytest.raises(ReleaseRefused) as refusal:
        promotion.promote(store, worse, [], "a run")
    assert beside(refusal.value.rows) == dict.fromkeys(BESIDE, "broken")
    result, entry = promotion.promote(store, newcomer, [], "a run")
    assert (result, entry.sequence) == ("promoted", newest + 1)
    assert beside(entry.gate) == dict.fromkeys(BESIDE, "kept")
    assert open_release(store, None).id == newcomer.id
    releases("verify", "--all")


def test_what_was_rolled_back_from_returns_only_with_a_reason(store: Store, returning: Candidate) -> None:
    (release,) = log.read_log(store).list_rolled_back()
    before = contents(store)
    with pytest.raises(ReleaseRefused, match=r"rolled back from: in entry \d, because: "):
        promotion.promote(store, returning, [], "a run")
    result, entry = promotion.promote(store, returning, [], "a run", "the alarms had another cause")
    assert (result, entry.release[:8]) == ("promoted", release[:8])
    assert contents(store).items() >= before.items()
    assert open_release(store, None).id == entry.release
    assert (entry.reason, log.read_log(store).list_rolled_back()) == ("the alarms had another cause", {})


# What only one of two releases has.


@on_newest
def test_a_score_that_only_one_of_two_releases_has_is_blank_for_the_other(past: Store) -> None:
    champion, other = champion_and_other(past)
    change(past, other, manifest=lambda manifest: manifest["headline"].pop("roc_auc"))
    has_it, has_not = json.loads(releases("diff", champion, other, "--json"))["scores"]["roc_auc"]
    assert (has_it["estimate"] > 0.9, has_not) == (True, None)
    (line,) = (line for line in releases("diff", other, champion).splitlines() if line.startswith("roc_auc"))
    assert line.count("(") == 1
    text = bcw("predict", f"releases/{other}/example.csv", "--release", other).stderr
    assert ("sensitivity" in text, "ROC AUC" in text) == (True, False)


FEWER = columns.MEASUREMENTS[25:3:-4]


def keep_fewer_features(files: dict[str, Any]) -> None:
    """Leave in a bundle a model, and an example, of the `FEWER` measurements only."""
    document = documents.parse(files["model.json"])
    places = [document["features"].index(name) for name in FEWER]
    numbers = {name: [document[name][place] for place in places] for name in ("mean", "scale", "coefficients")}
    example = pd.read_csv(io.BytesIO(files["example.csv"]))[["id", *sorted(FEWER)]]
    standard = (example[list(FEWER)].to_numpy() - numbers["mean"]) / numbers["scale"]
    log_odds = document["intercept"] + standard @ np.array(numbers["coefficients"])
    example = example.assign(**{columns.PROBABILITY: 1 / (1 + np.exp(-log_odds))})
    with_model(features=list(FEWER), **numbers)(files)
    files["example.csv"] = example.to_csv(index=False).encode()


@on_newest
def test_a_model_of_fewer_measurements_in_another_order_is_used_and_compared(past: Store) -> None:
    champion, other = champion_and_other(past)
    change(past, champion, files=keep_fewer_features)
    releases("verify", "--all")
    done = bcw("predict", f"releases/{other}/example.csv", "--explain")
    assert done.exit_code == 0, done.stderr
    given = pd.read_csv(io.BytesIO(done.stdout_bytes))
    promised = read_example(past, champion)
    np.testing.assert_allclose(given[columns.PROBABILITY], promised[columns.PROBABILITY], rtol=0, atol=1e-9)
    names = given.filter(like="contribution").map(lambda text: text.split()[0]).to_numpy().ravel()
    assert set(names) <= set(FEWER)
    assert releases("diff", champion, other) != releases("diff", other, champion)


PREDICTIONS = "cross_validation.csv"


@on_newest
@pytest.mark.parametrize(
    ("known", "instead"),
    sweep([(b"fingerprint", b"x"), (b"repeat_", b"x"), (b"0.", b"x"), (b"M", b"1"), (b"0.", b"7."), (b"M", b"\xff")]),
)
def test_out_of_fold_predictions_in_another_form_are_as_if_there_were_none(
    past: Store, worse: Candidate, known: bytes, instead: bytes
) -> None:
    change(past, files=lambda files: files.update({PREDICTIONS: files[PREDICTIONS].replace(known, instead)}))
    with pytest.raises(ReleaseRefused, match=r"cross_validation\.csv (cannot be read|has no probabilities)") as refusal:
        promotion.promote(past, worse, [], "a run")
    assert beside(refusal.value.rows) == dict.fromkeys(BESIDE, "broken")
    assert "Patients in both: " in releases("diff", *champion_and_other(past))


@on_newest
def test_without_out_of_fold_predictions_or_a_model_it_is_verified_and_what_is_not_known_is_said(
    past: Store, newcomer: Candidate
) -> None:
    champion, other = champion_and_other(past)
    change(past, champion, files=without(PREDICTIONS))
    newcomer.raw_data.to_csv("table.csv", index=False)
    text = bcw("predict", "table.csv").stderr
    assert text.count("it is not known how many of them this release was trained on") == 1
    change(past, champion, files=without("model.json"))
    releases("verify", "--all")
    assert "Patients in both: not known" in releases("diff", champion, other)
    done = bcw("predict", f"releases/{champion}/example.csv")
    assert (done.exit_code, OTHER_VERSION in done.stderr) == (1, True)
    assert "model.json is missing from the bundle; " in done.stderr
    with pytest.raises(ReleaseRefused, match=rf"the champion {champion} cannot be compared with: it has no cross_val"):
        promotion.promote(past, newcomer, [], "a run")
    rows = promotion.promote(past, newcomer, [], "a run", "compared by hand")[1].gate
    assert beside(rows) == dict.fromkeys(BESIDE, "broken")


# What this version cannot use says that another version wrote it.

UNKNOWN: list[tuple[str, Change, str]] = [
    (
        "manifest",
        lambda manifest: manifest.update(files=[]),
        "cannot be used (Expected `object`, got `array` - at `$.files`",
    ),
    (
        "manifest",
        lambda manifest: manifest["files"].update({"a/b": {}}),
        "cannot be used (Expected `str` matching regex",
    ),
    ("files", with_model(features=["age_mean", *columns.MEASUREMENTS[1:]]), "this version does not know ('age_mean')"),
    ("files", with_model(intercept=1.0), "example.csv promises other probabilities than this version makes of model"),
    ("files", lambda files: files.update({"example.csv": b"id,p\n1,2\n"}), "example.csv cannot be used ('probability"),
]


@on_newest
@pytest.mark.parametrize(("what", "into", "says"), UNKNOWN)
def test_a_bundle_that_this_version_cannot_use_is_refused_as_one_of_another_version(
    past: Store, newcomer: Candidate, what: str, into: Change, says: str
) -> None:
    champion, other = champion_and_other(past)
    change(past, **{what: into})
    for arguments in (
        ["releases", "verify", champion],
        ["predict", f"releases/{champion}/example.csv"],
        ["releases", "rollback", other, "--reason", "a test"],
        ["releases", "diff", champion, other],
    ):
        done = bcw(*arguments)
        assert (done.exit_code, says in done.output, OTHER_VERSION in done.output) == (1, True, True)
    assert bcw("releases", "list").exit_code == bcw("releases", "show").exit_code == 0
    with pytest.raises(ReleaseRefused, match=OTHER_VERSION) as refusal:
        promotion.promote(past, newcomer, [], "a run")
    assert beside(refusal.value.rows) == dict.fromkeys(BESIDE, "broken")
    assert log.read_log(past).require_champion().release == champion


@on_newest
@pytest.mark.parametrize(
    "changes", sweep([{"action": "retire"}, {"release": "../../etc"}, {"sequence": 0}, {"gate": None}])
)
def test_a_newest_entry_of_another_version_is_no_damage_and_nobody_goes_past_it(
    past: Store, newcomer: Candidate, changes: dict[str, Any]
) -> None:
    _, other = champion_and_other(past)
    newest = log.read_log(past).newest
    change(past, entry=lambda entry: entry["sequence"] == newest and entry.update(changes))
    before = contents(past)
    says = f"releases/log/{newest:06}.json is not understood ("
    for arguments in (["verify"], ["rollback", other, "--reason", "a test"]):
        done = bcw("releases", *arguments)
        assert (done.exit_code, says in done.stderr, OTHER_VERSION in done.stderr) == (1, True, True)
        assert f" - at `$.{next(iter(changes))}`" in done.stderr
    done = bcw("releases", "verify", "--all")
    assert (done.exit_code, f"Not read: {says}" in done.stdout, "Damaged" in done.stdout) == (1, True, False)
    with pytest.raises(ReleaseError, match=OTHER_VERSION):
        promotion.promote(past, newcomer, [], "a run")
    assert contents(past) == before
