"""Trials on Ray Tune, driven from the journal.

Tune only runs the trials. Its searcher and scheduler ask the Director, and its workers are reused from trial to trial.
Its checkpoints, snapshots, restore and loggers are unused: on Ray 2.60 ``Tuner.restore`` runs finished trials again,
forgets a scheduler's rungs and loses running trials. A trial whose worker is lost, or that pauses (population-based
training), ends for Tune; the Director assigns it again.
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
        interruption: Holds the signals.
        connection: The Ray, from ``connection.connected``.
        resources: ``cpus``, ``gpus`` (fractions allowed) and ``memory`` (bytes) of each trial, and the number of
            ``perturbation_workers``; each gets the same resources again.
    """

    def __init__(
        self, interruption: Interruption, connection: Connection, *, resources: Mapping[str, Any] | None = None
    ) -> None:
        self._interruption, self._connection = interruption, connection
        self._resources = resources or {}

    def run(self, director: Director, open_trial: OpenTrial, *, concurrency: int = 1) -> None:
        """Run trials as ``Executor`` says; raises ClusterError if the cluster has died or lacks the resources."""
        asked = request(self._resources)
        adapter = TuneAdapter(director, min(concurrency, slots(self._resources), director.settings.trials))
        try:
            while not self._run_tune(adapter, open_trial, asked):
                adapter.restart()
        except Exception:
            if adapter.error is not None:
                raise adapter.error from None
            raise

    def _run_tune(self, adapter: TuneAdapter, open_trial: OpenTrial, asked: Asked) -> bool:
        """Run Tune; return False if it failed because Ray killed a worker for its memory."""
        scratch = Path(tempfile.mkdtemp(prefix="tune-", dir=environment.private_folder()))
        try:
            with environment.quiet():
                tune.run(  # not tune.Tuner: that pickles the searcher, and with it the journal
                    trainable(open_trial, self._resources),
                    name="search",
                    storage_path=str(scratch),
                    resources_per_trial=asked,
                    num_samples=-1,  # the searcher ends the run
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
    """Free the workers of a failed Tune run, which the error's traceback keeps alive.

    Otherwise their resources stay reserved for the next run on this Ray, and a second Ray in this process crashes when
    it garbage-collects actor handles that are not its own.
    """
    cause: BaseException | None = error
    while cause is not None:
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__
    gc.collect()


def _trial_name(trial: Any) -> str:
    return f"trial-{trial.trial_id}"
