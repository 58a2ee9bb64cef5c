"""P1: a denoising autoencoder, then fine-tuning on ten labels a class (Vincent et al., 2008; Erhan et al., 2010).

A network of one to three hidden layers is pre-trained on all training images without their labels. Then all its layers
and a head that is drawn are fine-tuned by Adam on ten labelled images a class, and tested on all test images. So is the
same network from a random start, with the same head and the same labelled images. The rate is chosen for each start and
depth on validation images, by other draws of labelled ones. An autoencoder without noise is a second control.

Erhan, Bengio, Courville, Manzagol, Vincent and Bengio, 2010, https://jmlr.org/papers/v11/erhan10a.html.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.reproductions.harness import Row, Trained, kept, opened, train
from metaloom.learners import build_learner
from metaloom.learners.episode import Support
from metaloom.learners.tensors import Tensors, part
from metaloom.workers.data.base import DataError
from metaloom.workers.data.fashion_mnist import USUAL_PLACES
from metaloom.workers.data.single_task import SingleTaskSource
from metaloom.workers.records.results import mean_interval

DEPTHS, LABELS, DRAWS, TUNING_DRAWS = (1, 2, 3), 10, 20, 5
RATES, STEPS = (0.0001, 0.0003, 0.001), 150
DENOISING, PLAIN, RANDOM = "denoising autoencoder", "autoencoder without noise", "random start"
STARTS = (DENOISING, PLAIN, RANDOM)
GATE = "interval above 0 on one data set at least"
Scores = Mapping[str, Mapping[str, Sequence[float]]]  # by depth and start: the accuracy of each draw of labels


@dataclass(frozen=True)
class Images:
    """A data set, and how its autoencoders are trained.

    Attributes:
        name: In the table.
        tasks: The task source.
        width: Of each hidden layer.
        steps: Outer steps of pre-training.
    """

    name: str
    tasks: Mapping[str, Any]
    width: int
    steps: int

    def experiment(self, depth: int, noise: float) -> dict[str, Any]:
        """Return the pre-training."""
        return {
            "tasks": dict(self.tasks),
            "learner": {
                "method": "denoising_autoencoder",
                "architecture": {"kind": "mlp", "hidden": [self.width] * depth},
                "prediction": {"corruption": "gaussian", "noise": noise, "hidden": [self.width]},
            },
            "outer": {
                "steps": self.steps,
                "rate": 0.001,
                "schedule": "cosine",
                "validate_every": self.steps,
                "validation_episodes": 2,
            },
        }


def data_sets() -> list[Images]:
    """Return the digits, and Fashion-MNIST where its files are ($METALOOM_FASHION_MNIST, or Debian's package)."""
    digits = {"source": "digits", "batch": 100, "meta_batch": 28, "meta_size": 100, "validation_size": 200}
    found = [Images("digits", {**digits, "queries": 100}, 128, 3_000)]
    place = Path(os.environ.get("METALOOM_FASHION_MNIST", str(USUAL_PLACES[0])))
    if place.is_dir():
        clothes = {"source": "fashion_mnist", "path": str(place), "flat": True, "batch": 100, "meta_batch": 28}
        return [*found, Images("Fashion-MNIST", clothes, 256, 3_000)]
    print(f"P1: no Fashion-MNIST at {place}: its rows are left out (set METALOOM_FASHION_MNIST)", flush=True)
    return found


def p1(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Fine-tuning from a denoising autoencoder, beside a random start, by depth."""
    found = {one.name: [measured(one, seed, cache) for seed in seeds] for one in data_sets()}
    rows: list[Row] = []
    for name, each in found.items():
        for depth in map(str, DEPTHS):
            case = f"{name}, {depth} hidden layer{'s' if depth != '1' else ''}, {LABELS} labels a class"
            rows += [of_draws(f"{case}: {start}", [one[depth][start] for one in each]) for start in STARTS]
            for other in (RANDOM, PLAIN):
                better = [difference(one[depth], other) for one in each]
                rows.append(of_draws(f"{case}: {DENOISING} less {other}, paired", better))
    gains = {name: [over_depths(one) for one in each] for name, each in found.items()}
    reached = any(mean_interval(np.concatenate(one).tolist())[1] > 0 for one in gains.values())
    for name, each_gain in gains.items():
        what = f"{name}, mean over 1 to 3 hidden layers: {DENOISING} less {RANDOM}, paired"
        rows.append(of_draws(what, each_gain, GATE, reached))
    return rows


def difference(scores: Mapping[str, Sequence[float]], other: str) -> list[float]:
    """Return what the denoising autoencoder is better by than another start, for each draw of labels."""
    return [ours - theirs for ours, theirs in zip(scores[DENOISING], scores[other], strict=True)]


def over_depths(scores: Scores) -> list[float]:
    """Return the mean difference to a random start over the depths, for each draw of labels."""
    return [float(value) for value in np.mean([difference(one, RANDOM) for one in scores.values()], 0)]


def of_draws(what: str, each: Sequence[Sequence[float]], gate: str = "", reached: bool | None = None) -> Row:
    """Put the seeds of a number together, with its interval over all draws of labels."""
    _, low, high = mean_interval([score for one in each for score in one])
    return Row("P1", what, tuple(sum(one) / len(one) for one in each), (low, high), gate, reached, "inductive")


def measured(images: Images, seed: int, cache: Path) -> Scores:
    """Return the accuracies of a seed; what this commit has measured before is not measured again."""

    def measure() -> dict[str, dict[str, list[float]]]:
        return {str(depth): of_depth(images, depth, seed, cache) for depth in DEPTHS}

    found: Scores = kept(cache, f"P1-{images.name}-{seed}", measure)
    return found


def of_depth(images: Images, depth: int, seed: int, cache: Path) -> dict[str, list[float]]:
    """Pre-train a network of a depth, and fine-tune it from each start."""
    noise = {DENOISING: 0.3, PLAIN: 0.0}
    bodies = {name: body(train(images.experiment(depth, noise[name]), seed=seed, cache=cache)) for name in noise}
    source = opened(images.experiment(depth, 0.0), seed, cache)
    if not isinstance(source, SingleTaskSource):
        raise DataError(f"P1: {images.name} is no single task")
    found = {}
    for start in STARTS:
        settings = {"width": images.width, "depth": depth, "seed": seed}
        by_rate = {
            rate: fine_tuned(source, "validation", bodies.get(start), rate, TUNING_DRAWS, **settings) for rate in RATES
        }
        best = max(RATES, key=lambda rate: sum(by_rate[rate]))
        found[start] = fine_tuned(source, "test", bodies.get(start), best, DRAWS, **settings)
        mean = sum(found[start]) / DRAWS
        print(f"P1, {images.name}, seed {seed}, depth {depth}, {start}: {mean:.4f} at rate {best}", flush=True)
    return found


def body(trained: Trained) -> Tensors:
    """Return the parameters of a pre-trained body."""
    return part(dict(trained.phi), "initialization")


def fine_tuned(
    source: SingleTaskSource, split: str, start: Tensors | None, rate: float, draws: int, **settings: int
) -> list[float]:
    """Fine-tune a network on draws of ten labels a class, and return the accuracy on all images of a split.

    The draws of a split, and the start of the head and of a random body, are the same for every start.
    """
    initialization = (
        {"kind": "random"}
        if start is None
        else {"kind": "pretrained", "bundle": "of this run", "layers": settings["depth"]}
    )
    learner = build_learner(
        learner={
            "architecture": {"kind": "mlp", "hidden": [settings["width"]] * settings["depth"]},
            "initialization": initialization,
            "update": {"kind": "adam", "rate": rate, "steps": STEPS},
        },
        inner={},
        outer={},
        task=source.shape,
        start=start,
    )
    x, y = source.examples(source.parts[split])
    scores = []
    for draw in range(draws):
        rows = labelled(source, split, settings["seed"], draw)
        generator = torch.Generator().manual_seed(1000 * settings["seed"] + draw)
        phi = learner.init(generator)
        adapted = learner.adapt(phi, learner.begin(phi, generator), Support(*source.examples(rows)), generator)
        scores.append(float((adapted.predict(x).argmax(1) == y).double().mean()))
    return scores


def labelled(source: SingleTaskSource, split: str, seed: int, draw: int) -> np.ndarray[Any, Any]:
    """Draw ten training images of each class."""
    generator = np.random.default_rng([seed, draw, split == "test"])
    train_rows = source.parts["train"]
    labels = source.labels[train_rows]
    classes = range(source.shape.outputs)
    return np.concatenate([generator.choice(train_rows[labels == label], LABELS, replace=False) for label in classes])
