"""Takes the pictures of the UI and of a release's page in docs/pictures, of runs in a folder that is gone afterwards.

make screenshots
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import requests
from playwright.sync_api import FloatRect, Page, ViewportSize, sync_playwright

from bcw_assets_tests.tables import uci_form

PICTURES = Path(__file__).with_name("pictures")
BIN = Path(sys.executable).parent
VIEW: ViewportSize = {"width": 1400, "height": 900}
GRAPH: FloatRect = {"x": 541, "y": 250, "width": 859, "height": 400}  # where it is on its page
MOST_BYTES = 250_000
PATIENCE = 120  # seconds until the web server answers
GROUPS = ",".join(f"global@global:{name}" for name in ("data", "model", "evaluation", "release"))
NO_SLIDER = "[class*=zoomSlider] {visibility: hidden}"  # it lies over the last asset
# What hides the path of the temporary folder, which says nothing to others.
HIDE = """folder => {
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) texts.currentNode.data = texts.currentNode.data.replaceAll(folder, "my_folder");
}"""
QUIET = "telemetry: {enabled: false}\nnux: {enabled: false}\n"


def main() -> None:
    """Refresh, look, refresh with exchanged diagnoses, which the gate refuses, and look again."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "dagster.yaml").write_text(QUIET)
        (place / "wdbc.data").write_bytes(uci_form())
        own = {"DAGSTER_HOME": folder, "BCW_SOURCE": str(place / "wdbc.data"), "BCW_STORAGE": str(place / "store")}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("BCW_")} | own
        refresh = partial(subprocess.run, [BIN / "bcw", "refresh"], env=environment, cwd=folder, capture_output=True)
        refresh(check=True)
        with serve(environment, place) as address, sync_playwright() as playwright:
            as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=as_root)
            page = browser.new_page(viewport=VIEW, color_scheme="light", device_scale_factor=2)
            take(page, "graph", f"{address}/asset-groups?expanded={GROUPS}", "cross_validation", GRAPH)
            page = browser.new_page(viewport=VIEW, color_scheme="light")
            take(page, "metrics", f"{address}/assets/metrics", "balanced accuracy")
            take(page, "checks", f"{address}/assets/raw_data?view=checks", "Passed")
            for file in sorted(place.glob("store/releases/*/index.html")):
                take(page, "page", file.as_uri(), "")
            (place / "wdbc.data").write_bytes(exchange_diagnoses(uci_form(), 3))
            refresh(check=False)
            take(
                page,
                "refused",
                f"{address}/assets/release?view=events",
                "The gate refused this candidate",
                hidden=folder,
            )
            browser.close()


@contextmanager
def serve(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Run Dagster's web server on a free port of this machine, and end it and its code server afterwards."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(BIN / "dagster-webserver"), "-m", "bcw_assets", "-h", "127.0.0.1", "-p", str(port)]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(f"http://127.0.0.1:{port}/server_info")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # at SIGTERM the code server waits for calls that are under way
        server.wait()


def wait_for(address: str) -> None:
    """Return once an address answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            requests.get(address, timeout=PATIENCE, proxies={"http": ""}).raise_for_status()
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def take(
    page: Page, name: str, address: str, text: str, part: FloatRect | None = None, hidden: str = "/no/folder"
) -> None:
    """Take a picture of a page, or a part of it, once it shows a text and asks for nothing more."""
    page.goto(address)
    page.get_by_text(text).first.wait_for()
    page.wait_for_load_state("networkidle")
    page.evaluate(HIDE, hidden)
    picture = page.screenshot(path=PICTURES / f"{name}.png", animations="disabled", clip=part, style=NO_SLIDER)
    print(f"{name}.png: {len(picture):,} bytes")
    if len(picture) > MOST_BYTES:
        raise SystemExit(f"{name}.png is larger than {MOST_BYTES:,} bytes")


def exchange_diagnoses(table: bytes, count: int) -> bytes:
    """Return UCI's table in which so many patients of each diagnosis have the other one."""
    for ours, theirs in ((b",M,", b",?,"), (b",B,", b",M,"), (b",?,", b",B,")):
        table = table.replace(ours, theirs, count)
    return table


if __name__ == "__main__":
    main()
