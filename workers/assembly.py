"""Builds a trial's task source, learner and device from its configuration, and describes it in its folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metaloom import learners
from metaloom.learners.base import Learner
from metaloom.learners.build import only_read
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import Mapper, one_by_one
from metaloom.learners.outer import OuterConfig
from metaloom.learners.plugins import NEEDED
from metaloom.learners.registry import NotRegistered
from metaloom.learners.tensors import Tensors
from metaloom.workers import data
from metaloom.workers.bundle_reading import bundle_start, parameters_of, task_document
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.data.base import Source, TaskSource
from metaloom.workers.device import Device, prepare_device
from metaloom.workers.durable import write_files
from metaloom.workers.errors import CheckpointError
from metaloom.workers.records import names
from metaloom.workers.records.episode_files import Origin
from metaloom.workers.records.trial import TrialConfig


@dataclass(frozen=True)
class Assembly:
    """A learner, the tasks it learns from, and the device it computes on."""

    source: TaskSource
    learner: Learner
    device: Device
    outer: OuterConfig

    def origin(self, config: TrialConfig) -> Origin:
        """Return the columns that are equal in all episode rows of the trial."""
        learner = self.learner
        return Origin(config.search, config.trial, self.source.name, learner.setting, learner.batch_norm)


def assemble(
    config: TrialConfig,
    *,
    cache: Path,
    seed: int | None = None,
    start: Tensors | None = None,
    mapper: Mapper = one_by_one,
    trust_code: bool = False,
) -> Assembly:
    """Open the task source, build the learner, choose the device.

    Args:
        config: The trial.
        cache: Where task sources keep their prepared data.
        seed: Seed of the episodes; None takes the search's.
        start: The network of a trial that has a checkpoint (``parameters_of``); None reads the bundle that
            ``learner.initialization`` names, if it names one.
        mapper: Evaluates the perturbations of an estimator that has some.
        trust_code: Whether a class that ``architecture.of`` names may be imported.

    Raises:
        BadInput: The configuration cannot work.
        DeviceError: The device is absent.
    """
    outer = OuterConfig.of(config.outer)
    device = prepare_device(config.resources, outer.precision)
    source = data.open_source(config.tasks, seed=config.seed if seed is None else seed, cache=cache)
    if isinstance(source, Source):
        source.meta_batch = outer.meta_batch
    start = bundle_start(config.learner) if start is None else start
    try:
        learner = learner_of(config, source.shape, start=start, mapper=mapper, trust_code=trust_code)
    except NotRegistered as problem:  # the experiment was valid where it was begun
        raise LearnerError(f"{problem}; {NEEDED}") from problem
    return Assembly(source, learner, device, outer)


def learner_of(
    config: TrialConfig,
    task: TaskShape,
    *,
    start: Tensors | None = None,
    mapper: Mapper = one_by_one,
    trust_code: bool = False,
) -> Learner:
    """Build a trial's learner; the parameters in ``start`` are read where ``learner.initialization`` names a bundle."""
    section, outer = only_read(config.learner, config.outer)
    return learners.build_learner(
        learner=section, inner=config.inner, outer=outer, task=task, start=start, mapper=mapper, trust_code=trust_code
    )


def own_start(directory: Path, otherwise: Tensors | None = None) -> Tensors | None:
    """Return the network in a trial's checkpoint; ``otherwise`` before its first one."""
    if not (directory / names.CHECKPOINTS_FOLDER).is_dir():
        return otherwise
    try:
        return parameters_of(load_knowledge(directory))
    except CheckpointError:
        return otherwise  # it begins again


def describe_trial(directory: Path, config: TrialConfig, section: Mapping[str, Any], learner: Learner) -> None:
    """Write the configuration and the task, for readers that do not open the task source; unchanged files stay.

    ``section`` is the present learner section, which retraining changes; the learner's estimator replaces ``auto``.
    """
    outer = dict(config.outer)
    if learner.estimator_reason:
        outer["hypergradient"] = {"kind": learner.estimator}
    config = replace(config, learner=dict(section), outer=outer)
    documents = {names.CONFIG_FILE: config.to_json(), names.TASK_FILE: task_document(learner.task)}
    contents = {name: f"{json.dumps(document, indent=2, sort_keys=True)}\n" for name, document in documents.items()}
    paths = {name: directory / name for name in contents}
    if any(not paths[name].exists() or paths[name].read_text() != contents[name] for name in contents):
        write_files(directory, {name: content.encode() for name, content in contents.items()})
