"""Trials on many data sets: records by data set, resuming, methods, and the table of data sets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.records.results import by_source, mean_interval
from metaloom.workers.records.trial import Report, TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from tests.support.episodes import read_episodes


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three data sets of points in the plane, of 8, 4 and 4 classes."""
    folder = tmp_path_factory.mktemp("clouds")
    for name, classes in (("one", 8), ("two", 4), ("three", 4)):
        random = np.random.default_rng(classes)
        y = np.repeat(np.arange(classes), 9)
        x = random.normal(0, 3, (classes, 4))[y] + random.normal(0, 0.3, (len(y), 4))
        np.savez(folder / f"{name}.npz", x=x.astype(np.float32), y=y)
    return folder


def sections(clouds: Path, *names: str, **settings: Any) -> list[dict[str, Any]]:
    return [{"source": "arrays", "path": str(clouds / f"{name}.npz"), **settings} for name in names]


def trial(clouds: Path, directory: Path, method: str = "maml", *, of_outer: Any = None, **tasks: Any) -> Trial:
    given: dict[str, Any] = {"sources": sections(clouds, "one", "two"), "validation": sections(clouds, "three")}
    given |= {"test": sections(clouds, "three"), "ways": 2, "shots": 1, "queries": 3}
    experiment = load_experiment(
        {
            "tasks": {"source": "many", **given, **tasks},
            "learner": {"method": method, "architecture": {"kind": "mlp", "hidden": [8]}},
            "outer": {"steps": 6, "meta_batch": 3, "validate_every": 3, "validation_episodes": 5, **(of_outer or {})},
        }
    )
    parts = resolve(experiment, defaults(experiment))
    config = TrialConfig("many", 0, 3, parts.tasks, parts.learner, parts.inner, parts.outer, parts.resources)
    return Trial(config, directory, cache=clouds / "cache")


def finished(one: Trial) -> Report:
    while not one.finished:
        report = one.advance()
    return report


def test_a_trial_records_the_data_set_of_each_episode(clouds: Path, tmp_path: Path) -> None:
    own = sections(clouds, "one", validation_fraction=0.25) + sections(clouds, "one", validation_fraction=0.5)
    report = finished(trial(clouds, tmp_path, sources=own, validation=None))
    rows = read_episodes(tmp_path / "episodes").to_pylist()
    assert {row["source"] for row in rows} == {"arrays:one", "arrays:one-2"}
    last = [row for row in rows if row["phase"] == "validation" and row["step"] == 6]
    for name, (mean, low, high, count) in report.by_source.items():
        scores = [row["accuracy_after"] for row in last if row["source"] == name]
        assert count == len(scores) and (mean, low, high) == mean_interval(scores, metric="accuracy")
        assert report.metrics[f"validation_accuracy/{name}"] == mean
    trained = [row for row in rows if row["phase"] == "train" and row["step"] >= 3]
    for name in {row["source"] for row in trained}:
        losses = [row["loss_after"] for row in trained if row["source"] == name]
        assert report.metrics[f"train_loss/{name}"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert Report.from_json(report.to_json()) == report


def test_a_report_of_one_data_set_is_as_before(clouds: Path) -> None:
    report = Report(1, {}, (0.0, 1.0), (0.5,), 1, 1.0, finished=True)
    assert "by_source" not in report.to_json() and Report.from_json(report.to_json()) == report
    assert by_source(["", ""], [0.1, 0.2], "accuracy") == {}


@pytest.mark.parametrize("method", ["maml", "prototypical", "joint_pretraining"])
def test_a_resumed_trial_repeats_the_uninterrupted_one(method: str, clouds: Path, tmp_path: Path) -> None:
    whole = trial(clouds, tmp_path / "whole", method)
    finished(whole)
    first = trial(clouds, tmp_path / "cut", method)
    first.advance()
    first.close()
    second = trial(clouds, tmp_path / "cut", method)
    report = finished(second)
    assert whole.last_report is not None and report.scores == whole.last_report.scores
    assert report.by_source == whole.last_report.by_source
    assert all(torch.equal(leaf, second.phi[name]) for name, leaf in whole.phi.items()) and whole.phi
    tables = [read_episodes(tmp_path / name / "episodes").drop_columns(["seconds"]) for name in ("whole", "cut")]
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize("method", ["maml", "prototypical"])
def test_data_sets_of_several_ways_and_shots_train_one_learner(method: str, clouds: Path, tmp_path: Path) -> None:
    sources = sections(clouds, "one", ways=4, shots=2, evaluation={"ways": 2})
    sources += sections(clouds, "two", ways=3, shots=1, evaluation={"ways": 2})
    held = sections(clouds, "three", ways=2, shots=1)
    one = trial(clouds, tmp_path, method, sources=sources, validation=held, test=held, ways=None, shots=None)
    finished(one)
    rows = [row for row in read_episodes(tmp_path / "episodes").to_pylist() if row["phase"] == "train"]
    assert {(row["source"], row["ways"], row["shots"]) for row in rows} == {("arrays:one", 4, 2), ("arrays:two", 3, 1)}
    steps = {step: {row["source"] for row in rows if row["step"] == step} for step in range(6)}
    assert all(len(names) == 1 for names in steps.values())
    assert evaluate_trial(tmp_path, cache=clouds / "cache", episodes=4).episodes == 4


def test_a_test_may_have_other_sizes(clouds: Path, tmp_path: Path) -> None:
    finished(trial(clouds, tmp_path, "prototypical"))
    found = evaluate_trial(tmp_path, cache=clouds / "cache", episodes=3, sizes={"ways": 4, "shots": 2})
    assert {(fact.ways, fact.shots, fact.source) for fact in found.facts} == {(4, 2, "arrays:three-2")}


def test_training_over_data_sets_helps_with_another_one(clouds: Path, tmp_path: Path) -> None:
    one = trial(clouds, tmp_path, "prototypical", of_outer={"steps": 60, "validate_every": 60, "rate": 0.01})
    report = finished(one)
    assert report.metrics["validation_accuracy"] > 0.8
