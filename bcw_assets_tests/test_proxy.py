"""The proxy of the stack, the real Caddy before the real web server: what is refused, and what still works.

Every attack is a legitimate change of Dagster's state with one thing wrong, sent byte by byte over a socket, and counts
as refused only if the web server, asked directly, then knows of no change. `make test` tries the first of each class,
`make test-all` all of them.
"""

import base64
import gzip
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import requests
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from bcw_assets_tests import loopback
from bcw_assets_tests.conftest import BIN, CHECKOUT

CADDYFILE = CHECKOUT / "deploy" / "Caddyfile"
USER, PASSWORD = "bcw", secrets.token_urlsafe(24)
PATIENCE = 60  # seconds, more than any answer takes on a busy machine
CHANGE = "mutation { setAutoMaterializePaused(paused: true) }"
UNDO = "mutation { setAutoMaterializePaused(paused: false) }"
STATE = """{
  instance { autoMaterializePaused }
  assetOrError(assetKey: {path: ["raw_data"]}) {
    ... on Asset { assetMaterializations { timestamp } assetObservations { timestamp } }
  }
  assetCheckExecutions(assetKey: {path: ["raw_data"]}, checkName: "content", limit: 9) { id }
}"""
RUN = "0123abcd-0123-4abc-8def-0123456789ab"


def log_in(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


RIGHT, WRONG = log_in(USER, PASSWORD), log_in(USER, "x" * 32)


@dataclass
class Stack:
    """The ports of the proxy and of the web server behind it, what Prometheus was asked, and what the proxy logged."""

    proxy: int
    web: int
    questions: list[dict[str, str]]
    log: Path

    def query(self, query: str) -> Any:
        """Return what the web server itself answers."""
        answer = requests.post(f"http://127.0.0.1:{self.web}/graphql", json={"query": query}, timeout=PATIENCE).json()
        assert "errors" not in answer
        return answer["data"]

    def take_back(self) -> bool:
        """Undo the change that attacks try; return whether it was there."""
        was_paused = self.query(STATE)["instance"]["autoMaterializePaused"]
        self.query(UNDO)
        return bool(was_paused)

    def send(self, request: bytes, port: int = 0) -> bytes:
        """Send bytes to the proxy, and return all that it answers until it hangs up."""
        with socket.create_connection(("127.0.0.1", port or self.proxy), timeout=PATIENCE) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may refuse before all is sent
                connection.sendall(request)
            answer = b""
            with suppress(ConnectionResetError):
                while part := connection.recv(65536):
                    answer += part
            return answer

    def get(self, path: str, **headers: str) -> requests.Response:
        url = f"http://localhost:{self.proxy}{path}"
        return requests.get(url, auth=(USER, PASSWORD), headers=headers, timeout=PATIENCE)

    def open_socket(self) -> ClientConnection:
        """Open a websocket, as the UI does."""
        host, protocols = f"localhost:{self.proxy}", [Subprotocol("graphql-ws")]
        return connect(
            f"ws://{host}/graphql", origin=Origin(f"http://{host}"), additional_headers={"Authorization": RIGHT},
            subprotocols=protocols, proxy=None,
        )  # fmt: skip


def statuses(answer: bytes) -> str:
    return " ".join(re.findall(r"HTTP/1\.1 (\d{3}) ", answer.decode("latin-1")))


def find_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in sockets]


def clean(**own: str) -> dict[str, str]:
    """Return an environment without what project or proxy would read of this process's."""
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | own


