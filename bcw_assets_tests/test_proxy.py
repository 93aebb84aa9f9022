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
from collections.abc import Callable, Iterator
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
Command = list[str | Path]
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


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


RIGHT = basic(USER, PASSWORD)
WRONG = basic(USER, "x" * 32)


@dataclass
class Stack:
    """Where the proxy and the web server behind it are, what Prometheus was asked, and what the proxy has logged."""

    proxy: int
    web: int
    asked: list[dict[str, str]]
    log: Path

    @property
    def url(self) -> str:
        return f"http://localhost:{self.proxy}"

    def ask(self, query: str) -> Any:
        """Return what the web server itself answers."""
        answer = requests.post(f"http://127.0.0.1:{self.web}/graphql", json={"query": query}, timeout=PATIENCE).json()
        assert "errors" not in answer
        return answer["data"]

    def is_paused(self) -> bool:
        """Return whether the change was made that attacks try."""
        return bool(self.ask(STATE)["instance"]["autoMaterializePaused"])

    def send(self, request: bytes) -> bytes:
        """Send bytes to the proxy, and return all that it answers until it hangs up."""
        with socket.create_connection(("127.0.0.1", self.proxy), timeout=PATIENCE) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may refuse before all is sent
                connection.sendall(request)
            return b"".join(receive(connection))

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, auth=(USER, PASSWORD), headers=headers, timeout=PATIENCE)

    def socket(self) -> ClientConnection:
        """Open a websocket, as the UI does."""
        address, origin, password = f"ws://localhost:{self.proxy}/graphql", Origin(self.url), {"Authorization": RIGHT}
        protocols = [Subprotocol("graphql-ws")]
        return connect(address, origin=origin, additional_headers=password, subprotocols=protocols, proxy=None)


def receive(connection: socket.socket) -> Iterator[bytes]:
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            yield part


def statuses(answer: bytes) -> list[int]:
    return [int(code) for code in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        return [free.getsockname()[1] for free in sockets]


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of this process without what project or proxy would read, and with the changes."""
    read = set(re.findall(r"\{\$(\w+)", CADDYFILE.read_text()))
    kept = {name: value for name, value in os.environ.items() if name not in read}
    return {name: value for name, value in kept.items() if not name.startswith(("BCW_", "DAGSTER_"))} | changes


@contextmanager
def run_server(
    command: Command, log: Path, own: dict[str, str], alive: Callable[[], requests.Response]
) -> Iterator[None]:
    """Run a server, from its first good answer to the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=own, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + PATIENCE
        while not is_answered(alive):
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.05)
        yield
    finally:
        with suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_answered(alive: Callable[[], requests.Response]) -> bool:
    try:
        return alive().ok
    except OSError:  # whatever requests raises, too
        return False


def caddy(*command: str, **own: str) -> subprocess.CompletedProcess[str]:
    """Let Caddy read its file, and return what it says of it."""
    return subprocess.run(
        [BIN / "caddy", *command, "--config", CADDYFILE, "--adapter", "caddyfile"],
        env=environment(**own), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


@contextmanager
def run_proxy(folder: Path, alive: Callable[[], requests.Response], **own: str) -> Iterator[Path]:
    """Run the proxy on loopback, with its certificates in the folder, and return its log."""
    homes = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "BIND": "127.0.0.1"}
    command: Command = [BIN / "caddy", "run", "--config", CADDYFILE, "--adapter", "caddyfile"]
    with run_server(command, folder / "log", environment(**homes, **own), alive):
        yield folder / "log"


def health(port: int) -> Callable[[], requests.Response]:
    return lambda: requests.get(f"http://127.0.0.1:{port}", headers={"Host": "health"}, timeout=5)


