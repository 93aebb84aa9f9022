"""A real HTTP server on loopback that answers each request as the next step of a script says."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Step = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Loopback:
    """Where the server listens, and how many requests it has had."""

    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve(*script: Step) -> Iterator[Loopback]:
    """Answer the n-th request by the n-th step, and every further one by the last."""
    loopback = Loopback("")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            loopback.requests.append(self.path)
            script[min(len(loopback.requests), len(script)) - 1](self)

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

    def step(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content) if length is None else length))
        handler.end_headers()
        handler.wfile.write(content)

    return step


def status(code: int, **headers: str) -> Step:
    """Answer a status without a body; an underscore in a header's name stands for a hyphen."""

    def step(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return step


def refuse(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection before any answer, as a port where nothing listens does."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def cut(content: bytes) -> Step:
    """Announce all of `content`, send half of it and hang up."""
    return body(content[: len(content) // 2], length=len(content))


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Answer nothing for a minute."""
    time.sleep(60)


def stall(handler: BaseHTTPRequestHandler) -> None:
    """Send some of the body and nothing more for a minute."""
    body(b"1,2,3", length=1000)(handler)
    handler.wfile.flush()
    time.sleep(60)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte of the body a tenth of a second."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(600):
        handler.wfile.write(b"1")
        handler.wfile.flush()
        time.sleep(0.1)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte of a header a tenth of a second."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(600):
        handler.wfile.write(b"1")
        handler.wfile.flush()
        time.sleep(0.1)


def redirect_for_ever(handler: BaseHTTPRequestHandler) -> None:
    """Send the client to where it is."""
    status(302, Location=handler.path)(handler)


def flood(handler: BaseHTTPRequestHandler) -> None:
    """Send 1 GiB."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(2**30))
    handler.end_headers()
    for _ in range(2**10):
        handler.wfile.write(bytes(2**20))
