"""Trials on Ray Tune, driven from the journal. Ray's others: ray_connection, placement and perturbations.

Tune runs the trials and nothing more: its searcher and its scheduler are thin
wrappers that ask the Director, its workers are reused from trial to trial, and its
own checkpoints, snapshots, restore and loggers are unused (platform facts, measured:
``Tuner.restore`` reruns finished trials, forgets rungs and loses running trials).

A trial whose worker is lost ends as far as Tune is concerned; the Director hands it
out again. A trial that pauses (population-based training) does the same.
"""

import contextlib
import functools
import gc
import json
import logging
import math
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import ClusterError
from metaloom.orchestrator.executors import ray_environment
from metaloom.orchestrator.executors.hosting import OpenTrial, TrialHost
from metaloom.orchestrator.executors.placement import Asked, bundle, helpers, request, slots
from metaloom.orchestrator.executors.ray_connection import Connection
from metaloom.orchestrator.messages import Assignment, Message
from metaloom.orchestrator.signals import Interruption
from metaloom.workers.records.names import TrialRunner

NAME = "ray"
ASSIGNMENT, MESSAGE, ACTOR = (
    "assignment",
    "message",
    "actor",
)  # JSON texts: Tune would flatten, copy and resolve mappings
# After the first worker is there: then the search begins with those that are. A start takes 2 s on a quiet machine,
# and more than 30 on one that is crowded.
WORKERS_START_S = 60.0
IDLE_S = 0.05
SILENCE_S = 60.0  # without a first worker, until that is said; and until it is said again
OUT_OF_MEMORY = "it was killed because the machine ran out of memory; try fewer trials at a time"
CREATION = "in its creation task"  # Ray's words for a worker that could not even take its first trial
logger = logging.getLogger("metaloom.cluster")


class RayExecutor:
    """Runs a search's trials on Ray Tune, in a Ray that is running already.

    Args:
        interruption: Where signals are seen.
        connection: The Ray, from ``ray_connection.connected``.
        resources: ``cpus``, ``gpus`` (fractions allowed) and ``memory`` (bytes) of each trial, and how many
            ``perturbation_workers`` it has with as much again each.
    """

    name = NAME

    def __init__(
        self, interruption: Interruption, connection: Connection, *, resources: Mapping[str, Any] | None = None
    ) -> None:
        self._interruption, self._connection = interruption, connection
        self._resources = resources or {}

    def run(self, director: Director, open_trial: OpenTrial, *, concurrency: int = 1) -> None:
        """Run trials, ``concurrency`` at a time, until the Director has none left.

        Raises:
            Stopped: A signal has come.
            ClusterError: The cluster does not have what a trial asks for, or has died.
            BadEnvironment: A trial found the machine at fault, or the journal cannot be written.
        """
        asked = request(self._resources)
        bridge = _Bridge(director, min(concurrency, slots(self._resources), director.settings.trials))
        try:
            while not self._tuned(bridge, open_trial, asked):
                bridge.restart()
        except Exception:
            if bridge.error is not None:
                raise bridge.error from None
            raise

    def _tuned(self, bridge: "_Bridge", open_trial: OpenTrial, asked: Asked) -> bool:
        """Run Tune; return whether to the end, for it knows no worker that is killed for its memory, and breaks off."""
        scratch = Path(tempfile.mkdtemp(prefix="tune-", dir=ray_environment.private_folder()))
        try:
            with ray_environment.quiet():
                tune.run(  # not tune.Tuner: that pickles the searcher, and with it the journal
                    _trainable(open_trial, self._resources),
                    name="search",
                    storage_path=str(scratch),
                    resources_per_trial=asked,
                    num_samples=-1,  # the searcher says when it is over
                    search_alg=_JournalSearcher(bridge),
                    scheduler=_JournalScheduler(bridge),
                    callbacks=[_Watch(bridge, self._interruption, self._connection)],
                    reuse_actors=True,
                    max_failures=0,
                    raise_on_failed_trial=False,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                    verbose=0,
                )
        except BaseException as error:
            if self._connection.may_be_asked:
                _let_go(error)
            if not isinstance(error.__cause__, OutOfMemoryError):
                raise
            bridge.out_of_memory(str(error.__cause__))
            return False
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return True