@pytest.fixture(scope="module")
def password_hash() -> str:
    return subprocess.run(
        [BIN / "caddy", "hash-password", "--algorithm", "bcrypt", "--bcrypt-cost", "10"],
        input=f"{PASSWORD}\n", capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


@pytest.fixture(scope="module")
def stack(password_hash: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    asked: list[dict[str, str]] = []

    def prometheus(handler: BaseHTTPRequestHandler) -> None:
        asked.append({"path": handler.path} | dict(handler.headers.items()))
        loopback.body(b"prometheus")(handler)

    folder = tmp_path_factory.mktemp("webserver")
    own = environment(DAGSTER_HOME=str(home_with_a_run(folder / "home")), BCW_STORAGE=str(folder))
    http, https, web = free_ports(3)
    command: Command = [BIN / "dagster-webserver", "-m", "bcw_assets", "-h", "127.0.0.1", "-p", str(web)]
    address = f"http://127.0.0.1:{web}"
    with (
        run_server(command, folder / "log", own, lambda: requests.get(f"{address}/server_info", timeout=5)),
        loopback.serve(prometheus) as metrics,
        run_proxy(
            tmp_path_factory.mktemp("proxy"), health(http), BCW_PASSWORD_HASH=password_hash, HTTP_PORT=str(http),
            HTTPS_PORT=str(https), WEBSERVER=f"127.0.0.1:{web}", PROMETHEUS=metrics.url.removeprefix("http://"),
        ) as log,
    ):  # fmt: skip
        stack = Stack(http, web, asked, log)
        stack.ask(UNDO)
        yield stack


@dg.job(config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}})
def empty_job() -> None:
    """Do nothing."""


