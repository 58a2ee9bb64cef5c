"""The networks of sequences: against torch's own layers, and at second order against central differences."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaloom.learners.build import build_learner
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import ARCHITECTURES
from metaloom.learners.networks.batch_norm import EPSILON, Normalization
from metaloom.learners.networks.sequence import SequenceNetwork
from metaloom.learners.networks.text_bag import TextBag, TextBagConfig
from metaloom.learners.networks.transformer import Transformer, TransformerConfig, sinusoids
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import SERIES, TEXTS, built, double, episode_of, errors_by_slot, normal, seeded
from tests.support.registry_rows import COMPONENT_ROWS

PLAIN = TaskShape("classification", (2, 5), 3, classes=9)  # all steps are observed
SMALL = {"width": 4, "layers": 2, "heads": 2, "expansion": 2}
SETTINGS: list[tuple[TaskShape, dict[str, Any]]] = [
    (TEXTS, {"kind": "transformer", **SMALL}),
    (TEXTS, {"kind": "transformer", **SMALL, "positions": "sinusoidal", "causal": True}),
    (SERIES, {"kind": "transformer", **SMALL}),
    (TEXTS, {"kind": "text_bag", "width": 3, "hidden": 4}),
]


def transformer(task: TaskShape, **settings: Any) -> tuple[Transformer, Tensors]:
    network = Transformer(TransformerConfig(**{**SMALL, **settings}), task)
    return network, double(network.parameters(seeded(0)))


def states(network: SequenceNetwork, theta: Tensors, x: Tensor) -> Tensor:
    return network.states(theta, x, Normalization(), {})


def features(network: Any, theta: Tensors, x: Tensor) -> Tensor:
    found: Tensor = network.features(theta, x, Normalization(), {})
    return found


def torch_layer(theta: Tensors, name: str) -> nn.TransformerEncoderLayer:
    """Return torch's own layer with the parameters of a block."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    names = {"before": "norm1", "attention": "self_attn.in_proj", "joined": "self_attn.out_proj"}
    names |= {"between": "norm2", "wide": "linear1", "narrow": "linear2"}
    given = {}
    for own, theirs in names.items():
        for part in ("weight", "bias"):
            dash = "_" if theirs.endswith("in_proj") else "."
            given[f"{theirs}{dash}{part}"] = theta[f"{name}.{own}.{part}"]
    layer.double().load_state_dict(given)
    layer.norm1.eps = layer.norm2.eps = EPSILON
    return layer.train()  # eval mode may take another kernel


@pytest.mark.parametrize("causal", [False, True])
def test_a_text_is_read_as_torchs_own_layers_read_it(causal: bool) -> None:
    network, theta = transformer(TEXTS, causal=causal)
    x = torch.tensor([[2, 3, 1, 4, 0], [4, 4, 0, 0, 0], [1, 2, 3, 4, 2]]).double()
    hidden = 2.0 * (theta["tokens.weight"][x.long()] + theta["positions.weight"])  # sqrt(width) = 2
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64) if causal else None
    padding = torch.where(x == 0, -torch.inf, 0.0).double()
    for index in range(2):
        hidden = torch_layer(theta, f"block{index}")(hidden, src_mask=mask, src_key_padding_mask=padding)
    last = nn.functional.layer_norm(hidden, (4,), theta["last.weight"], theta["last.bias"], EPSILON)
    there = x != 0
    torch.testing.assert_close(states(network, theta, x)[there], last[there])
    expected = torch.stack([one[own].mean(0) for one, own in zip(last, there, strict=True)])
    torch.testing.assert_close(features(network, theta, x), expected)


def test_a_series_is_read_as_torchs_own_layers_read_it() -> None:
    network, theta = transformer(PLAIN, positions="sinusoidal")
    x = normal(3, 2, 5, seed=1)
    hidden = x.transpose(1, 2) @ theta["steps.weight"].T + theta["steps.bias"] + sinusoids(5, 4)
    for index in range(2):
        hidden = torch_layer(theta, f"block{index}")(hidden)
    last = nn.functional.layer_norm(hidden, (4,), theta["last.weight"], theta["last.bias"], EPSILON)
    torch.testing.assert_close(features(network, theta, x), last.mean(1))


