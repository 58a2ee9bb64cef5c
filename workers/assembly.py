"""The three things a trial works with, put together from its configuration."""

from dataclasses import dataclass
from pathlib import Path

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
from metaloom.workers.data.base import TaskSource
from metaloom.workers.device import Device, prepare_device
from metaloom.workers.pretrained import bundle_start
from metaloom.workers.records.episode_files import Origin
from metaloom.workers.records.trial import TrialConfig


@dataclass(frozen=True)
class Assembly:
    """A learner, the tasks it learns from, and where it computes."""

    source: TaskSource
    learner: Learner
    device: Device
    outer: OuterConfig

    def origin(self, config: TrialConfig) -> Origin:
        """Return what all episode rows of the trial share."""
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
        cache: Where task sources keep what they have made.
        seed: Seed of the episodes; None takes the search's.
        start: What the trial's network holds, where there is a checkpoint (``parameters_of``); None reads the bundle
            that ``learner.initialization`` names, if it names one.
        mapper: Evaluates the perturbations of an estimator that has some.
        trust_code: Whether a class that ``architecture.of`` names may be imported.

    Raises:
        BadInput: The configuration cannot work; the message says why.
        DeviceError: The device is not there.
    """
    outer = OuterConfig.of(config.outer)
    device = prepare_device(config.resources, outer.precision)
    source = data.open_source(config.tasks, seed=config.seed if seed is None else seed, cache=cache)
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
        learner=section,
        inner=config.inner,
        outer=outer,
        task=task,
        start=start,
        mapper=mapper,
        trust_code=trust_code,
    )
