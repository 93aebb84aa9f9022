"""Makes a candidate the champion, if the gate lets it pass."""

import secrets
from collections.abc import Sequence
from typing import Any

from bcw_assets import documents
from bcw_assets.errors import ReleaseRefused, StorageError
from bcw_assets.releases import bundle, gate, log
from bcw_assets.releases.candidate import Candidate
from bcw_assets.storage.store import Store

TRIES = 100  # more writers than that at once, and something else is wrong

PROMOTED, ALREADY_CHAMPION = "promoted", "unchanged"


def promote(
    store: Store, candidate: Candidate, problems: Sequence[str], run: str, override: str = ""
) -> tuple[str, log.Entry]:
    """Make a candidate that passes the gate the champion, and return PROMOTED or ALREADY_CHAMPION, and its entry.

    `problems` are what the blocking checks find in its values, and `override` is why a broken rule is passed over. If
    the gate refuses it, a ReleaseRefused is raised, nothing is published, and the table is kept in releases/refused/.
    A ReleaseError says that another version wrote the log; a StorageError, that the store is not fit for one.
    """
    candidate.require_one_history()
    for _ in range(TRIES):
        current_log = log.read_log(store)
        current_log.require_understood()
        champion, newest = current_log.champion, current_log.entries[-1:]
        # Behind an entry that cannot be read, the candidate is compared with the last champion that can.
        rival = current_log.read_bundle(store, newest[0].release) if newest else None
        is_same = champion is not None and rival is not None and rival.is_made_from(candidate.inputs)
        if champion and rival and is_same and not rival.problems:
            return ALREADY_CHAMPION, champion
        table = gate.judge(candidate, problems, rival, current_log, bundle.list_ids(store))
        # Of the same inputs, and the bundle is damaged: what was passed over for it is passed over again.
        reason = " ".join(override.split()) or (champion.reason if champion and is_same else None)
        broken = gate.find_broken(table)
        if broken and (problems or not reason):  # no reason passes over what the blocking checks find
            stays = f"The champion {champion.release} stays" if champion else "Nothing was released"
            raise _keep_refusal(store, candidate, table, run, stays, may_be_overridden=not problems)
        if current_log.newest == 0:
            _probe(store)
        release = bundle.publish(store, candidate.inputs, candidate.files)
        try:
            entry = log.append(store, current_log, "promote", release, run, reason if broken else None, table)
        except log.Overtaken:
            continue  # another release may be the champion now: the gate must look again
        return PROMOTED, entry
    raise StorageError(f"{TRIES} other runs wrote to {log.LOG_PREFIX} first, one after another. Run it again")


def _keep_refusal(
    store: Store, candidate: Candidate, table: list[log.Ruling], run: str, stays: str, *, may_be_overridden: bool
) -> ReleaseRefused:
    """Store the gate's table, and return the refusal, in which patients have the ids of the table at hand."""
    inputs = bundle.hash_inputs(candidate.inputs)
    key = f"{log.REFUSAL_PREFIX}{inputs}.json"
    store.write({key: documents.encode({"release": inputs, "run": run, "inputs": candidate.inputs, "gate": table})})
    rows = [log.Ruling({**row, "value": candidate.name_patients(row["value"])}) for row in table]
    what = "; ".join(map("{rule}: {value}".format_map, gate.find_broken(rows)))
    unjudged = gate.explain_unjudged(rows)
    remedy = "; if it is right all the same, run release with the config override: the reason, which the log keeps"
    return ReleaseRefused(
        f"The gate refused this candidate: {what}{unjudged and f'; not judged: {unjudged}'}. {stays}. Compare rows and "
        f"labels with their source{remedy if may_be_overridden else ''}. The whole table is in {store.address(key)}",
        tuple(dict[str, Any](row) for row in rows),
    )


def _probe(store: Store) -> None:
    """Refuse a store that lets two writers create the same key, for both would believe that they won; or none."""
    probe = f"{bundle.PLACE}/probe-{secrets.token_hex(8)}"
    accepts_one = store.create(probe, b"first") or probe in store.list(probe)  # the second if an answer is lost
    accepts_both = store.create(probe, b"second")
    store.delete(probe)
    if accepts_both or not accepts_one:
        fault = "lets a key be created twice" if accepts_both else "says of a new key that it is there"
        raise StorageError(
            f"{store.address(bundle.PLACE)} {fault}, so no log of releases can be kept there. Use storage that honours "
            f"put-if-absent (on S3: conditional writes), like a folder on a local disk: set BCW_RELEASES"
        )
