"""A control task's inner step against REINFORCE written out, and shaping against its telescoping sum."""

from dataclasses import replace

import pytest
import torch

from metaloom.learners.build import SLOTS, make_component
from metaloom.learners.environments import PointMass
from metaloom.learners.knowledge.policy_gradient import ShapedPolicyGradient
from metaloom.learners.knowledge.trajectories import Trajectories
from metaloom.learners.solvers.control import ControlLoop
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.tensors import Tensors, part
from metaloom.testing.problems import CONTROL, SMOOTH, begun, built, episode_of, normal, seeded


def learner(kind: str = "policy_gradient", **settings: object) -> GradientLearner:
    slots = {"architecture": SMOOTH, "loss": {"kind": kind, **settings}, "update": {"rate": 0.2, "steps": 1}}
    found = built({**slots, "initialization": {"kind": "learned"}}, CONTROL)
    assert isinstance(found, GradientLearner) and isinstance(found.loop, ControlLoop)
    return found


def test_a_step_of_the_point_mass() -> None:
    state = torch.tensor([[0.3, 0.0, 0.1, -0.2]], dtype=torch.float64)
    after, reward, ended = PointMass().step(state, torch.tensor([[0.0, 50.0]], dtype=torch.float64), state[:, :0])
    assert not ended.any()
    assert after[0].tolist() == pytest.approx([0.3 + 0.09, -0.18 + 0.15, 0.09, -0.18 + 0.15])
    assert float(reward) == pytest.approx(float(torch.exp(torch.tensor(-(0.39**2 + 0.03**2) / 0.08))))


def test_an_inner_step_is_reinforce_with_the_trajectories_taken_as_given() -> None:
    found = learner(deviation=0.4, discount=0.9)
    phi, _ = begun(found)
    episode = replace(episode_of(CONTROL, 1), training=True)
    episode = found.slots.draw(phi, episode, 1, seeded(0), training=True)
    theta = {name: value.clone().requires_grad_() for name, value in part(phi, "initialization").items()}
    noise = episode.noise["loss/exploration"][0]
    loop = found.loop
    assert isinstance(loop, ControlLoop)
    with torch.no_grad():
        path = loop.rollout(phi, theta, episode.support_x, episode.support_y, noise, 0)
    to_go = torch.zeros_like(path.rewards)
    for step in reversed(range(path.rewards.shape[1])):
        later = to_go[:, step + 1] if step + 1 < path.rewards.shape[1] else 0.0
        to_go[:, step] = path.rewards[:, step] + 0.9 * later
    advantage = to_go - to_go.mean(0)
    means = torch.stack([loop.forward(phi, theta, path.states[:, t], 0).outputs for t in range(PointMass.horizon)], 1)
    log_density = torch.distributions.Normal(means, 0.4).log_prob(path.actions).sum(-1)
    expected = torch.autograd.grad(-(log_density * advantage).mean(), list(theta.values()))
    gradient = loop.gradient(phi, theta, {}, episode, 0)
    for name, value in zip(theta, expected, strict=True):
        torch.testing.assert_close(gradient[name], value, rtol=1e-9, atol=1e-13)


def test_shaping_telescopes_to_a_difference_of_potentials() -> None:
    loss = make_component(SLOTS["loss"], {"kind": "shaped_policy_gradient", "hidden": 5, "discount": 0.9}, CONTROL)
    assert isinstance(loss, ShapedPolicyGradient)
    phi = {name: value.double() for name, value in loss.init({}, seeded(1)).items()}
    path = Trajectories(normal(6, 8, 4, seed=1), normal(6, 7, 2, seed=2), normal(6, 7, seed=3))
    value = loss.potential(phi, path.states)
    powers = 0.9 ** torch.arange(7, dtype=torch.float64)
    shaped, true = ((powers * rewards).sum(-1) for rewards in (loss.shaped(phi, path), path.rewards))
    torch.testing.assert_close(shaped - true, 0.9**7 * value[:, -1] - value[:, 0])


def test_without_exploration_the_query_set_is_judged_by_the_true_reward() -> None:
    found = learner("shaped_policy_gradient", hidden=5)
    phi, state = begun(found)
    episode = episode_of(CONTROL, 2)
    states, total = episode.query_x, torch.zeros(9, dtype=torch.float64)
    theta: Tensors = part(phi, "initialization")
    for _ in range(PointMass.horizon):
        states, reward, _ = PointMass().step(states, found.loop.forward(phi, theta, states, 0).outputs, states[:, :0])
        total = total + reward
    outcome = found.evaluate(phi, state, episode, seeded(0))
    assert -outcome.losses[0] == pytest.approx(float(total.mean()) / PointMass.horizon)
    assert outcome.accuracies == ()
    assert found.notes == ("the loss of a control task is minus the mean reward per step",)


def test_a_one_step_trajectory_can_be_given_as_targets() -> None:
    loss = make_component(SLOTS["loss"], {"kind": "policy_gradient", "deviation": 0.5}, CONTROL)
    state, action, after, reward = (normal(5, width, seed=i) for i, width in enumerate((4, 2, 4, 1)))
    outputs = normal(5, 2, seed=9)
    found = loss.losses({}, outputs, torch.cat([state, action, after, reward], -1))  # type: ignore[attr-defined]
    expected = 0.5 * ((action - outputs) / 0.5).square().sum(-1) * (reward - reward.mean())[:, 0]
    torch.testing.assert_close(found, expected)
