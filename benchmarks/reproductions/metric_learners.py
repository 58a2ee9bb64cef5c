"""M1 and M3: matching and siamese networks on Omniglot, Vinyals' characters with rotations, 28x28, Conv-4-64."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.metric_networks import Comparing, FullContext, Matching, Pairs
from benchmarks.reproductions.harness import TEST_SEED, Row, mean_at, opened, remembered, row, train
from benchmarks.reproductions.omniglot import FIVE_WAYS, tasks
from benchmarks.reproductions.plain_metric_learners import tested, trained
from benchmarks.reproductions.written_out import control, conv4
from metaloom.workers.scoring import Evaluation

TWENTY_WAYS = {"ways": 20, "queries": 5}
EPISODES = 600  # of training, 20-way 1-shot with 5 queries a class
SIAMESE_EPISODES = 4_000  # about 10 CPU minutes of ours; three times as many are the published protocol's half hour
SETTING = "inductive, batch norm frozen"
NEAR = 0.01  # how far below plain torch at equal budget ours may be


def experiment(learner: Mapping[str, Any], episodes: int) -> dict[str, Any]:
    """Return training on 20-way 1-shot 5-query episodes, Adam 1e-3."""
    return {
        "tasks": tasks(20, 5),
        "learner": {"architecture": {"kind": "conv4", "channels": 64}, **learner},
        "outer": {
            "steps": episodes,
            "meta_batch": 1,
            "rate": 0.001,
            "validate_every": min(episodes, 200),
            "validation_episodes": 2,
        },
    }


def ours(
    claim: str, name: str, learner: Mapping[str, Any], episodes: int, seeds: Sequence[int], cache: Path, **test: Any
) -> list[Evaluation]:
    """Train our learner from each seed, and return its tests; ``name`` tells the learners of a claim apart."""

    def measure(seed: int) -> dict[int, Evaluation]:
        return {episodes: train(experiment(learner, episodes), seed=seed, cache=cache).test(tasks=test)}

    found = [remembered(f"{claim}-{name}", seed, cache, partial(measure, seed)) for seed in seeds]
    return [one.tests[episodes] for one in found]


def plain(
    claim: str,
    what: str,
    make: Callable[[nn.Module], Comparing],
    episodes: int,
    seeds: Sequence[int],
    cache: Path,
    **test: Any,
) -> Row:
    """Train the network that is written out from each seed, on the same episodes, and test it on the same ones."""
    settings = experiment({"method": "prototypical"}, episodes)
    testing = opened({**settings, "tasks": tasks(**test)}, TEST_SEED, cache)
    scores = []
    for seed in seeds:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = make(conv4())
        scores.append(tested(trained(network, opened(settings, seed, cache), episodes), testing))
    return control(claim, what, scores, SETTING)


def beside(control: Row, tests: Sequence[Evaluation], least: float, why: str = "") -> Row:
    """Return our row: it must reach ``least``, and plain torch at equal budget up to one point."""
    bound = control.mean - NEAR
    what = control.what.removesuffix(", written out in plain torch")
    gate = f">= {least:.4g}{why}, and plain torch - 1 point = {bound:.4f}"
    return row(control.claim, what, tests, gate=gate, reached=lambda mean: mean >= least and mean >= bound)


def m1(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Matching networks, simple and with full context embeddings; and at the paper's own scale of the cosine, 1."""
    ending = f", 5-way 1-shot after {EPISODES} episodes"
    simple, context = "matching networks" + ending, "matching networks with full context" + ending
    written = plain("M1", simple, Matching, EPISODES, seeds, cache, **FIVE_WAYS)
    found = ours("M1", "simple", {"method": "matching"}, EPISODES, seeds, cache, **FIVE_WAYS)
    rows = [beside(written, found, 0.93)]
    mean = sum(mean_at(one, -1) for one in found) / len(found)
    written_context = plain("M1", context, FullContext, EPISODES, seeds, cache, **FIVE_WAYS)
    found = ours("M1", "context", {"method": "matching_fce"}, EPISODES, seeds, cache, **FIVE_WAYS)
    rows.append(beside(written_context, found, mean - NEAR, " (the simple ones - 1 point)"))
    flat = {"method": "matching", "prediction": {"kind": "matching_networks", "temperature": 10.0}}
    found = ours("M1", "flat", flat, EPISODES, seeds, cache, **FIVE_WAYS)
    return [*rows, row("M1", f"matching networks at the paper's scale 1{ending}", found), written, written_context]


def m3(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Siamese networks, trained on pairs: 20-way one-shot by the most similar support example."""
    ending = f", 20-way 1-shot after {SIAMESE_EPISODES:,} episodes"
    written = plain("M3", "siamese networks" + ending, Pairs, SIAMESE_EPISODES, seeds, cache, **TWENTY_WAYS)
    found = ours("M3", "siamese", {"method": "siamese"}, SIAMESE_EPISODES, seeds, cache, **TWENTY_WAYS)
    return [beside(written, found, 0.8), written]