def test_numbers_in_a_row_are_a_series_of_one_channel() -> None:
    flat, theta = transformer(replace(PLAIN, inputs=(5,)))
    channel, _ = transformer(replace(PLAIN, inputs=(1, 5)))
    x = normal(3, 5, seed=1)
    torch.testing.assert_close(features(flat, theta, x), features(channel, theta, x.unsqueeze(1)))


def test_steps_that_were_not_observed_change_nothing() -> None:
    network, theta = transformer(SERIES)
    x, other = normal(3, 3, 7, seed=1), normal(3, 2, 7, seed=2)
    seen = x[:, 2:] > 0.5
    changed = torch.cat([torch.where(seen, x[:, :2], other), x[:, 2:]], 1)
    assert not torch.equal(changed, x)
    torch.testing.assert_close(features(network, theta, changed), features(network, theta, x))


def test_what_fills_up_a_text_changes_nothing() -> None:
    network, theta = transformer(TEXTS)
    shorter, _ = transformer(replace(TEXTS, inputs=(3,)))
    own = theta | {"positions.weight": theta["positions.weight"][:3]}
    x = torch.tensor([[2.0, 3.0, 1.0], [4.0, 2.0, 2.0]], dtype=torch.float64)
    filled = torch.cat([x, torch.zeros(2, 2)], -1)
    torch.testing.assert_close(features(network, theta, filled), features(shorter, own, x))


def test_a_causal_state_does_not_see_what_follows() -> None:
    x = torch.tensor([[2.0, 3.0, 1.0, 4.0, 2.0]], dtype=torch.float64)
    other = x.clone()
    other[0, 3:] = torch.tensor([2.0, 3.0])
    for causal in (True, False):
        network, theta = transformer(TEXTS, causal=causal)
        unmoved = [torch.equal(states(network, theta, x)[0, at], states(network, theta, other)[0, at]) for at in (0, 2)]
        assert unmoved == [causal, causal]
    network, theta = transformer(TEXTS, causal=True)
    shares = network.attention(theta, x)
    assert shares.shape == (1, 2, 5, 5) and shares.triu(1).eq(0).all()
    torch.testing.assert_close(shares.sum(-1), torch.ones(1, 2, 5, dtype=torch.float64))


def test_an_empty_text_has_features_and_slopes_that_are_finite() -> None:
    network, theta = transformer(TEXTS)
    leaves = {name: value.requires_grad_() for name, value in theta.items()}
    found = features(network, leaves, torch.zeros(2, 5, dtype=torch.float64))
    assert found.eq(0).all()
    slopes = torch.autograd.grad(found.sum(), list(leaves.values()), allow_unused=True)
    assert all(slope.isfinite().all() for slope in slopes if slope is not None)


STEP = 1e-6  # of the central differences: a norm over four numbers bends sharply


TRACED = ("traced", TEXTS, {"kind": "transformer", **SMALL, "layers": 1, "causal": True})


@pytest.mark.parametrize(
    ("strategy", "task", "architecture"), [*((how, *one) for how in ("loop", "vmap") for one in SETTINGS), TRACED]
)
def test_the_hypergradient_of_maml_is_that_of_central_differences(
    strategy: str, task: TaskShape, architecture: Any
) -> None:
    settings = {"architecture": architecture, "initialization": {"kind": "learned"}, "update": {"steps": 2}}
    learner = built(settings, task, strategy=strategy)
    assert errors_by_slot(learner, [episode_of(task, 1)] * 2, length=STEP, directions=1)["initialization"] < 1e-6


@pytest.mark.parametrize(("task", "architecture"), SETTINGS)
def test_forward_mode_gives_the_hypergradient_of_a_learned_rate(task: TaskShape, architecture: Any) -> None:
    rate = {"learn": {"start": 0.1}}
    settings = {
        "architecture": architecture,
        "initialization": {"kind": "random"},
        "update": {"steps": 2, "rate": rate},
    }
    learner = built(settings, task, estimator="forward")
    assert errors_by_slot(learner, [episode_of(task, 1)], length=STEP)["update"] < 1e-6