@contextmanager
def run_server(
    log: Path, command: Sequence[str | Path], own: dict[str, str], alive: Callable[[], object]
) -> Iterator[Path]:
    """Run a server from its first answer to the end of the block, in the folder of its log."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=own, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                alive()
                break
            except OSError:  # whatever requests raises, too
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                assert process.poll() is None, log.read_text()[-2000:]
                time.sleep(0.05)
        yield log
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


OWN_FILE = ("--config", CADDYFILE, "--adapter", "caddyfile")


def caddy(*command: str | Path, given: str = "", **own: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "caddy", *command], env=clean(**own), input=given, capture_output=True, text=True, check=False
    )


def run_proxy(folder: Path, alive: Callable[[], object], **own: str) -> Any:
    """Run the proxy on loopback, with its certificates in the folder."""
    own |= {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "BIND": "127.0.0.1"}
    return run_server(folder / "log", (BIN / "caddy", "run", *OWN_FILE), clean(**own), alive)


def ask_health(port: int) -> requests.Response:
    return requests.get(f"http://127.0.0.1:{port}", headers={"Host": "health"}, timeout=PATIENCE)


@pytest.fixture(scope="module")
def password_hash() -> str:
    return caddy("hash-password", "--algorithm", "bcrypt", "--bcrypt-cost", "10", given=f"{PASSWORD}\n").stdout.strip()


@pytest.fixture(scope="module")
def stack(password_hash: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    questions: list[dict[str, str]] = []

    def prometheus(handler: BaseHTTPRequestHandler) -> None:
        questions.append({"path": handler.path} | dict(handler.headers.items()))
        loopback.body(b"prometheus")(handler)

    folder = tmp_path_factory.mktemp("webserver")
    http, https, web = find_ports(3)
    server = (BIN / "dagster-webserver", "-m", "bcw_assets", "-h", "127.0.0.1", "-p", str(web))
    own = clean(DAGSTER_HOME=str(make_home(folder / "home")), BCW_STORAGE=str(folder))
    with (
        run_server(folder / "log", server, own, lambda: requests.get(f"http://127.0.0.1:{web}/server_info", timeout=5)),
        loopback.serve(prometheus) as metrics,
        run_proxy(
            tmp_path_factory.mktemp("proxy"), lambda: ask_health(http), BCW_PASSWORD_HASH=password_hash,
            HTTP_PORT=str(http), HTTPS_PORT=str(https), WEBSERVER=f"127.0.0.1:{web}",
            PROMETHEUS=metrics.url.removeprefix("http://"),
        ) as log,
    ):  # fmt: skip
        stack = Stack(http, web, questions, log)
        stack.query(UNDO)
        yield stack


@dg.job(config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}})
def empty_job() -> None:
    """Do nothing."""


def make_home(home: Path) -> Path:
    """Make a history with one run in it, which has written a line to its stdout."""
    logs = home / "storage" / RUN / "compute_logs"
    logs.mkdir(parents=True)
    (logs / "step.out").write_text("a line of a step")
    shutil.copy(CHECKOUT / ".dagster" / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert empty_job.execute_in_process(instance=instance, run_id=RUN).success
    return home


JSON, NOTHING = json.dumps({"query": CHANGE}), json.dumps({"query": "{ version }"})
IN_QUERY = f"?query={quote(CHANGE)}"
CHANGE_BY_GET = f"/graphql{IN_QUERY}"


def ask(method: str = "POST", target: str = "/graphql", body: str = JSON, also: str = "", **headers: Any) -> bytes:
    """Return a request that would be obeyed as it is, with some of it replaced, or left out where a header is None."""
    usual: dict[str, Any] = {
        "Host": "localhost", "Authorization": RIGHT, "Content_Type": "application/json",
        "Content_Length": str(len(body)), "Connection": "close",
    }  # fmt: skip
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in (usual | headers).items() if value is not None]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, *filter(None, [also]), "", body]).encode("latin-1")


def get(target: str = CHANGE_BY_GET, **headers: Any) -> bytes:
    """Return a GET that Dagster would obey."""
    return ask("GET", target, "", **{"Content_Type": None, "Content_Length": None, **headers})


def upgrade(target: str = "/graphql", **headers: Any) -> bytes:
    """Return what opens a websocket."""
    usual = {
        "Connection": "close, Upgrade", "Upgrade": "websocket", "Origin": "http://localhost",
        "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Protocol": "graphql-ws",
    }  # fmt: skip
    return get(target, **{**usual, **headers})


def cut_up(body: str) -> str:
    return f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"


def send_chunks(body: str = JSON, coding: str = "chunked", **headers: Any) -> bytes:
    return ask(body=cut_up(body), **{"Content_Length": None, "Transfer_Encoding": coding, **headers})


def click_link(**headers: str) -> dict[str, str]:
    """Return what a browser says of a link of another site that was clicked."""
    return {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"} | headers


OWN, EVIL, OPEN, MEGABYTE = "http://localhost", "http://evil.example", "keep-alive", " " * 1_000_000
JSON_TYPE, H2C = "application/json", {"HTTP2_Settings": "AAMAAABkAAQAAP__"}
HIDDEN = ask(Authorization=None).decode()  # a request in the body of another
PATHS = """
    //graphql ///graphql /graphql/ /graphql// /./graphql /graphql/. /x/../graphql /x/..//graphql /%67raphql /graphq%6C
    /%67%72%61%70%68%71%6c /%2fgraphql /graphql%2f /x/%2e%2e/graphql /x%2f..%2fgraphql /%2e/graphql /GraphQL /GRAPHQL
    /%47raphql /graphql;x=1 /;x/graphql /graphql%3b /\\graphql /%5cgraphql /x\\..\\graphql /graphql\\ /graphql%00
    /graphql%20 /graphql. /graphql%3f /graphql%23 /graphql#x /graphql&x /graphql%0d%0a /graphql%09 /logs/../graphql
    /_next/static/../../graphql /prometheus/../graphql /prometheus/..%2fgraphql http://localhost//graphql
