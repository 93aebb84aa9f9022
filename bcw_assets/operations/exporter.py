"""`bcw exporter`: collects in the background, and tells Prometheus what is known and fresh. What is known: `vitals`."""

import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from socketserver import ThreadingMixIn
from types import FrameType
from typing import Any, NamedTuple, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

import bcw_assets
from bcw_assets import settings
from bcw_assets.assets import GRAPH
from bcw_assets.checks import locate_assets
from bcw_assets.deadline import within
from bcw_assets.errors import BcwError
from bcw_assets.operations import history, vitals
from bcw_assets.operations.vitals import NAMES, Sample

Collect = Callable[[], Iterable[Sample]]

PATIENCE = 15.0  # seconds beyond its turn after which a source that has not answered counts as away
LOST = 300.0  # seconds after which a collection that hangs is given up, and another is begun
IDLE = 10  # seconds that a client may say nothing


class Known(NamedTuple):
    """What the last collection from a source gave, and when it ended; without samples if it failed."""

    samples: tuple[Sample, ...]
    seconds: float
    at: float
    problem: str | None


class Source:
    """Something that is asked again and again, by one thread, however many scrape and however long it takes."""

    def __init__(self, name: str, collect: Collect, interval: float) -> None:
        """Ask nothing yet.

        Args:
            name: for the label.
            collect: returns what there is to know.
            interval: seconds between two collections.
        """
        self.name = name
        self._collect, self._interval = collect, interval
        self._known = Known((), 0.0, -float("inf"), None)

    def keep_asking(self) -> NoReturn:
        """Collect for ever."""
        while True:
            self.ask()
            time.sleep(self._interval)

    def ask(self) -> None:
        """Collect once, and say what is wrong if it is something else than before."""
        before, begun = self._known.problem, time.monotonic()
        samples, problem = _answer(self._collect)
        ended = time.monotonic()
        self._known = Known(samples, ended - begun, ended, problem)
        if problem != before:
            click.echo(f"{self.name}: {problem or 'answers again'}", err=True)

    def samples(self) -> tuple[Sample, ...]:
        """Return what is known, if it is fresh; always whether the source is up."""
        known = self._known
        up = known.problem is None and time.monotonic() - known.at < self._interval + PATIENCE
        told = (*known.samples, Sample("bcw_exporter_collection_duration_seconds", known.seconds, (self.name,)))
        return (Sample("bcw_exporter_source_up", up, (self.name,)), *(told if up else ()))


class Exporter(Collector):
    """What all sources know, as Prometheus wants it."""

    def __init__(self, sources: Iterable[Source], constant: Iterable[Sample]) -> None:
        """Keep the sources, and what never changes."""
        self.sources = tuple(sources)
        self._constant = tuple(constant)

    def start(self) -> None:
        """Begin to collect."""
        for source in self.sources:
            threading.Thread(target=source.keep_asking, daemon=True, name=source.name).start()

    def collect(self) -> Iterator[Metric]:
        """Return every name of which there are values."""
        samples = [*self._constant, *(sample for source in self.sources for sample in source.samples())]
        for name in NAMES:
            if found := [sample for sample in samples if sample.name == name]:
                yield _family(name, found)


def run(host: str, port: int, web_server: str, interval: float) -> None:
    """Serve until the process is told to end.

    Args:
        host: address to listen on.
        port: of it.
        web_server: URL of Dagster's web server, which knows whether the code location could be loaded.
        interval: seconds between two collections.

    Raises:
        BcwError: there is no history to look into, or the port is taken.
    """
    if not settings.dagster_home():
        raise BcwError("DAGSTER_HOME is not set, so there is no history to look into. `make install` sets it")
    exporter = of_this_place(web_server, interval)
    with _listening(host, port, exporter) as server:
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, _end)
        logging.disable()  # libraries would tell of every try; a source that is away is told once
        exporter.start()
        click.echo(f"Serves http://{host}:{server.server_port}/metrics", err=True)
        server.serve_forever()


def of_this_place(web_server: str, interval: float) -> Exporter:
    """Return the exporter of what the environment names."""
    definitions, resources = bcw_assets.defs, bcw_assets.defs.resources or {}
    places = locate_assets(GRAPH, resources["io_manager"], resources["releases"])

    def of_history() -> list[Sample]:
        with history.opened() as instance:
            known = list(vitals.of_history(instance, definitions, places))
        gc.collect()  # Dagster leaves cycles, and what `bcw_assets.defs` does for short runs lets them lie
        return known

    collects: Mapping[str, Collect] = {
        "history": of_history,
        "releases": partial(vitals.of_releases, resources["releases"]),
        "web_server": partial(vitals.of_web_server, web_server.rstrip("/")),
    }
    sources = (Source(name, collect, interval) for name, collect in collects.items())
    return Exporter(sources, vitals.of_build(resources["settings"].stale_days))


def application(exporter: Exporter) -> Callable[..., Iterable[bytes]]:
    """Return what answers /metrics, and /healthz as long as the process lives."""
    registry = CollectorRegistry()
    registry.register(exporter)
    metrics = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            found: Iterable[bytes] = metrics(environ, start_response)
            return found
        is_health = environ["PATH_INFO"] == "/healthz"
        start_response("200 OK" if is_health else "404 Not Found", [("Content-Type", "text/plain")])
        return [b"ok\n" if is_health else b"There is /metrics, and /healthz\n"]

    return answer


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a client that waits does not keep the process from ending

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that hang up, or never say what they want."""


class _Handler(WSGIRequestHandler):
    timeout = IDLE

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name that the base class has)
        """Say nothing of requests: there is one every few seconds."""


def _listening(host: str, port: int, exporter: Exporter) -> WSGIServer:
    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return make_server(host, port, application(exporter), Server, _Handler)
    except (OSError, OverflowError) as error:
        raise BcwError(f"Cannot listen on {host}:{port} ({error}). Give another by --host and --port") from error


def _end(*_: int | FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _answer(collect: Collect) -> tuple[tuple[Sample, ...], str | None]:
    """Return what a source says, or what is wrong with it."""
    try:
        return within(LOST, lambda: tuple(collect())), None
    except BcwError as error:
        return (), str(error)
    except Exception as error:  # noqa: BLE001 (whatever it is: an exporter that dies tells of nothing any more)
        return (), f"{type(error).__name__}: {str(error).partition(chr(10))[0][:300]}"


def _family(name: str, samples: Iterable[Sample]) -> Metric:
    says, labels = NAMES[name]
    kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    family = kind(name, says, labels=labels)
    for sample in samples:
        family.add_metric(sample.labels, float(sample.value))
    return family
