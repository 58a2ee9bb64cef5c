"""Graph networks against plain torch, with examples without labels, and what holds for them whatever the episode."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.tensors import Tensors, as_leaves
from metaloom.testing.problems import SMOOTH, begun, built, central_difference, episode_of, normal, seeded

TASK = TaskShape("classification", (6,), 3, classes=9)
WIDTH, BLOCKS = 6, 3


def learner_of(batch_norm: str = "batch", task: TaskShape = TASK, **settings: Any) -> Learner:
    prediction = {"kind": "graph", "width": WIDTH, "blocks": BLOCKS, **settings}
    learner = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "prediction": prediction}
    return built(learner, task, estimator="auto", inner={"batch_norm": batch_norm})


def episode_with(unlabelled: int, seed: int = 0, queries: int = 4) -> Episode:
    episode = episode_of(TASK, seed, support=6, queries=queries)
    if not unlabelled:
        return episode
    return replace(episode, support=replace(episode.support, unlabelled=normal(unlabelled, 6, seed=seed + 50)))


def plain_norm(x: Tensor, phi: Tensors, name: str) -> Tensor:
    """Normalize [graphs, anything, channels] over all but the channels."""
    flat = x.reshape(-1, x.shape[-1])
    made = F.batch_norm(flat, None, None, phi[f"{name}.weight"], phi[f"{name}.bias"], training=True)
    return F.leaky_relu(made).view_as(x)


def plain_edges(phi: Tensors, block: int, x: Tensor) -> Tensor:
    """Compare every node with every other, both ways round."""
    count, name = x.shape[1], f"prediction/block{block}"
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    made = torch.stack([(x[:, i] - x[:, j]).abs() for i, j in pairs], 1)
    for layer in range(4):
        made = plain_norm(made @ phi[f"{name}.edge{layer}.weight"].T, phi, f"{name}.norm{layer}")
    scores = torch.full((len(x), count, count), -1e8, dtype=x.dtype)
    for place, (i, j) in enumerate(pairs):
        scores[:, i, j] = (made[:, place] @ phi[f"{name}.edge.weight"].T)[:, 0]
    return torch.softmax(scores, 2)


def plain_logits(phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
    """Build the graph of each query, as the reference does, and pass messages over it."""
    given = episode.support
    others = given.x[:0] if given.unlabelled is None else given.unlabelled
    weight, bias = (phi[f"initialization/layer0.{name}"] for name in ("weight", "bias"))
    known, free, asked = (torch.tanh(F.linear(x, weight, bias)) for x in (given.x, others, episode.query_x))
    blank = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    graphs = []
    for query in asked:
        nodes = [torch.cat([one, F.one_hot(label, 3).double()]) for one, label in zip(known, given.y, strict=True)]
        nodes += [torch.cat([one, blank[0]]) for one in [*free, query]]
        graphs.append(torch.stack(nodes))
    x = torch.stack(graphs)
    for block in range(BLOCKS):
        edges = plain_edges(phi, block, x)
        both = torch.cat([x, edges @ x], 2)
        if block + 1 < BLOCKS:
            name = f"prediction/block{block}"
            x = torch.cat([x, plain_norm(both @ phi[f"{name}.node.weight"].T, phi, f"{name}.norm")], 2)
    return F.linear(both, phi["prediction/last.weight"], phi["prediction/last.bias"])[:, -1], edges


@pytest.mark.parametrize("unlabelled", [0, 3])
def test_it_is_the_papers_written_out(unlabelled: int) -> None:
    learner, episode = learner_of(), episode_with(unlabelled)
    phi, state = begun(learner)
    leaves = as_leaves(phi)
    logits, edges = plain_logits(leaves, episode)
    loss = F.cross_entropy(logits, episode.query_y)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-9)
    for (name, leaf), slope in zip(leaves.items(), torch.autograd.grad(loss, list(leaves.values())), strict=True):
        torch.testing.assert_close(step.gradient[name], slope, rtol=1e-6, atol=1e-8)
        assert leaf.shape == slope.shape
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(predicted, torch.softmax(logits, 1).detach(), rtol=1e-8, atol=1e-10)
    shown = learner.inspect(phi, state, episode)["adjacency"]
    assert shown.shape == (BLOCKS, 7 + unlabelled, 7 + unlabelled)
    torch.testing.assert_close(shown[-1], edges[0].detach(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("unlabelled", [0, 3])
def test_its_gradient_is_that_of_central_differences(unlabelled: int) -> None:
    """With smooth functions; |x_i - x_j| and leaky ReLU have kinks, which a difference may cross."""
    learner = learner_of(activation="tanh", distance="squared")
    episode, (phi, state) = episode_with(unlabelled, 1), begun(learner)
    gradient = learner.meta_step(phi, state, [episode], seeded(0)).gradient
    direction = {name: torch.randn(one.shape, generator=seeded(5), dtype=one.dtype) for name, one in phi.items()}
    exact = float(sum((direction[name] * gradient[name]).sum() for name in direction))
    found = central_difference(lambda at: learner.objective(at, state, [episode], seeded(0)), phi, direction, 1e-4)
    assert exact == pytest.approx(found, rel=1e-6)


@pytest.mark.parametrize("batch_norm", ["frozen", "support"])
def test_order_filling_and_other_queries_play_no_part(batch_norm: str) -> None:
    learner, episode = learner_of(batch_norm, replace(TASK, unlabelled=True)), episode_with(4, 2)
    assert learner.setting == "semi-supervised"
    phi, state = begun(learner)
    state = learner.meta_step(phi, state, [episode], seeded(0)).after(state)
    given = episode.support

    def predicted(support: Support, query_x: Tensor = episode.query_x) -> Tensor:
        return learner.adapt(phi, state, support, seeded(0)).predict(query_x)

    expected, close = predicted(given), {"rtol": 1e-9, "atol": 1e-11}
    order, others = torch.tensor([5, 1, 3, 0, 2, 4]), torch.tensor([3, 0, 2, 1])
    shuffled = Support(given.x[order], given.y[order], unlabelled=given.unlabelled[others])
    torch.testing.assert_close(predicted(shuffled), expected, **close)
    mask = torch.tensor([False] + [True] * 6)
    filled = replace(given, x=torch.cat([50 * given.x[:1], given.x]), y=torch.cat([given.y[1:2], given.y]), mask=mask)
    torch.testing.assert_close(predicted(filled), expected, **close)
    torch.testing.assert_close(torch.cat([predicted(given, one[None]) for one in episode.query_x]), expected, **close)


def test_unlabelled_examples_change_what_is_predicted() -> None:
    learner, episode = learner_of("support"), episode_with(4)
    phi, state = begun(learner)
    supports = (episode.support, replace(episode.support, unlabelled=None))
    with_them, without = (learner.adapt(phi, state, one, seeded(0)).predict(episode.query_x) for one in supports)
    assert float((with_them - without).abs().max()) > 1e-4
    assert learner.setting == "inductive"  # its episodes have none


def test_fewer_classes_than_places_leave_the_others_at_zero() -> None:
    learner = learner_of("support", most_ways=5)
    phi, state = begun(learner)
    assert phi["prediction/last.weight"].shape[0] == 5
    episode = episode_with(2)
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    assert predicted.shape == (4, 3)
    torch.testing.assert_close(predicted.sum(1), torch.ones(4, dtype=torch.float64))
    two = replace(episode.support, x=episode.support.x[:2], y=episode.support.y[:2])  # of classes 0 and 1 alone
    assert not learner.adapt(phi, state, two, seeded(0)).predict(episode.query_x)[:, 2].any()
    wider = learner_of("support", replace(TASK, outputs=5), most_ways=5)
    assert {name: one.shape for name, one in begun(wider)[0].items()} == {name: one.shape for name, one in phi.items()}


def test_more_classes_than_places_are_refused() -> None:
    with pytest.raises(LearnerError, match=r"learner\.prediction\.most_ways is 2, and a task has 3 classes"):
        begun(learner_of(most_ways=2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["one query", "an empty class", "duplicates", "one example"])
def test_what_is_degenerate_stays_finite(case: str, dtype: torch.dtype) -> None:
    learner, episode = learner_of(), episode_with(2, queries=6)
    support = episode.support
    if case == "one query":
        episode = replace(episode, query_x=episode.query_x[:1], query_y=episode.query_y[:1])
    elif case == "an empty class":
        episode = replace(episode, support=replace(support, y=support.y.clamp_max(1)))
    elif case == "one example":
        episode = replace(episode, support=Support(support.x[:1], support.y[:1]))
    else:
        same = support.x[:1].expand_as(support.x).clone()
        episode = replace(episode, support=replace(support, x=same, unlabelled=same[:2]), query_x=same)
    phi, state = begun(learner)
    phi, episode = {name: one.to(dtype) for name, one in phi.items()}, episode.to(torch.device("cpu"), dtype)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert all(torch.isfinite(one).all() for one in step.gradient.values())
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(predicted.sum(1), torch.ones(len(predicted), dtype=dtype))
