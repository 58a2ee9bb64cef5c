r"""Regularized evolution, as a sampler of Optuna.

Real, Aggarwal, Huang and Le, 2019, https://arxiv.org/abs/1802.01548, algorithm 1:

    parent     = the best of S trials drawn from the P that are youngest
    suggestion = parent with one knob changed

The oldest die, not the worst: a lucky score is forgotten unless its children score too. The first P trials
are random. A category moves to another one; a number, of which the paper has none, moves by a normal step of a
tenth of its range. A knob that the parent lacks, because the change opened another branch of a conditional
space, is drawn at random. Nothing is kept from one suggestion to the next: a replayed study gives the same.
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

from metaloom.orchestrator.proposing.samplers.base import Count, Define, Population, Sampler, ended_trials, holds, rank
from metaloom.search_spaces.sections.strategies import SAMPLERS

STEP = 0.1  # standard deviation of a number's change, of its range (of the logarithm's, where the knob is log)


@SAMPLERS.register("evolution")
@dataclass(frozen=True)
class Evolution(Sampler):
    """Regularized evolution: one knob of a good and recent trial changes; good for genotypes.

    Attributes:
        population: The trials that may be a parent; as many begin at random.
        tournament: How many of them compete.
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
        seed: What the suggestion is drawn from.
        population: P, the trials that may become a parent, and the random ones at the beginning.
        tournament: S, how many of them compete to become it.
    """

    def __init__(self, *, seed: int, population: int, tournament: int) -> None:
        self._random = random.Random(seed)
        self._fresh = RandomSampler(seed=seed)
        self._population, self._tournament = population, tournament
        self._parent: Mapping[str, Any] = {}
        self._changed: str | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every knob is suggested when it is asked for: which there are depends on those before."""
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
        drawn = self._random.sample(living, min(self._tournament, len(living)))
        parent = min(drawn, key=lambda one: rank(one, study.direction))
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
            return self._random.choice([one for one in domain.choices if one != value] or [value])
        if not isinstance(domain, FloatDistribution | IntDistribution):
            raise TypeError(f"regularized evolution cannot change a {type(domain).__name__}")
        low, high, at = (math.log(x) if domain.log else float(x) for x in (domain.low, domain.high, value))
        moved = _reflected(at + self._random.gauss(0, STEP) * (high - low), low, high)
        found = min(max(math.exp(moved) if domain.log else moved, domain.low), domain.high)
        if isinstance(domain, FloatDistribution):
            return found
        if round(found) != value:
            return round(found)
        others = [one for one in (value - 1, value + 1) if domain.low <= one <= domain.high]
        return self._random.choice(others or [value])


def _reflected(at: float, low: float, high: float) -> float:
    """Fold a number that left [low, high] back into it."""
    span = high - low
    if span <= 0:
        return low
    beyond = (at - low) % (2 * span)
    return low + min(beyond, 2 * span - beyond)
