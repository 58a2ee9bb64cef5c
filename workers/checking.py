"""Compares a hypergradient with central differences in float64, one learned knob at a time."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import torch
from torch import Generator, Tensor

from metaloom.learners import ESTIMATORS
from metaloom.learners.base import Learner, MetaStep
from metaloom.learners.episode import Episode
from metaloom.learners.errors import BadInput, LearnerError
from metaloom.learners.knowledge.update_rules import NETWORK
from metaloom.learners.solvers.holding import holding
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.data.base import TaskSource
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.device import LiveBytes
from metaloom.workers.records.results import EstimatorCheck, KnobCheck
from metaloom.workers.seeds import derive_generator

# Of directions of length 1. A long one suffers from curvature, with the square of its length, and from kinks: where an
# inner gradient jumps, the objective itself does. A short one suffers from rounding. A wrong hypergradient disagrees at
# all of them. The first one is the best on a smooth objective: V1's rates differ by 1e-10 there and, by curvature, by
# 1.5e-8 at 1e-5 and 1.5e-6 at 1e-4, so that a check that stops at one of those reports its own error.
DISPLACEMENTS = (1e-6, 1e-5, 1e-7, 1e-4, 1e-8)
GOOD_ENOUGH = 1e-9  # no further displacement is tried; a tenth of what a reproduction may be off
LONG_DISPLACEMENTS = (1e-3, 1e-2)  # for a slope so slight that rounding hides it at the others
DIRECTIONS = 4
EXACT = 1e-5  # relative error up to which a hypergradient is called exact
Build = Callable[[str], Learner]


@dataclass(frozen=True)
class Check:
    """The comparison for all of a learner's knobs.

    Attributes:
        knobs: Dotted path of each learned knob to its comparison.
        reason: Why ``auto`` chose the estimator; empty where the experiment names it.
        estimators: The same comparison for every other estimator; empty where it was not asked for.
        exact: Whether the estimator leaves nothing out.
        flagged: Why the estimator reports that its result is not reliable here; then every knob's error is infinite.
    """

    estimator: str
    knobs: Mapping[str, KnobCheck]
    diagnostics: Mapping[str, float]
    reason: str = ""
    estimators: Mapping[str, EstimatorCheck] = field(default_factory=dict)
    exact: bool = False
    flagged: str = ""


@dataclass(frozen=True)
class Measured:
    """Central differences of one knob: the directions, and the differences along them at each displacement tried."""

    directions: Sequence[Tensors]
    differences: Sequence[Sequence[float]]

    def error(self, gradient: Tensors) -> float:
        """Return the relative error of a hypergradient's directional derivatives, at the best displacement."""
        estimated = torch.tensor([_dot(direction, gradient) for direction in self.directions], dtype=torch.float64)
        return min(_relative_error(estimated, differences) for differences in self.differences)


def knob_of(name: str) -> str:
    """Return the dotted path, in an experiment, of the knob that a leaf of phi belongs to."""
    slot, _, rest = name.partition("/")
    if slot == "normalization":
        return "inner.batch_norm"
    if slot == "update":
        knob = rest.split("/")[0]
        return "learner.update" if knob == NETWORK else f"learner.update.{knob}"
    if slot == "prediction":  # a solver's own networks, which are many leaves, are checked as a whole
        knob = rest.split("/")[0]
        return f"learner.{slot}" if "." in knob else f"learner.{slot}.{knob}"
    if slot == "loss":
        return f"learner.{slot}.{rest}"
    return "learner.prediction" if slot == "joint_head" else f"learner.{slot}"


@dataclass(frozen=True)
class _Problem:
    """A learner in float64 with fixed knowledge and episodes; every call makes the same random draws."""

    learner: Learner
    phi: Tensors
    state: LearnerState
    batch: Sequence[Episode]
    seed: int

    @classmethod
    def of(cls, learner: Learner, phi: Tensors, batch: Sequence[Episode], seed: int) -> "_Problem":
        state = learner.begin(phi, derive_generator(seed, "check", "begin")).mapped(_double)
        held = holding(learner, phi, state, batch, derive_generator(seed, "check", "meta_step"))
        return cls(held, phi, state, batch, seed)

    def step(self) -> MetaStep:
        return self.learner.meta_step(self.phi, self.state, self.batch, self._generator())

    def difference(self, direction: Tensors, displacement: float) -> float:
        """Return the central difference of the objective along a direction."""
        ends = []
        for sign in (1, -1):
            moved = self.phi | {name: self.phi[name] + sign * displacement * one for name, one in direction.items()}
            ends.append(self.learner.objective(moved, self.state, self.batch, self._generator()))
        return (ends[0] - ends[1]) / (2 * displacement)

    def _generator(self) -> Generator:
        return derive_generator(self.seed, "check", "meta_step")