"""
PAGES = f"""
    / /runs /download_debug/{RUN} /report_asset_check/raw_data /report_asset_materialization/raw_data
    /report_asset_observation/raw_data /%72eport_asset_materialization/raw_data
    //report_asset_materialization/raw_data /prometheus/-/quit /prometheus/-/reload /prometheus/api/v1/write
    /prometheus/api/v1/admin/tsdb/delete_series /prometheus/api/v1/query/../admin/tsdb/snapshot
"""
METHODS = "HEAD PUT PATCH DELETE OPTIONS TRACE CONNECT post QUERY"
TYPES = [
    "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/graphql",
    "text/plain; application/json", "text/plain, application/json", "application/json, text/plain",
    "application/json; charset=utf-7", "application/jsonp", "Application/JSON", "", None,
]  # fmt: skip
ORIGINS = [
    EVIL, "null", "https://localhost", "http://localhost:3000", "http://127.0.0.1", "http://localhost.evil.example",
    "http://evil.example/http://localhost", "http://localhost@evil.example", "http://localhost, http://evil.example",
    "http://localhost/", "http://*", "*", "localhost",
]  # fmt: skip
HOSTS = "evil.example evil.example:80 localhost.evil.example webserver:3000 0.0.0.0 127.1 localhost. *"
CODINGS = ["xchunked", "chunked, identity", "identity, chunked", "gzip, chunked", '"chunked"']

# fmt: off
# Class of attack → the statuses that answer → what is sent. Where 200 answers, it is a page or a harmless question.
ATTACKS: dict[str, dict[str, list[bytes]]] = {
    "password": {
        "401": [
            ask(Authorization=None), ask(Authorization=""), ask(Authorization=WRONG),
            ask(Authorization=log_in(USER, "")), ask(Authorization=log_in("admin", PASSWORD)),
            ask(Authorization=log_in(USER.upper(), PASSWORD)), ask(Authorization=RIGHT.replace("Basic", "Bearer")),
            ask(Authorization=f"Basic {USER}:{PASSWORD}"), ask(Authorization=None, Proxy_Authorization=RIGHT),
            ask(target=f"http://{USER}:{PASSWORD}@localhost/graphql", Authorization=None),
            ask(target=f"/graphql?Authorization={quote(RIGHT)}", Authorization=None),
            ask(Authorization=None, Connection="close, Authorization"),
            ask(Authorization=None, X_Forwarded_For="127.0.0.1", X_Real_IP="127.0.0.1"),
            ask(Authorization=None, X_Forwarded_User=USER, Remote_User=USER),
            *(get(path, Authorization=None) for path in (CHANGE_BY_GET, "/", "/favicon.svg", "/server_info",
                                                         f"/logs/{RUN}/compute_logs/step/out", "/prometheus/")),
        ],
        "400": [ask(also=f"Authorization: {WRONG}"), ask(Authorization=WRONG, also=f"Authorization: {RIGHT}")],
    },
    "method": {
        "405": [
            get(), ask("GET"), get("/graphql", Accept="text/html"),
            get(X_HTTP_Method_Override="POST", Content_Type=JSON_TYPE),
            get(f"{CHANGE_BY_GET}&_method=POST", Content_Type=JSON_TYPE),
            ask(target="/runs", X_Original_URL="/graphql", X_Rewrite_URL="/graphql"),
            *(ask(method, CHANGE_BY_GET) for method in METHODS.split()),
        ],
        "400": [ask("GET,POST", CHANGE_BY_GET)],
    },
    "type": {
        "405": [
            *(ask(target=CHANGE_BY_GET, Content_Type=name) for name in TYPES), ask(also="Content-Type: text/plain"),
            ask(Content_Type="text/plain", also="Content-Type: application/json"),
        ],
        # The first lets the proxy take the type away; the second has only a query, which Dagster does not see.
        "400": [ask(target=CHANGE_BY_GET, body=NOTHING, Connection="close, Content-Type"),
                ask(target=CHANGE_BY_GET, body="{}")],
        "200": [ask(target=CHANGE_BY_GET, body=NOTHING)],
    },
    "origin": {"403": [
        *(ask(Origin=origin) for origin in ORIGINS), ask(Origin=EVIL, also=f"Origin: {OWN}"),
        ask(Origin=OWN, also=f"Origin: {EVIL}"), ask(Origin=EVIL, Connection="close, Origin"),
        ask(Origin=EVIL, X_Forwarded_Host="evil.example", Forwarded="host=evil.example"),
        ask(Origin="https://localhost", X_Forwarded_Proto="https"), ask(Origin=EVIL, Content_Type=TYPES[1]),
        ask("OPTIONS", Origin=EVIL, Access_Control_Request_Method="POST"), get("/", Origin=EVIL),
        get(**click_link(Origin=EVIL)),
    ]},
    "fetch": {
        "403": [
            ask(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"), ask(Sec_Fetch_Site="same-site"),
            ask(Sec_Fetch_Site="own"), ask(Sec_Fetch_Site="same-origin", also="Sec-Fetch-Site: cross-site"),
            ask(**click_link()), get(**click_link(Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image")),
            get("/_next/static/x.js", **click_link(Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="script")),
            get("/", **click_link(Sec_Fetch_Dest="iframe")),
        ],
        "405": [get(**click_link())],
    },
    "path": {
        "405": [
            *(ask(target=path) for path in PATHS.split()), *(get(path + IN_QUERY) for path in PATHS.split()),
            ask(target="*"), ask(target="/%2567raphql"), ask(target="/%c1%a7raphql"),
        ],
        "400": [ask(target=target) for target in ("/%zzgraphql", "/graphql /x", "graphql")],
        "200": [get("/%2567raphql" + IN_QUERY), get("/%c1%a7raphql" + IN_QUERY)],
    },
    "host": {
        "421": [
            ask(Host="evil.example", Origin=EVIL), ask(target=f"{EVIL}/graphql"),
            *(ask(Host=host) for host in HOSTS.split()), ask(Host="evil.example", X_Forwarded_Host="localhost"),
        ],
        "400": [
            ask(Host="evil.example", also="Host: localhost"), ask(also="Host: evil.example"),
            *(ask(Host=host) for host in (None, "", "localhost/", "evil@localhost", "localhost evil")),
        ],
    },
    "frame": {  # where a request ends: another one is hidden in its body, or its length is said twice
        "401 401": [ask(body=f"0\r\n\r\n{HIDDEN}", Connection=OPEN, Authorization=None, Transfer_Encoding="chunked")],
        "200 401": [ask(body=cut_up(NOTHING) + HIDDEN, Connection=OPEN, Transfer_Encoding="chunked"),
                    get("/favicon.svg", Connection=OPEN) + HIDDEN.encode()],
        "200": [ask("GET", "/favicon.svg", HIDDEN),
                ask("GET", "/favicon.svg", cut_up(HIDDEN), Content_Length=None, Transfer_Encoding="chunked")],
        "400": [
            send_chunks(HIDDEN, Content_Length="4"), ask(also="Content-Length: 0"),
            *(ask(Content_Length=text) for text in (f"0, {len(JSON)}", f"+{len(JSON)}", "-1", f"0x{len(JSON):x}")),
            ask(Content_Length=None, also=f"Content-Length : {len(JSON)}"),
            ask(body=cut_up(JSON), also="Transfer-Encoding : chunked"),
            *(ask(also=line) for line in ("X: a\rAuthorization: b", "X: a\0b", ": a")),
            ask(Authorization=None, also=f"Authorization : {RIGHT}"), b"POST /graphql\r\n\r\n" + JSON.encode(),
        ],
        "401": [ask(Authorization=None, also=f"X: a\r\n Authorization: {RIGHT}")],  # a folded header
        "501": [send_chunks(coding="identity", also="Transfer-Encoding: chunked"),
                *(send_chunks(coding=coding) for coding in CODINGS)],
        "": [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)],  # HTTP/2 without TLS
    },
    "too long": {
        "413": [ask(body=JSON + MEGABYTE), send_chunks(JSON + MEGABYTE),
                ask(body=JSON + MEGABYTE, Content_Length=str(10**18))],
        "431": [ask(also=f"X: {'x' * 30_000}"), ask(also="\r\n".join(f"X-{number}: x" for number in range(3000))),
                ask(target=f"/graphql?{'x' * 30_000}")],
    },
    "websocket": {
        "401": [upgrade(Authorization=None), upgrade(Authorization=WRONG)],
        "403": [upgrade(Origin=EVIL), upgrade(Origin="null"),
                upgrade(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="websocket")],
        "421": [upgrade(Host="evil.example", Origin=EVIL)],
        "405": [upgrade(CHANGE_BY_GET), upgrade("//graphql"), upgrade(Upgrade="h2c", **H2C),
                upgrade(Upgrade="websocket, h2c"),
                ask(Connection="close, Upgrade", Upgrade="websocket", Content_Type="text/plain")],
        "400": [get("/graphql", Upgrade="websocket"), get("/graphql", Upgrade="websocket", Accept="text/html")],
        "200": [upgrade("/")],
    },
    "report": {"405": [ask(method, path, json.dumps({"check_name": "content", "passed": True}))
                       for method in ("POST", "PUT") for path in PAGES.split()]},
}
# fmt: on
CASES = [
    pytest.param(answer, attack, id=f"{kind} {number}", marks=[pytest.mark.sweep] if number else [])
    for kind, answers in ATTACKS.items()
    for number, (answer, attack) in enumerate((answer, attack) for answer in answers for attack in answers[answer])
]


@pytest.mark.parametrize(("answer", "attack"), CASES)
def test_an_attack_is_refused_and_changes_nothing(stack: Stack, answer: str, attack: bytes) -> None:
    before, count = stack.query(STATE), len(stack.questions)
    assert statuses(stack.send(attack)) == answer
    assert stack.query(STATE) == before
    assert not before["instance"]["autoMaterializePaused"]
    assert len(stack.questions) == count


def test_without_the_proxy_the_attack_succeeds(stack: Stack) -> None:
    for attack in (get(), ask(target=CHANGE_BY_GET, Content_Type="text/plain"), ask(Origin=EVIL)):
        assert statuses(stack.send(attack, stack.web)) == "200"
        assert stack.take_back()


def test_who_has_the_password_changes_what_he_wants(stack: Stack) -> None:
    for request in (
        ask(), ask(Connection="close, Upgrade, HTTP2-Settings", Upgrade="h2c", **H2C), send_chunks(),
        ask(Content_Type="application/json; charset=utf-8"), ask(Content_Type="application/json;charset=UTF-8"),
        ask(target="/graphql?op=Pause", Origin=OWN, Sec_Fetch_Site="same-origin"), ask(target=f"{OWN}/graphql"),
        ask(Host="127.0.0.1:8080", Origin="http://127.0.0.1:8080"), ask(Host="[::1]:8080", Origin="http://[::1]:8080"),
    ):  # fmt: skip
        assert statuses(stack.send(request)) == "200"
        assert stack.take_back(), request


def subscribe(ws: ClientConnection) -> Any:
    """Return the first answer to a subscription."""
    query = 'subscription { pipelineRunLogs(runId: "none") { __typename } }'
    ws.send(json.dumps({"type": "connection_init"}))
    ws.send(json.dumps({"type": "start", "id": "1", "payload": {"query": query}}))
    acknowledgement, answer = (json.loads(ws.recv(timeout=PATIENCE)) for _ in range(2))
    assert acknowledgement == {"type": "connection_ack"}
    return answer["payload"]


def measure_patience(stack: Stack, beginning: bytes, drop: bytes) -> float:
    """Return the seconds after which the proxy hangs up on who begins so, and goes on with a drop twice a second."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", stack.proxy), timeout=0.5) as connection, suppress(ConnectionError):
        connection.sendall(beginning)
        while time.monotonic() - start < PATIENCE:
            try:
                if not connection.recv(65536):
                    break
            except TimeoutError:
                connection.sendall(drop)
    return time.monotonic() - start


