"""Is a hypergradient right? Compare it with central differences in float64, one learned knob at a time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from metaloom.learners.base import Learner, Tensors
from metaloom.learners.episode import Episode
from metaloom.learners.knowledge.update_rules import NETWORK
from metaloom.workers.data.base import TaskSource
from metaloom.workers.seeds import derive_generator

# Of directions of length 1. A long one suffers from curvature, and from kinks: where an inner gradient jumps, the
# objective itself does. A short one suffers from rounding. A wrong hypergradient disagrees at all of them.
DISPLACEMENTS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-4)
GOOD_ENOUGH = 1e-8  # no further displacement is tried
DIRECTIONS = 4
EXACT = 1e-5  # relative error up to which a hypergradient is called exact


@dataclass(frozen=True)
class KnobCheck:
    """How a knob's hypergradient compares with central differences.

    Attributes:
        relative_error: |estimate - difference| / |difference| over ``DIRECTIONS`` directional derivatives,
            at the best of ``DISPLACEMENTS``.
        norm: Length of the estimated hypergradient of this knob.
        numbers: How many numbers the knob learns.
    """

    relative_error: float
    norm: float
    numbers: int


@dataclass(frozen=True)
class Check:
    """The verdict on a learner.

    Attributes:
        estimator: The estimator that was checked.
        knobs: Dotted path of each learned knob to its comparison.
        diagnostics: What the estimator says of itself.
    """

    estimator: str
    knobs: Mapping[str, KnobCheck]
    diagnostics: Mapping[str, float]


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


def check_hypergradient(learner: Learner, source: TaskSource, *, seed: int, episodes: int = 2) -> Check:
    """Compare every learned knob's hypergradient with central differences.

    Args:
        learner: The learner; its phi is drawn afresh and cast to float64.
        source: Where its episodes come from; the first training episodes are used.
        seed: Seed of phi and of the directions.
        episodes: Episodes in the outer batch.
    """
    phi = _double(learner.init(derive_generator(seed, "check", "init")))
    state = _double(learner.begin(phi, derive_generator(seed, "check", "begin")))
    batch = [source.episode("train", i).episode.to(torch.device("cpu"), torch.float64) for i in range(episodes)]

    def randomness() -> Generator:
        return derive_generator(seed, "check", "meta_step")

    step = learner.meta_step(phi, state, batch, randomness())
    knobs: dict[str, list[str]] = {}
    for name in phi:
        knobs.setdefault(knob_of(name), []).append(name)
    checked: dict[str, KnobCheck] = {}
    for knob, names in knobs.items():
        gradient = {name: step.gradient[name] for name in names}
        directions = _directions(gradient, derive_generator(seed, "check", knob))
        estimated = torch.tensor([_dot(gradient, one) for one in directions], dtype=torch.float64)
        error = math.inf
        for displacement in DISPLACEMENTS:
            differences = [
                _difference(learner, phi, state, batch, one, randomness(), displacement) for one in directions
            ]
            error = min(error, _relative_error(estimated, differences))
            if error <= GOOD_ENOUGH:
                break
        checked[knob] = KnobCheck(error, _dot(gradient, gradient) ** 0.5, sum(one.numel() for one in gradient.values()))
    return Check(learner.estimator, checked, step.diagnostics)


def _relative_error(estimated: Tensor, differences: Sequence[float]) -> float:
    measured = torch.tensor(differences, dtype=torch.float64)
    return float((estimated - measured).norm() / measured.norm().clamp_min(torch.finfo(torch.float64).tiny))


def _double(tensors: Tensors) -> Tensors:
    return {name: one.double() if one.is_floating_point() else one for name, one in tensors.items()}


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
    state: Tensors,
    batch: Sequence[Episode],
    direction: Tensors,
    generator: Generator,
    displacement: float,
) -> float:
    """Return the central difference of the objective along a direction."""
    position = generator.get_state()
    ends = []
    for sign in (1, -1):
        generator.set_state(position)  # both ends see the same draws
        moved = phi | {name: phi[name] + sign * displacement * one for name, one in direction.items()}
        ends.append(learner.objective(moved, state, batch, generator))
    return (ends[0] - ends[1]) / (2 * displacement)
