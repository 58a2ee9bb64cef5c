"""The three things a trial works with, put together from its configuration."""

from dataclasses import dataclass
from pathlib import Path

from metaloom import learners
from metaloom.learners.base import Learner
from metaloom.workers import data
from metaloom.workers.data.base import TaskSource
from metaloom.workers.device import Device, prepare_device
from metaloom.workers.episode_records import Origin
from metaloom.workers.outer import OuterConfig
from metaloom.workers.records import TrialConfig


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


def assemble(config: TrialConfig, *, cache: Path, seed: int | None = None) -> Assembly:
    """Open the task source, build the learner, choose the device.

    Args:
        config: The trial.
        cache: Where task sources keep what they have made.
        seed: Seed of the episodes; None takes the search's.

    Raises:
        BadInput: The configuration cannot work; the message says why.
        DeviceError: The device is not there.
    """
    outer = OuterConfig.of(config.outer)
    device = prepare_device(config.resources, outer.precision)
    source = data.open_source(config.tasks, seed=config.seed if seed is None else seed, cache=cache)
    learner = learners.build_learner(learner=config.learner, inner=config.inner, outer=config.outer, task=source.shape)
    return Assembly(source, learner, device, outer)
