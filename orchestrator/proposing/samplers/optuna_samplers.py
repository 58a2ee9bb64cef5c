"""Optuna's own samplers.

- random: Bergstra and Bengio, 2012, https://www.jmlr.org/papers/v13/bergstra12a.html
- tpe: Bergstra et al., 2011; as Optuna computes it, https://arxiv.org/abs/2304.11127
- gp: Bayesian optimization with a Gaussian process, as Optuna computes it
- nsga2: Deb et al., 2002, https://doi.org/10.1109/4235.996017, as Optuna computes it
"""

from dataclasses import dataclass
from typing import ClassVar

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from metaloom.orchestrator.proposing.samplers import base
from metaloom.orchestrator.proposing.samplers.base import Count, Define, Sampler
from metaloom.search_spaces.sections.strategies import SAMPLERS


@SAMPLERS.register("random")
@dataclass(frozen=True)
class RandomSearch(Sampler):
    """Independent draws from every knob's range."""

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return Optuna's sampler."""
        return RandomSampler(seed=seed)


@SAMPLERS.register("tpe")
@dataclass(frozen=True)
class TPE(Sampler):
    """Tree-structured Parzen estimators; good for conditional spaces.

    Attributes:
        startup_trials: The first trials, which are drawn at random.
        multivariate: Whether the knobs of a branch have one model; else each knob has its own.
        group: Whether each branch of a conditional space has its own multivariate model; else the knobs that some
            trials lack are drawn at random.
    """

    startup_trials: Count = base.STARTUP_TRIALS
    multivariate: bool = True
    group: bool = True

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return Optuna's sampler."""
        return TPESampler(
            seed=seed,
            n_startup_trials=self.startup_trials,
            multivariate=self.multivariate,
            group=self.multivariate and self.group,
            constant_liar=True,
        )


@SAMPLERS.register("gp")
@dataclass(frozen=True)
class GaussianProcess(Sampler):
    """A Gaussian process of the knobs that every trial has, including choices; univariate TPE for the others.

    Good for few continuous knobs and few trials.

    Attributes:
        startup_trials: The first trials, which are drawn at random.
    """

    startup_trials: Count = base.STARTUP_TRIALS

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return Optuna's sampler."""
        return GPSampler(
            seed=seed,
            n_startup_trials=self.startup_trials,
            independent_sampler=base.univariate(seed),  # of the knobs that not every trial has
            warn_independent_sampling=False,
        )


@SAMPLERS.register("nsga2")
@dataclass(frozen=True)
class NSGA2(Sampler):
    """A genetic algorithm for several objectives.

    Attributes:
        population: Trials of a generation.
    """

    keeps_attributes: ClassVar[bool] = True
    population: base.Population = 50

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return Optuna's sampler."""
        return NSGAIISampler(seed=seed, population_size=self.population)
