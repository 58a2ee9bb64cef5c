"""A trial whose network nothing moves works on features that are computed once (``data/features.py``)."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.networks.base import ARCHITECTURES
from metaloom.learners.solvers.amortized import AmortizedLearner, Embedding
from metaloom.learners.state import LearnerState
from metaloom.learners.tensors import Tensors, under
from metaloom.workers.data.base import TaskSource
from metaloom.workers.data.features import Features
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.device import Device
from metaloom.workers.records.names import TRAIN, VALIDATION


def features_of(
    learner: Learner, phi: Tensors, state: LearnerState, source: TaskSource, device: Device, cache: Path
) -> Features | None:
    """Return the features of the source's examples, where every episode of the trial would compute the same ones.

    That is so for a solver without inner steps on the body of a bundle, under no batch norm or a frozen one.
    ``phi`` and ``state`` are on ``device``.
    """
    if not (isinstance(learner, AmortizedLearner) and isinstance(source, FewShotSource)):
        return None
    body = learner.body(phi, state)
    if body is None:
        return None

    def embed(examples: Tensor) -> Tensor:
        with torch.no_grad(), device.precision():
            return body(examples.to(device.torch, device.dtype)).to(device.dtype)

    return Features(source, embed, cache=cache, key=_key(body, state, device))


def opened(features: Features, *, training: bool) -> tuple[str, ...]:
    """Compute or open the features that a trial needs, and say so in notes: those of validation, and of training."""
    splits = (VALIDATION, TRAIN) if training else (VALIDATION,)
    return tuple(note for split in splits if (note := features.open(split)))


def of_features(learner: Learner) -> Learner:
    """Return the learner of episodes that have features in place of examples."""
    assert isinstance(learner, AmortizedLearner)  # ``features_of`` has found features
    return learner.on_features()


def on_features(learner: Learner, source: TaskSource, features: Features) -> tuple[Learner, TaskSource]:
    """Return the learner of episodes that have features in place of examples, and the source of such episodes."""
    assert isinstance(source, FewShotSource)
    return of_features(learner), source.looking_up(features)


def _key(body: Embedding, state: LearnerState, device: Device) -> dict[str, Any]:
    network = body.network
    assert network is not None
    tensors = under("theta", body.theta) | under("fixed", network.fixed)
    return {
        "architecture": [ARCHITECTURES.name_of(type(network)), repr(network.config)],
        "inputs": network.task.inputs,
        "network": _digest(tensors),
        "statistics": _digest(body.given or {}),
        "precision": [str(device.dtype), device.mixed, device.torch.type],
    }


def _digest(tensors: Tensors) -> str:
    whole = hashlib.sha256()
    for name in sorted(tensors):
        one = tensors[name].detach().cpu().contiguous()
        whole.update(f"{name} {one.dtype} {tuple(one.shape)} ".encode())
        whole.update(one.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()
