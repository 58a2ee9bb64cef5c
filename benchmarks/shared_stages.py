"""What trials after one pre-training cost: one pre-training and their adaptations, or one pre-training each.

    python -m benchmarks.shared_stages [--trials 12] [--steps 300] [--adapt-steps 60] [--turns 3]

Three searches on generated glyphs, one trial at a time in this process, each in a store of its own with the data
prepared: the pre-training alone, as one trial; the adaptations alone, each from a bundle of that pre-training; and both
as stages of one experiment. The promise is that the last costs at most 1.15 times the sum of the first two. Times are
the CPU time of the process, so that other work on the machine does not count, and the wall time beside it.
"""

import argparse
import json
import logging
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import DOCS, STAGES, keep, machine
from metaloom.orchestrator.api import search
from metaloom.orchestrator.export import export
from metaloom.orchestrator.store import Store
from metaloom.workers.data import open_source
from metaloom.workers.records.names import CACHE_FOLDER

TASKS = {"source": "glyphs", "ways": 5, "shots": 1, "queries": 5}
NETWORK = {"kind": "conv4", "channels": 16}
EPISODES = {"validation_episodes": 20, "test_episodes": 20}


def pretraining(steps: int) -> dict[str, Any]:
    """Return the sections of the stage that all trials share."""
    learner = {"method": "prototypical", "architecture": NETWORK}
    return {
        "tasks": TASKS,
        "learner": learner,
        "outer": {"steps": steps, "validate_every": max(1, steps // 2), **EPISODES},
    }


def adaptation(start: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return the sections of the trials, which differ by their outer rate."""
    learner = {"method": "prototypical", "architecture": NETWORK, "initialization": start}
    rate = {"search": {"low": 1e-4, "high": 1e-2, "log": True}}
    return {
        "tasks": TASKS,
        "learner": learner,
        "outer": {"steps": steps, "validate_every": steps, "rate": rate, **EPISODES},
    }


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return the CPU time and the wall time of some work."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def run(document: dict[str, Any], store: Path, name: str, trials: int) -> None:
    """Run a search to its end."""
    settings = {"trials": trials, "sampler": "random"}
    ended = search({**document, "name": name, "search": settings}, store=store, executor="inline")
    assert ended.state == "finished", ended.failed


def turn(folder: Path, prepared: Path, trials: int, steps: int, adapt_steps: int) -> list[tuple[float, float]]:
    """Measure the pre-training, the adaptations and both together; the CPU and the wall time of each."""
    stores = [folder / name for name in ("before", "after", "staged")]
    for store in stores:
        shutil.copytree(prepared, Store(store).create().cache, dirs_exist_ok=True)
    before, after, staged = stores
    one = seconds(lambda: run(pretraining(steps), before, "before", 1))
    bundle = str(export("before", folder / "bundle", store=before, episodes=0))
    alone = adaptation({"kind": "fine_tuned", "bundle": bundle}, adapt_steps)
    many = seconds(lambda: run(alone, after, "after", trials))
    last = adaptation({"from": "pretrain"}, adapt_steps)
    stages = [{"name": "pretrain", **pretraining(steps)}, {"name": "adapt", **last}]
    return [one, many, seconds(lambda: run({"stages": stages}, staged, "staged", trials))]


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300, help="outer steps of the pre-training")
    parser.add_argument("--adapt-steps", type=int, default=60, help="outer steps of each trial after it")
    parser.add_argument("--turns", type=int, default=3, help="measurements of all three; the medians are kept")
    parser.add_argument("--out", type=Path, default=DOCS, help="the folder of the page and its records")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        prepared = Path(temporary) / CACHE_FOLDER
        open_source(TASKS, seed=0, cache=prepared)
        turn(Path(temporary) / "warm", prepared, 1, 2, 1)  # what is loaded once in a process is no part of a search
        sizes = options.trials, options.steps, options.adapt_steps
        turns = [turn(Path(temporary) / str(one), prepared, *sizes) for one in range(options.turns)]
    cpu, wall = ([statistics.median(one[part][kind] for one in turns) for part in range(3)] for kind in (0, 1))
    ratios = [[one[2][kind] / (one[0][kind] + one[1][kind]) for one in turns] for kind in (0, 1)]
    result = {
        **{name: getattr(options, name) for name in ("trials", "steps", "adapt_steps", "turns")},
        **dict(zip(("before_s", "after_s", "staged_s"), (round(one, 2) for one in cpu), strict=True)),
        "wall_s": [round(one, 2) for one in wall],
        "ratio": round(statistics.median(ratios[0]), 3),
        "wall_ratio": round(statistics.median(ratios[1]), 3),
    }
    keep(options.out, {STAGES: result | {"machine": machine()}})
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
