"""V20: why both? Many penalties of one ridge regression, moved by hypergradient or searched by Optuna.

    F(l) = |X' theta*(l) - y'|^2 / 2n',   theta*(l) = argmin |X theta - y|^2 / 2n + sum_groups exp(l_g) |theta_g|^2 / 2

The inner problem is solved in closed form and the hypergradient is the implicit one, so that a hypergradient step and
a trial of Optuna both cost one inner solve. All start with l = -1 in the box [-9, 5]. The regret is the best F so far,
less the minimum over the box.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from torch import Tensor

from benchmarks.reproductions.harness import Row
from metaloom.learners.hypergradients.implicit import ConjugateGradient, ConjugateGradientConfig
from metaloom.learners.hypergradients.problem import Linearized, Outer, Problem
from metaloom.learners.tensors import InnerState, Tensors
from metaloom.workers.outer import adam, start_adam

GROUPS = (1, 2, 6, 12)
SIZE, TRAIN, VALIDATION = 24, 40, 40
LOW, HIGH, START = -9.0, 5.0, -1.0
FEW, MANY = 30, 200  # inner solves
RATE = 0.1  # of Adam; the only one tried
RESTARTS = 2


@dataclass(frozen=True)
class Ridge:
    """The data of one seed; group g has the features g, g + groups, ... and true weights of its own size."""

    groups: int
    x: Tensor
    y: Tensor
    validation_x: Tensor
    validation_y: Tensor

    @classmethod
    def draw(cls, groups: int, seed: int) -> "Ridge":
        """Draw features, and weights whose sizes lie between 0.03 and 3 from group to group."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        sizes = torch.logspace(-1.5, 0.5, groups, dtype=torch.float64)[torch.randperm(groups, generator=generator)]
        theta = normal(SIZE) * sizes[torch.arange(SIZE) % groups]
        x, validation_x = normal(TRAIN, SIZE), normal(VALIDATION, SIZE)
        return cls(groups, x, x @ theta + normal(TRAIN), validation_x, validation_x @ theta + normal(VALIDATION))

    def penalties(self, l: Tensor) -> Tensor:  # noqa: E741  (the protocol's letter)
        """Return every feature's penalty."""
        return l.clamp(LOW, HIGH).exp()[torch.arange(SIZE) % self.groups]

    def solve(self, l: Tensor) -> Tensor:  # noqa: E741
        """Return theta*: one inner solve."""
        hessian = self.x.T @ self.x / TRAIN + torch.diag(self.penalties(l))
        return torch.linalg.solve(hessian, self.x.T @ self.y / TRAIN)

    def judge(self, theta: Tensor) -> Tensor:
        """Return the validation loss."""
        return (self.validation_x @ theta - self.validation_y).square().mean() / 2

    def value(self, l: Tensor) -> float:  # noqa: E741
        """Return F."""
        return float(self.judge(self.solve(l)))

    def slope(self, l: Tensor, theta: Tensor) -> Tensor:  # noqa: E741
        """Return the inner gradient."""
        return self.x.T @ (self.x @ theta - self.y) / TRAIN + self.penalties(l) * theta

    def loss(self, l: Tensor, theta: Tensor) -> Tensor:  # noqa: E741
        """Return the inner loss."""
        fit = (self.x @ theta - self.y).square().sum() / TRAIN
        return (fit + (self.penalties(l) * theta.square()).sum()) / 2

    def linearized(self, phi: Tensors, theta: Tensors) -> Linearized:
        """Return the inner gradient, and the loss that it is the slope of."""
        slope = {"theta": self.slope(phi["l"], theta["theta"])}
        return Linearized(slope, lambda moved: self.loss(phi["l"], moved["theta"]))

    def problem(self) -> Problem:
        """Pose it for an estimator: the start is the solution, and no inner step is taken."""

        def stay(phi: Tensors, state: InnerState, *_: object) -> InnerState:
            return state

        def outer(phi: Tensors, theta: Tensors, taken: int) -> Outer:
            return Outer(self.judge(theta["theta"]), torch.tensor(torch.nan), {})

        return Problem(
            steps=0,
            start=lambda phi: InnerState({"theta": self.solve(phi["l"].detach())}, {}),
            outer=outer,
            gradient=lambda phi, theta, index: {"theta": self.slope(phi["l"], theta["theta"])},
            linearized=self.linearized,
            update=stay,
        )


