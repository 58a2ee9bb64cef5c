"""M11: the parts of EASY, each removed in turn, on CIFAR-FS with a ResNet-12 of width 16."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import Row, Trained, remembered, row, setting_of, train
from benchmarks.reproductions.model_based_learners import cifar_path
from metaloom.workers.records.results import mean_interval
from metaloom.workers.scoring import Evaluation

PASSES = 8_000  # of a batch through the network, in each pre-training; a seed's four and its tests take an hour of CPU
BATCH = {"ways": 32, "shots": 1, "queries": 1}
SHOTS = (1, 5)
CROPS = 10  # the paper's 30 would be most of the hour
VALIDATIONS = 6


@dataclass(frozen=True)
class Variant:
    """A row of the table: how the network is pre-trained, and the head that it is tested under.

    Attributes:
        rotations: Whether a second head learns rotations.
        mixup: Whether hidden layers are mixed.
        head: What is left out of the head.
    """

    rotations: bool = True
    mixup: bool = True
    head: tuple[tuple[str, Any], ...] = ()

    @property
    def body(self) -> str:
        """Name the pre-training."""
        parts = [name for name in ("rotations", "mixup") if getattr(self, name)]
        return " and ".join(parts) or "plain"


NO_HEAD = (("crops", 0), ("centre", False), ("sphere", False))
VARIANTS: Mapping[str, Variant] = {
    "EASY": Variant(),
    "without rotations": Variant(rotations=False),
    "without mixup": Variant(mixup=False),
    "without augmented shots": Variant(head=(("crops", 0),)),
    "without the centre": Variant(head=(("centre", False),)),
    "without the sphere": Variant(head=(("sphere", False),)),
    "with soft k-means": Variant(head=(("classifier", "soft_k_means"),)),
    "the pre-training alone": Variant(head=NO_HEAD),
    "plain pre-training": Variant(rotations=False, mixup=False, head=NO_HEAD),
}


def experiment(variant: Variant) -> dict[str, Any]:
    """Return the pre-training of a variant; a mixed batch passes through the network twice."""
    steps = PASSES // (2 if variant.mixup else 1)
    pre_training = {"kind": "easy", "crops": 0, "rotations": variant.rotations, "mixup": 2 if variant.mixup else 0}
    return {
        "tasks": {"source": "cifar_fs", "path": cifar_path(), **BATCH, "evaluation": {"ways": 5, "shots": 5}},
        "learner": {
            "method": "easy",
            "architecture": {"kind": "resnet12", "width": 16},
            "prediction": pre_training,
        },
        "outer": {
            "steps": steps,
            "meta_batch": 1,
            "rate": 0.001,
            "schedule": "cosine",
            "weight_decay": 0.0005,
            "validate_every": max(steps // VALIDATIONS, 1),
            "validation_episodes": 50,
            "keep": "best",
        },
    }


def trained(variant: Variant, seed: int, cache: Path) -> Trained:
    """Pre-train a network, and say how it goes."""
    started = time.process_time()

    def at(step: int, so_far: Trained) -> None:
        report = so_far.trial.last_report
        score = report.metrics[so_far.trial.metric] if report else float("nan")
        spent = time.process_time() - started
        print(f"M11, seed {seed}, {variant.body}: {score:.4f} after {step:,} steps, {spent:.0f} s", flush=True)

    return train(experiment(variant), seed=seed, cache=cache, at=at)


def tested(variant: Variant, body: Trained, shots: int) -> Evaluation:
    """Score 5-way test episodes under the variant's head."""
    prediction = {**body.config.learner["prediction"], "crops": CROPS, **dict(variant.head)}
    tasks = {"ways": 5, "shots": shots, "queries": 15, "evaluation": None}
    return body.test(tasks=tasks, learner={"prediction": prediction})


def measured(seed: int, cache: Path) -> dict[str, Mapping[int, Evaluation]]:
    """Return every variant's tests by their shots; each network is pre-trained when it is first needed."""
    bodies: dict[str, Callable[[], Trained]] = {}

    def measure(name: str) -> dict[int, Evaluation]:
        variant = VARIANTS[name]
        body = bodies.setdefault(variant.body, functools.cache(partial(trained, variant, seed, cache)))
        tests = {shots: tested(variant, body(), shots) for shots in SHOTS}
        print(f"M11, seed {seed}, {name}: { ({at: round(one.mean, 4) for at, one in tests.items()}) }", flush=True)
        return tests

    return {
        name: remembered(f"M11-{name.replace(' ', '-')}", seed, cache, partial(measure, name)).tests
        for name in VARIANTS
    }


def m11(seeds: Sequence[int], cache: Path) -> list[Row]:
    """EASY whole, and with each part removed, at equally many passes of the network in pre-training."""
    found = [measured(seed, cache) for seed in seeds]
    rows = []
    for shots in SHOTS:
        for name in VARIANTS:
            rows.append(row("M11", f"5-way {shots}-shot: {name}", [one[name][shots] for one in found]))
        for name in VARIANTS:
            if name not in ("EASY", "plain pre-training"):
                rows.append(difference(found, name, shots))
        rows.append(difference(found, "plain pre-training", shots, gate="its interval above 0"))
    return rows


def difference(
    found: Sequence[Mapping[str, Mapping[int, Evaluation]]], other: str, shots: int, *, gate: str = ""
) -> Row:
    """Return by how much EASY is better than another variant on the same episodes, with the interval of this mean."""
    pairs = [(one["EASY"][shots].scores, one[other][shots].scores) for one in found]
    each = [[mine - theirs for mine, theirs in zip(*pair, strict=True)] for pair in pairs]
    _, low, high = mean_interval([value for one in each for value in one])
    values = tuple(sum(one) / len(one) for one in each)
    what = f"5-way {shots}-shot, paired: EASY less {other}"
    reached = low > 0 if gate else None
    return Row("M11", what, values, (low, high), gate, reached, setting_of(found[0]["EASY"][shots]))
