"""The list of searches: its values, filters and orders, what it cannot read, and comparisons as by command."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metaloom.dashboards import queries
from metaloom.dashboards.text import better_by, scored
from tests.pages.conftest import Served, opened, run, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def wider(pages_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a copy of the store with an empty search and one that cannot be read."""
    store = tmp_path_factory.mktemp("wider") / "store"
    shutil.copytree(pages_store, store)
    (store / "searches" / "empty").mkdir()
    (store / "searches" / "torn" / "trials" / "0000").mkdir(parents=True)
    (store / "searches" / "torn" / "journal.db").write_bytes(b"no database" * 100)
    with serving(store) as found:
        yield found


def names(page: "Page") -> list[str]:
    """Return the searches that the list shows."""
    found: list[str] = page.locator("#searches tbody th a").all_inner_texts()
    return found


def row(page: "Page", name: str) -> str:
    """Return the text of a search's row."""
    return page.locator("#searches tbody tr", has=page.get_by_role("link", name=name, exact=True)).inner_text()


def test_a_row_has_the_best_its_lead_its_cost_and_its_course(page: "Page", served: Served) -> None:
    page.goto("/")
    told = queries.search_summary(served.store, "first")
    text = row(page, "first")
    assert scored(told["best"]["value"], told["best"]["interval"]) in text
    assert better_by(told["baselines"][0]["best_better_by"]) in text
    assert f"{len(told['trials'])} of {told['asked']}" in text
    line = page.locator("#searches tbody tr", has_text="validation_accuracy").locator("svg")
    assert line.get_attribute("aria-label") is not None
    assert "Best so far" in str(line.get_attribute("aria-label"))
    assert page.locator("#searches [style]").count() == 0


def test_the_list_is_filtered_and_sorted_and_its_address_says_how(page: "Page", served: Served) -> None:
    page.goto("/")
    newest = [one["name"] for one in queries.list_searches(served.store)]
    assert names(page) == newest == ["second", "first"]
    page.get_by_role("link", name="Search", exact=True).click()
    page.wait_for_url("**/?sort=name")
    assert names(page) == ["first", "second"]
    page.get_by_label("Contains").fill("ACCURACY")
    page.wait_for_url("**q=ACCURACY*")
    assert names(page) == ["first"]
    page.get_by_label("Contains").fill("neither")
    page.get_by_text("No search is left by this filter.").wait_for()
    assert page.goto("/?sort=nam")
    assert "did you mean 'name'" in page.locator("#searches [role=alert]").inner_text()


def test_what_cannot_be_read_has_a_row_that_says_why(chromium: "Browser", wider: Served) -> None:
    with opened(chromium, base_url=wider.address) as page:
        page.goto(wider.url("/"))
        for name in ("empty", "torn"):
            (told,) = [one for one in queries.list_searches(wider.store) if one["name"] == name]
            assert told["state"] in row(page, name)
            for line in told["warnings"]:
                assert line in row(page, name)
        page.get_by_label("unreadable").check()
        page.wait_for_url("**state=unreadable*")
        assert names(page) == ["torn"]
        report = page.request.get(f"{wider.address}/searches/empty/report.html")
        assert report.status == 404 and "has no records" in report.text()  # and not a page that waits for ever


def test_chosen_searches_stay_chosen_and_what_has_nothing_in_common_is_told(page: "Page") -> None:
    page.goto("/")
    page.get_by_label("Compare first").check()
    page.get_by_label("Compare second").check()
    page.get_by_role("link", name="Search", exact=True).click()
    page.wait_for_url("**/?sort=name")
    assert page.get_by_label("Compare first").is_checked()
    page.get_by_role("button", name="Compare the chosen").click()
    page.wait_for_url("**/compare?names=first&names=second")
    assert "metaloom compare" in page.locator("main [role=alert]").inner_text()


def test_a_comparison_is_that_of_the_command(chromium: "Browser", wider: Served) -> None:
    finished = [one["id"] for one in queries.search_summary(wider.store, "second")["trials"]]
    trials = [f"second:{number}" for number in finished]
    assert len(trials) == 2
    with opened(chromium, base_url=wider.address) as page:
        page.goto(wider.url(f"/compare?names={','.join(trials)}"))
        assert "not tested yet" in page.locator("main [role=alert]").inner_text()
        done = run("compare", *trials, "--store", str(wider.store), "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        page.reload()
        text = page.locator("main").inner_text()
    better = told["contenders"][1]["better_than_first"]
    assert scored(told["contenders"][0]["mean"], told["contenders"][0]["interval"]) in text
    assert better_by({"mean": better["mean"], "interval": better["interval"]}) in text
    assert f"same {told['episodes']} test episodes, of seed {told['seed']}" in text
    for differing in told["differing"]:
        assert differing["name"] in text
