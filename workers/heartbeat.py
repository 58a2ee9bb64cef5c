"""The heartbeat of a trial: a file whose time of change is the trial's last sign of life.

The process that holds the trial's lock writes the file once, with its host and number; after that a beat only sets the
time of change. So a beat takes microseconds, needs no room on the disk, and can be watched from other processes. It is
compared with its own last value, never with a clock.
"""

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import NamedTuple

from metaloom.workers.records.names import HEARTBEAT_FILE

INTERVAL_S = 0.5  # at most so often


class TrialProcess(NamedTuple):
    """The process that runs a trial."""

    host: str
    pid: int


class Heartbeat:
    """The heartbeat of the trial in ``directory``, for the process that runs it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / HEARTBEAT_FILE
        self._next = 0.0

    def begin(self) -> None:
        """Name this process as the one that runs the trial."""
        self._path.write_text(json.dumps(TrialProcess(socket.gethostname(), os.getpid())))

    def beat(self) -> None:
        """Show progress: an outer step, an episode of a validation, or a report is done."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL_S
            self.show()

    def show(self) -> None:
        """Show progress to other processes at once."""
        with contextlib.suppress(FileNotFoundError):  # a trial that no executor runs, such as a baseline
            os.utime(self._path)


def last_beat(directory: Path) -> int | None:
    """Return a number that changes with every beat of a trial; None if no process has begun it."""
    try:
        return (directory / HEARTBEAT_FILE).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def process_of(directory: Path) -> TrialProcess:
    """Return the process that has begun the trial last."""
    host, pid = json.loads((directory / HEARTBEAT_FILE).read_text())
    return TrialProcess(host, pid)