def home_with_a_run(home: Path) -> Path:
    """Make a history with one run in it, which has written a line to its stdout."""
    home.mkdir()
    shutil.copy(CHECKOUT / ".dagster" / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert empty_job.execute_in_process(instance=instance, run_id=RUN).success
    logs = home / "storage" / RUN / "compute_logs"
    logs.mkdir(parents=True, exist_ok=True)
    (logs / "step.out").write_text("a line of a step")
    return home


JSON = json.dumps({"query": CHANGE})
NOTHING = json.dumps({"query": "{ version }"})
ASKED = f"/graphql?query={quote(CHANGE)}"
Attack = tuple[bytes, list[int]]


def request(method: str = "POST", target: str = "/graphql", body: str = JSON, also: str = "", **headers: Any) -> bytes:
    """Return a request that would be obeyed as it is, with some of it replaced, or left out where a header is None."""
    usual: dict[str, Any] = {
        "Host": "localhost",
        "Authorization": RIGHT,
        "Content_Type": "application/json",
        "Content_Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in (usual | headers).items() if value is not None]
    return "\r\n".join([f"{method} {target} HTTP/1.1", *lines, *filter(None, [also]), "", body]).encode("latin-1")


def get(target: str = ASKED, **headers: Any) -> bytes:
    """Return a GET that Dagster would obey."""
    return request("GET", target, "", **{"Content_Type": None, "Content_Length": None, **headers})


def upgrade(target: str = "/graphql", **headers: Any) -> bytes:
    """Return what opens a websocket."""
    usual: dict[str, Any] = {
        "Connection": "close, Upgrade",
        "Upgrade": "websocket",
        "Origin": "http://localhost",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec_WebSocket_Protocol": "graphql-ws",
    }
    return get(target, **{**usual, **headers})


def in_chunks(body: str = JSON, coding: str = "chunked", **headers: Any) -> bytes:
    """Return a request whose body is in chunks."""
    return request(body=chunks(body), **{"Content_Length": None, "Transfer_Encoding": coding, **headers})


def chunks(body: str) -> str:
    return f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"


def link(**headers: str) -> dict[str, str]:
    """Return what a browser says of a link of another site that was clicked."""
    return {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"} | headers


# What is sent, and the statuses that answer it.
PASSWORDS: dict[str, Attack] = {
    "none": (request(Authorization=None), [401]),
    "an empty header": (request(Authorization=""), [401]),
    "wrong": (request(Authorization=WRONG), [401]),
    "empty": (request(Authorization=basic(USER, "")), [401]),
    "of an unknown user": (request(Authorization=basic("admin", PASSWORD)), [401]),
    "of the user in capitals": (request(Authorization=basic(USER.upper(), PASSWORD)), [401]),
    "by another scheme": (request(Authorization=RIGHT.replace("Basic", "Bearer")), [401]),
    "not in base64": (request(Authorization=f"Basic {USER}:{PASSWORD}"), [401]),
    "in the address": (request(target=f"http://{USER}:{PASSWORD}@localhost/graphql", Authorization=None), [401]),
    "in the query": (request(target=f"/graphql?Authorization={quote(RIGHT)}", Authorization=None), [401]),
    "for a proxy": (request(Authorization=None, Proxy_Authorization=RIGHT), [401]),
    "wrong, then right": (request(Authorization=WRONG, also=f"Authorization: {RIGHT}"), [400]),
    "right, then wrong": (request(also=f"Authorization: {WRONG}"), [400]),
    "Connection: Authorization": (request(Authorization=None, Connection="close, Authorization"), [401]),
    "X-Forwarded-For": (request(Authorization=None, X_Forwarded_For="127.0.0.1", X_Real_IP="127.0.0.1"), [401]),
    "X-Forwarded-User": (request(Authorization=None, X_Forwarded_User=USER, Remote_User=USER), [401]),
    "none, by GET": (get(Authorization=None), [401]),
    "none, a page": (get("/", Authorization=None), [401]),
    "none, a file of the UI": (get("/favicon.svg", Authorization=None), [401]),
    "none, the web server's health": (get("/server_info", Authorization=None), [401]),
    "none, the log of a step": (get(f"/logs/{RUN}/compute_logs/step/out", Authorization=None), [401]),
    "none, Prometheus": (get("/prometheus/", Authorization=None), [401]),
}
METHODS: dict[str, Attack] = {
    "GET": (get(), [405]),
    "GET with a body": (request("GET"), [405]),
    "GraphiQL": (get("/graphql", Accept="text/html"), [405]),
    "X-HTTP-Method-Override": (get(X_HTTP_Method_Override="POST", Content_Type="application/json"), [405]),
    "_method": (get(f"{ASKED}&_method=POST", Content_Type="application/json"), [405]),
    "X-Original-URL": (request(target="/runs", X_Original_URL="/graphql", X_Rewrite_URL="/graphql"), [405]),
    "two at once": (request("GET,POST", ASKED), [400]),
}
for name in ("HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "post", "QUERY"):
    METHODS[name] = (request(name, ASKED), [405])
TYPES: dict[str, Attack] = {
    "none": (request(target=ASKED, Content_Type=None), [405]),
    "text, then JSON": (request(Content_Type="text/plain", also="Content-Type: application/json"), [405]),
    "JSON, then text": (request(also="Content-Type: text/plain"), [405]),
    "taken away on the way": (request(target=ASKED, body=NOTHING, Connection="close, Content-Type"), [400]),
    "JSON, and the change in the query": (request(target=ASKED, body=NOTHING), [200]),
    "JSON, and only a query": (request(target=ASKED, body="{}"), [400]),
}
for name in (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/graphql",
    "text/plain; application/json",
    "text/plain, application/json",
    "application/json, text/plain",
    "application/json; charset=utf-7",
    "application/jsonp",
    "Application/JSON",
    "",
):
    TYPES[name] = (request(target=ASKED, Content_Type=name), [405])
EVIL = "http://evil.example"
ORIGINS: dict[str, Attack] = {
    "foreign, then its own": (request(Origin=EVIL, also="Origin: http://localhost"), [403]),
    "its own, then foreign": (request(Origin="http://localhost", also=f"Origin: {EVIL}"), [403]),
    "Connection: Origin": (request(Origin=EVIL, Connection="close, Origin"), [403]),
    "X-Forwarded-Host": (request(Origin=EVIL, X_Forwarded_Host="evil.example", Forwarded="host=evil.example"), [403]),
    "X-Forwarded-Proto": (request(Origin="https://localhost", X_Forwarded_Proto="https"), [403]),
    "a foreign form": (request(Origin=EVIL, Content_Type="application/x-www-form-urlencoded"), [403]),
    "a foreign preflight": (request("OPTIONS", Origin=EVIL, Access_Control_Request_Method="POST"), [403]),
    "a foreign page reads a page": (get("/", Origin=EVIL), [403]),
    "a foreign link to a change": (get(**link(Origin=EVIL)), [403]),
}
for name in (
    EVIL,
    "null",
    "https://localhost",
    "http://localhost:3000",
    "http://127.0.0.1",
    "http://localhost.evil.example",
    "http://evil.example/http://localhost",
    "http://localhost@evil.example",
    "http://localhost, http://evil.example",
    "http://localhost/",
    "http://*",
    "*",
    "localhost",
):
    ORIGINS[name] = (request(Origin=name), [403])
FETCHES: dict[str, Attack] = {
    "across sites": (request(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="no-cors"), [403]),
    "from the same site": (request(Sec_Fetch_Site="same-site"), [403]),
    "from what nobody knows": (request(Sec_Fetch_Site="own"), [403]),
    "from two sites": (request(Sec_Fetch_Site="same-origin", also="Sec-Fetch-Site: cross-site"), [403]),
    "a form": (request(**link()), [403]),
    "an image": (get(**link(Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="image")), [403]),
    "a script": (get("/_next/static/x.js", **link(Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest="script")), [403]),
    "a frame": (get("/", **link(Sec_Fetch_Dest="iframe")), [403]),
    "a link to a change": (get(**link()), [405]),
}
PATHS: dict[str, Attack] = {
    "GET, its name encoded": (get(ASKED.replace("/g", "/%67")), [405]),
    "POST, encoded twice": (request(target="/%2567raphql"), [405]),
    "GET, encoded twice": (get(ASKED.replace("/g", "/%2567")), [200]),  # a page, as the next
    "POST, in overlong UTF-8": (request(target="/%c1%a7raphql"), [405]),
    "GET, in overlong UTF-8": (get(ASKED.replace("/g", "/%c1%a7")), [200]),
    "no encoding": (request(target="/%zzgraphql"), [400]),
    "a space": (request(target="/graphql /x"), [400]),
    "no slash": (request(target="graphql"), [400]),
    "*": (request(target="*"), [405]),
}
for name in (
    *("//graphql", "///graphql", "/graphql/", "/graphql//", "/./graphql", "/graphql/.", "/x/../graphql"),
    *("/x/..//graphql", "/%67raphql", "/graphq%6C", "/%67%72%61%70%68%71%6c", "/%2fgraphql", "/graphql%2f"),
    *("/x/%2e%2e/graphql", "/x%2f..%2fgraphql", "/%2e/graphql", "/GraphQL", "/GRAPHQL", "/%47raphql"),
    *("/graphql;x=1", "/;x/graphql", "/graphql%3b", "/\\graphql", "/%5cgraphql", "/x\\..\\graphql", "/graphql\\"),
    *("/graphql%00", "/graphql%20", "/graphql.", "/graphql%3f", "/graphql%23", "/graphql#x", "/graphql&x"),
    *("/graphql%0d%0a", "/graphql%09", "/_next/static/../../graphql", "/logs/../graphql"),
    *("/prometheus/../graphql", "/prometheus/..%2fgraphql", "http://localhost//graphql"),
):
    PATHS[f"POST {name}"] = (request(target=name), [405])
    PATHS[f"GET {name}"] = (get(f"{name}?query={quote(CHANGE)}"), [405])
HOSTS: dict[str, Attack] = {
    "foreign, as its Origin": (request(Host="evil.example", Origin=EVIL), [421]),
    "foreign, in the target": (request(target=f"{EVIL}/graphql"), [421]),
    "foreign, then its own": (request(Host="evil.example", also="Host: localhost"), [400]),
    "its own, then foreign": (request(also="Host: evil.example"), [400]),
    "none": (request(Host=None), [400]),
    "X-Forwarded-Host": (request(Host="evil.example", X_Forwarded_Host="localhost"), [421]),
}
for name in (
    *("evil.example", "evil.example:80", "localhost.evil.example", "webserver:3000", "0.0.0.0"),
    *("127.1", "localhost.", "*"),
):
    HOSTS[name] = (request(Host=name), [421])
for name in ("", "localhost/", "evil@localhost", "localhost evil"):
    HOSTS[name] = (request(Host=name), [400])
OPEN = "keep-alive"
INSIDE = request(Authorization=None).decode()  # a request in the body of another
FRAMES: dict[str, Attack] = {
    "CL.TE without a password": (
        request(body=f"0\r\n\r\n{INSIDE}", Connection=OPEN, Authorization=None, Transfer_Encoding="chunked"),
        [401, 401],
    ),
    "CL.TE": (request(body=chunks(NOTHING) + INSIDE, Connection=OPEN, Transfer_Encoding="chunked"), [200, 401]),
    "TE.CL": (in_chunks(INSIDE, Content_Length="4"), [400]),
    "CL.0": (request("GET", "/favicon.svg", INSIDE), [200]),
    "TE.0": (request("GET", "/favicon.svg", chunks(INSIDE), Content_Length=None, Transfer_Encoding="chunked"), [200]),
    "a pipeline": (get("/favicon.svg", Connection=OPEN) + INSIDE.encode(), [200, 401]),
    "two lengths": (request(also="Content-Length: 0"), [400]),
    "two lengths in one": (request(Content_Length=f"0, {len(JSON)}"), [400]),
    "a length with a plus": (request(Content_Length=f"+{len(JSON)}"), [400]),
    "a negative length": (request(Content_Length="-1"), [400]),
    "a length in hexadecimal": (request(Content_Length=f"0x{len(JSON):x}"), [400]),
    "a length with a space": (request(Content_Length=None, also=f"Content-Length : {len(JSON)}"), [400]),
    "chunks with a space": (request(body=chunks(JSON), also="Transfer-Encoding : chunked"), [400]),
    "chunks of two codings": (in_chunks(coding="identity", also="Transfer-Encoding: chunked"), [501]),
    "a carriage return": (request(also="X: a\rAuthorization: b"), [400]),
    "a zero byte": (request(also="X: a\0b"), [400]),
    "no name": (request(also=": a"), [400]),
    "a name with a space": (request(Authorization=None, also=f"Authorization : {RIGHT}"), [400]),
    "a folded header": (request(Authorization=None, also=f"X: a\r\n Authorization: {RIGHT}"), [401]),
    "HTTP/0.9": (b"POST /graphql\r\n\r\n" + JSON.encode(), [400]),
    "HTTP/2 without TLS": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), []),
}
for name in ("xchunked", "chunked, identity", "identity, chunked", "gzip, chunked", '"chunked"'):
    FRAMES[f"Transfer-Encoding: {name}"] = (in_chunks(coding=name), [501])
MEGABYTE = " " * 1_000_000
SIZES: dict[str, Attack] = {
    "a body": (request(body=JSON + MEGABYTE), [413]),
    "a body in chunks": (in_chunks(JSON + MEGABYTE), [413]),
    "a body that is said to be endless": (request(body=JSON + MEGABYTE, Content_Length=str(10**18)), [413]),
    "a header": (request(also=f"X: {'x' * 30_000}"), [431]),
    "many headers": (request(also="\r\n".join(f"X-{number}: x" for number in range(3000))), [431]),
    "a target": (request(target=f"/graphql?{'x' * 30_000}"), [431]),
}
SOCKETS: dict[str, Attack] = {
    "no password": (upgrade(Authorization=None), [401]),
    "a wrong password": (upgrade(Authorization=WRONG), [401]),
    "a foreign page": (upgrade(Origin=EVIL), [403]),
    "Origin: null": (upgrade(Origin="null"), [403]),
    "across sites": (upgrade(Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="websocket"), [403]),
    "a foreign host": (upgrade(Host="evil.example", Origin=EVIL), [421]),
    "a change in the query": (upgrade(ASKED), [405]),
    "a tricky path": (upgrade("//graphql"), [405]),
    "by POST": (request(Connection="close, Upgrade", Upgrade="websocket", Content_Type="text/plain"), [405]),
    "none in truth": (get("/graphql", Upgrade="websocket"), [400]),
    "GraphiQL": (get("/graphql", Upgrade="websocket", Accept="text/html"), [400]),
    "h2c": (upgrade(Upgrade="h2c", HTTP2_Settings="AAMAAABkAAQAAP__"), [405]),
    "two protocols": (upgrade(Upgrade="websocket, h2c"), [405]),
    "elsewhere": (upgrade("/"), [200]),  # a page
}
REPORTS: dict[str, Attack] = {
    f"{method} {path}": (request(method, path, json.dumps({"check_name": "content", "passed": True})), [405])
    for method in ("POST", "PUT")
    for path in (
        *("/", "/runs", f"/download_debug/{RUN}", "/report_asset_check/raw_data"),
        *("/report_asset_materialization/raw_data", "/report_asset_observation/raw_data"),
        *("/%72eport_asset_materialization/raw_data", "//report_asset_materialization/raw_data"),
        *("/prometheus/-/quit", "/prometheus/-/reload", "/prometheus/api/v1/write"),
        *("/prometheus/api/v1/admin/tsdb/delete_series", "/prometheus/api/v1/query/../admin/tsdb/snapshot"),
    )
}
ATTACKS = {
    "password": PASSWORDS,
    "method": METHODS,
    "type": TYPES,
    "origin": ORIGINS,
    "fetch": FETCHES,
    "path": PATHS,
    "host": HOSTS,
    "frame": FRAMES,
    "too long": SIZES,
    "websocket": SOCKETS,
    "report": REPORTS,
}


@pytest.mark.parametrize("kind", ATTACKS)
def test_an_attack_of_each_class_is_refused_and_changes_nothing(stack: Stack, kind: str) -> None:
    assert_refused(stack, next(iter(ATTACKS[kind].values())))


@pytest.mark.sweep
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, attacks in ATTACKS.items() for name in attacks])
def test_every_attack_is_refused_and_changes_nothing(stack: Stack, kind: str, name: str) -> None:
    assert_refused(stack, ATTACKS[kind][name])


