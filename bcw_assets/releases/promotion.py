"""Makes a candidate the champion, if the gate lets it pass."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bcw_assets import documents
from bcw_assets.errors import ReleaseRefused, StorageError
from bcw_assets.releases import bundle, gate, log
from bcw_assets.releases.candidate import Candidate
from bcw_assets.releases.log import PROMOTE, Entry, Log, Overtaken, Ruling
from bcw_assets.storage.store import Store

REFUSED = f"{bundle.FOLDER}refused/"
TRIES = 100  # more writers than that at once, and something else is wrong

PROMOTED: Literal["promoted"] = "promoted"
UNCHANGED: Literal["unchanged"] = "unchanged"


@dataclass(frozen=True)
class Outcome:
    """What became of a candidate.

    Attributes:
        result: promoted, or unchanged: it is the champion already.
        entry: of the log, that made it champion.
    """

    result: Literal["promoted", "unchanged"]
    entry: Entry


def promote(
    store: Store, candidate: Candidate, broken_promises: Sequence[str], run: str, override: str = ""
) -> Outcome:
    """Publish a candidate that passes the gate, and make it the champion; what is the champion already stays it.

    Args:
        store: holds the releases.
        candidate: what the run has made.
        broken_promises: what the blocking checks find in the candidate's own values.
        run: the id of the run, for the log.
        override: the reason why a broken rule is passed over, for the log; empty without one.

    Raises:
        ReleaseRefused: the gate refuses it; nothing is published, and the table is kept in releases/refused/.
        ReleaseError: another version wrote the newest entry of the log.
        StorageError: the store cannot be written, or cannot be trusted with a log.
    """
    candidate.require_one_history()
    for _ in range(TRIES):
        current_log = log.read_log(store)
        current_log.require_understood()
        entry = current_log.last
        champion = current_log.read_bundle(store, entry.release) if entry else None
        # Behind an entry that cannot be read may be a rollback from the candidate: then the gate judges again.
        is_same = champion is not None and not current_log.problem and champion.is_made_from(candidate.inputs)
        made_champion = current_log.champions()[-1] if is_same else None
        if champion and made_champion and not champion.problems:
            return Outcome(UNCHANGED, made_champion)
        # Of the same inputs, and the bundle is damaged: what was passed over for it is passed over again.
        override_of_champion = made_champion.reason or "" if made_champion else ""
        try:
            stored_ids = bundle.list_ids(store) if current_log.damage else ()
            table = gate.judge(candidate, broken_promises, champion, current_log, stored_ids)
            reason = _reason_to_pass(table, " ".join(override.split()) or override_of_champion)
            return Outcome(PROMOTED, _publish(store, candidate, current_log, table, run, reason))
        except ReleaseRefused as refusal:
            raise _keep(store, candidate, refusal, run) from refusal
        except Overtaken:
            continue  # another release may be the champion now: the gate must look again
    raise StorageError(f"{TRIES} other runs wrote to {log.FOLDER} first, one after another. Run it again")


def _reason_to_pass(table: list[Ruling], override: str) -> str | None:
    """Return the reason for which broken rules are passed over; None if none is broken.

    Raises:
        ReleaseRefused: a rule is broken, and there is no reason, or it is one that no reason overrides.
    """
    broken = gate.find_broken(table)
    if not broken:
        return None
    may_be_overridden = all(ruling["rule"] != gate.PROMISES for ruling in broken)
    if override and may_be_overridden:
        return override
    reasons = "; ".join(f"{ruling['rule']}: {ruling['value']} (allowed: {ruling['limit']})" for ruling in broken)
    remedy = "; if it is right all the same, run release with the config override: the reason, which the log keeps"
    raise ReleaseRefused(
        f"The gate refused this candidate: {reasons}. The champion stays. Compare rows and labels with their source"
        f"{remedy if may_be_overridden else ''}",
        tuple(dict[str, Any](row) for row in table),
    )


def _keep(store: Store, candidate: Candidate, refusal: ReleaseRefused, run: str) -> ReleaseRefused:
    """Store the gate's table, and return the refusal with the place of it."""
    inputs = bundle.hash_inputs(candidate.inputs)
    where = f"{REFUSED}{inputs}.json"
    table = {"release": inputs, "run": run, "inputs": candidate.inputs, "gate": list(refusal.rows)}
    store.write({where: documents.encode(table)})
    return ReleaseRefused(f"{refusal}. The whole table is in {store.address(where)}", refusal.rows)


def _publish(
    store: Store, candidate: Candidate, current_log: Log, table: list[Ruling], run: str, reason: str | None
) -> Entry:
    if current_log.newest == 0:
        require_a_log_can_be_kept(store)
    published = bundle.publish(store, candidate.inputs, candidate.files)
    return log.append(store, current_log, PROMOTE, (published.id, published.sha256), run, reason, table)


def require_a_log_can_be_kept(store: Store) -> None:
    """Refuse a store that lets two writers create the same key, for both would believe that they won; or none."""
    probe = f"{bundle.FOLDER}probe-{secrets.token_hex(8)}"
    accepts_one = store.create(probe, b"first") or store.exists(probe)  # the second if the answer to the first is lost
    accepts_both = store.create(probe, b"second")
    store.delete(probe)
    if accepts_both or not accepts_one:
        fault = "lets a key be created twice" if accepts_both else "says of a new key that it is there"
        raise StorageError(
            f"{store.address(bundle.PLACE)} {fault}, so no log of releases can be kept there. Use storage that honours "
            f"put-if-absent (on S3: conditional writes), like a folder on a local disk: set BCW_RELEASES"
        )
