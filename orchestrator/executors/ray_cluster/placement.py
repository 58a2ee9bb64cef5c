"""The resources that a trial requests from Ray, and how many such trials fit.

A trial requests its ``cpus``, ``gpus`` and ``memory``, and the same again for each perturbation worker, all in one
placement group. Ray allocates a whole group or nothing, so two partly allocated trials cannot deadlock.
"""

from collections.abc import Mapping
from typing import Any

import ray
from ray import tune

from metaloom.orchestrator.errors import ClusterError

KEYS = {"cpu": "CPU", "gpu": "GPU", "memory": "memory"}  # Tune's names to those of Ray's nodes

Asked = Any  # a mapping of Tune's names, or a tune.PlacementGroupFactory: ray is not typed


def helpers(resources: Mapping[str, Any]) -> int:
    """Return the number of perturbation workers of each trial."""
    return int(resources.get("perturbation_workers") or 0)


def bundle(resources: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources of a trial's process, which are also those of each perturbation worker."""
    asked = {"cpu": float(resources.get("cpus") or 1), "gpu": float(resources.get("gpus") or 0)}
    if resources.get("memory"):
        asked["memory"] = float(resources["memory"])
    return asked


def request(resources: Mapping[str, Any]) -> Asked:
    """Return Tune's request to Ray, one bundle or a placement group; raises ClusterError if it can never be met."""
    _check_fits(resources)
    count = helpers(resources)
    if not count:
        return bundle(resources)
    each = {KEYS[name]: amount for name, amount in bundle(resources).items() if amount}
    return tune.PlacementGroupFactory([each] * (1 + count))


def slots(resources: Mapping[str, Any]) -> int:
    """Return how many such trials fit in the running cluster at a time, at least one."""
    return max(1, _bundles(bundle(resources)) // (1 + helpers(resources)))


def _bundles(asked: Mapping[str, float]) -> int:
    """Return how many bundles fit on the cluster's nodes when they are idle."""
    wanted = {KEYS[name]: amount for name, amount in asked.items() if amount}
    return sum(min(int(node.get(key, 0.0) // amount) for key, amount in wanted.items()) for node in _nodes())


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _check_fits(resources: Mapping[str, Any]) -> None:
    """Refuse a request that exceeds every node, or all nodes together."""
    asked, count = bundle(resources), helpers(resources)
    for name, amount in asked.items():
        most = max((node.get(KEYS[name], 0.0) for node in _nodes()), default=0.0)
        if amount > most:
            raise ClusterError(
                f"a trial asks for {amount:g} {name}, but no node of the Ray cluster has more than {most:g}; "
                f"change resources.{name if name == 'memory' else name + 's'}"
            )
    room = _bundles(asked)
    if room < 1 + count:
        each = ", ".join(f"{amount:g} {name}" for name, amount in asked.items() if amount)
        raise ClusterError(
            f"a trial with resources.perturbation_workers: {count} asks for {each} {1 + count} times over, but the Ray "
            f"cluster has that only {room} times; give perturbation_workers: {room - 1} or fewer"
        )
