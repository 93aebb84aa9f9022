"""What only S3 can do to a store: refuse, misbehave, die; and what a person is told then."""

import csv
import errno
import gzip
import io
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from itertools import chain, count, product, repeat
from pathlib import Path
from typing import Any, cast
from unittest import mock

import botocore.auth
import botocore.retries.quota
import botocore.retries.standard
import dagster as dg
import pandas as pd
import pytest
import yaml
from botocore.exceptions import ClientError
from click.testing import CliRunner, Result

from bcw_assets import stages
from bcw_assets.cli.main import main
from bcw_assets.errors import StorageError, StorageUnavailable
from bcw_assets.operations import history
from bcw_assets.releases import log, promotion
from bcw_assets.releases.access import open_release
from bcw_assets.storage import s3
from bcw_assets.storage.store import Store, open_store
from bcw_assets_tests import loopback
from bcw_assets_tests import seaweed as seaweed_server
from bcw_assets_tests.conftest import Graph, Place, broken, contents, on_s3, sweep, why, with_all
from bcw_assets_tests.loopback import Step, serve
from bcw_assets_tests.releases.candidates import Candidate
from bcw_assets_tests.seaweed import Seaweed
from bcw_assets_tests.storage.test_store import NEW, OLD
from bcw_assets_tests.tables import uci_form

EVERYTHING: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.read("results/model.pkl"),
    "write": lambda store: store.write(NEW),
    "create": lambda store: store.create("log/000001.json", b"entry"),
    "list": lambda store: store.list("results/"),
    "delete": lambda store: store.delete("results/model.pkl"),
}


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """Places on S3."""
    return on_s3(request)


@pytest.fixture(autouse=True)
def _haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 2)
    monkeypatch.setattr(s3, "PAUSE", 0)
    monkeypatch.setattr(stages, "RETRY_SECONDS", 0)
    monkeypatch.setattr(botocore.retries.quota.RetryQuota, "acquire", lambda *_: True)  # who fails often fails faster
    monkeypatch.setattr(botocore.retries.standard.ExponentialBackoff, "delay_amount", lambda *_: 0.0)


def test_a_place_may_have_a_prefix_or_none_and_slashes_or_none(place: Place) -> None:
    bucket = f"s3://{seaweed_server.BUCKET}"
    unique, first = place("x").removeprefix(f"{bucket}/"), open_store(place("x"))
    for ending in ("", "/", "//", f"/{unique}/with/a/prefix", f"/{unique}/with/a/prefix/"):
        store, key = open_as(first, bucket + ending), f"{unique}/key"
        store.write({key: b"content"})
        assert store.read(key) == b"content"
        assert store.list(f"{unique}/k") == [key]
        assert store.address(key) == f"{bucket}{ending.rstrip('/')}/{key}"


def test_a_key_that_needs_escaping_is_kept_as_it_is(place: Place) -> None:
    store = open_store(place("in a b+ü%2F"))
    for key in ("a b", "a+b", "a%2Fb", "ü/é", "a#b", "a?b=c&d", "a'b\"c", "a<b>&amp;", "日本", "~", "a:b"):
        store.write({key: b"content", "other": b""})
        assert store.create(f"{key}.created", b"more")
        assert (store.read(key), store.list(key)) == (b"content", [key, f"{key}.created"])
        for name in (key, f"{key}.created"):
            store.delete(name)
        assert store.list("") == ["other"]


def test_a_listing_of_more_than_a_page_is_whole_and_without_the_objects_that_stand_for_folders(place: Place) -> None:
    store: Any = open_store(place("many"))
    keys = [f"log/{number:06}.json" for number in range(1, 25)]
    for key in keys:
        store.create(key, b"")
    store._client.put_object(Bucket=seaweed_server.BUCKET, Key=f"{store._root}log/", Body=b"")  # as consoles do
    pages = []

    def limit_page(params: dict[str, Any], **_: object) -> None:
        pages.append(params)
        params["MaxKeys"] = 10

    store._client.meta.events.register("before-parameter-build.s3.ListObjectsV2", limit_page)
    assert store.list("log/") == keys
    assert len(pages) == 3


def open_at(url: str, place: str) -> Store:
    """Return the store of a place that asks the server at `url`."""
    store: Any = open_store(place)
    with mock.patch.dict(os.environ, AWS_ENDPOINT_URL=url):
        assert store._client
    return cast(Store, store)


def open_as(client_of: Any, place: str) -> Store:
    """Return the store of a place with another's client: making one takes longer than most cases."""
    store: Any = open_store(place)
    store._client = client_of._client
    return cast(Store, store)


