"""The page of a release as a file: whole in itself, and nothing in it but what its release says."""

import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from bcw_assets import documents
from bcw_assets.cli.releases import report_release
from bcw_assets.ml.table import rules
from bcw_assets.releases import bundle
from bcw_assets.releases.candidate import Candidate
from bcw_assets.report import page
from bcw_assets.storage.folder import FolderStore
from bcw_assets_tests.conftest import with_all
from bcw_assets_tests.releases.test_past import PAST


@pytest.fixture(scope="session")
def text(candidate: Candidate) -> str:
    return candidate.files["index.html"].decode()


def find_scripts(text: str) -> list[str]:
    """Return the style, the data and the script."""
    return re.findall(r"<(?:style|script)[^>]*>(.*?)</", text, flags=re.DOTALL)


def find_attributes(text: str, name: str, tags: str = r"\w+") -> list[str]:
    return re.findall(rf'<{tags}\b[^>]*? {name}="([^"]*)"', text)


def test_it_is_small_refers_to_nothing_outside_and_executes_nothing_but_its_own_script_and_style(text: str) -> None:
    assert len(text.encode()) <= 200_000
    assert (
        re.search(r"https?:|//[a-z]+\.|url\(|@import|fetch\(|XMLHttp|WebSocket|import\(| style=| on\w+=", text) is None
    )
    assert [link for link in find_attributes(text, "(?:src|href)") if not link.startswith("#")] == []
    style, _, script = (
        base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() for content in find_scripts(text)
    )
    assert find_attributes(text, "content", "meta")[0] == (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_its_script_works_with_strict_json_of_the_model_and_of_every_rule(text: str, candidate: Candidate) -> None:
    data = documents.parse(find_scripts(text)[1].encode())
    assert data["model"] == documents.parse(candidate.files["model.json"])
    names = ("code", "subject", "expression", "low", "high", "meaning", "is_hard")
    assert [[rule[name] for name in names] for rule in data["rules"]] == [
        [getattr(rule, name) for name in names] for rule in rules.ROWS
    ]


def test_it_is_built_for_everybody(text: str) -> None:
    assert text.startswith('<!doctype html>\n<html lang="en">\n')
    headings = [int(level) for level in re.findall(r"<h([1-6])\b", text)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    names, labels = find_attributes(text, "id"), find_attributes(text, "for", "label")
    assert len(set(names)) == len(names)
    assert set(find_attributes(text, "id", "input")) == set(labels)
    assert len(labels) == 31


def test_it_names_what_makes_its_release_and_never_the_time(text: str, candidate: Candidate) -> None:
    inputs = bundle.hash_inputs(candidate.inputs)
    files = {name: content for name, content in candidate.files.items() if name != "index.html"}
    assert [what for what in (inputs, *map(documents.digest, files.values())) if what not in text] == []
    assert page.write_page(candidate._replace_ids(), files, inputs) == text


def test_of_another_table_it_claims_nothing_that_only_its_author_knows(candidate: Candidate) -> None:
    report = candidate.metrics.report
    other = replace(report, provenance=replace(report.provenance, fingerprint="0" * 64))
    text = page.write_page(other, candidate.files, "01234567")
    assert [claim for claim in ("Wisconsin", "1996", "10.24432", "one hospital") if claim in text] == []
    assert "its author must say" in text


def test_bcw_releases_show_says_where_it_is_and_that_releases_of_the_past_have_none(
    tmp_path: Path, one_release: dict[str, bytes], text: str
) -> None:
    store = with_all(FolderStore(tmp_path), one_release)
    assert Path(report_release(store, None)["page"]).read_text() == text
    assert report_release(FolderStore(PAST[0]), None)["page"] is None
