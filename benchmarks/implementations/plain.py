"""The loop that everybody writes, and that learn2learn's MAML is inside: one task after another, autograd."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.implementations import Run, Step
from benchmarks.networks import batch_norm
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.episode import Episode


def prototypical_loss(model: nn.Module, theta: Parameters, episode: Episode, *, separate: bool) -> Tensor:
    """Return Snell et al.'s loss.

    Args:
        model: The embedding.
        theta: Its parameters.
        episode: The task.
        separate: Embed support and query in two passes, each with its own batch statistics, as
            parallel-metalearn does; together in one, as the paper's code does, otherwise.
    """
    if separate:
        support = functional_call(model, theta, (episode.support_x,))
        queries = functional_call(model, theta, (episode.query_x,))
    else:
        features = functional_call(model, theta, (torch.cat([episode.support_x, episode.query_x]),))
        support, queries = features.split([len(episode.support_x), len(episode.query_x)])
    ways = int(episode.support_y.max()) + 1
    prototypes = support.reshape(ways, -1, support.shape[-1]).mean(1)
    distance = queries.unsqueeze(1).sub(prototypes).square().sum(-1)  # [queries, ways]
    return F.cross_entropy(-distance, episode.query_y)


def adapted_loss(model: nn.Module, theta: Parameters, episode: Episode, workload: Workload) -> Tensor:
    """Take the inner steps and return the query loss."""
    second_order = workload.method == "maml"
    for _ in range(workload.steps):
        loss = workload.loss(functional_call(model, theta, (episode.support_x,)), episode.support_y)
        slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=second_order)
        theta = {n: p - workload.rate * g for (n, p), g in zip(theta.items(), slopes, strict=True)}
    return workload.loss(functional_call(model, theta, (episode.query_x,)), episode.query_y)


def prepare(workload: Workload, parameters: Parameters, episodes: Sequence[Episode], *, separate: bool = False) -> Run:
    """Accumulate the gradient task by task."""
    model = workload.network(batch_norm).to(next(iter(parameters.values())))
    leaves = {name: value.clone().requires_grad_() for name, value in parameters.items()}

    def run() -> Step:
        total = 0.0
        for leaf in leaves.values():
            leaf.grad = None
        for episode in episodes:
            if workload.method == "prototypical":
                loss = prototypical_loss(model, leaves, episode, separate=separate)
            else:
                loss = adapted_loss(model, leaves, episode, workload)
            (loss / len(episodes)).backward()
            total += loss.item() / len(episodes)
        return Step(total, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})

    return run
