"""M12: one member of each family of few-shot learners on Omniglot, Conv-4-64, at equal CPU time."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import Row, mean_at, remembered, row, train
from benchmarks.reproductions.omniglot import omniglot_path
from metaloom.workers.records.results import mean_interval
from metaloom.workers.scoring import Evaluation

SIZES: Mapping[str, Mapping[str, int]] = {
    "5-way 1-shot": {"ways": 5, "shots": 1, "queries": 15},
    "20-way 5-shot": {"ways": 20, "shots": 5, "queries": 5},
}
CPU_SECONDS = 120.0  # of training, the same for each learner
PROBE_STEPS = 10  # of a trial before it, which tell what a step takes
PLAIN = {"kind": "conv4", "channels": 64}
LEARNERS: Mapping[str, Mapping[str, Any]] = {
    "MAML": {
        "method": "maml",
        "architecture": {**PLAIN, "pool": "stride"},
        "update": {"rate": 0.4, "steps": 1, "evaluation_steps": 3},
    },
    "prototypical networks": {"method": "prototypical", "architecture": PLAIN},
    "matching networks": {"method": "matching", "architecture": PLAIN},
    "relation networks": {"method": "relation", "architecture": {**PLAIN, "halvings": 2}},
    "graph networks": {"method": "graph", "architecture": PLAIN},
    "SNAIL": {"method": "snail", "architecture": PLAIN},
    "Simple CNAPs": {"method": "simple_cnaps", "architecture": PLAIN},
    "R2-D2": {"method": "r2d2", "architecture": PLAIN},
    "MetaOptNet": {"method": "metaoptnet", "architecture": PLAIN},
    "PT+MAP (transductive)": {"method": "pt_map", "architecture": PLAIN},
}


def experiment(learner: Mapping[str, Any], sizes: Mapping[str, int], steps: int) -> dict[str, Any]:
    """Return training on episodes of the sizes of the test, one an outer step, Adam 1e-3, validated at its end."""
    outer = {"steps": steps, "meta_batch": 1, "rate": 0.001, "validate_every": steps, "validation_episodes": 2}
    return {
        "tasks": {"source": "omniglot", "path": omniglot_path(), **sizes},
        "learner": dict(learner),
        "outer": outer,
    }


def steps_within(learner: Mapping[str, Any], sizes: Mapping[str, int], seed: int, cache: Path) -> int:
    """Return how many outer steps of a learner take the CPU time that each has; the first ones warm up."""
    taken = []
    for steps in (PROBE_STEPS, 2 * PROBE_STEPS):
        started = time.process_time()
        train(experiment(learner, sizes, steps), seed=seed, cache=cache)
        taken.append(time.process_time() - started)
    each = max(taken[1] - taken[0], 1e-6) / PROBE_STEPS
    return max(PROBE_STEPS, int(CPU_SECONDS / each))


def measured(learner: Mapping[str, Any], sizes: Mapping[str, int], seed: int, cache: Path) -> dict[int, Evaluation]:
    """Train a learner for its CPU time, and return its test by the number of its outer steps."""
    steps = steps_within(learner, sizes, seed, cache)
    return {steps: train(experiment(learner, sizes, steps), seed=seed, cache=cache).test()}


def m12(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Accuracy, seconds to adapt, and what the best learner is better by, on the same test episodes."""
    rows: list[Row] = []
    for sizes_name, sizes in SIZES.items():
        tests: dict[str, list[Evaluation]] = {}
        for name, learner in LEARNERS.items():
            key = f"M12-{sizes_name.replace(' ', '-')}-{learner['method']}"
            found = [remembered(key, seed, cache, partial(measured, learner, sizes, seed, cache)) for seed in seeds]
            tests[name] = [next(iter(one.tests.values())) for one in found]
            steps = ", ".join(f"{next(iter(one.tests)):,}" for one in found)
            rows.append(
                row("M12", f"{sizes_name}: {name} after {steps} outer steps, {CPU_SECONDS:.0f} CPU s", tests[name])
            )
            seconds = tuple(one.seconds for one in tests[name])
            rows.append(Row("M12", f"{sizes_name}: {name}, seconds to adapt to an episode and predict", seconds))
        best = max(tests, key=lambda name: sum(mean_at(one, -1) for one in tests[name]))
        rows += [behind(sizes_name, best, name, tests) for name in tests if name != best]
    return rows


def behind(sizes: str, best: str, name: str, tests: Mapping[str, Sequence[Evaluation]]) -> Row:
    """Return by how much the best learner is better than another one on the same episodes."""
    pairs = zip(tests[best], tests[name], strict=True)
    each = [[ours - theirs for ours, theirs in zip(a.scores, b.scores, strict=True)] for a, b in pairs]
    _, low, high = mean_interval([value for one in each for value in one])
    values = tuple(sum(one) / len(one) for one in each)
    return Row("M12", f"{sizes}: {best} less {name}, paired", values, (low, high))
