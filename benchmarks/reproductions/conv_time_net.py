"""P4: ConvTimeNet, trained on 24 sets with one head each, fine-tuned on others (Kashiparekh et al., 2019).

A seed trains filters of five lengths on 22 sets; two more validate, and choose the fine-tuning rate of each arm, of
three. On each of the 26 held-out sets the body is fine-tuned with a new head on 5, 20 and all labels a class, drawn
from the archive's training series, and judged on all test series. The other arm is the same network from its random
start, with the same new head, examples, batches and number of steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from benchmarks.reproductions.harness import Row, Trained, kept, train
from benchmarks.reproductions.series_archive import Division, OneSet, SignTest, archive_path, divided, one_set
from metaloom.learners.episode import TaskShape
from metaloom.learners.networks.base import HEAD
from metaloom.learners.networks.batch_norm import Normalization, running_average
from metaloom.learners.networks.series.convolutions import Conv1d, Conv1dConfig
from metaloom.learners.state import knowledge_of
from metaloom.learners.tensors import Tensors, as_leaves
from metaloom.workers.data.series_sets import Archive
from metaloom.workers.records.results import mean_interval

OURS, SCRATCH = "fine-tuned from ConvTimeNet", "from scratch"
LABELS: Mapping[str, int | None] = {"5 labels a class": 5, "20 labels a class": 20, "all labels": None}
CONFIG = Conv1dConfig(channels=6, blocks=3, lengths=(4, 8, 16, 32, 64), residual=True)
STEPS, RATE = 2_000, 0.003
TUNING_STEPS, TUNING_RATES, BATCH = 100, (0.001, 0.003, 0.01), 32
LEAST, CASE = 0.6, "5 labels a class"  # of the held-out sets, and where it is held to it
Scores = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]  # by labels, arm and set: each test series


def experiment(sets: Division, steps: int = STEPS) -> dict[str, Any]:
    """Return the pre-training: each step is about 32 series of up to 8 classes of one set."""
    held = sets.validation[:2]
    trained = [*sets.train, *sets.validation[2:]]
    return {
        "tasks": {
            "source": "many",
            "sources": [tasks_of(name) for name in trained],
            "validation": [tasks_of(name, most=2) for name in held],
            "test": [tasks_of(name, most=2) for name in held],
        },
        "learner": {"method": "conv_time_net", "architecture": {"kind": "conv1d", **vars(CONFIG)}},
        "outer": {
            "steps": steps,
            "meta_batch": 1,
            "rate": RATE,
            "schedule": "cosine",
            "validate_every": steps,
            "validation_episodes": 2,
        },
    }


def tasks_of(name: str, most: int = 8) -> dict[str, Any]:
    """Return the episodes of one set: its classes, up to so many, with equally many series of each."""
    ways = min(len(set(one_set(name).y.tolist())), most)
    each = BATCH // ways
    sizes = {"ways": ways, "shots": each // 2, "queries": each - each // 2, "on_too_few": "leave_out"}
    return {"source": "ucr", "path": archive_path(), "set": name, **sizes}


@dataclass(frozen=True)
class Start:
    """Where fine-tuning starts: the parameters of a body and batch norm's running statistics; empty from scratch."""

    theta: Tensors
    running: Tensors

    @classmethod
    def of(cls, trained: Trained) -> "Start":
        """Return what pre-training has come to."""
        body = knowledge_of(dict(trained.phi), "initialization")
        running = {name: value for name, value in trained.state.running.items() if name.startswith("norm")}
        return cls(body, running)


def chosen(labels: NDArray[np.int64], count: int | None, seed: int) -> NDArray[np.int64]:
    """Return the rows of ``count`` examples of each class, or of all that there are."""
    order = np.random.default_rng(seed).permutation(len(labels))
    rows = [order[labels[order] == label][:count] for label in np.unique(labels)]
    return np.sort(np.concatenate(rows))


