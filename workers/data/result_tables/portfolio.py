r"""A portfolio: the configurations that a search tries first, learned from the tables of other searches.

Greedy, as that of Feurer et al., 2022, https://arxiv.org/abs/2007.04074, section 3.1:

    p_k = argmin_p  mean_t  min(min_{j < k} r_t(p_j), r_t(p))

r_t(p) is the share of the configurations of table t that are better than p, so that no table counts more than another
because of its unit. Where no configuration lowers the mean any more, the next one is that of the lowest mean share of
those left. A configuration that a table does not have counts there as its worst. Tables count together where they have
the same knobs with the same ranges; there is no portfolio across different ones.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metaloom.search_spaces.knobs.sampling import Value
from metaloom.workers.data.result_tables.base import ResultTable

Configuration = Mapping[str, Value]
Floats = NDArray[np.float64]


def same_knobs(table: ResultTable, other: ResultTable) -> bool:
    """Whether two tables have the same knobs with the same ranges and options."""
    return dict(table.domains) == dict(other.domains)


def learned_portfolio(tables: Sequence[ResultTable], size: int) -> list[Configuration]:
    """Return at most ``size`` configurations, the first of which is best alone; none without a table.

    Args:
        tables: With the same knobs.
        size: How many.
    """
    if not tables or not size:
        return []
    candidates: dict[frozenset[tuple[str, Value]], Configuration] = {}
    for table in tables:
        for one in table.configurations:
            candidates.setdefault(frozenset(one.items()), one)
    places = {key: place for place, key in enumerate(candidates)}
    shares = np.ones((len(tables), len(places)))
    for row, table in enumerate(tables):
        at = [places[frozenset(one.items())] for one in table.configurations]
        np.minimum.at(shares[row], at, share_better(table))
    configurations = list(candidates.values())
    return [configurations[place] for place in _greedy(shares, size)]


def share_better(table: ResultTable) -> Floats:
    """Return for each configuration the share of all that are better, [configurations]; 1 where it has no worth."""
    sign = -1.0 if table.objective.direction == "maximize" else 1.0
    losses = np.array([np.inf if one is None else sign * one for one in table.worth], dtype=float)
    shares = np.searchsorted(np.sort(losses), losses) / max(len(losses), 1)
    return np.where(np.isfinite(losses), shares, 1.0)


def _greedy(shares: Floats, size: int) -> list[int]:
    """Return the places of the configurations, in the order of the choice.

    Args:
        shares: [tables, configurations].
        size: At most how many.
    """
    reached, mean = np.full(shares.shape[0], np.inf), shares.mean(0)
    chosen: list[int] = []
    left = np.ones(shares.shape[1], dtype=bool)
    while len(chosen) < min(size, shares.shape[1]):
        lowered = np.minimum(reached[:, None], shares).mean(0)
        gains = bool(lowered[left].min() < reached.mean())
        place = int(np.where(left, lowered if gains else mean, np.inf).argmin())
        chosen.append(place)
        left[place] = False
        reached = np.minimum(reached, shares[:, place])
    return chosen


def scale_of(table: ResultTable) -> float:
    """Return the regret of the median configuration, which regrets are divided by; of the worst where that is 0."""
    regrets = [table.regret(one) for one in table.worth if one is not None]
    return float(np.median(regrets)) or max(regrets, default=0.0) or 1.0
