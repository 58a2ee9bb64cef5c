"""Which parameters the inner loop moves, which ones neither loop moves, and an inner loop that takes no steps."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from metaloom.learners import ESTIMATORS
from metaloom.learners.base import Learner
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import ValueEstimator
from metaloom.learners.solvers.bilevel import bilevel
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors, flatten
from metaloom.testing.problems import FEW_WAYS, IMAGES, begun, built, episode_of, errors_by_slot, normal, seeded
from metaloom.testing.update_rules import GENEROUS
from metaloom.workers.bundle_reading import parameters_of
from metaloom.workers.checkpoint import Knowledge

TANH = {"kind": "mlp", "hidden": [4, 3], "activation": "tanh"}
START = {"kind": "learned"}


def learner_with(update: dict[str, Any], **sections: Any) -> Learner:
    estimator, inner = sections.pop("estimator", None), sections.pop("inner", {})
    learner = {"architecture": TANH, "initialization": START, "update": {"rate": 0.2, "steps": 2, **update}}
    strategy = sections.pop("strategy", "loop")
    return built({**learner, **sections}, FEW_WAYS, inner=inner, estimator=estimator, strategy=strategy)


def gradient_of(learner: Learner, seeds: tuple[int, ...] = (1, 2)) -> Tensors:
    phi, state = begun(learner)
    episodes = [episode_of(FEW_WAYS, seed) for seed in seeds]
    return learner.meta_step(phi, state, episodes, seeded(0)).gradient


def by_hand(
    phi: Tensors, frozen: Tensors, moves: Callable[[str], bool], seed: int, steps: int = 2
) -> tuple[torch.Tensor, Tensors]:
    """Return the query loss after gradient descent on the parameters that move, and its gradient by phi."""
    leaves = {name.removeprefix("initialization/"): one.detach().requires_grad_() for name, one in phi.items()}
    theta, episode = frozen | leaves, episode_of(FEW_WAYS, seed)

    def loss(theta: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for layer in ("layer0", "layer1"):
            x = torch.tanh(F.linear(x, theta[f"{layer}.weight"], theta[f"{layer}.bias"]))
        return F.cross_entropy(F.linear(x, theta["head.weight"], theta["head.bias"]), y)

    for _ in range(steps):
        fast = {name: one for name, one in theta.items() if moves(name)}
        support = loss(theta, episode.support_x, episode.support_y)
        slopes = torch.autograd.grad(support, list(fast.values()), create_graph=True)
        theta = theta | {name: one - 0.2 * slope for (name, one), slope in zip(fast.items(), slopes, strict=True)}
    total = loss(theta, episode.query_x, episode.query_y)
    return total, dict(zip(phi, torch.autograd.grad(total, list(leaves.values())), strict=True))


ONLY: list[tuple[list[str], set[str]]] = [
    (["layer1"], {"layer1.weight", "layer1.bias"}),
    (["*.bias"], {"layer0.bias", "layer1.bias", "head.bias"}),
    (["layer?.weight", "head.bias"], {"layer0.weight", "layer1.weight", "head.bias"}),
]


@pytest.mark.parametrize(("only", "moved"), ONLY)
def test_the_inner_loop_moves_what_is_named_alone(only: list[str], moved: set[str]) -> None:
    learner = learner_with({"only": only})
    phi, state = begun(learner)
    result = learner.meta_step(phi, state, [episode_of(FEW_WAYS, 1)], seeded(0))
    loss, exact = by_hand(phi, {}, moved.__contains__, 1)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-14)
    torch.testing.assert_close(result.gradient, exact, rtol=1e-12, atol=1e-14)


def test_a_rate_is_learned_for_what_moves_alone() -> None:
    learner = learner_with({"only": ["layer1"], "rate": {"learn": {"per": "layer", "start": 0.1}}})
    rates = {name for name in begun(learner)[0] if name.startswith("update/")}
    assert rates == {"update/rate/layer1.weight", "update/rate/layer1.bias"}
    assert max(errors_by_slot(learner, [episode_of(FEW_WAYS, 1)]).values()) < 1e-8


def test_neither_loop_moves_what_is_frozen() -> None:
    learner = learner_with({"frozen": ["layer0", "head.bias"]})
    phi, state = begun(learner)
    frozen = {"layer0.weight", "layer0.bias", "head.bias"}
    assert set(state.theta) == frozen
    assert {name.removeprefix("initialization/") for name in phi} == {"layer1.weight", "layer1.bias", "head.weight"}
    result = learner.meta_step(phi, state, [episode_of(FEW_WAYS, 1)], seeded(0))
    loss, exact = by_hand(phi, state.theta, lambda name: name not in frozen, 1)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-14)
    torch.testing.assert_close(result.gradient, exact, rtol=1e-12, atol=1e-14)
    after = result.after(state)
    assert all(torch.equal(after.theta[name], state.theta[name]) for name in frozen)


def test_a_checkpoint_holds_what_is_frozen() -> None:
    learner = learner_with({"frozen": ["layer0"]})
    phi, state = begun(learner)
    again = LearnerState.from_flat(state.flat())
    first, second = (learner.evaluate(phi, one, episode_of(FEW_WAYS, 1), seeded(0)).losses for one in (state, again))
    assert first == second


@pytest.mark.parametrize("kind", [kind for kind in ESTIMATORS if not ESTIMATORS[kind].online_only])
@pytest.mark.parametrize("update", [{"frozen": ["layer0"]}, {"only": ["layer1.bias", "head"]}])
def test_every_estimator_is_right_or_refused(kind: str, update: dict[str, Any]) -> None:
    """On a proximal problem that is solved, those that claim to be exact are."""
    chosen = {"kind": kind, **GENEROUS.get(kind, {})}
    settings = {"architecture": {**TANH, "hidden": [2, 2]}, "loss": {"kind": "cross_entropy", "label_smoothing": 0.1}}
    implicit = ESTIMATORS[kind].at_solution
    update, inner = {**update, "steps": 80 if implicit else 3}, {"proximal": 4.0}
    try:
        found = gradient_of(learner_with(update, inner=inner, estimator=chosen, **settings), (1,))
    except LearnerError:
        assert not ESTIMATORS[kind].exact
        return
    exact = gradient_of(learner_with(update, inner=inner, **settings), (1,))
    assert set(found) == set(exact)
    if ESTIMATORS[kind].exact or implicit:
        assert float((flatten(found) - flatten(exact)).norm() / flatten(exact).norm()) < 1e-8


@pytest.mark.parametrize("strategy", ["vmap", "traced"])
@pytest.mark.parametrize("update", [{"frozen": ["layer0"]}, {"only": ["layer1"]}, {"steps": 0}])
def test_every_strategy_gives_the_same(strategy: str, update: dict[str, Any]) -> None:
    loop, other = (gradient_of(learner_with(update, strategy=one)) for one in ("loop", strategy))
    torch.testing.assert_close(other, loop, rtol=1e-12, atol=1e-14)


def test_what_starts_from_a_bundle_starts_from_what_is_frozen_too() -> None:
    phi, state = begun(learner_with({"frozen": ["layer0"]}))
    stored = parameters_of(Knowledge(phi, state, 0))
    assert set(stored) == {f"{layer}.{part}" for layer in ("layer0", "layer1", "head") for part in ("weight", "bias")}
    assert torch.equal(stored["layer0.weight"], state.theta["layer0.weight"])


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"only": ["layr1"]}, {}, r"only: no layer or parameter is named 'layr1'; did you mean 'layer1'\?"),
    ({"frozen": ["layer7.*"]}, {}, r"learner\.update\.frozen: no layer or parameter is named 'layer7\.\*'"),
    ({"frozen": ["*"]}, {}, r"learner\.update\.frozen: no parameter is left"),
    ({"only": ["layer1"], "adapt": "head"}, {}, r"learner\.update\.only: adapt: head names what moves already"),
    ({"steps": 0}, {"weighting": {"kind": "meta_weight_net"}}, r"update\.steps: .* signal to learner\.weighting"),
    ({"steps": 0, "rate": {"learn": {}}}, {}, r"learner\.update\.steps: .* to learner\.update, which is learned"),
    ({"steps": 0}, {"inner": {"carry": 2}, "initialization": {"kind": "random"}}, r"carry: 2 needs inner steps"),
]  # fmt: skip


@pytest.mark.parametrize(("update", "sections", "message"), REFUSED)
def test_what_cannot_work_is_refused(update: dict[str, Any], sections: dict[str, Any], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        learner_with(update, **sections)


def test_batch_norm_of_every_step_is_no_parameter_of_the_inner_loop() -> None:
    settings = {"architecture": {"kind": "conv4", "channels": 2, "blocks": 1}, "initialization": START}
    frozen = {**settings, "update": {"steps": 1, "frozen": ["norm0"]}}
    phi, state = begun(built(frozen, IMAGES))
    assert set(state.theta) == {"norm0.weight", "norm0.bias"}
    assert not any("norm0" in name for name in phi)
    with pytest.raises(LearnerError, match=r"no layer or parameter is named 'norm0'"):
        built(frozen, IMAGES, inner={"batch_norm": "per_step"})


@pytest.mark.parametrize("kind", [kind for kind in ESTIMATORS if not ESTIMATORS[kind].online_only])
def test_without_inner_steps_an_estimator_is_right_or_refused(kind: str) -> None:
    exact = gradient_of(learner_with({"steps": 0}))
    try:
        found = gradient_of(learner_with({"steps": 0}, estimator={"kind": kind, **GENEROUS.get(kind, {})}))
    except LearnerError as error:
        assert not ESTIMATORS[kind].exact
        assert "inner steps" in str(error) or "no signal" in str(error)
        return
    if ESTIMATORS[kind].exact or issubclass(ESTIMATORS[kind], ValueEstimator):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-14)


def test_without_inner_steps_the_start_is_judged() -> None:
    learner = learner_with({"steps": 0})
    phi, state = begun(learner)
    result = learner.meta_step(phi, state, [episode_of(FEW_WAYS, 1)], seeded(0))
    loss, exact = by_hand(phi, {}, lambda _: False, 1, 0)
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-14)
    torch.testing.assert_close(result.gradient, exact, rtol=1e-12, atol=1e-14)
    assert learner.evaluate(phi, state, episode_of(FEW_WAYS, 1), seeded(0)).losses == (result.loss,)


def test_a_learner_may_be_trained_without_steps_and_evaluated_with_some_and_the_other_way_round() -> None:
    for steps, evaluated in ((0, 3), (2, 0)):
        learner = learner_with({"steps": steps, "evaluation_steps": evaluated})
        phi, state = begun(learner)
        assert len(learner.evaluate(phi, state, episode_of(FEW_WAYS, 1), seeded(0)).losses) == evaluated + 1


def test_a_bilevel_problem_without_steps_sees_the_start_and_refuses_what_only_the_inner_loss_has() -> None:
    def quadratic(phi: Tensors, theta: Tensors) -> torch.Tensor:
        return (theta["w"] - phi["w"]).square().sum()

    target = normal(3, seed=1)
    posed = bilevel(
        quadratic,
        lambda phi, theta: (theta["w"] - target).square().sum() / 2,
        phi={"w": normal(3, seed=2)},
        start=lambda phi: {"w": 2 * phi["w"]},
        steps=0,
    )
    found = posed.hypergradient(estimator="unroll").gradient["w"]
    torch.testing.assert_close(found, 2 * (2 * normal(3, seed=2) - target))
    with pytest.raises(LearnerError, match="phi: 'w' takes no part in start, inner or outer"):
        bilevel(quadratic, lambda phi, theta: theta["w"].sum(), phi={"w": target}, start={"w": target}, steps=0)
