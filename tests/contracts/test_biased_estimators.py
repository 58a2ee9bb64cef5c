"""An estimator that leaves terms out on purpose is what its page says, under every update rule.

Each definition is written here from values of the losses and the inner steps alone. Derivatives in it are central
differences.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners import ESTIMATORS
from metaloom.learners.hypergradients.evolution import draw
from metaloom.learners.hypergradients.problem import Problem
from metaloom.learners.knowledge.update_rules import UPDATE_RULES
from metaloom.learners.solvers.bilevel import Bilevel
from metaloom.learners.tensors import InnerState, Tensors, flatten
from metaloom.testing.problems import central_difference, estimator, normal, seeded

STEPS, CUT = 4, 2  # inner steps, and how many of them ``truncated`` and ``segments`` differentiate
RULES: dict[str, dict[str, Any]] = {
    "sgd": {"rate": 0.2, "momentum": 0.5, "nesterov": True, "weight_decay": 0.1},
    "adagrad": {"rate": 0.2, "epsilon": 0.1, "rate_decay": 0.2, "initial_sum": 0.1, "weight_decay": 0.1},
    "adam": {"rate": 0.2, "epsilon": 0.1, "weight_decay": 0.1},
    "adamw": {"rate": 0.2, "epsilon": 0.1},
    "rmsprop": {"rate": 0.2, "epsilon": 0.1, "momentum": 0.5},
    "learned_optimizer": {"hidden": 2, "second_order": True},
    "meta_lstm": {"rate": 0.1, "hidden": 2, "second_order": True},
}
X, Y, X_VAL = normal(6, 3, seed=1), normal(6, seed=2), normal(6, 3, seed=3)


def weighted(phi: Tensors, theta: Tensors) -> Tensor:
    """Return a loss that is not quadratic in theta and not linear in phi."""
    return (phi["c"].exp() * (X @ theta["w"] - Y).cosh().log()).mean()


def start_of(phi: Tensors) -> Tensors:
    return {"w": phi["w"].sin()}


# what is learned, and where it takes part: in the start, in the inner loss, or in the outer loss
OF_THE_START = Bilevel(
    lambda phi, theta: (X @ theta["w"] - Y).cosh().log().mean(),
    lambda phi, theta: (X_VAL @ theta["w"] - Y).square().mean(),
    {"w": normal(3, seed=4)},
    start_of,
    {},
)
OF_THE_LOSS = Bilevel(
    weighted,
    lambda phi, theta: (X_VAL @ theta["w"] - Y).square().mean(),
    {"c": 0.3 * normal(6, seed=5)},
    {"w": normal(3, seed=4)},
    {},
)
OF_THE_OUTER = Bilevel(
    weighted,
    lambda phi, theta: (phi["c"].sin() * (X_VAL @ theta["w"] - Y).square()).mean(),
    {"c": 0.3 * normal(6, seed=5)},
    {"w": normal(3, seed=4)},
    {},
)


def difference(function: Callable[[Tensors], Tensor], phi: Tensors) -> Tensors:
    """Return the gradient of a function of phi by central differences, one number after another."""
    found = {name: torch.zeros_like(value) for name, value in phi.items()}
    for name, value in phi.items():
        for index in range(value.numel()):
            unit = torch.zeros_like(value)
            unit.view(-1)[index] = 1
            found[name].view(-1)[index] = central_difference(lambda at: float(function(at)), phi, {name: unit}, 1e-3)
    return found


def path(problem: Problem, phi: Tensors, steps: int, state: InnerState | None = None) -> InnerState:
    """Return the inner state after that many steps, from the start or as the last steps from ``state``."""
    first = 0 if state is None else problem.steps - steps
    state = problem.start(phi) if state is None else state
    for index in range(first, first + steps):
        state = problem.step(phi, state, index)
    return state


def of_last_steps(problem: Problem, phi: Tensors, count: int) -> Tensors:
    """Return the derivative where all but the last ``count`` steps are a constant."""
    before = path(problem, phi, problem.steps - count)
    return difference(lambda at: problem.outer(at, path(problem, at, count, before).theta, problem.steps).loss, phi)


def of_the_start(problem: Problem, phi: Tensors) -> Tensors:
    """Return the derivative where the displacement of the inner loop is a constant."""
    start, end = problem.start(phi).theta, path(problem, phi, problem.steps).theta
    return difference(
        lambda at: (
            problem.outer(
                at, {n: v + end[n] - start[n] for n, v in problem.start(at).theta.items()}, problem.steps
            ).loss
        ),
        phi,
    )


def of_the_outer_loss(problem: Problem, phi: Tensors) -> Tensors:
    """Return the derivative where the end of the inner loop is a constant."""
    end = path(problem, phi, problem.steps).theta
    return difference(lambda at: problem.outer(at, end, problem.steps).loss, phi)


def of_the_displacement(problem: Problem, phi: Tensors) -> Tensors:
    """Return theta_0 - theta_T, pulled back to phi through the start."""
    moved = {n: v - path(problem, phi, problem.steps).theta[n] for n, v in problem.start(phi).theta.items()}
    return difference(lambda at: sum((problem.start(at).theta[n] * v).sum() for n, v in moved.items()), phi)


def by_perturbations(problem: Problem, phi: Tensors, sigma: float) -> Tensors:
    """Return the mean of <gradient, e> e / sigma^2 over the estimator's own draws: its limit for a small sigma."""
    exact = ESTIMATORS["unroll"](ESTIMATORS["unroll"].Config())(problem, phi).gradient
    generator = seeded(0)
    drawn = [draw(phi, sigma, generator) for _ in range(4)]
    along = [float((flatten(exact) * flatten(one)).sum()) / sigma**2 / len(drawn) for one in drawn]
    return {n: sum(a * one[n] for a, one in zip(along, drawn, strict=True)) for n in phi}


