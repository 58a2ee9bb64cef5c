"""Opens pages in a real Chromium and times them from the navigation's start until everything in view is drawn."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOOK_MS = 20  # looking at each frame would make the browser lay out more often
PATIENCE_MS = 180_000  # MLflow's first page on a loaded machine
WINDOW = {"width": 1280, "height": 800}
# Ours: the document is there, and every chart in the window is drawn; one that failed never is.
OURS = """() => {
  if (document.readyState !== "complete") return 0;
  const inView = (one) => {
    const box = one.getBoundingClientRect();
    return box.height > 0 && box.bottom > 0 && box.top < window.innerHeight;
  };
  const charts = [...document.querySelectorAll("figure.chart")].filter(inView);
  return charts.every((one) => one.dataset.drawn) ? performance.now() : 0;
}"""
# A table that holds this many rows, or a plot of Plotly with marks in it.
ROWS = """() => document.querySelectorAll('[role="row"], tbody tr').length > 10 ? performance.now() : 0"""
MARKS = ".js-plotly-plot .scatterlayer .point, .js-plotly-plot .bars .point, .js-plotly-plot .trace"
PLOT = f"""() => document.querySelector("{MARKS}") ? performance.now() : 0"""


@dataclass(frozen=True)
class Opened:
    """How a page opened: the milliseconds since the navigation's start, and the browser's own seconds of CPU."""

    ms: float
    cpu_s: float


@contextmanager
def chromium() -> "Iterator[Browser]":
    """A Chromium without a window; SystemExit where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        raise SystemExit("benchmarks: there is no Chromium here: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def profile(browser: "Browser", entry: str = "") -> "Iterator[BrowserContext]":
    """A new profile, which has an empty cache and, with ``entry``, the cookie that this address gives."""
    context = browser.new_context(viewport=WINDOW)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE_MS)
    try:
        if entry:
            context.request.get(entry)
        yield context
    finally:
        context.close()


def opened(context: "BrowserContext", address: str, ready: str = OURS) -> Opened:
    """Open an address in a new tab, and close it once ``ready`` returns the time."""
    page = context.new_page()
    try:
        before = cpu_of_browsers()
        page.goto(address, wait_until="commit")
        found = page.wait_for_function(ready, polling=LOOK_MS).json_value()
        return Opened(float(found), cpu_of_browsers() - before)
    finally:
        page.close()


def cpu_of_browsers() -> float:
    """Return the CPU seconds of the browsers that this process has started."""
    return sum(cpu_of(one) for one in psutil.Process().children(recursive=True) if "chrom" in name_of(one))


def cpu_of(process: psutil.Process) -> float:
    """Return the CPU seconds of a process; 0 if it has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def name_of(process: psutil.Process) -> str:
    """Return the name of a process; empty if it has ended."""
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def memory_mb(process: psutil.Process) -> Mapping[str, float]:
    """Return the proportional and the resident memory of a process in MB (Linux)."""
    found = process.memory_full_info()
    return {"pss": found.pss / 2**20, "rss": found.rss / 2**20}
