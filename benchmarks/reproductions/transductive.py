"""M10: transductive heads over the features of one Omniglot and one CIFAR-FS backbone, beside the nearest class mean.

A seed trains both backbones, prototypical networks on Conv-4-64. Every head then sees the same features of the same 600
test episodes, with its defaults. EPNet's smoothing alone is another: 0.2, of 0.2, 0.5 and 0.8 the best on validation
classes after 200 training episodes (none at all is as good on Omniglot and better on CIFAR-FS). Queries are 15 of each
class, or divided by Dirichlet(2) (Veilleux et al., 2021, https://arxiv.org/abs/2204.11181); an Omniglot class has 20
drawings, which bounds its share, and at 5 shots 7 queries of each class, so that a share can be up to 15.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache as kept
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.provenance import commit_of_code
from benchmarks.reproductions.harness import TEST_EPISODES, TEST_SEED, Row, Trained, opened, train
from benchmarks.reproductions.model_based_learners import cifar_path
from benchmarks.reproductions.omniglot import omniglot_path
from metaloom.learners.episode import Episode, TaskShape, stack_episodes
from metaloom.learners.fields import make_config
from metaloom.learners.solvers.amortized import AdaptedByOutputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.transductive import TransductiveHead
from metaloom.learners.solvers.transductive.preparing import class_means, prepared, squared_distances
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.records.results import mean_interval

WAYS, QUERIES, SHOTS = 5, 15, (1, 5)
QUERIES_OF = {("Omniglot", 5): 7}  # where 15 would take all drawings of a class
BALANCES: Mapping[str, Mapping[str, Any] | None] = {"balanced": None, "Dirichlet(2)": {"dirichlet": 2}}
TOGETHER = 50  # episodes that a head sees at once, and a gather of examples in hundreds
NEAREST, PREPARED = "nearest class mean", "nearest class mean, features prepared as by pt_map"
SMOOTHING = 0.2  # of EPNet, whose paper trains the network through a smoothing of 0.5
MARGINALS: Mapping[str, tuple[str, ...]] = {
    "pt_map": ("estimated", "none"),
    "ilpc": ("estimated", "none"),
    "epnet": ("uniform",),
    "soft_k_means": ("uniform", "estimated"),
    "laplacian_shot": ("uniform",),
    "ptn": ("estimated", "none"),
    "ica_msp": ("none",),
    "oblique_manifold": ("estimated", "none"),
}
HEADS: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # by name: the solver, and its settings
    **{name: (name, {"smoothing": SMOOTHING} if name == "epnet" else {}) for name in MARGINALS},
    **{
        f"{name}, marginal {marginal}": (
            name,
            {"marginal": marginal} | ({"smoothing": SMOOTHING} if name == "epnet" else {}),
        )
        for name, others in MARGINALS.items()
        for marginal in others
    },
}
GATED = ("pt_map", "ilpc", "epnet", "soft_k_means")  # above the nearest class mean at 1 shot, balanced
Scores = Mapping[str, tuple[float, ...]]  # a head's accuracy on each test episode


@dataclass(frozen=True)
class Backbone:
    """Images, and how a prototypical network is trained on them."""

    images: str
    tasks: Mapping[str, Any]
    steps: int

    def experiment(self) -> dict[str, Any]:
        """Return 20-way 1-shot training, Adam 1e-3 on a cosine."""
        return {
            "tasks": {**self.tasks, "ways": 20, "shots": 1, "queries": 5, "evaluation": {"ways": 5}},
            "learner": {"method": "prototypical", "architecture": {"kind": "conv4", "channels": 64}},
            "outer": {
                "steps": self.steps,
                "meta_batch": 1,
                "rate": 0.001,
                "schedule": "cosine",
                "validate_every": self.steps,
                "validation_episodes": 2,
            },
        }


def backbones() -> list[Backbone]:
    """Return both; raises DataError if the images of one are not here."""
    return [
        Backbone("Omniglot", {"source": "omniglot", "path": omniglot_path()}, 600),
        Backbone("CIFAR-FS", {"source": "cifar_fs", "path": cifar_path()}, 1_000),
    ]


def m10(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Each head beside the nearest class mean, at 1 and 5 shots, with equally and with unequally many queries."""
    found = {backbone.images: [seed_of(backbone, seed, cache) for seed in seeds] for backbone in backbones()}
    rows: list[Row] = []
    for images, each in found.items():
        for case in each[0]:
            rows += case_rows(f"{images}, 5-way {case}", [one[case] for one in each])
        rows += lead_rows(images, each)
    return rows


def seed_of(backbone: Backbone, seed: int, cache: Path) -> dict[str, Scores]:
    """Return the heads' scores by case, of one seed; what this commit has measured before is not measured again."""
    commit = commit_of_code()
    file = cache / "reproductions" / str(commit) / f"M10-{backbone.images}-{seed}.json"
    if commit is None or not file.exists():
        trained = train(backbone.experiment(), seed=seed, cache=cache)
        table = Table(trained)
        scores = {
            f"{shots}-shot, {balance}": measured(table, backbone, shots, BALANCES[balance], cache)
            for shots in SHOTS
            for balance in BALANCES
        }
        for case, heads in scores.items():
            told = {name: round(float(np.mean(one)), 4) for name, one in heads.items()}
            print(f"M10, {backbone.images}, seed {seed}, {case}: {told}", flush=True)
        if commit is None:
            return scores
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(scores))
    document = json.loads(file.read_text())
    return {case: {name: tuple(one) for name, one in heads.items()} for case, heads in document.items()}


