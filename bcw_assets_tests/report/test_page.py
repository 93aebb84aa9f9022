"""The page of a release as a file: whole in itself, and nothing in it but what its release says."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from bcw_assets import documents
from bcw_assets.ml.table import rules
from bcw_assets.releases import bundle
from bcw_assets.releases.candidate import Candidate
from bcw_assets.report import page


class Outline(HTMLParser):
    """The elements of a page in their order, each with its attributes, and what stands in its scripts and its style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.style, self.data, self.script = re.findall(r"<(?:style|script)[^>]*>(.*?)</", text, flags=re.DOTALL)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def find(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="session")
def text(candidate: Candidate) -> str:
    return candidate.files["index.html"].decode()


@pytest.fixture(scope="session")
def outline(text: str) -> Outline:
    return Outline(text)


def test_it_is_small_and_refers_to_nothing_outside(text: str, outline: Outline) -> None:
    assert len(text.encode()) <= 200_000
    for tag, attributes in outline.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert re.search(r"https?:|//[a-z]+\.|url\(|@import|fetch\(|XMLHttp|WebSocket|import\(", text) is None


def test_its_policy_lets_nothing_be_executed_or_loaded_but_its_own_script_and_style(outline: Outline) -> None:
    script, style = (
        base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        for content in (outline.script, outline.style)
    )
    (policy,) = (meta["content"] for meta in outline.find("meta") if "http-equiv" in meta)
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not any(
        name == "style" or name.startswith("on") for _, attributes in outline.elements for name in attributes
    )


def test_what_its_script_works_with_is_strict_json_of_the_model_and_of_every_rule(
    outline: Outline, candidate: Candidate
) -> None:
    data = documents.parse(outline.data.encode())
    model = json.loads(candidate.files["model.json"])
    assert data["model"] == {name: model[name] for name in data["model"]}
    kept = [(rule["code"], rule["expression"], rule["low"], rule["high"]) for rule in data["rules"]]
    assert kept == [(rule.code, rule.expression, rule.low, rule.high) for rule in rules.ROWS]
    assert set(re.findall(r"\*\* (\S+?)\)?(?= |$)", " ".join(rule.expression for rule in rules.ROWS))) == {"2"}


def test_it_is_built_for_everybody(text: str, outline: Outline) -> None:
    assert text.startswith("<!doctype html>\n")
    assert outline.find("html") == [{"lang": "en"}]
    headings = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    names = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(set(names)) == len(names)
    labels = {label.get("for") for label in outline.find("label")}
    assert {field["id"] for field in outline.find("input") if field.get("type") != "radio"} <= labels


def test_it_names_what_makes_its_release_and_never_the_time(text: str, candidate: Candidate) -> None:
    assert f"Release {bundle.hash_inputs(candidate.inputs)}" in text
    for name, content in candidate.files.items():
        assert (documents.digest(content) in text) == (name != "index.html")
    files = {name: content for name, content in candidate.files.items() if name != "index.html"}
    assert page.write_page(candidate._without_ids(), files, bundle.hash_inputs(candidate.inputs)) == text


def test_of_another_table_it_claims_nothing_that_only_its_author_knows(candidate: Candidate) -> None:
    report = candidate.metrics.report
    other = replace(report, provenance=replace(report.provenance, fingerprint="0" * 64))
    text = page.write_page(other, candidate.files, "01234567")
    assert [claim for claim in ("Wisconsin", "1996", "10.24432", "one hospital") if claim in text] == []
    assert "its author must say" in text
