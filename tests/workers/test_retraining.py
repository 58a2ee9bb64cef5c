"""Relaxed cells: learned, made discrete, trained again from scratch, and all of it resumed bit for bit."""

from pathlib import Path

import torch

from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.records.trial import Report, TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial

STEPS, RETRAIN = 4, 6


def config() -> TrialConfig:
    learner = {
        "method": "darts",
        "architecture": {"kind": "cells", "channels": 4},
        "initialization": {"kind": "random"},
        "update": {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "steps": 1},
    }
    outer = {
        "steps": STEPS,
        "retrain_steps": RETRAIN,
        "meta_batch": 1,
        "schedule": "linear",
        "validate_every": 3,
        "validation_episodes": 2,
        "hypergradient": {"kind": "unroll"},
    }
    return TrialConfig(
        search="cells",
        trial=0,
        seed=0,
        tasks={"source": "digits", "flat": False, "batch": 16, "meta_batch": 16, "queries": 50},
        learner=learner,
        inner={"mode": "online"},
        outer=outer,
        resources={},
    )


def run(directory: Path, cache: Path, *, reopen: bool = False) -> list[Report]:
    reports, trial = [], Trial(config(), directory, cache=cache)
    while not trial.finished:
        reports.append(trial.advance())
        if reopen:
            trial = Trial(config(), directory, cache=cache)
    return reports


def test_the_chosen_network_is_trained_from_scratch_and_is_what_the_trial_leaves(tmp_path: Path) -> None:
    reports = run(tmp_path / "trial", tmp_path / "cache")
    assert [report.step for report in reports] == [3, 4, 6, 9, 10]
    assert [report.finished for report in reports] == [False, False, False, False, True]
    assert sum("retraining" in note for report in reports for note in report.notes) == 1
    knowledge = load_knowledge(tmp_path / "trial")
    assert knowledge.phi == {}  # an architecture that is chosen has nothing left to learn
    assert "cell0.edge0.avg3.conv.weight" not in knowledge.state.theta
    tested = evaluate_trial(tmp_path / "trial", cache=tmp_path / "cache", split="validation", episodes=2, record=False)
    assert tested.mean == reports[-1].metrics["validation_accuracy"]


def test_a_trial_reopened_after_every_report_ends_the_same(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", tmp_path / "cache")
    parts = run(tmp_path / "parts", tmp_path / "cache", reopen=True)
    assert [one.scores for one in whole] == [one.scores for one in parts]
    left, right = (load_knowledge(tmp_path / name).state.flat() for name in ("whole", "parts"))
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
