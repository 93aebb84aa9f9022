"""What `bcw releases` shows: each report as data, which --json writes; the words of the text are in `releases.j2`."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bcw_assets.errors import KeyMissing, KeyRefused
from bcw_assets.ml.evaluation.scores import SCORES
from bcw_assets.releases import bundle, log
from bcw_assets.releases.access import find_way_back
from bcw_assets.report.formatting import format_interval, format_score, open_templates
from bcw_assets.storage.store import Store

Listing = dict[str, Any]
CANNOT_BE_USED = "cannot be used"
LONGEST_VALUE = 16  # characters of an input in a list; of a longer one, a fingerprint, eight are shown
MOST_COEFFICIENTS = 5  # that are shown of those that differ


def report_list(store: Store) -> Listing:
    """Return every entry of the log with its release, and the bundles that have none."""
    current_log, ids = log.read_log(store), bundle.list_ids(store)
    return {
        "place": current_log.place,
        "entries": [_describe_entry(store, entry, current_log, ids) for entry in current_log.entries],
        "without_entry": [
            {"release": release, "state": _read_facts(store, release, None, ids)[1] or current_log.absence}
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
    return {
        "release": release,
        "is_champion": current_log.champion is not None and current_log.champion.release == release,
        "entries": [asdict(entry) for entry in current_log.list_entries(release)],
        "page": store.address(bundle.locate_file(release, "index.html"))
        if "index.html" in stored_bundle.files
        else None,
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
        state = gap or (CANNOT_BE_USED if problems else f"whole: {len(stored_bundle.files)} files, {size:,} bytes")
        if not gap and not current_log.list_entries(release):
            state += f", {current_log.absence}"
        results.append({"release": release, "state": state, "problems": problems})
    is_good = not current_log.damage and not current_log.problem and not any(result["problems"] for result in results)
    damage = _describe_damage(current_log)
    return {"good": is_good, "place": current_log.place, "releases": results, "damage": damage}


def report_comparison(store: Store, *prefixes: str) -> Listing:
    """Return how two releases differ: what they were made from, scores, coefficients, patients."""
    current_log, releases = log.read_log(store), [bundle.resolve(store, prefix) for prefix in prefixes]
    bundles = [current_log.read_bundle(store, release).require() for release in releases]
    inputs = _pair([dict(_flatten(each.manifest.inputs)) for each in bundles if each.manifest])
    patients, other_patients = map(_read_fingerprints, bundles)
    return {
        "releases": releases,
        "inputs": {name: values for name, values in inputs.items() if values[0] != values[1]},
        "scores": _pair([{name: asdict(summary) for name, summary in each.headline.items()} for each in bundles]),
        "coefficients": _pair([_read_coefficients(each) for each in bundles]),
        "patients": None if patients is None or other_patients is None else {
            "in_both": len(patients & other_patients),
            "in_one_only": [len(patients - other_patients), len(other_patients - patients)],
        },
    }  # fmt: skip


REPORTS: dict[str, Callable[..., Listing]] = {
    "list": report_list, "release": report_release, "verification": report_verification, "comparison": report_comparison
}  # fmt: skip


def format_listing(name: str, report: Listing) -> str:
    """Return one of the `REPORTS` for people."""
    templates = open_templates(Path(__file__).parent)
    templates.filters |= {"align": _align, "flatten": _flatten, "rank": _rank, "format_scores": _format_scores}
    templates.filters["list_differences"] = _list_differences
    templates.filters["pick"] = lambda name, headline: headline.get(name)
    brief = {name: profile.title for name, profile in SCORES.items() if profile.is_brief}
    templates.globals |= {"brief": brief, "no_release": log.NO_RELEASE, "row": _join_cells}
    text: str = getattr(templates.get_template("releases.j2").module, name)(report)
    return text.rstrip("\n")


def _join_cells(cells: Iterable[object]) -> str:
    return "\t".join(" ".join(str(cell).split()) for cell in cells)


def _align(lines: str, has_headers: bool = False) -> str:  # noqa: FBT001, FBT002 (a filter's argument)
    rows = [line.split("\t") for line in lines.splitlines()]
    headers = rows.pop(0) if has_headers else ()
    # An id like 1234e567 is no number.
    return f"{tabulate(rows, headers, tablefmt='plain', disable_numparse=True)}\n"


def _rank(coefficients: Mapping[str, Sequence[float | None]]) -> list[tuple[str, list[str]]]:
    """Return those that differ most; a measurement that a model does not take has the coefficient 0."""
    by_change = sorted(coefficients.items(), key=lambda item: -abs((item[1][0] or 0) - (item[1][1] or 0)))
    texts = [(name, ["" if value is None else f"{value:+.3f}" for value in values]) for name, values in by_change]
    return texts[:MOST_COEFFICIENTS]


def _pair(mappings: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return every name of both → its two values; None where there is none."""
    return {name: [mapping.get(name) for mapping in mappings] for name in mappings[0] | mappings[1]}


