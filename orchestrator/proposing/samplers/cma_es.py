r"""Covariance matrix adaptation in each branch of a conditional space, as a sampler of Optuna.

Hansen, 2016, https://arxiv.org/abs/1604.00772, appendix A, as the package ``cmaes`` computes it:

    x_k ~ m + sigma N(0, C), k = 1 ... lambda;  m, sigma and C then follow the best of the x_k

The paper has neither choices nor conditions, and Optuna's own sampler adapts only the numbers that every trial has.
Here a branch consists of the trials with the same knobs, whatever their options. Univariate TPE draws the choices;
then the distribution of their branch gives all its numbers together, in a unit cube over their ranges (of the
logarithm, if the knob is log). Each lambda = 4 + floor(3 log n) ended trials of a branch, by number, form a generation,
which is described by ranks: a stopped trial ranks below completed ones, and a trial that breaks a constraint below all
others. No state is kept between suggestions, so a replayed study gives the same ones.
"""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from metaloom.learners.domains import Bounds, Choice, Real, stepped
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.samplers import base
from metaloom.orchestrator.proposing.samplers.base import Count, Define, Sampler
from metaloom.search_spaces.knobs.sampling import Domain, Suggest, Value
from metaloom.search_spaces.sections.strategies import SAMPLERS

Number: TypeAlias = FloatDistribution | IntDistribution


@SAMPLERS.register("cmaes")
@dataclass(frozen=True)
class CMAES(Sampler):
    """Covariance matrix adaptation of the numbers, in each branch of the space; univariate TPE for the choices.

    Attributes:
        startup_trials: The first trials of each branch, which univariate TPE draws.
        sigma: The initial standard deviation, as a fraction of each range; null is 1/6.
    """

    one_objective: ClassVar[bool] = True
    needs_number: ClassVar[bool] = True
    needs_knobs: ClassVar[bool] = True
    startup_trials: Count = 1
    sigma: Annotated[float | None, Real(0.01, 1.0, log=True, per=()), Bounds(above=0)] = None

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return the sampler below."""
        return BranchCMAES(
            seed=seed,
            define=define,
            independent=base.univariate(seed),
            startup_trials=self.startup_trials,
            sigma=self.sigma or 1 / 6,  # as Optuna's
        )


class BranchCMAES(BaseSampler):  # type: ignore[misc]  # optuna is not followed, so its classes are Any
    """Adapts a normal distribution over the numbers of every branch.

    Args:
        define: Asks a ``Suggest`` for each knob that exists under the choices; called once more to look ahead.
        independent: Draws the choices, and the numbers of a branch's first trials.
    """

    def __init__(
        self, *, seed: int, define: Define, independent: BaseSampler, startup_trials: int, sigma: float
    ) -> None:
        self._seed, self._define, self._independent = seed, define, independent
        self._startup_trials, self._sigma = startup_trials, sigma
        self._choices: Mapping[str, str] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Draw the choices, and return the knobs that exist under them."""
        scout = _Scout(lambda name, domain: self._independent.sample_independent(study, trial, name, domain))
        with contextlib.suppress(BadInput):  # the same error is recorded when the trial is made
            self._define(scout)
        self._choices = scout.choices
        return scout.space

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the choices, and the branch's numbers once it has enough trials."""
        branch = [ended for ended in base.ended_trials(study) if _fits(ended.params, search_space)]
        reals = {
            name: one for name, one in search_space.items() if isinstance(one, FloatDistribution | IntDistribution)
        }
        numbers = {name: domain for name, domain in reals.items() if not domain.single()}
        if not numbers or len(branch) < self._startup_trials:
            return dict(self._choices)
        ranks = [base.rank(ended, study.direction) for ended in branch]
        points = [np.array([_to_unit(numbers[name], ended.params[name]) for name in numbers]) for ended in branch]
        point = self._adapted(points, ranks).ask()
        values = {name: _from_unit(domain, at) for (name, domain), at in zip(numbers.items(), point, strict=True)}
        return {**self._choices, **values}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw the knobs of a branch's first trials, and those that a warm start lacks."""
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def _adapted(self, points: Sequence[Any], ranks: Sequence[tuple[float, bool, float]]) -> Any:
        """Return the distribution after all complete generations of these trials."""
        optimizer = self._initial(len(points[0]))
        size = optimizer.population_size
        for first in range(0, len(points) - size + 1, size):
            best_first = sorted(range(first, first + size), key=lambda index: ranks[index])
            optimizer.tell([(points[index], place) for place, index in enumerate(best_first)])
            if optimizer.should_stop():  # it has converged or diverged within floating-point precision: restart
                optimizer = self._initial(len(points[0]))
        return optimizer

    def _initial(self, dimensions: int) -> Any:
        import cmaes  # with scipy.stats, half a second that only this sampler needs

        return cmaes.CMA(
            mean=np.full(dimensions, 0.5),
            sigma=self._sigma,
            bounds=np.tile([0.0, 1.0], (dimensions, 1)),
            n_max_resampling=10 * dimensions,
            seed=(self._seed + 1) % 2**32,  # another seed than the choices', so that the numbers do not depend on them
        )


class _Scout(Suggest):
    """Draws the choices, and records the knobs that exist under them."""

    def __init__(self, draw: Callable[[str, BaseDistribution], Any]) -> None:
        self._draw = draw
        self.space: dict[str, BaseDistribution] = {}
        self.choices: dict[str, str] = {}

    def value(self, name: str, domain: Domain) -> Value:
        new = name not in self.space
        self.space[name] = distribution = base.distribution_of(domain)
        if not isinstance(domain, Choice):
            return domain.low
        if new:
            self.choices[name] = str(self._draw(name, distribution))
        return self.choices[name]


def _fits(params: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> bool:
    return params.keys() == space.keys() and all(base.holds(domain, params[name]) for name, domain in space.items())


def _range(domain: Number) -> tuple[float, float]:
    """Return the ends of a number's side of the cube, half a step wider for a number with steps."""
    margin = (domain.step or 0) / 2
    low, high = domain.low - margin, domain.high + margin
    return (math.log(low), math.log(high)) if domain.log else (low, high)


def _to_unit(domain: Number, value: float) -> float:
    low, high = _range(domain)
    return float((math.log(value) if domain.log else value) - low) / (high - low)


def _from_unit(domain: Number, at: float) -> float:
    low, high = _range(domain)
    value = low + float(at) * (high - low)
    inside = float(min(max(math.exp(value) if domain.log else value, domain.low), domain.high))
    if domain.step is not None:
        inside = stepped(domain.low, domain.high, domain.step, inside)
    return round(inside) if isinstance(domain, IntDistribution) else inside
