"""M2 and M4: relation and graph networks, and SNAIL; Omniglot, Vinyals' characters with rotations, Conv-4-64.

Relation networks are trained on 20-way 1-shot episodes, as matching networks are (M1). The labels of graph networks and
SNAIL have a place a class, so that these are trained on the 5 ways of the test, as in their papers.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.relational_networks import Graph, Relation, Relational, Snail
from benchmarks.reproductions.harness import TEST_EPISODES, TEST_SEED, Row, opened, remembered, row, train
from benchmarks.reproductions.metric_learners import SETTING, beside
from benchmarks.reproductions.omniglot import FIVE_WAYS, tasks
from benchmarks.reproductions.written_out import Scores, control
from metaloom.learners.base import EpisodeOutcome
from metaloom.workers.data.base import TaskSource
from metaloom.workers.records.names import TEST
from metaloom.workers.records.results import ACCURACY, StepScore, mean_interval
from metaloom.workers.scoring import Evaluation, compared

EPISODES = 1_000  # of training, 5-way 1-shot with 15 queries a class
SHORT = 600  # of relation networks, the semi-supervised graphs, and SNAIL
TWENTY_WAYS: Mapping[str, Any] = {"ways": 20, "queries": 5, "evaluation": FIVE_WAYS}  # of relation networks
FEWER_QUERIES = 3  # of each class, where a graph has 26 nodes
LABELLED, UNLABELLED = 1, 4  # of each class: 5 of 25 examples have a label
CONV: Mapping[str, Any] = {"kind": "conv4", "channels": 64}


def experiment(learner: Mapping[str, Any], episodes: int, **own: Any) -> dict[str, Any]:
    """Return training on 5-way 1-shot episodes, or as ``own`` says, Adam 1e-3; tested on those of 5 ways."""
    outer = {"steps": episodes, "meta_batch": 1, "rate": 0.001, "validate_every": 500, "validation_episodes": 2}
    return {"tasks": {**tasks(**FIVE_WAYS), **own}, "learner": {"architecture": CONV, **learner}, "outer": outer}


@dataclass(frozen=True)
class Runs:
    """The runs of one claim: its name, the training seeds, and where data and measurements are kept."""

    claim: str
    seeds: Sequence[int]
    cache: Path

    def ours(self, name: str, learner: Mapping[str, Any], episodes: int = EPISODES, **own: Any) -> list[Evaluation]:
        """Train our learner from each seed, and return its tests; ``own`` are settings of the tasks."""

        def measure(seed: int) -> Evaluation:
            settings = experiment(learner, episodes, **own)
            return train(settings, seed=seed, cache=self.cache).test(tasks=own.get("evaluation", {}))

        return self._each(name, measure)

    def plain(self, name: str, what: str, make: Callable[[], Relational], episodes: int = EPISODES, **own: Any) -> Row:
        """Train the network that is written out from each seed, on the same episodes, and test it on the same ones."""
        settings = experiment({"method": "prototypical"}, episodes, **own)

        def measure(seed: int) -> Evaluation:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                network = make()
            network = trained(network, opened(settings, seed, self.cache), episodes)
            return evaluation_of(tested(network, opened(settings, TEST_SEED, self.cache)))

        found = self._each(f"plain-{name}", measure)
        return control(self.claim, what, [one.scores for one in found], SETTING)

    def _each(self, name: str, measure: Callable[[int], Evaluation]) -> list[Evaluation]:
        def one(seed: int) -> dict[int, Evaluation]:
            found = measure(seed)
            print(f"{self.claim}, {name}, seed {seed}: {found.mean:.4f}", flush=True)
            return {0: found}

        names = [(seed, f"{self.claim}-{name}") for seed in self.seeds]
        return [remembered(name, seed, self.cache, partial(one, seed)).tests[0] for seed, name in names]


def evaluation_of(scores: Scores) -> Evaluation:
    """Return the accuracies of a control as an evaluation, in which form they are kept."""
    mean, low, high = mean_interval(scores, metric=ACCURACY)
    outcomes = tuple(EpisodeOutcome((math.nan,), (one,)) for one in scores)
    return Evaluation(
        metric=ACCURACY,
        mean=mean,
        interval=(low, high),
        episodes=len(scores),
        per_step=(StepScore(0, mean, low, high),),
        setting="inductive",
        batch_norm="frozen",
        split=TEST,
        scores=scores,
        seconds=0.0,
        outcomes=outcomes,
    )


def trained(network: Relational, training: TaskSource, episodes: int) -> Relational:
    """Train a network on so many episodes, Adam 1e-3."""
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for index in range(episodes):
        episode = training.episode("train", index).episode
        loss = network.loss(network.train()(episode), episode.query_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@torch.no_grad()
def tested(network: Relational, testing: TaskSource) -> Scores:
    """Return the accuracy on each test episode."""
    episodes = (testing.episode("test", index).episode for index in range(TEST_EPISODES))
    right = (network.eval()(episode).argmax(1) == episode.query_y for episode in episodes)
    return tuple(float(one.double().mean()) for one in right)


def m2(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Relation networks, by squared errors and by cross entropy."""
    runs, rows, controls = Runs("M2", seeds, cache), list[Row](), list[Row]()
    for objective in ("mse", "cross_entropy"):
        said = {"mse": "squared errors", "cross_entropy": "cross entropy"}[objective]
        what = f"relation networks by {said}, 5-way 1-shot after {SHORT} episodes"
        make = partial(Relation, squared=objective == "mse")
        written = runs.plain(objective, what, make, SHORT, **TWENTY_WAYS)
        prediction = {"kind": "relation", "objective": objective}
        learner = {"method": "relation", "architecture": {**CONV, "halvings": 2}, "prediction": prediction}
        rows.append(beside(written, runs.ours(objective, learner, SHORT, **TWENTY_WAYS), 0.92))
        controls.append(written)
    return [*rows, *controls]


