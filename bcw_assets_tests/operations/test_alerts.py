"""Which messages are sent, and when: to a real webhook and a real mail server, by histories of real runs."""

import email
import email.policy
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from aiosmtpd.controller import Controller
from click.testing import CliRunner
from dagster._core.definitions.dependency import NodeHandle
from dagster._core.execution.plan.handle import StepHandle
from pydantic import SecretStr

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

WEAK: dict[str, object] = {"model": {"C": 0.0001}}  # such a model misses its floors, and the gate refuses it


@dataclass
class Mailbox:
    """What the mail server was sent: subject and text."""

    mails: list[tuple[str, str]] = field(default_factory=list)

    async def handle_DATA(self, _: object, __: object, envelope: Any) -> str:  # noqa: N802 (what aiosmtpd calls)
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert mail.get_content_type() == "text/plain"
        self.mails.append((mail["Subject"], mail.get_content().replace("\r\n", "\n").rstrip("\n")))
        return "250 OK"


class MailServer(Controller):
    """A mail server on a port that is free."""

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


class World:
    """Runs that succeed or fail as the test says, and the sensor.

    refresh_job makes table and release; housekeeping_job is an op that needs a server.
    """

    def __init__(self, instance: dg.DagsterInstance, urls: str = "") -> None:
        self.instance = instance
        self.settings = Settings(notify_urls=SecretStr(urls), ui_url="http://ui:3000/", storage="s3://bcw/x")
        self.faults: dict[str, Exception] = {}
        self.cursor: str | None = None
        self.checks = [dg.AssetCheckKey(dg.AssetKey("table"), "sound")]

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

    def run(self, job: str = "refresh_job", *assets: str, **tags: str) -> dg.ExecuteInProcessResult:
        definition = self.definitions().resolve_job_def(job)
        return definition.execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            tags=tags,
            asset_selection=[dg.AssetKey(asset) for asset in assets] or None,
        )

    def begin(self, job: str) -> dg.DagsterRun:
        """Let a run wait, of which the history holds what it is to make and to check."""
        return self.instance.create_run_for_job(self.definitions().resolve_job_def(job))

    def tick(self) -> str:
        """Evaluate the sensor, as the daemon does twice a minute, and return what it says."""
        context = dg.build_sensor_context(self.instance, cursor=self.cursor)
        said = build_alerts(self.settings, self.checks, dg.AssetKey("release"))(context)
        self.cursor = context.cursor
        assert isinstance(said, dg.SkipReason)
        return said.skip_message or ""


class Audience(World):
    """The same with a webhook and a mailbox, which must be sent the same."""

    def __init__(self, instance: dg.DagsterInstance, urls: str, posts: list[dict[str, str]], mailbox: Mailbox) -> None:
        super().__init__(instance, urls)
        self.posts, self.mailbox = posts, mailbox

    def hear(self) -> list[tuple[str, str]]:
        """Tick twice, and return the titles and texts that both messengers were sent since the last time."""
        self.tick()
        self.tick()
        posts = [(post["title"], post["message"]) for post in self.posts]
        assert posts == self.mailbox.mails
        self.posts.clear()
        self.mailbox.mails.clear()
        return posts


@pytest.fixture(autouse=True)
def _keep_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo afterwards what delivering a message adds to these variables."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "example.org")


@pytest.fixture(scope="module")
def mail() -> Iterator[tuple[str, Mailbox]]:
    mailbox = Mailbox()
    controller = MailServer(mailbox, hostname="127.0.0.1", port=0)
    controller.start()
    yield f"mailto://127.0.0.1:{controller.port}?from=bcw@example.org&to=team@example.org", mailbox
    controller.stop()


@pytest.fixture
def audience(mail: tuple[str, Mailbox]) -> Iterator[Audience]:
    posts: list[dict[str, str]] = []
    url, mailbox = mail
    mailbox.mails.clear()
    with dg.DagsterInstance.ephemeral() as instance, serve(taken(posts)) as webhook:
        yield Audience(instance, f"{hook(webhook)} {url}", posts, mailbox)


@pytest.fixture
def world() -> Iterator[World]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(instance)


