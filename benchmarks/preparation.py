"""An implementation of a workload, ready to run."""

from collections.abc import Sequence

import torch

from benchmarks.bilevel import Bilevel
from benchmarks.implementations import Run
from benchmarks.registry import implementation
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.episode import Episode

Timed = Workload | Bilevel


def materials(workload: Timed, device: torch.device, dtype: torch.dtype) -> tuple[Parameters, list[Episode]]:
    """Return the starting parameters and the tasks."""
    parameters = {name: value.to(device, dtype) for name, value in workload.start().items()}
    episodes = [episode.to(device, dtype) for episode in workload.episodes(torch.Generator().manual_seed(1))]
    return parameters, episodes


def prepared(
    chosen: Sequence[str], workload: Timed, device: torch.device, dtype: torch.dtype = torch.float32
) -> dict[str, Run]:
    """Build every chosen implementation that offers the workload."""
    parameters, episodes = materials(workload, device, dtype)
    runs = {name: implementation(name, workload)(workload, parameters, episodes) for name in chosen}
    return {name: run for name, run in runs.items() if run is not None}
