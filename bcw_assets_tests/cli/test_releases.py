"""The asset `release`, and `bcw releases`, as people and scripts meet them."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner, Result

from bcw_assets.cli.main import main
from bcw_assets.releases import bundle, log
from bcw_assets.storage.store import Store
from bcw_assets_tests.conftest import Graph, Place, broken, contents, why, with_all
from bcw_assets_tests.releases.candidates import Candidate


def champion(graph: Graph) -> str:
    return log.read_log(graph.store).require_champion().release


def read_metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Return what the materialisation of release in a run tells."""
    assert result.success, why(result)
    (event,) = result.asset_materializations_for_node("release")
    return {name: entry.value for name, entry in event.metadata.items()}


@pytest.mark.parametrize("source", ["", "embedded"])
def test_a_refresh_of_the_same_table_is_green_unchanged_and_writes_nothing(graph: Graph, source: str) -> None:
    graph.prepare()
    before = contents(graph.store)
    again = read_metadata(graph.run("release") if not source else graph.run(source=source))
    assert (again["release"], again["result"]) == (champion(graph), "unchanged")
    after = contents(graph.store)
    assert {key: after[key] for key in after if key.startswith("releases/")}.items() <= before.items()


def test_a_candidate_that_is_refused_fails_the_run_with_the_table_and_a_reason_lets_it_pass(graph: Graph) -> None:
    graph.prepare()
    first = champion(graph)
    result = graph.run(config={"model": {"C": 0.0001}})
    assert not result.success
    assert "The gate refused" in why(result)
    assert re.search(r"log loss: 0\.[5-6]", why(result))
    (failure,) = result.get_step_failure_events()
    table = failure.step_failure_data.user_failure_data.metadata["gate"].records
    assert {record.data["verdict"] for record in table} == {"kept", "broken"}
    seen: Any = graph.instance.fetch_observations(dg.AssetKey("release"), limit=1).records[0].asset_observation
    assert (seen.description, seen.metadata["gate"].value.records) == (why(result), table)
    assert champion(graph) == first
    metadata = read_metadata(graph.run("release", config={"release": {"override": " for the seminar "}}))
    assert (metadata["result"], metadata["override"], metadata["log entry"]) == ("promoted", "for the seminar", 2)


def test_what_a_blocking_check_would_find_is_refused_although_nobody_ran_the_check(graph: Graph) -> None:
    graph.prepare()
    for what, by in ((b",M,", b",?,"), (b",B,", b",M,"), (b",?,", b",B,")):
        graph.damage("data/raw_data.csv", what, by)
    assert graph.without_history().run("ready_data", "model", "cross_validation", "metrics").success
    result = graph.without_history().run("release", config={"release": {"override": "I insist"}})
    assert "blocking checks: raw_data, invariants: the diagnoses look inverted" in why(result)


def test_the_check_of_the_release_finds_what_was_changed_since(graph: Graph) -> None:
    graph.prepare()
    assert graph.check("release").success
    card = bundle.locate_file(champion(graph), "MODEL_CARD.md")
    graph.store.write({card: graph.store.read(card) + b"Cures everything."})
    result = graph.check("release")
    assert not result.success
    assert f"{card} has " in broken(result)["release", "published"]
    damaged = champion(graph)
    assert read_metadata(graph.run("release"))["release"] != damaged  # it is made again beside it, and
    assert graph.store.read(card).endswith(b"Cures everything.")  # not written over
    assert graph.check("release").success
    for key in graph.store.list("releases/log/"):
        graph.store.delete(key)
    assert "no entry of the log is for" in broken(graph.check("release"))["release", "published"]