def test_who_sends_slowly_is_hung_up_on_and_a_websocket_is_not(stack: Stack) -> None:
    slow = {
        "nothing": (b"", b""),
        "headers": (ask()[:60], b"x"),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
        "body": (ask()[:-60], b" "),
        "body in chunks": (send_chunks()[:-60], b""),
        "body without a password": (ask(Authorization=None)[:-60], b" "),
    }
    with stack.open_socket() as ws:
        assert subscribe(ws) == {"data": {"pipelineRunLogs": {"__typename": "PipelineRunLogsSubscriptionFailure"}}}
    with stack.open_socket() as ws, ThreadPoolExecutor(len(slow)) as pool:
        seconds = dict(zip(slow, pool.map(lambda parts: measure_patience(stack, *parts), slow.values()), strict=True))
        assert max(seconds.values()) < PATIENCE, seconds
        assert min(seconds["body"], seconds["body in chunks"]) > 8, seconds  # longer than the websocket may be silent
        assert "data" in subscribe(ws)
    assert not stack.take_back()


HTML = "text/html; charset=utf-8"
TITLE = '<title data-next-head="">Dagster</title>'


def test_every_page_is_the_ui_and_a_link_from_elsewhere_leads_to_it(stack: Stack) -> None:
    headers = {name.replace("_", "-"): value for name, value in click_link().items()}
    for path in ("/", "/assets/raw_data?view=lineage", "/locations/bcw_assets/jobs/refresh_job", "/a%20b/%2F/ä"):
        page = stack.get(path, **headers)
        assert (page.status_code, page.headers["Content-Type"]) == (200, HTML)
        assert TITLE in page.text