def measured(table: "Table", backbone: Backbone, shots: int, balance: Mapping[str, Any] | None, cache: Path) -> Scores:
    """Return every head's accuracy on each of the test episodes."""
    queries = QUERIES_OF.get((backbone.images, shots), QUERIES)
    sizes = {"ways": WAYS, "shots": shots, "queries": queries, "query_balance": balance}
    source = opened({**backbone.experiment(), "tasks": {**backbone.tasks, **sizes}}, TEST_SEED, cache)
    assert isinstance(source, FewShotSource)
    looked_up = source.looking_up(table)
    found: dict[str, list[float]] = {name: [] for name in (NEAREST, PREPARED, *HEADS)}
    for first in range(0, TEST_EPISODES, TOGETHER):
        drawn = [looked_up.episode("test", first + index).episode for index in range(TOGETHER)]
        for name, right in judged(stack_episodes(drawn)).items():
            found[name] += right
    return {name: tuple(scores) for name, scores in found.items()}


class Table:
    """The features of the test split's examples, by row and quarter turn."""

    def __init__(self, trained: Trained) -> None:
        source = trained.source
        assert isinstance(source, FewShotSource)
        rows, turns = source.examples("test")
        learner, generator = trained.trial.learner, torch.Generator().manual_seed(0)
        support = source.episode("train", 0).episode.support
        adapted = learner.adapt(dict(trained.phi), trained.state, support, generator)
        assert isinstance(adapted, AdaptedByOutputs)
        self._count = len(source.stored)
        self._places = np.full(4 * self._count, -1, dtype=np.int64)
        self._places[rows + turns * self._count] = np.arange(len(rows))
        with torch.no_grad():
            self._features = torch.cat(
                [
                    adapted.embed(
                        source.gather(rows[first : first + 256, None], turns[first : first + 256]).flatten(0, 1)
                    )
                    for first in range(0, len(rows), 256)
                ]
            )

    def __call__(self, rows: np.ndarray[Any, Any], turns: np.ndarray[Any, Any]) -> Tensor:
        """Return the features [ways, examples, width] of rows [ways, examples], turned as ``turns`` [ways] says."""
        return self._features[self._places[rows + turns[:, None] * self._count]]


@torch.no_grad()
def judged(episodes: Episode) -> dict[str, list[float]]:
    """Return every head's accuracy on each of these stacked episodes of features."""
    support, queries = episodes.support_x, episodes.query_x
    members = F.one_hot(episodes.support_y, WAYS).to(support.dtype)
    ready = prepared(support, queries, power=0.5, centre="separate")
    outputs = {
        NEAREST: -squared_distances(queries, class_means(support, members)),
        PREPARED: -squared_distances(ready[1], class_means(ready[0], members)),
    }
    for name in HEADS:
        outputs[name] = made(name, support.shape[-1]).scores({}, support, members, queries)
    right = {name: one.argmax(-1) == episodes.query_y for name, one in outputs.items()}
    return {name: one.double().mean(1).tolist() for name, one in right.items()}


@kept
def made(name: str, width: int) -> TransductiveHead:
    """Build a head of the table."""
    kind, settings = HEADS[name]
    config = make_config(SOLVERS[kind].Config, settings, "learner.prediction", kind)
    head = SOLVERS[kind](config, TaskShape("classification", (width,), WAYS))
    assert isinstance(head, TransductiveHead)
    return head


def case_rows(case: str, each: Sequence[Scores]) -> list[Row]:
    """Return the accuracies of a case, and what each gated head is better by than the nearest class mean."""
    rows = [of_scores(f"{case}: {name}", [one[name] for one in each], name) for name in each[0]]
    for name in HEADS:
        gates = name in GATED and "1-shot, balanced" in case
        better = [[mine - theirs for mine, theirs in zip(one[name], one[NEAREST], strict=True)] for one in each]
        rows.append(
            of_scores(f"{case}: {name} less {NEAREST}, paired", better, name, "interval above 0" if gates else "")
        )
    return rows


def of_scores(what: str, each: Sequence[Sequence[float]], name: str, gate: str = "") -> Row:
    """Put the seeds of a number together; the gate holds its interval over all episodes above 0."""
    _, low, high = mean_interval([score for one in each for score in one])
    setting = "inductive" if name == NEAREST else "transductive"
    return Row(
        "M10", what, tuple(sum(one) / len(one) for one in each), (low, high), gate, low > 0 if gate else None, setting
    )


def lead_rows(images: str, each: Sequence[Mapping[str, Scores]]) -> list[Row]:
    """Return how much of its lead PT+MAP loses with unequal queries, and how much more its variants keep."""
    rows = []
    for shots in SHOTS:
        equal, unequal = (f"{shots}-shot, {balance}" for balance in BALANCES)

        def leads(name: str, case: str) -> list[np.ndarray[Any, Any]]:
            return [np.array(one[case][name]) - np.array(one[case][NEAREST]) for one in each]

        lost = [before - after for before, after in zip(leads("pt_map", equal), leads("pt_map", unequal), strict=True)]
        what = f"{images}, 5-way {shots}-shot: lead of pt_map over the nearest class mean, balanced less Dirichlet(2)"
        rows.append(of_scores(what, [one.tolist() for one in lost], "pt_map", "interval above 0" if shots == 1 else ""))
        for marginal in ("estimated", "none"):
            name = f"pt_map, marginal {marginal}"
            kept_more = [
                mine - theirs for mine, theirs in zip(leads(name, unequal), leads("pt_map", unequal), strict=True)
            ]
            what = f"{images}, 5-way {shots}-shot, Dirichlet(2): {name} less pt_map, paired"
            gate = "interval above 0" if marginal == "estimated" and shots == 1 else ""
            rows.append(of_scores(what, [one.tolist() for one in kept_more], name, gate))
    return rows
