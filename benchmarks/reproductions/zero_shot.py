"""M9: classes without examples: animals by attributes (AwA1), and intents by their names (CLINC150)."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from operator import le
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reproductions.harness import ROOT, TEST_EPISODES, TEST_SEED, Row, Trained, opened, row, train
from benchmarks.reproductions.written_out import Scores, control, seeded
from metaloom.learners.episode import Support
from metaloom.workers.assembly import assemble
from metaloom.workers.data.base import DataError, TaskSource
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.records.names import VALIDATION
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_learner
from metaloom.workers.seeds import derive_generator

FLOOR = 0.352  # ESZSL on the same features, mean per-class accuracy on the 10 unseen classes
NAMES_FLOOR = 0.847  # the nearest name, 5-way on the test domains
PENALTIES = {"gamma": (1e-4, 1e-3, 1e-2, 1e-1), "lambda_": (0.01, 0.1, 1.0, 10.0)}
PROTOTYPES: tuple[dict[str, Any], ...] = (
    {"hidden": 512},
    {"hidden": 512, "unit_classes": True},
    {"hidden": 128, "unit_classes": True},
)
TEMPERATURES = (0.5, 1.5, 5.0)
RATE = 1e-3


def data_path(name: str, variable: str) -> str:
    """Return the file or folder that a variable of the environment names, or that beside the checkout.

    Raises DataError if it is not there.
    """
    path = os.environ.get(variable, str(ROOT.parent / "shared" / "data" / name))
    if not Path(path).exists():
        raise DataError(f"no data at {path}: set {variable}")
    return path


def animals(**settings: Any) -> dict[str, Any]:
    """Return the tasks section of AwA1."""
    path = data_path("awa1.npz", "METALOOM_AWA1")
    return {
        "source": "awa1",
        "path": path,
        "shots": 0,
        "queries": 10,
        "evaluation": {"ways": 10, "queries": 15},
        **settings,
    }


def final(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tasks of the last fit: 38 of the 40 seen classes, since a trial needs two to validate on."""
    return {**tasks, "validation": 2, "ways": 38, "evaluation": {"ways": 2, "queries": 15}}


def unseen_accuracy(trained: Trained, learner: Mapping[str, Any] | None = None) -> float:
    """Return the mean over the 10 unseen classes of the accuracy on all images of each."""
    document = trained.config.to_json()
    parts = assemble(
        TrialConfig.from_json({**document, "learner": learner or document["learner"]}), cache=trained.cache
    )
    source = parts.source
    assert isinstance(source, FewShotSource)
    classes, images = unseen(source)
    empty = Support(torch.zeros(0, *source.shape.inputs), torch.zeros(0, dtype=torch.int64), classes)
    adapted = parts.learner.adapt(dict(trained.phi), trained.state, empty, derive_generator(0, "evaluate"))
    right = [float((adapted.predict(x).argmax(1) == place).float().mean()) for place, x in enumerate(images)]
    return sum(right) / len(right)


def unseen(source: FewShotSource) -> tuple[Tensor, list[Tensor]]:
    """Return the features of each test class [classes, features], and all its images [images, features]."""
    first, last = source.table.ends["test"]
    held = source.class_features
    assert held is not None
    spans = zip(source.table.starts[first:last].tolist(), source.table.counts[first:last].tolist(), strict=True)
    images = [
        torch.from_numpy(np.array(source.stored[start : start + count], dtype=np.float32)) for start, count in spans
    ]
    return torch.from_numpy(held.values[first:last]), images


class Chosen(NamedTuple):
    """What the validation classes chose: settings, and the outer steps after which they were best."""

    score: float
    settings: Mapping[str, Any]
    steps: int


def experiment(tasks: Mapping[str, Any], prediction: Mapping[str, Any], **outer: Any) -> dict[str, Any]:
    """Return an experiment with zero-shot prototypes, over the features as they are."""
    learner = {
        "method": "zero_shot_prototypical",
        "architecture": {"kind": "linear"},
        "prediction": {"kind": "zero_shot_prototypical", **prediction},
    }
    usual = {"rate": RATE, "validate_every": 250, "validation_episodes": 100}
    return {"tasks": dict(tasks), "learner": learner, "outer": {**usual, **outer}}


