"""What `bcw releases` shows: each report as data, which --json writes, and that as text."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from bcw_assets.errors import KeyMissing, KeyRefused
from bcw_assets.releases import bundle, log
from bcw_assets.releases.access import find_way_back
from bcw_assets.releases.bundle import Bundle, load_scorer
from bcw_assets.releases.log import Entry, Log
from bcw_assets.report.formatting import format_interval, format_score
from bcw_assets.storage.store import Store

Report = dict[str, Any]
CHAMPION, ROLLED_BACK, REMOVED = "champion", "rolled back", "removed"
UNFINISHED, NEVER_CHAMPION = "unfinished", "never champion"
MOST_COEFFICIENTS = 5  # that are shown of those that differ


def report_list(store: Store) -> Report:
    """Return every entry of the log with its release, and the bundles that have none."""
    current_log, ids = log.read_log(store), bundle.list_ids(store)
    return {
        "place": current_log.place,
        "entries": [_describe_entry(store, entry, current_log, ids) for entry in current_log.entries],
        "without_entry": [
            {"release": release, "state": UNFINISHED if _read_headline(store, release) is None else NEVER_CHAMPION}
            for release in ids
            if not current_log.entries_of(release)
        ],
        "damage": _describe_damage(current_log),
    }


def format_list(report: Report) -> str:
    """Return the list for people, the champion last."""
    headers = ("entry", "action", "release", "made", "sensitivity", "ROC AUC", "state", "reason")
    rows = [
        (
            *(entry[name] for name in ("sequence", "action", "release", "made")),
            *(_format_summary((entry["headline"] or {}).get(name)) for name in ("sensitivity", "roc_auc")),
            *(", ".join(entry["state"]), entry["reason"] or ""),
        )
        for entry in report["entries"]
    ]
    lines = [_align(rows, headers) if rows else log.NO_RELEASE.format(report["place"])]
    lines += [f"Without an entry: {orphan['release']}, {orphan['state']}" for orphan in report["without_entry"]]
    return "\n".join([*lines, *report["damage"]])


def report_release(store: Store, release: str | None) -> Report:
    """Return all that is known of one release: its entries, what it was made from, the gate, its files."""
    current_log = log.read_log(store)
    release = release or current_log.current().release
    stored_bundle = current_log.read_bundle(store, release)
    return {
        "release": release,
        "is_champion": bool(current_log.last and current_log.last.release == release),
        "entries": [asdict(entry) for entry in current_log.entries_of(release)],
        "manifest": stored_bundle.manifest and asdict(stored_bundle.manifest),
        "problems": list(stored_bundle.problems),
    }


def format_release(report: Report) -> str:
    """Return one release for people."""
    manifest = report["manifest"]
    lines = [f"Release {report['release']}{', the champion' if report['is_champion'] else ''}"]
    lines += [f"Problem  {problem}" for problem in report["problems"]]
    for entry in report["entries"]:
        because = f", because: {entry['reason']}" if entry["reason"] else ""
        lines.append(f"Entry {entry['sequence']}  {entry['action']} at {entry['made']} by {entry['run']}{because}")
    if manifest:
        scores = [(name, _format_summary(summary)) for name, summary in manifest["headline"].items()]
        lines += ["", "Made from", _align(list(_flatten(manifest["inputs"])))]
        lines += ["", "Cross-validated, 95 % interval", _align(scores)]
    gate: list[dict[str, str]] = next((entry["gate"] for entry in reversed(report["entries"]) if entry["gate"]), [])
    if gate:
        lines += ["", "Gate", _align([tuple(ruling.values()) for ruling in gate], tuple(gate[0]))]
    if manifest:
        files = [(name, f"{file['bytes']:,} bytes", file["sha256"]) for name, file in manifest["files"].items()]
        lines += ["", "Files", _align(files)]
    return "\n".join(lines)


def report_verification(store: Store, release: str | None, *, everything: bool) -> Report:
    """Return what is wrong with the log, and with one release, with the champion, or with every one.

    A bundle without a manifest is unfinished: that is no failure, unless it is the one that was asked for, the
    champion, or the one that a rollback goes to.
    """
    current_log = log.read_log(store)
    asked = None if everything else release or current_log.current().release
    champion = current_log.last.release if current_log.last else None
    needed = {asked, champion, find_way_back(store, current_log) if champion else None}
    ids = [asked] if asked else sorted({*bundle.list_ids(store), *([champion] if champion else [])})
    results = [_verify_bundle(store, current_log, name, must_be_whole=name in needed) for name in ids]
    damage = _describe_damage(current_log)
    is_good = not current_log.damage and not current_log.problem and not any(result["problems"] for result in results)
    return {"good": is_good, "place": current_log.place, "releases": results, "damage": damage}


def format_verification(report: Report) -> str:
    """Return the result for people."""
    lines = list(report["damage"])
    for result in report["releases"]:
        lines += [f"{result['release']}  {result['state']}", *(f"  {problem}" for problem in result["problems"])]
    lines += [] if report["releases"] else [log.NO_RELEASE.format(report["place"])]
    return "\n".join([*lines, "" if report["good"] else "Not all of it can be used."]).rstrip()


def report_comparison(store: Store, first: str, second: str) -> Report:
    """Return how two releases differ: what they were made from, scores, coefficients, patients."""
    current_log = log.read_log(store)
    bundles = [current_log.read_bundle(store, release).require() for release in (first, second)]
    inputs = _pair([dict(_flatten(each.manifest.inputs)) for each in bundles if each.manifest])
    headlines = [{name: asdict(summary) for name, summary in each.headline.items()} for each in bundles]
    patients, other_patients = (_read_fingerprints(each) for each in bundles)
    return {
        "releases": [first, second],
        "inputs": {name: values for name, values in inputs.items() if values[0] != values[1]},
        "scores": _pair(headlines),
        "coefficients": _pair([_read_coefficients(each) for each in bundles]),
        "patients": None if patients is None or other_patients is None else {
            "in_both": len(patients & other_patients),
            "in_one_only": [len(patients - other_patients), len(other_patients - patients)],
        },
    }  # fmt: skip


def format_comparison(report: Report) -> str:
    """Return the differences for people."""
    headers = ("", *report["releases"])
    inputs = [(name, *(value or "" for value in values)) for name, values in report["inputs"].items()]
    scores = [(name, *map(_format_summary, values)) for name, values in report["scores"].items()]
    # A measurement that a model does not take has the coefficient 0.
    by_change = sorted(report["coefficients"].items(), key=lambda item: -abs((item[1][0] or 0) - (item[1][1] or 0)))
    coefficients = [
        (name, *("" if value is None else f"{value:+.3f}" for value in values))
        for name, values in by_change[:MOST_COEFFICIENTS]
    ]
    return "\n".join(
        [
            "Made from", _align(inputs, headers) if inputs else "the same", "",
            "Cross-validated, 95 % interval", _align(scores, headers), "",
            "Coefficients that differ most", _align(coefficients, headers), "",
            *_format_patients(report),
        ]
    )  # fmt: skip


def _format_patients(report: Report) -> list[str]:
    counts = report["patients"]
    if counts is None:
        return ["Patients in both: not known, for a bundle does not list them as this version can read it"]
    alone = zip(report["releases"], counts["in_one_only"], strict=True)
    return [f"Patients in both: {counts['in_both']}", *(f"Patients in {name} only: {count}" for name, count in alone)]


def _align(rows: Sequence[Sequence[object]], headers: Sequence[str] = ()) -> str:
    text: str = tabulate(rows, headers, tablefmt="plain", disable_numparse=True)  # an id like 1234e567 is no number
    return text


def _pair(mappings: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return every name of both → its two values; None where there is none."""
    return {name: [mapping.get(name) for mapping in mappings] for name in mappings[0] | mappings[1]}


