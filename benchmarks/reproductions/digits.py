"""V10: dataset distillation on scikit-learn's digits."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.reproductions.harness import Row, row, train

STEPS = 1_500
EVALUATION = {"validation_episodes": 100, "validate_every": 100}


def v10(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Ten distilled digits and one step from a fixed start."""
    rows: list[Row] = []
    for name, hidden in (("linear", []), ("MLP-64", [64])):
        settings = {
            "tasks": {
                "source": "digits",
                "batch": 10,
                "meta_batch": 256,
                "meta_size": 1000,
                "queries": 10,
                "validation_size": 200,
            },
            "learner": {"method": "distillation", "architecture": {"kind": "mlp", "hidden": hidden}},
            "outer": {"steps": STEPS, "rate": 0.01, **EVALUATION},
        }
        found = [train(settings, seed=seed, cache=cache).test() for seed in seeds]
        rows += [
            row("V10", f"10 distilled digits, {name}, before the step", found, step=0),
            row(
                "V10",
                f"10 distilled digits, {name}, after one step",
                found,
                step=1,
                gate=">= 0.94",
                reached=lambda mean: mean >= 0.94,
            ),
        ]
    return rows
