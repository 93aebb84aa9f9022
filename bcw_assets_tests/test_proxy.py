"""The proxy of the stack, the real Caddy before the real web server: what is refused, and what still works.

Every attack of attacks.yaml is a legitimate change of Dagster's state with one thing wrong, sent byte by byte over a
socket, and counts as refused only if the web server, asked directly, then knows of no change. `make test` tries the
first of each class, `make test-all` all of them.
"""

import base64
import gzip
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from itertools import chain, product
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import dagster as dg
import pytest
import requests
import yaml
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from bcw_assets_tests import loopback
from bcw_assets_tests.conftest import BIN, CHECKOUT
from bcw_assets_tests.servers import PATIENCE, clean, find_ports, run_server

CADDYFILE = CHECKOUT / "deploy" / "proxy" / "Caddyfile"
OWN_FILE = ("--config", CADDYFILE, "--adapter", "caddyfile")
USER, PASSWORD = "bcw", "password-of-the-tests"
HASH = "$2a$10$pa4NvWc/FEDx6cxyFrFFDOE/V3K7hp83O9ST9B0LGgBCYA1fdQ1uS"  # caddy hash-password --bcrypt-cost 10
CHANGE = "mutation { setAutoMaterializePaused(paused: true) }"
UNDO = "mutation { setAutoMaterializePaused(paused: false) }"
JSON, NOTHING = json.dumps({"query": CHANGE}), json.dumps({"query": "{ version }"})
STATE = """{
  instance { autoMaterializePaused }
  assetOrError(assetKey: {path: ["raw_data"]}) {
    ... on Asset { assetMaterializations { timestamp } assetObservations { timestamp } } }
  assetCheckExecutions(assetKey: {path: ["raw_data"]}, checkName: "content", limit: 9) { id }
}"""
RUN = "0123abcd-0123-4abc-8def-0123456789ab"


def log_in(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


RIGHT, WRONG = log_in(USER, PASSWORD), log_in(USER, "x" * 32)


def ask(
    method: str = "POST", target: str = "/graphql", query: str = "", body: str = JSON, also: str = "", **headers: Any
) -> bytes:
    """Return a request that would be obeyed as it is, with some of it replaced, or left out where a header is None."""
    usual: dict[str, Any] = {
        "Host": "localhost", "Authorization": RIGHT, "Content-Type": "application/json",
        "Content-Length": str(len(body)), "Connection": "close",
    }  # fmt: skip
    values = usual | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}" for name, value in values.items() if value is not None]
    text = "\r\n".join([f"{method} {target}{query} HTTP/1.1", *lines, *filter(None, [also]), "", body])
    return text.encode("latin-1")


def cut_up(body: str) -> str:
    return f"{len(body):x}\r\n{body}\r\n0\r\n\r\n"


HIDDEN = ask(Authorization=None).decode()  # a request in the body of another
TOO_LONG = JSON + " " * 1_000_000
WORDS = {
    "right": RIGHT, "wrong": WRONG, "token": RIGHT.split()[1], "quoted": quote(RIGHT), "password": PASSWORD,
    "as_admin": log_in("admin", PASSWORD), "as_BCW": log_in(USER.upper(), PASSWORD), "run": RUN,
    "change": f"?query={quote(CHANGE)}", "json": JSON, "nothing": NOTHING, "hidden": HIDDEN,
    "too_long": TOO_LONG, "chunks": cut_up(JSON), "nothing_chunks": cut_up(NOTHING), "hidden_chunks": cut_up(HIDDEN),
    "too_long_chunks": cut_up(TOO_LONG), "long": "x" * 30_000,
    "many": "\r\n".join(f"X-{number}: x" for number in range(3000)),
}  # fmt: skip


def write_requests(attack: str | dict[str, Any]) -> Iterator[bytes]:
    """Return the requests that an entry of attacks.yaml stands for."""
    if isinstance(attack, str):
        yield Template(attack).substitute(WORDS).encode("latin-1")
        return
    for values in product(*(value if isinstance(value, list) else [value] for value in attack.values())):
        texts = (value and Template(value).substitute(WORDS) for value in values)
        yield ask(**dict(zip(attack, texts, strict=True)))


