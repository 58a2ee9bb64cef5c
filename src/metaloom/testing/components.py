"""What every component of a slot must do: what it learns starts equal from equal seeds, and gets a gradient."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from metaloom.learners import SLOTS, Learner, build_learner
from metaloom.learners.component import Component
from metaloom.learners.episode import TaskShape
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.tensors import part
from metaloom.testing.contract import Contract
from metaloom.testing.methods import FEW_SHOT, SMALL, same
from metaloom.testing.problems import IMAGES, SINGLE, begun, episode_of, seeded

PLAIN: Mapping[str, Any] = {
    "architecture": SMALL,
    "initialization": {"kind": "learned"},
    "update": {"steps": 2},
}
TASKS = {"augmentation": IMAGES, "architecture": IMAGES, "prediction": FEW_SHOT}


@dataclass(frozen=True)
class ComponentRow:
    """A small example of a component.

    Attributes:
        settings: What makes all of it that can be learned learned.
        task: What it learns from; None: images for a network and an augmentation, few-shot classification for a
            prediction, one task with all its data for the others.
        beside: Settings of the other slots; of a prediction those that it reads.
        starts: Whether the network starts at given parameters.
        after: Components that fill the slot with it, before it, where it does not fill it alone.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    task: TaskShape | None = None
    beside: Mapping[str, Any] = field(default_factory=lambda: PLAIN)
    starts: bool = False
    after: tuple[Mapping[str, Any], ...] = ()

    def task_for(self, slot: str) -> TaskShape:
        """Return what a component of this slot learns from."""
        return self.task or TASKS.get(slot, SINGLE)

    def built(self, slot: str, kind: str, strategy: str = "loop") -> Learner:
        """Build a learner with the component."""
        settings = dict(self.beside)
        if slot == "prediction":
            settings = {name: given for name, given in settings.items() if name in SOLVERS[kind].reads}
        own = {"kind": kind, **self.settings}
        settings[slot] = [*self.after, own] if self.after else own
        task, start = self.task_for(slot), None
        if self.starts:
            network = {name: PLAIN[name] for name in ("architecture", "initialization")}
            other = build_learner(learner=network, inner={}, outer={}, task=task)
            start = part(other.init(seeded(9)), "initialization")
        takes = slot != "prediction" or SOLVERS[kind].takes("unroll")
        outer = {"hypergradient": "unroll" if takes else "auto", "strategy": strategy}
        return build_learner(learner=settings, inner={}, outer=outer, task=task, start=start, trust_code=True)


class ComponentContract(Contract):
    """The contract of components, networks and update rules among them.

    Attributes:
        rows: A component's slot and kind to its small example.
    """

    rows: Mapping[tuple[str, str], ComponentRow] = {}

    def cases(self) -> Mapping[str, Iterable[Any]]:
        moved = [(slot, kind) for slot, kind in self.rows if slot != "prediction"]
        return {"component": self.rows, "batchable": [one for one in moved if SLOTS[one[0]].registry[one[1]].batchable]}

    def test_a_component_and_all_it_learns_get_a_gradient(self, component: tuple[str, str]) -> None:
        (slot, kind), row = component, self.rows[component]
        learner, task = row.built(slot, kind), row.task_for(slot)
        phi, state = begun(learner)
        learned = {name for name in phi if name.startswith(f"{slot}/")}
        registered: type[Component] = SLOTS[slot].registry[kind]
        assert issubclass(registered, Component)
        assert registered.slot == slot
        knobs = {name for name, value in row.settings.items() if isinstance(value, Mapping) and "learn" in value}
        assert bool(learned) == (registered.learns or bool(knobs))
        place = f"{slot}/{len(row.after)}" if row.after else slot
        assert all(any(name.startswith(f"{place}/{knob}") for name in learned) for knob in knobs)
        result = learner.meta_step(phi, state, [episode_of(task, 1), episode_of(task, 2)], seeded(0))
        for leaf, value in result.gradient.items():
            assert torch.isfinite(value).all(), leaf
            assert float(value.abs().max()) > 0, leaf

    def test_a_component_gives_the_same_for_each_episode_of_a_batch(self, batchable: tuple[str, str]) -> None:
        row = self.rows[batchable]
        task = row.task_for(batchable[0])
        episodes = [episode_of(task, seed) for seed in (1, 2)]
        found = []
        for strategy in ("loop", "vmap"):
            learner = row.built(*batchable, strategy)
            phi, state = begun(learner)
            found.append(learner.meta_step(phi, state, episodes, seeded(0)).gradient)
        # to rounding, of which a small gradient has most; float64 keeps that of a deep network below this
        torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)

    def test_a_component_starts_equal_from_equal_seeds(self, component: tuple[str, str]) -> None:
        learner = self.rows[component].built(*component)
        first, again = learner.init(seeded(3)), learner.init(seeded(3))
        assert set(first) == set(again)
        assert same(first, again)
