"""SNAIL against whole sequences in plain torch, and what holds for it whatever the episode."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.model_based.snail import KEYS, in_sequence
from metaloom.learners.tensors import Tensors, as_leaves
from metaloom.testing.problems import SMOOTH, begun, built, central_difference, episode_of, seeded

TASK = TaskShape("classification", (6,), 3, classes=9)
WIDTH, REACH, DILATIONS = 8, 7, (2, 4, 8)


def learner_of(task: TaskShape = TASK, **settings: Any) -> Learner:
    prediction = {"kind": "snail", "width": WIDTH, "reach": REACH, **settings}
    learner = {"architecture": SMOOTH, "initialization": {"kind": "learned"}, "prediction": prediction}
    return built(learner, task, estimator="auto")


def linear(phi: Tensors, name: str, x: Tensor) -> Tensor:
    return F.linear(x, phi[f"prediction/{name}.weight"], phi.get(f"prediction/{name}.bias"))


def attention(phi: Tensors, index: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Attend causally over sequences [n, steps, d], as the paper's figure 1b."""
    keys, asked, values = (linear(phi, f"attention{index}.{name}", x) for name in ("keys", "queries", "values"))
    logits = torch.einsum("nsd,ntd->nst", asked, keys) / keys.shape[2] ** 0.5
    seen = torch.ones(x.shape[1], x.shape[1]).tril().bool()
    weights = torch.softmax(logits.masked_fill(~seen, -1e9), 2)
    return torch.cat([x, weights @ values], 2), weights


def temporal(phi: Tensors, index: int, x: Tensor) -> Tensor:
    """Convolve sequences causally by torch's own convolution; its kernel is [past, present]."""
    for dilation in DILATIONS:
        made = []
        for gate in ("filter", "gate"):
            name = f"prediction/temporal{index}.{dilation}.{gate}"
            present, past = phi[f"{name}.weight"].chunk(2, dim=1)
            padded = F.pad(x.transpose(1, 2), (dilation, 0))
            kernel = torch.stack([past, present], 2)
            made.append(F.conv1d(padded, kernel, phi[f"{name}.bias"], dilation=dilation).transpose(1, 2))
        x = torch.cat([x, torch.tanh(made[0]) * torch.sigmoid(made[1])], 2)
    return x


def plain_logits(phi: Tensors, episode: Episode) -> tuple[Tensor, Tensor]:
    """Run the whole sequence of each query: the support pairs by class, then the query without a label."""
    weight, bias = (phi[f"initialization/layer0.{name}"] for name in ("weight", "bias"))
    rows = sorted(range(6), key=lambda row: (int(episode.support_y[row]), episode.support_x[row].tolist()))
    support, queries = (torch.tanh(F.linear(x, weight, bias)) for x in (episode.support_x[rows], episode.query_x))
    labels = F.one_hot(episode.support_y[rows], 3).double()
    sequences = torch.stack(
        [
            torch.cat([torch.cat([support, labels], 1), torch.cat([query, torch.zeros(3, dtype=torch.float64)])[None]])
            for query in queries
        ]
    )
    x, weights = attention(phi, 0, sequences)
    for index in range(1, len(KEYS)):
        x, weights = attention(phi, index, temporal(phi, index - 1, x))
    by_row = torch.zeros(len(queries), 6, dtype=torch.float64)
    by_row[:, rows] = weights[:, -1, :-1].detach()
    return linear(phi, "last", x)[:, -1], by_row


def test_it_is_the_papers_written_out() -> None:
    learner, episode = learner_of(), episode_of(TASK, 0, support=6, queries=5)
    phi, state = begun(learner)
    leaves = as_leaves(phi)
    logits, weights = plain_logits(leaves, episode)
    loss = F.cross_entropy(logits, episode.query_y)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert step.loss == pytest.approx(float(loss.detach()), rel=1e-10)
    for name, slope in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        torch.testing.assert_close(step.gradient[name], slope, rtol=1e-6, atol=1e-10)
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(predicted, torch.softmax(logits, 1).detach())
    shown = learner.inspect(phi, state, episode)
    torch.testing.assert_close(shown["attention"], weights)


