"""The documents of ``metaloom replay --json`` and ``metaloom simulate --json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True, kw_only=True)
class RegretRow:
    """The best configuration found up to some point of the searches, over their seeds."""

    at: Annotated[float, "the number of trials that have ended, or the simulated time"]
    best: Annotated[float | None, "mean worth of the best configuration so far; null if a search has none yet"]
    best_interval: Annotated[tuple[float, float] | None, "[low, high], 95%, over the seeds; null with one seed"]
    regret: Annotated[float | None, "by how much that mean is worse than the table's best"]
    regret_interval: Annotated[tuple[float, float] | None, "[low, high], 95%, over the seeds; null with one seed"]


@dataclass(frozen=True, kw_only=True)
class ReachedRow:
    """When the searches of one strategy reached the target."""

    seeds: Annotated[int, "the number of seeds that reached the target"]
    trials: Annotated[float | None, "median over the seeds of the trials until then; null if half of them did not"]
    trials_quartiles: Annotated[tuple[float | None, float | None], "first and third quartile; null if not reached"]
    time: Annotated[float | None, "median of the simulated time until then"]


@dataclass(frozen=True, kw_only=True)
class LeftOutRow:
    """What the searches would have gone on with, and the table does not show."""

    trials: Annotated[float, "mean number of trials whose curves were seen no further, though they would have gone on"]
    steps: Annotated[float, "mean number of steps that these lack"]
    share: Annotated[float, "their share of all steps that the searches asked for"]


@dataclass(frozen=True, kw_only=True)
class StrategyRow:
    """One sampler with one scheduler, run once a seed."""

    name: Annotated[str, "the sampler and the scheduler, or `as logged`"]
    sampler: Annotated[Mapping[str, Any], "its kind and settings"]
    scheduler: Annotated[Mapping[str, Any], "its kind and settings"]
    seeds: Annotated[tuple[int, ...], "of the searches"]
    trials: Annotated[float, "mean number of trials that ended"]
    stopped: Annotated[float, "mean number of trials that the scheduler stopped early"]
    time: Annotated[float, "mean simulated time of the whole search"]
    reached: ReachedRow
    left_out: LeftOutRow
    by_trials: tuple[RegretRow, ...]
    by_time: tuple[RegretRow, ...]


@dataclass(frozen=True, kw_only=True)
class SimulationRow:
    """Simulated searches on one table: the document of ``metaloom replay`` and ``metaloom simulate``."""

    table: Annotated[str, "the table, or the search that was replayed"]
    measure: Annotated[str, "what a configuration is judged by"]
    direction: Annotated[str, "`maximize` or `minimize`"]
    configurations: Annotated[int, "the number of configurations of the table"]
    once: Annotated[bool, "whether a search may take each of them once only"]
    best: Annotated[float, "the best worth of all configurations"]
    target: Annotated[float, "what `reached` is about"]
    unit: Annotated[str, "of the simulated time: `s`, or `steps` where no time was measured"]
    workers: Annotated[int, "the number of trials at once"]
    strategies: tuple[StrategyRow, ...]
