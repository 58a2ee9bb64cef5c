"""Finds trials that hang: which show no progress for ``search.trial_timeout_s``, or after the time budget is spent.

An executor asks once a second, and ends the processes of the trials that are named. Only time in which the executor
asks counts, so that a machine that was suspended, or a group of processes that was stopped, loses no trial by it.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from metaloom.workers.activity import note_elsewhere
from metaloom.workers.heartbeat import last_beat
from metaloom.workers.records.names import OUT_OF_TIME
from metaloom.workers.records.stages import at_stage

if TYPE_CHECKING:
    from metaloom.orchestrator.director import Director

LOOK_S = 1.0
BUDGET_GRACE_S = 10.0  # without progress, after the budget is spent
LONG_S = 600.0  # without progress and without a limit, before a warning
logger = logging.getLogger("metaloom")


class Hanging(NamedTuple):
    """A running trial that shows no progress, and what it is ended for."""

    trial: int
    reason: str


@dataclass
class _Watched:
    directory: Path
    beat: int | None
    begun: bool = False
    silent_s: float = 0.0
    overtime_s: float = 0.0  # silent, and the budget spent


class Watch:
    """Watches the trials that an executor runs."""

    def __init__(self, director: "Director") -> None:
        self._director = director
        self._timeout = director.settings.trial_timeout_s
        self._trials: dict[int, _Watched] = {}
        self._looked = time.monotonic()

    @property
    def is_needed(self) -> bool:
        """Whether a trial may have to be ended, or the time spent has to be noted."""
        return self._timeout is not None or self._director.settings.time_budget_s is not None

    def begin(self, trial: int) -> None:
        """Watch a trial that a worker is about to begin; it counts from the worker's first sign of life."""
        directory = self._director.directory(trial)
        self._trials[trial] = _Watched(directory, last_beat(directory))

    def end(self, trial: int) -> None:
        """Forget a trial that runs no more."""
        note_elsewhere(trial, None)
        self._trials.pop(trial, None)

    def look(self) -> list[Hanging]:
        """Return the trials to be ended, once a second at most; they are no longer watched."""
        passed = time.monotonic() - self._looked
        if passed < LOOK_S:
            return []
        self._looked += passed
        self._director.tick()
        hanging = list(filter(None, map(self._judged, self._trials, [min(passed, 2 * LOOK_S)] * len(self._trials))))
        for trial, _ in hanging:
            self.end(trial)
        return hanging

    def _judged(self, number: int, passed: float) -> Hanging | None:
        trial = self._trials[number]
        beat, stage = last_beat(trial.directory), at_stage(trial.directory)
        said = None if stage is None else f"trial {number}: {stage.text}"
        note_elsewhere(number, said, 0.0 if stage is None else stage.seconds)
        if stage is not None and self._director.time_is_up():  # it reports after the stage, which may take long
            trial.overtime_s += passed
            return Hanging(number, OUT_OF_TIME) if trial.overtime_s >= BUDGET_GRACE_S else None
        if beat != trial.beat:
            trial.beat, trial.begun, trial.silent_s, trial.overtime_s = beat, True, 0.0, 0.0
        elif trial.begun:
            before, trial.silent_s = trial.silent_s, trial.silent_s + passed
            trial.overtime_s += passed if self._director.time_is_up() else 0.0
            if self._timeout is None and before < LONG_S <= trial.silent_s:
                advice = "search.trial_timeout_s ends such trials"
                logger.warning("trial %d has shown no progress for %.0f s; %s", number, trial.silent_s, advice)
        if trial.overtime_s >= BUDGET_GRACE_S:
            return Hanging(number, OUT_OF_TIME)
        if self._timeout is not None and trial.silent_s >= self._timeout:
            return Hanging(number, f"it showed no progress for {self._timeout:g} s (search.trial_timeout_s)")
        return None
