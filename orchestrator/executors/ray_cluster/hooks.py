"""Tune's searcher and scheduler, which ask the adapter, and a callback that leaves Tune's loop."""

from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from metaloom.orchestrator.executors.ray_cluster.adapter import TuneAdapter
from metaloom.orchestrator.executors.ray_cluster.connection import Connection
from metaloom.orchestrator.executors.ray_cluster.worker import ACTOR, MESSAGE
from metaloom.orchestrator.interruption import Interruption


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
        self._adapter.lost(trial.trial_id, str(trial.get_pickled_error() or ""))


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
