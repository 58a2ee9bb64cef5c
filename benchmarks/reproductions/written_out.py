"""Two protocols in plain torch, of ours only the data: what these protocols come to, whoever writes them.

Controls beside our own rows of V7 and V13, whose published gates come from one or two runs elsewhere.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.reproductions.harness import TEST_EPISODES, Row
from metaloom.workers.data.base import TaskSource
from metaloom.workers.records.results import mean_interval

Scores = tuple[float, ...]  # of each test episode


def control(claim: str, what: str, scores: Sequence[Scores], setting: str) -> Row:
    """Put the seeds of a control together."""
    values = tuple(sum(one) / len(one) for one in scores)
    _, low, high = mean_interval([score for one in scores for score in one])
    return Row(claim, f"{what}, written out in plain torch", values, (low, high), setting=setting)


def seeded(make: Callable[[], nn.Sequential], seed: int) -> nn.Sequential:
    """Make a network as torch initializes it, from a seed of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def conv4(channels: int = 64) -> nn.Sequential:
    """Return Snell's embedding."""
    blocks: list[nn.Module] = []
    for inputs in (1, channels, channels, channels):
        convolution = nn.Conv2d(inputs, channels, 3, padding=1)
        blocks += [convolution, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten())


def nearness(features: Tensor, ways: int) -> Tensor:
    """Return minus the squared distances of the queries to the supports, one a class, which stand first: [n, ways]."""
    return -(features[ways:, None] - features[None, :ways]).square().sum(2)


def prototypes(training: TaskSource, testing: TaskSource, lengths: Sequence[int], seed: int) -> dict[int, Scores]:
    """Train prototypical networks on 1-shot episodes (Snell et al., 2017, algorithm 1), Adam 1e-3.

    Returns:
        The accuracy on each test episode after so many episodes.
    """
    network = seeded(conv4, seed)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    found: dict[int, Scores] = {}
    for index in range(max(lengths)):
        episode = training.episode("train", index).episode
        order = episode.support_y.argsort()
        features = network.train()(torch.cat([episode.support_x[order], episode.query_x]))
        loss = F.cross_entropy(nearness(features, len(order)), episode.query_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if index + 1 in lengths:
            found[index + 1] = tested_prototypes(network.eval(), testing)
    return found


@torch.no_grad()
def tested_prototypes(network: nn.Module, testing: TaskSource) -> Scores:
    """Return the accuracy on each test episode."""
    scores = []
    for index in range(TEST_EPISODES):
        episode = testing.episode("test", index).episode
        order = episode.support_y.argsort()
        features = network(torch.cat([episode.support_x[order], episode.query_x]))
        right = nearness(features, len(order)).argmax(1) == episode.query_y
        scores.append(float(right.float().mean()))
    return tuple(scores)


def mlp() -> nn.Sequential:
    """Return the digits' classifier, 64-128-128-10."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


def reweighted(source: TaskSource, steps: int, seed: int, *, decay: float, rate: float = 0.05) -> Scores:
    """Learn to reweight (Ren et al., 2018, algorithm 1), and return the accuracy on each test episode."""
    network = seeded(mlp, seed)
    optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=decay)
    for index in range(steps):
        episode = source.episode("train", index).episode
        x, y = episode.support_x, episode.support_y
        weights = example_weights(network, x, y, (episode.query_x, episode.query_y), rate)
        loss = (F.cross_entropy(network(x), y, reduction="none") * weights).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    scores = []
    with torch.no_grad():
        for index in range(source.available("test") or 0):
            episode = source.episode("test", index).episode
            right = network(episode.query_x).argmax(1) == episode.query_y
            scores.append(float(right.float().mean()))
    return tuple(scores)


def example_weights(network: nn.Module, x: Tensor, y: Tensor, clean: tuple[Tensor, Tensor], rate: float) -> Tensor:
    """Return the weight of each example [n]: minus the clean loss's slope after a virtual step, rectified."""
    parameters = {name: value.detach().requires_grad_() for name, value in network.named_parameters()}
    epsilon = torch.zeros(len(x), requires_grad=True)
    losses = F.cross_entropy(functional_call(network, parameters, (x,)), y, reduction="none")
    slopes = torch.autograd.grad((epsilon * losses).sum(), list(parameters.values()), create_graph=True)
    moved = {name: value - rate * slope for (name, value), slope in zip(parameters.items(), slopes, strict=True)}
    outer = F.cross_entropy(functional_call(network, moved, (clean[0],)), clean[1])
    helps = (-torch.autograd.grad(outer, epsilon)[0]).clamp_min(0)
    return helps / helps.sum().clamp_min(torch.finfo(helps.dtype).tiny)
