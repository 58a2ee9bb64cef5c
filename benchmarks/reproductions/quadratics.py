"""V6: a learned optimizer against tuned ones on 10-d quadratics (Andrychowicz et al., 2016, section 3.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.reproductions.harness import TEST_SEED, Row, train
from metaloom.learners import build_learner
from metaloom.workers.data import open_source
from metaloom.workers.records.results import mean_interval
from metaloom.workers.scoring import Evaluation, evaluate_learner

FUNCTIONS = 16  # in an episode, side by side
EPISODES = 40  # of FUNCTIONS functions each, for choosing and for the test
STEPS = 100
TASKS = {"source": "quadratics", "dimensions": 10, "functions": FUNCTIONS}
RATES: Mapping[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "SGD": ({"kind": "sgd"}, (0.002, 0.005, 0.01, 0.015, 0.02, 0.03)),
    "SGD with momentum 0.9": ({"kind": "sgd", "momentum": 0.9}, (0.005, 0.01, 0.02, 0.03, 0.035, 0.04)),
    "RMSprop": ({"kind": "rmsprop"}, (0.01, 0.02, 0.03, 0.05, 0.1, 0.2)),
    "Adam": ({"kind": "adam"}, (0.05, 0.1, 0.2, 0.3, 0.5, 1.0)),
}
OUTER = {
    "steps": 1000,
    "schedule": "cosine",
    "validate_every": 100,
    "validation_episodes": 10,
    "keep": "best",
}


def by_hand(update: Mapping[str, Any], rate: float, split: str, cache: Path) -> Evaluation:
    """Minimize the functions of a split with a hand-made optimizer."""
    source = open_source(TASKS, seed=TEST_SEED, cache=cache)
    settings = {"architecture": {"kind": "linear"}, "update": {**update, "rate": rate, "steps": STEPS}}
    learner = build_learner(learner=settings, inner={}, outer={}, task=source.shape)
    state = learner.begin({}, torch.Generator().manual_seed(0))
    return evaluate_learner(learner, {}, state, source, split, EPISODES)


def tuned(update: Mapping[str, Any], rates: Sequence[float], cache: Path) -> tuple[float, Evaluation]:
    """Choose the rate on the validation functions, and return it with its test."""
    means = {rate: by_hand(update, rate, "validation", cache).mean for rate in rates}
    best = min((rate for rate in rates if means[rate] == means[rate]), key=means.__getitem__)
    return best, by_hand(update, best, "test", cache)


def v6(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Learn the optimizer; f(100) of each on the same 640 test functions."""
    rows: list[Row] = []
    for name, (update, rates) in RATES.items():
        rate, test = tuned(update, rates, cache)
        rows.append(_row(f"{name}, rate {rate:g} (best of {len(rates)} on validation), f(100)", [test]))
    most = 0.9 * min(row.mean for row in rows)
    learner = {"method": "learned_optimizer", "architecture": {"kind": "linear"}}
    experiment = {"tasks": TASKS, "learner": learner, "outer": OUTER}
    found = [train(experiment, seed=seed, cache=cache).test(episodes=EPISODES) for seed in seeds]
    what = f"learned optimizer, {OUTER['steps']} outer steps of {FUNCTIONS} functions, f(100)"
    return [*rows, _row(what, found, gate=f"<= 0.9 x best by hand = {most:.3f}", most=most)]


def _row(what: str, found: Sequence[Evaluation], *, gate: str = "", most: float | None = None) -> Row:
    """Put the seeds together; an episode's loss is the sum of its functions'."""
    values = tuple(one.mean / FUNCTIONS for one in found)
    _, low, high = mean_interval([score / FUNCTIONS for one in found for score in one.scores])
    reached = None if most is None else sum(values) / len(values) <= most
    return Row("V6", what, values, (low, high), gate, reached, "640 test functions, 16 an episode")
