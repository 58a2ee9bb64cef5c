"""Trajectories as data: the surrogates' hypergradients, against central differences and against the pathwise one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners.build import SLOTS, make_component
from metaloom.learners.environments import ENVIRONMENTS, Environment, Navigation, Step
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.trajectories import Trajectories, linear_baseline, returns_to_go
from metaloom.learners.solvers.control import ControlLoop
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.solvers.holding import holding
from metaloom.learners.tensors import flatten, part
from metaloom.testing.problems import begun, built, central_difference, double, normal, relative_error, seeded

GOALS = TaskShape(
    "control", (2,), 2, environment="navigation", environment_settings={"horizon": 5}, parameters=("goal_x", "goal_y")
)
NEAR = replace(GOALS, environment_settings={"horizon": 5, "reach": 0.3})  # some trajectories end early
AFFINE: dict[str, Any] = {"kind": "mlp", "hidden": []}
SMALL: dict[str, Any] = {"kind": "mlp", "hidden": [4], "activation": "tanh"}


@ENVIRONMENTS.register("corridor_of_tests")
class Corridor(Environment):
    """A place on a line, moved by -1, 0 or 1; its distance from the goal is lost at each step."""

    states, actions, horizon, discrete = 1, 3, 4, True

    def step(self, state: Tensor, action: Tensor, task: Tensor) -> Step:
        place = state + action @ torch.tensor([-1.0, 0.0, 1.0]).to(action)[:, None]
        return Step(place, -(place - task).abs()[:, 0], torch.zeros_like(place[:, 0], dtype=torch.bool))


CORRIDOR = TaskShape("control", (1,), 3, environment="corridor_of_tests", parameters=("goal",))


def episode_of(task: TaskShape, seed: int, count: int = 6) -> Episode:
    goal = 0.3 * normal(1, task.targets, seed=seed).expand(count, -1)
    starts = torch.zeros(count, *task.inputs, dtype=torch.float64)
    return Episode(Support(starts, goal), starts, goal)


def learner(task: TaskShape, estimator: str = "unroll", strategy: str = "loop", **settings: Any) -> GradientLearner:
    slots = {
        "architecture": settings.pop("architecture", SMALL),
        "initialization": {"kind": "learned"},
        "loss": {"kind": "policy_gradient", **settings},
        "update": {"rate": {"learn": {"start": 0.5}}, "steps": 2},
    }
    if estimator == "first_order":
        slots["update"] = {"rate": 0.5, "steps": 2}
    found = built(slots, task, estimator=estimator, strategy=strategy)
    assert isinstance(found, GradientLearner)
    return found


def error_of(found: GradientLearner, task: TaskShape) -> dict[str, float]:
    """Return each slot's error against central differences, along its own gradient and a random direction."""
    phi, state = begun(found)
    episodes = [episode_of(task, seed) for seed in (1, 2)]
    held = holding(found, phi, state, episodes, seeded(3))
    gradient = held.meta_step(phi, state, episodes, seeded(3)).gradient
    errors = {}
    for slot in sorted({name.split("/")[0] for name in phi}):
        own = {name: value for name, value in gradient.items() if name.startswith(slot)}
        other = {name: normal(*value.shape, seed=9) for name, value in own.items()}
        differences = []
        for direction in (own, other):
            measured = central_difference(
                lambda moved: held.objective(moved, state, episodes, seeded(3)), phi, direction, 1e-4
            )
            claimed = sum(float((own[name] * direction[name]).sum()) for name in own)
            differences.append(abs(measured - claimed) / abs(measured))
        errors[slot] = max(differences)
    return errors


@pytest.mark.parametrize(
    "settings",
    [
        {"differentiate": "score"},
        {"differentiate": "score", "baseline": "linear", "standardize": True},
        {"differentiate": "low_variance", "deviation": {"learn": {"start": 0.4}}},
        {"differentiate": "dice", "discount": 1.0},
        {"differentiate": "score", "epochs": 3, "clip": 0.2},
    ],
    ids=["score", "linear baseline", "low variance", "dice", "clipped epochs"],
)
@pytest.mark.parametrize("task", [NEAR, CORRIDOR], ids=["continuous", "discrete"])
def test_the_surrogate_is_differentiated_exactly(task: TaskShape, settings: dict[str, Any]) -> None:
    if task is CORRIDOR:
        settings = {name: value for name, value in settings.items() if name != "deviation"}
    errors = error_of(learner(task, **settings), task)
    assert max(errors.values()) < 1e-6, errors


