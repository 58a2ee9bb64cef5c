"""The measurement of the pages: every page has an address, and the benchmarks' page says what was reached."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from benchmarks.page_browser import memory_mb
from benchmarks.page_servers import our_pages, pages
from benchmarks.pages_report import pages_section
from benchmarks.pages_speed import Visitor
from benchmarks.report import PAGES, keep

TIMES = ("cold_ms", "warm_ms", "document_first_ms", "document_ms", "server_cpu_ms", "browser_cpu_ms")


def found(**changes: Any) -> dict[str, Any]:
    """What a run measures."""
    peers = [
        {"server": server, "part": "table", "state": "cold", "ms": ms, "ratio": ms / 500.0}
        for server, ms in (("metaloom", 500.0), ("mlflow", 4000.0), ("optuna", 1500.0))
    ]
    page = {"page": "/searches/{name}", **dict.fromkeys(TIMES, 500.0)}
    episodes = {"where": "step = 1", "pages": 30, "first_ms": 90.0, "median_ms": 80.0, "p95_ms": 120.0}
    memory = {"pss": 250.0, "rss": 300.0}
    about = {"machine": "a machine", "cpus": 2, "turns": 5, "trials": 1000, "load": 0.5}
    return {
        **about,
        "pages": [page],
        "episodes": episodes,
        "peers": peers,
        "memory_mb": memory,
        "apart_mb": 350.0,
        **changes,
    }


def test_the_section_says_what_is_reached_and_what_is_not(tmp_path: Path) -> None:
    keep(tmp_path, {PAGES: found()})
    text = (tmp_path / "benchmarks.md").read_text()
    assert "## Pages of a store" in text and "**not reached**" not in text
    assert "at least 3.0 times" in text and "1,000 trials" in text
    assert "was not measured" in text
    live = {"trials": 60, "turns": 2, "watched_s": 9.0, "alone_s": 5.0, "beside_s": 5.2, "cost": 0.04}
    assert "under 1%: **not reached** (+4.0%" in pages_section(found(live=live))
    slow = found(memory_mb={"pss": 450.0, "rss": 500.0})
    slow["pages"][0]["cold_ms"] = 1200.0
    slow["episodes"]["p95_ms"] = 301.0
    slow["peers"][2]["ratio"] = 1.9
    assert pages_section(slow).count("**not reached**") == 4


def test_every_page_has_an_address(pages_store: Path) -> None:
    addresses = our_pages(pages_store, "first")
    assert addresses["/"] == "/"
    assert addresses["/searches/{name}"] == "/searches/first"
    assert all("{" not in address for address in addresses.values())


LARGE = ("libtorch", "sklearn")  # in the paths of what a process has loaded
MOST_MB = 300  # of the server on a small store; a search of 1,000 trials adds some 100


def test_the_server_stays_small_whatever_is_asked_of_it(pages_store: Path) -> None:
    with pages(pages_store) as served:
        visitor = Visitor(served)
        for address in our_pages(pages_store, "first").values():
            for part in parts(visitor.get(address)[1]):
                visitor.get(part)
        visitor.get("/searches/first/trials/3/knowledge/parts/state")
        server = psutil.Process(served.pid)
        assert loaded(server) == []
        assert memory_mb(server)["rss"] < MOST_MB
        (apart,) = (one for one in server.children() if "apart_main" in " ".join(one.cmdline()))
        assert loaded(apart) == list(LARGE)  # it alone has drawn the importances and what was learned
    assert not apart.is_running()  # it ends with the server


def parts(document: str) -> Iterator[str]:
    """Yield the addresses of a page's charts and parts."""
    for found in re.findall(r'(?:data-chart|hx-get|src)="(/searches/[^"]*)"', document):
        yield found.replace("&amp;", "&")


def loaded(process: psutil.Process) -> list[str]:
    """Return which of the large packages a process has loaded."""
    paths = [one.path for one in process.memory_maps()]
    return [name for name in LARGE if any(name in path for path in paths)]