def test_its_gradient_is_that_of_central_differences() -> None:
    learner, episode = learner_of(), episode_of(TASK, 1, support=6, queries=4)
    phi, state = begun(learner)
    gradient = learner.meta_step(phi, state, [episode], seeded(0)).gradient
    direction = {name: torch.randn(one.shape, generator=seeded(5), dtype=one.dtype) for name, one in phi.items()}
    exact = float(sum((direction[name] * gradient[name]).sum() for name in direction))
    found = central_difference(lambda at: learner.objective(at, state, [episode], seeded(0)), phi, direction, 1e-4)
    assert exact == pytest.approx(found, rel=1e-6)


def test_order_filling_and_other_queries_play_no_part() -> None:
    learner, episode = learner_of(), episode_of(TASK, 2, support=6, queries=5)
    assert learner.setting == "inductive"
    phi, state = begun(learner)
    given = episode.support

    def predicted(support: Support, query_x: Tensor = episode.query_x) -> Tensor:
        return learner.adapt(phi, state, support, seeded(0)).predict(query_x)

    expected, order = predicted(given), torch.tensor([5, 1, 3, 0, 2, 4])
    torch.testing.assert_close(predicted(Support(given.x[order], given.y[order])), expected)
    mask = torch.tensor([True] * 3 + [False] + [True] * 3)
    x, y = (torch.cat([one[:3], one[:1], one[3:]]) for one in (given.x, given.y))
    filled = replace(episode, support=Support(x, y, mask=mask))
    torch.testing.assert_close(predicted(filled.support), expected)
    shown = learner.inspect(phi, state, filled)["attention"]
    assert not shown[:, 3].any()
    torch.testing.assert_close(shown[:, mask], learner.inspect(phi, state, episode)["attention"])
    torch.testing.assert_close(torch.cat([predicted(given, one[None]) for one in episode.query_x]), expected)


def test_the_sequence_is_by_class() -> None:
    support = Support(torch.tensor([[3.0], [1.0], [2.0], [0.0]]), torch.tensor([0, 1, 0, 1]))
    assert in_sequence(support).tolist() == [2, 0, 3, 1]


@pytest.mark.parametrize("support", [1, 5, 40])
def test_sequences_of_any_length_are_read(support: int) -> None:
    """Also those that end before the first dilation, and that are longer than the convolutions reach."""
    learner = learner_of()
    phi, state = begun(learner)
    episode = episode_of(TASK, 0, support=support, queries=4)
    predicted = learner.adapt(phi, state, episode.support, seeded(0)).predict(episode.query_x)
    torch.testing.assert_close(predicted.sum(1), torch.ones(4, dtype=torch.float64))
    assert (predicted[:, 1:].amax() == 0) == (support == 1)  # classes without an example


def test_more_classes_than_places_are_refused_and_fewer_taken() -> None:
    with pytest.raises(LearnerError, match=r"learner\.prediction\.most_ways is 2, and a task has 3 classes"):
        begun(learner_of(most_ways=2))
    shapes = [
        {name: one.shape for name, one in begun(learner_of(replace(TASK, outputs=ways), most_ways=5))[0].items()}
        for ways in (3, 5)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", ["one query", "an empty class", "duplicates"])
def test_what_is_degenerate_stays_finite(case: str, dtype: torch.dtype) -> None:
    learner, episode = learner_of(), episode_of(TASK, 0, support=6, queries=6)
    support = episode.support
    if case == "one query":
        episode = replace(episode, query_x=episode.query_x[:1], query_y=episode.query_y[:1])
    elif case == "an empty class":
        episode = replace(episode, support=replace(support, y=support.y.clamp_max(1)))
    else:
        same = support.x[:1].expand_as(support.x).clone()
        episode = replace(episode, support=replace(support, x=same), query_x=same)
    phi, state = begun(learner)
    phi, episode = {name: one.to(dtype) for name, one in phi.items()}, episode.to(torch.device("cpu"), dtype)
    step = learner.meta_step(phi, state, [episode], seeded(0))
    assert all(torch.isfinite(one).all() for one in step.gradient.values())
    assert torch.isfinite(torch.tensor(learner.evaluate(phi, state, episode, seeded(0)).losses)).all()
