"""The page of a release in a browser: it says what `bcw predict` says, or refuses, and asks for nothing."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from playwright.sync_api import Browser, FilePayload, Page

from bcw_assets.cli.main import main
from bcw_assets.ml.table import columns
from bcw_assets.storage.folder import FolderStore
from bcw_assets_tests.conftest import CHECKOUT, sweep, with_all
from bcw_assets_tests.e2e.conftest import require
from bcw_assets_tests.ml.table import test_forms
from bcw_assets_tests.ml.table.test_forms import MEASUREMENTS, Form
from bcw_assets_tests.tables import uci_form

pytestmark = pytest.mark.e2e
AXE = CHECKOUT / ".venv/axe/node_modules/axe-core/axe.min.js"
REMEDY = "This page reads only the common forms. bcw predict FILE reads many more, and says what is wrong with a file."
SCORED = {  # what the page promises; it may leave any other form to `bcw predict`
    "UCI's file", "UCI's API", "Kaggle", "Kaggle, filled", "ours", "with probabilities", "scikit-learn",
    "scikit-learn, floats", "scikit-learn's data", "a byte order mark", "CRLF", "CR", "blank lines", "quotes",
    "semicolons", "semicolons, decimal commas", "semicolons, decimal commas, no header", "tabs", "Excel's line",
    "pandas' index", "Malignant and Benign", "diagnosis 0 and 1", "no id", "no id and no header", "only numbers",
    "the diagnosis last, no header", "in another order", "float32",
}  # fmt: skip
GOOD = [*test_forms.WITH_IDS.items(), *test_forms.WITHOUT_IDS.items(), *test_forms.WITHOUT_DIAGNOSES.items()]
BAD = [(name, test_forms.MADE.get(name, case[0])) for name, case in test_forms.FILES["refusals"].items()]
Rows = list[dict[str, str]]


@pytest.fixture(scope="session")
def page(browser: Browser, one_release: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page, opened from the disk, in a folder with its store."""
    folder = tmp_path_factory.mktemp("page")
    with_all(FolderStore(folder), one_release)
    (path,) = folder.glob("releases/*/index.html")
    page, log = browser.new_page(viewport={"width": 1400, "height": 900}), list[str]()
    page.on("request", lambda request: log.append(request.url))
    page.on("console", lambda message: log.append(message.text))
    page.on("pageerror", lambda error: log.append(str(error)))
    page.goto(path.as_uri())
    yield page
    assert [entry for entry in log if not entry.startswith("blob:")] == [path.as_uri()]  # downloads are blobs


def predict(page: Page, content: bytes, *options: str) -> Rows | None:
    """Return the rows that `bcw predict` gives with the release of the page; None if it refuses the file."""
    folder = Path(page.url.removeprefix("file://")).parents[2]
    (folder / "table").write_bytes(content)
    command = ["predict", str(folder / "table"), "--explain", *options]
    done = CliRunner().invoke(main, command, env={"BCW_STORAGE": str(folder)})
    return read_rows(done.stdout) if done.exit_code in (0, 3) else None


def read_rows(text: str) -> Rows:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def choose(page: Page, content: bytes) -> Rows | None:
    """Return the rows that the page gives for a file; None if it refuses it, which it must do with the remedy."""
    page.evaluate("document.getElementById('summary').replaceChildren()")
    page.set_input_files("#file", FilePayload(name="chosen", mimeType="text/plain", buffer=content))
    page.wait_for_selector("#summary p")
    if "chosen is not scored here: " in page.inner_text("#summary"):
        assert REMEDY in page.inner_text("#summary")
        assert page.is_hidden("#rows")
        return None
    return download(page)


def download(page: Page) -> Rows:
    with page.expect_download() as event:
        page.click("#download")
    return read_rows(Path(event.value.path()).read_text())


def check_same(rows: Rows, expected: Rows | None) -> None:
    """Hold the page's rows against those of `bcw predict`: only the last digits of a probability may differ."""
    assert expected is not None
    ours, theirs = ([float(row.pop(columns.PROBABILITY) or "nan") for row in table] for table in (rows, expected))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)
    assert rows == expected


