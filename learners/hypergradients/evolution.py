r"""The hypergradient of a smoothed outer loss, from its values alone: for anything, however it was computed.

Evolution strategies (Rechenberg, 1973; Salimans et al., 2017, https://arxiv.org/abs/1703.03864, section 2, with
antithetic pairs):

    dF/dphi ~ 1 / (2 sigma N) sum_i [F(phi + sigma e_i) - F(phi - sigma e_i)] e_i,    e_i ~ N(0, I)

Unbiased for the Gaussian smoothing of F, with an error of about sqrt(O / N): for up to some hundred learned
numbers. Time 2 N inner loops, which are independent of each other and so may run elsewhere (``mapper``); memory of
one step.

Persistent evolution strategies (Vicol, Metz and Sohl-Dickstein, 2021, https://arxiv.org/abs/2112.13835,
algorithm 2), for inner loops that persist:

    xi_i <- xi_i + sigma e_i,    dF/dphi ~ 1 / (2 sigma^2 N) sum_i [L(theta_i+) - L(theta_i-)] xi_i

Every particle keeps its own theta+ and theta- from one outer step to the next, and the sum xi of all its
perturbations so far, so that what phi did in earlier outer steps is seen too: unbiased where a truncated gradient
is not. Its variance grows with the steps since the particles started, so they start again, at the real theta, every
``horizon`` outer steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Int, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import (
    ESTIMATORS,
    Estimator,
    Hypergradient,
    Problem,
    outer_value,
    randomness,
)
from metaloom.learners.tensors import InnerState, Tensors, flat_state, flatten, norm, part, state_of, under

UP, DOWN, DRIFT, AGE = "up", "down", "drift", "age"


@dataclass(frozen=True)
class EvolutionConfig:
    """How many antithetic pairs are drawn, and how far from phi (in the unconstrained space of the knobs).

    Attributes:
        pairs: How many antithetic pairs are drawn.
        sigma: Their distance from phi.
    """

    pairs: Annotated[int, Int(1, 10_000, log=True)] = 16
    sigma: Annotated[float, Real(1e-4, 1.0, log=True, per=())] = 0.01

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise LearnerError(f"outer.hypergradient.pairs must be at least 1, got {self.pairs}")
        if not self.sigma > 0:
            raise LearnerError(f"outer.hypergradient.sigma must be above 0, got {self.sigma}")


def draw(phi: Tensors, sigma: float, generator: Generator) -> Tensors:
    """Draw one perturbation of phi; on the generator's own device, so that every device sees the same."""
    return {
        name: sigma
        * torch.randn(value.shape, generator=generator, dtype=value.dtype, device=generator.device).to(value.device)
        for name, value in phi.items()
    }


def _moved(phi: Tensors, by: Tensors, sign: int) -> Tensors:
    return {name: value + sign * by[name] for name, value in phi.items()}


def combined(directions: Sequence[Tensors], differences: Sequence[float], scale: float) -> tuple[Tensors, float]:
    """Return the mean of ``scale * difference * direction``, and its standard error over its own length."""
    parts = [{n: scale * f * v for n, v in d.items()} for d, f in zip(directions, differences, strict=True)]
    count = len(parts)
    mean = {name: torch.stack([one[name] for one in parts]).mean(0) for name in parts[0]}
    if count == 1:
        return mean, math.nan
    spread = sum(float((flatten(one) - flatten(mean)).square().sum()) for one in parts)
    tiny = torch.finfo(flatten(mean).dtype).tiny
    return mean, math.sqrt(spread / count / (count - 1)) / max(float(norm(mean)), tiny)


def _stateless(problem: Problem) -> Problem:
    """Return what of the problem an evaluation reads: all chance was drawn before, and memory is not its own."""
    return replace(problem, generator=None, memory={})


def _loss(problem: Problem, phi: Tensors) -> float:
    return outer_value(problem, phi)[0]


