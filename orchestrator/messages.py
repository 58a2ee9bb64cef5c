"""The Director sends a worker an assignment; the worker answers with messages. Both travel as JSON.

Also a trial's configuration, the journal's payload for its result, and what receives the events of a search.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from metaloom.workers.records.names import SEEDS_VERSION
from metaloom.workers.records.trial import Report, TrialConfig

if TYPE_CHECKING:  # they are not needed to run a trial
    from metaloom.search_spaces.resolve import Resolved
    from metaloom.search_spaces.sections.settings import SearchSettings
    from metaloom.workers.records.journal import Event
    from metaloom.workers.records.search import SearchRecord


class SearchProgress(Protocol):
    """Receives every event after it is in the journal."""

    def update(self, event: "Event", state: "SearchRecord") -> None:
        """Show the event; ``state`` includes it."""
        ...


@dataclass(frozen=True)
class Assignment:
    """A trial for a worker.

    Attributes:
        known_step: Step of its last journalled report; -1 if there is none.
    """

    config: TrialConfig
    directory: Path
    known_step: int = -1

    def to_json(self) -> str:
        """Return JSON text."""
        return json.dumps([self.config.to_json(), str(self.directory), self.known_step])

    @classmethod
    def from_json(cls, text: str) -> "Assignment":
        """Read what ``to_json`` wrote."""
        config, directory, known_step = json.loads(text)
        return cls(TrialConfig.from_json(config), Path(directory), known_step)


@dataclass(frozen=True)
class Message:
    """A worker's report of its trial, or the reason why the trial cannot go on.

    Attributes:
        worker: Host and process.
        report: None if the trial has failed.
        problem: Why it has failed; else empty.
        traceback: Of the error.
        environment: The machine is at fault (full disk, no such device), so every other trial would fail too.
    """

    trial: int
    worker: str
    report: Report | None = None
    problem: str = ""
    traceback: str = ""
    environment: bool = False

    def to_json(self) -> str:
        """Return JSON text."""
        return json.dumps({**vars(self), "report": self.report and self.report.to_json()})

    @classmethod
    def from_json(cls, text: str) -> "Message":
        """Read what ``to_json`` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "report": fields["report"] and Report.from_json(fields["report"])})


def problem_of(report: Report, settings: "SearchSettings") -> str:
    """Return why a report cannot be used (an objective is missing or not finite); empty if it can."""
    for objective in settings.objectives:
        value = report.metrics.get(objective.metric)
        if value is None:
            reported = ", ".join(sorted(report.metrics))
            return f"the trial reported no '{objective.metric}', which is an objective (it reported {reported})"
        if not math.isfinite(value):
            return f"{objective.metric} is {value} at step {report.step}"
    return ""


def result_of(report: Report, settings: "SearchSettings") -> dict[str, Any]:
    """Return a trial's result, the payload of its last event."""
    values = {objective.metric: report.metrics[objective.metric] for objective in settings.objectives}
    violations = {constraint.name: constraint.violation(report.metrics) for constraint in settings.constraints}
    first = settings.objectives[0].metric
    return {
        "metric": first,
        "value": values[first],
        "values": values,
        "violations": violations,
        "interval": list(report.interval),
        "episodes": len(report.scores),
        "steps": report.step,
        "seconds": report.seconds,
    }


def trial_config(
    resolved: "Resolved", *, search: str, trial: int, seed: int, seeds: int = SEEDS_VERSION
) -> TrialConfig:
    """Return the configuration of a trial of a search."""
    names = ("tasks", "learner", "inner", "outer", "resources", "stage", "stages")
    sections: dict[str, Any] = {name: getattr(resolved, name) for name in names}
    return TrialConfig(search=search, trial=trial, seed=seed, seeds=seeds, **sections)
