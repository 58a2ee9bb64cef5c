"""How fast the pages of a store open, beside MLflow's UI and optuna-dashboard on the same trials.

    python -m benchmarks.pages_speed --store STORE [--name glyphs] [--turns 5] [--leave-out mlflow]

STORE is made by ``python -m benchmarks.page_store``. Every page of the application is opened in a real Chromium: with
an empty cache ("cold"), then again in the same profile. A page is there when its document is and every chart in the
window is drawn. The server's own time is that of the document alone. The peers' time is that until the first rows of
their table of trials, and until the first marks of their plot of the history; ours and theirs are opened in turns.
"""

import argparse
import json
import re
import statistics
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psutil

from benchmarks.page_browser import Opened, chromium, cpu_of, memory_mb, opened, profile
from benchmarks.page_servers import PEER_PAGES, Served, our_pages, pages, peer, peer_page
from benchmarks.page_store import NAME
from benchmarks.pages_live import live_cost
from benchmarks.report import DOCS, PAGES, keep, machine
from metaloom.dashboards import queries

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FILTERED = {"where": "phase == 'validation' and accuracy_after < 0.6"}
NEXT = re.compile(r'<a rel="next" href="([^"]+)"')
PARTS = ("table", "history")
LIVE_EPISODES = 500  # of a trial that is followed
OUR_PARTS = {  # of our page of a search
    "table": """() => document.querySelectorAll("table tbody tr").length > 10 ? performance.now() : 0""",
    "history": """() => {
      const plot = document.querySelector('figure.chart[data-chart*="/objective"] .js-plotly-plot .main-svg .trace, '
        + 'figure.chart[data-chart*="/objective"] .js-plotly-plot canvas');
      return plot ? performance.now() : 0;
    }""",
}


class Visitor:
    """Asks a server for documents, with the cookie of one profile."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        self._opener.open(served.entry).read()

    def get(self, path: str) -> tuple[float, str]:
        """Return the milliseconds until a document was there, and the document."""
        started = time.perf_counter()
        with self._opener.open(self.served.address + path) as answer:
            text = answer.read().decode()
        return 1e3 * (time.perf_counter() - started), text


def page_rows(browser: "Browser", served: Served, addresses: Mapping[str, str], turns: int) -> list[dict[str, Any]]:
    """Open every page, cold and warm, and return the medians."""
    visitor, process, rows = Visitor(served), psutil.Process(served.pid), []
    for path, address in addresses.items():
        first, _ = visitor.get(address)
        alone = [visitor.get(address)[0] for _ in range(turns)]
        before = cpu_of(process)
        found = [_cold_and_warm(browser, served, address) for _ in range(turns)]
        cold, warm = zip(*found, strict=True)
        rows.append(
            {
                "page": path,
                "cold_ms": _median(cold, lambda one: one.ms),
                "warm_ms": _median(warm, lambda one: one.ms),
                "browser_cpu_ms": 1e3 * _median(warm, lambda one: one.cpu_s),
                "server_cpu_ms": 1e3 * (cpu_of(process) - before) / (2 * turns),
                "document_first_ms": first,
                "document_ms": statistics.median(alone),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _cold_and_warm(browser: "Browser", served: Served, address: str) -> tuple[Opened, Opened]:
    with profile(browser, served.entry) as context:
        return opened(context, served.address + address), opened(context, served.address + address)


def episode_pages(served: Served, name: str, count: int) -> dict[str, Any]:
    """Page through filtered episodes; return the milliseconds of a page, and how many pages there were."""
    visitor, path, times = Visitor(served), f"/searches/{name}/episodes?{urlencode(FILTERED)}", list[float]()
    first, text = visitor.get(path)
    while len(times) < count and (found := NEXT.search(text)):
        spent, text = visitor.get(found[1].replace("&amp;", "&"))
        times.append(spent)
    slowest = sorted(times)[max(0, int(0.95 * len(times)) - 1)] if times else None
    return {
        "where": FILTERED["where"],
        "pages": len(times),
        "first_ms": first,
        "median_ms": statistics.median(times) if times else None,
        "p95_ms": slowest,
    }


def beside_peers(
    browser: "Browser", served: Served, store: Path, name: str, kinds: Sequence[str], turns: int
) -> list[dict[str, Any]]:
    """Open the same parts of ours and of the peers in turns; return the medians, and how many times ours theirs are."""
    ours = {part: (served.address, served.entry, f"/searches/{name}", OUR_PARTS[part]) for part in PARTS}
    times: dict[tuple[str, str, str], list[float]] = {}
    with ExitStack() as stack:
        running = {"metaloom": ours}
        for kind in kinds:
            address = stack.enter_context(peer(kind, store))
            running[kind] = {part: (address, "", *peer_page(kind, store, name, part)) for part in PARTS}
        for _ in range(turns):
            for kind, parts in running.items():
                for part, (address, entry, path, ready) in parts.items():
                    with profile(browser, entry) as context:
                        for state in ("cold", "warm"):
                            found = opened(context, address + path, ready)
                            times.setdefault((kind, part, state), []).append(found.ms)
    rows = []
    for (kind, part, state), found_ms in times.items():
        mine = times["metaloom", part, state]
        ratio = statistics.median(one / own for one, own in zip(found_ms, mine, strict=True))
        rows.append({"server": kind, "part": part, "state": state, "ms": statistics.median(found_ms), "ratio": ratio})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def apart_mb(server: psutil.Process) -> float:
    """Return the proportional memory of the processes that a server has started, in MB."""
    return sum(memory_mb(one)["pss"] for one in server.children(recursive=True))


def _median(found: Sequence[Opened], read: Callable[[Opened], float]) -> float:
    return statistics.median(map(read, found))


def main() -> None:
    """Measure, keep the rows, and print one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages_speed", description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--name", default=NAME, help="the search")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--episode-pages", type=int, default=30)
    parser.add_argument("--live-trials", type=int, default=30, help="of the search that is followed; 0: none is")
    parser.add_argument("--leave-out", action="append", default=[], choices=list(PEER_PAGES), help="a peer")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of the page and its records")
    options = parser.parse_args()
    kinds = [kind for kind in PEER_PAGES if kind not in options.leave_out]
    with pages(options.store) as served, chromium() as browser:
        found: dict[str, Any] = {
            "machine": machine(),
            "cpus": psutil.cpu_count(),
            "turns": options.turns,
            "trials": sum(queries.listed_search(options.store, options.name).trials.values()),
            "load": psutil.getloadavg()[0],
            "pages": page_rows(browser, served, our_pages(options.store, options.name), options.turns),
            "episodes": episode_pages(served, options.name, options.episode_pages),
        }
        found["peers"] = beside_peers(browser, served, options.store, options.name, kinds, options.turns)
        found["memory_mb"] = memory_mb(psutil.Process(served.pid))
        found["apart_mb"] = apart_mb(psutil.Process(served.pid))
        if options.live_trials:
            sizes = {"trials": options.live_trials, "episodes": LIVE_EPISODES * options.live_trials}
            found["live"] = live_cost(browser, **sizes, turns=min(options.turns, 3))
    keep(options.out, {PAGES: found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
