"""Every page there is: found in the application, shown by a real browser, judged by axe-core, reached by keyboard."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse

from metaloom.dashboards.pages.app import routers
from tests.pages.conftest import Served, opened, wait_for

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# What stands for each part of an address; a page that needs other values has them in its own test.
EXAMPLES = {"name": "first", "number": "3", "trial": "3", "phase": "validation", "step": "2", "episode": "0"}
EXAMPLES |= {"kind": "mlflow", "names": "first,second"}
QUERIES = {"/compare": "?names=first,second"}
PHONE = (390, 844)
MOST_TABS = 400
FOCUSABLE = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"


def routes() -> list[APIRoute]:
    """Return the routes of all pages: those that answer HTML and are no part of another page."""
    found = [one for router in routers() for one in router.routes if isinstance(one, APIRoute) and "GET" in one.methods]
    return [one for one in found if one.response_class is HTMLResponse and "/parts/" not in one.path]


def example(path: str) -> str:
    """Return an address of a page; a part without an example is an error, so that no page is left out."""
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda part: EXAMPLES[part[1]], path) + QUERIES.get(path, "")


# Scrolls to the first chart that is being loaded; true if there is none.
NEXT_CHART = """() => {
    const waiting = document.querySelector("figure.chart:has(.skeleton)");
    waiting?.scrollIntoView({block: "center"});
    return !waiting;
}"""
PAGES = sorted({route.path for route in routes()})


def test_the_pages_are_found() -> None:
    assert {"/", "/searches/{name}"} <= set(PAGES)


def settle(page: "Page") -> None:
    """Bring each chart into view, and wait until all are drawn, empty, or in trouble."""
    wait_for(page, "!document.querySelector('[aria-busy=true]')")
    wait_for(page, NEXT_CHART)
    page.evaluate("scrollTo(0, 0)")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_in_light_and_dark_by_keyboard_and_on_a_phone(
    chromium: "Browser", served: Served, axe: Callable, screenshot: Callable, path: str
) -> None:
    picture = re.sub(r"[^a-z0-9]+", "-", example(path)).strip("-") or "searches"
    with opened(chromium, base_url=served.address) as page:
        answer = page.goto(served.url(example(path)))
        assert answer is not None and answer.status == 200, page.inner_text("body")[:500]
        settle(page)
        assert page.locator("figure.chart .trouble:visible").all_inner_texts() == []
        assert page.locator("h1").count() == 1
        assert page.title().endswith("Metaloom") and len(page.title()) > len(" · Metaloom")
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            wait_for(page, f"document.documentElement.dataset.theme === '{scheme}'")
            axe(page)
            screenshot(page, f"{picture}-{scheme}")
        check_keyboard(page)
        page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
        page.wait_for_timeout(300)  # the charts take their new width
        check_phone(page)
        screenshot(page, f"{picture}-phone")


def check_phone(page: "Page") -> None:
    """Assert that nothing is wider than the window, but what scrolls in its own box."""
    wide = "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > innerWidth"
    wide += " + 1 && !one.closest('.scroll, .plot, .skip, pre, dialog')).map((one) => one.outerHTML.slice(0, 120))"
    assert page.evaluate(wide) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0] + 1


def check_keyboard(page: "Page") -> None:
    """Assert that Tab reaches everything that can be used."""
    page.evaluate("document.body.removeAttribute('data-version')")  # no refresh while this counts
    mark = f'[...document.querySelectorAll("{FOCUSABLE}")].filter((one) => one.checkVisibility()'
    mark += " && !one.disabled).map((one, index) => (one.dataset.order = index)).length"
    expected = min(page.evaluate(mark), MOST_TABS)
    page.locator(".skip").focus()
    reached = {int(page.evaluate("document.activeElement.dataset.order"))}
    for _ in range(expected + 10):
        page.keyboard.press("Tab")
        found = page.evaluate("document.activeElement?.dataset.order")
        if found is None:
            break
        reached.add(int(found))
    radios = "input[type=radio]:not(:checked)"  # one of a group is reached by Tab, the others by the arrows
    left_out = {int(one.get_attribute("data-order") or 0) for one in page.query_selector_all(radios)}
    assert set(range(expected)) - left_out <= reached


def test_the_keys_of_the_help_work(page: "Page", served: Served) -> None:
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    page.locator("#help").wait_for(state="hidden")
    shown = "document.documentElement.dataset.theme"
    first = page.evaluate(shown)
    assert first == "light"  # the system's
    for asked in ("light", "dark"):
        page.keyboard.press("t")
        wait_for(page, f"document.documentElement.dataset.themeAsked === '{asked}'")
    assert page.evaluate(shown) == "dark"
    page.reload()
    assert page.evaluate(shown) == "dark"  # kept
    page.goto(f"{served.address}/searches/first")
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.wait_for_url(f"{served.address}/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
