"""The clock of a session: steady, whatever the machine's own clock does, and noted for the case of a kill."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from metaloom.workers.records.names import CLOCK_FILE


def steady_clock() -> Callable[[], float]:
    """Return a clock in seconds since the epoch that goes on evenly from now, also where the machine's clock is set."""
    start = time.time() - time.monotonic()
    return lambda: start + time.monotonic()


def note_time(folder: Path, session: int, spent_s: float) -> None:
    """Note the time spent up to now in the search in ``folder``; not synced, as a power cut costs a minute at most.

    A full disk costs the note alone: the next event of the journal says that the disk is full.
    """
    try:
        (folder / CLOCK_FILE).write_text(json.dumps({"session": session, "spent_s": spent_s}))
    except OSError:
        return


def noted_time(folder: Path, session: int) -> float:
    """Return what ``note_time`` has noted in ``session``; 0 if there is no note of it that can be read."""
    try:
        noted = json.loads((folder / CLOCK_FILE).read_text())
        return float(noted["spent_s"]) if noted["session"] == session else 0.0
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
