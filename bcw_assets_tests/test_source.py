"""The download, against a real server on loopback that misbehaves: tries, deadline, checksums, fallback."""

import gzip
import io
import os
import re
import threading
import time
import zipfile
from pathlib import Path

import pytest

from bcw_assets import source
from bcw_assets.errors import SourceRefused, SourceUnavailable
from bcw_assets.settings import Settings
from bcw_assets.source import EMBEDDED_ORIGIN, Download
from bcw_assets_tests import loopback
from bcw_assets_tests.conftest import Graph, why
from bcw_assets_tests.loopback import Step, body, cut, encoded, redirect_for_ever, refuse, serve, status
from bcw_assets_tests.tables import uci_form, uci_form_digest

TABLE = body(uci_form())


def archive(**members: bytes) -> bytes:
    """Return a zip of the members; in a name, __ stands for a dot."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, inside in members.items():
            file.writestr(name.replace("__", "."), inside)
    return content.getvalue()


def fetch(settings: Settings) -> Download:
    return source.fetch(settings, tell=lambda line: None)


@pytest.fixture
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BACK_OFF", 0)


def as_uci(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Let a loopback server stand for UCI's two addresses, with the checksum of the table that it can serve."""
    monkeypatch.setattr(source, "UCI_ADDRESSES", (f"{url}/wdbc.data", f"{url}/wdbc.zip"))
    monkeypatch.setattr(source, "UCI_SHA256", uci_form_digest())


@pytest.mark.usefixtures("without_pauses")
def test_a_download_goes_on_after_failures_and_the_ui_lists_its_tries(graph: Graph) -> None:
    with serve(refuse, status(503, Retry_After="0"), cut(uci_form()), TABLE) as server:
        result = graph.run("raw_data", source=f"{server.url}/table.csv")
    facts = result.asset_materializations_for_node("raw_data")[0].metadata
    *failures, last = [str(record.data["outcome"]) for record in facts["tries"].value.records]
    says = "the connection was refused or reset; status 503, asks to wait 0 s; the answer was cut short"
    assert ("; ".join(failures), last[-6:]) == (says, " bytes")
    assert (facts["source"].value, facts["fallback"].value) == (f"{server.url}/table.csv", False)


SLOW = (loopback.hang, loopback.stall, loopback.drip, loopback.drip_headers)


@pytest.mark.usefixtures("without_pauses")
@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        (status(503, Retry_After="3600"), "status 503, asks to wait 3,600 s"),
        (redirect_for_ever, "redirected for ever"),
        (status(302, Location="file:///etc/passwd"), "no valid http address"),
        (status(302, Location="http://[::1"), "no valid http address"),
        (refuse, "the connection was refused or reset"),
        (cut(uci_form()), "the answer was cut short"),
        (encoded(gzip.compress(uci_form())[:-9]), "the answer was cut short"),
        (encoded(uci_form()), "the answer was cut short"),
        (status(503, Retry_After="9" * 5000), "status 503"),
        (loopback.flood, "more than 10,485,760 bytes"),
        *((step, source.SLOW) for step in SLOW),
    ],
)
def test_in_auto_a_source_that_fails_or_never_ends_falls_back(
    monkeypatch: pytest.MonkeyPatch, step: Step, outcome: str
) -> None:
    if step in SLOW:
        monkeypatch.setattr(source, "UCI_DEADLINE", 1.0)
        monkeypatch.setattr(source, "SILENCE", 0.3)
    with serve(step) as server:
        as_uci(monkeypatch, server.url)
        download = fetch(Settings())
    assert (download.fallback, download.origin) == (True, EMBEDDED_ORIGIN)
    assert {attempt.address for attempt in download.tries} == set(source.UCI_ADDRESSES)
    assert download.tries[0].outcome.startswith(outcome)


