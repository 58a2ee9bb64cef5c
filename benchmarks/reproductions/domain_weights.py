"""P6: supervised pre-training with weights by the target (Ngiam et al., 2018, arXiv 1811.07056).

Conv-4 of 32 channels is pre-trained on the 64 training classes of CIFAR-FS. The target is five of its test classes.
Half of their images, without labels, give P_target by the classifier that was pre-trained on all classes alike. The
test is few-shot tasks of the other half, solved by the nearest class mean on the features. The networks differ in the
weights of the training classes alone: all alike; w(y) = P_target(y) / P_source(y); and 1 for the 16 classes with the
largest w, 0 for the others. They start equal, and take as many steps on the same batches.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.reproductions.harness import TEST_EPISODES, TEST_SEED, Row, Trained, kept, opened, train
from benchmarks.reproductions.model_based_learners import cifar_path
from metaloom.learners.solvers.amortized import AdaptedByOutputs, AmortizedLearner
from metaloom.learners.solvers.metric import class_means
from metaloom.learners.solvers.pretraining.supervised import Supervised, target_weights
from metaloom.learners.tensors import part
from metaloom.workers.data.base import DataError
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.records.results import mean_interval

WAYS, QUERIES, SHOTS = 5, 15, (1, 5)
TARGETS, TOP = 2, 16  # sets of five classes a seed, and classes of the hard selection
STEPS = 1_000
UNIFORM, WEIGHTED, SELECTED = "all classes alike", "weights by the target", f"the top {TOP} classes alone"
Scores = Mapping[str, Sequence[float]]  # by shots and weights: the accuracy of each episode, over the targets


def experiment(weights: Sequence[float] = ()) -> dict[str, Any]:
    """Return the pre-training."""
    return {
        "tasks": {
            "source": "cifar_fs",
            "path": cifar_path(),
            "ways": 32,
            "shots": 1,
            "queries": 1,
            "evaluation": {"ways": WAYS, "shots": 1, "queries": QUERIES},
        },
        "learner": {
            "method": "supervised",
            "architecture": {"kind": "conv4", "channels": 32},
            "prediction": {"weights": [round(one, 6) for one in weights]},
        },
        "outer": {
            "steps": STEPS,
            "rate": 0.001,
            "schedule": "cosine",
            "validate_every": STEPS,
            "validation_episodes": 2,
        },
    }


def images_of_test_classes(cache: Path) -> Tensor:
    """Return the images of the test classes: [classes, images, 3, 32, 32]."""
    source = opened(experiment(), TEST_SEED, cache)
    if not isinstance(source, FewShotSource):
        raise DataError("P6: CIFAR-FS has no few-shot classes")
    rows, turns = source.examples("test")  # class by class, each with as many
    images = [source.gather(rows[at : at + 256, None], turns[at : at + 256])[:, 0] for at in range(0, len(rows), 256)]
    first, last = source.table.ends["test"]
    return torch.cat(images).unflatten(0, (last - first, -1))


def body(trained: Trained) -> "Body":
    """Return the features and the class probabilities of a pre-trained network."""
    learner = trained.trial.learner
    assert isinstance(learner, AmortizedLearner)
    return Body(learner, trained)


class Body:
    """A pre-trained network: its features, and what its head says of the training classes."""

    def __init__(self, learner: AmortizedLearner, trained: Trained) -> None:
        support = trained.source.episode("train", 0).episode.support
        adapted = learner.adapt(dict(trained.phi), trained.state, support, torch.Generator().manual_seed(0))
        assert isinstance(adapted, AdaptedByOutputs)
        assert isinstance(learner.solver, Supervised)
        self._embed, self._solver, self._phi = adapted.embed, learner.solver, part(dict(trained.phi), "prediction")

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return the features of images [n, 3, 32, 32]: [n, width]."""
        return torch.cat([self._embed(some) for some in images.split(250)])

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return the probabilities of the training classes: [n, classes]."""
        return self._solver.scores(self._phi, self.features(images)).softmax(-1)


def measured(seed: int, cache: Path) -> dict[str, list[float]]:
    """Return a seed's accuracies on the episodes of its targets, by shots and weights."""
    images = images_of_test_classes(cache)
    uniform = body(train(experiment(), seed=seed, cache=cache))
    chosen = np.random.default_rng(seed)
    found: dict[str, list[float]] = {}
    for target in range(TARGETS):
        classes = torch.from_numpy(chosen.choice(len(images), WAYS, replace=False))
        unlabelled, tested = images[classes].chunk(2, 1)
        probabilities = uniform.probabilities(unlabelled.flatten(0, 1))
        weights = target_weights(probabilities, torch.ones(probabilities.shape[1]))
        top = (weights >= weights.sort(descending=True).values[TOP - 1]).float()
        bodies = {UNIFORM: uniform}
        for name, given in ((WEIGHTED, weights), (SELECTED, top)):
            bodies[name] = body(train(experiment(given.tolist()), seed=seed, cache=cache))
        for name, one in bodies.items():
            for shots in SHOTS:
                scores = few_shot(one.features(tested.flatten(0, 1)).unflatten(0, (WAYS, -1)), shots, target)
                found.setdefault(f"{shots}-shot: {name}", []).extend(scores)
                print(f"P6, seed {seed}, target {target}, {shots}-shot, {name}: {np.mean(scores):.4f}", flush=True)
    return found


def few_shot(features: Tensor, shots: int, target: int) -> list[float]:
    """Return the accuracy of the nearest class mean on each of 600 episodes of features [ways, images, width]."""
    drawn, scores = np.random.default_rng([TEST_SEED, target, shots]), []
    labels = torch.arange(WAYS)
    for _ in range(TEST_EPISODES):
        order = np.stack([drawn.permutation(features.shape[1])[: shots + QUERIES] for _ in range(WAYS)])
        episode = features[labels[:, None], torch.from_numpy(order)]  # [ways, shots + queries, width]
        means = class_means(episode[:, :shots].flatten(0, 1), labels.repeat_interleave(shots), WAYS)
        nearest = torch.cdist(episode[:, shots:].flatten(0, 1), means).argmin(1)
        scores.append(float((nearest == labels.repeat_interleave(QUERIES)).double().mean()))
    return scores


def p6(seeds: Sequence[int], cache: Path) -> list[Row]:
    """Few-shot accuracy on the target, by how the training classes are weighted."""
    each: list[Scores] = [kept(cache, f"P6-{seed}", partial(measured, seed, cache)) for seed in seeds]
    rows = [of_episodes(f"5-way {name}", [one[name] for one in each]) for name in each[0]]
    for shots in SHOTS:
        for name in (WEIGHTED, SELECTED):
            better = [paired(one[f"{shots}-shot: {name}"], one[f"{shots}-shot: {UNIFORM}"]) for one in each]
            gate = "interval above 0" if (name, shots) == (WEIGHTED, SHOTS[0]) else ""
            rows.append(of_episodes(f"5-way {shots}-shot: {name} less {UNIFORM}, paired", better, gate))
    return rows


def paired(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the differences on the same episodes."""
    return [mine - other for mine, other in zip(ours, theirs, strict=True)]


def of_episodes(what: str, each: Sequence[Sequence[float]], gate: str = "") -> Row:
    """Put the seeds of a number together; the gate holds its interval over all episodes above 0."""
    _, low, high = mean_interval([score for one in each for score in one])
    values = tuple(sum(one) / len(one) for one in each)
    return Row("P6", what, values, (low, high), gate, low > 0 if gate else None, "inductive, batch norm frozen")