def _let_go(error: BaseException) -> None:
    """Give back the workers and the room of a Tune that has broken off, which the error's traceback keeps alive.

    Else they are a loss to whatever runs next in the same Ray, and the ruin of a second one in this process, where
    they would be collected as if they were its own.
    """
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    gc.collect()


class _Bridge:
    """Between Tune's trials and the Director's.

    Tune takes a finished trial's worker for the trial whose own worker is still starting, and gives the
    latter up. So with trials shorter than a worker's start (2 s of imports) it would never have more than
    one worker, and a population that pauses would lose all but one. Therefore a worker without work runs an
    idle trial: at the beginning until all workers are there, later until some trial may go on.

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


class _JournalSearcher(Searcher):  # type: ignore[misc]  # ray is not typed
    """Asks the Director what to run."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        """Return the next assignment."""
        return self._bridge.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Make room for another trial."""
        self._bridge.ended(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the journal holds all there is."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""


class _JournalScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks the Director what becomes of a trial."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Continue, or end the trial as far as Tune is concerned."""
        going_on = self._bridge.hear(trial.trial_id, result[MESSAGE], result[ACTOR])
        return str(TrialScheduler.CONTINUE if going_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Tell the Director that the worker is gone: a trial's own errors come as messages."""
        self._bridge.lost(trial.trial_id, str(trial.get_pickled_error() or ""))


class _Watch(tune.Callback):  # type: ignore[misc]
    """Leaves Tune's loop when a signal has come, the Director has failed or Ray has died: Tune would wait for ever."""

    def __init__(self, bridge: _Bridge, interruption: Interruption, connection: Connection) -> None:
        self._bridge, self._interruption, self._connection = bridge, interruption, connection

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        """Called ten times a second, and after every event."""
        self._interruption.check()
        if self._bridge.error is not None:
            raise self._bridge.error
        self._connection.check()
        self._bridge.look()


def _trainable(open_trial: OpenTrial, resources: Mapping[str, Any]) -> type[tune.Trainable]:
    """Return the class that Tune's workers hold one object of, for one trial after another."""

    class MetaloomTrial(tune.Trainable):  # type: ignore[misc]
        """Hosts a trial in a worker."""

        def setup(self, config: dict[str, Any]) -> None:
            """Take the first trial."""
            self._host = TrialHost(_spreading(open_trial, resources) if helpers(resources) else open_trial)
            self._actor = str(ray.get_runtime_context().get_actor_id())
            self._begin(config)

        def step(self) -> dict[str, Any]:
            """Go on to the next report, or to the reason why there is none."""
            if not self._assigned:
                time.sleep(IDLE_S)
                return {MESSAGE: "", ACTOR: self._actor}
            return {MESSAGE: json.dumps(self._host.step().to_json()), ACTOR: self._actor}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            """Take another trial, in the same process."""
            self._begin(new_config)
            return True

        def cleanup(self) -> None:
            """Let go of the last trial."""
            self._host.close()

        def _begin(self, config: Mapping[str, Any]) -> None:
            self._assigned = bool(config[ASSIGNMENT])
            if self._assigned:
                self._host.begin(Assignment.from_json(json.loads(config[ASSIGNMENT])))
            else:
                self._host.close()

    return MetaloomTrial


def _spreading(open_trial: Callable[..., TrialRunner], resources: Mapping[str, Any]) -> OpenTrial:
    """Let the trials of one worker share out their perturbations."""
    from metaloom.orchestrator.executors.perturbations import (
        PerturbationWorkers,  # torch, which the driver does without
    )

    return functools.partial(open_trial, spread=PerturbationWorkers(resources, bundle(resources)))


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"


def _loss(text: str) -> str:
    """Say in one line why a worker is gone, from Ray's own text."""
    if "memory" in text.lower():
        return OUT_OF_MEMORY
    return next((line.strip() for line in text.splitlines() if "exit" in line or "died" in line), "its worker died")