def test_the_first_layers_are_the_embedding_and_the_blocks() -> None:
    network, theta = transformer(TEXTS)
    taken = network.starting_at(network.parameters(seeded(5)), layers=2, freeze=True)
    names = {name for name in theta if name.startswith(("tokens.", "positions.", "block0."))}
    assert taken.held == names and set(taken.given or {}) == names
    whole = network.starting_at(network.parameters(seeded(5)), layers=3).given or {}
    assert set(whole) == {name for name in theta if not name.startswith("head.")}


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(LearnerError, match=r"architecture\.heads: 3 heads do not divide a width of 4; give 1"):
        transformer(TEXTS, heads=3)
    with pytest.raises(LearnerError, match=r"transformer reads text \[length\] or series .*\(1, 8, 8\); use conv4"):
        transformer(replace(PLAIN, inputs=(1, 8, 8)))
    with pytest.raises(LearnerError, match=r"text_bag reads text, but .* shape \(2, 5\).*tasks\.source: text"):
        TextBag(TextBagConfig(), PLAIN)


@pytest.mark.parametrize("kind", [kind for kind, one in ARCHITECTURES.items() if not getattr(one, "takes_text", False)])
def test_a_network_of_quantities_refuses_token_numbers(kind: str) -> None:
    settings = {"kind": kind, **COMPONENT_ROWS["architecture", kind].settings}
    refused = rf"{kind} reads quantities, .* token numbers of texts; use .*transformer|cells read images"
    with pytest.raises(LearnerError, match=refused):
        build_learner(learner={"architecture": settings}, inner={}, outer={}, task=TEXTS, trust_code=True)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        ({"prediction": {"kind": "easy", "crops": 0}}, "easy mixes and turns examples"),
        ({"data": {"kind": "distilled"}}, r"learner\.data: learned examples are quantities.*use core_set"),
        ({"architecture": {"kind": "ensemble", "member": {"kind": "mlp"}}}, "mlp reads quantities"),
    ],
)
def test_what_would_change_token_numbers_is_refused(learner: dict[str, Any], message: str) -> None:
    task = replace(TEXTS, single_task=True, counts=(5, 3, 4))
    with pytest.raises(LearnerError, match=message):
        build_learner(learner={"architecture": SETTINGS[0][1], **learner}, inner={}, outer={}, task=task)


@pytest.mark.parametrize("kind", [name for name, solver in SOLVERS.items() if solver.needs_whole])
def test_token_numbers_are_not_compared_as_quantities(kind: str) -> None:
    with pytest.raises(LearnerError, match=rf"{kind} compares examples number by number, .* token numbers of texts"):
        build_learner(learner={"prediction": {"kind": kind}}, inner={}, outer={}, task=TEXTS)


def test_the_bag_is_blind_to_the_order_of_words() -> None:
    network = TextBag(TextBagConfig(width=3, hidden=4), TEXTS)
    theta = double(network.parameters(seeded(0)))
    x = torch.tensor([[2.0, 3.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    mean = (theta["tokens.weight"][2] + 2 * theta["tokens.weight"][3]) / 3
    expected = torch.tanh(mean @ theta["hidden.weight"].T + theta["hidden.bias"])
    for order in (x, x[:, [1, 0, 2, 4, 3]]):
        torch.testing.assert_close(features(network, theta, order)[0], expected)


def test_a_transformer_learns_by_metric_learners_too() -> None:
    settings = {"architecture": SETTINGS[0][1], "prediction": {"kind": "prototypes"}}
    learner = build_learner(learner={**settings, "initialization": {"kind": "learned"}}, inner={}, outer={}, task=TEXTS)
    assert errors_by_slot(learner, [episode_of(TEXTS, 1)], length=STEP)["initialization"] < 1e-6
