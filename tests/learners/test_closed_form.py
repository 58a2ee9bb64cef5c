"""Heads in closed form: against equations written out, other solvers, central differences; at kinks and at limits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from sklearn.svm import LinearSVC
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.closed_form import ridge_weights
from metaloom.learners.solvers.closed_form.crammer_singer import Solved, solve_dual
from metaloom.learners.state import knowledge_of
from metaloom.testing.problems import SMOOTH, begun, built, episode_of, normal, seeded

FEW_SHOT = TaskShape("classification", (6,), 3, classes=9)
RIDGE: dict[str, Any] = {
    "kind": "ridge",
    "penalty": {"learn": {"start": 0.3}},
    "scale": {"learn": {"start": 4.0}},
}
SVM: dict[str, Any] = {"kind": "svm", "cost": {"learn": {"start": 0.5}}, "scale": {"learn": {"start": 3.0}}}
SQUARED: dict[str, Any] = {"kind": "svm", "loss": "squared", "penalty": 2.0, "scale": 5.0}
HEADS = pytest.mark.parametrize("head", [RIDGE, SVM, SQUARED], ids=["ridge", "hinge", "squared"])


def learner_of(head: dict[str, Any], task: TaskShape = FEW_SHOT) -> Learner:
    settings = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "prediction": head}
    return built(settings, task, estimator="auto")


def predicted(head: dict[str, Any], support: Support, query_x: Tensor, task: TaskShape = FEW_SHOT) -> Tensor:
    learner = learner_of(head, task)
    return learner.adapt(*begun(learner), support, seeded(0)).predict(query_x)


def body(phi: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network of SMOOTH without its head, written out."""
    theta = knowledge_of(phi, "initialization")
    (weight,) = (value for name, value in theta.items() if name.endswith("weight"))
    (bias,) = (value for name, value in theta.items() if name.endswith("bias"))
    return torch.tanh(x @ weight.T + bias)