def test_files_logs_and_records_come_through(stack: Stack) -> None:
    files = re.findall(r'(?:src|href)="(/[^"]+)"', stack.get("/").text)
    assert len(files) > 8
    for file in files:
        answer = stack.get(file)
        assert (answer.status_code, answer.headers["Content-Type"] == HTML) == (200, False), file
        if file.endswith(".js") and len(answer.content) > 1000:
            assert answer.headers["Content-Encoding"] == "gzip", file
    assert stack.get(f"/logs/{RUN}/compute_logs/step/out").text == "a line of a step"
    assert RUN.encode() in gzip.decompress(stack.get(f"/download_debug/{RUN}").content)


def test_what_the_ui_does_not_need_is_a_page_of_it(stack: Stack) -> None:
    for path in (
        *("/server_info", "/dagit_info", "/notebook?path=x.ipynb&repoLocName=bcw_assets", "/dagit/notebook"),
        *("/csp-header.txt", "/vendor/graphiql/graphiql.min.css", "/_next/static/../../csp-header.txt"),
        *("/_next/static/..%2f..%2fcsp-header.txt", "/logs/../../dagster.yaml", f"/download_debug/{RUN}/x"),
        *(f"/logs/{RUN}/compute_logs/../compute_logs/step/out", f"/logs/{RUN}/compute_logs/step%2Fout"),
    ):
        answer = stack.send(get(path))
        assert (statuses(answer), TITLE.encode() in answer) == ("200", True), path


