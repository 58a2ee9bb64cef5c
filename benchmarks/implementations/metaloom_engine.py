"""This package's engine, through what a trial calls: ``build_learner(...).meta_step``."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.bilevel import PHI, THETA, WAYS, Bilevel, only
from benchmarks.implementations import PrepareBilevel, Run, Step
from benchmarks.workloads import Parameters, Workload
from metaloom.learners.base import METHODS
from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, TaskShape
from metaloom.learners.tensors import InnerState, part, under


def learner_settings(workload: Workload) -> dict[str, dict[str, Any]]:
    """Return the learner section as an experiment resolves it."""
    recipe = METHODS[workload.method]
    settings: dict[str, dict[str, Any]] = {name: dict(slot) for name, slot in recipe.learner.items()}
    conv4, mlp = {"kind": "conv4", "channels": 64}, {"kind": "mlp", "hidden": [40, 40]}
    settings["architecture"] = conv4 if workload.classification else mlp
    if workload.steps:
        settings["update"] |= {"rate": workload.rate, "steps": workload.steps}
    return settings


def prepare(workload: Workload, parameters: Parameters, episodes: Sequence[Episode]) -> Run:
    """Build the learner and return its meta-step."""
    first = episodes[0]
    outputs = int(first.support_y.max()) + 1 if workload.classification else 1
    kind = "classification" if workload.classification else "regression"
    task = TaskShape(kind, tuple(first.support_x.shape[1:]), outputs)
    outer = {name: value for name, value in METHODS[workload.method].outer.items() if name == "hypergradient"}
    learner = build_learner(learner=learner_settings(workload), inner={"batch_norm": "batch"}, outer=outer, task=task)
    generator = torch.Generator().manual_seed(0)
    phi = under("initialization", parameters)
    state = learner.begin(phi, generator)

    def run() -> Step:
        step = learner.meta_step(phi, state, episodes, generator)
        return Step(step.loss, part(step.gradient, "initialization"))

    return run


def prepare_bilevel_by(hypergradient: str | None) -> PrepareBilevel:
    """Return the preparation with an estimator; None is the recipe's own."""

    def prepare(workload: Bilevel, parameters: Parameters, episodes: Sequence[Episode]) -> Run | None:
        if not workload.offers(hypergradient):
            return None
        recipe, (episode,) = METHODS[workload.method], episodes
        settings: dict[str, dict[str, Any]] = {name: dict(slot) for name, slot in recipe.learner.items()}
        for name, slot in workload.slots.items():
            settings[name] = settings.get(name, {}) | dict(slot)
        settings["update"] |= {"rate": workload.rate, "steps": workload.steps}
        task = TaskShape("classification", tuple(episode.query_x.shape[1:]), WAYS, single_task=True)
        outer = {"hypergradient": hypergradient or "auto"}
        learner = build_learner(learner=settings, inner={"batch_norm": "batch", **recipe.inner}, outer=outer, task=task)
        generator = torch.Generator().manual_seed(0)
        phi = under(workload.slot, only(parameters, PHI))
        begun = learner.begin(phi, generator)
        buffers = {} if begun.inner is None else begun.inner.buffers
        state = replace(begun, inner=InnerState(only(parameters, THETA), buffers))

        def run() -> Step:
            step = learner.meta_step(phi, state, episodes, generator)
            return Step(step.loss, under("phi", part(step.gradient, workload.slot)))

        return run

    return prepare


prepare_exact = prepare_bilevel_by(None)
prepare_finite_difference = prepare_bilevel_by("finite_difference")
prepare_checkpointed = prepare_bilevel_by("checkpointed")
