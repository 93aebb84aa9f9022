"""Makes a candidate the champion, if the gate lets it pass."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bcw_assets import documents
from bcw_assets.errors import ReleaseRefused, StorageError
from bcw_assets.releases import bundle, gate, log
from bcw_assets.releases.bundle import Bundle
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
        ReleaseError: what is stored under its id is damaged, or is another model's.
        StorageError: the store cannot be written, or cannot be trusted with a log.
    """
    candidate.require_one_history()
    for _ in range(TRIES):
        found = log.read(store)
        champion = found.last
        stored = found.bundle(store, champion.release) if champion else None
        try:
            # Behind an entry that cannot be read may be a rollback from the candidate: then the gate judges again.
            is_champion = champion and champion.release == candidate.id and champion.sequence == found.newest
            if not champion or not is_champion:
                verdicts = gate.judge(candidate, broken_promises, stored, found)
                reason = _reason_to_pass(verdicts, " ".join(override.split()))
                return Outcome(PROMOTED, _publish(store, candidate, found, verdicts, run, reason))
            made = found.champions()[-1]
            if stored and not stored.problems and not found.unknown_damage:
                return Outcome(UNCHANGED, made)
            # The champion itself, and its bundle or the log is damaged: what is missing is put back, and said again.
            return Outcome(PROMOTED, _publish(store, candidate, found, made.gate, run, made.reason))
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
    broken = gate.broken(table)
    if not broken:
        return None
    may_be_overridden = all(one["rule"] != gate.PROMISES for one in broken)
    if override and may_be_overridden:
        return override
    reasons = "; ".join(f"{one['rule']}: {one['value']} (allowed: {one['limit']})" for one in broken)
    remedy = "; if it is right all the same, run release with the config override: the reason, which the log keeps"
    raise ReleaseRefused(
        f"The gate refused this candidate: {reasons}. The champion stays. Compare rows and labels with their source"
        f"{remedy if may_be_overridden else ''}",
        tuple(dict[str, Any](row) for row in table),
    )


def _keep(store: Store, candidate: Candidate, refusal: ReleaseRefused, run: str) -> ReleaseRefused:
    """Store the gate's table, and return the refusal with the place of it."""
    where = f"{REFUSED}{candidate.id}.json"
    table = {"release": candidate.id, "run": run, "inputs": candidate.inputs, "gate": list(refusal.rows)}
    store.write({where: documents.write(table)})
    return ReleaseRefused(f"{refusal}. The whole table is in {store.address(where)}", refusal.rows)


def _publish(
    store: Store, candidate: Candidate, found: Log, table: list[Ruling], run: str, reason: str | None
) -> Entry:
    if found.newest == 0:
        require_a_log_can_be_kept(store)
    stored = _find_published(store, candidate, found) or bundle.publish(
        store, candidate.inputs, candidate.files, candidate.says_the_same
    )
    return log.append(store, found, PROMOTE, (candidate.id, stored.sha256), run, reason, gate=table)


def _find_published(store: Store, candidate: Candidate, found: Log) -> Bundle | None:
    """Return the whole bundle of a candidate that was champion before; another version may have written its files."""
    if not found.of(candidate.id):
        return None
    stored = found.bundle(store, candidate.id)
    is_whole = not stored.problems and candidate.is_same_model(stored.files)
    return stored if is_whole else None


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
