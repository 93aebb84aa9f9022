"""Which messages are sent, and when: to a real webhook and a real mail server, by histories of real runs."""

import email
import email.policy
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from aiosmtpd.controller import Controller
from click.testing import CliRunner
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.execution.plan.handle import StepHandle

from bcw_assets.automation import build_alerts
from bcw_assets.cli.main import main
from bcw_assets.errors import BcwError, ReleaseRefused
from bcw_assets.operations import alerts, history, notifiers
from bcw_assets.operations.alerts import State, read_state
from bcw_assets.operations.notifiers import Message, Messenger
from bcw_assets.settings import Settings
from bcw_assets.stages import explain_failures
from bcw_assets_tests import loopback
from bcw_assets_tests.conftest import Graph, sweep
from bcw_assets_tests.loopback import Step, hang, serve, status, taken
from bcw_assets_tests.servers import find_ports

SECRET = "hunter2-of-the-webhook"


class World:
    """Runs that succeed or fail as the test says, the sensor, and what a webhook and a mail server were sent.

    refresh_job makes table and release; housekeeping_job is an op that needs a server.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.posts: list[dict[str, str]] = []
        self.mails: list[tuple[str, str]] = []
        self.faults: dict[str, Exception] = {}
        self.cursor: str | None = None

    async def handle_DATA(self, _: object, __: object, envelope: Any) -> str:  # noqa: N802 (what aiosmtpd calls)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert mail.get_content_type() == "text/plain"
        self.mails.append((mail["Subject"], mail.get_content().replace("\r\n", "\n").rstrip("\n")))
        return "250 OK"

    def name_messengers(self, *urls: str) -> None:
        self.settings = Settings(notify_urls=" ".join(urls), ui_url="http://ui:3000", storage="s3://bcw/x")

    @property
    def state(self) -> State:
        return read_state(self.cursor, 0)

    def may_fail(self, name: str) -> None:
        if name in self.faults:
            raise self.faults[name]

    def definitions(self) -> dg.Definitions:
        table = dg.asset(name="table")(explain_failures()(lambda: self.may_fail("table")))
        release = dg.asset(name="release", deps=[table])(explain_failures()(lambda: self.may_fail("release")))
        server = dg.resource(lambda _: self.may_fail("server"))
        sweep = dg.op(name="sweep", required_resource_keys={"server"})(lambda: self.may_fail("sweep"))
        jobs: list[Any] = [
            dg.define_asset_job("refresh_job", dg.AssetSelection.all()),
            dg.GraphDefinition("housekeeping_job", node_defs=[sweep]).to_job(resource_defs={"server": server}),
        ]

        @dg.asset_check(asset=table, name="sound", blocking="blocking" in self.faults)
        def sound() -> dg.AssetCheckResult:
            finding = self.faults.get("advice") or self.faults.get("blocking")
            return dg.AssetCheckResult(passed=finding is None, description=str(finding))

        return dg.Definitions([table, release], asset_checks=[sound], jobs=jobs)

    def run(self, job: str = "refresh_job", *assets: str, **tags: str) -> str:
        """Run a job, or of it what makes the named assets, to its end, and return the id of the run."""
        run = self.definitions().resolve_job_def(job).execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags=tags,
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
        )  # fmt: skip
        return run.run_id

    def fail(self, fault: str, job: str = "refresh_job", why: str = "no") -> str:
        self.faults = {fault: BcwError(why)}
        return self.run(job)

    def begin(self, job: str) -> dg.DagsterRun:
        """Let a run wait, of which the history holds what it is to make and to check."""
        return self.instance.create_run_for_job(self.definitions().resolve_job_def(job))

    def tick(self) -> str:
        """Evaluate the sensor, as the daemon does twice a minute, and return what it says."""
        context = dg.build_sensor_context(self.instance, cursor=self.cursor)
        check = dg.AssetCheckKey(dg.AssetKey("table"), "sound")
        answer = build_alerts(self.settings, [check], dg.AssetKey("release"))(context)
        self.cursor = context.cursor
        assert isinstance(answer, dg.SkipReason)
        return answer.skip_message or ""

    def hear(self) -> list[tuple[str, str]]:
        """Tick twice, and return the titles and texts that both were sent since the last time."""
        self.tick()
        self.tick()
        posts = [(post["title"], post["message"]) for post in self.posts]
        assert posts == self.mails
        self.posts.clear()
        self.mails.clear()
        return posts


@pytest.fixture(autouse=True)
def _set_proxies_that_are_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on this machine may be reached through them; what delivering adds to NO_PROXY goes afterwards."""
    for name, value in {"http_proxy": "http://127.0.0.1:9", "no_proxy": "example.org", "NO_PROXY": ""}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def world() -> Iterator[World]:
    """A world whose messengers are a webhook and a mailbox."""
    with dg.DagsterInstance.ephemeral() as instance:
        world, (port,) = World(instance), find_ports(1)
        mail = Controller(world, hostname="127.0.0.1", port=port)
        mail.start()
        with serve(taken(world.posts)) as webhook:
            url = f"mailto://127.0.0.1:{port}?from=bcw@example.org&to=team@example.org"
            world.name_messengers(hook(webhook, SECRET), url)
            yield world
        mail.stop()


