"""V12 at reduced width: one condensed digit per class, for networks that have not been seen (Zhao et al., 2021)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproductions.harness import Row, row, train
from metaloom.workers.scoring import Evaluation

NETWORK = {"kind": "convnet", "channels": 32, "blocks": 2}
TRAINING = {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "evaluation_steps": 100}
POOL = {"source": "digits", "flat": False, "queries": 100, "validation_size": 200}
STEPS = 200
TESTS = 5  # times 100 test digits, each time with a network drawn anew
MARGIN = 0.15
LEARNED = {"gradient_matching": "gradient matching (DC)", "distribution_matching": "distribution matching (DM)"}
CHOSEN = {"random": "ten real digits at random", "herding": "ten by herding (with one a class k-center's too)"}


def learned(kind: str, seed: int, cache: Path) -> Evaluation:
    """Learn one example per class from 1,000 real ones, and train new networks on the ten."""
    experiment: dict[str, Any] = {
        "tasks": {**POOL, "batch": 10, "meta_batch": 256, "meta_size": 1000},
        "learner": {"method": kind, "architecture": NETWORK, "update": TRAINING},
        "outer": {"steps": STEPS, "rate": 0.1, "validate_every": STEPS, "validation_episodes": 2},
    }
    return train(experiment, seed=seed, cache=cache).test(episodes=TESTS)


def chosen(rule: str, seed: int, cache: Path) -> Evaluation:
    """Choose ten real examples, and train new networks on them."""
    experiment: dict[str, Any] = {
        "tasks": {**POOL, "batch": 1000, "meta_batch": 50, "meta_size": 50},
        "learner": {
            "method": "core_set",
            "architecture": NETWORK,
            "data": {"kind": "core_set", "size": 10, "rule": rule},
            "update": {**TRAINING, "steps": 100},
        },
        "outer": {"validation_episodes": 2},
    }
    return train(experiment, seed=seed, cache=cache).test(episodes=TESTS)


def v12(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Learned examples beside chosen ones."""
    real = {rule: [chosen(rule, seed, cache) for seed in seeds] for rule in CHOSEN}
    least = sum(one.mean for one in real["random"]) / len(seeds) + MARGIN
    rows = [row("V12", f"10 digits, {name}", real[rule]) for rule, name in CHOSEN.items()]
    for kind, name in LEARNED.items():
        found = [learned(kind, seed, cache) for seed in seeds]
        gate = f">= random + 15 points = {least:.3f}" if kind == "gradient_matching" else ""
        reached = (lambda mean: mean >= least) if gate else None
        rows.append(row("V12", f"10 learned digits, {name}, {STEPS} outer steps", found, gate=gate, reached=reached))
    return rows
