"""Trials on Ray Tune, driven from the journal.

Tune runs the trials and nothing more: its searcher and its scheduler are thin wrappers that ask the Director, its
workers are reused from trial to trial, and its own checkpoints, snapshots, restore and loggers are unused: on Ray 2.60
``Tuner.restore`` was seen to run finished trials again, to forget a scheduler's rungs and to lose running trials.

A trial whose worker is lost ends as far as Tune is concerned; the Director hands it out again. A trial that pauses
(population-based training) does the same.
"""

import gc
import shutil
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError

from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.hosting import OpenTrial
from metaloom.orchestrator.executors.ray_cluster import environment
from metaloom.orchestrator.executors.ray_cluster.adapter import TuneAdapter
from metaloom.orchestrator.executors.ray_cluster.connection import Connection
from metaloom.orchestrator.executors.ray_cluster.hooks import JournalScheduler, JournalSearcher, StopCallback
from metaloom.orchestrator.executors.ray_cluster.placement import Asked, request, slots
from metaloom.orchestrator.executors.ray_cluster.worker import trainable
from metaloom.orchestrator.interruption import Interruption


class RayExecutor:
    """Runs a search's trials on Ray Tune, in a Ray that is running already.

    Args:
        interruption: Where signals are seen.
        connection: The Ray, from ``ray_connection.connected``.
        resources: ``cpus``, ``gpus`` (fractions allowed) and ``memory`` (bytes) of each trial, and the number of
            ``perturbation_workers``; each gets the same resources again.
    """

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
        adapter = TuneAdapter(director, min(concurrency, slots(self._resources), director.settings.trials))
        try:
            while not self._tuned(adapter, open_trial, asked):
                adapter.restart()
        except Exception:
            if adapter.error is not None:
                raise adapter.error from None
            raise

    def _tuned(self, adapter: TuneAdapter, open_trial: OpenTrial, asked: Asked) -> bool:
        """Run Tune; return whether to the end, for it knows no worker that is killed for its memory, and breaks off."""
        scratch = Path(tempfile.mkdtemp(prefix="tune-", dir=environment.private_folder()))
        try:
            with environment.quiet():
                tune.run(  # not tune.Tuner: that pickles the searcher, and with it the journal
                    trainable(open_trial, self._resources),
                    name="search",
                    storage_path=str(scratch),
                    resources_per_trial=asked,
                    num_samples=-1,  # the searcher says when it is over
                    search_alg=JournalSearcher(adapter),
                    scheduler=JournalScheduler(adapter),
                    callbacks=[StopCallback(adapter, self._interruption, self._connection)],
                    reuse_actors=True,
                    max_failures=0,
                    raise_on_failed_trial=False,
                    trial_name_creator=_trial_name,
                    trial_dirname_creator=_trial_name,
                    verbose=0,
                )
        except BaseException as error:
            if self._connection.may_be_asked:
                _free_workers(error)
            if not isinstance(error.__cause__, OutOfMemoryError):
                raise
            adapter.out_of_memory(str(error.__cause__))
            return False
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return True


def _free_workers(error: BaseException) -> None:
    """Free the workers of a Tune that has broken off, which the error's traceback keeps alive.

    Otherwise their resources stay reserved for the next run on this Ray, and a second Ray in this process crashes when
    they are collected as if they were its own.
    """
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    gc.collect()


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"
