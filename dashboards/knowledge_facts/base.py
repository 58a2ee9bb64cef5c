"""A trial's meta-knowledge as the functions of facts read it, and their registry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from metaloom.dashboards.knowledge_facts.panels import LearnedFacts
from metaloom.learners.build import SLOTS, fill_slot
from metaloom.learners.component import Component, Composite
from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.reference import references_in
from metaloom.learners.registry import Registry
from metaloom.learners.state import LearnerState, knowledge_of
from metaloom.learners.tensors import Tensors
from metaloom.workers.bundle_reading import read_task
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.records.names import EPISODE_FILE, TASK_FILE
from metaloom.workers.records.trial import read_config
from metaloom.workers.shown import read_shown

C = TypeVar("C", bound=Component)


@dataclass(frozen=True)
class TrialKnowledge:
    """What a trial has learned, and its learner.

    Attributes:
        learner: The resolved learner section: slot to its settings, including ``kind``.
        task: The shape of its tasks.
        phi: All meta-knowledge on the CPU; each name begins with its slot.
        state: The learner's state on the CPU, such as an online learner's network.
        shown: What the learner shows of a validation episode, by the names of ``AmortizedSolver.inspect``.
    """

    learner: Mapping[str, Any]
    task: TaskShape
    phi: Tensors
    state: LearnerState
    shown: Tensors = field(default_factory=dict)

    def matrix(self, name: str) -> Tensor | None:
        """Return what is shown under a name if it is a matrix of finite numbers, in float32; else None."""
        found = self.shown.get(name)
        if found is None or found.ndim != 2 or not found.numel() or not bool(found.isfinite().all()):
            return None
        return found.float()

    def labels(self, name: str, examples: int) -> Tensor | None:
        """Return the classes ``labels`` or ``query_labels`` of so many examples; None if these are not shown."""
        found = self.shown.get(name)
        return found if found is not None and found.shape == (examples,) and not found.is_floating_point() else None

    def part(self, slot: str) -> Tensors:
        """Return a slot's part of phi, without the slot's name; empty if the slot learns nothing."""
        return knowledge_of(self.phi, slot)

    def members(self, slot: str) -> list[tuple[Component, Tensors]]:
        """Build the components that fill a slot, each with its own part of phi; none of a user's own class.

        Such a class would have to be imported.
        """
        if any(references_in(self.learner.get(slot))):
            return []
        default = {"kind": self.task.task_kind.default_loss} if slot == "loss" else {}
        component, own = (
            fill_slot(SLOTS[slot], self.learner.get(slot) or {}, default, self.task),
            knowledge_of(self.phi, slot),
        )
        if isinstance(component, Composite):
            return list(zip(component.members, component.parts(own), strict=True))
        return [(component, own)]

    def learned(self, slot: str, *kinds: type[C]) -> list[tuple[C, Tensors]]:
        """Return the members of these classes that have learned something, in float32, the figures' precision."""
        members = [(member, phi) for member, phi in self.members(slot) if isinstance(member, kinds) and phi]
        return [(member, {name: value.float() for name, value in phi.items()}) for member, phi in members]


FactsOf = Callable[[TrialKnowledge], LearnedFacts | None]
FACTS: Registry[FactsOf] = Registry("fact of meta-knowledge")


def read_knowledge(directory: Path) -> TrialKnowledge:
    """Read what the trial in ``directory`` has learned; raises CheckpointError if it has learned nothing yet."""
    loaded, learner = load_knowledge(directory), read_config(directory).learner
    shown = read_shown(directory / EPISODE_FILE)
    return TrialKnowledge(learner, read_task(directory / TASK_FILE), loaded.phi, loaded.state, shown)
