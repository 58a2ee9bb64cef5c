r"""Regularized evolution, as a sampler of Optuna.

Real, Aggarwal, Huang and Le, 2019, https://arxiv.org/abs/1802.01548, algorithm 1:

    parent     = the best of S trials drawn from the P that are youngest
    suggestion = parent with one knob changed

The oldest trials leave the population, not the worst, so a lucky score is lost unless its children score well too. The
first P trials are random. A category changes to another one; a number (the paper has none) changes by a normal step of
a tenth of its range. A knob that the parent lacks, because the change led to another branch of a conditional space, is
drawn at random. No state is kept between suggestions, so a replayed study gives the same ones.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from metaloom.learners.domains import stepped
from metaloom.orchestrator.proposing.samplers.base import Count, Define, Population, Sampler, ended_trials, holds, rank
from metaloom.search_spaces.sections.strategies import SAMPLERS

STEP = 0.1  # standard deviation of a number's change, as a fraction of its range (of the logarithm, if the knob is log)


@SAMPLERS.register("evolution")
@dataclass(frozen=True)
class Evolution(Sampler):
    """Regularized evolution: one knob of a good and recent trial changes; good for genotypes.

    Attributes:
        population: The number of trials that may be a parent, and of random first trials.
        tournament: The number of them that compete.
    """

    one_objective: ClassVar[bool] = True
    needs_knobs: ClassVar[bool] = True
    population: Population = 10
    tournament: Count = 3

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return the sampler below."""
        return RegularizedEvolution(seed=seed, population=self.population, tournament=self.tournament)


class RegularizedEvolution(BaseSampler):  # type: ignore[misc]  # optuna is not followed, so its classes are Any
    """Changes one knob of a good and recent trial.

    Args:
        population: P, the number of trials that may be the parent, and of random first trials.
        tournament: S, the number of them that compete.
    """

    def __init__(self, *, seed: int, population: int, tournament: int) -> None:
        self._random = random.Random(seed)
        self._fresh = RandomSampler(seed=seed)
        self._population, self._tournament = population, tournament
        self._parent: Mapping[str, Any] = {}
        self._changed: str | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return no knob: each is suggested on request, because it may depend on earlier ones."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Suggest nothing in advance."""
        return {}

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Choose the parent, and which of its knobs changes."""
        living = ended_trials(study)[-self._population :]
        if len(living) < self._population:
            return
        competitors = self._random.sample(living, min(self._tournament, len(living)))
        parent = min(competitors, key=lambda competitor: rank(competitor, study.direction))
        self._parent = parent.params
        movable = sorted(name for name, domain in parent.distributions.items() if not domain.single())
        self._changed = self._random.choice(movable) if movable else None

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Take the parent's value, or another one for the knob that changes; draw what the parent lacks."""
        if param_name not in self._parent or not holds(param_distribution, self._parent[param_name]):
            return self._fresh.sample_independent(study, trial, param_name, param_distribution)
        value = self._parent[param_name]
        return self._moved(value, param_distribution) if param_name == self._changed else value

    def _moved(self, value: Any, domain: BaseDistribution) -> Any:
        if isinstance(domain, CategoricalDistribution):
            return self._random.choice([option for option in domain.choices if option != value] or [value])
        if not isinstance(domain, FloatDistribution | IntDistribution):
            raise TypeError(f"regularized evolution cannot change a {type(domain).__name__}")
        low, high, at = (math.log(x) if domain.log else float(x) for x in (domain.low, domain.high, value))
        moved = _reflected(at + self._random.gauss(0, STEP) * (high - low), low, high)
        inside = min(max(math.exp(moved) if domain.log else moved, domain.low), domain.high)
        if domain.step is None:
            return inside
        kind, step = (int if isinstance(domain, IntDistribution) else float), domain.step
        nearest = kind(stepped(domain.low, domain.high, step, inside))
        if nearest != value:
            return nearest
        others = {kind(stepped(domain.low, domain.high, step, value + sign * step)) for sign in (-1, 1)} - {value}
        return self._random.choice(sorted(others) or [value])


def _reflected(at: float, low: float, high: float) -> float:
    """Reflect a number outside [low, high] back into it."""
    span = high - low
    if span <= 0:
        return low
    beyond = (at - low) % (2 * span)
    return low + min(beyond, 2 * span - beyond)
