"""Trials on Ray, which is started on this machine for the search, or is a cluster that the search joins."""

import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil

from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors.base import EXECUTORS, Executor, ExecutorKind, ExecutorRequest
from metaloom.orchestrator.executors.ray_cluster import environment, fitting
from metaloom.orchestrator.interruption import Ended, Stopped

NAME = "ray"
logger = logging.getLogger("metaloom")


@contextmanager
def _opened(request: ExecutorRequest) -> Iterator[tuple[Executor, int]]:
    """Start or join Ray; raises ClusterError or Stopped as ``connection.connected`` does."""
    environment.prepare()
    from metaloom.orchestrator.executors.ray_cluster import connection  # ray: 0.6 s, for this alone

    resources, wanted = request.resources, request.concurrency
    each = float(resources.get("cpus") or 1)
    cpus = fitting.own_cpus(resources, wanted)
    family = 1 + fitting.helpers(resources)
    workers = min(int(cpus / each), family * min(wanted or cpus, request.trials or cpus))
    variables = resources.get("env") or ()
    for name in (name for name in variables if name not in os.environ):
        logger.warning("resources.env: there is no variable %s here, so the workers get none", name)
    with connection.connected(
        request.interruption,
        address=request.address,
        cpus=cpus,
        workers=max(1, workers),
        threads=max(1, int(each)),
        variables=variables,
    ) as joined:
        from metaloom.orchestrator.executors.ray_cluster import tune  # 1.2 s, in which the workers import torch

        room, helpers = tune.slots(resources), fitting.helpers(resources)
        if wanted and helpers and wanted > room:
            logger.warning(
                "with perturbation_workers (%d) the cluster has room for %d trials, not %d", helpers, room, wanted
            )
        yield tune.RayExecutor(request.interruption, joined, resources=resources), wanted or room


def _check_machine(request: ExecutorRequest) -> None:
    """Refuse what this machine, or the cluster that is to be joined, can never serve."""
    resources, address = request.resources, request.address
    running = sys.modules.get("ray")
    if address is None and not (running and running.is_initialized()):
        from metaloom.workers.device import check_gpus  # torch: 2 s, not to be paid by every worker of Ray

        gpus, memory = check_gpus(resources), (1 - fitting.FOR_OBJECTS) * psutil.virtual_memory().available
        own = {"CPU": fitting.own_cpus(resources, request.concurrency), "GPU": gpus, "memory": memory}
        fitting.check_fits(resources, [own])
    elif fitting.is_special(resources):
        environment.prepare()
        from metaloom.orchestrator.executors.ray_cluster import connection  # ray: 0.6 s, for this alone

        try:
            with request.interruption.installed(), connection.connected(request.interruption, address=address):
                from metaloom.orchestrator.executors.ray_cluster import tune

                fitting.check_fits(resources, tune.nodes())
        except Stopped:
            raise Ended(signal.Signals(request.interruption.signal_number or signal.SIGINT)) from None


def _check_address(address: str, insecure: bool) -> None:
    """Refuse a Ray client's address, and a cluster that anyone can run code on."""
    if address.startswith("ray://"):
        raise SearchError(
            f"{address} is a Ray client's address; run this command on a node of the cluster, with --address "
            "HOST:PORT of its head (as `ray start` prints it)"
        )
    if not insecure and os.environ.get("RAY_AUTH_MODE") != "token":
        raise SearchError(
            f"the cluster at {address} would be joined without a token, and anyone who reaches such a cluster "
            "can run code on it; start it and this command with RAY_AUTH_MODE=token, or pass --insecure-cluster"
        )


def _check_imports(references: Sequence[str], request: ExecutorRequest) -> None:
    """Refuse import paths that workers on this machine would not find."""
    from metaloom.orchestrator.executors.ray_cluster.importing import check_imports

    check_imports(references, request)


EXECUTORS.add(NAME, ExecutorKind(_opened, _check_address, _check_machine, _check_imports))
