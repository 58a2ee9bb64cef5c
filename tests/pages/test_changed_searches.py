"""Searches are renamed, annotated and deleted from the list, as the command line does it; a deletion is asked twice."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metaloom.dashboards import queries
from metaloom.workers.records.names import search_names
from tests.pages.conftest import Served, opened, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCRIPT = "<script>document.title = 'taken'</script>"


@pytest.fixture(scope="module")
def own(pages_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve a copy of the store that these tests change."""
    store = tmp_path_factory.mktemp("own") / "store"
    shutil.copytree(pages_store, store)
    with serving(store) as found:
        yield found


def change(page: "Page", name: str) -> None:
    """Open the forms that change a search."""
    page.goto("/")
    page.get_by_label(f"Change {name}: rename, note, delete").click()
    page.get_by_role("heading", name=f"Change {name}").wait_for()


def test_a_search_is_renamed_and_annotated_and_its_note_stays_text(chromium: "Browser", own: Served) -> None:
    with opened(chromium, base_url=own.address) as page:
        page.goto(own.url("/"))
        change(page, "second")
        page.get_by_label("New name").fill("renamed")
        page.get_by_role("button", name="Rename", exact=True).click()
        page.wait_for_url("**/searches/renamed/control*")
        assert search_names(own.store) == ["first", "renamed"]
        change(page, "renamed")
        page.get_by_label("Note, which stays").fill(SCRIPT)
        page.get_by_role("button", name="Add the note").click()
        page.wait_for_url("**/searches/renamed/control*")
        page.goto("/")
        assert SCRIPT in page.locator("#searches").inner_text()
        assert page.title() == "Searches · Metaloom"
    assert queries.search_summary(own.store, "renamed")["notes"] == [SCRIPT]


def test_a_search_is_deleted_when_it_is_asked_twice(chromium: "Browser", own: Served) -> None:
    with opened(chromium, base_url=own.address) as page:
        page.goto(own.url("/"))
        change(page, "first")
        page.get_by_role("button", name="Delete first").click()
        dialog = page.get_by_role("dialog", name="Delete first")
        dialog.get_by_role("button", name="Delete first").click()
        assert "first" in search_names(own.store)  # the name is not typed
        dialog.get_by_label("Type first").fill("frist")
        dialog.get_by_role("button", name="Delete first").click()
        assert "first" in search_names(own.store)
        dialog.get_by_label("Type first").fill("first")
        dialog.get_by_role("button", name="Delete first").click()
        page.wait_for_url(f"{own.address}/")
        assert "first" not in search_names(own.store)


def test_a_read_only_server_offers_no_change(chromium: "Browser", pages_store: Path) -> None:
    with serving(pages_store, "--read-only") as served, opened(chromium, base_url=served.address) as page:
        page.goto(served.url("/"))
        assert page.get_by_role("link", name="first", exact=True).is_visible()
        assert page.get_by_label("Change first: rename, note, delete").count() == 0
