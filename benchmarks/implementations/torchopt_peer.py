"""torchopt 0.7.3: Ren et al., 2022, https://github.com/metaopt/torchopt."""

from collections.abc import Sequence

import torchopt

from benchmarks.bilevel import PHI, Bilevel
from benchmarks.implementations import Run, Step
from benchmarks.implementations.bilevel_plain import by_phi, leaves_of, network_of
from benchmarks.networks import batch_norm
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.episode import Episode


def prepare(workload: Workload, parameters: Parameters, episodes: Sequence[Episode]) -> Run | None:
    """Follow its own MAML example: ``MetaSGD``, the start's state recovered after each task.

    Its meta-optimizers always keep the graph, so it offers no first-order MAML.
    """
    if workload.method != "maml":
        return None
    model = workload.network(batch_norm).to(next(iter(parameters.values())))
    model.load_state_dict(parameters)
    leaves = dict(model.named_parameters())
    inner = torchopt.MetaSGD(model, lr=workload.rate)
    start = torchopt.extract_state_dict(model, by="reference")
    inner_start = torchopt.extract_state_dict(inner, by="reference")

    def task(episode: Episode) -> float:
        for _ in range(workload.steps):
            inner.step(workload.loss(model(episode.support_x), episode.support_y))
        loss = workload.loss(model(episode.query_x), episode.query_y)
        (loss / len(episodes)).backward()
        torchopt.recover_state_dict(model, start)
        torchopt.recover_state_dict(inner, inner_start)
        return loss.item()

    def run() -> Step:
        for leaf in leaves.values():
            leaf.grad = None
        total = sum(task(episode) for episode in episodes) / len(episodes)
        return Step(total, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})

    return run


def prepare_bilevel(workload: Bilevel, parameters: Parameters, episodes: Sequence[Episode]) -> Run:
    """Do the same with the gradient by phi alone."""
    model, phi = network_of(workload, parameters), leaves_of(parameters, PHI)
    inner = torchopt.MetaSGD(model, lr=workload.rate)
    start = torchopt.extract_state_dict(model, by="reference")
    inner_start = torchopt.extract_state_dict(inner, by="reference")
    (episode,) = episodes

    def run() -> Step:
        for _ in range(workload.steps):
            inner.step(workload.inner(model, phi, episode))
        outer = workload.outer(model, phi, episode)
        step = Step(outer.item(), by_phi(outer, phi))
        torchopt.recover_state_dict(model, start)
        torchopt.recover_state_dict(inner, inner_start)
        return step

    return run
