"""Weights of training classes by unlabelled examples of a target, from the bundle of a source classifier."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import metaloom
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_reading import parameters_of
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.checkpoint import Knowledge
from metaloom.workers.data import open_source
from metaloom.workers.errors import BundleError
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial

TASKS = {"source": "digits", "batch": 100, "meta_size": 100}
OUTER = {"steps": 60, "meta_batch": 1, "rate": 0.01, "validate_every": 60, "validation_episodes": 2, "test_episodes": 2}


def bundle_of(method: str, folder: Path) -> Path:
    learner = {
        "method": method,
        "architecture": {"kind": "mlp", "hidden": [16]},
        "initialization": {"kind": "learned"},
        "prediction": {"kind": method},
    }
    trial = Trial(TrialConfig("first", 0, 0, TASKS, learner, {}, OUTER, {}), folder / "trial", cache=folder / "cache")
    while not trial.finished:
        trial.advance()
    return write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=None)


def test_the_weights_are_ratios_of_what_the_classifier_sees(tmp_path: Path) -> None:
    folder = bundle_of("supervised", tmp_path)
    source = open_source(TASKS, seed=0, cache=tmp_path / "cache")
    episode = source.episode("test", 0).episode
    x, y = torch.cat([episode.support_x, episode.query_x]), torch.cat([episode.support_y, episode.query_y])
    target = x[(y == 3) | (y == 8)]
    found = metaloom.class_weights(folder, target)
    assert len(found) == 10
    assert sum(found) / 10 == pytest.approx(1.0)
    assert set(sorted(range(10), key=lambda one: -found[one])[:2]) == {3, 8}
    knowledge = Knowledge.read(folder / "meta_knowledge.safetensors")
    theta, head = parameters_of(knowledge), {name: value for name, value in knowledge.phi.items() if "classes" in name}
    hidden = F.relu(target @ theta["layer0.weight"].T + theta["layer0.bias"])
    scores = hidden @ head["prediction/classes.weight"].T + head["prediction/classes.bias"]
    counts = torch.tensor(source.shape.counts, dtype=torch.float64)
    ratios = scores.softmax(-1).double().mean(0) / (counts / counts.sum())
    assert found == pytest.approx((ratios / ratios.mean()).tolist(), rel=1e-4)
    assert metaloom.class_weights(load_bundle(folder), target.numpy()) == pytest.approx(found)


def test_other_bundles_and_no_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"examples: got shape \(0, 64\); this learner takes \[n, 64\]"):
        metaloom.class_weights(bundle_of("supervised", tmp_path), torch.zeros(0, 64))
    with pytest.raises(BundleError, match=r"no head over all training classes; give a bundle of supervised"):
        metaloom.class_weights(bundle_of("denoising_autoencoder", tmp_path / "other"), torch.zeros(3, 64))
