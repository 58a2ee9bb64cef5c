"""What our own samplers read from Optuna's trials: which of two is better, and whether a knob may take a value."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from metaloom.orchestrator.private_api import domain_contains


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that have a value, those that were stopped among them, by their numbers."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial for trial in ended if trial.values]


def rank(trial: FrozenTrial, direction: optuna.study.StudyDirection) -> tuple[float, bool, float]:
    """Order trials from the best: those that keep the constraints, then those that ran to their end, then by value."""
    broken = sum(max(violation, 0.0) for violation in (trial.constraints or {}).values())
    value = trial.values[0]
    worth = -value if direction == optuna.study.StudyDirection.MAXIMIZE else value
    return broken, trial.state != TrialState.COMPLETE, worth


def holds(domain: BaseDistribution, value: Any) -> bool:
    """Say whether a knob with this domain may take a value that another trial had for it."""
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    return domain_contains(domain, domain.to_internal_repr(value))
