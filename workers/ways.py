"""The learner for episodes of another number of classes than it was built for, of the same meta-knowledge."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaloom.learners.base import METHODS, Learner
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Mapper, one_by_one
from metaloom.learners.networks.base import HEAD
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.learners.solvers.base import DEFAULT_SOLVER, SOLVERS
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import InnerState, Tensors
from metaloom.workers.assembly import learner_of
from metaloom.workers.bundle_reading import parameters_of
from metaloom.workers.checkpoint import Knowledge, different_leaves
from metaloom.workers.data.base import SampledEpisode, TaskSource
from metaloom.workers.device import Device
from metaloom.workers.records.episode_files import EpisodeFacts
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.seeds import derive_generator

Build = Callable[[TaskShape, Tensors | None], Learner]  # of the same settings, from a task's shape and a network


class TooManyWays(LearnerError):  # noqa: N818
    """A learned head has fewer outputs than the task has classes."""


@dataclass(frozen=True)
class AtWays:
    """A learner for some number of classes.

    ``head`` holds the outputs' layer that it starts from where that layer is drawn and not learned, and the state's own
    has another number of outputs.
    """

    learner: Learner
    head: Tensors

    def state(self, state: LearnerState, device: Device) -> LearnerState:
        """Return the learner's state, from that of the learner that was trained; the body stays."""
        if not self.head:
            return state
        return replace(state, inner=InnerState({**state.theta, **device.place(self.head)}, {}))


def ways_of(sampled: SampledEpisode, task: TaskShape) -> int:
    """Return the classes of an episode; the outputs of a kind of task without classes."""
    return len(sampled.class_ids) or task.outputs if task.task_kind.has_classes else task.outputs


def describe(sampled: SampledEpisode, index: int, learner: Learner) -> EpisodeFacts:
    """Return the facts that identify an episode, for its record."""
    episode = sampled.episode
    support, queries = len(episode.support_y), len(episode.query_y)
    ways = ways_of(sampled, learner.task) if learner.task.task_kind.has_classes else 0
    each = max(ways, 1)
    ids = sampled.class_ids, sampled.sample_ids
    counts = query_counts(episode.query_y, ways) if ways and not learner.task.single_task else ()
    sizes = ways, support // each, queries // each
    return EpisodeFacts(index, sampled.seed, *ids, *sizes, counts, sampled.source)


def query_counts(labels: Tensor, ways: int) -> tuple[int, ...]:
    """Return how many of the labels [n] each class has; nothing if all have equally many."""
    counts = torch.bincount(labels, minlength=ways)
    return () if bool((counts == counts[0]).all()) else tuple(counts.tolist())


def ways_of_split(source: TaskSource, split: str) -> int:
    """Return the classes of a held-out split's episodes, which all have equally many."""
    task = source.shape
    fixed = not task.task_kind.has_classes or task.single_task or source.available(split) == 0
    return task.outputs if fixed else ways_of(source.episode(split, 0), task)


def at_ways(learner: Learner, ways: int, build: Build) -> AtWays:
    """Return the learner for episodes of so many classes.

    One that compares with its support set (prototypes, neighbours), and one whose head starts fresh for every task,
    takes any number. A learned head has the outputs of the training's most ways: with fewer classes the others stay
    unused.

    Raises:
        TooManyWays: The learned head has fewer outputs.
    """
    outputs = learner.task.outputs
    if ways == outputs or not learner.task.task_kind.has_classes:
        return AtWays(learner, {})
    own, refused = _begun(learner), ""
    body = {name: one for name, one in parameters_of(own).items() if not name.startswith(HEAD)}
    try:
        other = build(replace(learner.task, outputs=ways), body)
        begun = _begun(other)
    except LearnerError as problem:  # a module of the user's own may have fixed ways
        refused = str(problem)
    else:
        differing = different_leaves(begun.state.theta, own.state.theta)
        if not different_leaves(begun.phi, own.phi) and all(name.startswith(HEAD) for name in differing):
            return AtWays(other, {name: begun.state.theta[name] for name in differing})
    if ways < outputs:
        return AtWays(learner, {})
    places = ", or learner.prediction.most_ways" if has_places(learner) else ""
    of_training = f"the head that is learned has {outputs} outputs, the most ways of the training"
    why = refused or f"{of_training}; raise tasks.ways{places}"
    raise TooManyWays(f"{ways} ways, but {why}, or use a method that takes any number of classes, {of_any_ways()}")


def has_places(learner: Learner) -> bool:
    """Whether its labels have as many places as ``learner.prediction.most_ways`` says."""
    return isinstance(learner, AmortizedLearner) and hasattr(learner.solver.config, "most_ways")


def of_any_ways() -> str:
    """Name the methods that take any number of classes, whatever number they were trained with."""
    kinds = {name: recipe.learner.get("prediction", {}).get("kind", DEFAULT_SOLVER) for name, recipe in METHODS.items()}
    able = {kind for kind, solver in SOLVERS.items() if solver.any_ways and solver.needs_classes}
    names = [name for name, kind in kinds.items() if kind in able and name != "prototypical"]
    return f"such as {', '.join(['prototypical', *sorted(names)])}"


def build_of(config: TrialConfig, *, mapper: Mapper = one_by_one, trust_code: bool = True) -> Build:
    """Return what builds a trial's learner for another task; its code has been trusted when it was built at first."""

    def build(task: TaskShape, start: Tensors | None) -> Learner:
        return learner_of(config, task, start=start, mapper=mapper, trust_code=trust_code)

    return build


class LearnersByWays:
    """The learners of one trial, each built when its number of classes first comes up."""

    def __init__(self, learner: Learner, build: Build) -> None:
        self._learner, self._build = learner, build
        self._made: dict[int, AtWays] = {}

    def at(self, ways: int) -> AtWays:
        """Return the learner for episodes of so many classes; raises TooManyWays."""
        if ways not in self._made:
            self._made[ways] = at_ways(self._learner, ways, self._build)
        return self._made[ways]

    def in_training(self, ways: int) -> Learner:
        """Return the learner whose state goes on from episodes of one number of classes to those of another."""
        at = self.at(ways)
        return self._learner if at.head else at.learner


def unused_outputs(at: AtWays, ways: int) -> str:
    """Say how many outputs of a learned head stay unused; empty if none does."""
    outputs = at.learner.task.outputs
    if outputs == ways or not at.learner.task.task_kind.has_classes:
        return ""
    return f"the head that is learned has {outputs} outputs, of which {ways}-way episodes use {ways}"


def _begun(learner: Learner) -> Knowledge:
    """Return a learner's knowledge before it learns anything, for the shapes of its tensors."""
    phi = learner.init(derive_generator(0, "shapes"))
    return Knowledge(phi, learner.begin(phi, derive_generator(0, "shapes")), 0)
