"""The plain memory-augmented network of the benchmarks is ours, in torch's own modules."""

import pytest
import torch
from torch import nn

from benchmarks.memory_network import MemoryNetwork, loss_of, times
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.tensors import Tensors

SIZES = {"width": 7, "slots": 8, "slot_width": 5, "heads": 2}
INPUTS, WAYS, STEPS = 6, 3, 12


def as_ours(network: MemoryNetwork) -> Tensors:
    """Return the plain network's weights under our names."""
    cell, width = network.controller, SIZES["width"]
    assert isinstance(cell, nn.LSTMCell)
    inputs, recurrent = cell.weight_ih.T, cell.weight_hh.T
    phi = {
        "inputs.weight": inputs[: INPUTS + WAYS],
        "inputs.bias": cell.bias_ih + cell.bias_hh,
        "recurrent.weight": torch.cat([recurrent, inputs[INPUTS + WAYS :]]),
        "heads.weight": torch.cat([network.keys.weight, network.gates.weight]).T,
        "heads.bias": torch.cat([network.keys.bias, network.gates.bias]),
        "outputs.weight": network.answer.weight.T,
        "outputs.bias": network.answer.bias,
    }
    assert width == cell.hidden_size
    return {f"prediction/{name}": value.detach().clone() for name, value in phi.items()}


def test_the_plain_network_computes_what_ours_does() -> None:
    torch.manual_seed(0)
    network = MemoryNetwork(INPUTS, WAYS, **SIZES).double()
    learner = build_learner(
        learner={"prediction": {"kind": "mann", **SIZES}},
        inner={},
        outer={"hypergradient": "auto"},
        task=TaskShape("sequence", (INPUTS,), WAYS, classes=9),
    )
    x, y = torch.randn(2, STEPS, INPUTS).double(), torch.arange(STEPS).remainder(WAYS).expand(2, -1)
    episodes = [Episode(Support(one[:0], labels[:0]), one, labels) for one, labels in zip(x, y, strict=True)]
    phi = as_ours(network)
    step = learner.meta_step(phi, learner.begin(phi, torch.Generator()), episodes, torch.Generator())
    loss = loss_of(network, x, y)
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-6)
    slope = torch.autograd.grad(loss, list(network.parameters()))
    named = dict(zip((name for name, _ in network.named_parameters()), slope, strict=True))
    pairs = {
        "inputs.bias": named["controller.bias_ih"],
        "inputs.weight": named["controller.weight_ih"].T[: INPUTS + WAYS],
        "heads.weight": torch.cat([named["keys.weight"], named["gates.weight"]]).T,
        "outputs.weight": named["answer.weight"].T,
    }
    for name, value in pairs.items():
        torch.testing.assert_close(step.gradient[f"prediction/{name}"], value, rtol=1e-6, atol=1e-10)


def test_times_are_taken_of_all_three() -> None:
    taken = times(episodes=16)
    assert set(taken) == {"ours", "plain", "lstm"} and min(taken.values()) > 0
