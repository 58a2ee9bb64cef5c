"""The trials of the same knobs, which are judged together, as a part of the document of ``metaloom show --json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.configurations import configurations
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.search import SearchRecord


@dataclass(frozen=True, kw_only=True)
class ConfigurationRow:
    """The trials of the same knobs, which are judged together."""

    trials: Annotated[tuple[int, ...], "only where trials have the same knobs: the trials that count, the first first"]
    mean: Annotated[float, "only where trials have the same knobs: the mean of their values, by which they are judged"]
    interval: Annotated[tuple[float, float], "only where trials have the same knobs: [low, high], 95%, over the trials"]
    knobs: Annotated[Mapping[str, Any], "only where trials have the same knobs: these"]


def configuration_rows(search: SearchRecord) -> tuple[ConfigurationRow, ...] | None:
    """Return the configurations that several trials have, the best first; None if there are none."""
    several = {one.first.number: one for one in configurations(search) if len(one.trials) > 1}
    aims, found = search.settings.objectives if search.settings else (), list[ConfigurationRow]()
    metric = aims[0].metric.rpartition("_")[2] if aims else ""
    for first in ranking.ranked(search, records.FINISHED):
        one = next((each for each in several.values() if first in each.trials), None)
        if one is not None:
            values = {trial.number: ranking.value(search, trial) for trial in one.in_state(records.FINISHED)}
            known = {number: value for number, value in values.items() if value is not None}
            mean, low, high = mean_interval(list(known.values()), metric=metric)
            row = ConfigurationRow(trials=tuple(known), mean=mean, interval=(low, high), knobs=first.knobs)
            found.append(row)
    return tuple(found) if several else None
