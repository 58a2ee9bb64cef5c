"""``auto``: the cheapest exact estimator, by the inner steps, by what is learned, and by the memory it may take.

Every estimator that it chooses among is exact and sees everything, so that switching a knob to learned never makes the
gradient silently wrong. An approximation is the user's own choice.

========================  ==========================================================================
``unroll``                short inner loops whose graphs fit: least time, and episodes can be batched
``forward``               one or two learned numbers over a long inner loop
``adjoint``               long inner loops: one graph, and theta_t of every step
``checkpointed``          where theta_t of every step would not fit either
========================  ==========================================================================
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from metaloom.learners.domains import Int
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import make_config
from metaloom.learners.hypergradients.problem import ESTIMATORS, Estimator

SHORT = 20  # inner steps up to which unrolling's graphs are affordable
FEW = 2  # learned numbers up to which a pass forwards (1 + O gradients a step) is cheaper than one back (about 4)
MB = 2**20
GRAPH = 3  # a step's graph to second order over the tensors of its forward pass
AUTO = "auto"
HYPERGRADIENT = "outer.hypergradient"  # the place of the settings in an experiment


@dataclass(frozen=True)
class AutoConfig:
    """The memory that one episode's hypergradient may take, as estimated beforehand."""

    memory_mb: Annotated[int, Int(1, 1_000_000, log=True)] = 1024


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


def make_estimator(settings: str | Mapping[str, Any], facts: Callable[[], Facts]) -> tuple[Estimator, str]:
    """Build an estimator from its name, or its ``kind`` and settings; return it with why ``auto`` chose it."""
    rest, reason = {"kind": settings} if isinstance(settings, str) else dict(settings), ""
    kind = rest.pop("kind", AUTO)
    if kind == AUTO:
        kind, reason = choose(facts(), make_config(AutoConfig, rest, HYPERGRADIENT, kind))
        rest = {}
    return ESTIMATORS[kind](make_config(ESTIMATORS[kind].Config, rest, HYPERGRADIENT, kind)), reason


def choose(facts: Facts, config: AutoConfig) -> tuple[str, str]:
    """Return the name of an exact estimator by the table above, and why it was chosen."""
    kind, reason = _cheapest(facts, sum(facts.numbers.values()), config.memory_mb)
    unseen = [slot for slot, count in facts.numbers.items() if count and not ESTIMATORS[kind].gives_signal(slot)]
    if unseen:
        raise LearnerError(f"outer.hypergradient: auto chose {kind}, which gives no signal to {', '.join(unseen)}")
    counted = f"{_counted(facts.steps, 'inner step')}, {_counted(sum(facts.numbers.values()), 'learned number')}"
    return kind, f"{counted}: {reason}"


def _cheapest(facts: Facts, total: int, memory_mb: int) -> tuple[str, str]:
    graph = GRAPH * (facts.theta_bytes + facts.pass_bytes)
    every, states = facts.steps * graph, facts.steps * facts.theta_bytes + graph
    if total == 0:
        return "unroll", "there is nothing to differentiate for"
    if facts.steps <= SHORT and every <= memory_mb * MB:
        return "unroll", f"the graphs of all steps take about {_mb(every)}, and least time"
    if total <= FEW:
        return "forward", f"pushing {total} forwards costs less than coming back"
    if states <= memory_mb * MB:
        return (
            "adjoint",
            f"the graphs of all steps would take about {_mb(every)}, every theta and one graph {_mb(states)}",
        )
    root = _mb(2 * math.sqrt(facts.steps) * graph)
    return (
        "checkpointed",
        f"every theta would take {_mb(states)}, above memory_mb: {memory_mb}; its root of them {root}",
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _mb(size: float) -> str:
    return f"{size / MB:,.0f} MB" if size >= MB else f"{size / MB:.1g} MB"