def _describe_damage(current_log: Log) -> list[str]:
    damaged = [f"Damaged: {key} {what}" for key, what in current_log.damage.items()]
    return [*damaged, *(f"Not read: {key} {what}" for key, what in current_log.foreign.items())]


def _describe_entry(store: Store, entry: Entry, current_log: Log, ids: list[str]) -> Report:
    headline = _read_headline(store, entry.release)
    back = current_log.list_rolled_back().get(entry.release)
    states = {
        CHAMPION: entry is current_log.champions()[-1],
        f"{ROLLED_BACK} in entry {back.sequence if back else ''}": back is not None,
        REMOVED: entry.release not in ids,
        UNFINISHED: entry.release in ids and not store.exists(bundle.key(entry.release, bundle.MANIFEST)),
    }
    return {
        **{name: getattr(entry, name) for name in ("sequence", "action", "release", "made", "run", "reason")},
        "headline": headline,
        "state": [state for state, is_so in states.items() if is_so],
    }


def _verify_bundle(store: Store, current_log: Log, release: str, *, must_be_whole: bool) -> Report:
    stored_bundle = current_log.read_bundle(store, release)
    problems = stored_bundle.problems if stored_bundle.is_finished or must_be_whole else ()
    if not stored_bundle.is_finished:
        state = UNFINISHED if release in bundle.list_ids(store) else REMOVED
    else:
        size = sum(map(len, stored_bundle.files.values()))
        state = "cannot be used" if problems else f"whole: {len(stored_bundle.files)} files, {size:,} bytes"
        state += "" if current_log.entries_of(release) else f", {NEVER_CHAMPION}"
    return {"release": release, "state": state, "problems": list(problems)}


def _read_headline(store: Store, release: str) -> Report | None:
    """Return the headline for a list, where damage is not the subject; None if it cannot be read."""
    try:
        manifest = bundle.read_manifest(store, release)
    except (KeyMissing, KeyRefused, ValueError):
        return None
    return {name: asdict(summary) for name, summary in manifest.headline.items()}


def _format_summary(summary: Mapping[str, Any] | None) -> str:
    """Return a score of a headline for people; nothing if the headline does not have it."""
    return f"{format_score(summary['estimate'], 3)} ({format_interval(summary['interval'])})" if summary else ""


def _flatten(inputs: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{above}{name}.")
        else:
            yield above + name, str(value)


def _read_coefficients(stored_bundle: Bundle) -> dict[str, float]:
    """Return measurement → coefficient; nothing if the bundle has another kind of model."""
    if "model.json" not in stored_bundle.files:
        return {}
    model = load_scorer(stored_bundle.files)
    return dict(zip(model.features, model.coefficients.tolist(), strict=True))


def _read_fingerprints(stored_bundle: Bundle) -> set[str] | None:
    """Return the patients; None if the bundle does not list them in a form that this version knows."""
    try:
        rows = csv.DictReader(stored_bundle.files["cross_validation.csv"].decode().splitlines())
        return {row["fingerprint"] for row in rows}
    except (LookupError, ValueError, csv.Error):
        return None
