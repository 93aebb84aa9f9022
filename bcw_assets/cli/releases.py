"""What `bcw releases` shows: each report as data, which --json writes, and as text."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bcw_assets.cli.terminal import aligned
from bcw_assets.errors import KeyMissing, KeyRefused
from bcw_assets.releases import bundle, log
from bcw_assets.releases.bundle import Bundle, Manifest
from bcw_assets.releases.log import Entry, Log
from bcw_assets.releases.proof import load_scorer
from bcw_assets.report.formatting import format_interval, format_score
from bcw_assets.storage.store import Store

Report = dict[str, Any]
CHAMPION, ROLLED_BACK, NOT_STORED = "champion", "rolled back", "not stored any more"
UNFINISHED, NEVER_CHAMPION = "unfinished", "never champion"
NONE = "There is no release in {} yet. To make one: bcw refresh"
LARGEST = 5  # changes of coefficients that are shown


def listed(store: Store) -> Report:
    """Return every entry of the log with its release, and the bundles that have none."""
    found, stored = log.read(store), bundle.stored_ids(store)
    entries = [_listed(store, entry, found, stored) for entry in found.entries]
    others = [
        {"release": one, "state": NEVER_CHAMPION if _manifest(store, one) else UNFINISHED}
        for one in stored
        if not found.of(one)
    ]
    return {"place": found.place, "entries": entries, "without_entry": others, "damage": list(log.told(found.damage))}


def list_text(report: Report) -> str:
    """Return the list for people, the champion last."""
    head = ("entry", "action", "release", "made", "sensitivity", "ROC AUC", "state", "reason")
    rows = [
        (
            *(str(one["sequence"]), one["action"], one["release"], one["made"]),
            *(_score((one["headline"] or {}).get(name)) for name in ("sensitivity", "roc_auc")),
            *(", ".join(one["state"]), one["reason"] or ", ".join(one["pruned"])),
        )
        for one in report["entries"]
    ]
    lines = aligned([head, *rows]) if rows else [NONE.format(report["place"])]
    lines += [f"Without an entry: {one['release']}, {one['state']}" for one in report["without_entry"]]
    return "\n".join([*lines, *(f"Damaged: {what}" for what in report["damage"])])


def shown(store: Store, release: str | None) -> Report:
    """Return all that is known of one release: its entries, what it was made from, the gate, its files."""
    found = log.read(store)
    release = release or found.current().release
    stored = found.bundle(store, release)
    entries = [asdict(entry) for entry in found.of(release)]
    is_champion = bool(found.last and found.last.release == release)
    return {
        "release": release, "is_champion": is_champion, "entries": entries,
        "manifest": stored.manifest and asdict(stored.manifest), "problems": list(stored.problems),
    }  # fmt: skip


def show_text(report: Report) -> str:
    """Return one release for people."""
    manifest = report["manifest"]
    lines = [f"Release {report['release']}{', the champion' if report['is_champion'] else ''}"]
    lines += [f"Problem  {problem}" for problem in report["problems"]]
    for entry in report["entries"]:
        because = f", because: {entry['reason']}" if entry["reason"] else ""
        lines.append(f"Entry {entry['sequence']}  {entry['action']} at {entry['made']} by {entry['run']}{because}")
    if manifest:
        lines += ["", "Made from", *aligned(list(_flat(manifest["inputs"]))), "", "Cross-validated, 95 % interval"]
        lines += aligned([(name, _score(summary)) for name, summary in manifest["headline"].items()])
    gate: list[dict[str, str]] = next((entry["gate"] for entry in reversed(report["entries"]) if entry["gate"]), [])
    if gate:
        lines += ["", "Gate", *aligned([tuple(gate[0]), *(tuple(row.values()) for row in gate)])]
    if manifest:
        files = [(name, f"{one['bytes']:,} bytes", one["sha256"]) for name, one in manifest["files"].items()]
        lines += ["", "Files", *aligned(files)]
    return "\n".join(lines)


def verified(store: Store, release: str | None, *, everything: bool) -> Report:
    """Return what is wrong with one release, with the champion, or with every one.

    A bundle without a manifest is unfinished: that is no failure, unless it is the one that was asked for.
    """
    found = log.read(store)
    asked = None if everything else release or found.current().release
    damage = found.damage if everything else found.unknown_damage
    current = found.last.release if found.last else None
    ids = [asked] if asked else sorted({*bundle.stored_ids(store), *([current] if current else [])})
    results = [_verified(store, found, one, must_be_whole=one in (asked, current)) for one in ids]
    is_good = not damage and not any(one["problems"] for one in results)
    return {"good": is_good, "place": found.place, "releases": results, "damage": list(log.told(damage))}


def verify_text(report: Report) -> str:
    """Return the result for people."""
    lines = [f"Damaged: {what}" for what in report["damage"]]
    for one in report["releases"]:
        lines.append(f"{one['release']}  {one['state']}")
        lines += [f"  {problem}" for problem in one["problems"]]
    lines += [] if report["releases"] else [NONE.format(report["place"])]
    return "\n".join([*lines, "" if report["good"] else "Not all of it can be used."]).rstrip()


def compared(store: Store, one: str, other: str) -> Report:
    """Return how two releases differ: what they were made from, scores, coefficients, patients."""
    found = log.read(store)
    bundles = [found.bundle(store, release).require() for release in (one, other)]
    inputs = _side_by_side([dict(_flat(stored.manifest.inputs)) for stored in bundles if stored.manifest])
    headlines = [{name: asdict(summary) for name, summary in stored.headline.items()} for stored in bundles]
    first, second = (_fingerprints(stored) for stored in bundles)
    return {
        "releases": [one, other],
        "inputs": {name: values for name, values in inputs.items() if values[0] != values[1]},
        "scores": _side_by_side(headlines),
        "coefficients": _side_by_side([_weights(stored) for stored in bundles]),
        "patients": None if first is None or second is None else {
            "in_both": len(first & second), "in_one_only": [len(first - second), len(second - first)],
        },
    }  # fmt: skip


def _side_by_side(mappings: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return every name of both → its two values; None where there is none."""
    return {name: [mapping.get(name) for mapping in mappings] for name in mappings[0] | mappings[1]}


