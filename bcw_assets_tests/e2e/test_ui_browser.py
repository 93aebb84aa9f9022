"""Dagster's UI in a browser, on a fresh home: a button is pressed, scores are looked at, and a failure is read."""

import pytest
from playwright.sync_api import Page, expect

from bcw_assets_tests.conftest import Graph
from bcw_assets_tests.tables import uci_form

pytestmark = pytest.mark.e2e


def materialize_all(page: Page, address: str, end: str) -> None:
    """Press the button on the page of the graph, and follow the run to its end."""
    page.goto(f"{address}/asset-groups")
    page.get_by_role("button", name="Materialize all").click()
    page.get_by_text("View", exact=True).click()
    page.wait_for_url("**/runs/*")
    expect(page.get_by_text(end, exact=True).first).to_be_visible()


def test_the_graph_is_made_by_a_button_its_scores_are_seen_and_a_failure_is_readable(
    browser_page: Page, ui_address: str, graph: Graph
) -> None:
    page = browser_page
    materialize_all(page, ui_address, "Success")
    page.goto(f"{ui_address}/assets/metrics")
    expect(page.get_by_role("row", name="sensitivity 0.964 0.930 to 0.982").first).to_be_visible()
    page.get_by_text("[Show Markdown]").first.click()
    expect(page.locator("img[src^='data:image/png']")).to_be_visible()
    page.goto(f"{ui_address}/locations/bcw_assets/jobs/refresh_job")
    expect(page.get_by_text("refresh_job").first).to_be_visible()

    graph.source.write_bytes(uci_form().replace(b",1001,0.1184,", b",501,0.1184,", 1))
    materialize_all(page, ui_address, "Failure")
    expect(page.get_by_text("Line 1, id 10003: area_mean is 501 but radius_mean 17.99 makes").first).to_be_visible()
