"""Is a hypergradient right? Compare it with central differences in float64, one learned knob at a time."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Generator, Tensor

from metaloom.learners import ESTIMATORS
from metaloom.learners.base import Learner, MetaStep
from metaloom.learners.episode import Episode
from metaloom.learners.errors import BadInput, LearnerError
from metaloom.learners.knowledge.update_rules import NETWORK
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors
from metaloom.workers.data.base import TaskSource
from metaloom.workers.live_bytes import LiveBytes
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


@dataclass(frozen=True)
class KnobCheck:
    """How a knob's hypergradient compares with central differences.

    Attributes:
        relative_error: |estimate - difference| / |difference| over ``DIRECTIONS`` directional derivatives,
            at the best displacement; infinite where the objective does not move with the knob at all.
        norm: Length of the estimated hypergradient of this knob.
        numbers: How many numbers the knob learns.
        approximation: What its gradient leaves out by design; empty where it leaves nothing out.
    """

    relative_error: float
    norm: float
    numbers: int
    approximation: str = ""


@dataclass(frozen=True)
class EstimatorCheck:
    """One estimator on the same problem.

    Attributes:
        errors: Dotted path of each learned knob to its relative error.
        seconds: Wall time of one hypergradient; None where it is refused.
        peak_bytes: The most bytes of tensors that it held at once.
        refused: Why it cannot be used here; empty if it can.
        diagnostics: What it says of itself.
    """

    errors: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    peak_bytes: int = 0
    refused: str = ""
    diagnostics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """The verdict on a learner.

    Attributes:
        estimator: The estimator that was checked.
        knobs: Dotted path of each learned knob to its comparison.
        diagnostics: What the estimator says of itself.
        reason: Why ``auto`` chose the estimator; empty where the experiment names it.
        estimators: The same comparison for every estimator there is; empty where it was not asked for.
        exact: Whether the estimator leaves nothing out.
        flagged: Why the estimator does not stand by what it would give here, such as negative curvature; then every
            knob's error is infinite.
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
        estimated = torch.tensor([_dot(one, gradient) for one in self.directions], dtype=torch.float64)
        return min(_relative_error(estimated, one) for one in self.differences)


def knob_of(name: str) -> str:
    """Return the dotted path, in an experiment, of the knob that a leaf of phi belongs to."""
    slot, _, rest = name.partition("/")
    if slot == "normalization":
        return "inner.batch_norm"
    if slot == "update":
        knob = rest.split("/")[0]
        return "learner.update" if knob == NETWORK else f"learner.update.{knob}"
    if slot in ("loss", "prediction"):
        return f"learner.{slot}.{rest}"
    return "learner.prediction" if slot == "joint_head" else f"learner.{slot}"


Build = Callable[[str], Learner]


def check_hypergradient(
    learner: Learner, source: TaskSource, *, seed: int, episodes: int = 2, build: Build | None = None
) -> Check:
    """Compare every learned knob's hypergradient with central differences.

    Args:
        learner: The learner; its phi is drawn afresh and cast to float64.
        source: Where its episodes come from; the first training episodes are used.
        seed: Seed of phi and of the directions.
        episodes: Episodes in the outer batch.
        build: Makes the same learner with the estimator named, to compare all of them; None compares none.

    Raises:
        LearnerError: The estimator does not stand by what it would give, and there is none to compare it with.
    """
    phi = {name: _double(one) for name, one in learner.init(derive_generator(seed, "check", "init")).items()}
    reason = learner.estimator_reason
    if not phi:
        return Check(learner.estimator, {}, {}, reason)
    state = learner.begin(phi, derive_generator(seed, "check", "begin")).mapped(_double)
    batch = [source.episode("train", i).episode.to(torch.device("cpu"), torch.float64) for i in range(episodes)]
    step, flagged = _step_or_another(learner, build, phi, state, batch, seed)
    _check_finite(step)
    names: dict[str, list[str]] = {}
    for name in phi:
        names.setdefault(knob_of(name), []).append(name)
    checked: dict[str, KnobCheck] = {}
    measured: dict[str, Measured] = {}
    for knob, leaves in names.items():
        gradient = {name: step.gradient[name] for name in leaves}

        def difference(direction: Tensors, displacement: float) -> float:
            return _difference(learner, phi, state, batch, direction, seed, displacement)

        one = measured[knob] = _measure(gradient, derive_generator(seed, "check", knob), difference)
        norm, count = _dot(gradient, gradient) ** 0.5, sum(leaf.numel() for leaf in gradient.values())
        slot = leaves[0].partition("/")[0]
        error, norm = (math.inf, math.nan) if flagged else (one.error(gradient), norm)
        checked[knob] = KnobCheck(error, norm, count, learner.approximations.get(slot, ""))
    compared: dict[str, EstimatorCheck] = {}
    if build is not None:
        compared = {kind: _compared(partial(build, kind), phi, seed, batch, measured) for kind in ESTIMATORS}
    diagnostics = {} if flagged else step.diagnostics
    return Check(learner.estimator, checked, diagnostics, reason, compared, _is_exact(learner.estimator), flagged)


