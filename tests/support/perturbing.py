"""What the tests of perturbations run in Ray's workers: a module that these can import."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from metaloom.learners.errors import LearnerError
from metaloom.orchestrator.executors.ray_cluster.perturbations import PerturbationWorkers
from metaloom.workers.records.trial import TrialConfig

CONFIG = TrialConfig(search="s", trial=0, seed=0, tasks={}, learner={}, inner={}, outer={}, resources={})


def square(item: float, *, home: int, deadly: bool) -> tuple[float, bool]:
    """Return the square, and whether it was computed at home; elsewhere end the process, if that is wanted."""
    if deadly and os.getpid() != home:
        os._exit(1)
    return item * item, os.getpid() == home


def refuse(item: float) -> float:
    """Raise what a learner raises."""
    raise LearnerError(f"no answer to {item:g}")


class Home:
    """Stands for a trial's worker: shares items out with an actor of its own."""

    def __init__(self, count: int) -> None:
        workers = PerturbationWorkers({"perturbation_workers": count, "threads": 1}, {"cpu": 1.0, "gpu": 0.0})
        self._mapper = workers(CONFIG)

    def squares(self, items: Sequence[float], *, deadly: bool = False) -> list[tuple[float, bool]]:
        """Return the square of each item, and whether it was computed here."""
        return self._mapper(partial(square, home=os.getpid(), deadly=deadly), items)

    def refused(self, items: Sequence[float]) -> Any:
        """Return what an error from elsewhere is."""
        try:
            self._mapper(partial(_refused_elsewhere, home=os.getpid()), items)
        except LearnerError as error:
            return type(error).__name__, str(error)
        return None


def _refused_elsewhere(item: float, *, home: int) -> float:
    return item if os.getpid() == home else refuse(item)
