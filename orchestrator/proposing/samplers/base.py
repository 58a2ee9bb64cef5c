"""The interface of a sampler, and what our own samplers read from Optuna's trials."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from metaloom.learners.domains import Bounds, Choice, Int
from metaloom.orchestrator.private_api import domain_contains
from metaloom.search_spaces.knobs.sampling import Domain
from metaloom.search_spaces.sections.strategies import SamplerKind

if TYPE_CHECKING:  # resolve imports torch, which only running trials needs
    from metaloom.search_spaces.resolve import Resolved, Suggest

Define = Callable[["Suggest"], "Resolved"]
STARTUP_TRIALS = 10
Count = Annotated[int, Int(1, 1000, log=True)]
Population = Annotated[int, Int(2, 1000, log=True), Bounds(at_least=2)]


class Sampler(SamplerKind, ABC):
    """A frozen dataclass of settings that builds Optuna's sampler, or one of the same interface, for a suggestion."""

    @abstractmethod
    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return the sampler of one suggestion; no state is kept between suggestions.

        Args:
            seed: The seed of the suggestion, 32 bits.
            define: Resolves the experiment through a ``Suggest``, for a sampler that looks ahead.
        """

    def point(self, number: int, define: Define) -> Mapping[str, Any] | None:
        """Return the values of suggestion ``number`` of a ``finite`` sampler, from 0; None beyond the last."""
        return {}


def univariate(seed: int) -> BaseSampler:
    """Return univariate TPE, for the knobs that another sampler's model leaves out."""
    quiet = {"constant_liar": True, "warn_independent_sampling": False}
    return TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=False, **quiet)


def ended_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials with a value, including stopped ones, by number."""
    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return [trial for trial in ended if trial.values]


def rank(trial: FrozenTrial, direction: optuna.study.StudyDirection) -> tuple[float, bool, float]:
    """Return the sort key of a trial, best first: by violation of constraints, then stopped or not, then by value."""
    broken = sum(max(violation, 0.0) for violation in (trial.constraints or {}).values())
    value = trial.values[0]
    worth = -value if direction == optuna.study.StudyDirection.MAXIMIZE else value
    return broken, trial.state != TrialState.COMPLETE, worth


def distribution_of(domain: Domain) -> BaseDistribution:
    """Return Optuna's distribution of a knob's domain."""
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.options)
    if isinstance(domain, Int):
        return IntDistribution(domain.low, domain.high, log=domain.log, step=domain.step or 1)
    return FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def holds(domain: BaseDistribution, value: Any) -> bool:
    """Return whether a knob with this domain may take another trial's value."""
    if isinstance(domain, CategoricalDistribution):
        return value in domain.choices
    return domain_contains(domain, domain.to_internal_repr(value))
