"""The side of an executor that sits beside a trial: opens it, moves it on, says what came of it.

It runs in this process (inline) or in a worker (cluster), and is the same in both.
"""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from metaloom.learners.errors import BadEnvironment, MetaloomError
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.messages import Assignment, Message
from metaloom.orchestrator.store import explained
from metaloom.workers.records.trial import Report, TrialConfig, TrialRunner

if TYPE_CHECKING:
    from metaloom.learners.hypergradients.problem import Mapper

OpenTrial = Callable[[TrialConfig, Path], TrialRunner]
Spread = Callable[[TrialConfig], "Mapper"]

# After a kill -9 of the driver its Ray workers live on for a second or two. The kernel frees the lock when they end.
LOCK_TIMEOUT_S = 60.0
TRIAL_LOCK = "lock"


class TrialHost:
    """Holds one trial at a time.

    Args:
        open_trial: Makes the runner; a module-level function, or a partial of one.
    """

    def __init__(self, open_trial: OpenTrial) -> None:
        self._open_trial = open_trial
        self._assignment: Assignment | None = None
        self._runner: TrialRunner | None = None
        self._lock: filelock.BaseFileLock | None = None
        self.worker = f"{socket.gethostname()}:{os.getpid()}"

    def begin(self, assignment: Assignment) -> None:
        """Let go of the trial held, and take another; it is opened by the first ``step``."""
        self.close()
        self._assignment = assignment

    def step(self) -> Message:
        """Move the trial on to its next report. Errors become part of the message: they fail the trial only."""
        assignment = self._assignment
        if assignment is None:
            raise RuntimeError("no trial was begun")
        number = assignment.config.trial
        try:
            return Message(number, self.worker, self._advance(assignment))
        except Exception as error:  # whatever a trial raises, the search goes on and says so
            said = str(error) if isinstance(error, MetaloomError) else f"{type(error).__name__}: {error}"
            broken = Message(number, self.worker, None, said, traceback.format_exc(), isinstance(error, BadEnvironment))
        self.close()
        return broken

    def close(self) -> None:
        """Let go of the trial."""
        if self._runner is not None:
            self._runner.close()
        if self._lock is not None:
            self._lock.release()
        self._assignment, self._runner, self._lock = None, None, None

    def _advance(self, assignment: Assignment) -> Report:
        if self._runner is None:
            self._lock = _lock_directory(assignment.directory)
            self._runner = self._open_trial(assignment.config, assignment.directory)
            last = self._runner.last_report
            if last is not None and last.step > assignment.known_step:
                return last  # the driver died between this report's checkpoint and the journal
        return self._runner.advance()


def _lock_directory(directory: Path) -> filelock.BaseFileLock:
    """Be the only process at work in a trial's directory.

    Raises:
        StoreError: It cannot be written, or another process has held it for a minute.
    """
    lock = filelock.FileLock(directory / TRIAL_LOCK, timeout=LOCK_TIMEOUT_S)
    with explained(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise StoreError(f"another process has been at work in {directory} for {LOCK_TIMEOUT_S:.0f} s") from None
    return lock


def open_trial(config: TrialConfig, directory: Path, *, cache: Path, spread: Spread | None = None) -> TrialRunner:
    """Open a trial of ``workers``, going on from its newest checkpoint if it has one.

    Args:
        config: What it is.
        directory: Where it lives.
        cache: Where task sources keep what they have made.
        spread: Makes what evaluates its perturbations elsewhere; None evaluates them here.
    """
    from metaloom.workers.trial.runner import Trial  # torch: 2 s, not to be paid by a driver that only hands out work

    if spread is None:
        return Trial(config, directory, cache=cache)
    return Trial(config, directory, cache=cache, mapper=spread(config))