def assert_refused(stack: Stack, attack: Attack) -> None:
    before, asked = stack.ask(STATE), len(stack.asked)
    assert statuses(stack.send(attack[0])) == attack[1]
    assert stack.ask(STATE) == before
    assert not before["instance"]["autoMaterializePaused"]
    assert len(stack.asked) == asked


@pytest.mark.parametrize("attack", [METHODS["GET"], TYPES["text/plain"], ORIGINS[EVIL]], ids=["GET", "text", "origin"])
def test_without_the_proxy_the_attack_succeeds(stack: Stack, attack: Attack) -> None:
    unprotected = Stack(stack.web, stack.web, [], stack.log)
    try:
        assert statuses(unprotected.send(attack[0])) == [200]
        assert stack.is_paused()
    finally:
        stack.ask(UNDO)


WANTED = {
    "curl": request(),
    "curl --http2": request(
        Connection="close, Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABkAAQAAP__"
    ),
    "chunks": in_chunks(),
    "charset": request(Content_Type="application/json; charset=utf-8"),
    "CHARSET": request(Content_Type="application/json;charset=UTF-8"),
    "the UI": request(target="/graphql?op=Pause", Origin="http://localhost", Sec_Fetch_Site="same-origin"),
    "the UI at an address": request(Host="127.0.0.1:8080", Origin="http://127.0.0.1:8080"),
    "the UI at an address of IPv6": request(Host="[::1]:8080", Origin="http://[::1]:8080"),
    "a whole address": request(target="http://localhost/graphql"),
}