REQUESTS = yaml.safe_load((CHECKOUT / "bcw_assets_tests" / "attacks.yaml").read_text())
CASES = [
    pytest.param(answer, attack, id=f"{kind} {number}", marks=[pytest.mark.sweep] if number else [])
    for kind, answers in REQUESTS["attacks"].items()
    for number, (answer, attack) in enumerate(
        (answer, request) for answer in answers for attack in answers[answer] for request in write_requests(attack)
    )
]


@dataclass
class Stack:
    """The ports of the proxy and of the web server behind it, what Prometheus was asked, and what the proxy logged."""

    proxy: int
    web: int
    questions: list[dict[str, str]]
    log: Path

    def query(self, query: str = STATE) -> Any:
        """Return what the web server itself answers."""
        answer = requests.post(f"http://127.0.0.1:{self.web}/graphql", json={"query": query}, timeout=PATIENCE).json()
        assert "errors" not in answer
        return answer["data"]

    def take_back(self) -> bool:
        """Undo the change that attacks try; return whether it was there."""
        was_paused = self.query()["instance"]["autoMaterializePaused"]
        self.query(UNDO)
        return bool(was_paused)

    def send(self, request: bytes, port: int = 0) -> tuple[str, str]:
        """Send bytes to the proxy; return the statuses that it answers until it hangs up, and all of the answer."""
        with socket.create_connection(("127.0.0.1", port or self.proxy), timeout=PATIENCE) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may refuse before all is sent
                connection.sendall(request)
            answer = b""
            with suppress(ConnectionResetError):
                while part := connection.recv(65536):
                    answer += part
        text = answer.decode("latin-1")
        return " ".join(re.findall(r"HTTP/1\.1 (\d{3}) ", text)), text

    def get(self, path: str, **headers: str) -> requests.Response:
        url = f"http://localhost:{self.proxy}{path}"
        return requests.get(url, auth=(USER, PASSWORD), headers=headers, timeout=PATIENCE)

    def open_socket(self) -> ClientConnection:
        host, protocols = f"localhost:{self.proxy}", [Subprotocol("graphql-ws")]
        return connect(
            f"ws://{host}/graphql", origin=Origin(f"http://{host}"), additional_headers={"Authorization": RIGHT},
            subprotocols=protocols, proxy=None,
        )  # fmt: skip


