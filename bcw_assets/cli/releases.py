"""What `bcw releases` shows: each report as data, which --json writes; the words of the text are in `releases.j2`."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bcw_assets.errors import KeyMissing, KeyRefused
from bcw_assets.ml.evaluation.scores import SCORES, Summary
from bcw_assets.releases import bundle, log
from bcw_assets.releases.access import find_way_back
from bcw_assets.report.formatting import format_estimate, open_templates
from bcw_assets.storage.store import Store

Listing = dict[str, Any]
LONGEST_VALUE = 16  # characters of an input in a list; of a longer one, a fingerprint, eight are shown


def report_list(store: Store) -> Listing:
    """Return every entry of the log with its release, and the bundles that have none."""
    current_log, ids = log.read_log(store), bundle.list_ids(store)
    return {
        "place": current_log.place,
        "entries": [_describe_entry(store, entry, current_log, ids) for entry in current_log.entries],
        "without_entry": [
            {"release": release, "state": _read_manifest(store, release, None, ids)[1] or current_log.absence}
            for release in ids
            if not current_log.list_entries(release)
        ],
        "damage": _describe_damage(current_log),
        "problem": current_log.problem,
    }


def report_release(store: Store, prefix: str | None) -> Listing:
    """Return all that is known of a release: its entries, what it was made from, the gate, its files."""
    current_log = log.read_log(store)
    release = current_log.choose_release(store, prefix)
    stored_bundle = current_log.read_bundle(store, release)
    page = store.address(bundle.locate_file(release, "index.html")) if "index.html" in stored_bundle.files else None
    return {
        "release": release,
        "is_champion": current_log.champion is not None and current_log.champion.release == release,
        "entries": [asdict(entry) for entry in current_log.list_entries(release)],
        "page": page,
        "manifest": stored_bundle.manifest and asdict(stored_bundle.manifest),
        "problems": list(stored_bundle.problems),
    }


def report_verification(store: Store, prefix: str | None, *, everything: bool) -> Listing:
    """Return what is wrong with the log, and with a release, with the champion, or with every release.

    A bundle that is unfinished or was removed is no failure, unless it is the one that was asked for, the newest
    entry's, or the one that a rollback goes to.
    """
    current_log, ids = log.read_log(store), bundle.list_ids(store)
    asked = set() if everything else {current_log.choose_release(store, prefix)}
    newest = {entry.release for entry in current_log.entries[-1:]}
    needed = asked | newest | {find_way_back(store, current_log)}
    results = []
    for release in sorted(asked or newest.union(ids)):
        stored_bundle = current_log.read_bundle(store, release)
        gap = stored_bundle.gap
        problems = list(stored_bundle.problems) if not gap or release in needed else []
        size = sum(map(len, stored_bundle.files.values()))
        state = gap or ("cannot be used" if problems else f"whole: {len(stored_bundle.files)} files, {size:,} bytes")
        if not gap and not current_log.list_entries(release):
            state += f", {current_log.absence}"
        results.append({"release": release, "state": state, "problems": problems})
    is_good = not current_log.damage and not current_log.problem and not any(result["problems"] for result in results)
    return {"good": is_good, "place": current_log.place, "releases": results, "damage": _describe_damage(current_log)}


def report_comparison(store: Store, *prefixes: str) -> Listing:
    """Return how two releases differ: what they were made from, scores, patients."""
    current_log, releases = log.read_log(store), [bundle.resolve(store, prefix) for prefix in prefixes]
    bundles = [current_log.read_bundle(store, release).require() for release in releases]
    inputs = _pair([dict(_flatten(stored.manifest.inputs)) for stored in bundles if stored.manifest])
    patients, other_patients = map(_read_fingerprints, bundles)
    return {
        "releases": releases,
        "inputs": {name: values for name, values in inputs.items() if values[0] != values[1]},
        "scores": _pair([{name: asdict(summary) for name, summary in stored.headline.items()} for stored in bundles]),
        "patients": None if patients is None or other_patients is None else {
            "in_both": len(patients & other_patients),
            "in_one_only": [len(patients - other_patients), len(other_patients - patients)],
        },
    }  # fmt: skip


def format_listing(name: str, report: Listing) -> str:
    """Return what `report_` and this name made, for people."""
    templates = open_templates(Path(__file__).parent)
    templates.filters |= {"align": _align, "flatten": _flatten, "list_differences": _list_differences}
    templates.filters["pick"] = lambda name, headline: headline.get(name)
    templates.filters["format_summary"] = lambda values: format_estimate(Summary(**values)) if values else ""
    brief = {name: profile.title for name, profile in SCORES.items() if profile.is_brief}
    templates.globals |= {"brief": brief, "no_release": log.NO_RELEASE}
    templates.globals["row"] = lambda cells: "\t".join(" ".join(str(cell).split()) for cell in cells)
    return str(getattr(templates.get_template("releases.j2").module, name)(report)).rstrip("\n")


def _align(lines: str, headers: str = "") -> str:
    rows = [line.split("\t") for line in lines.splitlines()]
    return f"{tabulate(rows, headers, tablefmt='plain', disable_numparse=True)}\n"  # an id like 1234e567 is no number


def _pair(mappings: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return every name of both → its two values; None where there is none."""
    return {name: [mapping.get(name) for mapping in mappings] for name in mappings[0] | mappings[1]}


def _describe_damage(current_log: log.Log) -> list[str]:
    damaged = [f"Damaged: {key} {what}" for key, what in current_log.damage.items()]
    return [*damaged, *(f"Not read: {key} {what}" for key, what in current_log.foreign.items())]


def _describe_entry(store: Store, entry: log.Entry, current_log: log.Log, ids: list[str]) -> Listing:
    manifest, gap = _read_manifest(store, entry.release, entry.manifest, ids)
    facts = {"inputs": manifest and manifest.inputs, "headline": manifest and asdict(manifest)["headline"]}
    rollback = current_log.list_rolled_back().get(entry.release)
    of_champion = "champion" if entry is current_log.champion else None
    states = (of_champion, rollback and f"rolled back in entry {rollback.sequence}", gap)
    return asdict(entry) | facts | {"state": list(filter(None, states))}


def _read_manifest(store: Store, release: str, sha256: str | None, ids: list[str]) -> tuple[Any, str | None]:
    """Return the manifest, or why there is none that can be used."""
    try:
        return bundle.read_manifest(store, release, sha256), None
    except KeyMissing:
        return None, bundle.UNFINISHED if release in ids else bundle.REMOVED
    except (KeyRefused, ValueError) as error:
        return None, f"{bundle.MANIFEST} cannot be used ({error})"


def _list_differences(entries: Sequence[Listing]) -> list[str]:
    """Return for every entry those of its inputs that another entry has otherwise."""
    inputs = [dict(_flatten(entry["inputs"] or {})) for entry in entries]
    return [
        ", ".join(
            f"{name} {value if len(value) <= LONGEST_VALUE else value[:8]}"
            for name, value in own.items()
            if any(value != other.get(name, value) for other in inputs)
        )
        for own in inputs
    ]


def _flatten(inputs: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{above}{name}.")
        else:
            yield above + name, str(value)


def _read_fingerprints(stored_bundle: bundle.Bundle) -> set[str] | None:
    """Return the patients; None if the bundle does not list them in a form that this version knows."""
    try:
        rows = csv.DictReader(stored_bundle.files["cross_validation.csv"].decode().splitlines())
        return {row["fingerprint"] for row in rows}
    except (LookupError, ValueError, csv.Error):
        return None
