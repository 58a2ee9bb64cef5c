"""Ends the process of a trial, on whichever node of the cluster it runs, and keeps a spare worker started."""

import contextlib
import logging
import socket
import time
from pathlib import Path

import psutil
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaloom.orchestrator.executors.hosting import end_process
from metaloom.orchestrator.executors.ray_cluster.worker_start import with_spares
from metaloom.workers.heartbeat import process_of

FREE = "ray::IDLE"  # the title that Ray gives a process without work
CANCEL_S = 0.5  # Ray has begun to start a worker by then, and no worker starts in so short a time
logger = logging.getLogger("metaloom.cluster")


def end(directory: Path) -> None:
    """Kill the process that runs the trial in ``directory``; on another node by a task there, without a wait for it."""
    host = process_of(directory).host
    if host == socket.gethostname():
        end_process(directory)
        return
    node = next((one["NodeID"] for one in ray.nodes() if one["Alive"] and one["NodeManagerHostname"] == host), None)
    if node is None:
        logger.warning("the node %s, on which a trial hangs, is gone; nothing is left to end there", host)
        return
    end_on(node, directory)


def end_on(node: str, directory: Path) -> "ray.ObjectRef[None]":
    """Kill the process that runs the trial in ``directory`` by a task on a node, which takes none of its CPUs."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(end_process).options(num_cpus=0, scheduling_strategy=there)
    ended: ray.ObjectRef[None] = task.remote(directory)
    return ended


class Spare:
    """A worker of our own Ray that has imported what a trial needs, and takes over the trial of a lost one.

    Ray starts it at first, but does not replace it. A task for which no worker is free makes Ray start one. It is
    cancelled before that worker runs it, and none is sent while a worker is free: one that has run a task gets no
    trial.

    Args:
        kept: Whether Ray is our own. A cluster's workers import nothing before they have work.
    """

    def __init__(self, *, kept: bool) -> None:
        self._kept = kept
        self._taken = False
        self._asked: ray.ObjectRef[None] | None = None
        self._cancel_at = 0.0

    def take(self) -> None:
        """Note that a worker is lost, so that its trial takes the spare one."""
        self._taken = self._kept

    def replace(self) -> None:
        """Ask Ray for the next one if the last one is at work and memory allows; call when a worker has reported."""
        if not self._taken or with_spares(0) == 0 or _is_free():
            return
        self._taken = False
        self._asked = ray.remote(_nothing).options(num_cpus=0).remote()
        self._cancel_at = time.monotonic() + CANCEL_S

    def look(self) -> None:
        """Cancel the task, once it has made Ray start a worker; call often."""
        if self._asked is not None and time.monotonic() >= self._cancel_at:
            ray.cancel(self._asked)
            self._asked = None


def _is_free() -> bool:
    """Return whether a worker of our own Ray has started and has no work."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if process.cmdline()[:1] == [FREE]:
                return True
    return False


def _nothing() -> None:
    """Do nothing: only that Ray wants a worker for it counts."""