def test_prometheus_is_asked_without_the_password_and_learns_who_asks(stack: Stack) -> None:
    spoofed = {"X_Forwarded_For": "192.0.2.1", "X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "https"}
    for method, path in (("GET", "/prometheus/"), ("POST", "/prometheus/api/v1/query?x=1")):
        assert stack.send(ask(method, path, "", **spoofed)).endswith(b"prometheus")
        question = stack.questions[-1]
        assert question["path"] == path
        assert "Authorization" not in question
        assert [question[name.replace("_", "-")] for name in spoofed] == ["127.0.0.1", "localhost", "http"]


def test_pages_are_kept_from_others_and_a_refusal_says_what_is_allowed(stack: Stack) -> None:
    for attack, text in {
        ask(Authorization=None): "user name and the password of BCW_USER and BCW_PASSWORD_HASH are needed",
        ask(also=f"Authorization: {WRONG}"): "Only one Authorization header is allowed",
        ask(Origin="null"): "Only pages of http://localhost may ask this",
        ask(Host="evil.example"): "localhost and 127.0.0.1 only; from another machine, use a tunnel or set BCW_SITE.",
        get(): "Only POST with application/json to /graphql, and its websocket, are allowed.",
        ask(target="/runs"): "Only GET and HEAD are allowed here; what changes something is POST to /graphql.",
        ask(body=JSON + MEGABYTE): "At most 1 MB is allowed.",
    }.items():
        head, _, advice = stack.send(attack).decode().partition("\r\n\r\n")
        assert text in advice
        assert_safe(head)
    page = stack.send(get("/")).decode("latin-1").partition("\r\n\r\n")[0]
    assert_safe(page)
    assert re.search(r"script-src 'nonce-\w+'", page)  # Dagster's own


def assert_safe(head: str) -> None:
    for line in (
        *("frame-ancestors 'none'", "form-action 'self'", "X-Content-Type-Options: nosniff", "X-Frame-Options: DENY"),
        *("Referrer-Policy: same-origin", "Cross-Origin-Opener-Policy: same-origin"),
        "Cross-Origin-Resource-Policy: same-origin",
    ):
        assert head.count(line) == 1, line
    assert not re.search("^(Server|Via|Strict-Transport-Security|Access-Control)", head, re.MULTILINE)


def test_the_log_says_what_was_asked_and_no_secret(stack: Stack, password_hash: str) -> None:
    stack.send(get(f"/logged?{PASSWORD}"))
    stack.send(get(f"http://{USER}:{PASSWORD}@localhost/refused", Authorization=WRONG, Cookie="secret-cookie"))
    log = stack.log.read_text()
    assert re.search(r'"uri":"/logged".*"user_id":"bcw".*"status":200', log)
    assert re.search(r'"uri":"/refused".*"status":401', log)
    for secret in (PASSWORD, RIGHT.split()[1], WRONG.split()[1], password_hash, "secret-cookie"):
        assert secret not in log


def test_the_health_check_sees_the_proxy_alone(stack: Stack) -> None:
    assert ask_health(stack.proxy).text == "ok"
    assert stack.send(ask(Host="health", Authorization=None)).endswith(b"\r\n\r\nok")
    assert not stack.take_back()


def test_a_site_has_a_certificate_and_serves_its_own_name_and_origin_alone(password_hash: str, tmp_path: Path) -> None:
    http, https, nothing = find_ports(3)
    root, site = str(tmp_path / "caddy/pki/authorities/local/root.crt"), f"https://localhost:{https}"

    def get_page(**headers: str) -> requests.Response:
        login, timeout = (USER, PASSWORD), PATIENCE
        return requests.get(f"{site}/prometheus/", auth=login, headers=headers, verify=root, timeout=timeout)

    own = {
        "BCW_SITE": "localhost",
        "BCW_PASSWORD_HASH": password_hash,
        "HTTP_PORT": str(http),
        "HTTPS_PORT": str(https),
    }
    own |= {"WEBSERVER": f"127.0.0.1:{nothing}", "PROMETHEUS": f"127.0.0.1:{nothing}"}
    with run_proxy(tmp_path, get_page, **own):
        answer = requests.get(f"http://localhost:{http}/runs?x=1", allow_redirects=False, timeout=PATIENCE)
        assert (answer.status_code, answer.headers["Location"]) == (308, "https://localhost/runs?x=1")
        assert get_page().headers["Strict-Transport-Security"] == "max-age=31536000"
        answer = get_page(Origin=site)
        assert answer.status_code == 502  # let through
        assert "Nothing answers behind this path; see docker compose ps." in answer.text
        assert get_page(Origin=site.replace("https", "http")).status_code == 403
        assert get_page(Host="evil.example", Origin="https://evil.example").status_code == 421
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"https://127.0.0.1:{https}/", verify=root, timeout=PATIENCE)


