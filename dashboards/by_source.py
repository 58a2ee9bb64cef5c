"""The validation of the best trial on each data set, where its episodes are of several: they differ in difficulty."""

from dataclasses import dataclass
from typing import Annotated

from metaloom.workers.records import names as records
from metaloom.workers.records.trial_record import TrialRecord


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """The best trial on one of several data sets."""

    source: Annotated[str, "only of several data sets: the data set, the hardest first"]
    metric: Annotated[str, "only of several data sets: `accuracy` or `loss`"]
    validation: Annotated[
        float | None, "only there: the mean over its validation episodes; null where it is in training alone"
    ]
    interval: Annotated[tuple[float, float] | None, "only there: [low, high], 95%, of this mean"]
    episodes: Annotated[int, "only there: the number of these episodes"]
    train_loss: Annotated[
        float | None, "only there: the mean loss of its training episodes since the report before; null where none was"
    ]


def source_rows(best: TrialRecord | None) -> tuple[SourceRow, ...] | None:
    """Return the data sets of a trial, the hardest in validation first; None where it has a single one."""
    if best is None or best.last is None or not best.last.by_source:
        return None
    last, metric = best.last, best.last.scored.rpartition("_")[2]
    start = f"{records.TRAIN_LOSS}{records.OF_SOURCE}"
    trained = {name.removeprefix(start): value for name, value in last.metrics.items() if name.startswith(start)}
    rows = []
    for source in dict.fromkeys((*last.by_source, *trained)):
        mean, low, high, episodes = last.by_source.get(source, (None, None, None, 0))
        ends = None if low is None or high is None else (low, high)
        rows.append(
            SourceRow(
                source=source,
                metric=metric,
                validation=mean,
                interval=ends,
                episodes=episodes,
                train_loss=trained.get(source),
            )
        )
    worst = 1 if last.scored in records.MAXIMIZED else -1
    return tuple(sorted(rows, key=lambda row: (row.validation is None, worst * (row.validation or 0.0))))
