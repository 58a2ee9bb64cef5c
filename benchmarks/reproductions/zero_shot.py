"""M9: classes without examples: animals by attributes (AwA1), and intents by their names (CLINC150)."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from operator import le
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reproductions.harness import (
    ROOT,
    TEST_SEED,
    Row,
    Trained,
    evaluation_of,
    kept,
    opened,
    row,
    train,
)
from benchmarks.reproductions.plain_zero_shot import nearest_name, plain_eszsl, unseen
from benchmarks.reproductions.written_out import control, seeded
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


def validated(seed: int, cache: Path, settings: Mapping[str, Any]) -> list[tuple[float, int]]:
    """Train with some settings, and return the accuracy on the validation classes with the steps until then."""
    found: list[tuple[float, int]] = []

    def at(step: int, trained: Trained) -> None:
        report = trained.trial.last_report
        assert report is not None
        found.append((report.metrics[f"{VALIDATION}_accuracy"], step))

    train(experiment(animals(ways=30), settings, steps=1_000), seed=seed, cache=cache, at=at)
    return found


def chosen_prototypes(seed: int, cache: Path) -> Chosen:
    """Choose the settings and the length of training by the validation classes."""
    found = [
        Chosen(score, settings, step)
        for place, settings in enumerate(PROTOTYPES)
        for score, step in kept(cache, f"M9-validated-{place}-{seed}", partial(validated, seed, cache, settings))
    ]
    return max(found, key=lambda one: one.score)


def fitted(seed: int, cache: Path) -> float:
    """Fit zero-shot prototypes with what the validation classes chose; return the accuracy on the unseen classes."""
    best = chosen_prototypes(seed, cache)
    outer = {"steps": best.steps, "validation_episodes": 2, "keep": "last"}
    return unseen_accuracy(train(experiment(final(animals()), best.settings, **outer), seed=seed, cache=cache))


def held(claim: str, what: str, values: Sequence[float], least: float | None = None) -> Row:
    """Return a row of numbers that are no means of episodes."""
    mean = sum(values) / len(values)
    gate, reached = ("", None) if least is None else (f">= {least}", mean >= least)
    return Row(claim, what, tuple(values), None, gate, reached, "inductive, batch norm none")


def plain_prototypes(seed: int, cache: Path) -> float:
    """Train the same network in plain torch on the same episodes, and return its accuracy on the unseen classes."""
    source, chosen = as_few_shot(opened(experiment(final(animals()), {}), seed, cache)), chosen_prototypes(seed, cache)
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


def by_name(seed: int, cache: Path, temperature: float) -> tuple[float, dict[str, Any]]:
    """Train prototypes of intents' names; return the accuracy on the validation domains, and the test."""
    settings = {"metric": "cosine", "width": 512, "start": "identity", "temperature": temperature}
    outer = {"steps": 500, "rate": 1e-4, "validate_every": 50, "validation_episodes": 200, "keep": "best"}
    trained = train(experiment(intents(), settings, **outer), seed=seed, cache=cache)
    report = trained.trial.last_report
    assert report is not None
    return report.metrics[f"{VALIDATION}_accuracy"], asdict(replace(trained.test(), facts=()))


def intents_row(seeds: Sequence[int], cache: Path) -> Row:
    """Measure zero-shot prototypes by intent name, with the temperature that the validation domains chose."""
    tests = []
    for seed in seeds:
        found = [
            kept(cache, f"M9-named-{place}-{seed}", partial(by_name, seed, cache, temperature))
            for place, temperature in enumerate(TEMPERATURES)
        ]
        tests.append(evaluation_of(max(found, key=lambda one: one[0])[1]))
    least = NAMES_FLOOR + 0.02
    what = "zero-shot prototypes, CLINC150: 5-way by the intent's name on the test domains"
    return row("M9", what, tests, gate=f">= {least:.3f}", reached=partial(le, least))


def m9(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Zero-shot prototypes and ESZSL on AwA1, prototypes of names on CLINC150."""
    for seed in seeds:
        one = chosen_prototypes(seed, cache)
        print(f"M9, seed {seed}: validation chose {dict(one.settings)}, {one.steps} steps: {one.score:.4f}", flush=True)

    def of_seeds(measure: Callable[[int, Path], float]) -> list[float]:
        return [kept(cache, f"M9-{measure.__name__}-{seed}", partial(measure, seed, cache)) for seed in seeds]

    raw = {"standardize": False, "standardize_classes": False}
    floor = as_few_shot(opened(experiment({**final(animals()), **raw}, {}), 0, cache))
    names = opened(experiment(intents(**raw), {}), TEST_SEED, cache)
    where = "mean per-class accuracy on the 10 unseen classes"
    return [
        held("M9", f"zero-shot prototypes, AwA1: {where}", of_seeds(fitted), FLOOR),
        held("M9", f"the same, written out in plain torch: {where}", of_seeds(plain_prototypes)),
        held("M9", f"ESZSL, AwA1: {where}", of_seeds(eszsl)),
        held("M9", f"ESZSL, written out over all examples of the same 38 classes: {where}", [plain_eszsl(floor)]),
        intents_row(seeds, cache),
        control("M9", "the nearest name, CLINC150: 5-way on the test domains", [nearest_name(names)], "inductive"),
    ]


def as_few_shot(source: TaskSource) -> FewShotSource:
    """Return a source as what it is, for a type checker."""
    assert isinstance(source, FewShotSource)
    return source
