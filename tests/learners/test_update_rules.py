"""The functional optimizers step as torch.optim does, and their rates have the shapes they say."""

from typing import Any

import pytest
import torch

from metaloom.learners.build import make_config
from metaloom.learners.domains import Learned
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.knowledge.update_rules import UPDATE_RULES, UpdateRule
from metaloom.learners.tensors import InnerState, Tensors
from metaloom.testing.problems import FEW_WAYS, SINGLE, SMOOTH, begun, built, double, episode_of, normal, seeded

SAME_AS_TORCH: list[tuple[dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]] = [
    ({"kind": "sgd"}, torch.optim.SGD, {}),
    ({"kind": "sgd", "momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    ({"kind": "sgd", "momentum": 0.9, "nesterov": True}, torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    ({"kind": "sgd", "momentum": 0.9, "weight_decay": 0.1}, torch.optim.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    ({"kind": "adam"}, torch.optim.Adam, {}),
    ({"kind": "adam", "beta1": 0.5, "beta2": 0.9}, torch.optim.Adam, {"betas": (0.5, 0.9)}),
    ({"kind": "adam", "weight_decay": 0.1}, torch.optim.Adam, {"weight_decay": 0.1}),
    (
        {"kind": "adam", "weight_decay": 0.1, "decoupled_weight_decay": True},
        torch.optim.AdamW,
        {"weight_decay": 0.1},
    ),
    ({"kind": "adagrad"}, torch.optim.Adagrad, {}),
    (
        {"kind": "adagrad", "rate_decay": 0.3, "initial_sum": 0.2, "weight_decay": 0.1, "epsilon": 1e-3},
        torch.optim.Adagrad,
        {"lr_decay": 0.3, "initial_accumulator_value": 0.2, "weight_decay": 0.1, "eps": 1e-3},
    ),
    ({"kind": "adamw"}, torch.optim.AdamW, {}),
    (
        {"kind": "adamw", "weight_decay": 0.3, "beta1": 0.6},
        torch.optim.AdamW,
        {"weight_decay": 0.3, "betas": (0.6, 0.999)},
    ),
    ({"kind": "rmsprop"}, torch.optim.RMSprop, {}),
    ({"kind": "rmsprop", "smoothing": 0.9, "momentum": 0.5}, torch.optim.RMSprop, {"alpha": 0.9, "momentum": 0.5}),
]


def rule_of(kind: str, **settings: Any) -> UpdateRule:
    rule = UPDATE_RULES[kind](make_config(UPDATE_RULES[kind].Config, settings, "learner.update"))
    assert isinstance(rule, UpdateRule)
    return rule


@pytest.mark.parametrize(("ours", "theirs", "settings"), SAME_AS_TORCH)
def test_the_same_trajectory_as_torch(ours: dict[str, Any], theirs: Any, settings: dict[str, Any]) -> None:
    rule = rule_of(**ours, rate=0.05)
    start = {"body": normal(3, 2, seed=0), "head.weight": normal(4, seed=1)}
    parameters = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = theirs(parameters.values(), lr=0.05, **settings)
    state = InnerState(start, rule.begin(start))
    for step in range(6):
        gradient = {name: normal(*value.shape, seed=10 + step) for name, value in start.items()}
        for name, parameter in parameters.items():
            parameter.grad = gradient[name]
        optimizer.step()
        state = rule.step({}, state, gradient, step)
    for name, parameter in parameters.items():
        torch.testing.assert_close(state.theta[name], parameter.detach(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", UPDATE_RULES)
def test_a_step_changes_nothing_in_place(kind: str) -> None:
    rule = rule_of(kind)
    theta = {"head.weight": normal(4, seed=0)}
    state = InnerState(theta, rule.begin(theta))
    before = {name: value.clone() for part in state for name, value in part.items()}
    rule.step(double(rule.init(theta, seeded(0))), state, {"head.weight": normal(4, seed=1)}, 0)
    for part in state:
        for name, value in part.items():
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@pytest.mark.parametrize("kind", UPDATE_RULES)
def test_only_the_head_moves_under_anil(kind: str) -> None:
    rule = rule_of(kind, adapt="head")
    theta = {"body": normal(4, seed=0), "head.weight": normal(4, seed=1)}
    start = InnerState(theta, rule.begin(theta))
    assert not any("body" in name for name in start.buffers)
    phi = double(rule.init(theta, seeded(0)))
    after = rule.step(phi, start, {"head.weight": normal(4, seed=2)}, 0)
    assert after.theta["body"] is theta["body"]
    assert not torch.equal(after.theta["head.weight"], theta["head.weight"])


def test_adam_survives_a_gradient_of_zero() -> None:
    """A dead unit's gradient is zero at every step, where the second moment's root has no derivative."""
    learner = built(
        {
            "architecture": {"kind": "mlp", "hidden": [4], "activation": "relu"},
            "initialization": {"kind": "learned"},
            "update": {"kind": "adam", "steps": 2},
        },
        SINGLE,
    )
    phi, state = begun(learner)
    phi["initialization/layer0.bias"] = phi["initialization/layer0.bias"] - 100  # every unit is dead
    gradient = learner.meta_step(phi, state, [episode_of(SINGLE, 0)], seeded(0)).gradient
    assert all(torch.isfinite(value).all() for value in gradient.values())


def rates(per: str, steps: int = 3, **settings: Any) -> Tensors:
    theta = {"layer.weight": torch.zeros(2, 3), "head.weight": torch.zeros(4)}
    rule = rule_of("sgd", rate=Learned(start=0.2, per=per), steps=steps, **settings)
    return rule.init(theta, seeded(0))


@pytest.mark.parametrize(
    ("per", "shapes"),
    [
        ("scalar", {"rate": ()}),
        ("step", {"rate": (3,)}),
        ("layer", {"rate/layer.weight": (), "rate/head.weight": ()}),
        ("layer_step", {"rate/layer.weight": (3,), "rate/head.weight": (3,)}),
        ("parameter", {"rate/layer.weight": (2, 3), "rate/head.weight": (4,)}),
    ],
)
def test_a_learned_rate_has_the_shape_of_its_granularity(per: str, shapes: dict[str, tuple[int, ...]]) -> None:
    found = rates(per)
    assert {name: tuple(value.shape) for name, value in found.items()} == shapes
    assert all(torch.allclose(value, torch.tensor(0.2)) for value in found.values())


def test_a_spread_start_draws_from_around_it() -> None:
    found = rates("parameter", start_spread=0.905)
    drawn = torch.cat([value.flatten() for value in found.values()])
    assert drawn.min() >= 0.2 * 0.095
    assert drawn.max() <= 0.2 * 1.905
    assert drawn.std() > 0.01


def test_a_per_step_rate_holds_its_last_value_beyond_training() -> None:
    rule = rule_of("sgd", rate=Learned(start=0.2, per="step"), steps=2)
    phi = {"rate": torch.tensor([0.1, 0.7])}
    assert [float(rule.rate(phi, "x", index)) for index in range(4)] == pytest.approx([0.1, 0.7, 0.7, 0.7])


@pytest.mark.parametrize(("per", "leaves"), [("scalar", ["momentum"]), ("layer", ["momentum/a", "momentum/head.b"])])
def test_momentum_is_learned_as_a_whole_or_per_layer(per: str, leaves: list[str]) -> None:
    rule = rule_of("sgd", rate=0.1, momentum=Learned(start=0.5, per=per))
    theta = {"a": normal(2, seed=0), "head.b": normal(3, seed=1)}
    phi = rule.init(theta, seeded(0))
    assert sorted(phi) == leaves
    phi[leaves[-1]] = torch.tensor(0.9)
    state = InnerState(theta, rule.begin(theta))
    for _ in range(2):
        state = rule.step(phi, state, {name: torch.ones_like(value) for name, value in theta.items()}, 0)
    first = 0.9 if per == "scalar" else 0.5
    torch.testing.assert_close(theta["a"] - state.theta["a"], torch.full_like(theta["a"], 0.1 * (2 + first)))
    torch.testing.assert_close(theta["head.b"] - state.theta["head.b"], torch.full_like(theta["head.b"], 0.29))


def test_a_knob_has_only_its_own_granularities() -> None:
    rule = rule_of("sgd", momentum=Learned(start=0.5, per="parameter"))
    with pytest.raises(LearnerError, match=r"learner\.update\.momentum: no granularity is named 'parameter'"):
        rule.init({"a": normal(2, seed=0)}, seeded(0))


def test_an_anil_rate_belongs_to_the_head_alone() -> None:
    assert set(rates("layer", adapt="head")) == {"rate/head.weight"}


def test_evaluation_takes_its_own_number_of_steps() -> None:
    assert rule_of("sgd", steps=3).evaluation_steps == 3
    assert rule_of("sgd", steps=3, evaluation_steps=10).evaluation_steps == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, r"learner\.update\.steps: got -1; allowed: a whole number, at least 0"),
        ({"rate": 0.0}, r"learner\.update\.rate: got 0\.0; allowed: a number, above 0"),
        ({"rate": -1.0}, r"learner\.update\.rate: got -1\.0; allowed: a number, above 0"),
        ({"start_spread": 1.0}, r"learner\.update\.start_spread: got 1\.0; allowed: a number, at least 0 and below 1"),
        ({"rat": 0.1}, r"learner\.update\.rat: no setting is named 'rat'; did you mean 'rate'\?"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LearnerError, match=message):
        rule_of("sgd", **settings)


def test_an_unknown_granularity_is_refused() -> None:
    with pytest.raises(
        LearnerError, match=r"learner\.update\.rate: no granularity is named 'layers'; did you mean 'layer'"
    ):
        rates("layers")


@pytest.mark.parametrize("name", ["nesterov", "start_spread", "steps", "adapt"])
def test_what_is_no_real_number_is_not_learned(name: str) -> None:
    learner = {"architecture": SMOOTH, "update": {"kind": "sgd", name: {"learn": {"start": 1}}}}
    with pytest.raises(LearnerError, match=rf"learner\.update\.{name}: {name} .*; fix it or search it"):
        built(learner, SINGLE)


def test_a_wrong_setting_of_learning_is_refused() -> None:
    learner = {"architecture": SMOOTH, "update": {"kind": "sgd", "rate": {"learn": {"begin": 0.1}}}}
    with pytest.raises(LearnerError, match=r"learner\.update\.rate: no setting of a learned knob is named 'begin'"):
        built(learner, SINGLE)


def test_meta_sgd_on_quadratics_learns_one_over_the_curvature() -> None:
    """f = sum_j a_j (x_j - c_j)^2 / 2 with random c: one step from the start ends at c where rate_j = 1 / a_j."""
    curvature = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    task = TaskShape("regression", (4,), 1)
    learner = built(
        {"architecture": {"kind": "linear"}, "update": {"rate": {"learn": {"per": "parameter"}}, "steps": 1}}, task
    )
    phi, state = begun(learner)
    rows = torch.diag((2 * curvature).sqrt())  # the mean of the 4 squared errors has the gradient a_j (x_j - c_j)
    for step in range(400):
        centre = normal(4, 1, seed=step)
        episode = Episode(Support(rows, rows @ centre), rows, rows @ centre)
        gradient = learner.meta_step(phi, state, [episode], seeded(0)).gradient
        phi = {name: value - 0.2 * gradient[name] / curvature**3 for name, value in phi.items()}
    found = phi["update/rate/head.weight"].flatten()
    torch.testing.assert_close(found, 1 / curvature, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adagrad", "rmsprop", "adamw", "learned_optimizer"])
def test_a_layer_decay_scales_the_rate_of_each_layer_by_its_distance_from_the_head(kind: str) -> None:
    update = {"kind": kind, "rate": 0.2, "layer_decay": 0.5, "steps": 1}
    network = {"kind": "mlp", "hidden": [5, 4], "activation": "tanh"}
    rule = built({"architecture": network, "update": update}, SINGLE).slots.update
    assert isinstance(rule, UpdateRule)
    theta = {"layer0.weight": 0.05, "layer0.bias": 0.05, "layer1.weight": 0.1, "layer1.bias": 0.1}
    for name, rate in {**theta, "head.weight": 0.2, "head.bias": 0.2}.items():
        assert rule.rate({}, name, 0) == pytest.approx(rate, abs=0)


def test_one_step_with_a_layer_decay_is_one_step_at_the_rates_by_layer() -> None:
    network, episode = {"kind": "mlp", "hidden": [5, 4], "activation": "tanh"}, episode_of(FEW_WAYS, 1)
    moves: dict[float, Tensors] = {}
    for decay in (1.0, 0.5):
        update = {"kind": "sgd", "rate": 0.2, "layer_decay": decay, "steps": 1}
        learner = built({"initialization": {"kind": "learned"}, "architecture": network, "update": update}, FEW_WAYS)
        phi, state = begun(learner)
        theta = learner.adapt(phi, state, episode.support, seeded(3)).theta  # type: ignore[attr-defined]
        moves[decay] = {name: value - phi[f"initialization/{name}"] for name, value in theta.items()}
    for name, move in moves[1.0].items():
        share = {"layer0": 0.25, "layer1": 0.5, "head": 1.0}[name.partition(".")[0]]
        torch.testing.assert_close(moves[0.5][name], share * move, rtol=1e-12, atol=1e-15)


def test_a_rule_that_learns_every_rate_takes_no_layer_decay() -> None:
    with pytest.raises(LearnerError, match="layer_decay"):
        rule_of("meta_lstm", layer_decay=0.5)
