"""The reports that the pages show: each is written by ``metaloom report`` in a process of its own, and kept."""

import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.store import store_option

MOST_KEPT = 20  # the newest; a running search has one for each version that was asked for


@dataclass(frozen=True)
class _Making:
    """A report that is made or was made, and the process that makes it."""

    file: Path
    process: "subprocess.Popen[str]"


class LocalReports:
    """Makes the reports of a store; implements ``dashboards.pages.services.Reports``; safe for threads.

    Args:
        store: Folder of all records.
    """

    def __init__(self, store: Path) -> None:
        self._store = store.absolute()
        self._folder = tempfile.TemporaryDirectory(prefix="metaloom-reports-")
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], _Making] = {}
        self._count = 0

    def knows(self, name: str, version: str) -> bool:
        """Return whether the report of a search at a version is made, or was."""
        with self._lock:
            return (name, version) in self._made

    def made(self, name: str, version: str) -> Path | None:
        """Return the report of a search at a version; None while it is made, which the first call begins."""
        with self._lock:
            making = self._made.get((name, version)) or self._begin(name, version)
            code = making.process.poll()
            if code is None:
                return None
            if code == 0:
                return making.file
            del self._made[name, version]  # the next call tries it again
        said = making.process.stderr.read() if making.process.stderr else ""
        again = f"metaloom report {name}{store_option(self._store)}"
        raise BadInput(f"the report could not be written: {said.strip()[-1000:]}\nsee: {again}")

    def close(self) -> None:
        """End what is being made, and remove what was."""
        with self._lock:
            for making in self._made.values():
                making.process.kill()
                making.process.communicate()
            self._folder.cleanup()

    def _begin(self, name: str, version: str) -> _Making:
        while len(self._made) >= MOST_KEPT:
            oldest = self._made.pop(next(iter(self._made)))
            oldest.process.kill()
            oldest.process.communicate()
            oldest.file.unlink(missing_ok=True)
        self._count += 1
        file = Path(self._folder.name) / f"{self._count}.html"
        command = [
            sys.executable,
            "-m",
            "metaloom",
            "-q",
            "report",
            name,
            "--out",
            str(file),
            "--store",
            str(self._store),
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._made[name, version] = making = _Making(file, process)
        return making
