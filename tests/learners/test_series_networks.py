"""Networks that read series: against torch's own, against convolutions written out, padded, and to second order."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaloom.learners.build import SLOTS, make_component
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import EPSILON, Normalization
from metaloom.learners.networks.series.observed import masked_statistics
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import FEW_WAYS, SERIES, begun, built, double, episode_of, errors_by_slot, normal, seeded

KINDS: dict[str, dict[str, Any]] = {
    "gru": {"kind": "gru", "width": 4, "layers": 2},
    "lstm": {"kind": "lstm", "width": 4, "layers": 2, "read": "states"},
    "mean": {"kind": "gru", "width": 4, "read": "mean"},
    "conv1d": {"kind": "conv1d", "channels": 4, "blocks": 2, "lengths": [1, 2, 5], "residual": True},
}
WHOLE = replace(SERIES, inputs=(2, 7), observed=False)


def network_of(settings: Mapping[str, Any], task: TaskShape) -> tuple[Network, Tensors]:
    network = make_component(SLOTS["architecture"], settings, task)
    assert isinstance(network, Network)
    return network, double(network.parameters(seeded(0)))


def features(settings: Mapping[str, Any], task: TaskShape, x: Tensor) -> Tensor:
    network, theta = network_of(settings, task)
    return network.features(theta, x, Normalization(), {})


def with_observed(x: Tensor, observed: Tensor) -> Tensor:
    """Put what was observed [n, length] beside series [n, channels, length], which are 0 elsewhere."""
    return torch.cat([x * observed[:, None], observed[:, None]], 1)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_a_recurrent_network_is_torchs_own(kind: str) -> None:
    x = normal(5, 2, 7, seed=1)
    network, theta = network_of({"kind": kind, "width": 4, "layers": 2, "read": "states"}, WHOLE)
    peer = (nn.GRU if kind == "gru" else nn.LSTM)(2, 4, num_layers=2, batch_first=True).double()
    own = {}
    for layer in range(2):
        for place in ("input", "hidden"):
            for part in ("weight", "bias"):
                gates = theta[f"layer{layer}.{place}.{part}"].split(4)
                order = gates if kind == "gru" else [gates[at] for at in (0, 1, 3, 2)]  # torch's are i, f, g, o
                own[f"{part}_{place[0]}h_l{layer}"] = torch.cat(list(order))
    peer.load_state_dict(own)
    hidden, last = peer(x.transpose(1, 2))
    states = (last if kind == "gru" else last[0]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(network.features(theta, x, Normalization(), {}), states, rtol=1e-12, atol=1e-12)
    for read, wanted in (("last", hidden[:, -1]), ("mean", hidden.mean(1))):
        found = features({"kind": kind, "width": 4, "layers": 2, "read": read}, WHOLE, x)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_filters_of_several_lengths_are_convolutions_side_by_side() -> None:
    settings = {"kind": "conv1d", "channels": 4, "blocks": 1, "lengths": [2, 5]}
    x, (network, theta) = normal(3, 2, 7, seed=1), network_of(settings, WHOLE)
    made = torch.zeros(3, 8, 7, dtype=torch.float64)
    for first, length in ((0, 2), (4, 5)):
        kernel = theta[f"conv0.{length}.weight"]
        for step in range(7):
            for place in range(length):
                at = step + place - (length - 1) // 2
                if 0 <= at < 7:
                    made[:, first : first + 4, step] += x[:, :, at] @ kernel[:, :, place].T
    var, mean = torch.var_mean(made, (0, 2), correction=0)
    normed = (made - mean[:, None]) / (var[:, None] + EPSILON).sqrt()
    torch.testing.assert_close(network.features(theta, x, Normalization(), {}), normed.relu().mean(-1))


@pytest.mark.parametrize("name", KINDS)
def test_padding_changes_no_feature(name: str) -> None:
    x = normal(5, 2, 7, seed=2)
    longer = replace(SERIES, inputs=(3, 11))
    padded = with_observed(torch.cat([x, normal(5, 2, 4, seed=3)], -1), (torch.arange(11) < 7).double().expand(5, 11))
    whole = features(KINDS[name], WHOLE, x)
    torch.testing.assert_close(features(KINDS[name], longer, padded), whole, rtol=1e-10, atol=1e-12)
    everywhere = with_observed(x, torch.ones(5, 7, dtype=torch.float64))
    torch.testing.assert_close(features(KINDS[name], SERIES, everywhere), whole, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["gru", "lstm", "mean"])
def test_a_recurrent_network_passes_over_a_gap(name: str) -> None:
    x, observed = normal(4, 2, 7, seed=2), torch.ones(4, 7, dtype=torch.float64)
    observed[:, [2, 3, 6]] = 0
    shorter = replace(WHOLE, inputs=(2, 4))
    whole = features(KINDS[name], shorter, x[:, :, [0, 1, 4, 5]])
    torch.testing.assert_close(features(KINDS[name], SERIES, with_observed(x, observed)), whole)


def test_batch_norm_counts_the_observed_steps_alone() -> None:
    x, observed = normal(6, 3, 5, seed=4), normal(6, 5, seed=5) > 0
    seen = x.transpose(1, 2)[observed]
    mean, var = masked_statistics(x, observed)
    torch.testing.assert_close(mean, seen.mean(0))
    torch.testing.assert_close(var, seen.var(0, correction=0))
    nothing = masked_statistics(x, torch.zeros(6, 5, dtype=torch.bool))
    assert all(torch.equal(one, torch.zeros(3, dtype=torch.float64)) for one in nothing)


def learned(name: str) -> dict[str, Any]:
    rate = {"learn": {"per": "parameter", "start": 0.2}}
    return {
        "architecture": KINDS[name],
        "initialization": {"kind": "learned"},
        "update": {"kind": "sgd", "rate": rate, "steps": 2},
    }


@pytest.mark.parametrize("task", [WHOLE, SERIES], ids=["whole", "observed"])
@pytest.mark.parametrize("name", KINDS)
def test_maml_through_a_network_of_series_agrees_with_central_differences(name: str, task: TaskShape) -> None:
    kinks = name == "conv1d"
    episodes = [episode_of(task, 1)]
    errors = errors_by_slot(built(learned(name), task), episodes, length=1e-8 if kinks else 1e-4, directions=1)
    assert set(errors) == {"initialization", "update"}
    assert max(errors.values()) < (1e-5 if kinks else 1e-7), errors


@pytest.mark.parametrize("batch_norm", ["support", "frozen", "per_step"])
def test_masked_batch_norm_is_right_in_every_mode(batch_norm: str) -> None:
    learner = built(learned("conv1d"), SERIES, inner={"batch_norm": batch_norm})
    errors = errors_by_slot(learner, [episode_of(SERIES, 1)], length=1e-8, directions=1)
    assert max(errors.values()) < 1e-5, errors


STRATEGIES = [*((name, "vmap") for name in KINDS), *((name, "forward") for name in KINDS), ("mean", "traced")]


@pytest.mark.parametrize(("name", "other"), STRATEGIES)
def test_every_strategy_gives_the_gradient_of_the_loop(name: str, other: str) -> None:
    task = replace(SERIES, inputs=(3, 4))
    forward = other == "forward"
    settings = learned(name)
    if forward:  # whose cost grows with what is learned
        settings["update"]["rate"] = {"learn": {"per": "scalar", "start": 0.2}}
        settings["initialization"] = {"kind": "random"}
    found = []
    for strategy, estimator in (("loop", "unroll"), ("loop", "forward") if forward else (other, "unroll")):
        learner = built(settings, task, estimator=estimator, strategy=strategy)
        phi, state = begun(learner)
        found.append(learner.meta_step(phi, state, [episode_of(task, seed) for seed in (1, 2)], seeded(0)).gradient)
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", KINDS)
def test_a_network_of_series_refuses_other_examples(name: str) -> None:
    with pytest.raises(LearnerError, match=r"reads series \[channels, length\], .* shape \(6,\); use mlp"):
        network_of(KINDS[name], FEW_WAYS)


def test_lengths_are_given_once() -> None:
    with pytest.raises(LearnerError, match=r"architecture.lengths: got \[3, 3\]; give one or more numbers, each once"):
        network_of({"kind": "conv1d", "lengths": [3, 3]}, SERIES)
