"""Bayesian optimization with a Gaussian process, as Optuna computes it."""

from dataclasses import dataclass

from optuna.samplers import BaseSampler, GPSampler

from metaloom.orchestrator.proposing.samplers.base import STARTUP_TRIALS, Count, Define, Sampler, univariate
from metaloom.search_spaces.sections.strategies import SAMPLERS


@SAMPLERS.register("gp")
@dataclass(frozen=True)
class GaussianProcess(Sampler):
    """A Gaussian process of the knobs that every trial has, including choices; univariate TPE for the others.

    Good for few continuous knobs and few trials.

    Attributes:
        startup_trials: The first trials, which are drawn at random.
    """

    startup_trials: Count = STARTUP_TRIALS

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return Optuna's sampler."""
        return GPSampler(
            seed=seed,
            n_startup_trials=self.startup_trials,
            independent_sampler=univariate(seed),  # of the knobs that not every trial has
            warn_independent_sampling=False,
        )
