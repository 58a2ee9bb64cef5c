"""Trials on Ray Tune, driven from the journal.

Tune only runs the trials. Its searcher and scheduler ask the Director, and its workers are reused from trial to trial.
Its checkpoints, snapshots, restore and loggers are unused: on Ray 2.60 ``Tuner.restore`` runs finished trials again,
forgets a scheduler's rungs and loses running trials. A trial whose worker is lost, or that pauses (population-based
training), ends for Tune; the Director assigns it again.
"""

import functools
import gc
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from metaloom.orchestrator.errors import ClusterError
from metaloom.orchestrator.executors.hosting import OpenTrial, TrialHost
from metaloom.orchestrator.executors.ray_cluster import environment, fitting
from metaloom.orchestrator.executors.ray_cluster.adapter import ASSIGNMENT, CREATION, TuneAdapter
from metaloom.orchestrator.executors.ray_cluster.connection import Connection
from metaloom.orchestrator.executors.ray_cluster.worker_start import driver_folders, put_last
from metaloom.orchestrator.executors.ray_cluster.workers import Spare
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.messages import Assignment
from metaloom.orchestrator.private_api import tune_variables
from metaloom.workers.durable import is_full
from metaloom.workers.records.trial import TrialRunner

if TYPE_CHECKING:
    from metaloom.orchestrator.director import Director

MESSAGE, ACTOR = "message", "actor"
IDLE_S = 0.05


def trainable(open_trial: OpenTrial, resources: Mapping[str, Any]) -> type[tune.Trainable]:
    """Return the class of the object in each of Tune's workers."""
    folders = driver_folders()

    class MetaloomTrial(tune.Trainable):  # type: ignore[misc]
        """Hosts a trial in a worker."""

        def setup(self, config: dict[str, Any]) -> None:
            """Take the first trial."""
            put_last(folders)
            self._host = TrialHost(
                _spreading(open_trial, resources, folders) if fitting.helpers(resources) else open_trial
            )
            self._actor = str(ray.get_runtime_context().get_actor_id())
            self.reset_config(config)

        def step(self) -> dict[str, Any]:
            """Advance to the next report or failure."""
            if not self._assigned:
                time.sleep(IDLE_S)
                return {MESSAGE: "", ACTOR: self._actor}
            return {MESSAGE: self._host.step().to_json(), ACTOR: self._actor}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            """Take another trial, in the same process; idle if there is none."""
            self._assigned = bool(new_config[ASSIGNMENT])
            if self._assigned:
                self._host.begin(Assignment.from_json(new_config[ASSIGNMENT]))
            else:
                self._host.close()
            return True

        def cleanup(self) -> None:
            """Release the last trial."""
            self._host.close()

    return MetaloomTrial


def _spreading(
    open_trial: Callable[..., TrialRunner], resources: Mapping[str, Any], folders: Sequence[str]
) -> OpenTrial:
    from metaloom.orchestrator.executors.ray_cluster import perturbations  # torch, which only the workers need

    workers = perturbations.PerturbationWorkers(resources, fitting.bundle(resources), folders=folders)
    return functools.partial(open_trial, spread=workers)


class JournalSearcher(Searcher):  # type: ignore[misc]  # ray is not typed
    """Asks the Director what to run."""

    def __init__(self, adapter: TuneAdapter) -> None:
        super().__init__()
        self._adapter = adapter

    def suggest(self, trial_id: str) -> Any:
        """Return the next assignment."""
        return self._adapter.suggest(trial_id)

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """Make room for another trial."""
        self._adapter.ended(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Write nothing: the journal holds everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Read nothing."""


class JournalScheduler(FIFOScheduler):  # type: ignore[misc]
    """Asks the Director whether a trial goes on."""

    def __init__(self, adapter: TuneAdapter) -> None:
        super().__init__()
        self._adapter = adapter

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        """Continue the trial, or end it for Tune."""
        goes_on = self._adapter.hear(trial.trial_id, result[MESSAGE], result[ACTOR])
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Report a lost worker to the Director; a trial's own errors come as messages."""
        # Tune's accessor reads where the error is not yet: findings/tune_scheduler_sees_no_error.sh
        text = Path(trial.error_file).read_text() if trial.error_file else ""
        failed = CREATION in text
        self._adapter.lost(trial.trial_id, text if failed else str(trial.get_pickled_error() or ""))


class StopCallback(tune.Callback):  # type: ignore[misc]
    """Leaves Tune's loop, which would keep waiting, when a signal came, the Director failed or Ray died."""

    def __init__(self, adapter: TuneAdapter, interruption: Interruption, connection: Connection) -> None:
        self._adapter, self._interruption, self._connection = adapter, interruption, connection

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        """Check, ten times a second and after every event."""
        self._interruption.check()
        if self._adapter.error is not None:
            raise self._adapter.error
        self._connection.check()
        self._adapter.look()


class RayExecutor:
    """Runs a search's trials on Ray Tune, in a Ray that is running already.

    Args:
        resources: ``cpus``, ``gpus`` (fractions allowed) and ``memory`` (bytes) of each trial, and the number of
            ``perturbation_workers``; each gets the same resources again.
    """

    def __init__(
        self, interruption: Interruption, connection: Connection, *, resources: Mapping[str, Any] | None = None
    ) -> None:
        self._interruption, self._connection = interruption, connection
        self._resources = resources or {}

    def run(self, director: "Director", open_trial: OpenTrial, *, concurrency: int = 1) -> None:
        """Run trials as ``Executor`` says; raises ClusterError if the cluster lacks resources or cannot go on."""
        asked = request(self._resources)
        at_most = min(concurrency, slots(self._resources), director.settings.runs)
        adapter = TuneAdapter(director, at_most, Spare(kept=self._connection.own))
        try:
            while not self._run_tune(adapter, open_trial, asked):
                adapter.restart()
            if adapter.error is not None:
                raise adapter.error
        except Exception as error:
            if adapter.error is not None:
                raise adapter.error from None
            if isinstance(error, OSError) and is_full(error):  # Tune has files of its own
                place = environment.private_folder().parent
                raise ClusterError(f"the disk of {place} is full: free some space, or set TMPDIR") from error
            raise

    def _run_tune(self, adapter: TuneAdapter, open_trial: OpenTrial, asked: Any) -> bool:
        """Run Tune; return False if it failed because Ray killed a worker for its memory."""
        scratch = Path(tempfile.mkdtemp(prefix="tune-", dir=environment.private_folder()))
        try:
            with environment.quiet(), tune_variables(() if self._connection.own else environment.QUIET):
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


def request(resources: Mapping[str, Any]) -> Any:
    """Return Tune's request to Ray, one bundle or a placement group; raises ClusterError if it can never be met.

    The group holds a bundle for the trial and one for each perturbation worker. Ray allocates a whole group or nothing,
    so two partly allocated trials cannot deadlock.
    """
    fitting.check_fits(resources, nodes())
    count = fitting.helpers(resources)
    if not count:
        return fitting.bundle(resources)
    each = {fitting.KEYS[name]: amount for name, amount in fitting.bundle(resources).items() if amount}
    return tune.PlacementGroupFactory([each] * (1 + count))


def slots(resources: Mapping[str, Any]) -> int:
    """Return how many such trials fit in the running cluster at a time, at least one."""
    return max(1, fitting.bundles(fitting.bundle(resources), nodes()) // (1 + fitting.helpers(resources)))


def nodes() -> list[dict[str, float]]:
    """Return the resources of each living node of the running cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