def test_the_file_means_automatic_https_for_a_public_name_and_else_the_door_of_the_stack(password_hash: str) -> None:
    def adapt(**own: str) -> Any:
        return json.loads(caddy("adapt", *OWN_FILE, BCW_PASSWORD_HASH=password_hash, **own).stdout)

    apps = adapt(BCW_SITE="bcw.example.org")["apps"]
    public = next(server for server in apps["http"]["servers"].values() if server["listen"] == ["0.0.0.0:8443"])
    assert public["routes"][0]["match"] == [{"host": ["bcw.example.org"]}]
    assert "automatic_https" not in public  # nothing of it is switched off
    assert "tls" not in apps  # nor another issuer chosen
    config = adapt()
    assert config["admin"] == {"disabled": True, "config": {"persist": False}}
    assert [server["listen"] for server in config["apps"]["http"]["servers"].values()] == [["0.0.0.0:8080"]]
    text = json.dumps(config)
    assert set(re.findall(r'"dial": "([^"]+)"', text)) == {"webserver:3000", "prometheus:9090"}
    assert '"hash_cache": {}' in text  # a password is hashed once, and remembered


def test_the_file_needs_the_hash_of_a_password_and_is_as_caddy_formats_it() -> None:
    for own in ({}, {"BCW_PASSWORD_HASH": ""}, {"BCW_PASSWORD_HASH": "secret"}):
        assert caddy("validate", *OWN_FILE, **own).returncode != 0
    assert caddy("fmt", CADDYFILE).stdout == CADDYFILE.read_text()