def check_hypergradient(
    learner: Learner, source: TaskSource, *, seed: int, episodes: int = 2, build: Build | None = None
) -> Check:
    """Compare every learned knob's hypergradient with central differences.

    phi is drawn again, from ``seed`` as the directions are, and cast to float64. The outer batch has the first
    ``episodes`` of training. With ``build``, which makes the same learner with the estimator named, all estimators are
    compared. Raises LearnerError if the estimator reports that its result is not reliable, and there is none to compare
    it with.
    """
    phi = {name: _double(one) for name, one in learner.init(derive_generator(seed, "check", "init")).items()}
    reason = learner.estimator_reason
    if not phi:
        return Check(learner.estimator, {}, {}, reason)
    drawn = [source.episode("train", i).episode for i in _indices(source, episodes)]
    batch = [episode.to(torch.device("cpu"), torch.float64) for episode in drawn]
    problem = _Problem.of(learner, phi, batch, seed)
    step, flagged = _step_or_another(problem, build)
    _check_finite(step)
    leaves: dict[str, list[str]] = {}
    for name in phi:
        leaves.setdefault(knob_of(name), []).append(name)
    knobs: dict[str, KnobCheck] = {}
    measured: dict[str, Measured] = {}
    for knob, names in leaves.items():
        gradient = {name: step.gradient[name] for name in names}
        measured[knob] = _measure(gradient, derive_generator(seed, "check", knob), problem.difference)
        numbers = sum(leaf.numel() for leaf in gradient.values())
        error, norm = measured[knob].error(gradient), _dot(gradient, gradient) ** 0.5
        error, norm = (math.inf, math.nan) if flagged else (error, norm)
        knobs[knob] = KnobCheck(error, norm, numbers, learner.approximations.get(names[0].partition("/")[0], ""))
    compared = {}
    if build is not None:
        compared = {kind: _compared(partial(build, kind), problem, measured) for kind in ESTIMATORS}
    diagnostics = {} if flagged else step.diagnostics
    return Check(learner.estimator, knobs, diagnostics, reason, compared, _is_exact(learner.estimator), flagged)


def _indices(source: TaskSource, episodes: int) -> range:
    """Return the first training episodes; where ways vary, the first of one outer step with the most."""
    if not isinstance(source, FewShotSource):
        return range(episodes)
    source.meta_batch = episodes
    most = source.protocols["train"].ways[1]
    first = next(start for start in count(0, episodes) if source.sizes("train", start)[0] == most)
    return range(first, first + episodes)


def _check_finite(step: MetaStep) -> None:
    """Refuse a hypergradient that is not finite where the loss is; raises LearnerError."""
    odd = next((name for name, value in step.gradient.items() if not value.isfinite().all()), None)
    if odd is not None and math.isfinite(step.loss):
        raise LearnerError(
            f"outer.hypergradient: {knob_of(odd)} gets a hypergradient that is not finite at its start ({odd}) though "
            "the loss is finite: an operation has no finite second derivative there (equal eigenvalues, a norm or a "
            "root at 0); start elsewhere, use another operation, or outer.hypergradient: first_order"
        )


def _step_or_another(problem: _Problem, build: Build | None) -> tuple[MetaStep, str]:
    """Take an outer step; if the estimator refuses, one by an exact estimator that does not, with the refusal."""
    try:
        return problem.step(), ""
    except LearnerError as refusal:
        for kind in filter(_is_exact, ESTIMATORS if build else ()):
            with contextlib.suppress(LearnerError):  # it cannot be used here either
                assert build is not None
                return _Problem.of(build(kind), problem.phi, problem.batch, problem.seed).step(), str(refusal)
        raise


def _is_exact(estimator: str) -> bool:
    return estimator in ESTIMATORS and ESTIMATORS[estimator].exact


def _measure(gradient: Tensors, generator: Generator, difference: Callable[[Tensors, float], float]) -> Measured:
    """Take central differences along ``DIRECTIONS``, until one displacement is good enough or all are tried."""
    directions, tried = _directions(gradient, generator), list[list[float]]()
    measured = Measured(directions, tried)
    for displacement in (*DISPLACEMENTS, *LONG_DISPLACEMENTS):
        if displacement in LONG_DISPLACEMENTS and measured.error(gradient) <= EXACT:
            break
        tried.append([difference(direction, displacement) for direction in directions])
        if measured.error(gradient) <= GOOD_ENOUGH:
            break
    return measured


def _compared(build: Callable[[], Learner], problem: _Problem, measured: Mapping[str, Measured]) -> EstimatorCheck:
    """Run one estimator twice: for its memory, which slows it down, and for its time."""
    try:
        other = _Problem.of(build(), problem.phi, problem.batch, problem.seed)
        with LiveBytes() as live:
            other.step()
        started = time.perf_counter()
        step = other.step()
        seconds = time.perf_counter() - started
    except BadInput as refusal:
        return EstimatorCheck(refused=str(refusal).removeprefix("outer.hypergradient: "))
    errors = {knob: one.error(step.gradient) for knob, one in measured.items()}
    return EstimatorCheck(errors, seconds, live.most, "", step.diagnostics)


def _relative_error(estimated: Tensor, differences: Sequence[float]) -> float:
    measured = torch.tensor(differences, dtype=torch.float64)
    if not measured.any():  # the objective does not move, as with a choice that has no derivative
        return math.inf if estimated.any() else 0.0
    return float((estimated - measured).norm() / measured.norm())


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _dot(left: Tensors, right: Tensors) -> float:
    return float(sum((one * right[name]).sum() for name, one in left.items()))


def _unit(tensors: Tensors) -> Tensors:
    length = _dot(tensors, tensors) ** 0.5
    return {name: one / length for name, one in tensors.items()} if length > 0 else tensors


def _directions(gradient: Tensors, generator: Generator) -> list[Tensors]:
    """Draw directions of length 1, half random and half along the estimate.

    So a wrong length of the estimate is found, and a part that the estimate misses is found too.
    """
    along = _unit(gradient)
    shapes = {name: (one.shape, one.dtype) for name, one in gradient.items()}
    drawn = [
        _unit({name: torch.randn(size, generator=generator, dtype=kind) for name, (size, kind) in shapes.items()})
        for _ in range(DIRECTIONS)
    ]
    return [_unit({name: one + along[name] for name, one in direction.items()}) for direction in drawn]