def test_every_mode_has_the_inner_gradient_of_reinforce() -> None:
    gradients = []
    for mode in ("pathwise", "score", "low_variance", "dice"):
        found = learner(GOALS, differentiate=mode, baseline="linear")
        phi, _ = begun(found)
        episode = found.slots.draw(phi, episode_of(GOALS, 4), 2, seeded(0), training=True)
        gradients.append(flatten(found.loop.gradient(phi, part(phi, "initialization"), {}, episode, 0)))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-10, atol=1e-13)


def test_the_recorded_loss_is_minus_the_return_of_the_adapted_policy() -> None:
    found = learner(NEAR, differentiate="score")
    phi, state = begun(found)
    episode = episode_of(NEAR, 5)
    loss = found.meta_step(phi, state, [episode], seeded(1)).loss
    drawn = found.slots.draw(phi, replace(episode, training=True), 2, seeded(1), training=True)
    problem = found.loop.problem(lambda phi: found._start_of_episode(phi, state), drawn)
    theta = list(problem.states(phi, 2))[-1].theta
    noise, place = drawn.noise["loss/asked"][2], drawn.query_x
    total, runs = torch.zeros(6, dtype=torch.float64), torch.ones(6, dtype=torch.bool)
    for step in range(5):
        action = found.loop.forward(phi, theta, place, 1).outputs + 0.5 * noise[:, step]
        place = place + 0.1 * action.clamp(-1, 1)
        squared = (place - drawn.query_y).square().sum(-1)
        total -= squared * runs
        runs &= squared >= 0.3**2
    assert not runs.all()
    assert loss == pytest.approx(-float(total.mean()))


def hypergradients(mode: str, seeds: int, trajectories: int) -> Tensor:
    """Return the hypergradient of one task's start for many draws of the noise: [seeds, numbers of phi]."""
    settings: dict[str, Any] = {"discount": 1.0, "deviation": 0.3, "explore": True, "architecture": AFFINE}
    found = learner(replace(GOALS, environment_settings={"horizon": 3}), differentiate=mode, **settings)
    phi, state = begun(found)
    phi = {name: 0.3 * value for name, value in phi.items()} | {"update/rate": torch.log(torch.tensor(2.0).double())}
    episode = episode_of(GOALS, 7, trajectories)
    return torch.stack([flatten(found.meta_step(phi, state, [episode], seeded(s)).gradient) for s in range(seeds)])


def test_dice_agrees_with_the_pathwise_gradient_in_expectation() -> None:
    """The two differ in every draw; over many, and with many trajectories, they do not."""
    exact, dice = hypergradients("pathwise", 16, 1000), hypergradients("dice", 32, 6000)
    error = (dice.mean(0) - exact.mean(0)) / ((dice.var(0) / len(dice) + exact.var(0) / len(exact)).sqrt())
    assert error.abs().max() < 4, error
    score = hypergradients("score", 8, 6000)
    assert relative_error(dice.mean(0), exact.mean(0)) < 0.05
    assert relative_error(score.mean(0), exact.mean(0)) > 0.1  # what the surrogate alone leaves out is not chance


def test_a_first_order_gradient_is_the_score_of_the_adapted_policy() -> None:
    found = learner(GOALS, "first_order", differentiate="score")
    phi, state = begun(found)
    episode = episode_of(GOALS, 8)
    gradient = found.meta_step(phi, state, [episode], seeded(2)).gradient
    drawn = found.slots.draw(phi, replace(episode, training=True), 2, seeded(2), training=True)
    problem = found.loop.problem(lambda phi: found._start_of_episode(phi, state), drawn)
    theta = {name: one.detach().requires_grad_() for name, one in list(problem.states(phi, 2))[-1].theta.items()}
    loop = found.loop
    assert isinstance(loop, ControlLoop)
    path = loop.query_path(phi, theta, drawn, 2)
    outputs = loop.forward(phi, theta, path.states[:, :-1].reshape(-1, 2), 1).outputs.reshape(6, 5, 2)
    log_p = torch.distributions.Normal(outputs, 0.5).log_prob(path.actions).sum(-1)
    to_go = returns_to_go(path.rewards, 0.95)
    expected = torch.autograd.grad(-(log_p * (to_go - to_go.mean(0))).sum(-1).mean(), list(theta.values()))
    for name, value in zip(theta, expected, strict=True):
        torch.testing.assert_close(gradient[f"initialization/{name}"], value)


