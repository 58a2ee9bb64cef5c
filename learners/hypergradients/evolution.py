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
from torch import Generator

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.hypergradients.problem import ESTIMATORS, Estimator, Hypergradient, Problem
from metaloom.learners.tensors import InnerState, Tensors, detach, flatten, norm, part, under

UP, DOWN, DRIFT, AGE = "up", "down", "drift", "age"


@dataclass(frozen=True)
class EvolutionConfig:
    """The perturbations of phi, in the unconstrained space of the knobs.

    Attributes:
        pairs: How many antithetic pairs are drawn.
        sigma: Their distance from phi.
    """

    pairs: Annotated[int, Int(1, 10_000, log=True)] = 16
    sigma: Annotated[float, Real(1e-4, 1.0, log=True, per=()), Bounds(above=0)] = 0.01


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
    """Return the problem without what no evaluation reads: all random numbers are drawn before."""
    return replace(problem, generator=None, memory={})


def _loss(problem: Problem, phi: Tensors) -> float:
    return problem.value(phi)[0]


@ESTIMATORS.register("evolution_strategies")
class EvolutionStrategies(Estimator):
    """Antithetic pairs of perturbations; a stochastic estimate."""

    Config = EvolutionConfig
    config: EvolutionConfig
    spreads = True

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        generator, sigma, fixed = self.generator(problem), self.config.sigma, detach(phi)
        drawn = [draw(fixed, sigma, generator) for _ in range(self.config.pairs)]
        ends = [_moved(fixed, one, sign) for one in drawn for sign in (1, -1)]
        losses = self.mapper(partial(_loss, _stateless(problem)), ends)
        differences = [up - down for up, down in zip(losses[::2], losses[1::2], strict=True)]
        gradient, error = combined(drawn, differences, 1 / (2 * sigma**2))
        return Hypergradient(gradient, problem.value(fixed)[1], {"standard_error": error})


@dataclass(frozen=True)
class PersistentEvolutionConfig(EvolutionConfig):
    """Evolution strategies over an inner loop that goes on.

    Attributes:
        horizon: After how many outer steps the particles start again.
    """

    pairs: Annotated[int, Int(1, 10_000, log=True)] = 8
    horizon: Annotated[int, Int(1, 1_000_000)] = 100


Particle = tuple[Tensors, InnerState]


def _unrolled(problem: Problem, particle: Particle) -> tuple[float, InnerState]:
    """Take a particle's inner steps; return its outer loss and its last state."""
    phi, state = particle
    with torch.no_grad():
        for index in range(problem.steps):
            state = problem.step(phi, state, index)
        loss = float(problem.outer(phi, state.theta, problem.steps).loss)
    return loss, InnerState(detach(state.theta), dict(state.buffers))


@ESTIMATORS.register("persistent_evolution_strategies")
class PersistentEvolutionStrategies(Estimator):
    """Pairs of particles with lives of their own; for online inner loops."""

    Config = PersistentEvolutionConfig
    config: PersistentEvolutionConfig
    online_only = True
    spreads = True

    def begin(self, phi: Tensors, state: InnerState) -> Tensors:
        """Start every particle at the real inner state, with nothing accumulated."""
        pairs, flat = self.config.pairs, state.flat()
        copies = {name: value.detach().expand(pairs, *value.shape).clone() for name, value in flat.items()}
        drift = {name: value.new_zeros(pairs, *value.shape) for name, value in phi.items()}
        age = torch.zeros((), dtype=torch.int64)
        return under(UP, copies) | under(DOWN, copies) | under(DRIFT, drift) | {AGE: age}

    def estimate(self, problem: Problem, phi: Tensors) -> Hypergradient:
        generator, sigma, pairs = self.generator(problem), self.config.sigma, self.config.pairs
        fixed, memory = detach(phi), problem.memory
        if not memory or int(memory[AGE]) >= self.config.horizon:
            memory = self.begin(fixed, problem.start(fixed))
        drawn = [draw(fixed, sigma, generator) for _ in range(pairs)]
        rows = [{name: value[pair] for name, value in memory.items() if name != AGE} for pair in range(pairs)]
        particles = [
            (_moved(fixed, perturbation, sign), InnerState.of(part(row, side)))
            for row, perturbation in zip(rows, drawn, strict=True)
            for sign, side in ((1, UP), (-1, DOWN))
        ]
        ends = self.mapper(partial(_unrolled, _stateless(problem)), particles)
        drift = [_moved(part(row, DRIFT, optional=True), one, 1) for row, one in zip(rows, drawn, strict=True)]
        differences = [up[0] - down[0] for up, down in zip(ends[::2], ends[1::2], strict=True)]
        gradient, error = combined(drift, differences, 1 / (2 * sigma**2))
        states, after = [state.flat() for _, state in ends], Tensors()
        for place, each in ((UP, states[::2]), (DOWN, states[1::2]), (DRIFT, drift)):
            after |= under(place, {name: torch.stack([one[name] for one in each]) for name in each[0]})
        diagnostics = {"standard_error": error, "age": float(memory[AGE])}
        return Hypergradient(gradient, problem.value(fixed)[1], diagnostics, after | {AGE: memory[AGE] + 1})
