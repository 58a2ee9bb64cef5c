"""The controls of M2 and M4 are our learners: the same loss and the same gradient at the same numbers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.relational_networks import Graph, Relation, Relational, Snail
from benchmarks.relational_parameters import own_name, own_parameters, own_shape
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.testing.problems import seeded

TASK = TaskShape("classification", (1, 28, 28), 5, classes=9)
CASES: dict[str, tuple[Callable[[], Relational], dict[str, Any], dict[str, Any]]] = {
    "relation by squared errors": (Relation, {"kind": "relation"}, {"halvings": 2}),
    "relation by cross entropy": (
        lambda: Relation(squared=False),
        {"kind": "relation", "objective": "cross_entropy"},
        {"halvings": 2},
    ),
    "graph": (Graph, {"kind": "graph"}, {}),
    "snail": (Snail, {"kind": "snail", "reach": 6}, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_control_is_our_learner_written_out(case: str) -> None:
    make, prediction, architecture = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make().double()
    learner = build_learner(
        learner={
            "architecture": {"kind": "conv4", "channels": 64, **architecture},
            "initialization": {"kind": "learned"},
            "prediction": prediction,
        },
        inner={"batch_norm": "frozen"},
        outer={},
        task=TASK,
    )
    x, y = torch.rand(15, 1, 28, 28, generator=seeded(1), dtype=torch.float64), torch.arange(15) % 5
    order = torch.tensor([3, 0, 4, 1, 2])
    episode = Episode(Support(x[order], y[order]), x[5:], y[5:])
    loss = network.loss(network.train()(episode), episode.query_y)
    loss.backward()
    phi = own_parameters(network)
    assert {name: one.shape for name, one in phi.items()} == {n: v.shape for n, v in learner.init(seeded(0)).items()}
    step = learner.meta_step(phi, learner.begin(phi, seeded(0)), [episode], seeded(0))
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-9)
    largest = max(float(one.abs().max()) for one in step.gradient.values())
    for name, value in network.named_parameters():
        assert value.grad is not None
        ours = own_name(network, name)
        if ours is None:
            assert float(value.grad.abs().max()) < 1e-9 * largest
        else:
            torch.testing.assert_close(step.gradient[ours], own_shape(value.grad), rtol=1e-6, atol=1e-9 * largest)
