"""What a trial's folder says of the trial, beside its checkpoints and episodes: its configuration and its task."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from metaloom.learners.base import Learner
from metaloom.learners.tensors import Tensors
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.durable import write_files
from metaloom.workers.errors import CheckpointError
from metaloom.workers.pretrained import parameters_of
from metaloom.workers.records.names import CHECKPOINTS_FOLDER, CONFIG_FILE, TASK_FILE
from metaloom.workers.records.trial import TrialConfig


def own_start(directory: Path) -> Tensors | None:
    """Return what the network of a trial holds in its checkpoint; None before its first one."""
    if not (directory / CHECKPOINTS_FOLDER).is_dir():
        return None
    try:
        return parameters_of(load_knowledge(directory))
    except CheckpointError:
        return None  # it begins again


def describe_trial(directory: Path, config: TrialConfig, section: Mapping[str, Any], learner: Learner) -> None:
    """Write the configuration and the task, for readers that do not open the task source; unchanged files stay.

    Args:
        directory: The trial's folder.
        config: The trial as it was begun.
        section: The learner's section as it stands; after retraining has begun it is another one.
        learner: The learner, whose estimator stands in place of ``auto``.
    """
    outer = dict(config.outer)
    if learner.estimator_reason:
        outer["hypergradient"] = {"kind": learner.estimator}
    config = replace(config, learner=dict(section), outer=outer)
    documents = {CONFIG_FILE: config.to_json(), TASK_FILE: asdict(learner.task)}
    contents = {name: f"{json.dumps(document, indent=2, sort_keys=True)}\n" for name, document in documents.items()}
    paths = {name: directory / name for name in contents}
    if any(not paths[name].exists() or paths[name].read_text() != contents[name] for name in contents):
        write_files(directory, {name: content.encode() for name, content in contents.items()})


def described_estimator(learner: Learner) -> str:
    """Name the hypergradient's estimator, and why ``auto`` chose it."""
    reason = learner.estimator_reason
    return f"{learner.estimator} (auto: {reason})" if reason else learner.estimator


def count_parameters(tensors: Iterable[Tensor]) -> int:
    """Count the numbers held; whole ones, such as a count of steps, are no parameters."""
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
