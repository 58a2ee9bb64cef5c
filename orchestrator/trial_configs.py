"""Builds a trial's configuration from the resolved experiment."""

from metaloom.search_spaces.resolve import Resolved
from metaloom.workers.records.names import SEEDS_VERSION
from metaloom.workers.records.trial import TrialConfig


def trial_config(resolved: Resolved, *, search: str, trial: int, seed: int, seeds: int = SEEDS_VERSION) -> TrialConfig:
    """Return the configuration of a trial of a search."""
    return TrialConfig(
        search=search,
        trial=trial,
        seed=seed,
        tasks=resolved.tasks,
        learner=resolved.learner,
        inner=resolved.inner,
        outer=resolved.outer,
        resources=resolved.resources,
        seeds=seeds,
    )
