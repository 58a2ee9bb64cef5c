"""Random search (Bergstra and Bengio, 2012, https://www.jmlr.org/papers/v13/bergstra12a.html)."""

from dataclasses import dataclass

from optuna.samplers import BaseSampler, RandomSampler

from metaloom.orchestrator.proposing.samplers.base import Define, Sampler
from metaloom.search_spaces.sections.strategies import SAMPLERS


@SAMPLERS.register("random")
@dataclass(frozen=True)
class RandomSearch(Sampler):
    """Independent draws from every knob's range."""

    def build(self, seed: int, define: Define) -> BaseSampler:
        """Return Optuna's sampler."""
        return RandomSampler(seed=seed)
