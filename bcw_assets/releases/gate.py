"""May this candidate replace the champion? A table of rules, each with value, limit and verdict."""

from collections.abc import Iterator, Sequence

from bcw_assets.errors import OTHER_VERSION
from bcw_assets.ml.evaluation import comparison, thresholds
from bcw_assets.ml.evaluation.comparison import Comparison
from bcw_assets.releases.bundle import Bundle
from bcw_assets.releases.candidate import SHOWN, Candidate, predictions_of
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


def judge(candidate: Candidate, broken_promises: Sequence[str], champion: Bundle | None, log: Log) -> list[Ruling]:
    """Hold a candidate against the floors, the champion and the log.

    Args:
        candidate: what a run has made.
        broken_promises: what the blocking checks find in the candidate's own values.
        champion: the bundle of the champion; None before the first release.
        log: says what was rolled back from.
    """
    promises = "; ".join(broken_promises)[:1000] or "all kept"
    return [
        _judged((PROMISES, "all kept"), promises, is_kept=not broken_promises),
        *(
            _judged((floor.score, floor.limit), floor.value, is_kept=not floor.is_missed)
            for floor in thresholds.compare_with_floors(candidate.report)
        ),
        *_beside(candidate, champion),
        _not_rolled_back(candidate, log),
    ]


def broken(table: Sequence[Ruling]) -> list[Ruling]:
    """Return the rules that keep the candidate out."""
    return [row for row in table if row["verdict"] == BROKEN]


def _judged(rule: tuple[str, str], value: str, *, is_kept: bool) -> Ruling:
    return _row(rule, value, KEPT if is_kept else BROKEN)


def _row(rule: tuple[str, str], value: str, verdict: str) -> Ruling:
    name, limit = rule
    return {"rule": name, "value": value, "limit": limit, "verdict": verdict}


def _beside(candidate: Candidate, champion: Bundle | None) -> Iterator[Ruling]:
    rules = (LOG_LOSS, SENSITIVITY, LABELS)
    if champion is None:
        yield from (_row(rule, "there is no champion before it", NOT_JUDGED) for rule in rules)
    elif champion.problems:
        what = f"the champion {champion.id} cannot be used: {champion.problems[0]}"
        yield from (_row(rule, what, BROKEN) for rule in rules)
    else:
        try:
            theirs = predictions_of(champion.files)
        except (LookupError, ValueError) as error:
            what = f"the champion {champion.id} has no predictions of unseen patients that can be read ({error}; "
            yield from (_row(rule, f"{what}{OTHER_VERSION})", NOT_JUDGED) for rule in rules)
            return
        found = comparison.compare(candidate.predictions, candidate.relabelled, theirs)
        yield from _not_inferior(found)
        yield _labels(candidate, found)


def _not_inferior(found: Comparison) -> Iterator[Ruling]:
    worse, lost = found.log_loss, found.sensitivity
    if worse is None or lost is None or found.malignant < FEWEST_MALIGNANT:
        why = f"{found.malignant} malignant patients in common, fewer than {FEWEST_MALIGNANT}"
        yield from (_row(rule, why, NOT_JUDGED) for rule in (LOG_LOSS, SENSITIVITY))
        return
    says = f"{worse.estimate:+.4f}, at most {worse.bound:+.4f}"
    yield _judged(LOG_LOSS, says, is_kept=worse.bound <= MOST_EXCESS_LOG_LOSS)
    says = f"{lost.estimate:+.4f}, at least {lost.bound:+.4f}"
    yield _judged(SENSITIVITY, says, is_kept=lost.bound >= -MOST_LOST_SENSITIVITY)


def _labels(candidate: Candidate, found: Comparison) -> Ruling:
    changed = [candidate.fingerprints[row][:SHOWN] for row in found.relabelled]
    listed = [*changed[:MOST_LISTED], *(["…"] if len(changed) > MOST_LISTED else [])]
    value = ": ".join(filter(None, [f"{len(changed)} of {found.known}", ", ".join(listed)]))
    return _judged(LABELS, value, is_kept=len(changed) <= MOST_RELABELLED * found.known)


def _not_rolled_back(candidate: Candidate, log: Log) -> Ruling:
    back = log.rolled_back().get(candidate.id)
    value = f"in entry {back.sequence}, because: {back.reason}" if back else "no"
    return _judged(("rolled back from", "no"), value, is_kept=back is None)
