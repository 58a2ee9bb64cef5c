"""The hypergradients of an experiment against central differences, for each member of each choice."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from metaloom.learners import build_learner
from metaloom.learners.base import Learner
from metaloom.orchestrator.rehearsal import members, rehearse
from metaloom.orchestrator.store import Store
from metaloom.orchestrator.trial_configs import trial_config
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.knobs.sampling import Value
from metaloom.search_spaces.resolve import Given, Resolved, defaults, resolve
from metaloom.workers.assembly import assemble
from metaloom.workers.checking import EXACT, Check, check_hypergradient
from metaloom.workers.pretrained import bundle_start
from metaloom.workers.records.names import CACHE_FOLDER

__all__ = ["EXACT", "check"]


def check(
    experiment: Experiment, store: Path, *, trust_code: bool = False
) -> Iterator[tuple[Mapping[str, Value], Resolved, Check]]:
    """Yield the choices, what they resolve to, and the check; the first, at the default, compares all estimators.

    Raises BadInput if the experiment does not run on its data.
    """
    with Store(store).taken_back():
        rehearse(experiment, cache=store / CACHE_FOLDER, trust_code=trust_code)
    for number, (chosen, resolved) in enumerate(_distinct(experiment)):
        yield chosen, resolved, _check(experiment, resolved, store, compare=number == 0)


def _distinct(experiment: Experiment) -> Iterator[tuple[Mapping[str, Value], Resolved]]:
    """Yield the default, then each member of each choice that gives a different learner."""
    yielded: set[str] = set()
    for chosen in members(experiment):
        resolved = resolve(experiment, Given(chosen, defaults(experiment)))
        parts = json.dumps([resolved.learner, resolved.inner, resolved.outer], sort_keys=True)
        if parts not in yielded:
            yielded.add(parts)
            yield chosen, resolved


def _check(experiment: Experiment, resolved: Resolved, store: Path, *, compare: bool) -> Check:
    """Check one member; with ``compare`` every other estimator too."""
    exact = replace(
        resolved, outer={**resolved.outer, "precision": "float64"}, resources={**resolved.resources, "device": "cpu"}
    )
    config = trial_config(exact, search=experiment.name, trial=0, seed=experiment.seed)
    start = bundle_start(config.learner)
    parts = assemble(config, cache=store / CACHE_FOLDER, start=start, trust_code=True)  # rehearsed

    def build(kind: str) -> Learner:
        given = config.outer.get("hypergradient")
        own = isinstance(given, Mapping) and given.get("kind") == kind
        outer = {**config.outer, "hypergradient": given if own else {"kind": kind}, "strategy": "loop"}
        task = parts.source.shape
        return build_learner(
            learner=config.learner, inner=config.inner, outer=outer, task=task, start=start, trust_code=True
        )

    return check_hypergradient(parts.learner, parts.source, seed=experiment.seed, build=build if compare else None)