def hook(webhook: loopback.Loopback, path: str = "") -> str:
    return f"{webhook.url.replace('http', 'json')}/{path}"


ENGINE = 'Execution of run for "housekeeping_job" failed. An exception was thrown during execution. ConnectionError: no'
REFUSED = ReleaseRefused("The gate refused this candidate: accuracy", ({"rule": "accuracy"},))


@pytest.mark.parametrize(
    ("fault", "error", "job", "title", "evidence"),
    [
        ("table", BcwError("no. Try x"), "refresh_job", "The run of refresh_job failed at table", "table: no. Try x"),
        ("server", ConnectionError("no"), "housekeeping_job",
         "The run of housekeeping_job failed before its first step", ENGINE),
        ("release", REFUSED, "refresh_job", "The gate refused a release", f"release: {REFUSED}"),
        ("advice", BcwError("12 of 569"), "refresh_job", "Check sound of table failed", "12 of 569"),
        ("blocking", BcwError("row 7"), "refresh_job", "Check sound of table failed", "row 7"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_once_and_once_more_when_it_is_over(
    audience: Audience, fault: str, error: Exception, job: str, title: str, evidence: str
) -> None:
    audience.faults[fault] = error
    first = audience.run(job)
    ((heading, text),) = audience.hear()
    lines = text.splitlines()
    assert (heading, lines[0]) == (f"bcw_assets: {title}", f"Evidence: {evidence}")
    assert re.fullmatch(r"Since: 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", lines[1])
    assert lines[2:] == ["Where: s3://bcw/x", f"Run: http://ui:3000/runs/{first.run_id}"]
    last = audience.run(job)
    audience.begin(job)
    assert audience.hear() == []  # the same again, and a run that is at work
    audience.faults.clear()
    audience.run(job)
    ((heading, text),) = audience.hear()
    assert heading == f"Recovered: bcw_assets: {title}"
    assert text.startswith(f"It is over: so since {lines[1].removeprefix('Since: ')}, and no longer at ")
    assert text.endswith(f"\nWhere: s3://bcw/x\nRun: http://ui:3000/runs/{last.run_id}")


def test_however_many_runs_of_another_job_fail_between_two_ticks_no_incident_is_lost(audience: Audience) -> None:
    for fault in ("table", "sweep"):
        audience.faults[fault] = BcwError("no")
    audience.run()
    audience.run("housekeeping_job")
    for _ in range(101):
        audience.instance.add_run(dg.DagsterRun(alerts.SELECTED, status=dg.DagsterRunStatus.FAILURE))
    assert {title for title, _ in audience.hear()} == {
        "bcw_assets: The run of refresh_job failed at table",
        "bcw_assets: The run of housekeeping_job failed at sweep",
        "bcw_assets: A run of selected assets failed before its first step",
    }


def test_what_failed_in_a_run_is_over_when_another_job_makes_it(audience: Audience) -> None:
    audience.faults["table"] = BcwError("no")
    audience.run()
    assert len(audience.hear()) == 1
    audience.faults.clear()
    audience.run("housekeeping_job")
    assert audience.hear() == []
    audience.run(alerts.SELECTED, "table")
    assert [title for title, _ in audience.hear()] == ["Recovered: bcw_assets: The run of refresh_job failed at table"]


def test_a_run_whose_process_died_is_told_with_the_step_that_it_left(audience: Audience) -> None:
    run = audience.begin("housekeeping_job")
    step = StepHandle(NodeHandle("sweep", None))
    audience.instance.report_dagster_event(dg.DagsterEvent("STEP_START", "housekeeping_job", step), run.run_id)
    audience.instance.report_run_failed(run, "Run monitoring found its process dead")
    ((title, text),) = audience.hear()
    assert title == "bcw_assets: The run of housekeeping_job failed at sweep"
    assert text.startswith("Evidence: Run monitoring found its process dead\n")


def test_of_a_run_that_could_not_start_all_has_to_be_made(audience: Audience) -> None:
    audience.instance.report_run_failed(audience.begin("refresh_job"), "no memory for its process")
    ((title, text),) = audience.hear()
    assert title == "bcw_assets: The run of refresh_job failed before its first step"
    assert text.startswith("Evidence: no memory for its process\n")
    audience.run(alerts.SELECTED, "table")
    assert audience.hear() == []
    audience.run(alerts.SELECTED, "release")
    assert len(audience.hear()) == 1


def test_a_run_that_is_retried_or_cancelled_is_no_failure(audience: Audience, monkeypatch: pytest.MonkeyPatch) -> None:
    audience.instance.report_run_canceled(audience.begin("housekeeping_job"))
    audience.faults["table"] = BcwError("no")
    audience.run(**{history.WILL_RETRY: "true"})
    last = audience.run()
    monkeypatch.setattr(dg.DagsterInstance, "run_retries_enabled", True)
    assert audience.hear() == []  # nobody knows yet whether the last is retried
    audience.instance.add_run_tags(last.run_id, {history.WILL_RETRY: "false"})
    assert len(audience.hear()) == 1


def test_a_release_that_is_too_old_or_never_was_is_told_until_there_is_a_new_one(
    audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = "bcw_assets: No release was made or confirmed for 14 days"
    assert audience.hear() == []
    monkeypatch.setattr(alerts, "now", lambda: time.time() + 14 * alerts.DAY)
    ((heading, text),) = audience.hear()
    assert (heading, "Run:" in text) == (title, False)
    last = audience.run()
    monkeypatch.undo()
    assert [heading for heading, _ in audience.hear()] == [f"Recovered: {title}"]
    monkeypatch.setattr(alerts, "now", lambda: time.time() + 14 * alerts.DAY)
    ((heading, text),) = audience.hear()
    assert (heading, text.endswith(f"/runs/{last.run_id}")) == (title, True)


def test_who_is_named_later_hears_of_what_is_wrong_now(audience: Audience) -> None:
    urls, audience.settings = audience.settings, Settings(ui_url="http://ui:3000")
    audience.faults = {"table": BcwError("no"), "sweep": BcwError("no")}
    audience.run()
    audience.run("housekeeping_job")
    assert audience.tick() == "Open incidents: 2; BCW_NOTIFY_URLS is not set, so nobody is told"
    del audience.faults["table"]
    audience.run()
    assert audience.hear() == []
    audience.settings = urls
    assert [title for title, _ in audience.hear()] == ["bcw_assets: The run of housekeeping_job failed at sweep"]


@pytest.mark.sweep
def test_a_run_of_dagsters_command_in_another_process_is_told(graph: Graph, audience: Audience) -> None:
    done = graph.process("dagster", "asset", "materialize", "-m", "bcw_assets", "--select", "model")
    assert done.returncode == 1
    with dg.DagsterInstance.from_config(graph.environment()["DAGSTER_HOME"]) as audience.instance:
        ((title, text),) = audience.hear()
    assert title == "bcw_assets: A run of selected assets failed at model"
    assert text.startswith("Evidence: model: ready_data has not been materialised")


def test_the_real_graph_tells_of_its_checks_and_of_its_gate(
    graph: Graph, audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bcw_assets.definitions import build_definitions

    audience.instance = graph.instance
    audience.checks = [key for checks in build_definitions(Settings()).asset_checks or [] for key in checks.check_keys]
    monkeypatch.setattr(alerts, "SELECTED", "selected")  # the job of `Graph.run`
    graph.prepare()
    assert audience.hear() == []
    assert graph.run("model", "cross_validation", "metrics", config=WEAK).success
    messages = dict(audience.hear())
    assert "bcw_assets: Check floors of metrics failed" in messages
    assert "log_loss" in messages["bcw_assets: Check floors of metrics failed"]
    assert not graph.run("release").success
    ((title, text),) = audience.hear()
    assert title == "bcw_assets: The gate refused a release"
    assert text.startswith("Evidence: release: The gate refused this candidate: ")
    assert "The champion stays" in text


def make_due(world: World, *urls: str) -> Callable[[], str]:
    """Let one message be due to these messengers."""
    world.settings = Settings(notify_urls=SecretStr(" ".join(urls)))
    world.faults["sweep"] = BcwError("no")
    world.run("housekeeping_job")
    return world.tick


def test_a_messenger_that_fails_or_sends_elsewhere_gets_the_message_at_the_next_tick_once(world: World) -> None:
    posts: list[dict[str, str]] = []
    with serve(status(500), status(301, Location="/login"), taken(posts)) as webhook:
        tick = make_due(world, f"{hook(webhook)}?redirect=yes")
        assert re.search(r"due to messengers that did not accept them: 1 \(json\) \(Failed .*error=500", tick())
        assert "error=301" in tick()
        assert (world.state.failures, len(world.state.list_open()), len(world.state.failing)) == (2, 1, 1)
        assert "everybody in BCW_NOTIFY_URLS is told" in tick()
        tick()
        assert (len(posts), webhook.requests.count("/login"), world.state.failures) == (1, 0, 2)


@pytest.mark.parametrize("behaviour", sweep([hang, loopback.drip, loopback.drip_headers, loopback.refuse]))
def test_a_messenger_that_hangs_costs_a_tick_its_limit_and_the_others_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, behaviour: Step
) -> None:
    deliver = Messenger.deliver

    def deliver_within(messenger: Messenger, message: Message) -> str:
        monkeypatch.setattr(notifiers, "LIMIT", 0.2 if messenger.position == 1 else 60)
        return deliver(messenger, message)

    monkeypatch.setattr(Messenger, "deliver", deliver_within)
    posts: list[dict[str, str]] = []
    with serve(behaviour) as broken, serve(taken(posts)) as webhook:
        tick = make_due(world, hook(broken), hook(webhook))
        tick()
        tick()
    assert len(posts) == 1
    assert world.state.failures == 2


def test_a_tick_without_time_left_leaves_messages_for_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    posts: list[dict[str, str]] = []
    with serve(taken(posts)) as webhook:
        tick = make_due(world, hook(webhook))
        monkeypatch.setattr(alerts, "BUDGET", -1.0)
        tick()
        assert (world.state.failures, posts) == (0, [])
        monkeypatch.undo()
        tick()
        assert len(posts) == 1


def test_a_url_that_is_none_fails_alone_and_is_shown_by_position_and_scheme(world: World) -> None:
    posts: list[dict[str, str]] = []
    with serve(taken(posts)) as webhook:
        tick = make_due(world, "hunter2hunter2", "slak://hunter2hunter2,", hook(webhook))
        assert re.search(r"1 \(no scheme\) \(Apprise cannot use .*, 2 \(slak\) \(Apprise cannot", said := tick())
    assert len(posts) == 1
    assert "hunter2" not in said + (world.cursor or "")


def test_urls_have_spaces_or_commas_between_and_may_have_commas_within() -> None:
    text = " json://a/?x=1,2 , json://b,c://d/\n"
    messengers = notifiers.list_messengers(Settings(notify_urls=SecretStr(text)))
    assert [messenger.url for messenger in messengers] == ["json://a/?x=1,2", "json://b", "c://d/"]


@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_a_messenger_on_this_machine_is_reached_without_the_proxy(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    posts: list[dict[str, str]] = []
    with serve(status(502)) as proxy, serve(taken(posts)) as webhook:
        monkeypatch.setenv(name, proxy.url)
        make_due(world, hook(webhook))()
    assert (len(posts), proxy.requests, os.environ["no_proxy"][:12]) == (1, [], "example.org,")


def test_a_messenger_that_never_heard_of_an_incident_does_not_hear_that_it_is_over(world: World) -> None:
    posts: list[dict[str, str]] = []
    with serve(status(500), taken(posts)) as webhook:
        tick = make_due(world, hook(webhook))
        tick()
        world.faults.clear()
        world.run("housekeeping_job")
        tick()
    assert posts == []
    assert world.state.incidents == ()


def test_what_is_wrong_again_is_told_again_with_its_own_beginning(audience: Audience) -> None:
    for problem in ("first", "second"):
        audience.faults["table"] = BcwError(problem)
        record = audience.instance.get_run_record_by_id(audience.run().run_id)
        ((_, text),) = audience.hear()
        since = datetime.fromtimestamp(record.end_time or 0, UTC)
        assert text.startswith(f"Evidence: table: {problem}\nSince: {since:%Y-%m-%d %H:%M:%S} UTC")
        audience.faults.clear()
        audience.run()
        assert len(audience.hear()) == 1


def test_no_message_and_no_cursor_shows_a_secret_or_rouses_everybody(
    audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2/environment")
    token = "hunter2-of-the-webhook"
    urls = audience.settings.notify_urls.get_secret_value().replace("/ ", f"/{token} ")
    audience.settings = audience.settings.model_copy(update={"notify_urls": SecretStr(urls)})
    audience.faults["table"] = BcwError(
        "<!everyone> @channel: hunter2/environment, "
        f"https://me:hunter2@example.org/x?X-Amz-Signature=hunter2&a=1, {token}"
    )
    audience.run()
    ((_, text),) = audience.hear()
    assert "‹!everyone› ＠channel: ***, https://***＠example.org/x?X-Amz-Signature=***&a=1, ***\n" in text
    assert "hunter2" not in text + (audience.cursor or "")


def test_a_message_has_a_bounded_length_and_still_its_link(audience: Audience) -> None:
    audience.settings = audience.settings.model_copy(update={"storage": f"s3://bcw/{'x' * 500}"})
    audience.faults["table"] = BcwError("y" * 100_000)
    run = audience.run()
    ((title, text),) = audience.hear()
    assert len(title + text) < 2000
    assert "y … (cut; the run has all of it)\nSince" in text
    assert text.endswith(f"\nRun: http://ui:3000/runs/{run.run_id}")


OF_0_1 = """{"known": {"run, asset table": {"incident": {"kind": "run", "title": "t", "evidence": "e", "since": 1.0,
"run": "", "things": {"asset table": 1.0}}, "over": null, "told": ["json-1a2b"]}}, "looked": 2.0, "failing": [],
"failures": 3}"""


@pytest.mark.parametrize("cursor", [None, "", "not JSON", '{"began": 1, "incidents": 1}', OF_0_1])
def test_a_cursor_that_holds_no_state_is_a_new_beginning(cursor: str | None) -> None:
    assert read_state(cursor, 7) == State(began=7)


def test_a_text_loses_what_cannot_be_printed() -> None:
    assert notifiers.remove_secrets_and_markup("a\x1b[31m\nb\u202ec", []) == "a[31m\nbc"


def test_the_sensor_and_the_age_of_a_release_are_as_the_settings_say() -> None:
    from bcw_assets.definitions import build_definitions

    defs = build_definitions(Settings(autostart=True, stale_days=3))
    assert defs.resolve_sensor_def(alerts.SENSOR).default_status is dg.DefaultSensorStatus.RUNNING
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert specs["release"].freshness_policy == dg.FreshnessPolicy.time_window(timedelta(days=3))
    assert [name for name, spec in specs.items() if spec.freshness_policy] == ["release"]
    assert build_alerts(Settings(), [], dg.AssetKey("release")).default_status.value == "STOPPED"


def test_bcw_notify_test_says_who_accepted_or_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["notify-test"])
    assert (done.exit_code, "BCW_NOTIFY_URLS is not set" in done.output) == (1, True)
    posts: list[dict[str, str]] = []
    with ExitStack() as stack:
        good, bad = stack.enter_context(serve(taken(posts))), stack.enter_context(serve(status(500)))
        monkeypatch.setenv("BCW_NOTIFY_URLS", hook(good, "hunter2"))
        monkeypatch.setenv("BCW_UI_URL", "http://ui:3000/")
        done = CliRunner().invoke(main, ["notify-test"])
        assert (done.exit_code, done.output) == (0, "1 (json): accepted\n")
        monkeypatch.setenv("BCW_NOTIFY_URLS", f"{hook(good)} slak://hunter2 {hook(bad)}")
        done = CliRunner().invoke(main, ["notify-test"])
    assert done.exit_code == 1
    assert re.match(
        r"1 \(json\): accepted\n2 \(slak\): not accepted: Apprise cannot use this URL; .*\n"
        r"3 \(json\): not accepted: Failed to send .*error=500.*\nFailed: not all accepted", done.output,
    )  # fmt: skip
    assert "hunter2" not in done.output
    assert (posts[0]["title"], posts[0]["message"]) == (
        "bcw_assets: test message",
        "Alerts of bcw_assets reach you here. Links in messages lead to http://ui:3000.",
    )
