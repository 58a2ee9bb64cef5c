"""P3: TimeNet's features and a linear SVM, on data sets that it has not seen (Malhotra et al., 2017).

A seed pre-trains a recurrent encoder and decoder on the series of 18 sets, without their labels; 6 more sets are for
validation, on which longer training was better (200 and 1,500 steps). The network is one layer of 60 units; the paper's
has three, and dropout. On each of the 26 held-out sets a linear SVM reads the features, trained on the archive's
training series and judged on all of its test series. Beside it stand the nearest neighbour by Euclidean distance, the
archive's own floor, and the same SVM on the features of the untrained network.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.reproductions.harness import Row, kept, train
from benchmarks.reproductions.series_archive import (
    Division,
    OneSet,
    SignTest,
    archive_path,
    divided,
    linear_machine,
    nearest,
    one_set,
)
from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.series.recurrent import GRU, RecurrentConfig
from metaloom.learners.state import knowledge_of
from metaloom.learners.tensors import Tensors
from metaloom.workers.data.series_sets import Archive
from metaloom.workers.records.results import mean_interval

OURS, UNTRAINED, NEIGHBOUR = "TimeNet", "the same network untrained", "1-NN Euclidean"
STEPS, WIDTH, LAYERS, RATE = 5_000, 60, 1, 0.003
BATCH = 256
Scores = Mapping[str, Mapping[str, Sequence[float]]]  # by method and set: whether each test series is right


def experiment(sets: Division, steps: int = STEPS) -> dict[str, Any]:
    """Return the pre-training: a batch is 32 series of two classes of one set; the labels are not read."""
    lists = {"train": sets.train, "validation": sets.validation, "test": sets.validation[:1]}
    lists["validation"] = sets.validation[1:]
    return {
        "tasks": {
            "source": "ucr",
            "path": archive_path(),
            "sets": [*sets.train, *sets.validation],
            "split": lists,
            "ways": 2,
            "shots": 8,
            "queries": 8,
            "on_too_few": "leave_out",
        },
        "learner": {
            "method": "time_net",
            "architecture": {"kind": "gru", "width": WIDTH, "layers": LAYERS, "read": "states"},
            "prediction": {"layers": LAYERS},
        },
        "outer": {
            "steps": steps,
            "meta_batch": 1,
            "rate": RATE,
            "schedule": "cosine",
            "clip": 1.0,
            "validate_every": steps,
            "validation_episodes": 2,
        },
    }


def network() -> Network:
    """Return the encoder; its features do not depend on a length."""
    return GRU(RecurrentConfig(WIDTH, LAYERS, "states"), TaskShape("classification", (1, 1), 2))


def embedding(encoder: Network, theta: Tensors) -> Callable[[Tensor], Tensor]:
    """Return series [n, 1, length] to features [n, width]."""

    @torch.no_grad()
    def embed(x: Tensor) -> Tensor:
        return torch.cat([encoder.features(theta, part, Normalization(), {}) for part in x.split(BATCH)])

    return embed


def measured(theta: Mapping[str, Tensors], names: Sequence[str]) -> Scores:
    """Return what each method comes to on the test series of each set."""
    encoder = network()
    found: dict[str, dict[str, Sequence[float]]] = {name: {} for name in (*theta, NEIGHBOUR)}
    for name in names:
        data: OneSet = one_set(name)
        for method, parameters in theta.items():
            found[method][name] = linear_machine(data, embedding(encoder, parameters))
        found[NEIGHBOUR][name] = nearest(data)
        told = {method: round(sum(one[name]) / len(one[name]), 4) for method, one in found.items()}
        print(f"P3, {name}: {told}", flush=True)
    return found


def seed_of(seed: int, cache: Path) -> Scores:
    """Pre-train one seed, and judge it on the held-out sets."""
    sets = divided(Archive.at(archive_path()).names)
    trained = train(experiment(sets), seed=seed, cache=cache)
    start = trained.trial.learner.init(torch.Generator().manual_seed(seed))
    parameters = {OURS: trained.phi, UNTRAINED: start}
    return measured(
        {name: knowledge_of(dict(phi), "initialization") for name, phi in parameters.items()}, sets.held_out
    )


def p3(seeds: Sequence[int], cache: Path) -> list[Row]:
    """TimeNet against the nearest neighbour and against itself untrained, set by set."""
    each: list[Scores] = [kept(cache, f"P3-{seed}", partial(seed_of, seed, cache)) for seed in seeds]
    return [*summary(each), *by_set(each)]


def summary(each: Sequence[Scores]) -> list[Row]:
    """Return the means over the sets, and the sign tests on the means over the seeds."""
    names = list(each[0][OURS])
    rows = []
    for method in (OURS, UNTRAINED, NEIGHBOUR):
        what = f"mean accuracy on {len(names)} held-out sets: {method}"
        rows.append(Row("P3", what, tuple(_mean([_mean(one[method][name]) for name in names]) for one in each)))
    for control in (NEIGHBOUR, UNTRAINED):
        over = [_mean([_mean(one[OURS][name]) for one in each]) for name in names]
        under = [_mean([_mean(one[control][name]) for one in each]) for name in names]
        test = SignTest.of(over, under)
        wins = tuple(float(_signs(one, control, names).wins) for one in each)
        what = f"sets of {len(names)} on which TimeNet is better than {control}"
        gate = "more wins than losses, sign test p < 0.05"
        rows.append(Row("P3", what, wins, gate=gate, reached=test.wins > test.losses and test.p < 0.05))
        what = f"p of that sign test: TimeNet and {control}"
        rows.append(Row("P3", what, tuple(_signs(one, control, names).p for one in each)))
    return rows


def by_set(each: Sequence[Scores]) -> list[Row]:
    """Return both tables: the accuracy of every method on every held-out set, over its test series."""
    rows = []
    for name in each[0][OURS]:
        for method in (OURS, UNTRAINED, NEIGHBOUR):
            scores = [one[method][name] for one in each]
            _, low, high = mean_interval([score for one in scores for score in one])
            rows.append(Row("P3", f"{name}: {method}", tuple(map(_mean, scores)), (low, high)))
    return rows


def _signs(scores: Scores, control: str, names: Sequence[str]) -> SignTest:
    ours, theirs = ([_mean(scores[method][name]) for name in names] for method in (OURS, control))
    return SignTest.of(ours, theirs)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
