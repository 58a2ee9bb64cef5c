"""Which of Optuna's samplers, or of our own, a search proposes with, and the seed of each suggestion."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler

from metaloom.learners.errors import unknown
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.proposing.cma_es import BranchCMAES
from metaloom.orchestrator.proposing.evolution import RegularizedEvolution
from metaloom.orchestrator.state import SearchSettings

if TYPE_CHECKING:  # resolve imports torch, which only those who run trials need
    from metaloom.search_spaces.knobs.sampling import Suggest

GRID = "grid"
SAMPLES_BY_ATTRIBUTE = frozenset({"nsga2"})
STARTUP_TRIALS = 10
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


def trial_seed(seed: int, number: int, *, starts: Sequence[Mapping[str, Any]] = ()) -> int:
    """Return the sampler's seed for a trial's suggestion: 32 bits, the same in every process.

    Args:
        seed: The search's.
        number: The trial's.
        starts: The knobs that this search starts from. Most often they are of a search with the same seed, and both
            would draw the same knobs if the starts were not mixed in; their origin's name is not: names mean nothing.
    """
    text = "/".join([str(seed), str(number), "suggestion", *(json.dumps(one, sort_keys=True) for one in starts)])
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


def build_sampler(settings: SearchSettings, seed: int, define: Callable[["Suggest"], object]) -> BaseSampler:
    """Return the sampler for one suggestion.

    Args:
        settings: The search section; its sampler has passed ``checked_sampler``.
        seed: What the suggestion is drawn from.
        define: Resolves the experiment through a ``Suggest``, for a sampler that looks ahead.
    """
    kind = settings.sampler["kind"]
    options = {key: value for key, value in settings.sampler.items() if key != "kind" and value is not None}
    startup = options.get("startup_trials", STARTUP_TRIALS)
    if kind == "tpe":
        # group: a multivariate model per branch of a conditional space, instead of none outside the intersection
        multivariate = options.get("multivariate", True)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=startup,
            multivariate=multivariate,
            group=multivariate and options.get("group", True),
            constant_liar=True,
        )
    if kind == "gp":
        return optuna.samplers.GPSampler(
            seed=seed,
            n_startup_trials=startup,
            independent_sampler=_univariate(seed),  # of the knobs that not every trial has
            warn_independent_sampling=False,
        )
    if kind == "cmaes":
        return BranchCMAES(
            seed=seed,
            define=define,
            independent=_univariate(seed),
            startup_trials=options.get("startup_trials", 1),
            sigma=options.get("sigma", 1 / 6),  # as Optuna's
        )
    if kind == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=options.get("population", 50))
    if kind == "evolution":
        population, tournament = options.get("population", 10), options.get("tournament", 3)
        return RegularizedEvolution(seed=seed, population=population, tournament=tournament)
    return optuna.samplers.RandomSampler(seed=seed)


def _univariate(seed: int) -> BaseSampler:
    """Return TPE of one knob at a time, for those that another sampler's model leaves out."""
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=STARTUP_TRIALS,
        multivariate=False,
        constant_liar=True,
        warn_independent_sampling=False,
    )
