"""Stores that earlier versions wrote, and such as a later one may write: what this version does with their releases.

Each folder under `past/` is one more store of the past; it needs nothing here.
"""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
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
from bcw_assets.releases.candidate import Candidate
from bcw_assets.releases.log import Log
from bcw_assets.storage.folder import FolderStore
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import contents, sweep, with_all
from bcw_assets_tests.releases.candidates import candidate_of, flipped
from bcw_assets_tests.releases.test_faults import DAMAGE

PAST = sorted((Path(__file__).parent / "past").glob("schema_*"))
BESIDE = [rule for rule, _ in gate.BESIDE_CHAMPION]

Document = dict[str, Any]
Change = Callable[[Document], object]


def change_log(store: Store, change: Change = lambda entry: None) -> None:
    """Change every entry, and chain and seal them anew, with the manifests that are there now."""
    before = None
    for key in store.list(log.LOG_PREFIX):
        entry = documents.unseal(store.read(key)) | {"previous": before}
        manifest = bundle.locate_file(entry["release"], bundle.MANIFEST)
        if manifest in store.list(manifest):
            entry["manifest"] = documents.digest(store.read(manifest))
        change(entry)
        store.write({key: documents.seal(entry)})
        before = documents.digest(store.read(key))


def change_manifests(store: Store, change: Change, *releases: str) -> None:
    """Change the manifests of some releases, or of all, and what the log says of them."""
    for release in releases or bundle.list_ids(store):
        key = bundle.locate_file(release, bundle.MANIFEST)
        manifest = documents.unseal(store.read(key))
        change(manifest)
        store.write({key: documents.seal(manifest)})
    change_log(store)


def change_files(store: Store, change: Callable[[dict[str, bytes]], dict[str, bytes]], *releases: str) -> None:
    """Change the files of the bundles of some releases, or of all, and what SHA256SUMS and the manifest say of them."""
    for release in releases or bundle.list_ids(store):
        prefix = bundle.locate_file(release, "")
        stored = {key.removeprefix(prefix): store.read(key) for key in store.list(prefix)}
        del stored[bundle.MANIFEST]
        files = change(stored)
        files[bundle.SUMS] = bundle.format_sums(files)
        for name in stored.keys() - files.keys():
            store.delete(prefix + name)
        with_all(store, {prefix + name: content for name, content in files.items()})
        members = {
            name: {"bytes": len(content), "sha256": documents.digest(content)} for name, content in files.items()
        }
        change_manifests(store, partial(dict.update, files=members), release)


