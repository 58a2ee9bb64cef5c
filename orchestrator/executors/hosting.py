"""The worker's side of an executor: it opens a trial, advances it and reports. Inline and Ray workers share it."""

import itertools
import os
import signal
import socket
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from metaloom.learners.errors import BadEnvironment, MetaloomError
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.executors.output import TrialOutput
from metaloom.orchestrator.messages import Assignment, Message
from metaloom.orchestrator.store import explained
from metaloom.workers.heartbeat import Heartbeat, process_of
from metaloom.workers.records.names import REPORTS_FILE
from metaloom.workers.records.report_log import ReportLog
from metaloom.workers.records.trial import Report, TrialConfig, TrialRunner

if TYPE_CHECKING:
    from metaloom.learners.hypergradients.problem import Mapper

OpenTrial = Callable[[TrialConfig, Path], TrialRunner]
Spread = Callable[[TrialConfig], "Mapper"]

# After a kill -9 of the driver its Ray workers live for a second or two. The kernel frees the lock when they end.
LOCK_TIMEOUT_S = 60.0
TRIAL_LOCK = "lock"


class TrialHost:
    """Runs one trial at a time; ``open_trial``, a module-level function or a partial of one, makes its runner."""

    def __init__(self, open_trial: OpenTrial) -> None:
        self._open_trial = open_trial
        self._assignment: Assignment | None = None
        self._runner: TrialRunner | None = None
        self._lock: filelock.BaseFileLock | None = None
        self._log: ReportLog | None = None
        self._missing: list[Report] = []  # that the journal lacks
        self.worker = f"{socket.gethostname()}:{os.getpid()}"

    def begin(self, assignment: Assignment) -> None:
        """Release the present trial and take another; the first ``step`` opens it."""
        self.close()
        self._assignment = assignment
        self._output = TrialOutput(assignment.directory, self.worker)

    def step(self) -> Message:
        """Advance the trial to its next report. An error becomes part of the message and fails this trial only."""
        assignment = self._assignment
        if assignment is None:
            raise RuntimeError("no trial was begun")
        number = assignment.config.trial
        try:
            with self._output.kept():
                return Message(number, self.worker, self._advance(assignment))
        except Exception as error:  # any error of a trial: the search goes on without the trial
            text = str(error) if isinstance(error, MetaloomError) else f"{type(error).__name__}: {error}"
            at_fault, trace = isinstance(error, BadEnvironment), traceback.format_exc()
        self.close()
        return Message(number, self.worker, None, text, trace, at_fault)

    def close(self) -> None:
        """Release the trial."""
        if self._runner is not None:
            self._runner.close()
        if self._lock is not None:
            self._lock.release()
        self._assignment, self._runner, self._lock, self._log, self._missing = None, None, None, None, []

    def _advance(self, assignment: Assignment) -> Report:
        warnings: tuple[str, ...] = ()
        if self._runner is None or self._log is None:
            self._lock = _lock_directory(assignment.directory)
            with explained(assignment.directory):
                self._log, warnings = _own_records(assignment)
                Heartbeat(assignment.directory).begin()
            self._runner = self._open_trial(assignment.config, assignment.directory)
            last = self._runner.last_report
            if last is not None and last.step > assignment.known_step:
                # the driver died between a report's checkpoint and the journal, or the journal was damaged
                self._missing = self._log.between(assignment.known_step, last)
        if self._missing:
            return self._missing.pop(0)
        report = self._runner.advance()
        Heartbeat(assignment.directory).beat()
        with explained(assignment.directory):
            self._log.add(report)
        return replace(report, warnings=(*warnings, *report.warnings))


def _own_records(assignment: Assignment) -> tuple[ReportLog, tuple[str, ...]]:
    """Return the trial's log of reports, and a warning if the directory held the records of another configuration.

    A search whose journal has lost events proposes some trials again; with several at a time their knobs may differ.
    """
    directory = assignment.directory
    warnings: tuple[str, ...] = ()
    log = ReportLog(directory, assignment.config)
    if assignment.known_step < 0 and log.is_of_another:
        numbers = itertools.count(1)
        aside = next(p for n in numbers if not (p := directory.parent / f"aside-{directory.name}-{n}").exists())
        aside.mkdir(mode=0o700)
        # the log last: after a kill it tells again whose records these are
        for path in sorted(directory.iterdir(), key=lambda path: path.name == REPORTS_FILE):
            if path.name != TRIAL_LOCK:
                path.rename(aside / path.name)
        warnings = (f"its directory held the records of other knobs; they are kept in {aside}",)
        log = ReportLog(directory, assignment.config)
    log.begin()
    return log, warnings


def _lock_directory(directory: Path) -> filelock.BaseFileLock:
    """Lock a trial's directory; raises StoreError if it cannot be written, or is locked for over a minute."""
    lock = filelock.FileLock(directory / TRIAL_LOCK, timeout=LOCK_TIMEOUT_S)
    with explained(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise StoreError(f"another process has been at work in {directory} for {LOCK_TIMEOUT_S:.0f} s") from None
    return lock


def end_process(directory: Path) -> None:
    """Kill the process on this host that runs the trial in ``directory``, if one does.

    It holds the trial's lock, so the number that it has noted is its own, and not one that was used again.
    """
    try:
        with filelock.FileLock(directory / TRIAL_LOCK, timeout=0):
            return
    except filelock.Timeout:
        os.kill(process_of(directory).pid, signal.SIGKILL)


def open_trial(config: TrialConfig, directory: Path, *, cache: Path, spread: Spread | None = None) -> TrialRunner:
    """Open a trial, from its newest checkpoint if it has one.

    Args:
        cache: The task sources' folder for prepared data, in the store, which has the stages of trials too.
        spread: Makes the mapper that evaluates perturbations in other processes; None evaluates them here.
    """
    # torch: 2 s, not to be paid by a driver that only hands out work
    from metaloom.learners.hypergradients.problem import one_by_one
    from metaloom.workers.stages import staged_start
    from metaloom.workers.trial.runner import Trial

    after = staged_start(config, directory, cache=cache, store=cache.parent)
    mapper = spread(config) if spread else one_by_one
    return Trial(config, directory, cache=cache, mapper=mapper, after=after)
