"""The page of a release in a browser: it says what `bcw predict` says, or refuses, and asks for nothing."""

import csv
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from playwright.sync_api import FilePayload, Page, sync_playwright

from bcw_assets.cli.main import main
from bcw_assets.ml.table import columns
from bcw_assets.storage.folder import FolderStore
from bcw_assets_tests.conftest import CHECKOUT, sweep, with_all
from bcw_assets_tests.ml.table.test_forms import (
    FILES,
    MADE,
    MEASUREMENTS,
    WITH_IDS,
    WITHOUT_DIAGNOSES,
    WITHOUT_IDS,
    Form,
)
from bcw_assets_tests.tables import uci_form

pytestmark = pytest.mark.e2e
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = CHECKOUT / ".venv/axe/node_modules/axe-core/axe.min.js"
REMEDY = "This page reads only the common forms. bcw predict FILE reads many more, and says what is wrong with a file."
FORMS = [*WITH_IDS.items(), *WITHOUT_IDS.items(), *WITHOUT_DIAGNOSES.items()]
BAD = {name: case[0].encode() if isinstance(case, list) else MADE[name] for name, case in FILES["refusals"].items()}
SCORED = {  # what the page promises; it may leave any other form to `bcw predict`
    "UCI's file", "UCI's API", "Kaggle", "Kaggle, filled", "ours", "with probabilities",
    "scikit-learn", "scikit-learn, floats", "scikit-learn's data", "a byte order mark", "CRLF", "CR", "blank lines",
    "quotes", "semicolons", "semicolons, decimal commas", "semicolons, decimal commas, no header", "tabs",
    "Excel's line", "pandas' index", "Malignant and Benign", "diagnosis 0 and 1", "no id", "no id and no header",
    "only numbers", "the diagnosis last, no header", "in another order", "float32",
}  # fmt: skip


