"""Ends what a killed search leaves of its own Ray: a small process beside the driver, which imports nothing large.

Measured on Ray 2.60: after ``kill -9`` of the driver the kernel ends Ray's servers, but two agents live for a minute,
and Ray's folder stays. The processes are found by a variable in their environment, so a reused PID is not mistaken for
one of them.

Usage: guard.py DRIVER MARK FOLDER. Standard input is a pipe from the driver. When the driver has written a byte to it
or has ended, the guard kills every process that has MARK (``NAME=VALUE``) in its environment. If the driver has ended,
it also removes FOLDER.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PROCESSES = Path("/proc")
LOOK_S = 1.0  # between two looks at the parent: a process that the driver has forked may hold the pipe
PATIENCE_S = 8.0  # until everything that was killed is gone
END_S = 10.0  # for the guard to end after the driver's byte


@contextmanager
def guarded(mark: str, folder: Path, environment: Mapping[str, str], spared: set[int]) -> Iterator[None]:
    """Have a guard beside this process within the context; its PID is in ``spared`` meanwhile.

    It has a session of its own, so that no Ctrl-C reaches it, and holds none of this process's files. systemd and Slurm
    signal every process at once; it is born with these signals blocked, and does not end before this process.
    """
    import subprocess

    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark, str(folder)]
    environment, nowhere = dict(environment), subprocess.DEVNULL
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        guard = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=nowhere,
            stderr=nowhere,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    spared.add(guard.pid)
    try:
        yield
    finally:
        with suppress(BrokenPipeError, subprocess.TimeoutExpired):  # it was killed, or the machine is crowded
            guard.communicate(b".", timeout=END_S)
        spared.discard(guard.pid)


def main(driver: int, mark: str, folder: Path) -> None:
    """Wait for the driver's end."""
    told = b""
    while os.getppid() == driver:
        if select.select([0], [], [], LOOK_S)[0]:
            told = os.read(0, 1)
            break
    deadline = time.monotonic() + PATIENCE_S
    while (left := marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    if not told:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def marked(mark: str) -> list[int]:
    """Return the PIDs of this user's processes that have ``mark`` in the environment they were started with."""
    found = []
    for process in PROCESSES.glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
