"""V1: are the hypergradients exact? Relative error against central differences in float64, the worst learned knob.

What is left of the error, about 1e-10, is the differences' own: their curvature falls with the square of the
displacement, and their rounding grows with its inverse (``DISPLACEMENTS`` of ``metaloom.workers.checking``).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import Row
from metaloom import learners
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.checking import check_hypergradient
from metaloom.workers.data import open_source

MOST = 1e-8
SINE = {"source": "sinusoid", "shots": 10, "queries": 10}
TANH = {"kind": "mlp", "hidden": [40, 40], "activation": "tanh"}  # no kinks for the differences to step over
LINEAR = {"kind": "mlp", "hidden": []}
RATES = {"rate": {"learn": {"per": "layer_step", "start": 0.01}}, "steps": 5}


def experiment(method: str, estimator: Mapping[str, Any], **learner: Any) -> dict[str, Any]:
    """Return an experiment on the sine tasks."""
    return {"tasks": SINE, "learner": {"method": method, **learner}, "outer": {"hypergradient": estimator}}


CASES: dict[str, dict[str, Any]] = {
    "unroll, 5 steps, initialization and per-layer per-step rates": experiment(
        "maml", {"kind": "unroll"}, architecture=TANH, update=RATES
    ),
    "adjoint, 5 steps, initialization and per-layer per-step rates": experiment(
        "maml", {"kind": "adjoint"}, architecture=TANH, update=RATES
    ),
    "conjugate gradient at convergence, proximal linear regression": experiment(
        "imaml",
        {"kind": "conjugate_gradient", "iterations": 10},
        architecture=LINEAR,
        update={"rate": 0.05, "steps": 200, "momentum": 0.0},
    )
    | {"inner": {"proximal": 2.0}},
}


def v1(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Unroll, adjoint and converged conjugate gradient agree with central differences."""
    rows = []
    for name, document in CASES.items():
        loaded = load_experiment(document)
        one = resolve(loaded, defaults(loaded))
        errors = []
        for seed in seeds:
            source = open_source(one.tasks, seed=seed, cache=cache)
            learner = learners.build_learner(learner=one.learner, inner=one.inner, outer=one.outer, task=source.shape)
            check = check_hypergradient(learner, source, seed=seed)
            errors.append(max(knob.relative_error for knob in check.knobs.values()))
        worst = max(errors)
        rows.append(
            Row("V1", f"relative error: {name}", tuple(errors), None, f"<= {MOST:.0e}", worst <= MOST, "float64")
        )
    return rows
