"""P2: how far the layers of a network transfer (Yosinski, Clune, Bengio and Lipson, 2014, arXiv 1411.1792).

Conv-4 of 32 channels is trained on half of CIFAR-100's classes (100 images a class, of which 76 train). The first k of
its layers start a network for the other half, frozen or fine-tuned; the others and the head are drawn. k = 0 is
training from a random start. Each seed draws its own halves. Every network takes equally many steps, and all test
images of the other half are its test.
"""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reproductions.harness import Row, configured, kept, train
from benchmarks.reproductions.model_based_learners import cifar_path
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.records.results import mean_interval
from metaloom.workers.trial.runner import Trial

LAYERS, STEPS, CHANNELS = 4, 800, 32
FROZEN, MOVED = "frozen", "fine-tuned"
QUERIES = 100  # of an evaluation's batch
NEAR = 0.01  # what fine-tuning may stand below a random start
Scores = Mapping[str, Sequence[float]]  # by case: the accuracy of each batch of test images


def experiment(path: Path, initialization: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain training on one half's images, by stochastic gradient descent with momentum."""
    sizes = {"meta_fraction": 0.02, "validation_fraction": 0.02, "test_fraction": 0.2}
    return {
        "tasks": {
            "source": "arrays",
            "path": str(path),
            "episodes": "single_task",
            **sizes,
            "queries": QUERIES,
            "batch": 64,
        },
        "learner": {
            "method": "cross_entropy",
            "architecture": {"kind": "conv4", "channels": CHANNELS},
            "initialization": dict(initialization),
            "update": {"rate": 0.05, "momentum": 0.9, "weight_decay": 0.0005},
        },
        "inner": {"batch_norm": "frozen"},
        "outer": {"steps": STEPS, "validate_every": STEPS, "validation_episodes": 2},
    }


def halves(seed: int, folder: Path) -> list[Path]:
    """Write the images of two halves of the classes, each with its classes numbered from 0."""
    with np.load(cifar_path(), allow_pickle=False) as data:
        images, labels = data["images"], data["labels"]
    order = np.random.default_rng(seed).permutation(int(labels.max()) + 1)
    files = []
    for half, classes in enumerate(np.split(order, 2)):
        rows = np.flatnonzero(np.isin(labels, classes))
        files.append(folder / f"half{half}.npz")
        np.savez(files[-1], x=images[rows].transpose(0, 3, 1, 2), y=np.searchsorted(np.sort(classes), labels[rows]))
    return files


def base(path: Path, seed: int, folder: Path, cache: Path) -> Path:
    """Train on the first half, and return the bundle."""
    trial = Trial(configured(experiment(path, {"kind": "random"}), seed), folder / "trial", cache=cache)
    while not trial.finished:
        trial.advance()
    return write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=None)


def measured(seed: int, cache: Path) -> dict[str, list[float]]:
    """Return a seed's accuracies by case."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        first, second = halves(seed, folder)
        bundle = base(first, seed, folder, cache)
        found = {}
        for layers in range(LAYERS + 1):
            for moves in (FROZEN, MOVED) if layers else (MOVED,):
                start = {"kind": "pretrained", "bundle": str(bundle), "layers": layers, "freeze": moves == FROZEN}
                trained = train(experiment(second, start), seed=seed + 1_000, cache=cache)
                tests = trained.source.available("test") or 0
                found[case(layers, moves)] = list(trained.test(episodes=tests).scores)
                mean = sum(found[case(layers, moves)]) / tests
                print(f"P2, seed {seed}, {case(layers, moves)}: {mean:.4f}", flush=True)
    return found


def case(layers: int, moves: str) -> str:
    """Name a row."""
    return "random start" if layers == 0 else f"first {layers} layers {moves}"


def p2(seeds: Sequence[int], cache: Path) -> list[Row]:
    """The transfer curve: frozen and fine-tuned, by the number of layers."""
    each: list[Scores] = [kept(cache, f"P2-{seed}", partial(measured, seed, cache)) for seed in seeds]
    rows = [of_batches(name, [one[name] for one in each]) for name in each[0]]
    for layers in range(1, LAYERS + 1):
        for moves in (FROZEN, MOVED):
            name = case(layers, moves)
            rows.append(lead(name, case(0, MOVED), each, at_least=-NEAR if moves == MOVED else None))
    falls = [[last - first for last, first in pairs(one, case(LAYERS, FROZEN), case(1, FROZEN))] for one in each]
    high = mean_interval([value for one in falls for value in one])[2]
    what = f"{case(LAYERS, FROZEN)} less {case(1, FROZEN)}, paired"
    return [*rows, of_batches(what, falls, "interval below 0: transfer falls with k", high < 0)]


def pairs(scores: Scores, one: str, other: str) -> list[tuple[float, float]]:
    """Return the accuracies of two cases on each batch of test images."""
    return list(zip(scores[one], scores[other], strict=True))


def lead(name: str, other: str, each: Sequence[Scores], *, at_least: float | None) -> Row:
    """Return what a case is better by than another on the same test images."""
    better = [[ours - theirs for ours, theirs in pairs(one, name, other)] for one in each]
    mean = float(np.mean([value for one in better for value in one]))
    gate = "" if at_least is None else f">= {at_least:.0%}: not below a random start"
    return of_batches(f"{name} less {other}, paired", better, gate, None if at_least is None else mean >= at_least)


def of_batches(what: str, each: Sequence[Sequence[float]], gate: str = "", reached: bool | None = None) -> Row:
    """Put the seeds of a number together, with its interval over all batches of test images."""
    _, low, high = mean_interval([score for one in each for score in one])
    setting = "inductive, batch norm frozen"
    return Row("P2", what, tuple(sum(one) / len(one) for one in each), (low, high), gate, reached, setting)
