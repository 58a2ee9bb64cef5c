"""The slots of a learner, and the base of every component that fills one.

A component is a configuration and pure functions of phi. Its part of phi carries the slot's name in front:
``update/rate/conv0.weight``. A field of its configuration that is given as ``Learned`` becomes such a part, mapped
through the field's domain.

A component never calls a generator within the inner loop, whose steps are computed again (by the adjoint, by central
differences), batched and traced. It draws its random numbers in ``draw_noise``, once per episode, and receives them
step by step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from inspect import get_annotations
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Learned, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import check_values, fields_of
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors, part, under

OUTER_STEP = "outer_step"  # the entry of a component's noise that says how far meta-training is: [steps + 1]


@dataclass(frozen=True)
class NoConfig:
    """A component with nothing to set."""


class Component:
    """What fills a slot: a frozen configuration, and pure functions of its part of phi.

    Class attributes:
        slot: The name of the slot it fills.
        Config: Its frozen dataclass, read from the annotation of ``config`` where it has one.
        learns: Whether it has meta-knowledge of its own, besides knobs given as ``Learned``.
        needs_task: Whether it is built from the shape of the task too: ``(config, task)``.
        batchable: Whether ``torch.vmap`` can run it; the episodes of an outer step are a loop where it cannot.
        traceable: Whether a trace of it pays: not where its graph has thousands of operations.
        reaches_losses: Whether the inner losses at a given theta depend on its part of phi.
        solver: The solver that serves it, if only one does; it then takes the place of the default one.
        before: Settings that came later than records of it, with what they mean where a record lacks them, if that is
            not their default.
    """

    slot: ClassVar[str]
    Config: ClassVar[type] = NoConfig
    learns: ClassVar[bool] = False
    needs_task: ClassVar[bool] = False
    batchable: ClassVar[bool] = True
    traceable: ClassVar[bool] = True
    reaches_losses: ClassVar[bool] = True
    solver: ClassVar[str] = ""
    before: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        declared = get_annotations(cls).get("config")
        if isinstance(declared, type) and is_dataclass(declared) and "Config" not in vars(cls):
            cls.Config = declared

    def __init__(self, config: Any) -> None:
        if not (is_dataclass(config) and isinstance(config, self.Config)):
            raise LearnerError(f"{self.slot}: expected a {self.Config.__name__}, got {type(config).__name__}")
        check_values(config, f"learner.{self.slot}")
        self.config = config

    def learned_knobs(self) -> dict[str, Learned]:
        """Return the configuration's fields that are learned, and how."""
        values = {f.name: getattr(self.config, f.name) for f in fields(self.config)}
        return {name: value for name, value in values.items() if isinstance(value, Learned)}

    def real(self, name: str) -> Real:
        """Return the domain of a learned field; raises LearnerError if no gradient can move the field."""
        field = fields_of(self.Config)[name]
        if not isinstance(field.domain, Real) or not field.learnable:
            raise LearnerError(f"learner.{self.slot}.{name}: {field.why_not_learned(name)}")
        return field.domain

    def start(self, name: str) -> float:
        """Return the value at which a learned field starts."""
        start = self.learned_knobs()[name].start
        start = fields_of(self.Config)[name].default if start is None else start
        if not isinstance(start, (int, float)):
            raise LearnerError(f"{self.slot}.{name} is learned and has no default: give it a start")
        return float(start)

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Return this component's part of phi, without the slot's name; ``theta`` gives the parameters' shapes."""
        return {name: self.init_knob(name, theta, generator) for name in self.learned_knobs()}

    def init_knob(self, name: str, theta: Tensors, generator: Generator) -> Tensor:
        """Return the unconstrained start of a scalar learned knob: []."""
        dtype = next(iter(theta.values())).dtype if theta else torch.get_default_dtype()
        return torch.tensor(self.real(name).unconstrained(self.start(name)), dtype=dtype)

    @property
    def random(self) -> bool:
        """Whether its part of an inner step is random, so that ``draw_noise`` must be called."""
        return False

    @property
    def anneals(self) -> bool:
        """Whether its randomness changes in the course of meta-training: its noise then includes ``OUTER_STEP``."""
        return False

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        """Return the random numbers of one episode's inner loop, of any names, each [steps + 1, ...].

        Row t is for theta_t: it serves the support pass of inner step t, and the query pass after t steps. Draw
        on the generator's own device and in any precision; the learner moves them to the examples' device.

        Args:
            examples: What the inner loop trains on, for its shape: [n, *features].
            steps: How many inner steps follow.
            generator: Source of randomness.
            training: Whether phi or theta is being learned, rather than a task evaluated or adapted to.
        """
        return {}

    def draw_query_noise(self, queries: Tensor, steps: int, generator: Generator) -> Tensors:
        """Return the random numbers that judging the queries [n, *features] takes: none, as most components."""
        return {}

    @property
    def approximation(self) -> str:
        """Describe what the gradient of what it learns leaves out by design; empty where it is complete."""
        return ""

    def knob(self, phi: Tensors, name: str) -> float | Tensor:
        """Return a field's value: a fixed number or tensor, or the learned tensor (in this component's part of phi)."""
        value = getattr(self.config, name)
        if isinstance(value, Learned):
            return self.real(name).value(phi[name])
        return value if isinstance(value, Tensor) else float(value)

    @property
    def has_knowledge(self) -> bool:
        """Whether anything of this component is learned by hypergradient."""
        return self.learns or bool(self.learned_knobs())


class TaskComponent(Component):
    """A component that is built from the shape of the task too."""

    needs_task = True

    def __init__(self, config: Any, task: TaskShape) -> None:
        super().__init__(config)
        self.task = task


class Composite(Component):
    """Several components that fill one slot together; member ``i``'s part of phi and of the noise is under ``i/``."""

    members: tuple[Component, ...]

    def __init__(self, members: Sequence[Component]) -> None:
        Component.__init__(self, NoConfig())  # not the slot's own base, which may be built from more, such as the task
        self.members = tuple(members)

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        each = [under(str(index), one.init(theta, generator)) for index, one in enumerate(self.members)]
        return {name: value for phi in each for name, value in phi.items()}

    def parts(self, tensors: Tensors) -> list[Tensors]:
        """Return each member's part of phi, or of the noise; empty for a member that has none."""
        return [part(tensors, str(index), optional=True) for index in range(len(self.members))]

    @property
    def batchable(self) -> bool:  # type: ignore[override]
        return all(member.batchable for member in self.members)

    @property
    def random(self) -> bool:
        return any(member.random for member in self.members)

    def draw_noise(self, examples: Tensor, steps: int, generator: Generator, *, training: bool) -> Tensors:
        noise: Tensors = {}
        for index, member in enumerate(self.members):
            noise |= under(str(index), member.draw_noise(examples, steps, generator, training=training))
        return noise

    @property
    def approximation(self) -> str:
        return "; ".join(dict.fromkeys(member.approximation for member in self.members if member.approximation))

    @property
    def has_knowledge(self) -> bool:
        return any(member.has_knowledge for member in self.members)


@dataclass(frozen=True)
class Slot:
    """One place of a learner that a component fills.

    Attributes:
        name: The slot's name in an experiment.
        registry: The components (subclasses of ``Component``) that may fill it.
        fixed: The kind of component by default.
        learned: The kind that the one word ``learn`` means; None where the slot has no learned kind.
        combined: How several components fill it together; None where it takes one.
    """

    name: str
    registry: Registry[Any]
    fixed: str
    learned: str | None = None
    combined: type[Composite] | None = None
