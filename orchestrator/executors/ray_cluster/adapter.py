"""Tune's trials as the Director's: what Tune asks and reports, carried over to the one that decides.

Tune takes a finished trial's worker for the trial whose own worker is still starting, and gives the latter up. With
trials shorter than a worker's start (2 s of imports) it would never have more than one worker, and a population that
pauses would lose all but one. Therefore a worker without work runs an idle trial: at the beginning until all workers
are there, later until some trial may go on.
"""

import contextlib
import json
import logging
import math
import re
import time
from collections.abc import Iterator
from typing import Any

from ray.tune.search import Searcher

from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import ClusterError
from metaloom.orchestrator.messages import Message

NAME = "ray"
ASSIGNMENT = "assignment"  # its value is a JSON text: Tune would flatten, copy and resolve a mapping
# After the first worker is there: then the search begins with those that are. A start takes 2 s on a quiet machine,
# and more than 30 on one that is crowded.
WORKERS_START_S = 60.0
SILENCE_S = 60.0  # without a first worker, until that is reported; and until it is reported again
OUT_OF_MEMORY = "it was killed because the machine ran out of memory; try fewer trials at a time"
CREATION = "in its creation task"  # Ray's words for a worker that could not even take its first trial
logger = logging.getLogger("metaloom.cluster")


class TuneAdapter:
    """Gives the Director's trials to Tune and Tune's events to the Director.

    Attributes:
        error: What the Director raised inside Tune's loop, which would hide it in a text.
    """

    def __init__(self, director: Director, concurrency: int) -> None:
        self.error: BaseException | None = None
        self._director, self._concurrency = director, concurrency
        self._running: dict[str, int] = {}  # Tune's trial id to the Director's number
        self._actors: dict[str, str] = {}  # Tune's trial id to the worker that has reported for it
        self._idle: set[str] = set()
        self._present: set[str] = set()  # the idle trials that have been heard of
        self._deadline = math.inf
        self._silent_since = time.monotonic()

    def suggest(self, tune_id: str) -> dict[str, Any] | str | None:
        """Return the next trial, None if there is none now, or Tune's word for the end."""
        if self.error is not None or len(self._running) + len(self._idle) >= self._concurrency:
            return None
        with self._keeping_errors():
            if not self._all_present():
                return self._be_idle(tune_id)
            assignment = self._director.next_trial(worker=NAME)
            if assignment is not None:
                self._running[tune_id] = assignment.config.trial
                return {ASSIGNMENT: json.dumps(assignment.to_json())}
            if self._director.is_over:
                return str(Searcher.FINISHED)
            return self._be_idle(tune_id) if self._director.has_waiting else None
        return None

    def hear(self, tune_id: str, text: str, actor: str) -> bool:
        """Pass a worker's message on; return whether its trial goes on."""
        self._silent_since = math.inf
        self._actors[tune_id] = actor
        with self._keeping_errors():
            if tune_id in self._idle:
                return self._stay_idle(tune_id)
            return self._director.hear(Message.from_json(json.loads(text)))
        return False

    def lost(self, tune_id: str, reason: str) -> None:
        """Pass on that a worker has died."""
        with self._keeping_errors():
            if CREATION in reason:  # it would be so again, for every trial
                raise ClusterError(f"a Ray worker could not start: {reason.strip().splitlines()[-1].strip()}")
            if tune_id in self._running:
                self._director.lost(self._running[tune_id], _loss(reason))

    def out_of_memory(self, text: str) -> None:
        """Pass on that Ray has killed a worker for its memory, and that the others have ended with Tune.

        Args:
            text: Ray's account, which names the worker; one without a report yet is known by its silence.
        """
        killed = re.search(r"Selected to kill: \(Actor\((\w+)\)", text)
        named = {one for one in self._running if killed and self._actors.get(one) == killed[1]}
        silent = {one for one in self._running if one not in self._actors}
        with self._keeping_errors():
            for tune_id, number in self._running.items():
                if tune_id in (named or silent or self._running):
                    self._director.lost(number, OUT_OF_MEMORY)
                else:
                    self._director.set_aside(number, "another trial's worker ran out of memory")

    def restart(self) -> None:
        """Forget all of a Tune that has broken off; raises what the Director has raised."""
        if self.error is not None:
            raise self.error
        self._running.clear()
        self._actors.clear()
        self._idle.clear()
        self._present.clear()
        self._deadline = math.inf
        self._silent_since = time.monotonic()

    def look(self) -> None:
        """Say that no worker has come yet: Ray waits for room, or for memory, without a word and without an end."""
        if time.monotonic() - self._silent_since < SILENCE_S:
            return
        self._silent_since = time.monotonic()
        logger.warning(
            "no Ray worker has started in %.0f s: the cluster may be busy, or short of memory; still waiting "
            "(Ctrl-C stops, `metaloom doctor` shows this machine)",
            SILENCE_S,
        )

    def ended(self, tune_id: str) -> None:
        """Forget a trial that Tune has ended."""
        self._actors.pop(tune_id, None)
        self._running.pop(tune_id, None)
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
    """Say in one line why a worker is gone, from Ray's own text."""
    if "memory" in text.lower():
        return OUT_OF_MEMORY
    return next((line.strip() for line in text.splitlines() if "exit" in line or "died" in line), "its worker died")
