"""Snapshots of what a trial has learned on its way: few and small, for readers of the records alone.

A trial keeps its last two checkpoints only. Beside them it keeps, of the start and of some validations, the part of phi
that figures and charts show, and what its learner shows of a validation episode. Their number is bounded
(``resources.snapshots``): they lie ``stride`` validations apart, and the stride doubles when there would be too many.
It depends on the step alone, so that a trial that was killed and resumed leaves the same files. The trial never reads
one.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaloom.learners.tensors import Tensors
from metaloom.workers import durable
from metaloom.workers.checkpoint import knowledge_bytes, read_knowledge
from metaloom.workers.errors import CheckpointError
from metaloom.workers.records.names import snapshot_path, snapshot_steps

MOST = 20  # snapshots of a trial whose record does not say how many
MOST_BYTES = 256 * 1024  # of a snapshot's tensors; what is larger is left out and named
MOST_VALUES = 1024  # of a learned setting; of more, their quantiles are kept
FEATURES = ("support", "queries", "prototypes")  # of an episode, in one space
NOT_SHOWN = ("initialization", "normalization")  # slots of phi whose numbers no figure shows one by one


@dataclass(frozen=True)
class Snapshot:
    """The small part of what a trial had learned at ``step``.

    Attributes:
        step: Outer steps done.
        learner: The resolved learner section at that step, which retraining changes.
        phi: The leaves of the slots that are small enough.
        shown: What the learner shows of a validation episode.
        left_out: The slots and names that were too large.
    """

    step: int
    learner: Mapping[str, Any]
    phi: Tensors
    shown: Tensors
    left_out: tuple[str, ...] = ()


def stride(validations: int, most: int) -> int:
    """Return how many validations lie between two snapshots after ``validations``: a power of two, at most ``most``."""
    apart = 1
    while validations // apart + 1 > most:  # the start is one of them
        apart *= 2
    return apart


def is_due(step: int, every: int, most: int) -> bool:
    """Return whether a trial that validates every ``every`` steps keeps a snapshot of ``step``, of at most ``most``."""
    return most > 1 and step % every == 0 and (step // every) % stride(step // every, most) == 0


def write_snapshot(directory: Path, snapshot: Snapshot, *, every: int, most: int) -> None:
    """Write a snapshot of the trial in ``directory``, and remove those that are no longer kept; raises StorageError.

    Those of later steps are of a course that the trial has left, for an earlier checkpoint.
    """
    small, left_out = _small(snapshot)
    facts = {"step": str(snapshot.step), "learner": json.dumps(snapshot.learner, sort_keys=True)}
    path = snapshot_path(directory, snapshot.step)
    content = knowledge_bytes(small, {**facts, "left_out": json.dumps(left_out)})
    durable.write_bytes(path, content, synced=False)  # a power failure may damage it, which its digest tells
    apart = every * stride(snapshot.step // every, most)
    for step in snapshot_steps(directory):
        if step > snapshot.step or step % apart:
            snapshot_path(directory, step).unlink(missing_ok=True)


def read_snapshot(directory: Path, step: int) -> Snapshot:
    """Read the snapshot of a step; raises CheckpointError if it is missing or damaged."""
    path = snapshot_path(directory, step)
    groups, facts = read_knowledge(path)
    try:
        learner, left_out = json.loads(facts["learner"]), json.loads(facts["left_out"])
    except (KeyError, ValueError) as problem:
        raise CheckpointError(f"{path}: is no snapshot ({problem})") from problem
    return Snapshot(step, learner, groups.get("phi", {}), groups.get("shown", {}), tuple(left_out))


def thinned(phi: Tensors, knobs: Iterable[str]) -> Tensors:
    """Return an update rule's leaves, with evenly spaced quantiles in place of the many values of a learned setting.

    Args:
        phi: The rule's part, without the slot's name.
        knobs: Its learned settings.
    """
    own = set(knobs)
    return {name: _quantiles(value) if name.split("/")[0] in own else value for name, value in phi.items()}


def _quantiles(values: Tensor) -> Tensor:
    """Return at most ``MOST_VALUES`` of the sorted values, the least and the largest among them."""
    if values.numel() <= MOST_VALUES:
        return values
    ordered = values.detach().flatten().sort().values
    return ordered[torch.linspace(0, len(ordered) - 1, MOST_VALUES).round().long()]


def flattened(shown: Tensors) -> Tensors:
    """Return what is shown, with the features of an episode turned into as few directions as there are points.

    A rotation changes neither distances nor principal components; an embedding has thousands of directions.
    """
    points = {name: shown[name] for name in FEATURES if name in shown and shown[name].ndim == 2}
    sizes = {one.shape[1] for one in points.values()}
    if len(sizes) != 1 or sum(map(len, points.values())) >= max(sizes):
        return shown
    together = torch.cat(list(points.values())).double()
    _, triangle = torch.linalg.qr(together.T)  # together = triangle^T basis^T
    parts = triangle.T.float().split([len(one) for one in points.values()])
    return {**shown, **{name: part.contiguous() for name, part in zip(points, parts, strict=True)}}


def _small(snapshot: Snapshot) -> tuple[dict[str, Tensors], list[str]]:
    """Return the groups of a file below the limit, and the names of what was left out, the largest first."""
    kept: dict[str, tuple[str, Tensors]] = {}
    for group, tensors in (("phi", snapshot.phi), ("shown", snapshot.shown)):
        for name, value in tensors.items():
            place = name.split("/")[0]
            if group == "shown" or place not in NOT_SHOWN:
                kept.setdefault(f"{group}/{place}", (group, {}))[1][name] = value.detach().cpu()
    sizes = {place: sum(one.numel() * one.element_size() for one in own.values()) for place, (_, own) in kept.items()}
    left_out = []
    for place in sorted(sizes, key=lambda one: (-sizes[one], one)):
        if sum(sizes.values()) <= MOST_BYTES:
            break
        del sizes[place]
        left_out.append(place.partition("/")[2])
    groups: dict[str, Tensors] = {"phi": {}, "shown": {}}
    for place in sizes:
        group, own = kept[place]
        groups[group] |= own
    return groups, left_out
