"""May this candidate replace the champion? A table of rules, each with value, limit and verdict."""

from collections.abc import Collection, Iterator, Sequence

from bcw_assets.errors import ReleaseError
from bcw_assets.ml.evaluation import comparison, thresholds
from bcw_assets.ml.evaluation.comparison import Comparison
from bcw_assets.releases.bundle import Bundle, hash_inputs, inputs_part
from bcw_assets.releases.candidate import SHORT, Candidate, predictions_of
from bcw_assets.releases.log import Log, Ruling

KEPT, BROKEN, NOT_JUDGED = "kept", "broken", "not judged"

MOST_EXCESS_LOG_LOSS = 0.01
MOST_LOST_SENSITIVITY = 0.03
FEWEST_MALIGNANT = 150  # in common, from which a loss of 0.03 can be told from none
MOST_RELABELLED = 0.01  # share of the known rows
MOST_LISTED = 20

PROMISES = "blocking checks"
"""The rule that no reason overrides: what breaks it is no result."""

# The rules beside the champion, each with its limit in words.
LOG_LOSS = ("log loss beside the champion", f"upper 97.5 % bound at most {MOST_EXCESS_LOG_LOSS:+g}")
SENSITIVITY = ("sensitivity beside the champion", f"lower 97.5 % bound at least {-MOST_LOST_SENSITIVITY:+g}")
LABELS = ("relabelled rows", f"at most {100 * MOST_RELABELLED:g} % of the known rows")


def judge(
    candidate: Candidate,
    broken_promises: Sequence[str],
    champion: Bundle | None,
    log: Log,
    stored_ids: Collection[str] = (),
) -> list[Ruling]:
    """Hold a candidate against the floors, the champion and the log.

    Args:
        candidate: what a run has made.
        broken_promises: what the blocking checks find in the candidate's own values.
        champion: the bundle of the champion; None before the first release.
        log: says what was rolled back from.
        stored_ids: of all bundles, where a part of the log cannot be read: one of them may have been rolled back from.
    """
    promises = "; ".join(broken_promises)[:1000] or "all kept"
    return [
        _judge_rule((PROMISES, "all kept"), promises, is_kept=not broken_promises),
        *(
            _judge_rule((floor.score, floor.limit), floor.value, is_kept=not floor.is_missed)
            for floor in thresholds.compare_with_floors(candidate.report)
        ),
        *_compare(candidate, champion, log),
        _judge_rollback(candidate, log, stored_ids),
    ]


def find_broken(table: Sequence[Ruling]) -> list[Ruling]:
    """Return the rules that keep the candidate out."""
    return [row for row in table if row["verdict"] == BROKEN]


def _judge_rule(rule: tuple[str, str], value: str, *, is_kept: bool) -> Ruling:
    return _make_row(rule, value, KEPT if is_kept else BROKEN)


def _make_row(rule: tuple[str, str], value: str, verdict: str) -> Ruling:
    name, limit = rule
    return {"rule": name, "value": value, "limit": limit, "verdict": verdict}


def _compare(candidate: Candidate, champion: Bundle | None, log: Log) -> Iterator[Ruling]:
    """Judge the rules beside the champion; a champion that nobody can compare with lets pass only by override."""
    rules = (LOG_LOSS, SENSITIVITY, LABELS)
    if champion is None:
        yield from (_make_row(rule, "there is no champion before it", NOT_JUDGED) for rule in rules)
        return
    if champion.problems and not log.problem and champion.is_made_from(candidate.inputs):
        why = f"the champion {champion.id} is damaged, and was made from the same inputs"
        yield from (_make_row(rule, why, NOT_JUDGED) for rule in rules)
        return
    try:
        champions = predictions_of(champion.require().files)
    except (ReleaseError, ValueError) as error:
        why = champion.problems[0] if champion.problems else str(error)
        yield from (
            _make_row(rule, f"the champion {champion.id} cannot be compared with: {why}", BROKEN) for rule in rules
        )
        return
    result = comparison.compare(candidate.predictions, candidate.fingerprints_if_relabelled, champions)
    yield from _judge_inferiority(result)
    yield _judge_labels(candidate, result)


def _judge_inferiority(result: Comparison) -> Iterator[Ruling]:
    worse, lost = result.log_loss, result.sensitivity
    if worse is None or lost is None or result.malignant < FEWEST_MALIGNANT:
        why = f"{result.malignant} malignant patients in common, fewer than {FEWEST_MALIGNANT}"
        yield from (_make_row(rule, why, NOT_JUDGED) for rule in (LOG_LOSS, SENSITIVITY))
        return
    value = f"{worse.estimate:+.4f}, at most {worse.bound:+.4f}"
    yield _judge_rule(LOG_LOSS, value, is_kept=worse.bound <= MOST_EXCESS_LOG_LOSS)
    value = f"{lost.estimate:+.4f}, at least {lost.bound:+.4f}"
    yield _judge_rule(SENSITIVITY, value, is_kept=lost.bound >= -MOST_LOST_SENSITIVITY)


def _judge_labels(candidate: Candidate, result: Comparison) -> Ruling:
    changed = [candidate.fingerprints[row][:SHORT] for row in result.relabelled]
    names = [*changed[:MOST_LISTED], *(["…"] if len(changed) > MOST_LISTED else [])]
    value = ": ".join(filter(None, [f"{len(changed)} of {result.known}", ", ".join(names)]))
    return _judge_rule(LABELS, value, is_kept=len(changed) <= MOST_RELABELLED * result.known)


def _judge_rollback(candidate: Candidate, log: Log, stored_ids: Collection[str]) -> Ruling:
    inputs = hash_inputs(candidate.inputs)
    unknown = log.find_unknown_rollback(inputs)
    if unknown and any(inputs_part(release) == inputs for release in stored_ids):
        value = f"perhaps, in entry {unknown.sequence}: the entry before it cannot be read"
        return _judge_rule(("rolled back from", "no"), value, is_kept=False)
    back = next((entry for release, entry in log.list_rolled_back().items() if inputs_part(release) == inputs), None)
    value = f"in entry {back.sequence}, because: {back.reason}" if back else "no"
    return _judge_rule(("rolled back from", "no"), value, is_kept=back is None)
