"""Whether the nodes of a Ray cluster can ever hold a trial, by what they have; nothing here imports Ray."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from metaloom.orchestrator.errors import ClusterError

KEYS = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}  # Tune's names and Ray's
FOR_OBJECTS = 0.3  # of the free memory, which Ray keeps for its object store


def helpers(resources: Mapping[str, Any]) -> int:
    """Return the number of perturbation workers of each trial."""
    return int(resources.get("perturbation_workers") or 0)


def bundle(resources: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources of a trial's process, which are also those of each perturbation worker."""
    asked = {"cpu": float(resources.get("cpus") or 1), "gpu": float(resources.get("gpus") or 0)}
    if resources.get("memory"):
        asked["memory"] = float(resources["memory"])
    return asked


def is_special(resources: Mapping[str, Any]) -> bool:
    """Return whether a trial asks for more than one core, which every node has."""
    return helpers(resources) > 0 or any(amount > (name == "cpu") for name, amount in bundle(resources).items())


def own_cpus(resources: Mapping[str, Any], concurrency: int | None) -> int:
    """Return the cores that a Ray of our own has: those of this process, or as many as the trials ask for."""
    each = float(resources.get("cpus") or 1)
    return max(len(os.sched_getaffinity(0)), math.ceil((concurrency or 1) * each))


def bundles(asked: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> int:
    """Return how many bundles fit on the nodes when they are idle."""
    wanted = {KEYS[name]: amount for name, amount in asked.items() if amount}
    return sum(min(int(node.get(key, 0.0) // amount) for key, amount in wanted.items()) for node in nodes)


def check_fits(resources: Mapping[str, Any], nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise ClusterError for a trial that asks for more than any node has, or than all nodes together have."""
    asked, count = bundle(resources), helpers(resources)
    for name, amount in asked.items():
        most = max((node.get(KEYS[name], 0.0) for node in nodes), default=0.0)
        if amount > most:
            setting = name if name == "memory" else f"{name}s"
            limit = f"no node of the Ray cluster has more than {_spoken(name, most)}"
            asked_for = f"{_spoken(name, amount)}{' of memory' if name == 'memory' else f' {name}'}"
            raise ClusterError(f"a trial asks for {asked_for}, but {limit}; change resources.{setting}")
    room = bundles(asked, nodes)
    if room < 1 + count:
        each = ", ".join(f"{amount:g} {name}" for name, amount in asked.items() if amount)
        raise ClusterError(
            f"a trial with resources.perturbation_workers: {count} asks for {each} {1 + count} times over, but the Ray "
            f"cluster has that only {room} times; give perturbation_workers: {room - 1} or fewer"
        )


def _spoken(name: str, amount: float) -> str:
    return f"{amount / 1e9:.3g} GB" if name == "memory" else f"{amount:g}"
