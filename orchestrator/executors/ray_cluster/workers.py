"""Ends the process of a trial, on whichever node of the cluster it runs."""

import logging
import socket
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from metaloom.orchestrator.executors.hosting import end_process
from metaloom.workers.heartbeat import process_of

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