@pytest.mark.parametrize(
    ("variable", "value", "outcome"),
    [
        ("https_proxy", "http://127.0.0.1:9", "the proxy that https_proxy names cannot be used"),
        ("ALL_PROXY", "socks5://127.0.0.1:9", "the proxy that ALL_PROXY names cannot be used"),
        ("REQUESTS_CA_BUNDLE", "/no/such/file", "REQUESTS_CA_BUNDLE names no file"),
        ("SSL_CERT_FILE", "/no/such/file", "the connection was refused or reset"),  # requests does not look there
    ],
)
def test_a_network_that_is_set_up_wrongly_is_unavailable_and_the_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, outcome: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(variable, value)
    address = "https://127.0.0.1:9/wdbc.data"
    monkeypatch.setattr(source, "UCI_ADDRESSES", (address,))
    monkeypatch.setattr(source, "NAMED_DEADLINE", 0.2)
    download = fetch(Settings())
    assert (download.fallback, download.tries[0].outcome) == (True, outcome)
    with pytest.raises(SourceUnavailable, match=re.escape(f"({address}: {outcome}; ")):
        fetch(Settings(source=address))


def test_a_named_source_that_is_unavailable_or_no_file_fails_and_no_token_is_shown(tmp_path: Path) -> None:
    with serve(status(404)) as server, pytest.raises(SourceUnavailable) as error:
        fetch(Settings(source=f"{server.url}/table.csv?token=secret"))
    assert all(part in str(error.value) for part in ("status 404", f"{server.url}/table.csv", "BCW_SOURCE"))
    assert "secret" not in str(error.value)
    os.mkfifo(pipe := tmp_path / "pipe")
    threading.Thread(target=pipe.write_bytes, args=(b"",), daemon=True).start()  # or a reader would wait for ever
    paths = {"x" * 5000: "File name too long", ".": "Is a directory. Nothing was changed; a"}
    for path, says in (paths | dict.fromkeys(["/dev/zero", str(pipe)], "it is no regular file")).items():
        with pytest.raises(SourceUnavailable, match=says):
            fetch(Settings(source=path))


def test_in_auto_the_first_address_that_answers_is_enough_and_the_second_is_a_zip_with_the_table_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = archive(wdbc__names=b"about", wdbc__data=uci_form(), Index=b"")
    for script, requests in (([TABLE], ["/wdbc.data"]), ([status(404), body(content)], ["/wdbc.data", "/wdbc.zip"])):
        with serve(*script) as server:
            as_uci(monkeypatch, server.url)
            download = fetch(Settings())
        assert server.requests == requests
        assert (download.content, download.origin) == (uci_form(), f"{server.url}{requests[-1]}")
        assert not download.fallback


def test_every_try_is_logged_when_it_ends_and_a_retry_after_is_respected() -> None:
    lines: list[str] = []
    with serve(status(429, Retry_After="1"), TABLE) as server:
        start = time.monotonic()
        source.fetch(Settings(source=server.url), lines.append)
        assert time.monotonic() - start >= 1
    assert re.fullmatch(rf"{server.url}: status 429, asks to wait 1 s \(\d+\.\d s\)", lines[0])
    assert re.fullmatch(rf"{server.url}: 123,\d+ bytes \(\d+\.\d s\)", lines[1])


def test_other_bytes_than_ucis_are_refused_without_a_fallback_and_change_nothing(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.prepare()
    before, whole = graph.files(), archive(wdbc__data=uci_form())
    damaged, bomb = whole[:100] + bytes(100) + whole[200:], archive(wdbc__data=bytes(2**24))
    for content in (damaged, bomb, archive(folder__wdbc__data=uci_form()), b"<html>captive portal</html>"):
        with serve(status(404), body(content)) as server:
            as_uci(monkeypatch, server.url)
            with pytest.raises(SourceRefused, match=server.url):
                fetch(Settings())
            assert server.url in why(graph.run("raw_data", source="auto"))
    assert graph.files() == before


def test_a_checksum_of_the_users_own_is_held(tmp_path: Path) -> None:
    file = tmp_path / "table.csv"
    file.write_bytes(uci_form())
    assert fetch(Settings(source=str(file), source_sha256=uci_form_digest())).content == uci_form()
    with serve(TABLE) as server, pytest.raises(SourceRefused, match="BCW_SOURCE_SHA256 has 000"):
        fetch(Settings(source=server.url, source_sha256="0" * 64))


def test_a_users_own_source_may_be_larger_than_ucis_and_packed_but_not_endless(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(11 * 2**20)
    for step in (body(content), encoded(gzip.compress(content))):
        with serve(step) as server:
            assert fetch(Settings(source=server.url)).content == content
    monkeypatch.setattr(source, "NAMED_LIMIT", 2**20)
    with serve(loopback.flood) as server, pytest.raises(SourceUnavailable, match="more than 1,048,576 bytes"):
        fetch(Settings(source=server.url))