def _describe_damage(current_log: log.Log) -> list[str]:
    damaged = [f"Damaged: {key} {what}" for key, what in current_log.damage.items()]
    return [*damaged, *(f"Not read: {key} {what}" for key, what in current_log.foreign.items())]


def _describe_entry(store: Store, entry: log.Entry, current_log: log.Log, ids: list[str]) -> Listing:
    states = ["champion"] if entry is current_log.champion else []
    if rollback := current_log.list_rolled_back().get(entry.release):
        states.append(f"rolled back in entry {rollback.sequence}")
    facts, gap = _read_facts(store, entry.release, entry.manifest, ids)
    names = ("sequence", "action", "release", "made", "run", "reason")
    state = [*states, gap] if gap else states
    return {**{name: getattr(entry, name) for name in names}, **facts, "state": state}


def _read_facts(store: Store, release: str, sha256: str | None, ids: list[str]) -> tuple[Listing, str | None]:
    """Return the inputs and the scores that a manifest has, and why there is none that can be used."""
    facts: Listing = {"inputs": None, "headline": None}
    try:
        manifest = bundle.read_manifest(store, release, sha256)
    except KeyMissing:
        return facts, bundle.UNFINISHED if release in ids else bundle.REMOVED
    except (KeyRefused, ValueError) as error:
        return facts, f"{bundle.MANIFEST} {CANNOT_BE_USED} ({error})"
    scores = {name: asdict(summary) for name, summary in manifest.headline.items()}
    return {"inputs": manifest.inputs, "headline": scores}, None


def _list_differences(entries: Sequence[Listing]) -> list[str]:
    """Return for every entry those of its inputs that another entry has otherwise."""
    inputs = [dict(_flatten(entry["inputs"] or {})) for entry in entries]
    return [
        ", ".join(
            f"{name} {value if len(value) <= LONGEST_VALUE else value[:8]}"
            for name, value in each.items()
            if any(value != other.get(name, value) for other in inputs)
        )
        for each in inputs
    ]


def _format_scores(summaries: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """Return scores of a headline for people; nothing for those that the headline does not have."""
    return [
        f"{format_score(summary['estimate'], 3)} ({format_interval(summary['interval'])})" if summary else ""
        for summary in summaries
    ]


def _flatten(inputs: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{above}{name}.")
        else:
            yield above + name, str(value)


def _read_coefficients(stored_bundle: bundle.Bundle) -> dict[str, float]:
    """Return measurement → coefficient; nothing if the bundle has no model."""
    if "model.json" not in stored_bundle.files:
        return {}
    model = bundle.load_scorer(stored_bundle.files)
    return dict(zip(model.features, model.coefficients.tolist(), strict=True))


def _read_fingerprints(stored_bundle: bundle.Bundle) -> set[str] | None:
    """Return the patients; None if the bundle does not list them in a form that this version knows."""
    try:
        rows = csv.DictReader(stored_bundle.files["cross_validation.csv"].decode().splitlines())
        return {row["fingerprint"] for row in rows}
    except (LookupError, ValueError, csv.Error):
        return None