def hook(webhook: loopback.Loopback, path: str = "") -> str:
    return f"{webhook.url.replace('http', 'json')}/{path}"


ENGINE = 'Execution of run for "housekeeping_job" failed. An exception was thrown during execution. ConnectionError: no'
RULING: dict[str, Any] = {
    "rule": "accuracy",
    "value": "0.9 (0.8 to 0.95)",
    "limit": "at least 0.97",
    "verdict": "broken",
}
REFUSED = ReleaseRefused("The gate refused this candidate: accuracy", (RULING,))
TABLE = "rule | value | limit | verdict\naccuracy | 0.9 (0.8 to 0.95) | at least 0.97 | broken"


@pytest.mark.parametrize(
    ("fault", "error", "job", "title", "evidence"),
    [
        ("table", BcwError("no. Try x"), "refresh_job", "The run of refresh_job failed at table", "table: no. Try x"),
        ("server", ConnectionError("no"), "housekeeping_job",
         "The run of housekeeping_job failed before its first step", ENGINE),
        ("release", REFUSED, "refresh_job", "The gate refused a release", f"release: {REFUSED}\n{TABLE}"),
        ("advice", BcwError("12 of 569"), "refresh_job", "Check sound of table failed", "12 of 569"),
        ("blocking", BcwError("row 7"), "refresh_job", "Check sound of table failed", "row 7"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_once_and_once_more_when_it_is_over_and_anew_when_it_is_wrong_again(
    world: World, fault: str, error: Exception, job: str, title: str, evidence: str
) -> None:
    world.faults[fault] = error
    first = world.run(job)
    ((heading, text),) = world.hear()
    finding, since, *lines = text.rsplit("\n", 3)
    assert (heading, finding) == (f"bcw_assets: {title}", f"Evidence: {evidence}")
    assert re.fullmatch(r"Since: 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\+00:00", since)
    assert lines == ["Where: s3://bcw/x", f"Run: http://ui:3000/runs/{first}"]
    (before,) = world.state.incidents
    last = world.run(job)
    world.begin(job)
    assert world.hear() == []  # the same again, and a run that is at work
    world.faults.clear()
    world.run(job)
    ((heading, text),) = world.hear()
    assert heading == f"Recovered: bcw_assets: {title}"
    assert text.startswith(f"It is over: so since {since.removeprefix('Since: ')}, and no longer at ")
    assert text.endswith(f"\nWhere: s3://bcw/x\nRun: http://ui:3000/runs/{last}")
    world.faults[fault] = error
    world.run(job)
    assert [heading for heading, _ in world.hear()] == [f"bcw_assets: {title}"]
    assert world.state.incidents[0].since > before.since


def test_however_many_runs_of_another_job_fail_between_two_ticks_no_incident_is_lost(world: World) -> None:
    world.fail("table")
    world.fail("sweep", "housekeeping_job")
    for _ in range(101):
        world.instance.add_run(dg.DagsterRun(alerts.SELECTED, status=dg.DagsterRunStatus.FAILURE))
    assert {title for title, _ in world.hear()} == {
        "bcw_assets: The run of refresh_job failed at table",
        "bcw_assets: The run of housekeeping_job failed at sweep",
        "bcw_assets: A run of selected assets failed before its first step",
    }


def test_a_run_that_could_not_start_is_told_until_runs_of_any_job_made_all_of_it_and_who_died_with_his_step(
    world: World,
) -> None:
    world.instance.report_run_failed(world.begin("refresh_job"), "no memory for its process")
    ((title, text),) = world.hear()
    assert title == "bcw_assets: The run of refresh_job failed before its first step"
    assert text.startswith("Evidence: no memory for its process\n")
    dead, step = world.begin("housekeeping_job"), StepHandle(NodeHandle("sweep", None))
    world.instance.report_dagster_event(dg.DagsterEvent("STEP_START", "housekeeping_job", step), dead.run_id)
    world.instance.report_run_failed(dead, "Run monitoring found its process dead")
    ((heading, text),) = world.hear()
    assert heading == "bcw_assets: The run of housekeeping_job failed at sweep"
    assert text.startswith("Evidence: Run monitoring found its process dead\n")
    world.run("housekeeping_job")
    world.run(alerts.SELECTED, "table")
    assert [title for title, _ in world.hear()] == [f"Recovered: {heading}"]
    world.run(alerts.SELECTED, "release")
    assert [heading for heading, _ in world.hear()] == [f"Recovered: {title}"]


def test_a_run_that_is_retried_or_cancelled_is_no_failure(world: World) -> None:
    world.instance.report_run_canceled(world.begin("housekeeping_job"))
    world.faults["table"] = BcwError("no")
    world.run(**{history.WILL_RETRY: "true"})
    assert world.hear() == []
    world.run(**{history.WILL_RETRY: "false"})
    assert len(world.hear()) == 1


def test_a_release_that_is_too_old_or_never_was_is_told_until_there_is_a_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = "bcw_assets: No release was made or confirmed for 14 days"
    assert world.hear() == []
    monkeypatch.setattr(alerts, "now", lambda: time.time() + 14 * alerts.DAY)
    ((heading, text),) = world.hear()
    assert (heading, "Run:" in text) == (title, False)
    last = world.run()
    monkeypatch.undo()
    assert [heading for heading, _ in world.hear()] == [f"Recovered: {title}"]
    monkeypatch.setattr(alerts, "now", lambda: time.time() + 14 * alerts.DAY)
    ((heading, text),) = world.hear()
    assert (heading, text.endswith(f"/runs/{last}")) == (title, True)


def test_who_is_named_later_hears_of_what_is_wrong_now_and_of_nothing_that_is_over(world: World) -> None:
    settings = world.settings
    world.name_messengers()
    world.fail("table")
    world.fail("sweep", "housekeeping_job")
    assert world.tick() == "Open incidents: 2; BCW_NOTIFY_URLS is not set, so nobody is told"
    world.settings = settings
    world.run()
    assert [title for title, _ in world.hear()] == ["bcw_assets: The run of housekeeping_job failed at sweep"]


def test_the_sensor_of_the_project_looks_at_its_checks_its_gate_and_its_releases_age(graph: Graph) -> None:
    from bcw_assets.definitions import build_definitions

    defs = build_definitions(graph.settings(autostart=True, stale_days=3))
    assert defs.resolve_sensor_def(alerts.SENSOR).default_status is dg.DefaultSensorStatus.RUNNING
    policies = {spec.key: spec.freshness_policy for spec in defs.resolve_all_asset_specs() if spec.freshness_policy}
    assert policies == {dg.AssetKey("release"): dg.FreshnessPolicy.time_window(timedelta(days=3))}
    graph.prepare()
    weak: dict[str, object] = {"model": {"C": 0.0001}}  # misses its floors, and the gate refuses it
    assert graph.run("model", "cross_validation", "metrics", config=weak).success
    selection = defs.resolve_job_def(alerts.SELECTED)
    release = [dg.AssetKey("release")]
    assert not selection.execute_in_process(
        instance=graph.instance, raise_on_error=False, asset_selection=release
    ).success
    context = dg.build_sensor_context(graph.instance)
    defs.resolve_sensor_def(alerts.SENSOR)(context)
    evidence = {incident.title: incident.evidence for incident in read_state(context.cursor, 0).list_open()}
    assert "log loss" in evidence["Check floors of metrics failed"]
    assert evidence["The gate refused a release"].startswith("release: The gate refused this candidate: ")


def test_who_fails_or_sends_elsewhere_or_for_whom_no_time_is_left_gets_the_message_at_the_next_tick_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(status(500), status(301, Location="/login"), taken(world.posts)) as webhook:
        world.name_messengers(f"{hook(webhook, SECRET)}?redirect=yes")
        world.fail("table")
        with monkeypatch.context() as patch:
            patch.setattr(alerts, "BUDGET", -1.0)
            world.tick()
        assert (webhook.requests, world.state.failures) == ([], 0)
        assert re.search(r"due to messengers that did not accept them: 1 \(json\) \(Failed .*error=500", world.tick())
        assert "error=301" in world.tick()
        assert (world.state.failures, len(world.state.list_open()), len(world.state.failing)) == (2, 1, 1)
        assert SECRET not in str(world.cursor)
        assert "everybody in BCW_NOTIFY_URLS is told" in world.tick()
        world.tick()
    assert (len(world.posts), webhook.requests.count("/login"), world.state.failures) == (1, 0, 2)
    assert os.environ["no_proxy"].startswith("example.org,")


@pytest.mark.parametrize("behaviour", sweep([hang, loopback.drip, loopback.drip_headers, loopback.refuse]))
def test_a_messenger_that_hangs_costs_a_tick_its_limit_and_the_others_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, behaviour: Step
) -> None:
    deliver = Messenger.deliver

    def deliver_within(messenger: Messenger, message: Message) -> str:
        monkeypatch.setattr(notifiers, "LIMIT", 0.2 if messenger.position == 1 else 60)
        return deliver(messenger, message)

    monkeypatch.setattr(Messenger, "deliver", deliver_within)
    with serve(behaviour) as broken, serve(taken(world.posts)) as webhook:
        world.name_messengers(hook(broken), hook(webhook))
        world.fail("table")
        world.tick()
        world.tick()
    assert (len(world.posts), world.state.failures) == (1, 2)


def test_no_message_shows_a_secret_or_rouses_everybody_and_its_length_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2/environment")
    world.settings = replace(world.settings, storage=f"s3://bcw/{'x' * 500}")
    url = "https://me:hunter2@example.org/x?X-Amz-Signature=hunter2&a=1"
    words = f"<!everyone> @channel: hunter2/environment, {url}, {SECRET}"
    run = world.fail("table", why=f"{words}\n{'y' * 100_000}")
    ((title, text),) = world.hear()
    assert "‹!everyone› ＠channel: ***, https://***＠example.org/x?X-Amz-Signature=***&a=1, ***\n" in text
    assert "hunter2" not in text + (world.cursor or "")
    assert "y … (cut; the run has all of it)\nSince" in text
    assert len(title + text) < 2000
    assert text.endswith(f"\nRun: http://ui:3000/runs/{run}")


@pytest.mark.parametrize("cursor", [None, "not JSON", '{"known": {}, "looked": 2.0}'])
def test_a_cursor_that_holds_no_state_as_one_of_0_1_is_a_new_beginning(cursor: str | None) -> None:
    assert read_state(cursor, 7) == State(began=7)


def test_bcw_notify_test_says_who_accepted_or_what_to_set_and_urls_may_have_commas_between_and_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["notify-test"])
    assert (done.exit_code, "BCW_NOTIFY_URLS is not set" in done.output) == (1, True)
    posts: list[dict[str, str]] = []
    with serve(taken(posts)) as good, serve(status(500)) as bad:
        monkeypatch.setenv("BCW_UI_URL", "http://ui:3000/")
        monkeypatch.setenv("BCW_NOTIFY_URLS", hook(good))
        done = CliRunner().invoke(main, ["notify-test"])
        assert (done.exit_code, done.output) == (0, "1 (json): accepted\n")
        urls = f"{SECRET} , slak://{SECRET}, {hook(good)}?+x-y=1,2\n{hook(bad, SECRET)}"
        monkeypatch.setenv("BCW_NOTIFY_URLS", urls)
        done = CliRunner().invoke(main, ["notify-test"])
    assert done.exit_code == 1
    assert re.match(
        r"1 \(no scheme\): not accepted: Apprise cannot use this URL; .*\n2 \(slak\): not accepted: Apprise cannot .*\n"
        r"3 \(json\): accepted\n4 \(json\): not accepted: Failed to send .*error=500.*\nFailed: not all accepted",
        done.output,
    )
    assert "hunter2" not in done.output
    text = "Alerts of bcw_assets reach you here. Links in messages lead to http://ui:3000."
    assert [(post["title"], post["message"]) for post in posts] == [("bcw_assets: test message", text)] * 2
