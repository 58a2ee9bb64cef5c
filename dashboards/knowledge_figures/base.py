"""What a figure of meta-knowledge is given, and what it gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaloom.learners.component import Component, Composite
from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.reference import references_in
from metaloom.learners.registry import Registry
from metaloom.learners.slots import SLOTS, fill_slot
from metaloom.learners.tensors import Tensors, part
from metaloom.workers.bundle_writing import read_task
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.records.names import TASK_FILE
from metaloom.workers.records.trial import read_config

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Known:
    """What a trial has learned, and the learner that it belongs to.

    Attributes:
        learner: The resolved learner section: slot to its settings, ``kind`` among them.
        task: The shape of its tasks.
        phi: All meta-knowledge, each name with its slot in front; on the CPU.
        state: The learner's state, such as an online learner's network; on the CPU.
    """

    learner: Mapping[str, Any]
    task: TaskShape
    phi: Tensors
    state: Tensors

    def part(self, slot: str) -> Tensors:
        """Return a slot's part of phi, without the slot's name; empty if nothing of it is learned."""
        return part(self.phi, slot)

    def members(self, slot: str) -> list[tuple[Component, Tensors]]:
        """Build what fills a slot: each component (several may fill one slot together) with its own part of phi.

        None of a class of the user's own, which would have to be imported.
        """
        if any(references_in(self.learner.get(slot))):
            return []
        default = {"kind": self.task.task_kind.default_loss} if slot == "loss" else {}
        component, own = fill_slot(SLOTS[slot], self.learner.get(slot) or {}, default, self.task), self.part(slot)
        if isinstance(component, Composite):
            return [(member, part(own, str(number))) for number, member in enumerate(component.members)]
        return [(component, own)]


@dataclass(frozen=True)
class Picture:
    """One figure of what was learned.

    Attributes:
        name: Of its file, without a suffix: lower-case letters, digits and hyphens.
        caption: What was learned, in one or two sentences with its numbers.
        figure: The figure itself.
    """

    name: str
    caption: str
    figure: "Figure"


Drawer = Callable[[Known], "Picture | None"]
DRAWERS: Registry[Drawer] = Registry("figure of meta-knowledge")


def known_of(directory: Path) -> Known:
    """Read what the trial in ``directory`` has learned; raises CheckpointError if that is nothing yet."""
    knowledge, learner = load_knowledge(directory), read_config(directory).learner
    return Known(learner, read_task(directory / TASK_FILE), knowledge.phi, knowledge.state)


def pictures(known: Known) -> list[Picture]:
    """Draw everything there is to see of what was learned, in the order of the drawers' names."""
    drawn = (DRAWERS[name](known) for name in sorted(DRAWERS))
    return [picture for picture in drawn if picture is not None]