def test_the_linear_baseline_is_a_ridge_regression_on_state_and_time() -> None:
    path = Trajectories(normal(7, 5, 2, seed=1), normal(7, 4, 2, seed=2), normal(7, 4, seed=3))
    to_go = returns_to_go(path.rewards, 0.9)
    time = torch.arange(4, dtype=torch.float64).expand(7, 4) / 4
    columns = [path.states[:, :-1], path.states[:, :-1] ** 2, torch.stack([time, time**2, time**3, time**0], -1)]
    rows = torch.cat(columns, -1).reshape(28, -1)
    rows = rows / rows.square().mean(0).sqrt()
    padded = torch.cat([rows, (28 * 1e-3) ** 0.5 * torch.eye(8, dtype=torch.float64)])
    weights = torch.linalg.lstsq(padded, torch.cat([to_go.reshape(-1, 1), torch.zeros(8, 1).double()])).solution
    torch.testing.assert_close(linear_baseline(path, to_go, 1e-3), (rows @ weights).reshape(7, 4))


def test_the_linear_baseline_of_one_straight_line_is_finite() -> None:
    """All trajectories run away alike: place, time and their squares are then multiples of one another."""
    place = 1e3 * torch.arange(21.0)[None, :, None].expand(5, -1, 2)
    path = Trajectories(place, torch.zeros(5, 20, 2), -place[:, 1:].square().sum(-1))
    to_go = returns_to_go(path.rewards, 0.99)
    fitted = linear_baseline(path, to_go, 1e-5)
    assert bool(fitted.isfinite().all()) and float((fitted - to_go).norm() / to_go.norm()) < 0.02


def test_clipping_stops_what_has_moved_far() -> None:
    loss: Any = make_component(SLOTS["loss"], {"kind": "policy_gradient", "clip": 0.1, "discount": 0.0}, CORRIDOR)
    action = torch.tensor([[[1.0, 0, 0]], [[0, 1.0, 0]]])
    before = torch.log(torch.tensor([[1 / 3], [1 / 3]]))
    path = Trajectories(torch.zeros(2, 2, 1), action, torch.tensor([[2.0], [0.0]]), None, before)
    logits = torch.tensor([[[1.0, 0, 0]], [[1.0, 0, 0]]], requires_grad=True)  # the first one is now more likely
    losses = loss.policy_losses({}, logits, path)
    ratio = logits.detach().softmax(-1)
    assert losses.tolist() == pytest.approx([-1.1, 0.9])
    assert float(ratio[0, 0, 0] * 3) > 1.1 and float(ratio[1, 0, 1] * 3) < 0.9
    assert torch.autograd.grad(losses.sum(), logits)[0].abs().max() == 0


def test_batched_and_looped_tasks_have_the_same_gradient() -> None:
    gradients = []
    for strategy in ("loop", "vmap"):
        found = learner(NEAR, strategy=strategy, differentiate="dice", baseline="linear", standardize=True)
        phi, state = begun(found)
        step = found.meta_step(phi, state, [episode_of(NEAR, seed) for seed in (1, 2)], seeded(0))
        gradients.append(flatten(step.gradient))
    torch.testing.assert_close(*gradients)


def test_the_settings_that_contradict_a_task_are_refused() -> None:
    with pytest.raises(LearnerError, match=r"learner.loss.differentiate: pathwise needs .*score, low_variance, dice"):
        learner(CORRIDOR, differentiate="pathwise")
    with pytest.raises(LearnerError, match=r"learner.loss.explore: score learns from the queries' exploration"):
        learner(GOALS, differentiate="score", explore=False)


def test_long_trajectories_are_batched_and_not_traced() -> None:
    assert learner(GOALS, strategy="auto").strategy == "traced"
    assert learner(replace(GOALS, environment_settings={}), strategy="auto").strategy == "vmap"


def test_a_step_of_navigation() -> None:
    place, goal = torch.tensor([[0.0, 0.2], [0.1, 0.1]]), torch.tensor([[0.1, 0.2], [0.5, 0.1]])
    after, reward, ended = Navigation().step(place, torch.tensor([[9.0, 0.0], [-0.5, 0.0]]), goal)
    torch.testing.assert_close(after, torch.tensor([[0.1, 0.2], [0.05, 0.1]]))
    torch.testing.assert_close(reward, torch.tensor([0.0, -(0.45**2)]))
    assert ended.tolist() == [True, False]
    assert double({"a": after})["a"].dtype == torch.float64