@pytest.mark.parametrize("name", WANTED)
def test_who_has_the_password_changes_what_he_wants(stack: Stack, name: str) -> None:
    try:
        assert statuses(stack.send(WANTED[name])) == [200]
        assert stack.is_paused()
    finally:
        stack.ask(UNDO)


def subscribe(ws: ClientConnection) -> Any:
    """Return the first answer to a subscription."""
    query = 'subscription { pipelineRunLogs(runId: "none") { __typename } }'
    ws.send(json.dumps({"type": "connection_init"}))
    ws.send(json.dumps({"type": "start", "id": "1", "payload": {"query": query}}))
    acknowledgement, answer = (json.loads(ws.recv(timeout=PATIENCE)) for _ in range(2))
    assert acknowledgement == {"type": "connection_ack"}
    return answer["payload"]


def test_the_websocket_of_the_ui_is_told_what_it_subscribes_to(stack: Stack) -> None:
    with stack.socket() as ws:
        assert subscribe(ws) == {"data": {"pipelineRunLogs": {"__typename": "PipelineRunLogsSubscriptionFailure"}}}


def measure_patience(stack: Stack, begun: bytes, dripping: bytes) -> float:
    """Return the seconds after which the proxy hangs up on who begins so, and goes on with a byte twice a second."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", stack.proxy), timeout=0.5) as connection, suppress(ConnectionError):
        connection.sendall(begun)
        while time.monotonic() - start < PATIENCE:
            try:
                if not connection.recv(65536):
                    break
            except TimeoutError:
                connection.sendall(dripping)
    return time.monotonic() - start


def test_who_sends_slowly_is_hung_up_on_and_a_websocket_is_not(stack: Stack) -> None:
    whole = request()
    slow = {
        "nothing": (b"", b""),
        "headers": (whole[:60], b"x"),
        "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""),
        "body": (whole[:-60], b" "),
        "body in chunks": (in_chunks()[:-60], b""),
        "body without a password": (request(Authorization=None)[:-60], b" "),
    }
    with stack.socket() as ws, ThreadPoolExecutor(len(slow)) as pool:
        seconds = dict(zip(slow, pool.map(lambda parts: measure_patience(stack, *parts), slow.values()), strict=True))
        assert max(seconds.values()) < PATIENCE, seconds
        assert min(seconds["body"], seconds["body in chunks"]) > 8, seconds  # longer than the websocket may be silent
        assert "data" in subscribe(ws)
    assert not stack.is_paused()


HTML = "text/html; charset=utf-8"


def test_every_page_is_the_ui_and_a_link_from_elsewhere_leads_to_it(stack: Stack) -> None:
    for path in ("/", "/assets/raw_data?view=lineage", "/locations/bcw_assets/jobs/refresh_job", "/a%20b/%2F/ä"):
        page = stack.get(path, **{name.replace("_", "-"): value for name, value in link().items()})
        assert (page.status_code, page.headers["Content-Type"]) == (200, HTML)
        assert '<title data-next-head="">Dagster</title>' in page.text


def test_the_files_of_the_ui_come_through_and_compressed(stack: Stack) -> None:
    page = stack.get("/").text
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert len(files) > 8
    for file in files:
        answer = stack.get(file)
        assert (answer.status_code, answer.headers["Content-Type"] == HTML) == (200, False), file
        if file.endswith(".js") and len(answer.content) > 1000:
            assert answer.headers["Content-Encoding"] == "gzip", file


def test_the_log_of_a_step_and_the_record_of_a_run_can_be_downloaded(stack: Stack) -> None:
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
        assert statuses(answer) == [200], path
        assert b'<title data-next-head="">Dagster</title>' in answer, path


@pytest.mark.parametrize(("method", "path"), [("GET", "/prometheus/"), ("POST", "/prometheus/api/v1/query?x=1")])
def test_prometheus_is_asked_without_the_password_and_is_told_who_asks(stack: Stack, method: str, path: str) -> None:
    spoofed = {"X_Forwarded_For": "192.0.2.1", "X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "https"}
    assert stack.send(request(method, path, "", **spoofed)).endswith(b"prometheus")
    asked = stack.asked[-1]
    assert asked["path"] == path
    assert "Authorization" not in asked
    assert [asked[name.replace("_", "-")] for name in spoofed] == ["127.0.0.1", "localhost", "http"]


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (PASSWORDS["none"], "user name and the password of BCW_USER and BCW_PASSWORD_HASH are needed"),
        (PASSWORDS["right, then wrong"], "Only one Authorization header is allowed"),
        (ORIGINS["null"], "Only pages of http://localhost may ask this"),
        (HOSTS["evil.example"], "localhost and 127.0.0.1 only; from another machine, use a tunnel or set BCW_SITE."),
        (METHODS["GET"], "Only POST with application/json to /graphql, and its websocket, are allowed."),
        (REPORTS["POST /runs"], "Only GET and HEAD are allowed here; what changes something is POST to /graphql."),
        (SIZES["a body"], "At most 1 MB is allowed."),
    ],
)  # fmt: skip
def test_a_refusal_says_what_is_allowed_and_nothing_of_the_server(stack: Stack, attack: Attack, says: str) -> None:
    head, _, text = stack.send(attack[0]).decode().partition("\r\n\r\n")
    assert says in text
    assert_safe(head)


def test_a_page_has_the_headers_that_keep_it_from_others(stack: Stack) -> None:
    page = stack.get("/")
    assert_safe("\n".join(f"{name}: {value}" for name, value in page.headers.items()))
    assert re.search(r"script-src 'nonce-\w+'", page.headers["Content-Security-Policy"])  # Dagster's own


def assert_safe(head: str) -> None:
    for line in (
        "frame-ancestors 'none'",
        "form-action 'self'",
        "X-Content-Type-Options: nosniff",
        "X-Frame-Options: DENY",
        "Referrer-Policy: same-origin",
        "Cross-Origin-Opener-Policy: same-origin",
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
    assert health(stack.proxy)().text == "ok"
    answer = stack.send(request(Host="health", Authorization=None))
    assert answer.endswith(b"\r\n\r\nok")
    assert not stack.is_paused()


@dataclass
class Site:
    """The proxy with a certificate, by which its root is known, and without anything behind it."""

    http: int
    https: int
    root: Path

    def get(self, path: str = "/prometheus/", **headers: str) -> requests.Response:
        address, password = f"https://localhost:{self.https}{path}", (USER, PASSWORD)
        return requests.get(address, auth=password, headers=headers, verify=str(self.root), timeout=PATIENCE)


@pytest.fixture(scope="module")
def site(password_hash: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    http, https, nothing = free_ports(3)
    site = Site(http, https, folder / "caddy" / "pki" / "authorities" / "local" / "root.crt")
    closed = {"WEBSERVER": f"127.0.0.1:{nothing}", "PROMETHEUS": f"127.0.0.1:{nothing}"}
    ports = {"HTTP_PORT": str(http), "HTTPS_PORT": str(https)}
    own = {"BCW_SITE": "localhost", "BCW_PASSWORD_HASH": password_hash, "BCW_USER": USER}
    with run_proxy(folder, health(http), **own, **ports, **closed):
        deadline = time.monotonic() + PATIENCE
        while not is_answered(lambda: check_certificate(site)):
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        yield site


def check_certificate(site: Site) -> requests.Response:
    answer = site.get()
    answer.status_code = 200  # what it says does not matter, but that its certificate is good
    return answer


def test_a_site_gets_a_certificate_and_sends_everyone_to_https(site: Site) -> None:
    answer = requests.get(f"http://localhost:{site.http}/runs?x=1", allow_redirects=False, timeout=PATIENCE)
    assert (answer.status_code, answer.headers["Location"]) == (308, "https://localhost/runs?x=1")
    assert site.get().headers["Strict-Transport-Security"] == "max-age=31536000"


def test_a_site_serves_its_own_name_and_origin_alone(site: Site) -> None:
    own = f"localhost:{site.https}"
    assert site.get(Origin=f"https://{own}").status_code == 502  # let through
    assert site.get(Origin=f"http://{own}").status_code == 403
    assert site.get(Host="evil.example", Origin="https://evil.example").status_code == 421
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://127.0.0.1:{site.https}/", verify=str(site.root), timeout=PATIENCE)


def test_what_does_not_run_is_said(site: Site) -> None:
    answer = site.get("/prometheus/")
    assert answer.status_code == 502
    assert "Nothing answers behind this path; see docker compose ps." in answer.text


def test_a_public_name_means_automatic_https_for_it(password_hash: str) -> None:
    config = adapt(BCW_PASSWORD_HASH=password_hash, BCW_SITE="bcw.example.org")["apps"]
    public = next(server for server in config["http"]["servers"].values() if server["listen"] == ["0.0.0.0:8443"])
    assert public["routes"][0]["match"] == [{"host": ["bcw.example.org"]}]
    assert "automatic_https" not in public  # nothing of it is switched off
    assert "tls" not in config  # nor another issuer chosen


def test_without_settings_it_is_the_door_of_the_stack(password_hash: str) -> None:
    config = adapt(BCW_PASSWORD_HASH=password_hash)
    assert config["admin"] == {"disabled": True, "config": {"persist": False}}
    assert [server["listen"] for server in config["apps"]["http"]["servers"].values()] == [["0.0.0.0:8080"]]
    text = json.dumps(config)
    assert set(re.findall(r'"dial": "([^"]+)"', text)) == {"webserver:3000", "prometheus:9090"}
    assert '"hash_cache": {}' in text  # a password is hashed once, and remembered


def adapt(**own: str) -> Any:
    done = caddy("adapt", **own)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("own", [{}, {"BCW_PASSWORD_HASH": ""}, {"BCW_PASSWORD_HASH": "secret"}])
def test_without_the_hash_of_a_password_it_does_not_start(own: dict[str, str]) -> None:
    assert caddy("validate", **own).returncode != 0


def test_the_file_is_written_as_caddy_formats_it() -> None:
    done = subprocess.run([BIN / "caddy", "fmt", CADDYFILE], capture_output=True, text=True, check=False)
    assert done.stdout == CADDYFILE.read_text()