def run_proxy(folder: Path, ask: Callable[[], object], **own: str) -> AbstractContextManager[object]:
    """Run the proxy on loopback, with its certificates and its log in the folder."""
    own |= {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "BIND": "127.0.0.1"}
    return run_server(folder / "log", (BIN / "caddy", "run", *OWN_FILE), clean(**own), ask)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A history with one run, which wrote a line to its stdout; the web server, a Prometheus, and the proxy."""
    questions: list[dict[str, str]] = []

    def prometheus(handler: BaseHTTPRequestHandler) -> None:
        questions.append({"path": handler.path} | dict(handler.headers.items()))
        loopback.body(b"prometheus")(handler)

    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("proxy")
    logs = home / "storage" / RUN / "compute_logs"
    logs.mkdir(parents=True)
    (logs / "step.out").write_text("a line of a step")
    shutil.copy(CHECKOUT / ".dagster" / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.create_run_for_job(dg.GraphDefinition("nothing").to_job(), run_id=RUN)
    http, https, web = find_ports(3)
    server = (BIN / "dagster-webserver", "-m", "bcw_assets", "-h", "127.0.0.1", "-p", str(web))
    environment = clean(DAGSTER_HOME=str(home), BCW_STORAGE=str(home))
    stack = Stack(http, web, questions, folder / "log")
    with (
        run_server(home / "log", server, environment, lambda: stack.query(UNDO)),
        loopback.serve(prometheus) as metrics,
        run_proxy(
            folder, lambda: stack.get("/", Host="health"), BCW_PASSWORD_HASH=HASH, HTTP_PORT=str(http),
            HTTPS_PORT=str(https), WEBSERVER=f"127.0.0.1:{web}", PROMETHEUS=metrics.url.removeprefix("http://"),
        ),
    ):  # fmt: skip
        yield stack


@pytest.mark.parametrize(("answer", "attack"), CASES)
def test_an_attack_is_refused_and_changes_nothing(stack: Stack, answer: str, attack: bytes) -> None:
    before, count = stack.query(), len(stack.questions)
    assert stack.send(attack)[0] == answer
    assert stack.query() == before
    assert not before["instance"]["autoMaterializePaused"]
    assert len(stack.questions) == count


def test_who_has_the_password_changes_what_he_wants_as_do_the_attacks_without_the_proxy(stack: Stack) -> None:
    for kind, port in (("obeyed", stack.proxy), ("obeyed by the web server alone", stack.web)):
        for request in chain.from_iterable(map(write_requests, REQUESTS[kind])):
            assert stack.send(request, port)[0] == "200"
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
        "body in chunks": (ask(body=cut_up(JSON)[:-60], Content_Length=None, Transfer_Encoding="chunked"), b""),
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


HTML, TITLE = "text/html; charset=utf-8", '<title data-next-head="">Dagster</title>'


def test_every_page_is_the_ui_for_a_link_from_elsewhere_too_and_nothing_else_of_the_server_is_reached(
    stack: Stack,
) -> None:
    for request in chain.from_iterable(map(write_requests, REQUESTS["answered by the UI"])):
        status, text = stack.send(request)
        assert (status, HTML in text, TITLE in text) == ("200", True, True), request


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


def test_prometheus_is_asked_without_the_password_and_the_health_check_sees_the_proxy_alone(stack: Stack) -> None:
    spoofed = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    for method, path in (("GET", "/prometheus/"), ("POST", "/prometheus/api/v1/query?x=1")):
        assert stack.send(ask(method, path, body="", **spoofed))[1].endswith("prometheus")
        question = stack.questions[-1]
        assert question["path"] == path
        assert "Authorization" not in question
        assert [question[name] for name in spoofed] == ["127.0.0.1", "localhost", "http"]
    assert stack.send(ask(Host="health", Authorization=None))[1].endswith("\r\n\r\nok")
    assert not stack.take_back()


def test_every_answer_is_kept_from_other_sites_and_a_refusal_says_what_is_allowed(stack: Stack) -> None:
    for entry, text in REQUESTS["answers"]:
        (request,) = write_requests(entry)
        head, _, page = stack.send(request)[1].partition("\r\n\r\n")
        assert text in page
        for safeguard in (
            *("frame-ancestors 'none'", "form-action 'self'", "X-Content-Type-Options: nosniff"),
            *("X-Frame-Options: DENY", "Referrer-Policy: same-origin", "Cross-Origin-Opener-Policy: same-origin"),
            "Cross-Origin-Resource-Policy: same-origin",
        ):
            assert head.count(safeguard) == 1, (text, safeguard)
        assert not re.search("^(Server|Via|Strict-Transport-Security|Access-Control)", head, re.MULTILINE)
        assert text != TITLE or re.search(r"script-src 'nonce-\w+'", head)  # Dagster's own


def test_the_log_says_what_was_asked_and_no_secret(stack: Stack) -> None:
    stack.send(ask("GET", f"/logged?{PASSWORD}", body=""))
    refused = f"http://{USER}:{PASSWORD}@localhost/refused"
    stack.send(ask("GET", refused, body="", Authorization=WRONG, Cookie="secret-cookie"))
    log = stack.log.read_text()
    assert re.search(r'"uri":"/logged".*"user_id":"bcw".*"status":200', log)
    assert re.search(r'"uri":"/refused".*"status":401', log)
    for secret in (PASSWORD, RIGHT.split()[1], WRONG.split()[1], HASH, "secret-cookie"):
        assert secret not in log


def test_a_site_has_a_certificate_and_serves_its_own_name_and_origin_alone(tmp_path: Path) -> None:
    http, https, nothing = map(str, find_ports(3))
    root, site = str(tmp_path / "caddy/pki/authorities/local/root.crt"), f"https://localhost:{https}"
    get_page = partial(requests.get, f"{site}/prometheus/", auth=(USER, PASSWORD), verify=root, timeout=PATIENCE)
    with run_proxy(
        tmp_path, get_page, BCW_SITE="localhost", BCW_PASSWORD_HASH=HASH, HTTP_PORT=http, HTTPS_PORT=https,
        WEBSERVER=f"127.0.0.1:{nothing}", PROMETHEUS=f"127.0.0.1:{nothing}",
    ):  # fmt: skip
        answer = requests.get(f"http://localhost:{http}/runs?x=1", allow_redirects=False, timeout=PATIENCE)
        assert (answer.status_code, answer.headers["Location"]) == (308, "https://localhost/runs?x=1")
        answer = get_page(headers={"Origin": site})
        assert answer.status_code == 502  # let through
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert "Nothing answers behind this path; see docker compose ps or kubectl get pods." in answer.text
        assert get_page(headers={"Origin": site.replace("https", "http")}).status_code == 403
        assert get_page(headers={"Host": "evil.example", "Origin": "https://evil.example"}).status_code == 421
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(f"https://127.0.0.1:{https}/", verify=root, timeout=PATIENCE)


def test_behind_a_proxy_with_the_certificate_the_public_name_and_its_origin_are_served(tmp_path: Path) -> None:
    port, nothing = map(str, find_ports(2))
    get_page = partial(requests.get, f"http://localhost:{port}/", auth=(USER, PASSWORD), timeout=PATIENCE)
    with run_proxy(
        tmp_path, get_page, BCW_HOST="bcw.example.org", BCW_PASSWORD_HASH=HASH, HTTP_PORT=port,
        WEBSERVER=f"127.0.0.1:{nothing}",
    ):  # fmt: skip
        public = "https://bcw.example.org"
        for host, origin, status in (
            ("bcw.example.org", public, 502), ("localhost", "http://localhost", 502),  # let through
            ("bcw.example.org", "https://evil.example", 403), ("evil.example", public, 421),
        ):  # fmt: skip
            assert get_page(headers={"Host": host, "Origin": origin}).status_code == status, (host, origin)


def test_the_file_means_https_for_a_public_name_and_else_the_door_of_the_stack_and_needs_a_password() -> None:
    def caddy(*command: str | Path, **own: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([BIN / "caddy", *command], env=clean(**own), capture_output=True, text=True, check=False)

    adapt = partial(caddy, "adapt", *OWN_FILE, BCW_PASSWORD_HASH=HASH)
    apps = json.loads(adapt(BCW_SITE="bcw.example.org").stdout)["apps"]
    public = next(server for server in apps["http"]["servers"].values() if server["listen"] == ["0.0.0.0:8443"])
    assert public["routes"][0]["match"] == [{"host": ["bcw.example.org"]}]
    assert "automatic_https" not in public  # nothing of it is switched off
    assert "tls" not in apps  # nor another issuer chosen
    config = json.loads(adapt().stdout)
    assert config["admin"] == {"disabled": True, "config": {"persist": False}}
    assert [server["listen"] for server in config["apps"]["http"]["servers"].values()] == [["0.0.0.0:8080"]]
    text = json.dumps(config)
    assert set(re.findall(r'"dial": "([^"]+)"', text)) == {"webserver:3000", "prometheus:9090"}
    assert '"hash_cache": {}' in text  # a password is hashed once, and remembered
    for own in ({}, {"BCW_PASSWORD_HASH": ""}, {"BCW_PASSWORD_HASH": "secret"}):
        assert caddy("validate", *OWN_FILE, **own).returncode != 0
    assert caddy("fmt", CADDYFILE).stdout == CADDYFILE.read_text()
