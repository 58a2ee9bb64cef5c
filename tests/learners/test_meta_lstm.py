"""The meta-learner LSTM starts as gradient descent, and what its gates read can change that."""

import pytest
import torch

from metaloom.learners.build import make_config
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.update_rules import UPDATE_RULES, UpdateRule
from metaloom.learners.tensors import InnerState
from metaloom.testing.problems import SINGLE, SMOOTH, begun, built, double, episode_of, normal, seeded

THETA = {"body": normal(3, 2, seed=0), "head.weight": normal(4, seed=1)}


def rule_of(kind: str = "meta_lstm", **settings: object) -> UpdateRule:
    rule = UPDATE_RULES[kind](make_config(UPDATE_RULES[kind].Config, settings, "learner.update"))
    assert isinstance(rule, UpdateRule)
    return rule


def trajectory(rule: UpdateRule, steps: int = 5) -> list[InnerState]:
    phi = double(rule.init(THETA, seeded(0)))
    states = [InnerState(THETA, rule.begin(THETA))]
    for index in range(steps):
        gradient = {name: normal(*value.shape, seed=10 + index) for name, value in THETA.items()}
        states.append(rule.step(phi, states[-1], gradient, index))
    return states


@pytest.mark.parametrize("keep", [0.9975, 0.95])
def test_it_starts_as_gradient_descent(keep: float) -> None:
    """With gates that look at nothing yet it is, step for step, gradient descent with decay (1 - keep) / rate."""
    ours = trajectory(rule_of(rate=0.05, keep=keep, gate_spread=0.0))
    theirs = trajectory(rule_of("sgd", rate=0.05, weight_decay=(1 - keep) / 0.05))
    for one, other in zip(ours, theirs, strict=True):
        for name in THETA:
            torch.testing.assert_close(one.theta[name], other.theta[name], rtol=1e-6, atol=1e-7)


def test_a_keep_near_one_is_plain_gradient_descent() -> None:
    ours = trajectory(rule_of(rate=0.05, keep=1 - 1e-6, gate_spread=0.0))[-1]
    theirs = trajectory(rule_of("sgd", rate=0.05))[-1]
    for name in THETA:
        torch.testing.assert_close(ours.theta[name], theirs.theta[name], rtol=2e-5, atol=2e-5)


def test_its_default_start_is_close_to_gradient_descent() -> None:
    state = trajectory(rule_of(rate=0.05))[-1]
    assert float((state.buffers["rate"] / 0.05 - 1).abs().max()) < 0.1
    assert float((state.buffers["keep"] - 0.9975).abs().max()) < 5e-4


def test_the_gates_are_the_papers_equations() -> None:
    rule = rule_of(hidden=3, gate_spread=0.5)
    phi = double(rule.init(THETA, seeded(0)))
    before = InnerState(THETA, {n: 0.1 * normal(*v.shape, seed=5) for n, v in rule.begin(THETA).items()})
    gradient = {name: normal(*value.shape, seed=7) for name, value in THETA.items()}
    after = rule.step(phi, before, gradient, 0)
    theta = torch.cat([value.flatten() for value in THETA.values()])
    for gate in ("keep", "rate"):
        reads = torch.cat([after.buffers["hidden"], theta[:, None], before.buffers[gate][:, None]], 1)
        by_hand = torch.sigmoid((reads * phi[f"network/{gate}.weight"]).sum(1) + phi[f"network/{gate}.bias"])
        torch.testing.assert_close(after.buffers[gate], by_hand, rtol=1e-12, atol=1e-14)
    moved = after.buffers["keep"] * theta - after.buffers["rate"] * torch.cat([g.flatten() for g in gradient.values()])
    torch.testing.assert_close(torch.cat([v.flatten() for v in after.theta.values()]), moved, rtol=1e-12, atol=1e-14)


def test_it_reads_the_loss_at_the_parameters_it_moves() -> None:
    settings = {
        "architecture": SMOOTH,
        "initialization": {"kind": "learned"},
        "update": {"kind": "meta_lstm", "hidden": 3, "steps": 2, "gate_spread": 0.3},
    }
    learner = built(settings, SINGLE)
    phi, state = begun(learner)
    episode = episode_of(SINGLE, 0)
    loop = learner.loop
    problem = loop.problem(lambda leaves: learner._start_of_episode(leaves, state), episode)
    moved = problem.start(phi)
    for index in range(2):
        expected = loop.support_losses(phi, moved.theta, episode, index).mean()
        moved = problem.step(phi, moved, index)
        torch.testing.assert_close(moved.buffers["loss"], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 1.0}, r"learner\.update\.keep: got 1\.0; allowed: a number, above 0 and below 1"),
        ({"rate": 1.5}, r"learner\.update\.rate: got 1\.5; allowed: a number, above 0 and below 1"),
        ({"hidden": 0}, r"learner\.update\.hidden: got 0; allowed: a whole number, at least 1"),
        ({"gate_spread": -1.0}, r"learner\.update\.gate_spread: got -1\.0; allowed: a number, at least 0"),
        ({"p": 0.0}, r"learner\.update\.p: got 0\.0; allowed: a number, above 0"),
        ({"rate": {"learn": {}}}, r"learner\.update\.rate: rate cannot be learned: it does not enter the inner loop"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        rule_of(**settings)
