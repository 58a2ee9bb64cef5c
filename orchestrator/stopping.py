"""``metaloom stop``: tells the process that runs a search to end as Ctrl-C does, with complete records.

A second signal would end that process at once, so each session of a search is told once, also where several ask.
"""

import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.journal import owner
from metaloom.orchestrator.store import DEFAULT_STORE, Store, command, explained
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord

POLL_S = 0.1
REUSED_S = 1.0  # a process that began so much later than the lock was taken has the number of an earlier one


@dataclass(frozen=True)
class Stopping:
    """A search that was told to stop.

    Attributes:
        pid: The process that runs it.
        told_before: Whether it had been told already; it gets no second signal.
        ended: Whether it has ended in the time that was waited.
    """

    name: str
    pid: int
    told_before: bool
    ended: bool


def stop(name: str, *, store: str | Path = DEFAULT_STORE, wait_s: float = 0.0) -> Stopping:
    """Tell the process that runs a search to stop; its records are complete, and it can be resumed.

    Args:
        name: The search.
        store: Folder of all records.
        wait_s: How long its end is waited for.

    Raises:
        SearchError: No process on this machine runs the search, or the one that does takes no signal.
    """
    folder = Store(store).existing_folder(name)
    process, record = owner(folder), SearchRecord.read(folder)
    runner = _runner(folder, process, record)
    told_before = not _note(folder, record.session)
    if not told_before:
        try:
            runner.send_signal(signal.SIGINT)  # psutil looks again whether it is this process
        except psutil.NoSuchProcess:
            raise SearchError(_gone(folder)) from None
        except psutil.AccessDenied:
            _mark(folder, record.session).unlink(missing_ok=True)
            raise SearchError(f"process {runner.pid}, which runs search '{name}', belongs to another user") from None
    deadline = time.monotonic() + wait_s
    while (runs := _holds(folder, process, runner)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return Stopping(name, runner.pid, told_before, not runs)


def _runner(folder: Path, process: dict[str, Any], record: SearchRecord) -> psutil.Process:
    """Return the process that runs a search; raises SearchError if there is none that a signal stops."""
    name, host = folder.name, process.get("host")
    if not process:
        raise SearchError(f"no process runs search '{name}' ({record.state}); there is nothing to stop")
    if host != socket.gethostname():
        there = f"it is run by process {process['pid']} on {host}, and no signal reaches another machine"
        raise SearchError(f"search '{name}' cannot be stopped from here: {there}; on {host}: {command('stop', folder)}")
    try:
        runner = psutil.Process(int(process["pid"]))
        if runner.create_time() > float(process["time"]) + REUSED_S or runner.status() == psutil.STATUS_ZOMBIE:
            raise psutil.NoSuchProcess(runner.pid)
    except psutil.NoSuchProcess:
        raise SearchError(_gone(folder)) from None
    if record.state != records.RUNNING or record.process.get("pid") != runner.pid:
        busy = f"process {runner.pid} is preparing search '{name}', or changes its records"
        raise SearchError(f"{busy}; a search can be stopped once its trials run")
    if not process.get("takes_signals", True):
        inside = f"a thread of process {runner.pid}, which a signal does not reach"
        raise SearchError(f"search '{name}' is run by {inside}; end it in that program")
    return runner


def _gone(folder: Path) -> str:
    again = f"go on with it by: {command('resume', folder)}"
    return f"no process runs search '{folder.name}': the one that did is gone; {again}"


def _holds(folder: Path, process: dict[str, Any], runner: psutil.Process) -> bool:
    """Return whether a process still has the search: its lock, with which it ends a session."""
    return owner(folder) == process and runner.is_running() and runner.status() != psutil.STATUS_ZOMBIE


def _mark(folder: Path, session: int) -> Path:
    return folder / f"{records.STOPPING_FILE}{session}"


def is_stopping(folder: Path, session: int) -> bool:
    """Return whether a session of the search in ``folder`` has been told to stop."""
    return _mark(folder, session).exists()


def _note(folder: Path, session: int) -> bool:
    """Note that a session is told to stop; return False if it had been."""
    with explained(folder):
        for path in folder.glob(f"{records.STOPPING_FILE}*"):
            if path != _mark(folder, session):
                path.unlink(missing_ok=True)
        try:
            os.close(os.open(_mark(folder, session), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
    return True
