"""May this candidate replace the champion? A table of rules, each with value, limit and verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from bcw_assets.ml import comparison, verdicts
from bcw_assets.ml.comparison import Comparison
from bcw_assets.releases.bundle import Bundle
from bcw_assets.releases.candidate import SHOWN, Candidate, predictions_of
from bcw_assets.releases.log import Log

KEPT, BROKEN, NOT_JUDGED = "kept", "broken", "not judged"

MOST_EXCESS_LOG_LOSS = 0.01
MOST_LOST_SENSITIVITY = 0.03
FEWEST_MALIGNANT = 150  # in common, from which a loss of 0.03 can be told from none
MOST_RELABELLED = 0.01  # share of the known rows
SEED = 0  # of the bootstrap: the same two releases always get the same verdict
MOST_LISTED = 20


@dataclass(frozen=True)
class Verdict:
    """One rule of the gate, and what came of it."""

    rule: str
    value: str
    limit: str
    verdict: str

    @classmethod
    def of(cls, rule: str, value: str, limit: str, *, is_kept: bool) -> "Verdict":
        """Return the verdict on a rule that was judged."""
        return cls(rule, value, limit, KEPT if is_kept else BROKEN)


def judge(
    candidate: Candidate, broken_promises: Sequence[str], champion: Bundle | None, log: Log
) -> list[dict[str, str]]:
    """Hold a candidate against the floors, the champion and the log.

    Args:
        candidate: what a run has made.
        broken_promises: what the blocking checks find in the candidate's own values.
        champion: the bundle of the current release; None for the first.
        log: says what was rolled back from.

    Returns:
        A table: rule, value, limit, and the verdict, which is kept, broken or not judged.
    """
    of_floors = [
        Verdict.of(one.score, one.found, one.limit, is_kept=not one.is_missed)
        for one in verdicts.floors(candidate.report)
    ]
    found = [
        _promises(broken_promises), *of_floors, *_beside(candidate, champion), _not_rolled_back(candidate, log)
    ]  # fmt: skip
    return list(map(asdict, found))


def broken(table: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows of the rules that keep the candidate out."""
    return [row for row in table if row["verdict"] == BROKEN]


PROMISES = "blocking checks"
"""The rule that no reason overrides: what breaks it is no result."""


def _promises(problems: Sequence[str]) -> Verdict:
    return Verdict.of(PROMISES, "; ".join(problems)[:1000] or "all kept", "all kept", is_kept=not problems)


def _beside(candidate: Candidate, champion: Bundle | None) -> Iterator[Verdict]:
    rules = {
        "log loss beside the champion": f"97.5 % bound at most {MOST_EXCESS_LOG_LOSS:+g}",
        "sensitivity beside the champion": f"97.5 % bound at least {-MOST_LOST_SENSITIVITY:+g}",
        "relabelled rows": f"at most {MOST_RELABELLED:.0%} of the known rows",
    }
    if champion is None:
        yield from (Verdict(rule, "there is no champion before it", limit, NOT_JUDGED) for rule, limit in rules.items())
        return
    if champion.problems:
        what = f"the champion {champion.id} is damaged: {champion.problems[0]}"
        yield from (Verdict.of(rule, what, limit, is_kept=False) for rule, limit in rules.items())
        return
    found = comparison.compare(candidate.predictions(), candidate.relabelled, predictions_of(champion.files), SEED)
    of_log_loss, of_sensitivity, of_labels = rules.items()
    yield from _not_inferior(found, of_log_loss, of_sensitivity)
    yield _labels(candidate, found, *of_labels)


def _not_inferior(
    found: Comparison, of_log_loss: tuple[str, str], of_sensitivity: tuple[str, str]
) -> Iterator[Verdict]:
    if found.log_loss is None or found.sensitivity is None or found.malignant < FEWEST_MALIGNANT:
        why = f"{found.malignant} malignant patients in common, fewer than {FEWEST_MALIGNANT}"
        yield from (Verdict(rule, why, limit, NOT_JUDGED) for rule, limit in (of_log_loss, of_sensitivity))
        return
    worse, lost = found.log_loss, found.sensitivity
    yield Verdict.of(
        of_log_loss[0], f"{worse.estimate:+.4f}, at most {worse.bound:+.4f}", of_log_loss[1],
        is_kept=worse.bound <= MOST_EXCESS_LOG_LOSS,
    )  # fmt: skip
    yield Verdict.of(
        of_sensitivity[0], f"{lost.estimate:+.4f}, at least {lost.bound:+.4f}", of_sensitivity[1],
        is_kept=lost.bound >= -MOST_LOST_SENSITIVITY,
    )  # fmt: skip


def _labels(candidate: Candidate, found: Comparison, rule: str, limit: str) -> Verdict:
    changed = [candidate.fingerprints[row][:SHOWN] for row in found.relabelled]
    listed = f": {', '.join(changed[:MOST_LISTED])}{' …' * (len(changed) > MOST_LISTED)}" if changed else ""
    value = f"{len(changed)} of {found.known}{listed}"
    return Verdict.of(rule, value, limit, is_kept=len(changed) <= MOST_RELABELLED * found.known)


def _not_rolled_back(candidate: Candidate, log: Log) -> Verdict:
    back = log.rolled_back().get(candidate.id)
    value = f"in entry {back.sequence}, because: {back.reason}" if back else "no"
    return Verdict.of("rolled back from", value, "no", is_kept=back is None)