def without(*names: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Return a change that takes files out of a bundle."""
    return lambda files: {name: content for name, content in files.items() if name not in names}


def with_model(**changes: object) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Return a change of the document in model.json."""
    return lambda files: files | {"model.json": documents.encode(documents.parse(files["model.json"]) | changes)}


def change_much(store: Store) -> None:
    """Add a score, a file, parts of the model and fields everywhere, in a newer schema."""
    score = {"estimate": 0.9, "sd": None, "interval": [0.8, 0.95], "unit": "none", "bounds": {"method": "exact"}}

    def add_to_files(files: dict[str, bytes]) -> dict[str, bytes]:
        metrics = documents.parse(files["metrics.json"]) | {"schema_version": 9, "fairness": {}}
        metrics["cross_validation"]["calibration_slope"] = score
        files = with_model(calibration=None, steps="many")(files)
        return {"Threshold-1_a.json": b"{}"} | files | {"metrics.json": documents.encode(metrics)}

    def add_fields(document: Document) -> None:
        document |= {"bcw_assets": "9.0", "signature": {"key": "x", "value": None}}
        for row in [*document.get("gate", []), *document.get("files", {}).values()]:
            row["more"] = 1

    change_files(store, add_to_files)
    change_manifests(store, lambda manifest: manifest["headline"].update(calibration_slope=score))
    change_manifests(store, lambda manifest: manifest.update(schema_version=99))
    change_manifests(store, add_fields)
    change_log(store, add_fields)


def drop_much(store: Store) -> None:
    """Leave only what this version cannot do without, and a score that it does not know."""

    def drop_fields(entry: Document) -> None:
        for name in ("gate", "reason"):
            if not entry.get(name):
                entry.pop(name, None)

    headline = {"brier": {"estimate": 0.02, "sd": 0.001, "interval": None}}
    change_files(store, without("metrics.json", "model.onnx", "evaluation.png"))
    change_manifests(store, lambda manifest: manifest.pop("inputs"))
    change_manifests(store, lambda manifest: manifest.update(headline=headline))
    change_log(store, drop_fields)


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
def newcomer(made: dict[str, Any], raw: pd.DataFrame) -> Candidate:
    """A candidate that is as good as any and was in no store of the past."""
    return candidate_of(made["metrics"], raw, seed=11)


@pytest.fixture(scope="session")
def worse(made: dict[str, Any], raw: pd.DataFrame) -> Candidate:
    return candidate_of(made["metrics"], flipped(raw, 28))


@pytest.fixture(scope="session")
def returning(made: dict[str, Any], raw: pd.DataFrame) -> Candidate:
    """The candidate of the inputs of the release that was rolled back from in every store of the past."""
    return candidate_of(made["metrics"], raw, seed=7, folds=5, repeats=3)


def bcw(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def releases(*arguments: str) -> str:
    """Return what `bcw releases` says; it must not fail."""
    done = bcw("releases", *arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def champion_and_other(store: Store) -> tuple[Log, str, str]:
    """Return the log, the champion, and a release that is stored beside it."""
    current_log = log.read_log(store)
    champion = current_log.require_champion().release
    return current_log, champion, next(release for release in bundle.list_ids(store) if release != champion)


def beside(rows: Any) -> dict[str, str]:
    """Return what the gate says of the rules beside the champion: rule → verdict."""
    return {row["rule"]: row["verdict"] for row in rows if row["rule"] in BESIDE}


def test_releases_and_log_are_whole(store: Store) -> None:
    text = releases("verify", "--all")
    for release in bundle.list_ids(store):
        assert re.search(rf"^{release}  whole: \d+ files", text, re.MULTILINE)
        folder = Path("releases", release)
        done = subprocess.run(["sha256sum", "-c", bundle.SUMS], cwd=folder, capture_output=True, text=True, check=True)
        names = {line.removesuffix(": OK") for line in done.stdout.splitlines()}
        assert names == {path.name for path in folder.iterdir()} - {bundle.MANIFEST, bundle.SUMS}


def test_releases_are_listed_and_shown_with_all_that_they_say_of_themselves(store: Store) -> None:
    current_log, champion, other = champion_and_other(store)
    report = json.loads(releases("list", "--json"))
    assert [entry["sequence"] for entry in report["entries"]] == [*range(1, current_log.newest + 1)]
    assert (report["damage"], report["problem"]) == ([], None)
    assert re.search(rf"{champion} .*champion", releases("list"))
    for release in (champion, other):
        manifest = documents.unseal(store.read(bundle.locate_file(release, bundle.MANIFEST)))
        shown = json.loads(releases("show", release, "--json"))["manifest"]
        assert shown["headline"].keys() == manifest["headline"].keys()
        assert shown["files"].keys() == manifest["files"].keys()
        text = releases("show", release)
        assert [name for name in (*manifest["headline"], *manifest["files"]) if name not in text] == []


def test_two_releases_are_compared(store: Store) -> None:
    _, champion, other = champion_and_other(store)
    report = json.loads(releases("diff", champion, other, "--json"))
    assert report["scores"].keys() == open_release(store, champion).headline.keys()
    assert all(len(values) == 2 and None not in values for values in report["scores"].values())
    assert (len(report["coefficients"]), report["patients"]["in_one_only"]) == (30, [0, 0])
    assert "Patients in both: 569" in releases("diff", other, champion)


@pytest.mark.parametrize("is_champion", [True, False])
def test_models_give_what_their_examples_promise(store: Store, is_champion: bool) -> None:
    _, champion, other = champion_and_other(store)
    release = champion if is_champion else other
    done = bcw("predict", f"releases/{release}/example.csv", *([] if is_champion else ["--release", release[:8]]))
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith(f"Release {release}, {'the' if is_champion else 'not the'} champion, made ")
    assert ("sensitivity 0." in done.stderr) == ("sensitivity" in open_release(store, release).headline)
    promised = store.read(bundle.locate_file(release, "example.csv"))
    given, expected = (
        [float(row[columns.PROBABILITY]) for row in csv.DictReader(io.StringIO(content.decode()))]
        for content in (done.stdout_bytes, promised)
    )
    assert len(expected) > 1
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-9)


def test_a_champion_is_rolled_back_forth_and_back_and_what_was_removed_is_listed_so(store: Store) -> None:
    current_log, champion, other = champion_and_other(store)
    for number, release in enumerate((other, champion), current_log.newest + 1):
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
    outcome = promotion.promote(store, candidate, [], "a run")
    assert (outcome.result, outcome.entry.release) == ("unchanged", log.read_log(store).require_champion().release)
    assert contents(store) == before
    with pytest.raises(ReleaseRefused) as refusal:
        promotion.promote(store, worse, [], "a run")
    assert beside(refusal.value.rows) == dict.fromkeys(BESIDE, "broken")
    outcome = promotion.promote(store, newcomer, [], "a run")
    assert (outcome.result, outcome.entry.sequence) == ("promoted", newest + 1)
    assert beside(outcome.entry.gate) == dict.fromkeys(BESIDE, "kept")
    assert open_release(store, None).id == newcomer.id
    releases("verify", "--all")


def test_what_was_rolled_back_from_returns_only_with_a_reason(store: Store, returning: Candidate) -> None:
    (release,) = log.read_log(store).list_rolled_back()
    before = contents(store)
    with pytest.raises(ReleaseRefused, match="rolled back from: in entry "):
        promotion.promote(store, returning, [], "a run")
    outcome = promotion.promote(store, returning, [], "a run", "the alarms had another cause")
    assert (outcome.result, outcome.entry.release[:8]) == ("promoted", release[:8])
    assert {key: content for key, content in contents(store).items() if key in before} == before
    assert open_release(store, None).id == outcome.entry.release


def test_beyond_the_first_nobody_goes_back_and_what_was_removed_is_named(past: Store) -> None:
    done = bcw("releases", "rollback", "--reason", "a test")
    says = "has none before it that is still stored (27f6a5e32cc95e16 was removed)"
    removed = "27f6a5e32cc95e16" in json.dumps(json.loads(releases("list", "--json")))
    assert (done.exit_code, (says if removed else "is the first: there is none before it") in done.stderr) == (1, True)


@pytest.mark.parametrize("what", sweep(list(DAMAGE)))
def test_a_damaged_champion_is_made_again_and_no_byte_of_it_is_changed(
    past: Store, candidate: Candidate, what: str
) -> None:
    champion = log.read_log(past).require_champion().release
    DAMAGE[what](past, champion)
    folder = bundle.locate_file(champion, "")
    before = {key: content for key, content in contents(past).items() if key.startswith(folder)}
    outcome = promotion.promote(past, candidate, [], "a run")
    assert outcome.result == ("unchanged" if what == "no entry in the log" else "promoted")
    after = {key: content for key, content in contents(past).items() if key.startswith(folder)}
    assert after == before or outcome.entry.release == champion
    assert open_release(past, None).id == outcome.entry.release


# What only one of two releases has.


@on_newest
def test_a_score_that_only_one_of_two_releases_has_is_blank_for_the_other(past: Store) -> None:
    _, champion, other = champion_and_other(past)
    change_manifests(past, lambda manifest: manifest["headline"].pop("roc_auc"), other)
    has_it, has_not = json.loads(releases("diff", champion, other, "--json"))["scores"]["roc_auc"]
    assert (has_it["estimate"] > 0.9, has_not) == (True, None)
    (line,) = (line for line in releases("diff", other, champion).splitlines() if line.startswith("roc_auc"))
    assert line.count("(") == 1
    said = bcw("predict", f"releases/{other}/example.csv", "--release", other).stderr
    assert ("sensitivity" in said, "ROC AUC" in said) == (True, False)


@on_newest
def test_a_model_of_fewer_measurements_in_another_order_is_used_and_compared(past: Store) -> None:
    _, champion, other = champion_and_other(past)
    change_files(past, with_fewer_features, champion)
    releases("verify", "--all")
    done = bcw("predict", f"releases/{other}/example.csv", "--explain")
    assert done.exit_code == 0, done.stderr
    given = pd.read_csv(io.BytesIO(done.stdout_bytes))
    example = pd.read_csv(io.BytesIO(past.read(bundle.locate_file(champion, "example.csv"))))
    np.testing.assert_allclose(given[columns.PROBABILITY], example[columns.PROBABILITY], rtol=0, atol=1e-9)
    named = given.filter(like="contribution").map(lambda text: text.split()[0]).to_numpy().ravel()
    assert set(named) <= set(FEWER)
    weights = json.loads(releases("diff", champion, other, "--json"))["coefficients"]
    assert {name for name, (one, _) in weights.items() if one is None} == set(columns.MEASUREMENTS) - set(FEWER)
    assert releases("diff", champion, other) != releases("diff", other, champion)


FEWER = columns.MEASUREMENTS[25:3:-4]


def with_fewer_features(files: dict[str, bytes]) -> dict[str, bytes]:
    """Return a bundle whose model, and whose example, has the `FEWER` measurements only."""
    document = documents.parse(files["model.json"])
    places = [document["features"].index(name) for name in FEWER]
    numbers = {name: [document[name][place] for place in places] for name in ("mean", "scale", "coefficients")}
    example = pd.read_csv(io.BytesIO(files["example.csv"]))[["id", *sorted(FEWER)]]
    standard = (example[list(FEWER)].to_numpy() - numbers["mean"]) / numbers["scale"]
    log_odds = document["intercept"] + standard @ np.array(numbers["coefficients"])
    example = example.assign(**{columns.PROBABILITY: 1 / (1 + np.exp(-log_odds))})
    return with_model(features=list(FEWER), **numbers)(files) | {"example.csv": example.to_csv(index=False).encode()}


@on_newest
def test_without_out_of_fold_predictions_the_gate_is_passed_by_a_reason_alone_and_predict_says_that_it_does_not_know(
    past: Store, newcomer: Candidate
) -> None:
    _, champion, other = champion_and_other(past)
    change_files(past, without("cross_validation.csv"), champion)
    table = Path("table.csv")
    newcomer.raw_data.to_csv(table, index=False)
    done = bcw("predict", str(table))
    assert done.exit_code == 0
    assert done.stderr.count("it is not known how many of them this release was trained on") == 1
    assert "Patients in both: not known" in releases("diff", champion, other)
    with pytest.raises(ReleaseRefused, match=rf"the champion {champion} cannot be compared with: it has no cross_val"):
        promotion.promote(past, newcomer, [], "a run")
    rows = promotion.promote(past, newcomer, [], "a run", "compared by hand").entry.gate
    assert beside(rows) == dict.fromkeys(BESIDE, "broken")


@on_newest
@pytest.mark.parametrize(
    ("known", "instead"),
    sweep([(b"fingerprint", b"x"), (b"repeat_", b"x"), (b"0.", b"x"), (b"M", b"1"), (b"0.", b"7."), (b"M", b"\xff")]),
)
def test_out_of_fold_predictions_in_another_form_are_as_if_there_were_none(
    past: Store, worse: Candidate, known: bytes, instead: bytes
) -> None:
    name = "cross_validation.csv"
    change_files(past, lambda files: files | {name: files[name].replace(known, instead)})
    with pytest.raises(ReleaseRefused, match=r"cross_validation\.csv (cannot be read|has no probabilities)") as refusal:
        promotion.promote(past, worse, [], "a run")
    assert beside(refusal.value.rows) == dict.fromkeys(BESIDE, "broken")
    _, champion, other = champion_and_other(past)
    assert "Patients in both: " in releases("diff", champion, other)


# What this version cannot use says that another version wrote it.


def nest_files(store: Store) -> None:
    change_manifests(store, lambda manifest: manifest.update(files=list(manifest["files"].values())))


def change_models(**changes: object) -> Callable[[Store], None]:
    return lambda store: change_files(store, with_model(**changes))


UNKNOWN: list[tuple[Callable[[Store], None], str]] = [
    (nest_files, "manifest.json cannot be used (files: "),
    (
        lambda store: change_manifests(store, lambda manifest: manifest["files"].update({"a/b": {}})),
        "manifest.json cannot be used (files.a/b",
    ),
    (
        change_models(features=["age_mean", *columns.MEASUREMENTS[1:]]),
        "it takes features that this version does not know ('age_mean')",
    ),
    (change_models(features=[columns.MEASUREMENTS[1], *columns.MEASUREMENTS[1:]]), "it takes a feature twice"),
    (change_models(mean={"forest": []}), "it has no 30 numbers as mean"),
    (
        change_models(intercept=1.0),
        "example.csv promises other probabilities than this version makes of model.json, by ",
    ),
    (
        lambda store: change_files(store, lambda files: files | {"example.csv": b"id,p\n1,2\n"}),
        "example.csv cannot be used ('probability_malignant'",
    ),
]


@on_newest
@pytest.mark.parametrize(("change", "says"), UNKNOWN)
def test_a_bundle_that_this_version_cannot_use_is_refused_as_one_of_another_version(
    past: Store, newcomer: Candidate, change: Callable[[Store], None], says: str
) -> None:
    _, champion, other = champion_and_other(past)
    change(past)
    for arguments in (
        ["releases", "verify", champion],
        ["predict", f"releases/{champion}/example.csv"],
        ["releases", "rollback", other, "--reason", "a test"],
        ["releases", "diff", champion, other],
    ):
        done = bcw(*arguments)
        assert done.exit_code == 1
        assert says in done.output
        assert OTHER_VERSION in done.output
        assert "published" not in done.output
    assert bcw("releases", "list").exit_code == bcw("releases", "show").exit_code == 0
    with pytest.raises(ReleaseRefused, match=OTHER_VERSION) as refusal:
        promotion.promote(past, newcomer, [], "a run")
    assert beside(refusal.value.rows) == dict.fromkeys(BESIDE, "broken")
    assert log.read_log(past).require_champion().release == champion


@on_newest
def test_a_release_without_a_model_that_this_version_knows_is_verified_and_not_used_to_predict(past: Store) -> None:
    _, champion, other = champion_and_other(past)
    change_files(past, without("model.json"))
    releases("verify", "--all")
    releases("diff", champion, other)
    done = bcw("predict", f"releases/{champion}/example.csv")
    assert (done.exit_code, OTHER_VERSION in done.stderr) == (1, True)
    assert "model.json is missing from the bundle; " in done.stderr


@on_newest
def test_a_newest_entry_of_another_version_is_no_damage_and_nobody_goes_past_it(
    past: Store, newcomer: Candidate
) -> None:
    _, _, other = champion_and_other(past)
    newest = log.read_log(past).newest
    change_log(past, lambda entry: entry.update(action="retire") if entry["sequence"] == newest else None)
    before = contents(past)
    says = f"releases/log/{newest:06}.json is not understood (action: "
    for arguments in (["verify"], ["rollback", other, "--reason", "a test"]):
        done = bcw("releases", *arguments)
        assert done.exit_code == 1
        assert says in done.stderr
        assert OTHER_VERSION in done.stderr
    done = bcw("releases", "verify", "--all")
    assert (done.exit_code, f"Not read: {says}" in done.stdout, "Damaged" in done.stdout) == (1, True, False)
    with pytest.raises(ReleaseError, match=OTHER_VERSION):
        promotion.promote(past, newcomer, [], "a run")
    assert contents(past) == before
