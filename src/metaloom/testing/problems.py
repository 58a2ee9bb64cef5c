"""Bilevel problems whose hypergradient is known in closed form, and central differences for those without."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from metaloom.learners import ESTIMATORS, build_learner
from metaloom.learners.base import Learner
from metaloom.learners.build import make_config, solver_kind
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.hypergradients.problem import Estimator, Hypergradient, Linearized, Outer, Problem
from metaloom.learners.networks.tokens import TEXT, token_count
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import InnerState, Tensors

Gradient = Callable[[Tensor, Tensor], Tensor]
NONE = Generator()


def seeded(seed: int) -> Generator:
    """Return a generator of its own."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    """Draw a float64 tensor from N(0, 1)."""
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def positive_definite(size: int, seed: int) -> Tensor:
    """Draw a symmetric matrix with eigenvalues between 1 and 3: [size, size]."""
    basis = torch.linalg.qr(normal(size, size, seed=seed))[0]
    found: Tensor = basis @ torch.diag(torch.linspace(1, 3, size, dtype=torch.float64)) @ basis.T
    return found


class Known(NamedTuple):
    """A problem, where it stands, and the exact hypergradient at the inner solution."""

    problem: Problem
    phi: Tensors
    exact: Tensor
    solution: Tensor


def as_problem(
    loss: Gradient,
    slope: Gradient,
    outer: Gradient,
    size: int,
    *,
    steps: int,
    rate: float,
    start: Gradient | None = None,
) -> Problem:
    """Pose plain gradient descent from zero on ``loss``(phi, theta), whose gradient by theta is ``slope``."""

    def begin(phi: Tensors) -> InnerState:
        zero = torch.zeros(size, dtype=torch.float64)
        return InnerState({"theta": zero if start is None else start(phi["phi"], zero)}, {})

    def update(phi: Tensors, state: InnerState, gradient: Tensors, index: int) -> InnerState:
        return InnerState({"theta": state.theta["theta"] - rate * gradient["theta"]}, {})

    def gradient(phi: Tensors, theta: Tensors, index: int) -> Tensors:
        return {"theta": slope(phi["phi"], theta["theta"])}

    def verdict(phi: Tensors, theta: Tensors, taken: int) -> Outer:
        return Outer(outer(phi["phi"], theta["theta"]), torch.tensor(torch.nan), {})

    return Problem(
        steps=steps,
        start=begin,
        outer=verdict,
        gradient=gradient,
        linearized=lambda phi, theta: Linearized(
            {"theta": slope(phi["phi"], theta["theta"]).detach()}, lambda moved: loss(phi["phi"], moved["theta"])
        ),
        update=update,
    )


def quadratic(steps: int, *, rate: float = 0.3, size: int = 5, seed: int = 0) -> Known:
    """f = theta'A theta/2 - theta'C phi,  F = (theta - b)'B(theta - b)/2 + phi'D phi/2."""
    curvature, judge, own = (positive_definite(size, seed + i) for i in range(3))
    mix, target, phi = normal(size, size, seed=seed + 3), normal(size, seed=seed + 4), normal(size, seed=seed + 5)

    def loss(phi: Tensor, theta: Tensor) -> Tensor:
        return theta @ curvature @ theta / 2 - theta @ mix @ phi

    def outer(phi: Tensor, theta: Tensor) -> Tensor:
        return (theta - target) @ judge @ (theta - target) / 2 + phi @ own @ phi / 2

    problem = as_problem(loss, lambda p, t: curvature @ t - mix @ p, outer, size, steps=steps, rate=rate)
    solution = torch.linalg.solve(curvature, mix @ phi)
    exact = mix.T @ torch.linalg.solve(curvature, judge @ (solution - target)) + own @ phi
    return Known(problem, {"phi": phi}, exact, solution)


def quadratic_after(steps: int, *, rate: float = 0.3, size: int = 5, seed: int = 0) -> Tensor:
    """Return the exact hypergradient of ``quadratic`` after that many steps from zero, by linear algebra."""
    curvature, judge, own = (positive_definite(size, seed + i) for i in range(3))
    mix, target, phi = normal(size, size, seed=seed + 3), normal(size, seed=seed + 4), normal(size, seed=seed + 5)
    eye = torch.eye(size, dtype=torch.float64)
    powers = [rate * torch.linalg.matrix_power(eye - rate * curvature, k) for k in range(steps)]
    reach = torch.stack(powers).sum(0) @ mix
    return reach.T @ judge @ (reach @ phi - target) + own @ phi


def ridge(steps: int, *, per_feature: bool, rate: float = 0.25, size: int = 12, seed: int = 0) -> Known:
    """f = |X theta - y|^2 / 2n + sum_j exp(phi_j) theta_j^2 / 2,  F = |X' theta - y'|^2 / 2n'."""
    train_x, test_x = normal(60, size, seed=seed), normal(40, size, seed=seed + 1)
    truth = normal(size, seed=seed + 2)
    train_y = train_x @ truth + normal(60, seed=seed + 3)
    test_y = test_x @ truth + normal(40, seed=seed + 4)
    phi = 0.3 * normal(size if per_feature else 1, seed=seed + 5) - 1

    def loss(phi: Tensor, theta: Tensor) -> Tensor:
        return (train_x @ theta - train_y).square().mean() / 2 + (phi.exp() * theta.square()).sum() / 2

    def slope(phi: Tensor, theta: Tensor) -> Tensor:
        return train_x.T @ (train_x @ theta - train_y) / 60 + phi.exp() * theta

    def outer(phi: Tensor, theta: Tensor) -> Tensor:
        return (test_x @ theta - test_y).square().mean() / 2

    hessian = train_x.T @ train_x / 60 + torch.diag(phi.exp().expand(size))
    solution = torch.linalg.solve(hessian, train_x.T @ train_y / 60)
    adjoint = torch.linalg.solve(hessian, test_x.T @ (test_x @ solution - test_y) / 40)
    exact = -phi.exp() * solution * adjoint
    problem = as_problem(loss, slope, outer, size, steps=steps, rate=rate)
    return Known(problem, {"phi": phi}, exact if per_feature else exact.sum().reshape(1), solution)


