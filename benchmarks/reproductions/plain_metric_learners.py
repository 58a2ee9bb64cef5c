"""Training and test of metric learners in plain torch, of ours only the data: the controls of M1 and M3."""

import torch

from benchmarks.metric_networks import Comparing
from benchmarks.reproductions.harness import TEST_EPISODES
from benchmarks.reproductions.written_out import Scores
from metaloom.workers.data.base import TaskSource


def trained(network: Comparing, training: TaskSource, episodes: int) -> Comparing:
    """Train a network on so many episodes, Adam 1e-3."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for index in range(episodes):
        episode = training.episode("train", index).episode
        support, queries = network.train()(episode.support_x, episode.query_x)
        loss = network.loss(support, queries, episode.support_y, episode.query_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@torch.no_grad()
def tested(network: Comparing, testing: TaskSource) -> Scores:
    """Return the accuracy on each 1-shot test episode."""
    scores = []
    for index in range(TEST_EPISODES):
        episode = testing.episode("test", index).episode
        features = network.eval()(episode.support_x, episode.query_x)
        nearest = network.scores(*features).argmax(1)
        scores.append(float((episode.support_y[nearest] == episode.query_y).double().mean()))
    return tuple(scores)