def compare_text(report: Report) -> str:
    """Return the differences for people."""
    head = ("", *report["releases"])
    inputs = [(name, *(value or "" for value in values)) for name, values in report["inputs"].items()]
    scores = [(name, *map(_score, values)) for name, values in report["scores"].items()]
    # A measurement that a model does not take has the coefficient 0.
    by_change = sorted(report["coefficients"].items(), key=lambda item: -abs((item[1][0] or 0) - (item[1][1] or 0)))
    weights = [
        (name, *("" if value is None else f"{value:+.3f}" for value in values)) for name, values in by_change[:LARGEST]
    ]
    return "\n".join(
        [
            "Made from", *(aligned([head, *inputs]) if inputs else ["the same"]), "",
            "Cross-validated, 95 % interval", *aligned([head, *scores]), "",
            "Coefficients that differ most", *aligned([head, *weights]), "",
            *_patients(report),
        ]
    )  # fmt: skip


def _patients(report: Report) -> list[str]:
    counts = report["patients"]
    if counts is None:
        return ["Patients in both: not known, for another version wrote a bundle that does not list them"]
    alone = zip(report["releases"], counts["in_one_only"], strict=True)
    return [f"Patients in both: {counts['in_both']}", *(f"Patients in {name} only: {count}" for name, count in alone)]


def _listed(store: Store, entry: Entry, found: Log, stored: list[str]) -> Report:
    manifest = _manifest(store, entry.release)
    back = found.rolled_back().get(entry.release)
    state = [CHAMPION] if entry is found.champions()[-1] else []
    state += [f"{ROLLED_BACK} in entry {back.sequence}"] if back else []
    state += [] if entry.release in stored else [NOT_STORED]
    state += (
        [UNFINISHED] if entry.release in stored and not store.exists(bundle.key(entry.release, bundle.MANIFEST)) else []
    )
    return {
        **{name: getattr(entry, name) for name in ("sequence", "action", "release", "made", "run", "reason", "pruned")},
        "headline": manifest and {name: asdict(summary) for name, summary in manifest.headline.items()},
        "state": state,
    }


def _verified(store: Store, found: Log, release: str, *, must_be_whole: bool) -> Report:
    stored = found.bundle(store, release)
    problems = stored.problems if stored.is_finished or must_be_whole else ()
    if not stored.is_finished:
        state = UNFINISHED if release in bundle.stored_ids(store) else NOT_STORED
    else:
        size = sum(map(len, stored.files.values()))
        state = "cannot be used" if problems else f"whole: {len(stored.files)} files, {size:,} bytes"
        state += "" if found.of(release) else f", {NEVER_CHAMPION}"
    return {"release": release, "state": state, "problems": list(problems)}


def _manifest(store: Store, release: str) -> Manifest | None:
    """Return the manifest for a list, where damage is not the subject; None if it cannot be read."""
    try:
        return bundle.manifest_of(store, release)[1]
    except (KeyMissing, KeyRefused, ValueError):
        return None


def _score(summary: Mapping[str, Any] | None) -> str:
    """Return a score of a headline for people; nothing if the headline does not have it."""
    return f"{format_score(summary['estimate'], 3)} ({format_interval(summary['interval'])})" if summary else ""


def _flat(inputs: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield above + name, str(value)


def _weights(stored: Bundle) -> dict[str, float]:
    """Return measurement → coefficient; nothing if the bundle has another kind of model."""
    if "model.json" not in stored.files:
        return {}
    model = load_scorer(stored.files)
    return dict(zip(model.features, model.coefficients.tolist(), strict=True))


def _fingerprints(stored: Bundle) -> set[str] | None:
    """Return the patients; None if the bundle does not list them."""
    rows = csv.DictReader(stored.files.get("cross_validation.csv", b"").decode().splitlines())
    return {row["fingerprint"] for row in rows} if "fingerprint" in (rows.fieldnames or ()) else None
