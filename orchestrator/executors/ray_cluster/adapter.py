"""The adapter between Tune and the Director: it passes Tune's questions and reports to the Director.

If a trial's worker is still starting when another trial finishes, Tune reuses the finished trial's worker and cancels
the start. With trials shorter than a worker's start (2 s of imports) only one worker would ever run, and a population
that pauses would keep only one. Therefore a worker without work runs an idle trial: first until all workers have
started, later until a trial may go on.
"""

import contextlib
import logging
import math
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ray.tune.search import Searcher

from metaloom.orchestrator.errors import ClusterError
from metaloom.orchestrator.executors.ray_cluster import workers
from metaloom.orchestrator.executors.watching import Watch
from metaloom.orchestrator.messages import Message

if TYPE_CHECKING:
    from metaloom.orchestrator.director import Director

NAME = "ray"
ASSIGNMENT = "assignment"  # its value is a JSON text: Tune would flatten, copy and resolve a mapping
# The wait for further workers after the first one has started; a start takes 2 s, on a busy machine more than 30 s.
WORKERS_START_S = 60.0
SILENCE_S = 60.0  # without any worker, between two warnings
OUT_OF_MEMORY = "it was killed because the machine ran out of memory; try fewer trials at a time"
CHAINED = ("The above exception was", "During handling of the above")  # in a traceback, before its next error
CREATION = "in its creation task"  # Ray's text for a worker that failed before its first trial
logger = logging.getLogger("metaloom.cluster")


class TuneAdapter:
    """Passes the Director's trials to Tune and Tune's events to the Director.

    Args:
        spare: Takes over from a lost worker, and is replaced when it has reported.

    Attributes:
        error: The Director's error inside Tune's loop; Tune would turn it into a text.
    """

    def __init__(self, director: "Director", concurrency: int, spare: workers.Spare) -> None:
        self.error: BaseException | None = None
        self._spare = spare
        self._director, self._concurrency, self._watch = director, concurrency, Watch(director)
        self._reset()

    def _reset(self) -> None:
        self._running: dict[str, int] = {}  # Tune's trial id to the Director's number
        self._actors: dict[str, str] = {}  # Tune's trial id to the worker that has reported for it
        self._idle: set[str] = set()
        self._seen: set[str] = set()  # the workers that have reported
        self._present: set[str] = set()  # the idle trials that have reported
        self._deadline = math.inf
        self._silent_since = time.monotonic()

    def suggest(self, tune_id: str) -> dict[str, Any] | str | None:
        """Return the next trial, None if there is none now, or Tune's mark of the end."""
        finished = str(Searcher.FINISHED)
        if self.error is not None:
            return finished
        if len(self._running) + len(self._idle) >= self._concurrency:
            return None
        with self._keeping_errors():
            if not self._all_present():
                return self._be_idle(tune_id)
            assignment = self._director.next_trial(worker=NAME)
            if assignment is not None:
                self._running[tune_id] = assignment.config.trial
                self._watch.begin(assignment.config.trial)
                return {ASSIGNMENT: assignment.to_json()}
            if self._director.is_over:
                return finished
            return self._be_idle(tune_id) if self._director.has_waiting else None
        return finished  # an error: without a running trial Tune waits ten minutes for one before it calls us again

    def hear(self, tune_id: str, text: str, actor: str) -> bool:
        """Pass a worker's message on; return whether its trial goes on."""
        self._silent_since = math.inf
        self._actors[tune_id] = actor
        with self._keeping_errors():
            if actor not in self._seen:  # a worker that has just begun: the spare one, if another was lost
                self._seen.add(actor)
                self._spare.replace()
            if tune_id in self._idle:
                return self._stay_idle(tune_id)
            return self._director.hear(Message.from_json(text))
        return False

    def lost(self, tune_id: str, reason: str) -> None:
        """Pass on that a worker has died."""
        self._spare.take()
        with self._keeping_errors():
            if CREATION in reason:  # every other trial would fail so too
                raise ClusterError(f"a Ray worker could not start: {_first_error(reason)}")
            if tune_id in self._running:
                self._director.lost(self._running[tune_id], _loss(reason))

    def out_of_memory(self, text: str) -> None:
        """Pass on that Ray has killed a worker for its memory, and that the others have ended with Tune.

        Ray's message names the worker; otherwise a worker without a report yet is assumed to be the one.
        """
        killed = re.search(r"Selected to kill: \(Actor\((\w+)\)", text)
        named = {tune_id for tune_id in self._running if killed and self._actors.get(tune_id) == killed[1]}
        with self._keeping_errors():
            for tune_id, number in self._running.items():
                if tune_id in (named or self._running.keys() - self._actors or self._running):
                    self._director.lost(number, OUT_OF_MEMORY)
                else:
                    self._director.set_aside(number, "another trial's worker ran out of memory")

    def restart(self) -> None:
        """Reset after a Tune run that has failed; raises the Director's error, if any."""
        if self.error is not None:
            raise self.error
        self._reset()

    def look(self) -> None:
        """End the trials that hang; warn while no worker has started, for which Ray waits without a limit."""
        with self._keeping_errors():
            self._spare.look()
            for trial, reason in self._watch.look():
                self._director.hangs(trial, reason)
                # Forgotten first: that its worker is lost must not be taken for a loss of its next attempt.
                self.ended(next(tune_id for tune_id, number in self._running.items() if number == trial))
                workers.end(self._director.directory(trial))
        if time.monotonic() - self._silent_since >= SILENCE_S:
            self._silent_since = time.monotonic()
            reason = "the cluster may be busy, or short of memory"
            advice = "still waiting (Ctrl-C stops, `metaloom doctor` shows this machine)"
            logger.warning("no Ray worker has started in %.0f s: %s; %s", SILENCE_S, reason, advice)

    def ended(self, tune_id: str) -> None:
        """Forget a trial that Tune has ended."""
        self._actors.pop(tune_id, None)
        if (trial := self._running.pop(tune_id, None)) is not None:
            self._watch.end(trial)
        self._idle.discard(tune_id)

    def _be_idle(self, tune_id: str) -> dict[str, Any]:
        self._idle.add(tune_id)
        return {ASSIGNMENT: ""}

    def _stay_idle(self, tune_id: str) -> bool:
        if not self._present:
            self._deadline = time.monotonic() + WORKERS_START_S
        self._present.add(tune_id)
        return not (self._all_present() and (self._director.may_begin or self._director.is_over))

    def _all_present(self) -> bool:
        return len(self._present) >= self._concurrency or time.monotonic() > self._deadline

    @contextlib.contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = error


def _loss(text: str) -> str:
    """Return in one line, from Ray's text, why a worker is lost."""
    if "memory" in text.lower():
        return OUT_OF_MEMORY
    return next((line.strip() for line in text.splitlines() if "exit" in line or "died" in line), "its worker died")


def _first_error(text: str) -> str:
    """Return the error that a traceback begins with, and the line of code that has raised it."""
    for mark in CHAINED:
        text = text.partition(mark)[0]
    *_, error = text.strip().splitlines()
    places = re.findall(r'File "(.+?)", line (\d+)', text)
    return f"{error.strip()} ({places[-1][0]}, line {places[-1][1]})" if places else error.strip()