def read_error(act: Callable[[], object], kind: type[StorageError] = StorageError) -> str:
    """Return the text of an error: one line that names no secret, and no cause that could."""
    with pytest.raises(kind) as error:
        act()
    assert error.type is kind
    text = str(error.value)
    assert not re.search("\n|secret[ -]of|Signature", text)
    assert error.value.__suppress_context__
    return text


@pytest.mark.parametrize("case", yaml.safe_load(Path(__file__).with_name("variables.yaml").read_text()), ids=str)
def test_a_variable_that_is_wrong_or_missing_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: dict[str, str]
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")  # which would be asked on a machine of Amazon's
    monkeypatch.setenv("HOME", str(tmp_path))
    if "value" in case:
        monkeypatch.setenv(case["variable"], case["value"])
    else:
        monkeypatch.delenv(case["variable"])
    assert case["says"] in read_error(lambda: open_store(place("x")).list(""))


def test_who_may_only_read_is_told_when_writing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    open_store(place("x")).write(OLD)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed_server.READER)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed_server.READERS_SECRET)
    store = open_store(place("x"))
    for name in ("write", "create", "delete"):
        text = read_error(partial(EVERYTHING[name], store))
        assert "Let their policy allow s3:GetObject, s3:PutObject, s3:DeleteObject and s3:L" in text
    assert contents(store) == OLD


def test_a_clock_that_is_wrong_and_a_server_that_is_not_there_are_said(place: Place) -> None:
    now = botocore.auth.get_current_datetime().replace(year=2020)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=now):
        text = read_error(lambda: open_store(place("x")).list(""))
    assert "the clocks of this machine and of the server differ too much. Set this machine's clock" in text
    store = open_at("http://me:secret-of-me@127.0.0.1:1", place("x"))
    text = read_error(lambda: store.list(""), StorageUnavailable)
    assert ": http://127.0.0.1:1 cannot be reached, or does not answer. Start it, or set AWS_ENDPOINT_URL" in text


def test_a_bucket_that_is_missing_is_named_and_a_name_of_none_is_refused_before_anybody_is_asked(place: Place) -> None:
    store = open_as(open_store(place("x")), "s3://no-such-bucket/prefix")
    for act in EVERYTHING.values():
        assert "in s3://no-such-bucket/prefix: there is no such bucket" in read_error(partial(act, store))
    for name in ("s3://Upper", "s3://under_score/x", "s3://a..b/x", "s3://127.0.0.1/x", "s3:///x", "gs://bucket"):
        with pytest.raises(StorageError, match=r"no name of a bucket; allowed are|allowed is the path of a folder"):
            open_store(name)


