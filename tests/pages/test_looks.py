"""How the pages behave in a real browser: live changes, a lost server, a broken chart, empty and interrupted stores."""

import os
import re
import shutil
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metaloom.orchestrator.journal import Journal
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from tests.pages.conftest import BROWSER, PATIENCE_MS, Served, opened, serving, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHART = {
    "title": "<b>Made up</b>",
    "data": [{"type": "scatter", "mode": "lines", "x": [1, 2], "y": [2, 1], "name": "&lt;img src=x>"}],
    "layout": {"xaxis": {"title": {"text": "&lt;script>"}}},
    "table": {
        "heads": ["<i>head"],
        "rows": [
            [
                "<script>alert(1)</script>",
            ],
            [1.5],
        ],
    },
    "note": "<b>a note",
    "choices": [{"name": "knob", "label": "Knob", "options": [["a", "A"], ["b", "<B>"]], "chosen": "a"}],
}
FIGURE = """
    const figure = document.createElement("figure");
    figure.className = "chart";
    figure.dataset.chart = "/searches/first/charts/made-up.json";
    figure.dataset.live = "";
    for (const [tag, name, inner] of [["figcaption", "", ""], ["div", "choices", ""], ["div", "plot skeleton", ""],
      ["p", "note", ""], ["div", "trouble", "<p></p><button data-action='retry'>Try again</button>"],
      ["details", "as-table", "<summary>Show as table</summary><div class='scroll'></div>"]]) {
      const part = document.createElement(tag);
      part.className = name;
      part.innerHTML = inner;
      figure.append(part);
    }
    document.querySelector("main").prepend(figure);
    document.dispatchEvent(new CustomEvent("htmx:load", {bubbles: true}));
"""


def test_a_chart_is_drawn_with_its_text_as_text(
    chromium: "Browser", served: Served, screenshot: "Callable[[Page, str], None]"
) -> None:
    """The chart is answered by the test, and drawn by the page's own script and Plotly."""
    with opened(chromium, base_url=served.address) as page:
        page.goto(served.url("/searches/first"))
        page.route("**/charts/made-up.json*", lambda route: route.fulfill(json=CHART))
        page.evaluate(FIGURE)
        figure = page.locator("figure.chart").first
        figure.locator(".plot .xtitle").wait_for()
        assert figure.locator(".xtitle").text_content() == "<script>"
        assert figure.locator("figcaption").inner_text() == CHART["title"]
        assert figure.locator(".note").inner_text() == CHART["note"]
        figure.get_by_text("Show as table").click()
        assert figure.locator("th").inner_text() == "<i>head"
        assert figure.locator("td").all_inner_texts() == ["<script>alert(1)</script>", "1.5"]
        with page.expect_request("**/made-up.json?knob=b"):
            figure.get_by_label("Knob").select_option("b")
        before = page.evaluate("getComputedStyle(document.querySelector('.xtitle')).fill")
        page.keyboard.press("Escape")
        page.locator("h1").click()
        page.keyboard.press("t")
        page.keyboard.press("t")
        wait_for(page, f"getComputedStyle(document.querySelector('.xtitle')).fill !== '{before}'")
        screenshot(page, "chart-dark")


def test_a_broken_chart_says_what_failed_and_can_be_tried_again(chromium: "Browser", served: Served) -> None:
    context = chromium.new_context(base_url=served.address)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(served.url("/searches/first"))
    page.evaluate(FIGURE)  # there is no such chart: the server answers 404
    figure = page.locator("figure.chart").first
    trouble = figure.locator(".trouble p")
    trouble.wait_for()
    assert "This chart could not be shown: no chart is named 'made-up'" in trouble.inner_text()
    assert not figure.locator(".plot").is_visible()
    page.route("**/charts/made-up.json*", lambda route: route.fulfill(json=CHART))
    figure.get_by_role("button", name="Try again").click()
    figure.locator(".xtitle").wait_for()
    assert not trouble.is_visible()
    context.close()


def test_a_store_without_searches_says_how_to_begin(
    chromium: "Browser", tmp_path: Path, axe: "Callable[[Page], None]", screenshot: "Callable[[Page, str], None]"
) -> None:
    with serving(tmp_path) as served, opened(chromium, base_url=served.address) as page:
        page.goto(served.url())
        assert f"metaloom search quick --store {tmp_path}" in page.inner_text("main")
        axe(page)
        screenshot(page, "empty-store")


def test_a_dead_driver_and_then_a_dead_server_are_shown_as_what_they_are(
    chromium: "Browser", pages_store: Path, tmp_path: Path, screenshot: "Callable[[Page, str], None]"
) -> None:
    store = tmp_path / "store"
    shutil.copytree(pages_store, store)
    with serving(store) as served:
        context = chromium.new_context(base_url=served.address)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(served.url("/searches/second"))
        assert page.locator("#lost").is_hidden()
        with Journal(store / "searches" / "second") as journal:  # a driver began, and is gone
            gone = {"pid": 2**22 + 1, "host": os.uname().nodename}
            journal.append_all([Event(0, 2e9, None, records.SEARCH_STARTED, gone)])
        page.reload()
        assert "metaloom resume second" in page.inner_text("main")
        assert page.locator(".badge").first.inner_text() == "interrupted"
        screenshot(page, "interrupted")
        os.kill(served.pid, signal.SIGKILL)
        page.locator("#lost").wait_for()
        assert re.search(r"No answer from the server since \d", page.inner_text("#lost"))
        screenshot(page, "lost")
        context.close()


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_mlflow_is_one_click_away_at_the_runs_of_the_search(page: "Page", served: Served) -> None:
    page.goto(f"{served.address}/searches/first")
    page.get_by_role("button", name="Open MLflow").first.click()
    page.wait_for_url(re.compile(r"/companions/mlflow\?search=first|#/experiments/"))
    page.wait_for_url(re.compile(r"#/experiments/\d+/runs\?viewStateShareKey=metaloom-"), timeout=120_000)


@pytest.mark.skipif(BROWSER is None or not find_spec("optuna_dashboard"), reason="no Chromium, or no optuna-dashboard")
def test_optuna_dashboard_is_one_click_away_at_the_study_and_at_a_trial(page: "Page", served: Served) -> None:
    for place, wanted, shown in (
        ("/searches/first", r"/dashboard/studies/\d+$", "Hyperparameter Importance"),
        ("/searches/first/trials/0", r"/dashboard/studies/\d+/trials\?numbers=0$", "Trial 0 (trial_id="),
    ):
        page.goto(f"{served.address}{place}")
        page.get_by_role("button", name="Open optuna-dashboard").first.click()
        page.wait_for_url(re.compile(wanted), timeout=120_000)
        page.get_by_text(shown).first.wait_for()
    assert "so can any site that your browser shows" in page.request.get(f"{served.address}/companions/optuna").text()


def test_a_companion_that_is_not_installed_says_how(page: "Page", served: Served) -> None:
    if find_spec("optuna_dashboard"):
        pytest.skip("optuna-dashboard is installed here")
    page.goto(f"{served.address}/searches/first")
    page.get_by_role("button", name="Open optuna-dashboard").first.click()
    assert "pip install optuna-dashboard" in page.inner_text("main")
