"""Long commands on a search that run apart from the pages: a closed page, or a server that ends, leaves them running.

A job is a folder inside its search's: its commands, what they have printed, and how they ended. The process that runs
it holds a lock of the kernel, so that a killed one is told from one that runs, and at most one job of a kind runs on a
search, also where several servers show the store.
"""

import contextlib
import fcntl
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import filelock

from metaloom.dashboards.pages.services import Job
from metaloom.learners.redaction import clean
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.job_process import END_FILE, JOB_FILE, OUTPUT_FILE
from metaloom.orchestrator.store import explained
from metaloom.workers.records.names import JOBS_FOLDER

LOCK_FILE, KILLED = "lock", -9
MOST_OUTPUT = 64 * 1024  # bytes, the last ones
KEPT = 20  # jobs of a search that have ended
START_S = 60.0


def start(folder: Path, what: str, *commands: Sequence[str], kind: str) -> Job:
    """Run command lines of metaloom, one after another, in a process of its own.

    Args:
        folder: The search's.
        what: Such as ``resume``.
        commands: Their arguments; one that fails ends the job.
        kind: Only one job of a kind runs at a time.

    Raises:
        SearchError: Such a job runs already.
        StoreError: The folder cannot be written.
    """
    place = folder / JOBS_FOLDER
    with explained(place):
        place.mkdir(mode=0o700, exist_ok=True)
        with filelock.FileLock(place / LOCK_FILE):
            for one in _folders(folder):
                if _is_running(one) and _read(one / JOB_FILE).get("kind") == kind:
                    raise SearchError(
                        f"{_read(one / JOB_FILE)['what']} runs already (job {one.name} of '{folder.name}')"
                    )
            _forget_oldest(folder)
            own = place / f"{1 + max((int(one.name) for one in _folders(folder)), default=0):04d}"
            own.mkdir(mode=0o700)
            shown = [{"arguments": list(one), "shown": shlex.join(["metaloom", *one])} for one in commands]
            job = {"what": what, "kind": kind, "search": folder.name, "commands": shown, "time": time.time()}
            (own / JOB_FILE).write_text(json.dumps(job))
            (own / OUTPUT_FILE).touch(0o600)
            _spawn(own)
    return job_of(own)


def jobs(folder: Path) -> list[Job]:
    """Return the jobs of the search in ``folder``, the newest first."""
    return [job_of(one) for one in reversed(_folders(folder))]


def is_busy(folder: Path) -> bool:
    """Return whether a job runs on the search in ``folder``."""
    return any(map(_is_running, _folders(folder)))


def job_of(own: Path) -> Job:
    """Return the job in a folder of its own, as it is now."""
    running = _is_running(own)  # before its end is read: it is written first
    job, end = _read(own / JOB_FILE), _read(own / END_FILE)
    codes = end.get("codes") or []
    code = codes[-1] if codes else None if running else KILLED
    return Job(
        id=own.name,
        what=str(job.get("what", "")),
        search=str(job.get("search", "")),
        output=_output(own / OUTPUT_FILE),
        code=code,
        begun=job.get("time"),
        ended=end.get("time"),
    )


def _spawn(own: Path) -> None:
    """Start the process of a job; it inherits the job's lock."""
    with (own / LOCK_FILE).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(lock.fileno(), True)
        command = [sys.executable, "-m", "metaloom.orchestrator.job_process", str(own), str(lock.fileno())]
        with (own / OUTPUT_FILE).open("ab") as output:
            launcher = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        launcher.wait(START_S)  # it ends when it has left


def _is_running(own: Path) -> bool:
    """Return whether the process of a job holds its lock."""
    try:
        with (own / LOCK_FILE).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / JOBS_FOLDER).glob("[0-9]*") if path.is_dir())


def _forget_oldest(folder: Path) -> None:
    """Remove the oldest jobs that have ended, so that few are kept."""
    ended = [one for one in _folders(folder) if not _is_running(one)]
    for one in ended[: max(0, len(ended) - KEPT + 1)]:
        for name in (JOB_FILE, OUTPUT_FILE, END_FILE, LOCK_FILE):
            (one / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies in it
            one.rmdir()


def _output(path: Path) -> str:
    """Return the end of what a job has printed, without secrets."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MOST_OUTPUT))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    cut = "" if size <= MOST_OUTPUT else f"({size - MOST_OUTPUT} bytes before are left out)\n"
    return cut + "\n".join(clean(line) for line in text.splitlines())


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, ValueError):
        return {}