def _check_finite(step: MetaStep) -> None:
    """Refuse a hypergradient that is not finite where the loss is; raises LearnerError."""
    odd = next((name for name, value in step.gradient.items() if not value.isfinite().all()), None)
    if odd is not None and math.isfinite(step.loss):
        raise LearnerError(
            f"outer.hypergradient: {knob_of(odd)} gets a hypergradient that is not finite at its start ({odd}) though "
            "the loss is finite: an operation has no finite second derivative there (equal eigenvalues, a norm or a "
            "root at 0); start elsewhere, use another operation, or outer.hypergradient: first_order"
        )


def _step_or_another(
    learner: Learner, build: Build | None, phi: Tensors, state: LearnerState, batch: Sequence[Episode], seed: int
) -> tuple[MetaStep, str]:
    """Take an outer step; where the estimator refuses, one by an exact estimator that does not, and say why."""
    try:
        return learner.meta_step(phi, state, batch, derive_generator(seed, "check", "meta_step")), ""
    except LearnerError as refusal:
        if build is None:
            raise
        for kind in filter(_is_exact, ESTIMATORS):
            with contextlib.suppress(LearnerError):  # it cannot be used here either
                other = build(kind)
                begun = other.begin(phi, derive_generator(seed, "check", "begin")).mapped(_double)
                return other.meta_step(phi, begun, batch, derive_generator(seed, "check", "meta_step")), str(refusal)
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


def _compared(
    build: Callable[[], Learner], phi: Tensors, seed: int, batch: Sequence[Episode], measured: Mapping[str, Measured]
) -> EstimatorCheck:
    """Run one estimator twice: for its memory, which slows it down, and for its time."""
    live = LiveBytes()
    try:
        learner = build()
        state = learner.begin(phi, derive_generator(seed, "check", "begin")).mapped(_double)
        with live:
            learner.meta_step(phi, state, batch, derive_generator(seed, "check", "meta_step"))
        started = time.perf_counter()
        step = learner.meta_step(phi, state, batch, derive_generator(seed, "check", "meta_step"))
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
    """Draw directions of length 1: half random, half along the estimate, so that neither a wrong length
    nor a part that the estimate misses goes unseen."""

    def random_like(one: Tensor) -> Tensor:
        return torch.randn(one.shape, generator=generator, dtype=one.dtype)

    along = _unit(gradient)
    drawn = [_unit({name: random_like(one) for name, one in gradient.items()}) for _ in range(DIRECTIONS)]
    return [_unit({name: one + along[name] for name, one in direction.items()}) for direction in drawn]


def _difference(
    learner: Learner,
    phi: Tensors,
    state: LearnerState,
    batch: Sequence[Episode],
    direction: Tensors,
    seed: int,
    displacement: float,
) -> float:
    """Return the central difference of the objective along a direction; both ends see the same draws."""
    ends = []
    for sign in (1, -1):
        moved = phi | {name: phi[name] + sign * displacement * one for name, one in direction.items()}
        ends.append(learner.objective(moved, state, batch, derive_generator(seed, "check", "meta_step")))
    return (ends[0] - ends[1]) / (2 * displacement)
