"""Evolution strategies on a whole cluster: a trial's perturbations of phi, distributed over its own Ray actors.

The trial's placement group has one bundle for the trial and one for each actor (see tune.py). A trial starts only
when all its actors are allocated, so two partly allocated trials cannot deadlock.

On machines of one kind a result does not depend on its actor, and results keep the order of the items. So they equal
those of one process bit for bit.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from metaloom.learners.hypergradients.problem import Mapper, one_by_one
from metaloom.learners.outer import OuterConfig
from metaloom.orchestrator.errors import ClusterError
from metaloom.orchestrator.executors.ray_cluster.worker_start import put_last
from metaloom.workers.device import prepare_device
from metaloom.workers.records.trial import TrialConfig

Item = TypeVar("Item")
Answer = TypeVar("Answer")
MAX_LOST = 3  # actors of one trial; after more than that the trial fails
logger = logging.getLogger("metaloom.cluster")


class Evaluator:
    """Evaluates items in an actor as the trial itself would."""

    def __init__(self, resources: Mapping[str, Any], folders: Sequence[str]) -> None:
        put_last(folders)
        import_module("metaloom.learners.build")  # fills every registry, as in the trial's own process
        self._resources = resources

    def evaluate(self, function: Callable[[Item], Answer], items: Sequence[Item], precision: str) -> list[Answer]:
        """Return ``function`` of each item."""
        with prepare_device(self._resources, precision).precision():
            return one_by_one(function, items)


class PerturbationWorkers:
    """The actors of one trial's worker, started on first use and kept for the worker's next trials.

    Args:
        resources: The resources section with ``perturbation_workers``.
        request: The resources of each actor (``cpu``, ``gpu``, ``memory``): a bundle of the placement group.
        folders: Those of the driver, see ``worker_start.put_last``.

    Attributes:
        count: The number of actors beside the trial's own process.
        actors: Those that were started, by number.
    """

    def __init__(
        self, resources: Mapping[str, Any], request: Mapping[str, float], *, folders: Sequence[str] = ()
    ) -> None:
        self._resources, self._request, self._folders = dict(resources), dict(request), tuple(folders)
        self.count = int(resources["perturbation_workers"])
        self.actors: dict[int, Any] = {}

    def __call__(self, config: TrialConfig) -> Mapper:
        """Return the mapper that evaluates a trial's perturbations."""
        return _DistributedMapper(self, OuterConfig.of(config.outer).precision)

    def actor(self, number: int) -> Any:
        """Return an actor, started if necessary; bundle 0 of the placement group is the trial's own."""
        if number not in self.actors:
            strategy = PlacementGroupSchedulingStrategy(ray.util.get_current_placement_group(), number + 1)
            cpus, gpus, memory = self._request["cpu"], self._request["gpu"], self._request.get("memory")
            evaluator = ray.remote(Evaluator).options(
                num_cpus=cpus, num_gpus=gpus, memory=memory, scheduling_strategy=strategy
            )
            self.actors[number] = evaluator.remote(self._resources, self._folders)
        return self.actors[number]


class _DistributedMapper:
    """A ``Mapper`` that evaluates the first share in this process and the others in the actors, in parallel."""

    def __init__(self, workers: PerturbationWorkers, precision: str) -> None:
        self._workers, self._precision = workers, precision
        self._lost = 0

    def __reduce__(self) -> tuple[type[partial[Any]], tuple[Mapper]]:
        """Pickle as the local mapper: a copy in another process evaluates there."""
        return partial, (one_by_one,)

    def __call__(self, function: Callable[[Item], Answer], items: Sequence[Item]) -> list[Answer]:
        """Return ``function`` of each item, in the order of the items."""
        own, *others = shares(items, 1 + self._workers.count)
        sent, workers = ray.put(function), self._workers
        pending = [
            workers.actor(number).evaluate.remote(sent, share, self._precision) for number, share in enumerate(others)
        ]
        answers = one_by_one(function, own)
        for number, share in enumerate(others):
            answers += self._answers(number, pending[number], function, share)
        return answers

    def _answers(
        self, number: int, pending: Any, function: Callable[[Item], Answer], share: Sequence[Item]
    ) -> list[Answer]:
        """Wait for an actor's answers; compute those of a lost actor here."""
        try:
            answers: list[Answer] = ray.get(pending)
            return answers
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            self._lost += 1
            if self._lost > MAX_LOST:
                raise ClusterError(f"{self._lost} perturbation workers of the trial were lost: {error}") from error
            logger.warning("perturbation worker %d was lost; its share is computed in the trial's process", number)
            del self._workers.actors[number]
            return one_by_one(function, share)


def shares(items: Sequence[Item], count: int) -> list[Sequence[Item]]:
    """Split items into ``count`` runs of nearly equal length, shorter ones first."""
    ends = [len(items) * index // count for index in range(count + 1)]
    return [items[first:last] for first, last in pairwise(ends)]
