"""V2 to V5: regression of sinusoids (Finn et al., 2017, section 5.1), MLP 1-40-40-1, 10 support and 10 query points."""

import json
import operator
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import Row, mean_at, row, train
from metaloom.workers.scoring import Evaluation

QUERIES = 100  # points an adapted model is tested on


def experiment(method: str, steps: int, **learner: Any) -> dict[str, Any]:
    """Return the protocol's experiment for a method: 25 tasks an outer step, Adam 1e-3."""
    return {
        "tasks": {"source": "sinusoid", "shots": 10, "queries": 10},
        "learner": {"method": method, "architecture": {"kind": "mlp", "hidden": [40, 40]}, **learner},
        "outer": {"steps": steps, "meta_batch": 25, "rate": 0.001, "validate_every": steps, "validation_episodes": 2},
    }


_tested: dict[tuple[str, int], Evaluation] = {}  # claims share trainings: V2 and V4, V3 and V5


def tested(settings: Mapping[str, Any], seeds: Sequence[int], cache: Path) -> list[Evaluation]:
    """Train once a seed, and test each on the same 600 tasks, with 100 query points a task."""
    for seed in seeds:
        key = (json.dumps(settings, sort_keys=True), seed)
        if key not in _tested:
            _tested[key] = train(settings, seed=seed, cache=cache).test(tasks={"queries": QUERIES})
    return [_tested[json.dumps(settings, sort_keys=True), seed] for seed in seeds]


MAML_UPDATE = {"rate": 0.01, "steps": 1, "evaluation_steps": 10}


def v2(seeds: Sequence[int], cache: Path) -> list[Row]:
    """MAML adapts in a few steps."""
    found = tested(experiment("maml", 10_000, update=MAML_UPDATE), seeds, cache)
    rows = [row("V2", "MAML, 10,000 iterations, MSE before adaptation", found, step=0)]
    for step, most in ((1, 0.60), (5, 0.25), (10, 0.20)):
        what = f"MAML, 10,000 iterations, MSE after {step} step{'s' * (step > 1)}"
        rows.append(row("V2", what, found, step=step, gate=f"<= {most}", reached=partial(operator.ge, most)))
    return rows


def v3(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Meta-SGD beats MAML at equal iterations; taken beyond its one step it diverges."""
    maml = tested(experiment("maml", 5_000, update=MAML_UPDATE), seeds, cache)
    sgd = tested(experiment("meta_sgd", 5_000, update={"evaluation_steps": 5}), seeds, cache)
    most = 0.6 * sum(mean_at(one, 1) for one in maml) / len(maml)
    return [
        row("V3", "MAML, 5,000 iterations, MSE after 1 step", maml, step=1),
        row(
            "V3",
            "Meta-SGD, 5,000 iterations, MSE after 1 step",
            sgd,
            step=1,
            gate=f"<= 0.6 x MAML = {most:.3f}",
            reached=lambda mean: mean <= most,
        ),
        row("V3", "Meta-SGD, MSE after 5 steps (trained for 1)", sgd, step=5),
    ]


def v4(seeds: Sequence[int], cache: Path) -> list[Row]:
    """A jointly pre-trained model is not a meta-learned one, at equal iterations."""
    update = {"rate": 0.02, "steps": 10}
    joint = tested(experiment("joint_pretraining", 10_000, update=update), seeds, cache)
    maml = tested(experiment("maml", 10_000, update=MAML_UPDATE), seeds, cache)
    least = 10 * sum(mean_at(one, 10) for one in maml) / len(maml)
    return [
        row("V4", "MAML, 10,000 iterations, MSE after 10 steps", maml, step=10),
        row("V4", "joint pre-training, 10,000 iterations, MSE before adaptation", joint, step=0),
        row("V4", "joint pre-training, MSE after 1 step", joint, step=1),
        row(
            "V4",
            "joint pre-training, MSE after 10 steps",
            joint,
            step=10,
            gate=f">= 10 x MAML = {least:.2f}",
            reached=lambda mean: mean >= least,
        ),
    ]


def v5(seeds: Sequence[int], cache: Path) -> list[Row]:
    """First order costs accuracy here, whatever it does on miniImageNet; so does adapting the head alone."""
    rows: list[Row] = []
    for method in ("maml", "first_order_maml", "anil"):
        found = tested(experiment(method, 5_000, update=MAML_UPDATE), seeds, cache)
        rows += [row("V5", f"{method}, 5,000 iterations, MSE after {step} steps", found, step=step) for step in (1, 10)]
    return rows