@ESTIMATORS.register("evolution_strategies")
class EvolutionStrategies(Estimator):
    """Antithetic pairs of perturbations; a stochastic estimate."""

    Config = EvolutionConfig
    config: EvolutionConfig
    spreads = True

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        generator, sigma = randomness(problem, "evolution_strategies"), self.config.sigma
        fixed = {name: value.detach() for name, value in phi.items()}
        drawn = [draw(fixed, sigma, generator) for _ in range(self.config.pairs)]
        ends = [_moved(fixed, one, sign) for one in drawn for sign in (1, -1)]
        losses = self.mapper(partial(_loss, _stateless(problem)), ends)
        differences = [up - down for up, down in zip(losses[::2], losses[1::2], strict=True)]
        gradient, error = combined(drawn, differences, 1 / (2 * sigma**2))
        return Hypergradient(gradient, outer_value(problem, fixed)[1], {"standard_error": error})


@dataclass(frozen=True)
class PersistentEvolutionConfig(EvolutionConfig):
    """Evolution strategies over an inner loop that goes on.

    Attributes:
        horizon: After how many outer steps the particles start again.
    """

    pairs: Annotated[int, Int(1, 10_000, log=True)] = 8
    horizon: Annotated[int, Int(1, 1_000_000)] = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon < 1:
            raise LearnerError(f"outer.hypergradient.horizon must be at least 1, got {self.horizon}")


Particle = tuple[Tensors, InnerState]


def _unrolled(problem: Problem, particle: Particle) -> tuple[float, InnerState]:
    """Take a particle's inner steps: its outer loss, and where it is then."""
    phi, state = particle
    with torch.no_grad():
        for index in range(problem.steps):
            state = problem.step(phi, state, index)
        loss = float(problem.outer(phi, state.theta, problem.steps).loss)
    return loss, InnerState({n: v.detach() for n, v in state.theta.items()}, dict(state.buffers))


@ESTIMATORS.register("persistent_evolution_strategies")
class PersistentEvolutionStrategies(Estimator):
    """Pairs of particles with lives of their own; for online inner loops."""

    Config = PersistentEvolutionConfig
    config: PersistentEvolutionConfig
    online_only = True
    spreads = True

    def begin(self, phi: Tensors, state: InnerState) -> Tensors:
        """Start every particle at the real inner state, with nothing accumulated."""
        flat = flat_state(state)
        copies = {name: value.detach().expand(self.config.pairs, *value.shape).clone() for name, value in flat.items()}
        drift = {name: value.new_zeros(self.config.pairs, *value.shape) for name, value in phi.items()}
        age = torch.zeros((), dtype=torch.int64)
        return under(UP, copies) | under(DOWN, copies) | under(DRIFT, drift) | {AGE: age}

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        generator, sigma, pairs = (
            randomness(problem, "persistent_evolution_strategies"),
            self.config.sigma,
            self.config.pairs,
        )
        fixed = {name: value.detach() for name, value in phi.items()}
        memory = problem.memory
        if not memory or int(memory[AGE]) >= self.config.horizon:
            memory = self.begin(fixed, problem.start(fixed))
        drawn = [draw(fixed, sigma, generator) for _ in range(pairs)]
        particles = [
            (_moved(fixed, drawn[pair], sign), _particle(memory, side, pair))
            for pair in range(pairs)
            for sign, side in ((1, UP), (-1, DOWN))
        ]
        ends = self.mapper(partial(_unrolled, _stateless(problem)), particles)
        drift = [_moved(part(_at(memory, pair), DRIFT, optional=True), drawn[pair], 1) for pair in range(pairs)]
        differences = [up[0] - down[0] for up, down in zip(ends[::2], ends[1::2], strict=True)]
        gradient, error = combined(drift, differences, 1 / (2 * sigma**2))
        after = under(UP, _stacked(ends[::2])) | under(DOWN, _stacked(ends[1::2]))
        after |= under(DRIFT, {name: torch.stack([one[name] for one in drift]) for name in fixed})
        diagnostics = {"standard_error": error, "age": float(memory[AGE])}
        return Hypergradient(gradient, outer_value(problem, fixed)[1], diagnostics, after | {AGE: memory[AGE] + 1})


def _at(memory: Tensors, pair: int) -> Tensors:
    return {name: value if name == AGE else value[pair] for name, value in memory.items()}


def _particle(memory: Tensors, side: str, pair: int) -> InnerState:
    return state_of(part(_at(memory, pair), side))


def _stacked(ends: Sequence[tuple[float, InnerState]]) -> Tensors:
    flat: list[dict[str, Tensor]] = [flat_state(state) for _, state in ends]
    return {name: torch.stack([one[name] for one in flat]) for name in flat[0]}
