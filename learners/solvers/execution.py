"""How the episodes of one outer step are computed: one after another, batched, or traced once and replayed.

All give the same hypergradient to rounding. ``loop`` is the only one for estimators that are not the
derivative of one computation, and the fastest for convolutions of many or large images (per-task weights make
vmap's convolutions grouped). ``vmap`` batches small networks, and small convolutions (``BySize``). ``traced`` runs
vmap once through ``make_fx`` and replays the plain operations, free of the transforms' own cost, by TorchScript's
interpreter, free of Python's: see ``Traced``. Wide networks reverse that: T copies of their weights leave the cache.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from metaloom.learners.episode import Episode, Episodes, stack_episodes
from metaloom.learners.errors import LearnerError, unknown
from metaloom.learners.hypergradients.problem import NOTHING, Estimator, Outer, Problem, ValueEstimator
from metaloom.learners.knowledge.augmentation import NoAugmentation
from metaloom.learners.knowledge.distilled_data import SupportSet
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import channels_last
from metaloom.learners.solvers.slots import Slots
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors, detach

Pose = Callable[[LearnerState, Episode], Problem]
Result = tuple[Tensors, Outer, dict[str, float], Mapping[str, Tensor]]
Replay = Callable[..., tuple[Tensor, ...]]
WARM_UPS = 3  # replays until TorchScript has settled on its plan, so that every step of a trial runs the same one
TRACED_WIDTH = 256  # the widest hidden layer that is still faster when batched over tasks
BATCHED_VALUES = 2**17  # of a task's largest feature map: 2.5 times as many are a tie
BATCHED_TASKS = 4  # as few as that are still faster
KEPT_VALUES = 2**21  # of the largest feature map over all tasks and inner steps: a million take 300 MB


class Execution(ABC):
    """A strategy; ``functional`` says whether the inner loop must differentiate by torch.func."""

    functional: ClassVar[bool] = False

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator

    def of(self, episodes: Episodes) -> "Execution":
        """Return the strategy for these episodes: this one, or one that it chooses."""
        return self

    @abstractmethod
    def run(self, pose: Pose, phi: Tensors, state: LearnerState, episodes: Episodes, key: Hashable) -> Result:
        """Return the mean hypergradient, the outer evaluations stacked over tasks, mean diagnostics, and the memory.

        ``pose`` gives the problem of a state and an episode, all of equal shape. ``key`` is what else the computation
        depends on: it is traced again when that changes.
        """


class Loop(Execution):
    """One episode after another; memory of one."""

    def run(self, pose: Pose, phi: Tensors, state: LearnerState, episodes: Episodes, key: Hashable) -> Result:
        total: Tensors = {name: torch.zeros_like(value) for name, value in phi.items()}
        # once for the convolutions of all episodes, and whatever layout a checkpoint gives them back in
        phi, state = {name: channels_last(value) for name, value in phi.items()}, state.mapped(channels_last)
        outers: list[Outer] = []
        sums: dict[str, float] = {}
        memory: Mapping[str, Tensor] = NOTHING
        for episode in episodes:
            problem = pose(state, episode)
            if memory:  # what persists goes through the episodes one after another, as an online inner loop does
                problem = replace(problem, memory=dict(memory))
            gradient, outer, diagnostics, memory = self.estimator(problem, phi)
            for name, value in gradient.items():
                total[name].add_(value, alpha=1 / len(episodes))
            for name, number in diagnostics.items():
                sums[name] = sums.get(name, 0.0) + number / len(episodes)
            outers.append(outer)
        return total, stack_outers(outers), sums, memory


def stack_outers(outers: Sequence[Outer]) -> Outer:
    """Stack evaluations along a new task dimension; of statistics those that every pass has (cells may draw)."""
    names = [name for name in outers[0].statistics if all(name in o.statistics for o in outers)]
    statistics = {name: torch.stack([o.statistics[name] for o in outers]) for name in names}
    return Outer(torch.stack([o.loss for o in outers]), torch.stack([o.accuracy for o in outers]), statistics)


class VMap(Execution):
    """All episodes at once."""

    functional = True

    def _batched(self, pose: Pose) -> Callable[[Tensors, LearnerState, Tensors], tuple[Tensors, Outer]]:
        estimator = self.estimator
        assert isinstance(estimator, ValueEstimator)  # ``choose_strategy`` refuses others

        def one(phi: Tensors, state: LearnerState, tensors: Tensors) -> tuple[Tensor, Outer]:
            problem = pose(state, Episode.of(tensors))
            estimator.check(problem)
            return estimator.value(problem, phi)

        def mean(phi: Tensors, state: LearnerState, tensors: Tensors) -> tuple[Tensor, Outer]:
            totals, outers = torch.func.vmap(partial(one, phi, state))(tensors)
            return totals.mean(), outers

        return torch.func.grad(mean, has_aux=True)

    def run(self, pose: Pose, phi: Tensors, state: LearnerState, episodes: Episodes, key: Hashable) -> Result:
        gradient, outers = self._gradient(pose, phi, state, stack_episodes(episodes).tensors(), key)
        return detach(gradient), outers, {}, NOTHING

    def _gradient(
        self, pose: Pose, phi: Tensors, state: LearnerState, tensors: Tensors, key: Hashable
    ) -> tuple[Tensors, Outer]:
        return self._batched(pose)(phi, state, tensors)


class Traced(VMap):
    """vmap traced once per shape into plain operations, then replayed.

    One step on 25 sine tasks takes 1.2 ms where the same graph in Python takes 3.1 and a loop 45
    (one core): the graph has 300 small operations, and Python's share of each is larger than its work.
    """

    def __init__(self, estimator: Estimator) -> None:
        super().__init__(estimator)
        self._replays: dict[Hashable, tuple[Replay, Outer]] = {}

    def _gradient(
        self, pose: Pose, phi: Tensors, state: LearnerState, tensors: Tensors, key: Hashable
    ) -> tuple[Tensors, Outer]:
        flat = state.moving()
        leaves = (*phi.values(), *flat.values(), *tensors.values())
        kind = (key, *phi, *flat, *tensors, *((t.shape, t.dtype, t.device) for t in leaves))
        if kind not in self._replays:
            self._replays = {kind: self._trace(pose, phi, state, tensors)}
        replay, like = self._replays[kind]
        with torch.no_grad():
            values = iter(replay(*leaves))
        gradient = dict(zip(phi, values, strict=False))
        return gradient, Outer(next(values), next(values), dict(zip(like.statistics, values, strict=True)))

    def _trace(self, pose: Pose, phi: Tensors, state: LearnerState, tensors: Tensors) -> tuple[Replay, Outer]:
        """Return the computation as a function of flat leaves to flat results, and an evaluation of its form."""
        batched, forms = self._batched(pose), []
        leaves = (*phi.values(), *state.moving().values(), *tensors.values())

        def flat(*values: Tensor) -> tuple[Tensor, ...]:
            rest = iter(values)
            phi_now = {name: next(rest) for name in phi}
            state_now = state.mapped(lambda _: next(rest))
            gradient, outer = batched(phi_now, state_now, {name: next(rest) for name in tensors})
            forms.append(outer)
            return *gradient.values(), outer.loss, outer.accuracy, *outer.statistics.values()

        graph = make_fx(flat)(*leaves)
        graph.graph.eliminate_dead_code()
        graph.recompile()
        if any(node.target is torch.ops.aten.convolution_backward.default for node in graph.graph.nodes):
            return graph, forms[0]  # TorchScript cannot record its arguments
        with torch.no_grad(), warnings.catch_warnings():
            # torch recommends torch.compile instead, which takes a minute and a C++ compiler here
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)  # torch 2.14's class for the same
            replay: Replay = torch.jit.trace(graph, tuple(leaves), check_trace=False)  # type: ignore[no-untyped-call]
            for _ in range(WARM_UPS):
                replay(*leaves)
        return replay, forms[0]


class BySize(Loop):
    """Batched where a task's convolutions are so small that calling them costs more than their work; else a loop.

    Strided Conv-4-64, 5-way 1-shot, 1 query, 16 tasks, to second order is such a case. With 15 queries the loop is the
    faster one.
    """

    def __init__(self, estimator: Estimator, network: Network, steps: int) -> None:
        super().__init__(estimator)
        self.batched, self.network, self.steps = VMap(estimator), network, steps

    def of(self, episodes: Episodes) -> Execution:
        """Judge by the first episode: all have one shape."""
        first = episodes[0]
        values = self.network.largest_map(max(len(first.support_x), len(first.query_x)))
        if values is None or first.query_x.device.type != "cpu" or len(episodes) < BATCHED_TASKS:
            return self  # measured on CPU alone
        small = values <= BATCHED_VALUES and values * len(episodes) * self.steps <= KEPT_VALUES
        return self.batched if small else self


STRATEGIES: dict[str, type[Execution]] = {"loop": Loop, "vmap": VMap, "traced": Traced}


def choose_strategy(wanted: str, estimator: Estimator, slots: Slots, online: bool, *, varying: bool = False) -> str:
    """Choose by what the network declares (trace narrow products, batch small maps, else loop), or refuse a name.

    Episodes that vary from one outer step to the next are batched and not traced: each size would be traced again. So
    are those of a component whose trace would take longer than it saves.
    """
    network = slots.architecture
    obstacles = [] if isinstance(estimator, ValueEstimator) else [type(estimator).__name__]
    obstacles += [f"learner.{name}" for name, one in slots.items() if not one.batchable]
    if wanted != "auto":
        if wanted not in STRATEGIES:
            raise LearnerError(f"outer.strategy: {unknown('strategy', wanted, ['auto', *STRATEGIES])}")
        if wanted != "loop" and obstacles:
            raise LearnerError(f"outer.strategy: {' and '.join(obstacles)} cannot be batched; use loop")
        return "loop" if network.refuses(wanted) else wanted
    if obstacles or online:
        return "loop"
    width = network.batched_width()
    if width is not None and width <= TRACED_WIDTH and not network.refuses("traced"):
        return "vmap" if varying or not all(one.traceable for _, one in slots.items()) else "traced"
    plain = isinstance(slots.data, SupportSet) and isinstance(slots.augmentation, NoAugmentation)
    mapped = network.largest_map(1) is not None and not network.refuses("vmap")
    return "by_size" if plain and mapped else "loop"


def make_execution(name: str, estimator: Estimator, slots: Slots) -> Execution:
    """Build the strategy that ``choose_strategy`` named."""
    if name == "by_size":
        return BySize(estimator, slots.architecture, slots.update.config.steps)
    return STRATEGIES[name](estimator)
