"""A term of the parameters in the inner loss: its gradient, along a path and at a solution, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners import ESTIMATORS
from metaloom.learners.base import Learner
from metaloom.learners.component import NoConfig
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.loss import LOSSES, Penalty
from metaloom.learners.tensors import Tensors, flatten
from metaloom.testing.problems import FEW_WAYS, SINGLE, begun, built, episode_of, errors_by_slot, seeded
from metaloom.testing.update_rules import GENEROUS, TASK

TANH = {"kind": "mlp", "hidden": [3], "activation": "tanh"}
LINEAR = {"kind": "mlp", "hidden": []}


def learner_with(*penalties: dict[str, Any], **sections: Any) -> Learner:
    """Build a learner with a learned start whose inner loss has penalties."""
    inner, estimator = sections.pop("inner", {}), sections.pop("estimator", None)
    strategy, task = sections.pop("strategy", "loop"), sections.pop("task", FEW_WAYS)
    base = "mse" if task.kind == "regression" else "cross_entropy"
    loss = [base, *({"kind": "penalty", **one} for one in penalties)]
    settings = {
        "architecture": TANH,
        "initialization": {"kind": "learned"},
        "loss": [{"kind": one} if isinstance(one, str) else one for one in loss],
        "update": {"rate": 0.2, "steps": 3},
        **sections,
    }
    return built(settings, task, inner=inner, estimator=estimator, strategy=strategy)


def gradient_of(learner: Learner, task: Any = FEW_WAYS) -> Tensors:
    phi, state = begun(learner)
    episodes = [episode_of(task, seed) for seed in (1, 2)]
    return learner.meta_step(phi, state, episodes, seeded(0)).gradient


def test_an_l2_penalty_is_the_weight_decay_of_sgd_and_towards_the_start_the_proximal_term() -> None:
    for penalty, same in (
        ({"l2": 0.3}, learner_with({"l2": 1e-300}, update={"rate": 0.2, "steps": 3, "weight_decay": 0.3})),
        ({"l2": 0.3, "toward": "start"}, learner_with({"l2": 1e-300}, inner={"proximal": 0.3})),
    ):
        torch.testing.assert_close(gradient_of(learner_with(penalty)), gradient_of(same), rtol=1e-12, atol=1e-14)


def test_an_l1_penalty_moves_each_parameter_by_its_sign() -> None:
    """One step of rate r: the parameters differ by r * l1 * sign(theta) from those without."""
    settings: dict[str, Any] = {"update": {"rate": 0.2, "steps": 1}}
    learner = learner_with({"l1": 0.1, "only": ["head"]}, **settings)
    plain = learner_with({"l1": 1e-300}, **settings)
    phi, state = begun(learner)
    episode = episode_of(FEW_WAYS, 1)
    moved, without = (one.adapt(phi, state, episode.support, seeded(0)).theta for one in (learner, plain))  # type: ignore[attr-defined]
    for name, value in moved.items():
        pull = 0.2 * 0.1 * phi[f"initialization/{name}"].sign() if name.startswith("head") else torch.zeros_like(value)
        torch.testing.assert_close(without[name] - value, pull, rtol=1e-12, atol=1e-14)


LEARNED: list[tuple[dict[str, Any], ...]] = [
    ({"l2": {"learn": {"start": 0.3}}},),
    ({"l1": {"learn": {"start": 0.1}}, "l2": 0.1},),
    ({"l2": {"learn": {"start": 0.3}}, "toward": "start"},),
    ({"l2": {"learn": {"start": 0.3}}, "only": ["head"]}, {"l1": {"learn": {"start": 0.05}}, "only": ["layer0"]}),
]


@pytest.mark.parametrize("penalties", LEARNED)
@pytest.mark.parametrize("rule", ["sgd", "adam", "adagrad"])
def test_a_learned_strength_has_its_gradient(penalties: tuple[dict[str, Any], ...], rule: str) -> None:
    learner = learner_with(*penalties, update={"kind": rule, "rate": 0.1, "steps": 3})
    # a central difference is wrong where a parameter passes zero on its way; a wrong gradient is wrong on each episode
    tried = (errors_by_slot(learner, [episode_of(FEW_WAYS, seed)]) for seed in (2, 3, 4))
    assert any(set(errors) == {"initialization", "loss"} and max(errors.values()) < 1e-8 for errors in tried)


@pytest.mark.parametrize("penalties", LEARNED)
@pytest.mark.parametrize("kind", [kind for kind, one in ESTIMATORS.items() if one.exact])
def test_exact_estimators_agree(penalties: tuple[dict[str, Any], ...], kind: str) -> None:
    found = gradient_of(learner_with(*penalties, estimator=kind))
    torch.testing.assert_close(found, gradient_of(learner_with(*penalties)), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("penalties", LEARNED[2:])
@pytest.mark.parametrize("strategy", ["vmap", "traced"])
def test_every_strategy_gives_the_same(penalties: tuple[dict[str, Any], ...], strategy: str) -> None:
    found = gradient_of(learner_with(*penalties, strategy=strategy))
    torch.testing.assert_close(found, gradient_of(learner_with(*penalties)), rtol=1e-10, atol=1e-13)


AT_SOLUTION = [kind for kind, one in ESTIMATORS.items() if one.at_solution]
STRONG = {"l2": {"learn": {"start": 4.0}}, "toward": "start"}


@pytest.mark.parametrize("kind", AT_SOLUTION)
def test_at_a_solution_an_implicit_estimator_sees_the_strength_and_the_start(kind: str) -> None:
    sections: dict[str, Any] = {
        "task": TASK,
        "architecture": LINEAR,
        "weighting": {"kind": "per_sample"},
        "update": {"rate": 0.18, "steps": 80},
    }
    chosen = {"kind": kind, **GENEROUS[kind]}
    found, exact = (gradient_of(learner_with(STRONG, estimator=one, **sections), TASK) for one in (chosen, "adjoint"))
    assert float((flatten(found) - flatten(exact)).norm() / flatten(exact).norm()) < 1e-8


def test_a_finite_difference_sees_the_penalty_of_the_last_step() -> None:
    settings: dict[str, Any] = {"initialization": {"kind": "random"}, "update": {"rate": 0.2, "steps": 3}}
    penalty = {"l2": {"learn": {"start": 0.3}}, "l1": 0.05}
    found = gradient_of(learner_with(penalty, estimator={"kind": "finite_difference", "sides": 2}, **settings))
    exact = gradient_of(learner_with(penalty, estimator="one_step", **settings))
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {}, r"learner\.loss: a penalty of strength 0 is none; raise l2 or l1"),
    ({"l2": {"learn": {}}}, {}, r"learner\.loss\.l2 is learned as its logarithm; give it a start above 0"),
    ({"l2": -0.1}, {}, r"learner\.loss\.l2: got -0\.1"),
    ({"l2": 0.1, "only": ["hed"]}, {}, r"learner\.loss\.only: no layer .* is named 'hed'; did you mean 'head'\?"),
    ({"l1": 0.1, "toward": "start"}, {"estimator": "neumann"}, r"stationary point, .* l1 to 0"),
    ({"l1": 0.1, "toward": "start"}, {"estimator": "fixed_point"}, r"stationary point, .* l1 to 0"),
    ({"l2": 0.1}, {"estimator": "neumann"}, r"neumann gives no signal to learner\.initialization without a proximal"),
]


@pytest.mark.parametrize(("penalty", "sections", "message"), REFUSED)
def test_what_cannot_work_is_refused(penalty: dict[str, Any], sections: dict[str, Any], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        learner_with(penalty, **sections)


def test_a_penalty_alone_is_refused() -> None:
    with pytest.raises(LearnerError, match=r"learner\.loss: penalty is a term .* beside it, such as \[cross_entropy, "):
        built({"loss": {"kind": "penalty", "l2": 0.1}}, SINGLE)


class OwnPenalty(Penalty):
    """The squared norm of the first layer's product with the head: no formula for its gradient is given."""

    def penalty(self, phi: Tensors, theta: Tensors, start: Tensors) -> Tensor:
        return (theta["head.weight"] @ theta["layer0.weight"]).square().sum() / 10


@pytest.mark.parametrize("strategy", ["loop", "vmap", "traced"])
def test_a_penalty_of_ones_own_needs_no_gradient(strategy: str) -> None:
    LOSSES.add("own_penalty", OwnPenalty)
    try:
        learner = learner_with(strategy=strategy, loss=[{"kind": "cross_entropy"}, {"kind": "own_penalty"}])
        errors = errors_by_slot(learner, [episode_of(FEW_WAYS, 1)])
        plain = gradient_of(learner_with(strategy=strategy, loss=[{"kind": "cross_entropy"}]))
        assert not torch.allclose(flatten(gradient_of(learner)), flatten(plain))
    finally:
        LOSSES.remove("own_penalty")
    assert OwnPenalty.Config is NoConfig
    assert max(errors.values()) < 1e-8
