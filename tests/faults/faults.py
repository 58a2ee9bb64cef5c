"""What can happen to a search: faults that strike its processes, and damage to its files between two sessions."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from metaloom.workers.records import names
from metaloom.workers.records.journal_sources import read_journal
from metaloom.workers.records.search import SearchRecord
from tests.faults.driver import Place, server, workers
from tests.support.processes import Process

KILLED = -signal.SIGKILL
DAY_S = 86_400


@dataclass(frozen=True)
class Fault:
    """Something that strikes a running search.

    Attributes:
        strike: Do it; return whether it could be done (there may be no worker to kill).
        codes: The driver's exit codes that tell the truth; empty: the search goes on.
        executors: Where it can happen.
    """

    name: str
    strike: Callable[[Process, random.Random], bool]
    codes: Sequence[int]
    executors: Sequence[str] = ("inline", "ray")


@dataclass(frozen=True)
class Damage:
    """Something that happens to the files of a search while nothing runs; ``do`` returns whether it could be done."""

    name: str
    do: Callable[[Place, random.Random], bool]


def _signalled(*numbers: signal.Signals, group: bool = False) -> Callable[[Process, random.Random], bool]:
    def strike(process: Process, draw: random.Random) -> bool:
        with suppress(ProcessLookupError):
            for number in numbers:
                os.killpg(process.pid, number) if group else os.kill(process.pid, number)
                time.sleep(0.05)
        return True

    return strike


def _kill_a_worker(process: Process, draw: random.Random) -> bool:
    found = workers(process)
    if found:
        draw.choice(found).kill()
    return bool(found)


def _kill_a_server(name: str) -> Callable[[Process, random.Random], bool]:
    def strike(process: Process, draw: random.Random) -> bool:
        found = server(process, name)
        if found is not None:
            found.kill()
        return found is not None

    return strike


def _no_room(process: Process, draw: random.Random) -> bool:
    """Let no file of the driver grow beyond a few kilobytes, as on a full disk."""
    with suppress(psutil.NoSuchProcess):
        limit = draw.choice([1, 4, 16]) * 1024
        psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, (limit, limit))
        return True
    return False


FAULTS = (
    Fault("kill -9 of the driver", _signalled(signal.SIGKILL), (KILLED,)),
    Fault("kill -9 of the process group", _signalled(signal.SIGKILL, group=True), (KILLED,)),
    Fault("kill -9 of a worker", _kill_a_worker, (), ("ray",)),
    Fault("kill -9 of raylet", _kill_a_server("raylet"), (3,), ("ray",)),
    Fault("kill -9 of gcs_server", _kill_a_server("gcs_server"), (3,), ("ray",)),
    Fault("SIGINT", _signalled(signal.SIGINT), (130,)),
    Fault("SIGINT twice", _signalled(signal.SIGINT, signal.SIGINT), (130,)),
    Fault("SIGTERM", _signalled(signal.SIGTERM), (143,)),
    Fault("SIGTERM to the process group", _signalled(signal.SIGTERM, group=True), (143,)),
    Fault("SIGHUP", _signalled(signal.SIGHUP), (129,)),
    Fault("no room for any file", _no_room, (3,), ("inline",)),
)


def flipped(path: Path, draw: random.Random) -> bool:
    """Flip one bit of a file."""
    if not path.is_file() or not path.stat().st_size:
        return False
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    return True


def cut(path: Path, draw: random.Random) -> bool:
    """Cut a file at a random byte."""
    if not path.is_file() or not path.stat().st_size:
        return False
    os.truncate(path, draw.randrange(path.stat().st_size))
    return True


def zeroed(path: Path, draw: random.Random) -> bool:
    """Overwrite a file with zeros."""
    if not path.is_file() or not path.stat().st_size:
        return False
    path.write_bytes(bytes(path.stat().st_size))
    return True


def deleted(path: Path, draw: random.Random) -> bool:
    """Delete a file."""
    if not path.is_file():
        return False
    path.unlink()
    return True


HARM = {"flipped": flipped, "cut": cut, "zeroed": zeroed, "deleted": deleted}


def _newest(pattern: str, harm: str) -> Callable[[Place, random.Random], bool]:
    """Harm the file that was written last among those that match, of the trials that go on.

    An ended trial is not computed again: what reads it goes back to the checkpoint before, and tells so.
    """

    def do(place: Place, draw: random.Random) -> bool:
        trials = SearchRecord.replay(read_journal(place.folder).events).trials
        ended = {number for number, trial in trials.items() if trial.ended}
        files = sorted(place.folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)
        files = [path for path in files if int(path.parents[1].name) not in ended]
        return bool(files) and HARM[harm](files[-1], draw)

    return do


def _file(name: str, harm: str, *, of_store: bool = False) -> Callable[[Place, random.Random], bool]:
    def do(place: Place, draw: random.Random) -> bool:
        return HARM[harm]((place.store if of_store else place.folder) / name, draw)

    return do


CHECKPOINTS = f"{names.TRIALS_FOLDER}/*/{names.CHECKPOINTS_FOLDER}"
DAMAGES = (
    *(Damage(f"newest checkpoint {harm}", _newest(f"{CHECKPOINTS}/*.safetensors", harm)) for harm in HARM),
    *(Damage(f"newest manifest {harm}", _newest(f"{CHECKPOINTS}/*.json", harm)) for harm in HARM),
    *(Damage(f"journal {harm}", _file(names.JOURNAL_FILE, harm)) for harm in HARM),
    *(Damage(f"journal's log {harm}", _file(f"{names.JOURNAL_FILE}-wal", harm)) for harm in HARM),
    *(Damage(f"mlflow.db {harm}", _file("mlflow.db", harm, of_store=True)) for harm in HARM),
    *(Damage(f"optuna.db {harm}", _file("optuna.db", harm, of_store=True)) for harm in HARM),
)
