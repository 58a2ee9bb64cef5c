"""What the tests of pages share: a real browser, a store with two real searches, and a real server on it.

Without Chromium the tests that need it are skipped. Screenshots are kept in the folder that METALOOM_ARTIFACTS names.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.pages import stores
from tests.support.processes import Process

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
ARTIFACTS = "METALOOM_ARTIFACTS"
PATIENCE_MS = 60_000  # a loaded machine
WORST = ("serious", "critical")


@dataclass(frozen=True)
class Served:
    """A running ``metaloom ui``: its address without a path, the secret of the entry, its process and its store.

    ``warned`` ends it, and returns what it has written on stderr.
    """

    address: str
    entry: str
    pid: int
    store: Path
    read_only: bool = False
    process: Process | None = None

    def warned(self) -> str:
        """End the server, and return its stderr."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=60)[1]

    def url(self, path: str = "/") -> str:
        """Return an address that lets a browser in."""
        return f"{self.address}{path}{'&' if '?' in path else '?'}entry={self.entry}"


@contextmanager
def serving(store: Path, *options: str) -> Iterator[Served]:
    """Run ``metaloom ui`` on a store within this context."""
    if "--port" not in options:  # not one of the first ports, which the tutorials' own servers take
        with socket.create_server(("127.0.0.1", 0)) as free:
            options = (*options, "--port", str(free.getsockname()[1]))
    process = Process("-m", "metaloom", "ui", "--no-browser", "--json", "--store", str(store), *options)
    text = ""
    try:
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            text += line
        found = json.loads(text)
        place = urlsplit(found["url"])
        entry = parse_qs(place.query)["entry"][0]
        yield Served(f"{place.scheme}://{place.netloc}", entry, found["pid"], store, found["read_only"], process)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@pytest.fixture(scope="session")
def pages_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the searches ``first`` and ``second`` (stores.py); tests that change it take a copy."""
    return stores.make(tmp_path_factory.mktemp("pages") / "store")


@pytest.fixture(scope="session")
def served(pages_store: Path) -> Iterator[Served]:
    """``metaloom ui`` on that store."""
    with serving(pages_store) as found:
        yield found


@pytest.fixture(scope="session")
def read_only(pages_store: Path) -> Iterator[Served]:
    """``metaloom ui --read-only`` on that store."""
    with serving(pages_store, "--read-only") as found:
        yield found


@pytest.fixture(scope="session")
def chromium() -> Iterator["Browser"]:
    """A real Chromium without a window."""
    if BROWSER is None:
        pytest.skip("there is no Chromium here: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: "Browser", *, expected: tuple[str, ...] = (), **options: Any) -> Iterator["Page"]:
    """Open a page within this context; fails at the end if it had an error in its console or a failed request.

    ``expected`` are parts of the errors that a test brings about, such as a form that is refused.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    troubles: list[str] = []

    def keep(message: "ConsoleMessage") -> None:
        if message.type == "error" and not any(one in message.text for one in expected):
            troubles.append(f"console: {message.text} ({message.location.get('url')})")

    page.on("console", keep)
    page.on("pageerror", lambda error: troubles.append(f"script: {error}"))
    page.on(
        "requestfailed",
        lambda request: (
            (request.failure or "").endswith("ERR_ABORTED")  # the page was left while it loaded
            or troubles.append(f"request: {request.url} {request.failure}")
        ),
    )
    try:
        yield page
    finally:
        context.close()
    assert troubles == []


def wait_for(page: "Page", expression: str) -> None:
    """Wait until a JavaScript expression holds; ``wait_for_function`` takes eval for a text, which the pages forbid."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"waited in vain for {expression}"
        page.wait_for_timeout(50)


@pytest.fixture
def page(chromium: "Browser", served: Served) -> Iterator["Page"]:
    """A page of the served store, let in; it fails the test on any error in its console."""
    with opened(chromium, base_url=served.address) as found:
        found.goto(served.url())
        yield found


@pytest.fixture
def axe() -> "Callable[[Page], None]":
    """Return a check that axe-core finds no serious violation on a page."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page: "Page") -> None:
        found = Axe().run(page).response["violations"]
        bad = [
            (one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:5]])
            for one in found
            if one["impact"] in WORST
        ]
        assert bad == [], page.url

    return check


@pytest.fixture
def screenshot() -> "Callable[[Page, str], None]":
    """Return a function that keeps a screenshot of a page among the artifacts of the run, if they are asked for."""

    def keep(page: "Page", name: str) -> None:
        if folder := os.environ.get(ARTIFACTS):
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    return keep


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of metaloom to its end, in a new interpreter."""
    return subprocess.run([sys.executable, "-m", "metaloom", *command], capture_output=True, text=True, timeout=120)
