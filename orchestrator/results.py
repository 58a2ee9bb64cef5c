"""What the journal is told of a trial that is suggested, and of one that reports."""

import math
from typing import Any

from metaloom.orchestrator.proposing.study import Proposal
from metaloom.workers.records.objectives import SearchSettings
from metaloom.workers.records.trial import Report, TrialConfig


def suggestion_of(proposal: Proposal, config: TrialConfig | None) -> dict[str, Any]:
    """Return what the event of a trial's suggestion records; without ``config`` its knobs do not fit together."""
    knobs = proposal.params if proposal.resolved is None else proposal.resolved.knobs
    return {
        "knobs": dict(knobs),
        "config": None if config is None else config.to_json(),
        "sampler": proposal.origin,
        "params": proposal.params,
        "distributions": proposal.distributions,
    }


def problem_of(report: Report, settings: SearchSettings) -> str:
    """Say why a report cannot be used: an objective is missing or not a number. Empty if it can."""
    for objective in settings.objectives:
        value = report.metrics.get(objective.metric)
        if value is None:
            reported = ", ".join(sorted(report.metrics))
            return f"the trial reported no '{objective.metric}', which is an objective (it reported {reported})"
        if not math.isfinite(value):
            return f"{objective.metric} is {value} at step {report.step}"
    return ""


def result_of(report: Report, settings: SearchSettings) -> dict[str, Any]:
    """Return what a trial is worth, as the event of its end records it."""
    values = {one.metric: report.metrics[one.metric] for one in settings.objectives}
    violations = {one.name: one.violation(report.metrics) for one in settings.constraints}
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