def test_r2d2_equals_its_equations_written_out_and_so_does_its_gradient() -> None:
    learner, episode = learner_of(RIDGE), episode_of(FEW_SHOT, 1)
    phi, state = begun(learner)
    leaves = {name: value.detach().requires_grad_() for name, value in phi.items()}
    penalty, scale = leaves["prediction/penalty"].exp(), leaves["prediction/scale"].exp()
    x = F.pad(body(leaves, episode.support_x), (0, 1), value=1.0)
    labels = F.one_hot(episode.support_y, 3).to(x)
    weights = torch.linalg.inv(x.T @ x + len(x) * penalty * torch.eye(6).to(x)) @ x.T @ labels  # the paper's equation 4
    outputs = scale * F.pad(body(leaves, episode.query_x), (0, 1), value=1.0) @ weights
    expected = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(outputs.softmax(-1).detach(), expected, rtol=1e-9, atol=1e-9)
    loss = F.cross_entropy(outputs, episode.query_y)
    plain = torch.autograd.grad(loss, list(leaves.values()))
    ours = learner.meta_step(phi, state, [episode], seeded(0)).gradient
    for name, value in zip(leaves, plain, strict=True):
        torch.testing.assert_close(ours[name], value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("examples", [3, 5, 6, 20])
def test_both_systems_of_ridge_regression_minimize_the_same(examples: int) -> None:
    features, targets = normal(examples, 5, seed=1), normal(examples, 2, seed=2)
    rows = torch.cat([features, 0.7**0.5 * torch.eye(5).double()])  # least squares of this is ridge regression
    expected = torch.linalg.lstsq(rows, torch.cat([targets, targets.new_zeros(5, 2)])).solution
    torch.testing.assert_close(ridge_weights(features, targets, 0.7), expected, rtol=1e-10, atol=1e-12)
    swapped = features.T @ torch.linalg.inv(features @ features.T + 0.7 * torch.eye(examples).double()) @ targets
    torch.testing.assert_close(swapped, expected, rtol=1e-10, atol=1e-12)


def test_ridge_regression_serves_regression_tasks_and_its_bias_then_counts() -> None:
    task = TaskShape("regression", (6,), 2)
    learner = learner_of({**RIDGE, "bias": {"learn": {"start": 0.5}}}, task)
    episode = episode_of(task, 0)
    step = learner.meta_step(*begun(learner), [episode], seeded(0))
    assert float(step.gradient["prediction/bias"].abs()) > 1e-6
    classes = learner_of({**RIDGE, "bias": {"learn": {"start": 0.5}}})
    step = classes.meta_step(*begun(classes), [episode_of(FEW_SHOT, 0)], seeded(0))
    assert float(step.gradient["prediction/bias"].abs()) < 1e-12  # one number for all classes


def test_a_support_vector_machine_has_no_regression() -> None:
    with pytest.raises(LearnerError, match="svm needs classes"):
        learner_of(SVM, TaskShape("regression", (6,), 2))


def dual(features: Tensor, y: Tensor, ways: int, cost: float | Tensor, ridge: float) -> Solved:
    kernel = features @ features.T + ridge * torch.eye(len(features), dtype=features.dtype)
    return solve_dual(kernel, F.one_hot(y, ways).T.double(), cost)


@pytest.mark.parametrize(("examples", "cost"), [(9, 0.1), (9, 10.0), (30, 1.0)])
def test_the_dual_is_that_of_scikit_learns_crammer_singer(examples: int, cost: float) -> None:
    features, y = normal(examples, 4, seed=examples).double(), torch.arange(examples) % 3
    ours = dual(features, y, 3, cost, 1e-7).alpha @ features
    theirs = LinearSVC(
        C=cost, multi_class="crammer_singer", fit_intercept=False, tol=1e-10, max_iter=1_000_000, random_state=0
    ).fit(features.numpy(), y.numpy())
    np.testing.assert_allclose(ours.numpy(), theirs.coef_, atol=2e-5)


def test_the_dual_is_that_of_a_general_solver_to_its_precision() -> None:
    features, y, cost = normal(5, 3, seed=3).double(), torch.tensor([0, 1, 2, 0, 1]), 0.8
    labels, kernel = F.one_hot(y, 3).double().numpy(), (features @ features.T).numpy() + 0.01 * np.eye(5)

    def objective(flat: Any) -> tuple[float, Any]:
        alpha = flat.reshape(5, 3)
        return 0.5 * np.sum(alpha * (kernel @ alpha)) - np.sum(alpha * labels), (kernel @ alpha - labels).ravel()

    balanced = {"type": "eq", "fun": lambda flat: flat.reshape(5, 3).sum(1)}
    bounds = [(None, cost * label) for label in labels.ravel()]
    options = {"ftol": 1e-15, "maxiter": 1000}
    found = minimize(
        objective, np.zeros(15), jac=True, bounds=bounds, constraints=[balanced], method="SLSQP", options=options
    )
    ours = dual(features, y, 3, cost, 0.01).alpha.T.numpy()
    assert objective(ours.ravel())[0] <= found.fun + 1e-12
    np.testing.assert_allclose(ours, found.x.reshape(5, 3), atol=1e-6)


@pytest.mark.parametrize("size", [0.01, 1.0, 100.0])
@pytest.mark.parametrize(("examples", "ways", "width"), [(1, 2, 3), (5, 5, 8), (25, 5, 3), (25, 5, 64), (60, 20, 8)])
def test_the_dual_meets_its_conditions(examples: int, ways: int, width: int, size: float) -> None:
    features = size * normal(examples, width, seed=ways).double()
    y = torch.randint(ways, (examples,), generator=seeded(width))  # some classes are empty
    for cost in (1e-3, 0.1, 10.0):
        kernel = features @ features.T
        kernel = kernel + 1e-3 * kernel.diagonal().mean() * torch.eye(examples)
        labels = F.one_hot(y, ways).T.double()
        alpha, free, multipliers = solve_dual(kernel, labels, cost)
        beta = cost * labels - alpha
        assert float(beta.min()) >= -1e-6 * cost
        unit = max(1.0, cost * float(kernel.max()))
        assert float(multipliers.min()) >= -1e-6 * unit
        torch.testing.assert_close(beta.sum(0), torch.full((examples,), cost, dtype=torch.float64))
        slopes = labels - alpha @ kernel - multipliers  # one number an example: the multiplier of its sum
        torch.testing.assert_close(slopes, slopes.mean(0).expand_as(slopes), rtol=0, atol=1e-9 * unit)
        assert torch.equal(beta * ~free, torch.zeros_like(beta))


def test_the_duals_derivative_is_that_of_central_differences() -> None:
    features = normal(8, 4, seed=5).double().requires_grad_()
    cost = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y = torch.arange(8) % 3

    def scores(features: Tensor, cost: Tensor) -> Tensor:
        return dual(features, y, 3, cost, 0.05).alpha @ features

    assert torch.autograd.gradcheck(scores, (features, cost), eps=1e-6, atol=1e-6, rtol=1e-6)


def test_at_a_kink_the_derivative_is_that_of_one_side() -> None:
    """A line of features is followed to where a beta leaves zero: values meet there, and slopes do not."""
    start, end, y = normal(6, 4, seed=1).double(), normal(6, 4, seed=2).double(), torch.arange(6) % 3

    def solved(at: float) -> tuple[Solved, Tensor]:
        t = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        found = dual(start + t * (end - start), y, 3, 0.2, 0.05)
        (slope,) = torch.autograd.grad((found.alpha * torch.arange(18.0).reshape(3, 6)).sum(), t)
        return found, slope

    low, high = 0.0, 1.0
    assert not torch.equal(solved(low)[0].free, solved(high)[0].free)
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if torch.equal(solved(middle)[0].free, solved(low)[0].free) else (low, middle)
    (before, left), (after, right), (at, slope) = solved(low), solved(high), solved((low + high) / 2)
    torch.testing.assert_close(before.alpha, after.alpha, rtol=1e-6, atol=1e-7)
    jump = float((left - right).abs())
    assert jump == pytest.approx(6.76, abs=0.01)  # from -8.59 to -1.83: a hinge has kinks, where no gradient is right
    assert min(float((slope - left).abs()), float((slope - right).abs())) < 1e-5 * jump
    assert bool((at.multipliers >= -1e-6).all())


def test_zero_features_give_even_outputs_and_a_finite_gradient() -> None:
    features = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    learner = learner_of(SVM)
    phi, _ = begun(learner)
    solver: Any = learner.solver  # type: ignore[attr-defined]
    weights = solver.weights(knowledge_of(phi, "prediction"), features, torch.tensor([0, 1, 2, 0]))
    assert float(weights.detach().abs().max()) == 0.0
    (slope,) = torch.autograd.grad(weights.sum(), features)
    assert bool(slope.isfinite().all())


@HEADS
def test_the_order_of_support_examples_and_of_classes_does_not_matter(head: dict[str, Any]) -> None:
    episode, order = episode_of(FEW_SHOT, 4), torch.tensor([3, 5, 0, 1, 4, 2])
    before = predicted(head, episode.support, episode.query_x)
    shuffled = Support(episode.support_x[order], episode.support_y[order])
    torch.testing.assert_close(predicted(head, shuffled, episode.query_x), before, rtol=1e-7, atol=1e-9)
    renamed = torch.tensor([2, 0, 1])
    other = predicted(head, Support(episode.support_x, renamed[episode.support_y]), episode.query_x)
    torch.testing.assert_close(other[:, renamed], before, rtol=1e-7, atol=1e-9)


@HEADS
def test_padding_of_the_support_set_does_not_matter(head: dict[str, Any]) -> None:
    episode = episode_of(FEW_SHOT, 4)
    padded = Support(
        torch.cat([normal(2, 6, seed=9), episode.support_x]),
        torch.cat([torch.tensor([1, 1]), episode.support_y]),
        mask=torch.tensor([False] * 2 + [True] * 6),
    )
    before = predicted(head, episode.support, episode.query_x)
    torch.testing.assert_close(predicted(head, padded, episode.query_x), before, rtol=1e-9, atol=1e-12)


@HEADS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_limits_stay_finite(head: dict[str, Any], dtype: torch.dtype) -> None:
    one = normal(1, 6, seed=0)
    task = replace(FEW_SHOT, outputs=4)  # of which one class has no example
    x = torch.cat([one, one, normal(1, 6, seed=1)])  # two classes share an example
    episode = Episode(Support(x, torch.tensor([0, 1, 2])), one, torch.tensor([1])).to(torch.device("cpu"), dtype)
    learner = learner_of(head, task)
    phi, state = begun(learner)
    phi = {name: value.to(dtype) for name, value in phi.items()}
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert all(bool(value.isfinite().all()) for value in step.gradient.values())
    answer = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    assert answer.dtype == dtype
    assert float(answer[0, 0]) == pytest.approx(float(answer[0, 1]), rel=1e-4)
    assert float(answer[0, :2].min()) > float(answer[0, 3])  # the class without an example


@HEADS
def test_any_number_of_ways_shares_one_knowledge(head: dict[str, Any]) -> None:
    three, five = learner_of(head), learner_of(head, replace(FEW_SHOT, outputs=5))
    phi, state = begun(three)
    assert {name: value.shape for name, value in begun(five)[0].items()} == {n: v.shape for n, v in phi.items()}
    episode = episode_of(replace(FEW_SHOT, outputs=5), 0, support=10)
    assert five.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x).shape == (9, 5)


@HEADS
def test_the_outputs_are_shown_as_the_relation_of_queries_and_classes(head: dict[str, Any]) -> None:
    learner, episode = learner_of(head), episode_of(FEW_SHOT, 0)
    phi, state = begun(learner)
    shown = learner.inspect(phi, state, episode)
    expected = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(shown["relation"].softmax(-1), expected)
    assert shown["support"].shape == (6, 5)
    assert shown["queries"].shape == (9, 5)
