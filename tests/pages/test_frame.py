"""The frame of all pages: its files, its registries, the address that lets a browser in."""

import hashlib
import re
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metaloom.dashboards.charts import palette
from metaloom.dashboards.charts.base import Chart, ChartSource, ChartTable, to_document
from metaloom.dashboards.charts.registry import chart_kind, charts
from metaloom.dashboards.pages import static_files
from metaloom.dashboards.pages.context import environment
from metaloom.dashboards.queries import QueryError
from metaloom.dashboards.store_reader import OpenStore
from metaloom.workers.records.search import SearchRecord
from tests.pages.conftest import Served

if TYPE_CHECKING:
    from playwright.sync_api import Page

HTMX = "22283ef68cb7545914f0a88a1bdedc7256a703d1d580c1d255217d0a50d31313"  # htmx.org 2.0.8 as its authors publish it
MOST_LINES = 300
REFUSED = re.compile(r" style=|<style|javascript:| on[a-z]+=| hx-on|\|\s*safe|autoescape")
PAGES = Path(static_files.__file__).parent


def test_htmx_is_the_published_one_with_its_licence() -> None:
    vendor = static_files.STATIC / "vendor"
    assert hashlib.sha256((vendor / "htmx.min.js").read_bytes()).hexdigest() == HTMX
    assert (vendor / "htmx.LICENSE.txt").read_text().startswith("Zero-Clause BSD")


def test_scripts_styles_and_templates_are_short() -> None:
    files = [path for kind in ("*.js", "*.css", "*.html") for path in PAGES.rglob(kind) if "vendor" not in path.parts]
    assert len(files) > 10
    lines = {path.name: len(path.read_text().splitlines()) for path in files}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_templates_have_neither_scripts_nor_styles_nor_handlers_in_them() -> None:
    for path in (PAGES / "templates").rglob("*.html"):
        text = path.read_text()
        assert not REFUSED.search(text), path
        assert text.count("<script") == text.count('<script src="{{ static('), path


def test_a_chart_becomes_short_json_whose_user_text_stays_text() -> None:
    data = [
        {"x": [1.23456789, float("nan")], "name": "<img src=x onerror=alert(1)>", "hovertemplate": "%{x}<br><b>y</b>"}
    ]
    found = to_document(Chart("t", data, {}, ChartTable(["<i>"], [["<script>", 1.0]])))
    assert found["data"] == [
        {"x": [1.23457, None], "name": "&lt;img src=x onerror=alert(1)>", "hovertemplate": "%{x}<br><b>y</b>"}
    ]
    assert found["table"]["rows"] == [["<script>", 1.0]]  # the browser shows a cell as text


def test_an_unknown_chart_is_refused_and_the_palette_tells_states_apart() -> None:
    assert isinstance(charts(), dict)
    with pytest.raises(QueryError, match="no chart is named 'nothing'"):
        chart_kind("nothing")
    assert len(set(palette.STATE_COLOURS.values())) == len(set(palette.STATE_MARKERS.values())) == 5


def test_the_chart_of_the_documentation_is_drawn(pages_store: Path, tmp_path: Path) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "dashboards.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    (tmp_path / "steps_chart.py").write_text(example)
    spec = spec_from_file_location("steps_chart", tmp_path / "steps_chart.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    chart = module.CHART.draw(ChartSource(OpenStore(pages_store), "first"))
    assert to_document(chart)["table"]["rows"][3] == [3, 8]


def test_the_list_leads_to_a_search(page: "Page", served: Served) -> None:
    assert page.url == f"{served.address}/"  # without the secret
    page.get_by_role("link", name="first", exact=True).click()
    assert page.get_by_role("heading", level=1).inner_text().startswith("first")
    assert page.title() == "first · Metaloom"


def test_what_has_changed_before_the_first_question_is_fetched(page: "Page", served: Served) -> None:
    address = f"{served.address}/searches/first"
    shown = re.search('data-shown="(.+?)"', page.request.get(address).text())
    assert shown is not None and page.request.get(f"{address}/version").json() == {"version": shown[1]}
    page.route("**/first/version", lambda route: route.fulfill(json={"version": "of a later time"}))
    with page.expect_request("**/first/parts/header*"):  # as in a tab that was opened in the background
        page.goto(address)


def test_the_parts_that_follow_a_search_hold_what_changes(pages_store: Path) -> None:
    def shown(part: str, **values: object) -> str:
        return environment().get_template(f"parts/{part}.html").render(name="first", now=0.0, **values)

    record = SearchRecord.read(pages_store / "searches" / "first")
    waiting = replace(record.trials[3], reports=[])
    head = {"facts": (), "is_best": False, "stands": "", "advice": ()}
    assert "No report yet." in shown("trial_head", trial=waiting, **head)
    assert "No report yet." not in shown("trial_head", trial=record.trials[3], **head)
    state = shown("control_state", record=record, changes=False, stopping=False, ended=True)
    assert re.search(r"7 of 7 trials begun, [\d.]+ s spent", state)
