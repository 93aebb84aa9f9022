"""A real HTTP server on loopback that answers each request as the next step of a script says."""

import http.client
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler as Request
from http.server import ThreadingHTTPServer
from urllib.parse import urlsplit

Step = Callable[[Request], None]


@dataclass
class Loopback:
    """Where the server listens, and the paths that it was asked for."""

    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve(*script: Step) -> Iterator[Loopback]:
    """Answer the n-th request by the n-th step, and every further one by the last."""
    loopback = Loopback("")

    class Handler(Request):
        def do_GET(self) -> None:
            if self.headers.get("Expect") == "100-continue":
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            # Read at once, or a client is reset before it has read the answer.
            self.rfile = io.BytesIO(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            loopback.requests.append(self.path)
            script[min(len(loopback.requests), len(script)) - 1](self)

        do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 (what the base class calls)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that give up are the point
    loopback.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield loopback
    finally:
        server.shutdown()
        server.server_close()


def body(content: bytes, length: int | None = None) -> Step:
    """Answer 200 with `content`, announcing `length` bytes."""
    return lambda handler: _answer(handler, 200, {}, content, length)


def encoded(content: bytes) -> Step:
    """Answer 200 with what the header says is packed by gzip, although nobody asked for that."""
    return lambda handler: _answer(handler, 200, {"Content-Encoding": "gzip"}, content)


def status(code: int, **headers: str) -> Step:
    """Answer a status without a body; an underscore in a header's name stands for a hyphen."""
    return lambda handler: _answer(handler, code, {name.replace("_", "-"): headers[name] for name in headers}, b"")


def refuse(handler: Request) -> None:
    """Reset the connection before any answer, as a port where nothing listens does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def cut(content: bytes) -> Step:
    """Announce all of `content`, send half of it and hang up."""
    return lambda handler: _halve(handler, 200, {}, content)


def hang(handler: Request) -> None:
    time.sleep(60)


def stall(handler: Request) -> None:
    """Send some of the body and nothing more for a minute."""
    body(b"1,2,3", length=1000)(handler)
    hang(handler)


def drip(handler: Request, beginning: bytes = b"HTTP/1.1 200 OK\r\n\r\n", rest: bytes = b"1" * 600) -> None:
    """Send a byte of the rest, by default of the body, a tenth of a second."""
    handler.wfile.write(beginning)  # which is not buffered
    for number in range(len(rest)):
        handler.wfile.write(rest[number : number + 1])
        time.sleep(0.1)


drip_headers: Step = partial(drip, beginning=b"HTTP/1.1 200 OK\r\nX-Slow: ")


def redirect_for_ever(handler: Request) -> None:
    status(302, Location=handler.path)(handler)


def flood(handler: Request) -> None:
    body(b"", length=2**30)(handler)
    for _ in range(2**10):
        handler.wfile.write(bytes(2**20))


def taken(messages: list[dict[str, str]]) -> Step:
    """Keep the JSON that is posted, and answer 200."""

    def step(handler: Request) -> None:
        messages.append(json.load(handler.rfile))
        body(b"")(handler)

    return step


def s3_error(code: int, name: str, **fields: str) -> Step:
    """Answer what S3 answers when it refuses."""
    tags = {"Code": name, "Message": f"{name}, as documented"} | fields
    document = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags.items())
    content = f'<?xml version="1.0" encoding="UTF-8"?><Error>{document}</Error>'.encode()
    return lambda handler: _answer(handler, code, {}, content)


def _ask(url: str, do: Callable[..., None]) -> Step:
    """Ask the server at `url` the same, and do something with the status, headers and body that it answers."""

    def step(handler: Request) -> None:
        headers = {name: value for name, value in handler.headers.items() if name != "Expect"}
        with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)) as connection:
            connection.request(handler.command, handler.path, handler.rfile.read(), headers)
            answer = connection.getresponse()
            do(handler, answer.status, dict(answer.getheaders()), answer.read())

    return step


def _answer(handler: Request, code: int, headers: dict[str, str], content: bytes, length: int | None = None) -> None:
    handler.send_response_only(code)
    for name, value in headers.items():
        if name.lower() not in ("content-length", "connection", "transfer-encoding"):
            handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(content) if length is None else length))
    handler.end_headers()
    handler.wfile.write(content)


def _halve(
    handler: Request, code: int, headers: dict[str, str], content: bytes, end: Step = lambda handler: None
) -> None:
    """Send half of the body, and then do something else, by default hang up."""
    _answer(handler, code, headers, content[: len(content) // 2], length=len(content))
    end(handler)


def _trickle(handler: Request, code: int, headers: dict[str, str], content: bytes) -> None:
    _answer(handler, code, headers, b"", length=len(content))
    drip(handler, b"", content)


# What happens to the answer of the server at a URL.
passed_to = partial(_ask, do=_answer)
reply_lost = partial(_ask, do=lambda handler, *answer: refuse(handler))
cut_off = partial(_ask, do=_halve)
reset_within = partial(_ask, do=partial(_halve, end=refuse))
stalled = partial(_ask, do=partial(_halve, end=hang))
trickled = partial(_ask, do=_trickle)
