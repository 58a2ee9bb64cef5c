"""Metric learners by our engine, and by the loop that everybody writes: torch's modules, autograd.

easyfsl 1.5.0 has matching networks too, and is no peer here: it needs torchvision, which does not install beside a CPU
build of torch. Its network is another one as well: a query is not normalized, so that it is compared by no cosine.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.implementations import Run, Step
from benchmarks.metric_networks import Comparing
from benchmarks.networks import batch_norm
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.base import METHODS
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, TaskShape

BODY = "embedding."
LSTMS = {"context.{}_l0": "forward", "context.{}_l0_reverse": "backward", "reader.{}": "reader"}  # torch's to ours
KINDS = {"weight_ih": "input", "weight_hh": "recurrent", "bias_ih": "bias", "bias_hh": "bias"}  # we have one bias
GATES = {theirs.format(kind): f"{ours}.{KINDS[kind]}" for theirs, ours in LSTMS.items() for kind in KINDS}


def own_name(name: str) -> str:
    """Return the engine's name of a parameter of the plain network."""
    return (
        f"initialization/{name.removeprefix(BODY)}" if name.startswith(BODY) else f"prediction/{GATES.get(name, name)}"
    )


def rearranged(name: str, value: Tensor) -> Tensor:
    """Return an LSTM's tensor with the last two of its four gates exchanged, others as they are; and back."""
    if name not in GATES:
        return value
    first, second, third, fourth = value.chunk(4)
    return torch.cat([first, second, fourth, third])


def prepare_ours(workload: Workload, parameters: Parameters, episodes: Sequence[Episode]) -> Run:
    """Build the learner of the same parameters, and return its meta-step."""
    first, recipe = episodes[0], METHODS[workload.method]
    task = TaskShape("classification", tuple(first.support_x.shape[1:]), int(first.support_y.max()) + 1)
    settings: dict[str, Mapping[str, Any]] = {**recipe.learner, "architecture": {"kind": "conv4", "channels": 64}}
    if workload.method == "matching_fce":  # as torch's LSTM reads
        settings["prediction"] = {**settings["prediction"], "order": "given"}
    learner = build_learner(learner=settings, inner={"batch_norm": "batch"}, outer={}, task=task)
    phi: Parameters = {}
    for name, value in parameters.items():
        ours, mine = own_name(name), rearranged(name, value)
        phi[ours] = phi[ours] + mine if ours in phi else mine
    generator = torch.Generator().manual_seed(0)
    state = learner.begin(phi, generator)

    def run() -> Step:
        step = learner.meta_step(phi, state, episodes, generator)
        return Step(step.loss, {name: rearranged(name, step.gradient[own_name(name)]) for name in parameters})

    return run


def prepare_plain(workload: Workload, parameters: Parameters, episodes: Sequence[Episode]) -> Run:
    """Accumulate the gradient task by task."""
    network = cast(Comparing, workload.network(batch_norm)).to(next(iter(parameters.values())))
    network.load_state_dict(parameters)

    def run() -> Step:
        network.zero_grad()
        total = 0.0
        for episode in episodes:
            support, queries = network(episode.support_x, episode.query_x)
            loss = network.loss(support, queries, episode.support_y, episode.query_y) / len(episodes)
            loss.backward()
            total += loss.item()
        return Step(total, {name: one.grad for name, one in network.named_parameters() if one.grad is not None})

    return run
