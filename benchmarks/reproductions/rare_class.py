"""V9: how much an example counts where one class is rare, on scikit-learn's digits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.reproductions.harness import Row, row, train
from benchmarks.reproductions.weights import average, settings
from metaloom.workers.data.digits import Digits
from metaloom.workers.scoring import Evaluation


class RareNines(Digits):
    """Is it a nine? 1,000 other digits and 5 nines to train on, 10 balanced clean samples, 200 balanced to test."""

    name = "rare_nines"
    SIZES: ClassVar[dict[str, tuple[int, int]]] = {
        "train": (1000, 5),
        "meta": (5, 5),
        "validation": (20, 20),
        "test": (100, 100),
    }

    @classmethod
    def of(cls, digits: Digits) -> "RareNines":
        """Share the digits out again."""
        x, nines = digits._x, (np.asarray(digits.labels) == 9).astype(np.int64)
        order = np.random.default_rng(0).permutation(len(nines))
        rows = {label: order[nines[order] == label] for label in (0, 1)}
        parts, taken = {}, [0, 0]
        for name, sizes in cls.SIZES.items():
            chosen = [rows[label][taken[label] : taken[label] + size] for label, size in enumerate(sizes)]
            taken = [start + size for start, size in zip(taken, sizes, strict=True)]
            parts[name] = np.concatenate(chosen)
        return cls(x, nines, parts, digits.config, seed=digits.seed, scale=digits.scale, inputs=(64,))


def v9(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Two classes at 200 : 1, judged on a balanced test set."""
    found = {kind: [_rare(kind, seed, cache) for seed in seeds] for kind in RARE}
    plain = 1 - average(found["plain"])
    name = "nine or not, 1,000 : 5, accuracy on a balanced test"
    bound = 1 - plain / 2
    return [
        row("V9", f"{name}: plain cross entropy", found["plain"]),
        row("V9", f"{name}: the 10 balanced samples alone", found["alone"]),
        row("V9", f"{name}: classes weighed by their size", found["balanced"]),
        row(
            "V9",
            f"{name}: learning to reweight",
            found["reweight"],
            gate=f">= {bound:.3f} (half of plain's error)",
            reached=lambda mean: mean >= bound,
        ),
    ]


RARE: dict[str, dict[str, Any]] = {
    "plain": {"method": "cross_entropy"},
    "alone": {"method": "cross_entropy"},
    "balanced": {"method": "cross_entropy", "weighting": {"kind": "class_ratios"}},
    "reweight": {"method": "learning_to_reweight"},
}


def _rare(kind: str, seed: int, cache: Path) -> Evaluation:
    tasks: dict[str, Any] = {"train_on": "meta", "batch": 10} if kind == "alone" else {}
    experiment = settings("cross_entropy", meta_batch=10, **tasks)
    experiment["learner"] |= RARE[kind]
    return train(experiment, seed=seed, cache=cache, remake=RareNines.of).test()
