"""One file per implementation; each says which workloads it offers and how its user would run one step."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from benchmarks.bilevel import Bilevel
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.episode import Episode


class Step(NamedTuple):
    """The mean outer loss over the tasks, and its gradient by the starting parameters."""

    loss: float
    gradient: dict[str, Tensor]


Run = Callable[[], Step]
# (workload, parameters, episodes) on one device, to one outer step without the optimizer; None: not offered
Prepare = Callable[[Workload, Parameters, Sequence[Episode]], Run | None]
PrepareBilevel = Callable[[Bilevel, Parameters, Sequence[Episode]], Run | None]
