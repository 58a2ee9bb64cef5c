"""P8: does learning over many data sets help with few labels on others, and does meta-learning over data sets?

One convolutional network over time, four ways to learn from data sets, each from 1, 6 and 18 of them (the first ones
of an order that the seed draws), with equally many outer steps of episodes of the same sizes:

* pre-training: one head over the classes of all data sets (``joint_pretraining``), then a fresh head and fine-tuning;
* pre-training with a head for each data set (``conv_time_net``), then the nearest class mean on the features;
* prototypical networks: the data set of each episode is drawn, and two of its classes;
* MAML over the same episodes.

Test episodes are of the 26 held-out data sets in turn: two classes of one, with 1 or 5 labelled series of each. Beside
them stand fine-tuning the same network from random weights, and the nearest neighbour of the series themselves. Batch
norm takes the support set's statistics, so that every query is classified on its own.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reproductions.harness import Row, kept, train
from benchmarks.reproductions.series_archive import Division, archive_path, divided
from metaloom.workers.data.series_sets import Archive
from metaloom.workers.records.results import mean_interval

NUMBERS = (1, 6, 18)
SHOTS = (1, 5)
STEPS, META_BATCH, RATE = 600, 4, 0.003
EPISODES_PER_SET = 24  # of each held-out set: 624 in all
NETWORK = {"kind": "conv1d", "channels": 16, "lengths": [8]}
PRE_TRAINING, HEADS, PROTOTYPES, MAML = "pre-training", "pre-training by heads", "prototypical networks", "MAML"
RANDOM, NEIGHBOUR = "random start", "nearest neighbour"
TUNED = {"rate": 0.5, "steps": 10}  # of fine-tuning; chosen on the validation sets, and the same for the random start
LEARNED: Mapping[str, Mapping[str, Any]] = {
    PRE_TRAINING: {"method": "joint_pretraining", "architecture": NETWORK, "update": TUNED},
    HEADS: {"method": "conv_time_net", "architecture": NETWORK},
    PROTOTYPES: {"method": "prototypical", "architecture": NETWORK},
    MAML: {"method": "maml", "architecture": NETWORK, "update": {"rate": 0.1, "steps": 3, "evaluation_steps": 10}},
}
CONTROLS: Mapping[str, Mapping[str, Any]] = {
    RANDOM: {"method": "fine_tuning", "architecture": NETWORK, "update": TUNED},
    NEIGHBOUR: {"method": "nearest_neighbour"},
}
Scores = Mapping[str, Sequence[float]]  # by what was measured: the accuracy on each test episode


def sections(names: Sequence[str]) -> dict[str, Any]:
    """Return data sets of the archive; a class with fewer series than an episode takes is left out."""
    return {"source": "ucr", "path": archive_path(), "set": list(names), "on_too_few": "leave_out"}


def experiment(sets: Division, trained: Sequence[str], learner: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """Return the training on some data sets: 2-way 5-shot episodes, Adam 3e-3 on a cosine."""
    return {
        "tasks": {
            "source": "many",
            "sources": sections(trained),
            "validation": sections(sets.validation),
            "test": sections(sets.held_out),
            "ways": 2,
            "shots": 5,
            "queries": 5,
        },
        "learner": dict(learner),
        "inner": {"batch_norm": "support"},
        "outer": {
            "steps": steps,
            "meta_batch": META_BATCH,
            "rate": RATE,
            "schedule": "cosine",
            "validate_every": max(steps, 1),
            "validation_episodes": 6,
        },
    }


def measured(sets: Division, trained: Sequence[str], learner: Mapping[str, Any], seed: int, cache: Path) -> Scores:
    """Train, and return the accuracy on each test episode, by the number of labelled series of a class."""
    steps = 0 if learner in CONTROLS.values() else STEPS
    one = train(experiment(sets, trained, learner, steps), seed=seed, cache=cache)
    episodes = EPISODES_PER_SET * len(sets.held_out)
    found = {}
    for shots in SHOTS:
        sizes = {"ways": 2, "shots": shots, "queries": 5}
        found[f"{shots}-shot"] = one.test(episodes=episodes, tasks={"evaluation": sizes}).scores
    return found


def seed_of(seed: int, cache: Path) -> dict[str, Scores]:
    """Return the scores of every way to learn from every number of data sets, and of the controls."""
    sets = divided(Archive.at(archive_path()).names)
    order = [sets.train[place] for place in np.random.default_rng(seed).permutation(len(sets.train))]
    asked = [(f"{name}, {number}", order[:number], LEARNED[name]) for name in LEARNED for number in NUMBERS]
    asked += [(name, order[:1], CONTROLS[name]) for name in CONTROLS]
    found: dict[str, Scores] = {}
    for name, trained, learner in asked:

        def measure(trained: Sequence[str] = trained, learner: Mapping[str, Any] = learner) -> Scores:
            return measured(sets, trained, learner, seed, cache)

        found[name] = kept(cache, f"P8-{seed}-{name.replace(' ', '-')}", measure)
        told = {shots: round(float(np.mean(one)), 4) for shots, one in found[name].items()}
        print(f"P8, seed {seed}, {name}: {told}", flush=True)
    return found


def p8(seeds: Sequence[int], cache: Path) -> list[Row]:
    """The accuracies, and the differences that answer the question, paired by episodes."""
    each = [seed_of(seed, cache) for seed in seeds]
    most, fewest = max(NUMBERS), min(NUMBERS)
    pairs = [(f"{name}, {most}", f"{name}, {fewest}") for name in LEARNED]
    pairs += [(f"{name}, {most}", f"{PRE_TRAINING}, {most}") for name in (HEADS, PROTOTYPES, MAML)]
    pairs += [(f"{name}, {most}", RANDOM) for name in LEARNED]
    rows = []
    for shots in [f"{number}-shot" for number in SHOTS]:
        rows += [_row(f"2-way {shots}: {_told(name)}", [one[name][shots] for one in each]) for name in each[0]]
        for ours, theirs in pairs:
            what = f"2-way {shots}: {_told(ours)} less {_told(theirs)}, paired"
            rows.append(_row(what, _differences(each, ours, theirs, shots)))
    return rows


def _told(name: str) -> str:
    """Write a name such as ``MAML, 6`` in words."""
    method, _, number = name.partition(", ")
    return name if not number else f"{method} over {number} {'set' if number == '1' else 'sets'}"


def _differences(each: Sequence[Mapping[str, Scores]], ours: str, theirs: str, shots: str) -> list[list[float]]:
    pairs = [zip(one[ours][shots], one[theirs][shots], strict=True) for one in each]
    return [[better - worse for better, worse in one] for one in pairs]


def _row(what: str, each: Sequence[Sequence[float]]) -> Row:
    """Put the seeds of a number together; there is no gate, since either answer is one."""
    _, low, high = mean_interval([score for one in each for score in one])
    values = tuple(float(np.mean(one)) for one in each)
    return Row("P8", what, values, (low, high), setting="inductive, batch norm support")
