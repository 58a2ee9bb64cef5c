"""NSGA-II (Deb et al., 2002, https://doi.org/10.1109/4235.996017), as Optuna computes it."""

from dataclasses import dataclass
from typing import ClassVar

from optuna.samplers import BaseSampler, NSGAIISampler

from metaloom.orchestrator.proposing.samplers.base import Define, Population, Sampler
from metaloom.search_spaces.sections.strategies import SAMPLERS


@SAMPLERS.register("nsga2")
@dataclass(frozen=True)
class NSGA2(Sampler):
    """A genetic algorithm for several objectives.

    Attributes:
        population: Trials of a generation.
    """

    keeps_attributes: ClassVar[bool] = True
    population: Population = 50

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return Optuna's sampler."""
        return NSGAIISampler(seed=seed, population_size=self.population)