def chosen_prototypes(seed: int, cache: Path) -> Chosen:
    """Choose the settings and the length of training by the validation classes."""
    found: list[Chosen] = []

    def at(settings: Mapping[str, Any], step: int, trained: Trained) -> None:
        report = trained.trial.last_report
        assert report is not None
        found.append(Chosen(report.metrics[f"{VALIDATION}_accuracy"], settings, step))

    for settings in PROTOTYPES:
        train(experiment(animals(ways=30), settings, steps=1_000), seed=seed, cache=cache, at=partial(at, settings))
    return max(found, key=lambda one: one.score)


def prototypes_row(seeds: Sequence[int], cache: Path, chosen: Mapping[int, Chosen]) -> Row:
    """Measure zero-shot prototypes, fitted with what the validation classes chose."""
    values = []
    for seed in seeds:
        best = chosen[seed]
        outer = {"steps": best.steps, "validation_episodes": 2, "keep": "last"}
        values.append(
            unseen_accuracy(train(experiment(final(animals()), best.settings, **outer), seed=seed, cache=cache))
        )
    what = "zero-shot prototypes, AwA1: mean per-class accuracy on the 10 unseen classes"
    return held("M9", what, values, FLOOR)


def held(claim: str, what: str, values: Sequence[float], least: float | None = None) -> Row:
    """Return a row of numbers that are no means of episodes."""
    mean = sum(values) / len(values)
    gate, reached = ("", None) if least is None else (f">= {least}", mean >= least)
    return Row(claim, what, tuple(values), None, gate, reached, "inductive, batch norm none")