def by_hypergradient(ridge: Ridge, seed: int) -> list[float]:
    """Return F at every step of Adam along the implicit hypergradient."""
    estimator = ConjugateGradient(ConjugateGradientConfig(iterations=SIZE))
    phi: Tensors = {"l": torch.full((ridge.groups,), START, dtype=torch.float64)}
    problem, state, values = ridge.problem(), start_adam(phi), []
    for _ in range(MANY):
        found = estimator(problem, phi)
        values.append(float(found.outer.loss))
        phi, state = adam(phi, found.gradient, state, RATE)
        phi = {"l": phi["l"].clamp(LOW, HIGH)}
    return values


def by_optuna(sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Callable[[Ridge, int], list[float]]:
    """Return what samples penalties: F at every trial, the first at the common start."""

    def run(ridge: Ridge, seed: int) -> list[float]:
        study = optuna.create_study(sampler=sampler(seed))
        study.enqueue_trial({f"l{group}": START for group in range(ridge.groups)})

        def objective(trial: optuna.Trial) -> float:
            chosen = [trial.suggest_float(f"l{group}", LOW, HIGH) for group in range(ridge.groups)]
            return ridge.value(torch.tensor(chosen, dtype=torch.float64))

        study.optimize(objective, n_trials=MANY)
        return [float(trial.value) for trial in study.trials if trial.value is not None]

    return run


WAYS: dict[str, Callable[[Ridge, int], list[float]]] = {
    "hypergradient": by_hypergradient,
    "TPE": by_optuna(lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "random": by_optuna(lambda seed: optuna.samplers.RandomSampler(seed=seed)),
}


def minimum(ridge: Ridge, seed: int) -> float:
    """Return the least F in the box: L-BFGS from the common start and from random ones."""
    generator = torch.Generator().manual_seed(seed)
    drawn = LOW + (HIGH - LOW) * torch.rand(RESTARTS, ridge.groups, generator=generator, dtype=torch.float64)
    found = []
    for start in (torch.full((ridge.groups,), START, dtype=torch.float64), *drawn):
        place = ((start - LOW) / (HIGH - LOW)).clamp(1e-6, 1 - 1e-6).logit().requires_grad_()
        optimizer = torch.optim.LBFGS([place], max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

        def boxed(free: Tensor = place) -> Tensor:
            return LOW + (HIGH - LOW) * free.sigmoid()

        def closure(free: Tensor = place, at: Callable[[], Tensor] = boxed) -> Tensor:
            free.grad = None
            value = ridge.judge(ridge.solve(at()))
            value.backward()
            return value

        optimizer.step(closure)
        found.append(ridge.value(boxed().detach()))
    return min(found)


def regrets(groups: int, seed: int) -> dict[str, tuple[float, float]]:
    """Return every way's regret after few and after many inner solves."""
    ridge = Ridge.draw(groups, seed)
    values = {name: way(ridge, seed) for name, way in WAYS.items()}
    best = min(minimum(ridge, seed), *(min(one) for one in values.values()))
    return {name: (min(one[:FEW]) - best, min(one) - best) for name, one in values.items()}


def v20(seeds: Sequence[int], cache: Path) -> list[Row]:
    """At 12 penalties and 200 solves the hypergradient's regret is at most a fifth of TPE's."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for groups in GROUPS:
        seen = [regrets(groups, seed) for seed in seeds]
        for index, solves in enumerate((FEW, MANY)):
            values = {name: tuple(one[name][index] for one in seen) for name in WAYS}
            for name, numbers in values.items():
                gated = name == "hypergradient" and groups == max(GROUPS) and solves == MANY
                ours, theirs = (sum(values[way]) for way in ("hypergradient", "TPE"))
                rows.append(
                    Row(
                        "V20",
                        f"{name}, {groups} {'penalty' if groups == 1 else 'penalties'}, {solves} inner solves: regret",
                        numbers,
                        None,
                        "<= TPE / 5" if gated else "",
                        ours <= theirs / 5 if gated else None,
                        "float64, closed-form inner solve",
                    )
                )
    return rows