# the estimator: its settings, the problem, its definition, and to which relative error it holds
Definition = Callable[[Problem, Tensors], Tensors]
DEFINITIONS: dict[str, tuple[dict[str, Any], Bilevel, Definition, float]] = {
    "first_order": ({}, OF_THE_START, of_the_start, 1e-8),
    "displacement": ({}, OF_THE_START, of_the_displacement, 1e-8),
    "direct": ({}, OF_THE_OUTER, of_the_outer_loss, 1e-8),
    "one_step": ({}, OF_THE_LOSS, partial(of_last_steps, count=1), 1e-8),
    "truncated": ({"last": CUT}, OF_THE_LOSS, partial(of_last_steps, count=CUT), 1e-8),
    "segments": ({"length": CUT}, OF_THE_LOSS, partial(of_last_steps, count=CUT), 1e-8),
    "finite_difference": ({"sides": 2, "epsilon": 1e-4}, OF_THE_LOSS, partial(of_last_steps, count=1), 1e-6),
    "evolution_strategies": (
        {"pairs": 4, "sigma": 1e-4}, OF_THE_LOSS, partial(by_perturbations, sigma=1e-4), 1e-6
    ),
    "persistent_evolution_strategies": (
        {"pairs": 4, "sigma": 1e-4}, OF_THE_LOSS, partial(by_perturbations, sigma=1e-4), 1e-6
    ),
}  # fmt: skip


def compared(kind: str, rule: str, **settings: Any) -> float:
    """Return an estimator's relative error to its definition."""
    given, posed, definition, _ = DEFINITIONS[kind]
    posed = posed.with_update({"kind": rule, **RULES.get(rule, {}), "steps": STEPS})
    phi = posed.initial(seeded(0))
    problem = replace(posed.problem(), routes={}, generator=seeded(0))
    found = flatten(estimator(kind, **(settings or given))(problem, phi).gradient)
    exact = flatten(definition(problem, phi))
    return float((found - exact).norm() / exact.norm())


def test_every_biased_estimator_has_its_definition() -> None:
    assert set(DEFINITIONS) == {k for k, one in ESTIMATORS.items() if not one.exact and not one.at_solution}


@pytest.mark.parametrize("rule", UPDATE_RULES)
@pytest.mark.parametrize("kind", DEFINITIONS)
def test_it_is_its_definition(kind: str, rule: str) -> None:
    assert compared(kind, rule) < DEFINITIONS[kind][3]


@pytest.mark.parametrize(("sides", "order"), [(1, 1), (2, 2)])
def test_a_difference_quotient_is_of_its_order(sides: int, order: int) -> None:
    """The error falls by 2^order when the displacement is halved."""
    whole, half = (compared("finite_difference", "sgd", sides=sides, epsilon=length) for length in (0.1, 0.05))
    assert whole / half == pytest.approx(2**order, rel=0.1)
