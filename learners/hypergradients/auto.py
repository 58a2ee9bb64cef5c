"""``auto``: which exact estimator is cheapest here, by the inner steps, what is learned, and the memory it may take.

All that it chooses among are exact and see everything, so that switching a knob to learned never makes the gradient
wrong without a word; an approximation is the user's own choice.

========================  ==========================================================================
``unroll``                short inner loops whose graphs fit: least time, and episodes can be batched
``forward``               one or two learned numbers over a long inner loop
``adjoint``               long inner loops: one graph, and theta_t of every step
``checkpointed``          where theta_t of every step would not fit either
========================  ==========================================================================
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.problem import ESTIMATORS

SHORT = 20  # inner steps up to which unrolling's graphs are affordable
FEW = 2  # learned numbers up to which a pass forwards (1 + O gradients a step) is cheaper than one back (about 4)
MB = 2**20
GRAPH = 3  # a step's graph to second order over the tensors of its forward pass
AUTO = "auto"


@dataclass(frozen=True)
class AutoConfig:
    """The memory that one episode's hypergradient may take, as estimated beforehand."""

    memory_mb: Annotated[int, Int(1, 1_000_000, log=True)] = 1024

    def __post_init__(self) -> None:
        if self.memory_mb < 1:
            raise LearnerError(f"outer.hypergradient.memory_mb must be at least 1, got {self.memory_mb}")


@dataclass(frozen=True)
class Facts:
    """What the choice depends on.

    Attributes:
        steps: Inner steps.
        numbers: Slot to how many numbers it learns.
        theta_bytes: The size of theta and of the optimizer's buffers.
        pass_bytes: What one forward pass over the training examples of a step keeps for its gradient.
    """

    steps: int
    numbers: Mapping[str, int]
    theta_bytes: int
    pass_bytes: int


@dataclass(frozen=True)
class Choice:
    """An estimator, and why."""

    kind: str
    reason: str


def choose(facts: Facts, config: AutoConfig) -> Choice:
    """Choose an exact estimator; see the table above."""
    total, steps = sum(facts.numbers.values()), facts.steps
    graph = GRAPH * (facts.theta_bytes + facts.pass_bytes)
    every, budget = steps * graph, config.memory_mb * MB
    states, pieces = steps * facts.theta_bytes + graph, 2 * math.sqrt(steps) * graph
    counted = f"{_counted(steps, 'inner step')}, {_counted(total, 'learned number')}"
    if total == 0:
        return _checked("unroll", facts, f"{counted}: there is nothing to differentiate for")
    if steps <= SHORT and every <= budget:
        return _checked("unroll", facts, f"{counted}: the graphs of all steps take about {_mb(every)}, and least time")
    if total <= FEW:
        return _checked("forward", facts, f"{counted}: pushing {total} forwards costs less than coming back")
    if states <= budget:
        told = f"the graphs of all steps would take about {_mb(every)}, every theta and one graph {_mb(states)}"
        return _checked("adjoint", facts, f"{counted}: {told}")
    told = f"every theta would take {_mb(states)}, above memory_mb: {config.memory_mb}; its root of them {_mb(pieces)}"
    return _checked("checkpointed", facts, f"{counted}: {told}")


def _checked(kind: str, facts: Facts, reason: str) -> Choice:
    unseen = [slot for slot, count in facts.numbers.items() if count and not ESTIMATORS[kind].gives_signal(slot)]
    if unseen:
        raise LearnerError(f"outer.hypergradient: auto chose {kind}, which gives no signal to {', '.join(unseen)}")
    return Choice(kind, reason)


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _mb(size: float) -> str:
    return f"{size / MB:,.0f} MB" if size >= MB else f"{size / MB:.1g} MB"
