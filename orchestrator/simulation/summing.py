"""What simulated searches of several seeds come to: the best found and the regret, by trials and by time."""

import bisect
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metaloom.dashboards.simulated_rows import LeftOutRow, ReachedRow, RegretRow, StrategyRow
from metaloom.orchestrator.simulation.running import Simulation
from metaloom.workers.data.result_tables import ResultTable
from metaloom.workers.records import names as records
from metaloom.workers.records.results import mean_interval, quantile

STEPS_OF_TEN = (1, 2, 3, 5, 7)  # the numbers of trials that are shown: 1, 2, 3, 5, 7, 10, 20, ...
TIMES = 10  # so many points of time are shown
NEARLY = 1e-12  # relative, of rounding


def strategy_row(
    name: str,
    settings: Mapping[str, Any],
    table: ResultTable,
    found: Mapping[int, Simulation],
    *,
    target: float,
    until_s: float,
) -> StrategyRow:
    """Sum up the searches of one strategy.

    Args:
        settings: Its search section.
        found: The searches by their seeds.
        target: A worth, which a search reaches or not.
        until_s: The simulated time of the longest search of all strategies.
    """
    searches = list(found.values())
    paths = [worths(one) for one in searches]
    most = max((len(path) for path in paths), default=0)
    return StrategyRow(
        name=name,
        sampler=settings["sampler"],
        scheduler=settings["scheduler"],
        seeds=tuple(found),
        trials=statistics.fmean(len(path) for path in paths),
        stopped=statistics.fmean(_stopped(one) for one in searches),
        time=statistics.fmean(one.seconds for one in searches),
        reached=_reached(searches, table, target),
        left_out=_left_out(searches),
        by_trials=tuple(_row(at, [_at(path, at) for path in paths], table) for at in shown_trials(most)),
        by_time=tuple(
            _row(at_s, [_at(path, _ended_by(one, at_s)) for one, path in zip(searches, paths, strict=True)], table)
            for at_s in (until_s * (place + 1) / TIMES for place in range(TIMES))
        ),
    )


def worths(search: Simulation) -> list[float | None]:
    """Return the worth of the best configuration after each trial's end."""
    return [one.worth for one in search.ends]


def shown_trials(most: int) -> Iterator[int]:
    """Yield the numbers of trials that are shown: 1, 2, 3, 5, 7, 10, 20, ... and the last."""
    power = 1
    while power < most:
        yield from (power * step for step in STEPS_OF_TEN if power * step < most)
        power *= 10
    if most:
        yield most


def reaches(table: ResultTable, worth: float | None, target: float) -> bool:
    """Return whether a worth is as good as the target, or better."""
    if worth is None:
        return False
    short = target - worth if table.objective.direction == "maximize" else worth - target
    return short <= NEARLY * max(1.0, abs(target))


def _at(path: Sequence[float | None], trials: int) -> float | None:
    """Return the worth after so many trials; after more than there are, the last."""
    return path[min(trials, len(path)) - 1] if path and trials else None


def _ended_by(search: Simulation, at_s: float) -> int:
    """Return how many trials have ended by a time."""
    return bisect.bisect_right([one.at_s for one in search.ends], at_s * (1 + NEARLY))


def _row(at: float, bests: Sequence[float | None], table: ResultTable) -> RegretRow:
    known = [one for one in bests if one is not None]
    if len(known) < len(bests) or not known:
        return RegretRow(at=at, best=None, best_interval=None, regret=None, regret_interval=None)
    best, *ends = mean_interval(known)
    regret, *regrets = mean_interval([table.regret(one) for one in known])
    several = len(known) > 1
    return RegretRow(
        at=at,
        best=best,
        best_interval=(ends[0], ends[1]) if several else None,
        regret=regret,
        regret_interval=(max(regrets[0], 0.0), regrets[1]) if several else None,
    )


def _reached(searches: Sequence[Simulation], table: ResultTable, target: float) -> ReachedRow:
    trials, times = list[float](), list[float]()
    for one in searches:
        first = next((place for place, end in enumerate(one.ends) if reaches(table, end.worth, target)), None)
        trials.append(math.inf if first is None else first + 1)
        times.append(math.inf if first is None else one.ends[first].at_s)
    low, middle, high = (_quantile(trials, share) for share in (0.25, 0.5, 0.75))
    return ReachedRow(
        seeds=sum(map(math.isfinite, trials)),
        trials=middle,
        trials_quartiles=(low, high),
        time=_quantile(times, 0.5),
    )


def _quantile(values: Sequence[float], share: float) -> float | None:
    """Return a quantile; None if a search that has not reached the target has a part in it."""
    found = quantile(values, share)
    return found if math.isfinite(found) else None


def _stopped(search: Simulation) -> int:
    return sum(one.number not in search.unseen for one in search.record.in_state(records.STOPPED))


def _left_out(searches: Sequence[Simulation]) -> LeftOutRow:
    lacking = [sum(one.unseen.values()) for one in searches]
    seen = [sum(trial.step for trial in one.record.trials.values()) for one in searches]
    return LeftOutRow(
        trials=statistics.fmean(len(one.unseen) for one in searches),
        steps=statistics.fmean(lacking),
        share=sum(lacking) / max(1, sum(lacking) + sum(seen)),
    )
