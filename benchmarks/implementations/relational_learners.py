"""Relation networks, graph networks and SNAIL by our engine, and by the loop that everybody writes: torch's modules.

easyfsl 1.5.0 has relation networks too, and is no peer here: it needs torchvision, which does not install beside a CPU
build of torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.implementations import Run, Step
from benchmarks.networks import batch_norm
from benchmarks.relational_networks import Relational
from benchmarks.relational_parameters import own_name, own_parameters, plain_shape
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.base import METHODS
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, TaskShape

SETTINGS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "relation": {"architecture": {"halvings": 2}},
    "graph": {},
    "snail": {"prediction": {"reach": 6}},
}


def _network(workload: Workload, parameters: Parameters) -> Relational:
    network = cast(Relational, workload.network(batch_norm)).to(next(iter(parameters.values())))
    network.load_state_dict(parameters, strict=False)  # running statistics are no parameters
    return network.train()


def prepare_ours(workload: Workload, parameters: Parameters, episodes: Sequence[Episode]) -> Run:
    """Build the learner of the same parameters, and return its meta-step."""
    first, recipe = episodes[0], METHODS[workload.method]
    task = TaskShape("classification", tuple(first.support_x.shape[1:]), int(first.support_y.max()) + 1)
    settings: dict[str, Mapping[str, Any]] = {**recipe.learner, "architecture": {"kind": "conv4", "channels": 64}}
    for slot, own in SETTINGS[workload.method].items():
        settings[slot] = {**settings[slot], **own}
    learner = build_learner(learner=settings, inner={"batch_norm": "batch"}, outer={}, task=task)
    network = _network(workload, parameters)
    phi, generator = own_parameters(network), torch.Generator().manual_seed(0)
    names = {name: own_name(network, name) for name in parameters}
    state = learner.begin(phi, generator)

    def gradient_of(name: str, found: Parameters) -> Tensor:
        ours, like = names[name], parameters[name]
        return torch.zeros_like(like) if ours is None else plain_shape(found[ours], like)

    def run() -> Step:
        step = learner.meta_step(phi, state, episodes, generator)
        return Step(step.loss, {name: gradient_of(name, step.gradient) for name in parameters})

    return run


def prepare_plain(workload: Workload, parameters: Parameters, episodes: Sequence[Episode]) -> Run:
    """Accumulate the gradient task by task."""
    network = _network(workload, parameters)

    def run() -> Step:
        network.zero_grad()
        total = 0.0
        for episode in episodes:
            loss = network.loss(network(episode), episode.query_y) / len(episodes)
            loss.backward()
            total += loss.item()
        return Step(total, {name: one.grad for name, one in network.named_parameters() if one.grad is not None})

    return run
