"""V13 to V15: Omniglot, Vinyals' characters with rotations as classes, 28x28, Conv-4-64."""

import operator
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import ROOT, TEST_SEED, Row, Trained, mean_at, opened, remembered, row, train
from benchmarks.reproductions.written_out import control, prototypes
from metaloom.workers.assembly import assemble
from metaloom.workers.data.base import DataError
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import Evaluation
from metaloom.workers.seeds import derive_generator

FIVE_WAYS = {"ways": 5, "queries": 15}
EARLY = (400, 600)  # training lengths of the control
HOUR_S = 3600.0


def omniglot_path() -> str:
    """Return $METALOOM_OMNIGLOT, or the file beside the checkout; raises DataError if neither is there."""
    beside = ROOT.parent / "shared" / "data" / "omniglot.npz"
    path = os.environ.get("METALOOM_OMNIGLOT", str(beside))
    if not Path(path).exists():
        raise DataError(
            f"no Omniglot at {path}: set METALOOM_OMNIGLOT to an .npz file, the image folders or their zips"
        )
    return path


def tasks(ways: int, queries: int) -> dict[str, Any]:
    """Return 1-shot tasks."""
    return {"source": "omniglot", "path": omniglot_path(), "ways": ways, "shots": 1, "queries": queries}


def v13(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Prototypical networks: 20-way 1-shot 5-query training episodes, Adam 1e-3."""
    experiment = {
        "tasks": tasks(20, 5),
        "learner": {"method": "prototypical", "architecture": {"kind": "conv4", "channels": 64}},
        "outer": {"steps": 3_000, "meta_batch": 1, "rate": 0.001, "validate_every": 200, "validation_episodes": 2},
    }
    what = "prototypical networks, 5-way 1-shot after {:,} episodes"
    gates = {400: 0.94, 600: 0.955, 3_000: 0.975}
    rows = gated("V13", what, experiment, gates, seeds, cache, lambda trained: trained.test(tasks=FIVE_WAYS))
    testing = opened({**experiment, "tasks": tasks(**FIVE_WAYS)}, TEST_SEED, cache)
    plain = [prototypes(opened(experiment, seed, cache), testing, EARLY, seed) for seed in seeds]
    setting = "inductive, batch norm frozen"
    return [*rows, *(control("V13", what.format(length), [one[length] for one in plain], setting) for length in EARLY)]


def gated(
    claim: str,
    what: str,
    experiment: Mapping[str, Any],
    gates: Mapping[int, float],
    seeds: Sequence[int],
    cache: Path,
    test: Callable[[Trained], Evaluation],
) -> list[Row]:
    """Return a row for each outer step in ``gates``, with the accuracy that its test must reach, and the time."""

    def measure(seed: int) -> dict[int, Evaluation]:
        tests: dict[int, Evaluation] = {}

        def at(step: int, trained: Trained) -> None:
            if step in gates:
                tests[step] = test(trained)
                print(f"{claim}, seed {seed}, after {step:,} steps: {tests[step].mean:.4f}", flush=True)

        train(experiment, seed=seed, cache=cache, at=at)
        return tests

    found = [remembered(claim, seed, cache, partial(measure, seed)) for seed in seeds]
    rows = []
    for step, least in gates.items():
        tests = [one.tests[step] for one in found]
        reached = partial(operator.le, least)
        rows.append(row(claim, what.format(step), tests, gate=f">= {least}", reached=reached))
    seconds = tuple(one.seconds for one in found)
    hour = max(seconds) <= HOUR_S
    return [*rows, Row(claim, "seconds of training and tests, one thread", seconds, None, "<= 3600", hour)]


def maml(method: str, steps: int, *, schedule: str) -> dict[str, Any]:
    """Return MAML's Omniglot protocol: strided Conv-4-64, alpha 0.4, 1 step to train and 3 to test, 16 tasks."""
    return {
        "tasks": tasks(5, 1),
        "learner": {
            "method": method,
            "architecture": {"kind": "conv4", "channels": 64, "pool": "stride"},
            "update": {"rate": 0.4, "steps": 1, "evaluation_steps": 3},
        },
        "outer": {
            "steps": steps,
            "meta_batch": 16,
            "rate": 0.003,  # of 0.001 and 0.003, the better on the validation classes of seed 0
            "schedule": schedule,
            "validate_every": 500,
            "validation_episodes": 2,
        },
    }


def v14(seeds: Sequence[int], cache: Path) -> list[Row]:
    """MAML, tested with one query per class as the paper does; the second training length, in the rate's schedule."""
    what = "MAML, 5-way 1-shot after {:,} iterations"
    return gated(
        "V14", what, maml("maml", 3_000, schedule="cosine"), {500: 0.89, 3_000: 0.95}, seeds, cache, Trained.test
    )


def v15(seeds: Sequence[int], cache: Path) -> list[Row]:
    """ANIL beside MAML at equal iterations: its accuracy, and the time of an inner step."""
    trained = {
        method: [train(maml(method, 500, schedule="constant"), seed=seed, cache=cache) for seed in seeds]
        for method in ("maml", "anil")
    }
    found = {method: [one.test() for one in many] for method, many in trained.items()}
    least = sum(mean_at(one, -1) for one in found["maml"]) / len(seeds) - 0.02
    pairs = zip(trained["maml"], trained["anil"], strict=True)
    faster = tuple(inner_step_seconds(slow) / inner_step_seconds(fast) for slow, fast in pairs)
    return [
        row("V15", "MAML, 5-way 1-shot after 500 iterations", found["maml"]),
        row(
            "V15",
            "ANIL, 5-way 1-shot after 500 iterations",
            found["anil"],
            gate=f">= MAML - 2 points = {least:.3f}",
            reached=lambda mean: mean >= least,
        ),
        Row(
            "V15",
            "time of an inner step, MAML's over ANIL's",
            faster,
            gate=">= 1.5",
            reached=sum(faster) / len(faster) >= 1.5,
        ),
    ]


def inner_step_seconds(trained: Trained, *, steps: int = 20) -> float:
    """Return the time of one inner step: what ``steps`` more of them add to an adaptation."""
    return (adaptation_seconds(trained, steps + 1) - adaptation_seconds(trained, 1)) / steps


def adaptation_seconds(trained: Trained, steps: int, *, episodes: int = 20) -> float:
    """Return the median time of adapting to a test episode in ``steps`` steps, the first one left out."""
    document = trained.config.to_json()
    document["learner"]["update"] = {**document["learner"]["update"], "evaluation_steps": steps}
    parts = assemble(TrialConfig.from_json(document), cache=trained.cache)
    seconds = []
    for index in range(episodes + 1):
        sampled = parts.source.episode("test", index)
        episode, generator = sampled.episode, derive_generator(sampled.seed, "evaluate")
        started = time.perf_counter()
        parts.learner.adapt(dict(trained.phi), trained.state, episode.support, generator)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
