"""What an open page costs a search that runs: processor seconds of a process that records trials and trains nothing.

The page of that search is open in Chromium, follows it by itself, and asks for its version each second. A process that
only records pays for readers of its records as a search does, and has no training that would hide it. Processor seconds
are blurred less than times on a loaded machine, and the least of several turns less than their mean.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.page_browser import profile
from benchmarks.page_servers import pages
from benchmarks.page_store import NAME

if TYPE_CHECKING:
    from playwright.sync_api import Browser

LOOK_S = 0.2


def live_cost(browser: "Browser", *, trials: int, episodes: int, turns: int) -> dict[str, Any]:
    """Record searches with and without an open page, in turns; return the processor seconds of each."""
    found: dict[bool, list[float]] = {False: [], True: []}
    watched = 0.0
    for _ in range(turns):
        for is_watched in found:
            with tempfile.TemporaryDirectory(prefix="metaloom-live-") as folder:
                store = Path(folder) / "store"
                store.mkdir()
                recorder = recording(store, trials, episodes)
                begun = time.monotonic()
                found[is_watched].append(_watched(browser, store, recorder) if is_watched else _ended(recorder))
                watched += (time.monotonic() - begun) * is_watched
    alone, beside = min(found[False]), min(found[True])
    return {
        "trials": trials, "turns": turns, "watched_s": watched / max(turns, 1), "alone_s": alone, "beside_s": beside,
        "cost": beside / alone - 1.0,
    }  # fmt: skip


def recording(store: Path, trials: int, episodes: int) -> "subprocess.Popen[bytes]":
    """Start the process that records a search."""
    sizes = ["--trials", str(trials), "--episodes", str(episodes), "--others", "0", "--no-databases"]
    command = [sys.executable, "-m", "benchmarks.page_store", str(store), *sizes]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _watched(browser: "Browser", store: Path, recorder: "subprocess.Popen[bytes]") -> float:
    """Keep the page of the search open until it is recorded; return the recorder's processor seconds."""
    with pages(store) as served, profile(browser, served.entry) as context:
        page = context.new_page()
        process, address = psutil.Process(recorder.pid), f"{served.address}/searches/{NAME}"
        while process.status() != psutil.STATUS_ZOMBIE and not ((answer := page.goto(address)) and answer.ok):
            time.sleep(LOOK_S)  # it is not there yet
        return _ended(recorder)


def _ended(recorder: "subprocess.Popen[bytes]") -> float:
    """Wait for a process, and return its processor seconds; SystemExit if it failed."""
    _, status, used = os.wait4(recorder.pid, 0)
    recorder.returncode = os.waitstatus_to_exitcode(status)
    if recorder.returncode:
        raise SystemExit(f"benchmarks: recording a search ended with exit code {recorder.returncode}")
    return used.ru_utime + used.ru_stime
