"""Strikes a process from within, at an instant of its writing that can be named and repeated.

``arm`` is called first in the process. It counts the instants: every some instructions of any SQLite statement, every
sync, rename and removal of a file. At the one that is asked for, the process is killed or finds the disk full. Without
one it writes their number to a file at the end, so that all of them can be tried.
"""

import atexit
import os
import random
import resource
import signal
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

INSTRUCTIONS = 2000  # of SQLite's machine, between two instants


class _Count:
    """The instants so far."""

    def __init__(self) -> None:
        self.number = 0
        self.began = time.monotonic()
        self.lock = threading.Lock()


def arm(at: int | None, action: str, counted: str, *, seconds: float = 15.0, seed: int = 0) -> None:
    """Count this process's instants of writing, and strike at the instant ``at``.

    Args:
        at: From 1; None: never.
        action: ``kill``, ``kill soon`` (some milliseconds later, from another thread: within a write) or ``no room``.
        counted: The file that gets the number of instants at the end.
        seconds: Instants later than this are not counted.
    """
    count, connect, replaced, synced, removed = _Count(), sqlite3.dbapi2.connect, os.replace, os.fsync, os.unlink

    def instant() -> int:
        with count.lock:
            if time.monotonic() - count.began <= seconds:
                count.number += 1
                if count.number == at:
                    _strike(action, seed)
        return 0

    def connected(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.set_progress_handler(instant, INSTRUCTIONS)
        return connection

    def before(function: Any) -> Any:
        def counting(*arguments: Any, **options: Any) -> Any:
            instant()
            return function(*arguments, **options)

        return counting

    sqlite3.connect = sqlite3.dbapi2.connect = connected  # type: ignore[assignment]
    os.replace, os.fsync, os.unlink = before(replaced), before(synced), before(removed)
    atexit.register(lambda: Path(counted).write_text(str(count.number)))


def _strike(action: str, seed: int) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "kill soon":
        delay = random.Random(seed).uniform(0.0, 0.01)
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    elif action == "no room":
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    else:
        raise ValueError(action)


def kill_after_checkpoint(number: int) -> None:
    """Kill this process between its checkpoint ``number``, counted over all trials from 1, and the report of it."""
    replaced, seen = os.replace, [0]

    def replace(source: Any, target: Any, **options: Any) -> None:
        replaced(source, target, **options)
        name = Path(os.fspath(target)).name
        if name.startswith("checkpoint-") and name.endswith(".json"):
            seen[0] += 1
            if seen[0] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
