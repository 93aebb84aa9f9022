"""May this candidate replace the champion? A table of rules, each with value, limit and verdict."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from bcw_assets.errors import ReleaseError
from bcw_assets.ml.evaluation import comparison, thresholds
from bcw_assets.releases.bundle import Bundle, cut_inputs_hash, hash_inputs
from bcw_assets.releases.candidate import SHORT, Candidate, read_predictions
from bcw_assets.releases.log import Log, Ruling
from bcw_assets.report.formatting import format_estimate, shorten

KEPT, BROKEN, NOT_JUDGED = "kept", "broken", "not judged"

MOST_EXCESS_LOG_LOSS = 0.01
MOST_LOST_SENSITIVITY = 0.03
FEWEST_MALIGNANT = 150  # in common, from which a loss of 0.03 can be told from none
MOST_RELABELLED = 0.01  # share of the known rows
MOST_LISTED = 20

# The rules beside the champion, each with its limit in words.
BESIDE_CHAMPION = LOG_LOSS_RULE, SENSITIVITY_RULE, LABELS_RULE = (
    ("log loss beside the champion", f"upper 97.5 % bound at most {MOST_EXCESS_LOG_LOSS:+g}"),
    ("sensitivity beside the champion", f"lower 97.5 % bound at least {-MOST_LOST_SENSITIVITY:+g}"),
    ("relabelled rows", f"at most {100 * MOST_RELABELLED:g} % of the known rows"),
)


def judge(
    candidate: Candidate, problems: Sequence[str], champion: Bundle | None, log: Log, stored_ids: Collection[str] = ()
) -> list[Ruling]:
    """Hold a candidate against the floors, the champion and the log.

    `problems` are what the blocking checks find in its values. Where the log cannot be read, a bundle that is stored
    may have been rolled back from.
    """
    passed = "all passed"
    return [
        _judge_rule(("blocking checks", passed), "; ".join(problems)[:1000] or passed, is_kept=not problems),
        *(
            _judge_rule((floor.title, floor.limit), format_estimate(floor.summary, 4), is_kept=not floor.is_missed)
            for floor in thresholds.compare_with_floors(candidate.metrics.report)
        ),
        *_compare(candidate, champion, log),
        _judge_rollback(candidate, log, stored_ids),
    ]


def find_broken(table: Sequence[Ruling]) -> list[Ruling]:
    """Return the rules that keep the candidate out."""
    return [row for row in table if row["verdict"] == BROKEN]


def explain_unjudged(table: Sequence[Ruling]) -> str:
    """Return why rules were not judged, each reason once; nothing if all were."""
    return "; ".join(dict.fromkeys(row["value"] for row in table if row["verdict"] == NOT_JUDGED))


def fold_table(table: Sequence[Ruling]) -> list[dict[str, str]]:
    """Return the table in two columns of short texts: the page of an asset has no place for four."""
    folded = []
    for row in table:
        value = row["value"] if row["verdict"] == KEPT else "{verdict}: {value}".format_map(row)
        folded.append({"rule (limit)": shorten("{rule} ({limit})".format_map(row)), "value": shorten(value)})
    return folded


def _judge_rule(rule: tuple[str, str], value: str, *, is_kept: bool | None) -> Ruling:
    """Return the row of a rule; whether it is kept is None where it is not judged."""
    verdict = NOT_JUDGED if is_kept is None else KEPT if is_kept else BROKEN
    return {"rule": rule[0], "value": value, "limit": rule[1], "verdict": verdict}


def _compare(candidate: Candidate, champion: Bundle | None, log: Log) -> Iterable[Ruling]:
    """Judge the rules beside the champion; a champion that nobody can compare with lets pass only by override."""
    why, is_kept = "there is no champion before it", None
    if champion and champion.problems and not log.problem and champion.is_made_from(candidate.inputs):
        why = f"the champion {champion.id} is damaged, and was made from the same inputs"
    elif champion:
        try:
            return _judge_patients(candidate, read_predictions(champion.require().files))
        except (ReleaseError, ValueError) as error:
            why = f"the champion {champion.id} cannot be compared with: {(*champion.problems, error)[0]}"
            is_kept = False
    return [_judge_rule(rule, why, is_kept=is_kept) for rule in BESIDE_CHAMPION]


def _judge_patients(candidate: Candidate, champion: comparison.Predictions) -> Iterator[Ruling]:
    result = comparison.compare(candidate.predictions, candidate.fingerprints_if_relabelled, champion)
    if result.log_loss is None or result.sensitivity is None or result.malignant < FEWEST_MALIGNANT:
        why = f"{result.malignant} malignant patients in common, fewer than {FEWEST_MALIGNANT}"
        yield from (_judge_rule(rule, why, is_kept=None) for rule in (LOG_LOSS_RULE, SENSITIVITY_RULE))
    else:
        (worse, at_most), (better, at_least) = result.log_loss, result.sensitivity
        value = f"{worse:+.4f}, at most {at_most:+.4f}"
        yield _judge_rule(LOG_LOSS_RULE, value, is_kept=at_most <= MOST_EXCESS_LOG_LOSS)
        value = f"{better:+.4f}, at least {at_least:+.4f}"
        yield _judge_rule(SENSITIVITY_RULE, value, is_kept=at_least >= -MOST_LOST_SENSITIVITY)
    changed = [candidate.fingerprints[row][:SHORT] for row in result.relabelled]
    names = ", ".join([*changed[:MOST_LISTED], *(["…"] if len(changed) > MOST_LISTED else [])])
    value = f"{len(changed)} of {result.known}{': ' if changed else ''}{names}"
    yield _judge_rule(LABELS_RULE, value, is_kept=len(changed) <= MOST_RELABELLED * result.known)


def _judge_rollback(candidate: Candidate, log: Log, stored_ids: Collection[str]) -> Ruling:
    inputs = hash_inputs(candidate.inputs)
    rollbacks = [entry for release, entry in log.list_rolled_back().items() if cut_inputs_hash(release) == inputs]
    hidden = log.find_hidden_entry(inputs, is_stored=inputs in map(cut_inputs_hash, stored_ids))
    value = "never" if hidden is None else f"perhaps, in or after entry {hidden}, which cannot be read"
    if rollbacks:
        value = f"in entry {rollbacks[0].sequence}, because: {rollbacks[0].reason}"
    return _judge_rule(("rolled back from", "never"), value, is_kept=value == "never")