def tuned(data: OneSet, rows: NDArray[np.int64], start: Start, rate: float, seed: int) -> list[float]:
    """Fine-tune on these training series, and return whether each test series is classified rightly: [n]."""
    classes = int(max(data.y.max(), data.test_y.max())) + 1
    network = Conv1d(CONFIG, TaskShape("classification", tuple(data.x.shape[1:]), classes))
    generator = torch.Generator().manual_seed(seed)
    drawn = network.parameters(generator)
    body = {name: value for name, value in start.theta.items() if not name.startswith(HEAD)}
    theta, running = as_leaves(drawn | body), dict(start.running)
    optimizer = torch.optim.Adam(list(theta.values()), lr=rate)
    x, y = data.x[rows], torch.from_numpy(data.y[rows])
    order: list[int] = []
    for _ in range(TUNING_STEPS):
        order = order or torch.randperm(len(x), generator=generator).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        norm = Normalization(fused=True)
        loss = F.cross_entropy(network.outputs(theta, x[batch], norm, {}), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running = running_average(running, norm.collected)
    with torch.no_grad():
        norm = Normalization(running, fused=True)
        found = torch.cat([network.outputs(theta, part, norm, {}).argmax(-1) for part in data.test_x.split(256)])
    return (found.numpy() == data.test_y).astype(float).tolist()


def best_rate(names: Sequence[str], start: Start, seed: int) -> float:
    """Return the rate that is best on validation sets with 5 labels a class."""
    found = {}
    for rate in TUNING_RATES:
        each = [tuned(data, chosen(data.y, 5, seed), start, rate, seed) for data in map(one_set, names)]
        found[rate] = sum(_mean(one) for one in each)
    return max(found, key=lambda rate: found[rate])


def seed_of(seed: int, cache: Path) -> Scores:
    """Pre-train one seed, and fine-tune it on every held-out set beside the random start."""
    sets = divided(Archive.at(archive_path()).names)
    arms = {OURS: Start.of(train(experiment(sets), seed=seed, cache=cache)), SCRATCH: Start({}, {})}
    rates = {arm: best_rate(sets.validation[:2], start, seed) for arm, start in arms.items()}
    print(f"P4, seed {seed}: rates {rates}", flush=True)
    return measured(arms, rates, sets.held_out, seed)


def measured(arms: Mapping[str, Start], rates: Mapping[str, float], names: Sequence[str], seed: int) -> Scores:
    """Return what each arm comes to on the test series of each set, by the number of labels."""
    scores: dict[str, dict[str, dict[str, list[float]]]] = {case: {arm: {} for arm in arms} for case in LABELS}
    for name in names:
        data = one_set(name)
        for case, count in LABELS.items():
            rows = chosen(data.y, count, seed)
            for arm, start in arms.items():
                scores[case][arm][name] = tuned(data, rows, start, rates[arm], seed)
        told = {case: {arm: round(_mean(one[name]), 4) for arm, one in both.items()} for case, both in scores.items()}
        print(f"P4, seed {seed}, {name}: {told}", flush=True)
    return scores


def p4(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Both arms, by the number of labels; the share of sets on which the pre-trained one is better."""
    each: list[Scores] = [kept(cache, f"P4-{seed}", partial(seed_of, seed, cache)) for seed in seeds]
    rows = [row for case in LABELS for row in case_rows(case, [one[case] for one in each])]
    for name in each[0][CASE][OURS]:
        for arm in (OURS, SCRATCH):
            scores = [one[CASE][arm][name] for one in each]
            _, low, high = mean_interval([score for one in scores for score in one])
            rows.append(Row("P4", f"{name}, {CASE}: {arm}", tuple(map(_mean, scores)), (low, high)))
    return rows


def case_rows(case: str, each: Sequence[Mapping[str, Mapping[str, Sequence[float]]]]) -> list[Row]:
    """Return the mean accuracy of both arms over the sets, and on which share of them the pre-trained one is better."""
    names = list(each[0][OURS])
    rows = []
    for arm in (OURS, SCRATCH):
        values = tuple(_mean([_mean(one[arm][name]) for name in names]) for one in each)
        rows.append(Row("P4", f"mean accuracy on {len(names)} held-out sets, {case}: {arm}", values))
    ours, theirs = ([_mean([_mean(one[arm][name]) for one in each]) for name in names] for arm in (OURS, SCRATCH))
    share = SignTest.of(ours, theirs).wins / len(names)
    gate = f"at least {LEAST:.0%} of the sets, on the means over the seeds" if case == CASE else ""
    wins = tuple(_share_of(one, names) for one in each)
    what = f"share of the held-out sets on which fine-tuning is better than from scratch, {case}"
    row = Row("P4", what, wins, gate=gate, reached=share >= LEAST if gate else None)
    return [*rows, row]


def _share_of(one: Mapping[str, Mapping[str, Sequence[float]]], names: Sequence[str]) -> float:
    ours, theirs = ([_mean(one[arm][name]) for name in names] for arm in (OURS, SCRATCH))
    return SignTest.of(ours, theirs).wins / len(names)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
