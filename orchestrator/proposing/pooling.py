"""With ``search.repeats`` a sampler sees each suggestion once: by the mean of its trials, when all have ended."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event

ENDS = (records.TRIAL_FINISHED, records.TRIAL_STOPPED, records.TRIAL_FAILED)


@dataclass
class _Suggestion:
    """The trials of one suggestion: their last events, and their last reports."""

    number: int
    ends: dict[int, Event | None] = field(default_factory=dict)  # by trial, the first one first; None: not ended
    reports: dict[int, Mapping[str, Any]] = field(default_factory=dict)


class PooledEvents:
    """Turns the events of trials into those of suggestions, numbered as the sampler proposes them."""

    def __init__(self, settings: SearchSettings) -> None:
        self._repeats = settings.repeats
        self._of_trial: dict[int, _Suggestion] = {}
        self._count = 0

    def of(self, event: Event) -> Iterator[Event]:
        """Yield what the event means for the suggestion of its trial; nothing before all its trials have ended."""
        if event.trial is None:
            return
        if event.kind == records.TRIAL_SUGGESTED:
            yield from self._suggested(event, event.trial)
        elif event.kind == records.TRIAL_REPORTED:
            self._of_trial[event.trial].reports[event.trial] = event.payload["report"]
        elif event.kind in ENDS and event.payload.get("reason") != records.OUT_OF_TIME:  # such a trial may go on
            yield from self._ended(self._of_trial[event.trial], event, event.trial)

    def _suggested(self, event: Event, trial: int) -> Iterator[Event]:
        first = event.payload.get("repeat_of")
        if first is not None:
            suggestion = self._of_trial[first]
        else:
            suggestion = _Suggestion(self._count)
            self._count += 1
            yield replace(event, trial=suggestion.number)
        self._of_trial[trial] = suggestion
        suggestion.ends[trial] = None

    def _ended(self, suggestion: _Suggestion, event: Event, trial: int) -> Iterator[Event]:
        suggestion.ends[trial] = event
        ends = [end for end in suggestion.ends.values() if end is not None]
        is_cut = ends[0].kind != records.TRIAL_FINISHED or any(end.kind == records.TRIAL_FAILED for end in ends)
        if len(ends) < len(suggestion.ends) or (len(ends) < self._repeats and not is_cut):
            return
        valued = [end for end in ends if end.kind != records.TRIAL_FAILED and end.payload.get("values")]
        if not valued:
            yield replace(event, trial=suggestion.number)
            return
        reports = [report for number, report in suggestion.reports.items() if suggestion.ends[number] in valued]
        step = max((report["step"] for report in reports), default=0)
        metrics = _means([report["metrics"] for report in reports])
        yield replace(
            event,
            kind=records.TRIAL_REPORTED,
            trial=suggestion.number,
            payload={"report": {"step": step, "metrics": metrics}},
        )
        whole = len(valued) == len(ends) and all(end.kind == records.TRIAL_FINISHED for end in ends)
        payload = {
            "step": step,
            "reason": next((end.payload["reason"] for end in ends if end.payload.get("reason")), ""),
            "values": _means([end.payload["values"] for end in valued]),
            "violations": _worst([end.payload.get("violations") or {} for end in valued]),
        }
        kind = records.TRIAL_FINISHED if whole else records.TRIAL_STOPPED
        yield replace(event, kind=kind, trial=suggestion.number, payload=payload)


def _means(rows: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each number that all rows have."""
    shared = [name for name in rows[0] if all(name in row for row in rows)] if rows else []
    return {name: statistics.fmean(row[name] for row in rows) for name in shared}


def _worst(rows: list[Mapping[str, float]]) -> dict[str, float]:
    return {name: max(row[name] for row in rows) for name in rows[0]}