def explain(code: str, status: int, **fields: str) -> tuple[str, str, type[StorageError]]:
    answer = {"Error": {"Code": code, **fields}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return s3.explain(ClientError(answer, "GetObject"), "http://s3")


def test_every_error_of_the_table_is_told_in_words_and_says_whether_it_may_pass(place: Place) -> None:
    with s3.ERRORS.open(newline="") as file:
        names = {name for row in csv.DictReader(file) for name in row["names"].split()}
    assert {error.__name__ for error in s3.BROKEN_OFF} | s3.CONFLICTS < names
    for name in names:
        assert re.fullmatch("[^{]+, [^{]+", ", ".join(explain(name, 400)[:2]))
    assert explain("AuthorizationHeaderMalformed", 400, Region="eu-west-1")[0].endswith("another region, eu-west-1")
    assert explain("SlowDown", 503) == ("http://s3 answered 503 SlowDown", "Look at its log", StorageUnavailable)
    assert explain("OperationAborted", 409)[2] is StorageUnavailable
    assert explain("<b>", 400) == ("http://s3 answered 400", "Look at its log", StorageError)
    with serve(loopback.status(403)) as server:  # which botocore knows by its status alone
        text = read_error(partial(open_at(server.url, place("x")).read, "key"))
    assert "Let their policy allow s3:GetObject, s3:PutObject" in text


SILENT = {"hang", "stall", "headers that drip"}  # given up after so much silence
LATE = {"drip", "headers that drip"}  # no attempt is given up before the limit of a request
OF_A_BODY = {"reset mid-body", "truncated", "stall", "drip"}  # no harm to an answer that has none


def list_faults(url: str) -> dict[str, Step]:
    """Return what can go wrong with one request to the server at `url`."""
    return {
        "503": loopback.s3_error(503, "SlowDown"),
        "reply lost": loopback.reply_lost(url),
        "truncated": loopback.cut_off(url),
        "refuse": loopback.refuse,
        "reset mid-body": loopback.reset_within(url),
        "500": loopback.s3_error(500, "InternalError"),
        "409": loopback.s3_error(409, "ConditionalRequestConflict"),
        "hang": loopback.hang,
        "stall": loopback.stalled(url),
        "drip": loopback.trickled(url),
        "headers that drip": loopback.drip_headers,
        "nonsense": loopback.body(b"<html>Log in first</html>"),
    }


FAULTS = list(list_faults(""))


@pytest.mark.parametrize("what", [*FAULTS[:2], *sweep(FAULTS[2:])])
def test_a_fault_that_passes_is_survived_and_one_that_stays_is_told_and_changes_nothing(
    place: Place, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    fault, well = list_faults(seaweed.url)[what], loopback.passed_to(seaweed.url)
    script: Iterator[Step] = repeat(well)
    monkeypatch.setattr(s3, "READ_TIMEOUT", 0.2 if what in SILENT else 10)
    direct = open_store(place("x"))
    with serve(lambda handler: next(script)(handler)) as server:
        faulty = open_at(server.url, place("x"))
        for (name, act), passes in product(EVERYTHING.items(), (True, False)):
            healthy = open_as(direct, place(f"{name}/{passes}/0"))
            healthy.write(OLD)
            expected, after = act(healthy), contents(healthy)
            for number in range(1, 5):  # the request that goes wrong
                stored = open_as(direct, place(f"{name}/{passes}/{number}"))
                stored.write(OLD)
                script = chain([well] * (number - 1), [fault], repeat(well if passes else fault))
                server.requests.clear()
                try:
                    with mock.patch.object(s3, "REQUEST_LIMIT", 0.5 if what in LATE else 75):
                        result = act(open_as(faulty, place(f"{name}/{passes}/{number}")))
                except StorageError as error:
                    text = str(error)
                    assert not passes or what in LATE, text
                    assert contents(stored) in (OLD, after) or "Files may be new now" in text
                else:
                    # Of the second, the log finds out that the entry is its own.
                    assert result == expected or (what, name) == ("reply lost", "create")
                    assert contents(stored) == after
                    assert passes or what in OF_A_BODY or number > len(server.requests)
                assert len(server.requests) <= 40
                if number > len(server.requests):
                    break


def at_write(numbers: Container[int], step: Step, well: Step) -> Step:
    """Do something else with these writes, and pass all other requests on."""
    writes = count(1)
    return lambda handler: (step if handler.command == "PUT" and next(writes) in numbers else well)(handler)


@pytest.mark.parametrize("numbers", sweep([range(3, 100), *([number] for number in range(1, 14))]), ids=str)
def test_whichever_replies_of_a_promotion_are_lost_the_writer_recognises_its_own(
    place: Place, seaweed: Seaweed, candidate: Candidate, numbers: Container[int]
) -> None:
    with serve(at_write(numbers, loopback.reply_lost(seaweed.url), loopback.passed_to(seaweed.url))) as server:
        result, entry = promotion.promote(open_at(server.url, place("x")), candidate, [], "run")
    assert result == "promoted"
    stored = open_store(place("x"))
    assert log.read_log(stored).entries == (entry,)
    assert open_release(stored, None).id == candidate.id
    before = contents(stored)
    assert promotion.promote(stored, candidate, [], "again")[0] == "unchanged"
    assert contents(stored) == before


def test_a_server_that_refuses_checksums_is_named_and_works_with_the_variable_that_is_said(
    place: Place, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    well, refusal = loopback.passed_to(seaweed.url), loopback.s3_error(501, "NotImplemented")
    with serve(lambda handler: (refusal if handler.headers["x-amz-checksum-crc32"] else well)(handler)) as server:
        text = read_error(lambda: open_at(server.url, place("x")).write(OLD))
        assert "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required" in text
        monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        open_at(server.url, place("x")).write(OLD)
    assert contents(open_store(place("x"))) == OLD


def test_a_bucket_that_is_away_for_a_while_is_waited_for_and_nothing_is_released_twice(
    graph: Graph, seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    well, lost = loopback.passed_to(seaweed.url), loopback.reply_lost(seaweed.url)
    outages = ["PUT data/raw_data.csv", "PUT model.json", "GET metrics.json", "PUT log/000001.json"]
    refusals = 0

    def lose(handler: BaseHTTPRequestHandler) -> None:
        """Lose the reply to the next of these, and refuse the four requests after it, whatever they are for."""
        nonlocal refusals
        command, key = outages[0].split() if outages else ("", "")
        if refusals:
            refusals -= 1
            loopback.s3_error(503, "SlowDown")(handler)
        elif handler.command == command and handler.path.endswith(key):
            del outages[0]
            refusals = 4
            lost(handler)
        else:
            well(handler)

    with serve(lose) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        result = graph.run()
        (entry,) = log.read_log(graph.store).entries
    assert (result.success, outages, entry.run, broken(result)) == (True, [], result.run_id, {})
    retries = [event for event in result.all_events if event.is_step_up_for_retry]
    steps = Counter(event.step_key for event in retries)
    assert steps == {"raw_data": 2, "model": 2, "metrics_checks": 2, "release": 1}
    for event in retries:
        says = history.explain_retry(event)
        assert re.fullmatch(r"Could not .* answered 503 SlowDown\. .* try again \(the next try is in 0 s\)", says)


def test_a_bucket_that_stays_away_fails_the_run_after_a_few_tries_and_one_that_refuses_at_once(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step, tries, says in (
        (loopback.s3_error(503, "SlowDown"), stages.RETRIES, "answered 503 SlowDown"),
        (loopback.s3_error(403, "AccessDenied"), 0, "these credentials may not do that"),
    ):
        with serve(step) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            result = graph.run("raw_data")
        assert not result.success
        assert len([event for event in result.all_events if event.is_step_up_for_retry]) == tries
        assert re.fullmatch(f"Could not write .*{says}.*", why(result))


@pytest.mark.sweep
def test_a_refresh_in_which_the_server_dies_is_made_good_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidate: Candidate
) -> None:
    with seaweed_server.run_server(tmp_path / "own") as server, dg.DagsterInstance.ephemeral() as instance:
        server.use(monkeypatch)
        graph = Graph(tmp_path, f"s3://{seaweed_server.BUCKET}/x", instance)
        before = promotion.promote(graph.store, candidate, [], "run")[1]

        def die(handler: BaseHTTPRequestHandler) -> None:
            server.kill()
            loopback.refuse(handler)

        with serve(at_write([3], die, loopback.passed_to(server.url))) as proxy:
            process = graph.process("bcw", "refresh", AWS_ENDPOINT_URL=proxy.url)
        says = r"Failed: ready_data: Could not read data/raw_data\.csv .* or does not answer\. "  # at its last try
        assert process.returncode == 1
        assert re.match(says, process.stderr), process.stderr
        assert "Traceback" not in process.stderr
        server.start()
        assert log.read_log(graph.store).entries == (before,)
        after = graph.process("bcw", "refresh")
        assert after.returncode == 0, after.stderr
        assert "unchanged: the champion since entry 1" in after.stdout


@pytest.fixture
def bcw(
    tmp_path: Path, place: Place, one_release: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Runs a command in a folder, with a place on S3 that has a release."""
    with_all(open_store(place("store")), one_release)
    monkeypatch.setenv("BCW_STORAGE", place("store"))
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, arguments)


def test_rows_are_scored_from_an_object_as_from_a_file(
    bcw: Callable[..., Result], place: Place, raw: pd.DataFrame
) -> None:
    packed = io.BytesIO()
    raw.to_parquet(packed)
    forms = {"a table+.csv.gz": gzip.compress(uci_form()), "table.parquet": packed.getvalue()}
    open_store(place("in puts")).write(forms)
    for name, content in forms.items():
        Path("table").write_bytes(content)
        from_disk, from_s3 = bcw("predict", "table"), bcw("predict", f"{place('in puts')}/{name}")
        assert from_s3.stdout == from_disk.stdout
        assert len(from_disk.stdout.splitlines()) == 1 + len(raw)


def test_what_cannot_be_read_from_s3_or_written_there_is_said_in_one_line(
    bcw: Callable[..., Result], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assert_failure(code: int, says: str, *arguments: str) -> None:
        result = bcw(*arguments)
        assert (result.exit_code, result.stdout) == (code, "")
        assert re.fullmatch(rf"(Release .*\n.*\n)?Failed: .*{re.escape(says)}.*\n", result.stderr), result.stderr
        assert "secret of" not in result.stderr

    Path("wdbc.data").write_bytes(uci_form())
    open_store(place("x")).write({"table.csv": uci_form()})
    assert_failure(2, f"{place('x/no.csv')} cannot be read: ", "predict", place("x/no.csv"))
    assert_failure(2, "/table.csv cannot be read: Could not read", "predict", "s3://no-such-bucket/table.csv")
    assert_failure(2, "'No' in 's3://No' is no name of a bucket", "predict", "s3://No/table.csv")
    assert_failure(1, " is on S3; allowed for -o is the path", "predict", "wdbc.data", "-o", place("out.csv"))
    with mock.patch.object(tempfile, "TemporaryFile") as make:
        full = make.return_value.__enter__.return_value
        full.write.side_effect = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert_failure(1, ": No space left on device. Set TMPDIR", "predict", place("x/table.csv"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the secret of nobody")
    for command in (("releases", "list"), ("predict", "wdbc.data")):
        assert_failure(1, ": the secret is not that of the access key. ", *command)
