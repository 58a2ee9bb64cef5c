"""The configurations of a search: its trials, those of the same knobs together."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from metaloom.workers.records import names
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial_record import TrialRecord


@dataclass(frozen=True)
class Configuration:
    """The trials of the same knobs: repeats, and what the sampler has suggested twice.

    Attributes:
        trials: By number.
    """

    trials: Sequence[TrialRecord]

    @property
    def first(self) -> TrialRecord:
        """The trial that was suggested first."""
        return self.trials[0]

    def in_state(self, *states: str) -> list[TrialRecord]:
        """List its trials in any of ``states``."""
        return [trial for trial in self.trials if trial.state in states]


def configurations(search: SearchRecord) -> list[Configuration]:
    """List the configurations, by their first trials.

    Trials of the same knobs are put together where their suggestions say so, as they do since version 0.3.
    """
    groups: dict[int, list[TrialRecord]] = {}
    for number, trial in sorted(search.trials.items()):
        first = search.trials.get(number if trial.repeat_of is None else trial.repeat_of, trial)
        groups.setdefault(first.number if first.twin is None else first.twin, []).append(trial)
    return [Configuration(group) for group in groups.values()]


def twin_of(search: SearchRecord, params: dict[str, object]) -> int | None:
    """Return the first trial that was suggested with these knobs; None if there is none, or no knob is searched."""
    same = (trial.number for trial in suggested(search) if trial.config is not None and trial.params == params)
    return next(same, None) if params else None


def suggested(search: SearchRecord) -> list[TrialRecord]:
    """List the trials that the sampler has suggested: all but the repeats."""
    return [trial for _, trial in sorted(search.trials.items()) if trial.repeat_of is None]


def to_repeat(search: SearchRecord, *, finished: bool) -> TrialRecord | None:
    """Return the first suggestion that is to be trained once more; None if there is none.

    Args:
        finished: Whether its first trial must have finished, or need only not have ended.
    """
    repeats = search.settings.repeats if search.settings else 1
    if repeats == 1:
        return None
    runs: dict[int, list[TrialRecord]] = {}
    for trial in search.trials.values():
        runs.setdefault(trial.number if trial.repeat_of is None else trial.repeat_of, []).append(trial)
    for first in suggested(search):
        ready = first.state == names.FINISHED if finished else not first.ended
        mine = runs[first.number]
        if ready and len(mine) < repeats and all(trial.state != names.FAILED for trial in mine):
            return first
    return None


def asked(search: SearchRecord) -> int:
    """Return the number of trials that a search will have in all, as far as is known, repeats included."""
    if search.settings is None:
        return search.begun
    repeats, firsts = search.settings.repeats, suggested(search)
    if repeats == 1:
        return search.settings.trials
    left = max(search.settings.trials - len(firsts), 0) * repeats
    ended_early = (names.STOPPED, names.FAILED)
    return left + sum(1 if first.state in ended_early else repeats for first in firsts)


def means(scores: Sequence[Sequence[float]]) -> list[float]:
    """Return the mean of each objective over some trials."""
    return [statistics.fmean(column) if len(scores) > 1 else column[0] for column in zip(*scores, strict=True)]
