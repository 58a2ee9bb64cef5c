"""Which of Optuna's samplers, or of our own, a search proposes with, and the seed of each suggestion."""

import hashlib
from collections.abc import Sequence

import optuna
from optuna.samplers import BaseSampler

from metaloom.learners.errors import unknown
from metaloom.orchestrator.evolution import RegularizedEvolution
from metaloom.orchestrator.failures import SearchError
from metaloom.orchestrator.state import SearchSettings

GRID = "grid"
SAMPLES_BY_ATTRIBUTE = frozenset({"cmaes", "nsga2"})
ONE_OBJECTIVE = frozenset({"cmaes", "evolution"})
SAMPLER_OPTIONS = {
    "random": (),
    "tpe": ("startup_trials", "multivariate", "group"),
    "gp": ("startup_trials",),
    "cmaes": ("startup_trials", "sigma"),
    "nsga2": ("population",),
    "evolution": ("population", "tournament"),
    GRID: (),
}


def trial_seed(seed: int, number: int, *, origins: Sequence[str] = ()) -> int:
    """Return the sampler's seed for a trial's suggestion: 32 bits, the same in every process.

    Args:
        seed: The search's.
        number: The trial's.
        origins: The trials of an earlier search that this one starts from. Most often both have one seed, and would
            draw the same knobs if the origins were not mixed in.
    """
    text = "/".join([str(seed), str(number), "suggestion", *origins])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def checked_sampler(settings: SearchSettings) -> str:
    """Return the sampler's kind; raises SearchError if it, or one of its options, does not exist or fit."""
    kind = str(settings.sampler["kind"])
    if kind not in SAMPLER_OPTIONS:
        raise SearchError(unknown("sampler", kind, SAMPLER_OPTIONS))
    for name, value in settings.sampler.items():
        if name != "kind" and value is not None and name not in SAMPLER_OPTIONS[kind]:
            raise SearchError(f"sampler {kind}: {unknown('option', name, SAMPLER_OPTIONS[kind])}")
    if kind in ONE_OBJECTIVE and len(settings.objectives) > 1:
        raise SearchError(f"sampler {kind} takes one objective; use nsga2, tpe or random for several")
    return kind


def build_sampler(settings: SearchSettings, seed: int) -> BaseSampler:
    kind = settings.sampler["kind"]
    options = {key: value for key, value in settings.sampler.items() if key != "kind" and value is not None}
    if kind == "tpe":
        # group: a multivariate model per branch of a conditional space, instead of none outside the intersection
        multivariate = options.get("multivariate", True)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=options.get("startup_trials", 10),
            multivariate=multivariate,
            group=multivariate and options.get("group", True),
            constant_liar=True,
        )
    if kind == "gp":
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=options.get("startup_trials", 10))
    if kind == "cmaes":
        startup = options.get("startup_trials", 1)
        return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=startup, sigma0=options.get("sigma"))
    if kind == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=options.get("population", 50))
    if kind == "evolution":
        population, tournament = options.get("population", 10), options.get("tournament", 3)
        return RegularizedEvolution(seed=seed, population=population, tournament=tournament)
    return optuna.samplers.RandomSampler(seed=seed)