@pytest.fixture(scope="session")
def page(one_release: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page, opened from a disk by its address, in a folder with its store."""
    if not CHROMIUM:
        assert "REQUIRE_ALL" not in os.environ, "chromium is needed, and is not installed"
        pytest.skip("no chromium is installed; apt-get install chromium")
    folder = tmp_path_factory.mktemp("page")
    with_all(FolderStore(folder), one_release)
    with sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: asked.append(message.text))
        page.on("pageerror", lambda error: asked.append(str(error)))
        (path,) = folder.glob("releases/*/index.html")
        page.goto(path.as_uri())
        yield page
        assert [url for url in asked if not url.startswith("blob:")] == [path.as_uri()]
        browser.close()


@pytest.fixture
def folder(page: Page, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the store that the page is of."""
    folder = Path(page.url.removeprefix("file://")).parents[2]
    monkeypatch.chdir(folder)
    return folder


def predict(content: bytes) -> list[dict[str, str]] | None:
    """Return the rows that `bcw predict` gives; None if it refuses the file."""
    done = CliRunner().invoke(main, ["predict", "-", "--explain"], input=content)
    return read_rows(done.stdout) if done.exit_code in (0, 3) else None


def read_rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def drop(page: Page, content: bytes) -> list[dict[str, str]] | None:
    """Return the rows that the page gives for a file; None if it refuses it, which it must do with the remedy."""
    page.evaluate("document.getElementById('summary').replaceChildren()")
    page.set_input_files("#file", FilePayload(name="dropped", mimeType="text/plain", buffer=content))
    page.wait_for_selector("#summary p")
    says = page.inner_text("#summary")
    if "dropped is not scored here: " in says:
        assert REMEDY in says
        assert page.is_hidden("#rows")
        return None
    with page.expect_download() as download:
        page.click("#download")
    return read_rows(Path(download.value.path()).read_text())


def check_same(rows: list[dict[str, str]], expected: list[dict[str, str]] | None) -> None:
    """Hold the page's rows against those of `bcw predict`: only the last digits of a probability may differ."""
    assert expected is not None
    numbers = [[float(row.pop(columns.PROBABILITY) or "nan") for row in table] for table in (rows, expected)]
    np.testing.assert_allclose(numbers[0], numbers[1], rtol=0, atol=1e-12)
    assert rows == expected


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_form_is_scored_as_predict_does_or_refused_with_the_remedy(
    page: Page, folder: Path, raw: pd.DataFrame, name: str, form: Form
) -> None:
    content = form(raw)
    rows = drop(page, content)
    assert rows or name not in SCORED, page.inner_text("#summary")
    if rows is not None:
        assert len(rows) == 569
        check_same(rows, predict(content))


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_the_table_is_never_scored_otherwise_than_by_predict(
    page: Page, folder: Path, raw: pd.DataFrame, name: str
) -> None:
    made: Any = BAD[name]
    content = made if isinstance(made, bytes) else made(raw)
    rows = drop(page, content)
    if rows is not None:
        check_same(rows, predict(content))


SPOILS = [
    "",
    "NA",
    "abc",
    "1_0",
    "nan",
    "1e400",
    "-1",
    "0",
    "1e-12",
    "17,99",
    "+.5",
    "x" * 99,
    "ü\u00a0'\"",
    "1e22",
    "7.",
]


@pytest.mark.parametrize("seed", sweep([*range(20)]))
def test_rows_that_are_spoiled_in_any_way_have_the_same_problems_in_the_same_words(
    page: Page, folder: Path, raw: pd.DataFrame, seed: int
) -> None:
    random, table = np.random.default_rng(seed), raw.astype(object)
    for row in range(len(table)):
        for _ in range(random.integers(1, 3)):
            place = int(random.integers(0 if seed % 2 else 2, 32))
            number = table.iat[row, place]
            factors = random.choice([10, 0.1, 2, 0.5, 1.1, 0.9, 25.4, 1e-9, 1e6])
            spoiled = number * factors if isinstance(number, float) and random.random() < 0.7 else random.choice(SPOILS)
            table.iat[row, place] = spoiled
    table.loc[random.integers(0, 569, 40), MEASUREMENTS] = 0.0
    for separator in ",;\t":  # points and commas in one table are refused
        frame = table if separator == "," else table.replace("17,99", "1.7.9")
        content = frame.to_csv(index=False, sep=separator).encode() + b'7,M,"a"b\n7,"M\n7\n'
        rows = drop(page, content)
        assert rows is not None, page.inner_text("#summary")
        check_same(rows, predict(content))


def test_a_patient_typed_with_the_keyboard_alone_is_scored_as_predict_does(page: Page, folder: Path) -> None:
    visited = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(80):
        page.keyboard.press("Tab")
        visited.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert visited >= {*MEASUREMENTS, "Try it", "Least certain", "file"}
    page.focus("button[value='2']")
    page.keyboard.press("Enter")
    assert (page.inner_text("#probability"), page.get_attribute("#result", "data-call")) == (
        "above 99.9 %",
        "malignant",
    )
    line = uci_form().splitlines()[40].decode().split(",")
    for name, text in zip(MEASUREMENTS, line[2:], strict=True):
        page.focus(f"#{name}")
        page.keyboard.press("Control+A")
        page.keyboard.type(text)
    (row,) = predict(",".join(line).encode()) or []
    assert page.inner_text("#probability") == f"{100 * float(row[columns.PROBABILITY]):.1f} %"
    page.fill("#radius_mean", "1,0")
    assert page.inner_text("#probability") == "No answer"
    says = "radius_mean is '1,0'; allowed is a finite decimal number with a point, like 17.99"
    assert page.inner_text("#remarks") == says
    assert page.get_attribute("#radius_mean", "aria-invalid") == "true"


@pytest.mark.parametrize("width", [400, 1400])
def test_axe_finds_nothing_that_keeps_anybody_out_and_nothing_is_cut_off(
    page: Page, raw: pd.DataFrame, width: int
) -> None:
    if not AXE.exists():
        assert "REQUIRE_ALL" not in os.environ, "axe-core is needed, and make e2e could not get it"
        pytest.skip("axe-core is not there; make e2e gets it by npm")
    page.set_viewport_size({"width": width, "height": 900})
    drop(page, uci_form() + b"1,M\n")
    page.evaluate(AXE.read_text())
    violations = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
