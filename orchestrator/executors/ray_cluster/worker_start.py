"""Ray's worker processes: how many start, and their import path."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

SPARES = 1
EACH_BYTES = 2**30  # memory that a worker may need; one without work takes 0.25 GiB of its own


def with_spares(needed: int) -> int:
    """Return how many workers to start: those that are needed, and spare ones if the memory allows.

    A spare worker has imported what a trial needs, and takes over the trial of a lost one (``workers.Spare``).
    """
    room = psutil.virtual_memory().available > (needed + SPARES) * EACH_BYTES
    return needed + (SPARES if room else 0)


def driver_folders() -> tuple[str, ...]:
    """Return the folders that Ray puts at the front of its workers' import path: the current one and the script's."""
    return str(Path.cwd()), str(Path(os.path.realpath(sys.argv[0])).parent)


def put_last(folders: Sequence[str]) -> None:
    """Move the folders that Ray has put at the front of this process's import path behind the installed packages.

    A file there may have the name of a package, such as ``torch.py``. A user's own modules are still found.
    """
    for folder in folders:
        if sys.path and sys.path[0] == folder:
            sys.path.append(sys.path.pop(0))