def plain_prototypes(source: FewShotSource, chosen: Chosen, seed: int) -> float:
    """Train the same network in plain torch on the same episodes, and return its accuracy on the unseen classes."""
    width, inputs = source.shape.inputs[0], unseen(source)[0].shape[1]
    hidden, unit = chosen.settings["hidden"], chosen.settings.get("unit_classes", False)
    network = seeded(lambda: nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, width)), seed)
    optimizer = torch.optim.Adam(network.parameters(), RATE)

    def logits(x: Tensor, classes: Tensor) -> Tensor:
        places = F.normalize(network(F.normalize(classes, dim=1) if unit else classes), dim=1)
        return -torch.cdist(x, places).square()

    for index in range(chosen.steps):
        episode = source.episode("train", index).episode
        assert episode.support.class_features is not None
        loss = F.cross_entropy(logits(episode.query_x, episode.support.class_features), episode.query_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    classes, images = unseen(source)
    with torch.no_grad():
        right = [float((logits(x, classes).argmax(1) == place).float().mean()) for place, x in enumerate(images)]
    return sum(right) / len(right)


def eszsl_settings(gamma: float, lambda_: float) -> dict[str, Any]:
    """Return the learner section of ESZSL."""
    return {"method": "eszsl", "prediction": {"kind": "eszsl", "gamma": gamma, "lambda_": lambda_}}


def eszsl(seed: int, cache: Path) -> float:
    """Choose the penalties by the validation classes, fit, and return the accuracy on the unseen classes.

    The sums that the closed form is computed of do not depend on the penalties: one trial serves them all.
    """
    raw = animals(ways=30, standardize=False, standardize_classes=False)
    outer = {"steps": 400, "validate_every": 400, "validation_episodes": 2, "keep": "last"}
    first = train({"tasks": raw, "learner": eszsl_settings(0.01, 0.1), "outer": outer}, seed=seed, cache=cache)
    scores = {}
    for gamma in PENALTIES["gamma"]:
        for lambda_ in PENALTIES["lambda_"]:
            document = {**first.config.to_json(), "learner": eszsl_settings(gamma, lambda_)}
            parts = assemble(TrialConfig.from_json(document), cache=cache)
            scored = evaluate_learner(parts.learner, {}, first.state, parts.source, VALIDATION, 100)
            scores[gamma, lambda_] = scored.mean
    best = eszsl_settings(*max(scores, key=lambda one: scores[one]))
    return unseen_accuracy(train({"tasks": final(raw), "learner": best, "outer": outer}, seed=seed, cache=cache))


def plain_eszsl(source: FewShotSource) -> float:
    """Compute the paper's formula over all examples of the training classes, with the floor's penalties (100, 0.1)."""
    first, last = source.table.ends["train"]
    classes, images = unseen(source)
    assert source.class_features is not None
    known = F.normalize(torch.from_numpy(source.class_features.values[first:last]).double(), dim=1)
    rows, _ = source.examples("train")
    x = F.normalize(torch.from_numpy(np.array(source.stored[rows], dtype=np.float64)), dim=1)
    labels = torch.arange(last - first).repeat_interleave(torch.from_numpy(source.table.counts[first:last]))
    signs = 2 * F.one_hot(labels, last - first).double() - 1
    left = torch.linalg.solve(x.T @ x + 100 * torch.eye(x.shape[1]).double(), x.T @ signs @ known)
    weights = left @ torch.linalg.inv(known.T @ known + 0.1 * torch.eye(known.shape[1]).double())
    scores = [F.normalize(x.double(), dim=1) @ weights @ F.normalize(classes.double(), dim=1).T for x in images]
    return sum(float((one.argmax(1) == place).float().mean()) for place, one in enumerate(scores)) / len(scores)


def intents(**settings: Any) -> dict[str, Any]:
    """Return the tasks section of CLINC150, tested 5-way."""
    path = data_path("clinc150.json", "METALOOM_CLINC150")
    return {
        "source": "clinc150",
        "path": path,
        "ways": 20,
        "queries": 5,
        "evaluation": {"ways": 5, "queries": 15},
        **settings,
    }


def intents_row(seeds: Sequence[int], cache: Path) -> Row:
    """Measure zero-shot prototypes by intent name, with the temperature that the validation domains chose."""
    tests = []
    for seed in seeds:
        found: list[tuple[float, Trained]] = []
        for temperature in TEMPERATURES:
            settings = {"metric": "cosine", "width": 512, "start": "identity", "temperature": temperature}
            outer = {"steps": 500, "rate": 1e-4, "validate_every": 50, "validation_episodes": 200, "keep": "best"}
            trained = train(experiment(intents(), settings, **outer), seed=seed, cache=cache)
            report = trained.trial.last_report
            assert report is not None
            found.append((report.metrics[f"{VALIDATION}_accuracy"], trained))
        tests.append(max(found, key=lambda one: one[0])[1].test())
    least = NAMES_FLOOR + 0.02
    what = "zero-shot prototypes, CLINC150: 5-way by the intent's name on the test domains"
    return row("M9", what, tests, gate=f">= {least:.3f}", reached=partial(le, least))


def nearest_name(source: TaskSource) -> Scores:
    """Return the accuracy of the nearest name, by the cosine on the embeddings themselves, on each test episode."""
    scores = []
    for index in range(TEST_EPISODES):
        episode = source.episode("test", index).episode
        assert episode.support.class_features is not None
        cosines = F.normalize(episode.query_x, dim=1) @ F.normalize(episode.support.class_features, dim=1).T
        scores.append(float((cosines.argmax(1) == episode.query_y).float().mean()))
    return tuple(scores)


def m9(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Zero-shot prototypes and ESZSL on AwA1, prototypes of names on CLINC150."""
    chosen = {seed: chosen_prototypes(seed, cache) for seed in seeds}
    for seed, one in chosen.items():
        print(
            f"M9, seed {seed}: validation chose {dict(one.settings)} after {one.steps} steps: {one.score:.4f}",
            flush=True,
        )
    tasks = final(animals())
    sources = {seed: opened(experiment(tasks, {}), seed, cache) for seed in seeds}
    plain = [plain_prototypes(as_few_shot(one), chosen[seed], seed) for seed, one in sources.items()]
    raw = {"standardize": False, "standardize_classes": False}
    floor = as_few_shot(opened(experiment({**tasks, **raw}, {}), 0, cache))
    names = opened(experiment(intents(standardize=False, standardize_classes=False), {}), TEST_SEED, cache)
    where = "mean per-class accuracy on the 10 unseen classes"
    return [
        prototypes_row(seeds, cache, chosen),
        held("M9", f"the same, written out in plain torch: {where}", plain),
        held("M9", f"ESZSL, AwA1: {where}", [eszsl(seed, cache) for seed in seeds]),
        held("M9", f"ESZSL, written out over all examples of the same 38 classes: {where}", [plain_eszsl(floor)]),
        intents_row(seeds, cache),
        control("M9", "the nearest name, CLINC150: 5-way on the test domains", [nearest_name(names)], "inductive"),
    ]


def as_few_shot(source: TaskSource) -> FewShotSource:
    """Return a source as what it is, for a type checker."""
    assert isinstance(source, FewShotSource)
    return source