@pytest.mark.parametrize(("name", "form"), GOOD + BAD)
def test_every_table_good_or_bad_is_scored_as_predict_does_or_refused_with_the_remedy(
    page: Page, raw: pd.DataFrame, name: str, form: Form | str
) -> None:
    content = form.encode() if isinstance(form, str) else form(raw)
    rows = choose(page, content)
    assert rows or name not in SCORED, page.inner_text("#summary")
    if rows:
        check_same(rows, predict(page, content))


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
    page: Page, raw: pd.DataFrame, seed: int
) -> None:
    random, table = np.random.default_rng(seed), raw.astype(object)
    for row in [*range(len(table))] * 2:
        place = int(random.integers(0 if seed % 2 else 2, 32))
        number, factor = table.iat[row, place], random.choice([10, 0.1, 2, 0.5, 1.1, 0.9, 25.4, 1e-9, 1e6])
        is_scaled = isinstance(number, float) and random.random() < 0.7
        table.iat[row, place] = number * factor if is_scaled else random.choice(SPOILS)
    table.loc[random.integers(0, 569, 40), MEASUREMENTS] = 0.0
    for separator in ",;\t":  # points and commas in one table are refused
        frame = table if separator == "," else table.replace("17,99", "1.7.9")
        content = frame.to_csv(index=False, sep=separator).encode() + b'7,M,"a"b\n7,"M\n7\n'
        check_same(choose(page, content) or [], predict(page, content))


DROP = """text => {
    const event = new DragEvent("drop", { dataTransfer: new DataTransfer(), cancelable: true });
    event.dataTransfer.items.add(new File([text], "patients.csv"));
    document.getElementById("drop").dispatchEvent(event);
}"""


def test_a_dropped_file_is_scored_and_another_threshold_calls_its_rows_anew(page: Page) -> None:
    page.evaluate(DROP, uci_form().decode())
    page.wait_for_selector("text=patients.csv: 569 rows scored, 209 of them malignant from 0.5 on.")
    page.check("input[value='0.1']")
    check_same(download(page), predict(page, uci_form(), "--threshold", "0.1"))
    page.check("input[value='0.5']")


def test_a_patient_typed_with_the_keyboard_alone_is_scored_as_predict_does(page: Page) -> None:
    visited = set()
    page.evaluate("document.activeElement.blur()")
    for _ in range(50):
        page.keyboard.press("Tab")
        visited.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    assert visited >= {*MEASUREMENTS, "Try it", "Least certain", "file"}
    page.focus("button[value='2']")
    page.keyboard.press("Enter")
    assert (page.inner_text("#probability"), page.get_attribute("#result", "data-call")) == (
        "above 99.9 %",
        "malignant",
    )
    line = uci_form().splitlines()[40]
    for name, text in zip(MEASUREMENTS, line.decode().split(",")[2:], strict=True):
        page.focus(f"#{name}")
        page.keyboard.press("Control+A")
        page.keyboard.type(text)
    (row,) = predict(page, line) or []
    assert page.inner_text("#probability") == f"{100 * float(row[columns.PROBABILITY]):.1f} %"
    page.fill("#radius_mean", "1,0")
    assert page.inner_text("#probability") == "No answer"
    says = "radius_mean is '1,0'; allowed is a finite decimal number with a point, like 17.99"
    assert (page.inner_text("#remarks"), page.get_attribute("#radius_mean", "aria-invalid")) == (says, "true")


@pytest.mark.parametrize("width", [400, 1400])
def test_axe_finds_nothing_that_keeps_anybody_out_and_nothing_is_cut_off(page: Page, width: int) -> None:
    require(AXE.exists(), "axe-core", "make e2e gets it by npm")
    page.set_viewport_size({"width": width, "height": 900})
    choose(page, uci_form() + b"1,M\n")
    page.evaluate(AXE.read_text())
    violations = page.evaluate("axe.run()")["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
