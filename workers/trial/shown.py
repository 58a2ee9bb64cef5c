"""What a trial leaves for its readers: its meta-knowledge, and what its learner shows of one held-out episode.

Both are written at the end; on the way snapshots hold the small part of both (``workers/snapshots.py``).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metaloom.learners.build import SLOTS, fill_slot
from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.reference import references_in
from metaloom.learners.state import knowledge_of
from metaloom.learners.tensors import Tensors, under
from metaloom.workers import snapshots
from metaloom.workers.assembly import Assembly
from metaloom.workers.checkpoint import Knowledge, write_knowledge
from metaloom.workers.data.base import SampledEpisode, TaskSource
from metaloom.workers.data.single_task import SingleTaskSource
from metaloom.workers.records.names import EPISODE_FILE, META_KNOWLEDGE_FILE, VALIDATION
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.seeds import derive_generator
from metaloom.workers.shown import write_shown
from metaloom.workers.snapshots import Snapshot
from metaloom.workers.ways import LearnersByWays, ways_of_split

IMAGES = 6  # of the validation episode, on which a learned augmentation is shown


@dataclass(frozen=True)
class ForReaders:
    """Writes what the records' readers see of a trial's learner.

    Attributes:
        directory: The trial's.
        config: The trial's.
        retrained: The learner section, once a discrete architecture is retrained.
        own: The trial's source, learner, device and outer settings.
        learners: The trial's learners by their number of classes.
    """

    directory: Path
    config: TrialConfig
    retrained: Mapping[str, Any] | None
    own: Assembly
    learners: LearnersByWays

    def show(self, present: Knowledge, finished: Knowledge | None) -> None:
        """Write what a trial ends with, or a snapshot of what it has learned so far, where one is due."""
        if finished is None:
            self.snapshot(present)
        else:
            self.write_finished(finished)

    def write_finished(self, knowledge: Knowledge) -> None:
        """Write what a trial ends with, on ``device``, and what may be drawn of its first validation episode, if any.

        The test split stays unread until the test.
        """
        write_knowledge(self.directory / META_KNOWLEDGE_FILE, knowledge.groups(), {"step": str(knowledge.step)})
        if shown := self._shown(knowledge, validated=True):
            write_shown(self.directory / EPISODE_FILE, shown, knowledge.step)

    def snapshot(self, knowledge: Knowledge) -> None:
        """Keep a snapshot of what the trial has learned so far, on ``device``, if one is due."""
        most, every = int(self.config.resources.get("snapshots", snapshots.MOST)), self.own.outer.validate_every
        learns = bool(knowledge.phi) or self.own.learner.online
        if not learns or not snapshots.is_due(knowledge.step, every, most):
            return
        section = self.retrained or self.config.learner
        phi = {**knowledge.phi, **under("update", thinned_rates(section, self.own.learner.task, knowledge.phi))}
        shown = snapshots.flattened(self._shown(knowledge, validated=knowledge.step > 0))
        one = Snapshot(knowledge.step, section, phi, shown)
        snapshots.write_snapshot(self.directory, one, every=every, most=most)

    def _shown(self, knowledge: Knowledge, *, validated: bool) -> Tensors:
        """Return what may be drawn of the first validation episode, and how far the initialization has moved.

        Before the first validation the learner computes nothing of the episode: that it can has not been seen yet.
        """
        sampled = self.own.source.episode(VALIDATION, 0)
        shown: Tensors = {}
        if validated:
            at = self.learners.at(ways_of_split(self.own.source, VALIDATION))
            episode = sampled.episode.to(self.own.device.torch, self.own.device.dtype)
            with self.own.device.precision():
                shown = at.learner.inspect(knowledge.phi, at.state(knowledge.state, self.own.device), episode)
        learned = {name.split("/")[0] for name in knowledge.phi}
        if "weighting" in learned:
            shown = shown | wrong_labels(self.own.source, sampled)
        if "augmentation" in learned:
            shown = shown | images_of(sampled)
        return shown | under("moved", distances(knowledge.phi, self._start))

    def _start(self) -> Tensors:
        """Return phi as it was before the first step, or before the first one of the retraining."""
        config = self.config
        purpose, step = ("init", 0) if self.retrained is None else ("retrain", self.own.outer.steps)
        generator = derive_generator(config.seed, config.trial, step, purpose, version=config.seeds)
        return self.own.learner.init(generator)


def distances(phi: Tensors, start: Callable[[], Tensors]) -> Tensors:
    """Return of each parameter of a learned initialization its distance from the start, and the start's length: [2]."""
    own = knowledge_of(phi, "initialization")
    if not own:
        return {}
    first = knowledge_of(start(), "initialization")
    found: Tensors = {}
    for name, now in own.items():  # one at a time: in float64 a large network takes much memory
        then = first.get(name)
        if then is not None and then.shape == now.shape:
            then = then.double().cpu()
            found[name] = torch.stack([(now.double().cpu() - then).norm(), then.norm()])
    return found


def wrong_labels(source: TaskSource, sampled: SampledEpisode) -> Tensors:
    """Return which training examples have a wrong label: of the episode's support set, and of the whole training set.

    Nothing where the source does not know it.
    """
    if not isinstance(source, SingleTaskSource) or not source.noisy.any():
        return {}
    count = len(sampled.episode.support_y)
    wrong = torch.from_numpy(source.noisy)
    rows = torch.from_numpy(source.parts[source.config.train_on])
    return {"example_noisy": wrong[torch.tensor(sampled.sample_ids[:count])], "training_noisy": wrong[rows]}


def images_of(sampled: SampledEpisode) -> Tensors:
    """Return some images of the support set in 256 levels; nothing where the examples are no images in [0, 1].

    Rows of a square number of values are images too, as for an augmentation.
    """
    x: Tensor = sampled.episode.support.x
    side = math.isqrt(x.shape[-1])
    if x.ndim == 2 and side * side == x.shape[-1]:
        x = x.reshape(len(x), 1, side, side)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or float(x.min()) < 0 or float(x.max()) > 1:
        return {}
    return {"images": (x[:IMAGES] * 255).round().to(torch.uint8)}


def thinned_rates(section: Mapping[str, Any], task: TaskShape, phi: Tensors) -> Tensors:
    """Return the update rule's part of phi, with quantiles in place of many values of one learned setting."""
    own = knowledge_of(phi, "update")
    settings = section.get("update") or {}
    if not own or any(references_in(settings)):
        return own
    return snapshots.thinned(own, fill_slot(SLOTS["update"], settings, {}, task).learned_knobs())