def m4(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Graph networks; semi-supervised, with and without the nodes that have no label; and SNAIL."""
    runs, graph = Runs("M4", seeds, cache), {"method": "graph"}
    written = runs.plain("graph", f"graph networks, 5-way 1-shot after {EPISODES:,} episodes", Graph)
    rows = [beside(written, runs.ours("graph", graph), 0.93)]
    few = {"shots": LABELLED, "queries": FEWER_QUERIES}
    alone = runs.ours("alone", graph, SHORT, **few)
    rows += semi_supervised(alone, runs.ours("unlabelled", graph, SHORT, **few, unlabelled=UNLABELLED))
    sequence = runs.plain("snail", f"SNAIL, 5-way 1-shot after {SHORT} episodes", Snail, SHORT)
    snail = {"method": "snail", "prediction": {"kind": "snail", "reach": 6}}
    rows.append(beside(sequence, runs.ours("snail", snail, SHORT), 0.0))
    return [*rows, written, sequence]


def semi_supervised(alone: Sequence[Evaluation], helped: Sequence[Evaluation]) -> list[Row]:
    """Return both accuracies, and by how much the unlabelled nodes help on the same queries."""
    what = f"graph networks, 5 of 25 examples labelled, after {SHORT} episodes"
    pairs = list(zip(helped, alone, strict=True))
    gains = [compared(one.scores, other.scores, one.metric) for one, other in pairs]
    scores = [[score for one in tests for score in one.scores] for tests in (helped, alone)]
    _, low, high = compared(scores[0], scores[1], helped[0].metric)
    gain = f"{what}: what the 20 without a label add, on the same queries"
    return [
        row("M4", f"{what}, the 20 others as nodes without a label", helped),
        row("M4", f"{what}, the 20 others left out", alone),
        Row("M4", gain, tuple(one[0] for one in gains), (low, high), "interval above 0", low > 0),
    ]
