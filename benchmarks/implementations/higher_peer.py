"""higher 0.2.1: Grefenstette et al., 2019, https://github.com/facebookresearch/higher."""

from collections.abc import Sequence

import higher
import torch

from benchmarks.bilevel import PHI, Bilevel
from benchmarks.implementations import Run, Step
from benchmarks.implementations.bilevel_plain import by_phi, leaves_of, network_of
from benchmarks.networks import batch_norm
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.episode import Episode


def prepare(workload: Workload, parameters: Parameters, episodes: Sequence[Episode]) -> Run | None:
    """Follow its own MAML example: ``innerloop_ctx`` per task, gradients gathered by ``backward``."""
    if workload.method == "prototypical":
        return None
    model = workload.network(batch_norm).to(next(iter(parameters.values())))
    model.load_state_dict(parameters)
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.rate)
    second_order = workload.method == "maml"

    def task(episode: Episode) -> float:
        context = higher.innerloop_ctx(model, optimizer, copy_initial_weights=False, track_higher_grads=second_order)
        with context as (adapted, inner):
            for _ in range(workload.steps):
                inner.step(workload.loss(adapted(episode.support_x), episode.support_y))
            loss = workload.loss(adapted(episode.query_x), episode.query_y)
            if second_order:
                (loss / len(episodes)).backward()
            else:  # without higher gradients, the end's own gradient is the first-order one
                ends = torch.autograd.grad(loss / len(episodes), list(adapted.parameters()))
                for parameter, end in zip(model.parameters(), ends, strict=True):
                    parameter.grad = end if parameter.grad is None else parameter.grad + end
        return loss.item()

    def run() -> Step:
        model.zero_grad(set_to_none=True)
        total = sum(task(episode) for episode in episodes) / len(episodes)
        return Step(total, {name: p.grad for name, p in model.named_parameters() if p.grad is not None})

    return run


def prepare_bilevel(workload: Bilevel, parameters: Parameters, episodes: Sequence[Episode]) -> Run:
    """Do the same with the gradient by phi alone."""
    model, phi = network_of(workload, parameters), leaves_of(parameters, PHI)
    optimizer = torch.optim.SGD(model.parameters(), lr=workload.rate)
    (episode,) = episodes

    def run() -> Step:
        with higher.innerloop_ctx(model, optimizer) as (adapted, inner):
            for _ in range(workload.steps):
                inner.step(workload.inner(adapted, phi, episode))
            outer = workload.outer(adapted, phi, episode)
            return Step(outer.item(), by_phi(outer, phi))

    return run
