"""The journal's payloads for a suggested trial and for a trial's result."""

import math
from typing import Any

from metaloom.orchestrator.proposing.study import Proposal
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.workers.records.trial import Report, TrialConfig


def suggestion_of(proposal: Proposal, config: TrialConfig | None) -> dict[str, Any]:
    """Return the payload of a trial's suggestion; ``config`` is None if its knobs contradict each other."""
    knobs = proposal.params if proposal.resolved is None else proposal.resolved.knobs
    return {
        "knobs": dict(knobs),
        "config": None if config is None else config.to_json(),
        "sampler": proposal.origin,
        "params": proposal.params,
        "distributions": proposal.distributions,
    }


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