def estimate(kind: str, known: Known, **settings: Any) -> Hypergradient:
    """Run an estimator on a problem, with a generator of its own."""
    return estimator(kind, **settings)(replace(known.problem, generator=seeded(0)), known.phi)


def estimator(kind: str, **settings: Any) -> Estimator:
    """Build an estimator from its settings."""
    return ESTIMATORS[kind](make_config(ESTIMATORS[kind].Config, settings, "outer.hypergradient"))


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Return |found - exact| / |exact|."""
    return float(((found - exact).norm() / exact.norm()).detach())


def double(tensors: Tensors) -> Tensors:
    """Cast floating tensors to float64."""
    return {name: one.double() if one.is_floating_point() else one for name, one in tensors.items()}


SINGLE = TaskShape("classification", (6,), 3, single_task=True, counts=(5, 3, 4))
CONTROL = TaskShape("control", (4,), 2, environment="point_mass")
# classes that four numbers each describe, and without examples
DESCRIBED = TaskShape("classification", (6,), 3, classes=9, class_features=TaskShape("classification", (4,), 0))
FEW_WAYS = TaskShape("classification", (6,), 3, classes=9)
IMAGES = TaskShape("classification", (1, 8, 8), 3, classes=9, single_task=True, counts=(5, 3, 4))
# series of two channels, the third of which says what was observed
SERIES = TaskShape("classification", (3, 7), 3, classes=9, observed=True)
TEXTS = TaskShape(
    "classification", (5,), 3, classes=9, columns=({"kind": TEXT, "column": "text", "vocabulary": ["a", "b", "c"]},)
)
# searches on tables of results, of which a query names one and a seed
SEARCHED = TaskShape(
    "search",
    (2,),
    1,
    columns=tuple({"table": f"bowls/{number}", "budget": 2, "workers": 1, "starts": []} for number in (1, 2)),
)
SMOOTH: Mapping[str, Any] = {"kind": "mlp", "hidden": [5], "activation": "tanh"}


def episode_of(task: TaskShape, seed: int, *, support: int = 6, queries: int = 9) -> Episode:
    """Draw an episode of noise in float64: labels go round, so that every class is in support and query."""

    def half(count: int, offset: int) -> tuple[Tensor, Tensor]:
        x = normal(count, *task.inputs, seed=1000 * seed + offset)
        if tokens := token_count(task):
            x = (10 * x).floor() % tokens  # token numbers, 0 among them
        if task.kind == SEARCHED.kind:
            places = torch.arange(count, dtype=torch.float64) % len(task.columns)
            return torch.stack([places, places + seed], 1), torch.zeros(count, 1, dtype=torch.float64)
        if task.kind == "regression":
            return x, normal(count, task.outputs, seed=1000 * seed + offset + 500)
        return x, torch.arange(count) % task.outputs

    ids = torch.arange(task.outputs) if task.kind == "classification" else None
    numbers = (torch.arange(support) + seed) % sum(task.counts) if task.counts else None
    given = Support(*half(support, 1))
    if task.class_features is not None:  # the same in all episodes, as what describes a class is
        classes = normal(task.outputs, *task.class_features.inputs, seed=17)
        given = Support(given.x[:0], given.y[:0], class_features=classes)
    return Episode(given, *half(queries, 2), ids, numbers)


def built(
    learner: Mapping[str, Any],
    task: TaskShape,
    *,
    inner: Mapping[str, Any] | None = None,
    estimator: Any = None,
    strategy: str = "loop",
) -> Learner:
    """Build a learner from its settings; by default it unrolls, where its solver takes an estimator."""
    takes = SOLVERS[solver_kind(learner)].takes("unroll")
    outer = {"hypergradient": estimator or ("unroll" if takes else "auto"), "strategy": strategy}
    return build_learner(learner=learner, inner=inner or {}, outer=outer, task=task)


def begun(learner: Learner, seed: int = 0) -> tuple[Tensors, LearnerState]:
    """Return phi and the state, in float64."""
    generator = seeded(seed)
    phi = double(learner.init(generator))
    return phi, learner.begin(phi, generator).mapped(lambda one: one.double() if one.is_floating_point() else one)


def central_difference(function: Callable[[Tensors], float], phi: Tensors, direction: Tensors, length: float) -> float:
    """Return the directional derivative by the five-point stencil, whose error is of order ``length`` to the 4th."""

    def at(scale: float) -> float:
        moved = {
            name: value + scale * length * direction[name] if name in direction else value
            for name, value in phi.items()
        }
        return function(moved)

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * length)


def errors_by_slot(
    learner: Learner, episodes: Sequence[Episode], *, seed: int = 0, length: float = 1e-4, directions: int = 2
) -> dict[str, float]:
    """Compare each slot's hypergradient with central differences: slot to relative error.

    The directions are random, of the length of the estimate itself, and the first one lies along the estimate.
    """
    phi, state = begun(learner, seed)
    gradient = learner.meta_step(phi, state, episodes, seeded(seed)).gradient

    def function(moved: Tensors) -> float:
        return learner.objective(moved, state, episodes, seeded(seed))

    errors = {}
    for slot in sorted({name.split("/")[0] for name in phi}):
        part = {name: value for name, value in gradient.items() if name.split("/")[0] == slot}
        difference, scale = 0.0, 0.0
        for index in range(directions):
            direction = part if index == 0 else {n: normal(*v.shape, seed=seed + 77) for n, v in part.items()}
            size = sum(float(v.square().sum()) for v in direction.values()) ** 0.5
            direction = {n: v / size for n, v in direction.items()}
            measured = central_difference(function, phi, direction, length)
            claimed = sum(float((part[n] * direction[n]).sum()) for n in part)
            difference, scale = difference + (measured - claimed) ** 2, scale + measured**2
        errors[slot] = (difference / scale) ** 0.5
    return errors
