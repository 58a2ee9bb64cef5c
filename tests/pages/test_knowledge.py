"""The page of meta-knowledge: charts of what was learned, over the outer steps, and beside another trial."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import requests

from metaloom.dashboards import queries
from metaloom.dashboards.canvas import canvas
from metaloom.dashboards.knowledge_charts.images import png_of
from metaloom.dashboards.knowledge_charts.kinds import sections_of
from metaloom.dashboards.knowledge_charts.pairs import pair_of
from metaloom.dashboards.knowledge_charts.selection import other_of, place_of
from metaloom.dashboards.knowledge_facts import FACTS, LearnedFacts, TrialKnowledge, reading
from metaloom.dashboards.knowledge_figures import DRAWERS, Picture, read_knowledge
from metaloom.dashboards.queries import QueryError
from metaloom.dashboards.store_reader import OpenStore
from metaloom.learners.errors import BadInput
from metaloom.workers.errors import CheckpointError
from metaloom.workers.records.names import META_KNOWLEDGE_FILE, SNAPSHOTS_FOLDER, trial_directory
from tests.pages.conftest import Served, opened, serving, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGE = "/searches/second/trials/0/knowledge"


def settled(page: "Page") -> None:
    """Wait until the parts are there and all charts in view are drawn."""
    page.wait_for_selector("#knowledge section")
    wait_for(page, "!document.querySelector('#knowledge[aria-busy=true]')")
    page.locator("#chart-update\\.rates-own").scroll_into_view_if_needed()
    page.wait_for_selector("#chart-update\\.rates-own[data-drawn]")


def numbers(page: "Page", figure: str) -> dict[str, float]:
    """Return the numbers of a chart by their names, as its table shows them."""
    page.locator(f"#{figure} summary").click()
    page.locator(f"#{figure} tbody tr").first.wait_for()  # the table is filled when it is opened
    rows = page.locator(f"#{figure} tbody tr").all()
    found = [[cell.inner_text() for cell in row.locator("td").all()] for row in rows]
    page.locator(f"#{figure} summary").click()
    return {cells[1]: float(cells[-1]) for cells in found}


def rate(store: Path, trial: int, step: int | None) -> float:
    directory = trial_directory(store / "searches" / "second", trial)
    panel: Any = reading.facts_at(directory, step).facts["update.rates"].panels[0]
    return float(panel.values[0])


def test_the_slider_shows_each_kept_step_by_keyboard(
    page: "Page", served: Served, screenshot: Callable[..., None]
) -> None:
    page.goto(served.address + PAGE)
    settled(page)
    slider = page.get_by_role("slider", name="Outer step")
    assert slider.get_attribute("aria-valuetext") == "the last state (of 4 steps)"
    assert numbers(page, "chart-update\\.rates-own")["all layers"] == pytest.approx(
        rate(served.store, 0, None), rel=1e-4
    )
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_selector("#knowledge p:has-text('trial 0, step 0.')")
    assert slider.get_attribute("aria-valuetext") == page.locator("#step-text").inner_text() == "step 0"
    settled(page)
    assert numbers(page, "chart-update\\.rates-own")["all layers"] == pytest.approx(0.1)
    page.keyboard.press("Escape")
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#knowledge p:has-text('trial 0, step 2.')")
    settled(page)
    assert numbers(page, "chart-update\\.rates-own")["all layers"] == pytest.approx(rate(served.store, 0, 2), rel=1e-4)
    screenshot(page, "knowledge")


def test_two_trials_stand_side_by_side_on_the_same_axes_with_their_difference(
    page: "Page", served: Served, axe: Callable[["Page"], None], screenshot: Callable[..., None]
) -> None:
    page.goto(served.address + PAGE)
    page.get_by_label("Beside trial").fill("1")
    page.get_by_role("button", name="Compare").click()
    settled(page)
    figures = [f"chart-update\\.rates-{side}" for side in ("own", "other", "difference")]
    for figure in figures:
        page.locator(f"#{figure}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#{figure}[data-drawn]")
    own, other, apart = (numbers(page, figure)["all layers"] for figure in figures)
    assert apart == pytest.approx(other - own, rel=1e-3)
    left, right = (
        page.evaluate(f"document.querySelector('#{figure} .plot').layout.xaxis.range".replace("\\", "\\\\"))
        for figure in figures[:2]
    )
    assert left == right
    page.locator("#over-update\\.rates summary").first.click()
    page.wait_for_selector("#chart-update\\.rates-steps")
    page.locator("#chart-update\\.rates-steps").scroll_into_view_if_needed()
    page.wait_for_selector("#chart-update\\.rates-steps[data-drawn]")
    axe(page)
    screenshot(page, "knowledge-beside")
    page.set_viewport_size({"width": 390, "height": 800})
    wait_for(page, "document.documentElement.scrollWidth <= innerWidth")  # the charts follow a moment later


def test_a_trial_of_another_search_stands_beside_it(page: "Page", served: Served) -> None:
    page.goto(f"{served.address}{PAGE}?with=first:0")
    settled(page)
    assert page.locator("#knowledge h3", has_text="first, trial 0, step").count() > 0


def status(served: Served, page: "Page", path: str) -> int:
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
    try:
        with urlopen(Request(served.address + path, headers={"Cookie": cookies}), timeout=60) as answer:
            return int(answer.status)
    except HTTPError as problem:
        return problem.code


def test_what_cannot_be_read_is_said_in_its_place(chromium: "Browser", pages_store: Path, tmp_path: Path) -> None:
    shutil.copytree(pages_store, tmp_path / "store")
    directory = trial_directory(tmp_path / "store" / "searches" / "second", 0)
    (directory / SNAPSHOTS_FOLDER / "step-00000002.safetensors").write_bytes(b"damaged")
    with serving(tmp_path / "store") as served, opened(chromium, base_url=served.address) as page:
        page.goto(served.url(f"{PAGE}?step=2"))
        page.wait_for_selector("#knowledge :text('cannot be read')")
        page.get_by_role("slider").press("End")
        settled(page)


def test_what_there_is_not_is_refused(page: "Page", served: Served) -> None:
    assert status(served, page, PAGE) == 200
    assert status(served, page, f"{PAGE}?with=77") == 422
    assert status(served, page, "/searches/second/trials/77/knowledge") == 404
    assert status(served, page, f"{PAGE}/nothing.png") == 404
    assert status(served, page, f"{PAGE}/data.distilled.png") == 404, "nothing was distilled"
    assert status(served, page, f"{PAGE}/..%2f..%2fconfig.png") == 404
    assert status(served, page, "/searches/second/charts/learned.json?trial=0&kind=none") == 404
    assert status(served, page, "/searches/second/charts/learned.json?trial=0&kind=update.rates&side=top") == 422
    assert status(served, page, "/searches/second/charts/learned.json?kind=update.rates") == 422


def test_which_trial_and_which_step_are_shown(pages_store: Path, tmp_path: Path) -> None:
    store = OpenStore(pages_store)
    place = place_of(store, "second", 0)
    assert (place.kept, place.steps, place.running) == ((0, 2), 4, False)
    assert [place.near(step) for step in (None, 0, 1, 2, 3, 4, 9)] == [None, 0, 0, 2, 2, None, None]
    other = other_of(store, "second", "first:0")
    assert other is not None and other.label == "first, trial 0"
    same = other_of(store, "second", " 1 ")
    assert same is not None and same.label == "trial 1"
    assert other_of(store, "second", "") is None
    with pytest.raises(BadInput, match="the text 'one' names no trial; allowed: a number such as 4, or SEARCH:4"):
        other_of(store, "second", "one")
    with pytest.raises(QueryError, match="second: no trial is named '5'"):
        place_of(store, "second", 5)


def test_the_page_has_the_facts_of_the_figures(pages_store: Path) -> None:
    pair = pair_of(OpenStore(pages_store), "second", 0, {})
    knowledge = read_knowledge(trial_directory(pages_store / "searches" / "second", 0))
    direct = {kind: found for kind in sorted(FACTS) if (found := FACTS[kind](knowledge)) is not None}
    assert dict(pair.facts.facts) == direct
    assert set(direct) == {"initialization.distance", "update.rates"}
    assert pair.kinds == sorted(direct)


def test_the_words_are_those_of_show(pages_store: Path) -> None:
    store = OpenStore(pages_store)
    best = queries.search_summary(pages_store, "second")["best"]["id"]
    told = {row.name: row.caption for row in queries.learned(pages_store, "second", best)}
    found = pair_of(store, "second", best, {}).facts.facts.values()
    assert told == {one.name: one.caption for one in found}


def test_what_a_package_draws_by_itself_is_shown_and_its_errors_hide_nothing(
    pages_store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def drawn(knowledge: TrialKnowledge) -> Picture:
        return Picture("own", "Drawn by itself.", canvas(1.0, 1.0))

    def broken(knowledge: TrialKnowledge) -> LearnedFacts:
        raise ZeroDivisionError

    directory = tmp_path / "store" / "searches" / "second"
    shutil.copytree(pages_store / "searches" / "second", directory)  # other files: nothing of them was read before
    DRAWERS.add("initialization.own", drawn)
    FACTS.add("initialization.broken", broken)
    try:
        pair = pair_of(OpenStore(tmp_path / "store"), "second", 0, {})
        sections = {section.kind: section.columns[0] for section in sections_of(pair)}
        assert sections["initialization.own"].caption == "Drawn by itself."
        assert png_of(pair.own, "initialization.own", None, 0).startswith(b"\x89PNG")
        assert sections["initialization.broken"].failed.startswith("ZeroDivisionError")
        assert "ZeroDivisionError" in caplog.text
        assert sections["update.rates"].charts
    finally:
        DRAWERS.remove("initialization.own")
        FACTS.remove("initialization.broken")


def test_a_running_trial_shows_its_newest_checkpoint_and_an_old_one_its_last_state(
    pages_store: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "trial"
    shutil.copytree(trial_directory(pages_store / "searches" / "second", 0), directory)
    whole = reading.facts_at(directory, None)
    (directory / META_KNOWLEDGE_FILE).unlink()
    (directory / "shown_episode.safetensors").unlink()
    running = reading.facts_at(directory, None)
    assert (running.step, running.shown_step) == (4, 2)
    assert running.facts["update.rates"] == whole.facts["update.rates"]
    assert running.facts["initialization.distance"] != whole.facts["initialization.distance"]
    assert sorted(reading.over_steps(directory, "update.rates")) == [0, 2, 4]
    (directory / SNAPSHOTS_FOLDER / "step-00000002.safetensors").write_bytes(b"damaged")
    assert sorted(reading.over_steps(directory, "update.rates")) == [0, 4]
    with pytest.raises(CheckpointError, match="cannot be read"):
        reading.facts_at(directory, 2)
    shutil.rmtree(directory / SNAPSHOTS_FOLDER)
    old = reading.facts_at(directory, None)
    assert old.shown_step is None and set(old.facts) == {"update.rates"}


def test_a_trial_that_is_not_there_is_told_beside_its_field(served: Served) -> None:
    with requests.Session() as session:
        session.get(served.url(), timeout=60)
        for given, said in (
            ("9", "no trial is named &#39;9&#39;"),
            ("9" * 5000, "names no trial"),
            ("x", "names no trial"),
        ):
            answer = session.get(f"{served.address}/searches/first/trials/0/knowledge?with={given}", timeout=60)
            assert answer.status_code == 422 and said in answer.text.partition('id="beside-problem"')[2][:300]
            assert "hx-include" not in answer.text  # the trial's own state is read
