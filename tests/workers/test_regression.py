"""Regression on a table of the user's own: results in the target's units, and beside a constant."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaloom.learners.task_kinds import CLASSIFICATION, REGRESSION
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.progress import constant_warning
from metaloom.workers.records import names
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import Evaluation, evaluate_trial
from metaloom.workers.trial.runner import Trial

ROWS = 160


def houses(path: Path) -> Path:
    generator = np.random.default_rng(0)
    size, noise = generator.uniform(50, 150, ROWS), generator.normal(size=ROWS)
    lines = [f"{a:.3f},{b:.3f},{1000 * a + 50_000:.1f}" for a, b in zip(size, noise, strict=True)]
    path.write_text("\n".join(["size,noise,price", *lines]) + "\n")
    return path


def trained(folder: Path, method: str, **outer: Any) -> tuple[Trial, Evaluation]:
    tasks = {"source": "table", "path": str(houses(folder / "houses.csv")), "label": "price", "kind": "regression"}
    learner: Any = method
    if method != "constant":
        learner = {"method": method, "architecture": {"kind": "mlp", "hidden": []}}
    experiment = Experiment(
        tasks={**tasks, "episodes": "single_task"}, learner=learner, outer={"validate_every": 100, **outer}
    )
    one = resolve(experiment, defaults(experiment))
    config = TrialConfig("houses", 0, 0, one.tasks, one.learner, one.inner, one.outer, {"device": "cpu"})
    trial = Trial(config, folder / "trial", cache=folder / "cache")
    while not trial.finished:
        trial.advance()
    return trial, evaluate_trial(folder / "trial", cache=folder / "cache")


def test_a_linear_price_is_learned_and_shown_in_its_units(tmp_path: Path) -> None:
    trial, evaluation = trained(tmp_path, "cross_entropy", steps=200)
    report = trial.last_report
    assert report is not None and report.warnings == ()
    assert (
        evaluation.units is not None and evaluation.constant is not None and evaluation.units.constant_rmse is not None
    )
    deviation = trial.source.shape.target_deviation[0]
    assert 20_000 < deviation < 40_000
    assert evaluation.mean < 0.001 < 0.5 < evaluation.constant
    assert evaluation.units.rmse == pytest.approx(deviation * math.sqrt(evaluation.mean))
    assert evaluation.units.constant_rmse == pytest.approx(deviation * math.sqrt(evaluation.constant))
    assert report.metrics[names.VALIDATION_RMSE] == pytest.approx(
        deviation * math.sqrt(report.metrics[names.VALIDATION_LOSS])
    )
    bundle = write_bundle(tmp_path / "trial", tmp_path / "bundle", origin={}, evaluation=evaluation)
    assert f"root mean squared error {evaluation.units.rmse:.4g}" in (bundle / "card.md").read_text()
    support = np.array([[60.0, 0.0], [90.0, 0.0], [140.0, 0.0]])
    model = load_bundle(bundle).adapt(support, 1000 * support[:, 0] + 50_000)
    predicted = model.predict(np.array([[100.0, 0.0], [70.0, 1.0]]))
    assert predicted.tolist() == pytest.approx([150_000, 120_000], abs=2_000)


def test_the_constant_is_the_mean_of_the_support_set(tmp_path: Path) -> None:
    trial, evaluation = trained(tmp_path, "constant")
    assert evaluation.mean == pytest.approx(evaluation.constant, rel=1e-6)
    sampled = trial.source.episode("test", 0).episode
    expected = (sampled.support_y.mean(0) - sampled.query_y).square().mean()
    assert evaluation.scores[0] == pytest.approx(float(expected), rel=1e-6)
    assert trial.step == 0


def test_a_loss_above_the_constants_warns(tmp_path: Path) -> None:
    trial, _ = trained(tmp_path, "fine_tuning")  # ten steps of a large rate from random weights
    report = trial.last_report
    assert report is not None
    loss, constant = report.metrics[names.VALIDATION_LOSS], report.metrics[names.VALIDATION_CONSTANT]
    assert bool(report.warnings) == (loss > constant)
    (warning,) = constant_warning({names.VALIDATION_LOSS: 1.5, names.VALIDATION_CONSTANT: 1.25})
    assert "validation loss 1.5 is worse than 1.25" in warning
    assert constant_warning({names.VALIDATION_LOSS: 0.5, names.VALIDATION_CONSTANT: 1.25}) == ()
    assert constant_warning({names.VALIDATION_LOSS: 0.5}) == ()


def test_only_regression_has_a_constant() -> None:
    given, wanted = torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [5.0]])
    assert REGRESSION.constant_loss(given, wanted) == 4.5
    assert CLASSIFICATION.constant_loss(torch.tensor([0, 1]), torch.tensor([1])) is None
    assert REGRESSION.constant_loss(given[:0], wanted) is None
