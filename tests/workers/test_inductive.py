"""A transductive learner is also scored with the support set's statistics, and a bundle may be made so."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from metaloom.learners.build import build_learner
from metaloom.learners.episode import Episode, Support, TaskShape
from metaloom.learners.outer import OuterConfig
from metaloom.workers.assembly import Assembly
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data.base import SampledEpisode
from metaloom.workers.device import CPU
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import MANIFEST_FILE
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_learner, evaluate_trial, served
from metaloom.workers.trial.runner import Trial

TASK = TaskShape("classification", (1, 16, 16), 2, classes=8)
GRADIENT = {
    "method": "maml",
    "architecture": {"kind": "conv4", "channels": 4},
    "initialization": {"kind": "learned"},
    "update": {"kind": "sgd", "rate": 0.1, "steps": 2, "evaluation_steps": 3},
}
METRIC = {
    "method": "prototypical",
    "architecture": {"kind": "conv4", "channels": 4},
    "initialization": {"kind": "learned"},
    "prediction": {"kind": "prototypes"},
}
TRANSDUCTIVE = [(GRADIENT, {"batch_norm": "batch"}), (GRADIENT, {"batch_norm": "per_step"}), (METRIC, {})]


class Stripes:
    """Noisy stripes, each class of its own width; the classes of a query set are unevenly many."""

    name, shape = "stripes", TASK

    def available(self, split: str) -> int | None:
        return None

    def episode(self, split: str, index: int) -> SampledEpisode:
        numbers = np.random.default_rng([("train", "validation", "test").index(split), index])
        classes = numbers.choice(8, 2, replace=False)

        def draw(labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
            rows = np.sin(np.arange(16)[None] * (classes[labels][:, None] + 1) * 0.35)
            x = 0.5 + 0.3 * rows[:, None, :, None] + 0.15 * numbers.standard_normal((len(labels), 1, 16, 16))
            return torch.from_numpy(x.astype(np.float32)), torch.tensor(labels)

        (support_x, support_y), (query_x, query_y) = draw([0, 0, 1, 1]), draw([0, 0, 0, 0, 1, 1])
        episode = Episode(Support(support_x, support_y), query_x, query_y, torch.from_numpy(classes))
        return SampledEpisode(episode, int(numbers.integers(2**62)), tuple(classes.tolist()), ())


def trained(folder: Path, learner: dict[str, Any], inner: dict[str, Any]) -> Trial:
    outer = {"steps": 3, "meta_batch": 2, "validate_every": 3, "validation_episodes": 2, "strategy": "loop"}
    config = TrialConfig("test", 0, 5, {"source": "stripes"}, learner, inner, outer)
    built = build_learner(learner=learner, inner=inner, outer=outer, task=TASK)
    trial = Trial(config, folder, cache=folder, assembly=Assembly(Stripes(), built, CPU, OuterConfig.of(outer)))
    while not trial.finished:
        trial.advance()
    return trial


@pytest.mark.parametrize(("learner", "inner"), TRANSDUCTIVE)
def test_both_scores_are_of_the_same_adaptation(tmp_path: Path, learner: dict[str, Any], inner: dict[str, Any]) -> None:
    trial = trained(tmp_path, learner, inner)
    score = [trial.phi, trial.state, Stripes(), "test", 12]
    plain = evaluate_learner(trial.learner, *score)
    both = evaluate_learner(trial.learner, *score, both=True)
    alone = evaluate_learner(served(trial.learner, inductive=True), *score)
    assert (both.scores, both.losses, both.per_step) == (plain.scores, plain.losses, plain.per_step)
    assert plain.inductive is None and both.inductive is not None and alone.inductive is None
    assert (plain.setting, alone.setting) == ("transductive", "inductive")
    assert (both.inductive.mean, both.inductive.interval) == (alone.mean, alone.interval)
    assert alone.losses != plain.losses
    differences = [one - other for one, other in zip(alone.scores, plain.scores, strict=True)]
    assert (both.inductive.better_by, *both.inductive.better_by_interval) == mean_interval(differences)
    assert "inductive" not in plain.to_json() and both.to_json()["inductive"]["mean"] == alone.mean


@pytest.mark.parametrize(("learner", "inner"), TRANSDUCTIVE)
def test_an_inductive_bundle_predicts_each_query_on_its_own(
    tmp_path: Path, learner: dict[str, Any], inner: dict[str, Any]
) -> None:
    trial = trained(tmp_path / "trial", learner, inner)
    score = [trial.phi, trial.state, Stripes(), "test", 12]
    transductive = evaluate_learner(trial.learner, *score)
    evaluation = evaluate_learner(served(trial.learner, inductive=True), *score)
    path = write_bundle(
        tmp_path / "trial",
        tmp_path / "bundle",
        origin={},
        evaluation=evaluation,
        inductive=True,
        transductive=transductive,
    )
    bundle = load_bundle(path)
    assert bundle.evaluate(Stripes(), episodes=12).scores == evaluation.scores
    sampled = Stripes().episode("test", 0)
    one = sampled.episode
    model = bundle.adapt(one.support_x, one.support_y, seed=sampled.seed)
    together = model.probabilities(one.query_x)
    alone = torch.cat([model.probabilities(one.query_x[[place]]) for place in range(6)])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)
    right = float((together.argmax(1) == one.query_y).float().mean())
    assert right == pytest.approx(evaluation.scores[0])
    beside = json.loads((path / MANIFEST_FILE).read_text())["beside"]
    assert beside["mean"] == transductive.mean
    assert beside["better_by"] == pytest.approx(evaluation.mean - transductive.mean)
    assert f"accuracy {transductive.mean:.4f}" in bundle.card
    assert yaml.safe_load((path / "config.yaml").read_text())["inductive"] is True
    with pytest.raises(BundleError, match="inductive already"):
        served(bundle._learner, inductive=True)


def test_a_bundle_that_is_not_changed_keeps_the_first_format(tmp_path: Path) -> None:
    trained(tmp_path / "trial", *TRANSDUCTIVE[0])
    path = write_bundle(tmp_path / "trial", tmp_path / "bundle", origin={}, evaluation=None)
    assert json.loads((path / MANIFEST_FILE).read_text())["format"] == 1
    path = write_bundle(tmp_path / "trial", tmp_path / "other", origin={}, evaluation=None, inductive=True)
    assert json.loads((path / MANIFEST_FILE).read_text())["format"] == 2  # which an earlier version refuses


@pytest.mark.parametrize("mode", ["support", "frozen"])
def test_an_inductive_learner_has_no_second_score(mode: str) -> None:
    outer = {"strategy": "loop"}
    learner = build_learner(learner=GRADIENT, inner={"batch_norm": mode}, outer=outer, task=TASK)
    assert learner.inductive() is None
    with pytest.raises(BundleError, match="this learner is inductive already; leave it out"):
        served(learner, inductive=True)


def test_a_trials_test_has_both_and_its_records_are_the_trials_own(tmp_path: Path) -> None:
    tasks = {"source": "digits", "flat": False, "batch": 20, "meta_batch": 10, "queries": 10}
    architecture = {"kind": "conv4", "channels": 4, "blocks": 2}
    config = TrialConfig("digits", 0, 5, tasks, {**GRADIENT, "architecture": architecture}, {}, {"steps": 1})
    trial = Trial(config, tmp_path / "trial", cache=tmp_path / "cache")
    while not trial.finished:
        trial.advance()
    both = evaluate_trial(tmp_path / "trial", cache=tmp_path / "cache", episodes=4)
    alone = evaluate_trial(tmp_path / "trial", cache=tmp_path / "cache", episodes=4, inductive=True)
    assert both.inductive is not None and both.inductive.mean == alone.mean
    assert alone.batch_norm == "support"
