"""``metaloom report``: one file that a real browser opens without a network, prints, and finds nothing wrong with."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from metaloom.dashboards.report_page.page import html_report
from metaloom.learners.errors import BadEnvironment, BadInput
from metaloom.learners.redaction import redacted
from metaloom.orchestrator import housekeeping, reporting
from metaloom.orchestrator.command_line import cli
from tests.pages.conftest import BROWSER, Served, opened

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MOST_BYTES = 3_000_000
SCRIPT = "<script>document.title = 'run'</script>"
VOID = {"meta", "img", "link", "br", "input"}


@pytest.fixture(scope="module")
def store(pages_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pages' store, with a note that is a script."""
    copied = Path(shutil.copytree(pages_store, tmp_path_factory.mktemp("report") / "store"))
    housekeeping.note("first", SCRIPT, store=copied)
    return copied


@pytest.fixture(scope="module")
def file(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of its first search."""
    return reporting.report("first", out=tmp_path_factory.mktemp("reports") / "first.html", store=store).file


@pytest.fixture
def offline(chromium: "Browser") -> "Iterator[Page]":
    """A page of a browser without a network."""
    with opened(chromium) as page:
        page.context.set_offline(True)
        yield page


class Tags(HTMLParser):
    """Checks that elements are closed in their order, and that ids are there once."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in VOID else [tag]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_file_is_whole_small_and_asks_for_nothing(file: Path) -> None:
    text = file.read_text()
    tags = Tags()
    tags.feed(text)
    tags.close()
    assert tags.open == [] and len(set(tags.ids)) == len(tags.ids)
    assert len(tags.addresses) >= 6 and all(one.startswith("data:image/") for one in tags.addresses)
    assert len(text) < MOST_BYTES and "<script" not in text and "http://" not in text.replace("http://www.w3.org", "")


def test_it_opens_without_a_network_and_says_everything(
    offline: "Page", file: Path, axe: "Callable[[Page], None]", screenshot: "Callable[[Page, str], None]"
) -> None:
    offline.goto(file.as_uri())
    assert offline.title() == "Search first" and SCRIPT in offline.locator("blockquote").inner_text()
    heads = offline.get_by_role("heading").all_inner_texts()
    wanted = [
        "At a glance",
        "What was searched",
        "Test",
        "Learning curves",
        "When the trials ran",
        "Adaptation to new tasks",
    ]
    assert set(wanted) <= set(heads) and any(one.startswith("What trial") for one in heads)
    assert offline.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 100)")
    shown = offline.locator("main").inner_text()
    assert "Lead over nearest_neighbour" in shown and "metaloom verify first-bundle" in shown
    assert "source: glyphs" in offline.locator("pre").nth(1).inner_text()  # the experiment file
    assert offline.get_by_role("table").count() >= 3
    axe(offline)
    offline.set_viewport_size({"width": 390, "height": 800})
    assert offline.evaluate("document.documentElement.scrollWidth") <= 390  # tables scroll in themselves
    screenshot(offline, "report")


def test_a_search_with_too_little_for_a_figure_has_a_report_without_it(store: Path) -> None:
    text = html_report(store, "second", shares=lambda name, search: None)
    assert "Importance of the knobs" not in text and "Each knob against the value" in text
    assert "Pareto front" not in text and "Methods" not in text


def test_secrets_are_looked_for_in_the_text_and_not_in_the_images(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def kept(text: str) -> str:
        given.append(text)
        return redacted(text)

    monkeypatch.setattr("metaloom.dashboards.report_page.page.redacted", kept)
    text = html_report(store, "second", shares=lambda name, search: None)
    (page,) = given  # in images it takes seconds, and finds nothing
    assert "base64," not in page and len(page) < len(text) / 2
    addresses = re.findall(r'<img src="([^"]*)"', text)
    assert len(addresses) >= 4 and all(one.startswith("data:image/") for one in addresses)


def test_the_numbers_are_those_of_show(file: Path, store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["show", "first", "--json", "--store", str(store)]) == 0
    summary: dict[str, Any] = json.loads(capfd.readouterr().out)
    text, best, test = file.read_text(), summary["best"], summary["test"]["evaluation"]
    low, high = best["interval"]
    assert f"{best['value']:.4f} [{low:.4f}, {high:.4f}] (trial {best['id']})" in text
    assert f"{test['mean']:.4f}" in text and f"<td>{test['episodes']}</td>" in text
    difference = summary["baselines"][0]["best_better_by"]
    assert f"{difference['mean']:+.4f}" in text


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here: apt install chromium")
def test_it_is_printed_to_a_pdf_and_never_replaced_unasked(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.html"

    def run(*options: str) -> tuple[int, Any]:
        capfd.readouterr()
        code = cli.run(["report", "second", "--out", str(out), "--json", "--store", str(store), *options])
        return code, json.loads(capfd.readouterr().out)

    monkeypatch.setenv(reporting.BROWSER_VARIABLE, str(BROWSER))
    code, found = run("--pdf")
    assert code == 0 and found == {"name": "second", "file": str(out), "bytes": out.stat().st_size, "pdf": found["pdf"]}
    content = Path(found["pdf"]).read_bytes()
    assert content.startswith(b"%PDF") and len(content) > 20_000 and content.rstrip().endswith(b"%%EOF")
    code, refused = run()
    assert code == 2 and "exists already" in refused["error"] and "--force" in refused["error"]
    before = out.read_bytes()
    monkeypatch.setenv(reporting.BROWSER_VARIABLE, str(tmp_path / "nothing"))
    code, refused = run("--pdf", "--force")
    assert code == 3 and "install Chromium" in refused["error"] and out.read_bytes() == before
    assert run("--force")[0] == 0


def test_what_cannot_be_written_is_said(store: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"ends in \.html"):
        reporting.report("first", out=tmp_path / "r.txt", store=store)
    with pytest.raises(BadInput, match="did you mean 'first'"):
        reporting.report("frist", out=tmp_path / "r.html", store=store)
    failing = tmp_path / "browser"
    failing.write_text("#!/bin/sh\necho no display >&2\nexit 7\n")
    failing.chmod(0o700)
    with pytest.raises(BadEnvironment, match=r"exit code 7.*\nno display"):
        reporting.print_to_pdf(str(failing), tmp_path / "r.html")


def test_the_pages_lead_to_it_when_it_is_written(page: "Page", served: Served) -> None:
    page.goto("/searches/second/report.html")
    page.wait_for_url("**/report.html?version=*", timeout=120_000)
    page.get_by_role("heading", name="At a glance").wait_for()
    assert page.title() == "Search second"
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 100)")
