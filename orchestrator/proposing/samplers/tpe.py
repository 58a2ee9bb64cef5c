"""Tree-structured Parzen estimators (Bergstra et al., 2011; Optuna's, https://arxiv.org/abs/2304.11127)."""

from dataclasses import dataclass

from optuna.samplers import BaseSampler, TPESampler

from metaloom.orchestrator.proposing.samplers.base import STARTUP_TRIALS, Count, Define, Sampler
from metaloom.search_spaces.sections.strategies import SAMPLERS


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

    startup_trials: Count = STARTUP_TRIALS
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
