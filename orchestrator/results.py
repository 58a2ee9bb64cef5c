"""A trial's configuration, and the journal's payloads for its suggestion and its result."""

import math
from typing import Any

from metaloom.search_spaces.resolve import Resolved
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records.names import SEEDS_VERSION
from metaloom.workers.records.trial import Report, TrialConfig


def problem_of(report: Report, settings: SearchSettings) -> str:
    """Return why a report cannot be used (an objective is missing or not finite); empty if it can."""
    for objective in settings.objectives:
        value = report.metrics.get(objective.metric)
        if value is None:
            reported = ", ".join(sorted(report.metrics))
            return f"the trial reported no '{objective.metric}', which is an objective (it reported {reported})"
        if not math.isfinite(value):
            return f"{objective.metric} is {value} at step {report.step}"
    return ""


def result_of(report: Report, settings: SearchSettings) -> dict[str, Any]:
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


def trial_config(resolved: Resolved, *, search: str, trial: int, seed: int, seeds: int = SEEDS_VERSION) -> TrialConfig:
    """Return the configuration of a trial of a search."""
    sections = {name: getattr(resolved, name) for name in ("tasks", "learner", "inner", "outer", "resources")}
    return TrialConfig(search=search, trial=trial, seed=seed, seeds=seeds, **sections)