@pytest.fixture
def published(store: Store, place: Place, two_releases: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store that the environment names, after the candidate and then the challenger were released."""
    monkeypatch.setenv("BCW_STORAGE", place("store"))
    return with_all(store, two_releases)


def bcw(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["releases", *arguments])


def read_json(*arguments: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(bcw(*arguments, "--json").stdout)
    return report


def test_list_shows_each_promotion_what_was_rolled_back_or_removed_and_what_is_unfinished(
    published: Store, candidate: Candidate, challenger: Candidate
) -> None:
    head, first, second = bcw("list").stdout.splitlines()
    names = ["entry", "action", "release", "made", "sensitivity", "ROC AUC", "other inputs", "state", "reason"]
    assert re.split(" {2,}", head) == names
    assert re.match(rf"1 +promote +{candidate.id} .* 0\.964 \(0\.930 to 0\.982\)", first)
    assert ["champion" in line for line in (first, second)] == [False, True]
    assert [re.findall(r"split\.seed (\d+)", line) for line in (first, second)] == [["42"], ["7"]]
    assert bcw("rollback", "--reason", "odd").exit_code == 0
    for key in published.list(bundle.locate_file(challenger.id, "")):
        published.delete(key)
    published.create(bundle.locate_file("0" * 16, "model.json"), b"{}")
    report = read_json("list")
    assert [entry["state"] for entry in report["entries"]] == [[], ["rolled back in entry 3", "removed"], ["champion"]]
    assert report["entries"][2]["reason"] == "odd"
    assert report["without_entry"] == [{"release": "0" * 16, "state": "unfinished"}]
    assert "Without an entry: 0000000000000000, unfinished" in bcw("list").stdout
    assert bcw("verify", "--all").exit_code == 0


def test_show_and_diff_tell_what_releases_were_made_from_what_the_gate_said_and_how_they_differ(
    published: Store, candidate: Candidate, challenger: Candidate
) -> None:
    text = bcw("show").stdout
    assert text.startswith(f"Release {challenger.id}, the champion\nEntry 2  promote at ")
    assert "split.seed          7\n" in text
    assert "sensitivity beside the champion" in text
    assert read_json("show", challenger.id[:5])["manifest"]["inputs"] == challenger.inputs
    report = read_json("diff", candidate.id, challenger.id)
    assert (report["inputs"]["split.seed"], report["patients"]["in_both"]) == (["42", "7"], 569)
    assert "split.seed" in bcw("diff", candidate.id, challenger.id).stdout


def test_verify_names_the_file_and_fails(published: Store, candidate: Candidate) -> None:
    key = bundle.locate_file(candidate.id, "model.onnx")
    published.write({key: b"other"})
    assert bcw("verify").exit_code == 0  # of the champion
    for asked in ("--all", candidate.id[:6]):
        done = bcw("verify", asked)
        assert (done.exit_code, f"{key} is not what the manifest says (5 of" in done.stdout) == (1, True)
        assert not read_json("verify", asked)["good"]


def test_rollback_goes_back_and_says_so_and_not_beyond_the_first(
    published: Store, candidate: Candidate, challenger: Candidate
) -> None:
    done = bcw("rollback", "--reason", "alarms")
    assert done.stdout == f"Release {candidate.id} is the champion again, by entry 3 of the log\n"
    done = bcw("rollback", "--reason", "more alarms")
    assert done.exit_code == 1
    assert f"Release {candidate.id} is the first" in done.stderr
    assert f"{challenger.id} was rolled back from" in done.stderr
    assert read_json("rollback", challenger.id[:8], "--reason", "it was the cable") == {
        "release": challenger.id, "sequence": 4, "reason": "it was the cable",
    }  # fmt: skip
    assert log.read_log(published).list_rolled_back().keys() == {candidate.id}


REFUSALS = yaml.safe_load(Path(__file__).with_name("refusals.yaml").read_text())


@pytest.mark.parametrize(("command", "code", "says"), REFUSALS)
def test_what_cannot_be_done_is_said(published: Store, command: str, code: int, says: str) -> None:
    before = published.list("")
    done = bcw(*shlex.split(command))
    assert (done.exit_code, says in done.stderr) == (code, True)
    assert published.list("") == before


@pytest.mark.parametrize(
    "command", [["list"], ["verify", "--all"], ["show"], ["verify"], ["rollback", "--reason", "x"]], ids=" ".join
)
def test_without_a_release_it_is_said_how_to_make_one(published: Store, place: Place, command: list[str]) -> None:
    for key in published.list(""):
        published.delete(key)
    done = bcw(*command)
    says = f"There is no release in {place('store')}/releases yet. To make one: bcw refresh\n"
    is_report = command in (["list"], ["verify", "--all"])
    assert (done.exit_code, done.stdout, done.stderr) == ((0, says, "") if is_report else (1, "", f"Failed: {says}"))
    assert published.list("") == []
