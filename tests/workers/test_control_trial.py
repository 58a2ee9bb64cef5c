"""A trial on a control task: trained, gone on with, recorded, exported, adapted to a new task, played again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaloom.learners.base import METHODS
from metaloom.orchestrator.command_line.new_task import Reader
from metaloom.orchestrator.errors import TaskError
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import CACHE_FOLDER
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from metaloom.workers.verification import verify
from tests.support.episodes import read_episodes

SMALL = {"shots": 4, "queries": 3, "horizon": 4}
TASKS: dict[str, dict[str, Any]] = {
    "navigation": {"source": "navigation", **SMALL},
    "gymnasium": {"source": "gymnasium", "environment": "CartPole-v1", "vary": {"masspole": [0.05, 1.0]}, **SMALL},
}
NEW = {"navigation": [0.4, -0.3], "gymnasium": [0.7, 12345.0]}  # a task of a user's own


def config(source: str, method: str = "maml") -> TrialConfig:
    learner = {
        "method": method,
        "architecture": {"kind": "mlp", "hidden": [4]},
        "update": {"steps": 1 if method == "meta_sgd" else 2},
        "loss": {"kind": "policy_gradient", "differentiate": "score", "baseline": "linear", "epochs": 2, "clip": 0.2},
    }
    outer = {"steps": 6, "meta_batch": 2, "validate_every": 2, "validation_episodes": 3, "strategy": "loop"}
    experiment = load_experiment({"tasks": TASKS[source], "learner": learner, "outer": outer})
    found = resolve(experiment, defaults(experiment))
    return TrialConfig("control", 0, 1, found.tasks, found.learner, found.inner, found.outer, found.resources)


@pytest.fixture(scope="module", params=list(TASKS))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A source, and a folder with a trained trial in ``whole`` and one that was ended after a report in ``ended``."""
    if request.param == "gymnasium":
        pytest.importorskip("gymnasium", reason="the extra metaloom[gymnasium] is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    for name in ("whole", "ended"):
        trial = Trial(config(request.param), folder / name, cache=folder / CACHE_FOLDER)
        while not trial.finished and not (name == "ended" and trial.step):
            trial.advance()
        trial.close()
    return request.param, folder


@pytest.fixture(scope="module")
def bundle(trained: tuple[str, Path]) -> Path:
    _, folder = trained
    evaluation = evaluate_trial(folder / "whole", cache=folder / CACHE_FOLDER, episodes=4)
    return write_bundle(folder / "whole", folder / "bundle", evaluation=evaluation, origin={})


def test_a_trial_that_was_ended_goes_on_bit_for_bit(trained: tuple[str, Path]) -> None:
    source, folder = trained
    trials = [Trial(config(source), folder / name, cache=folder / CACHE_FOLDER) for name in ("whole", "ended")]
    assert [one.step for one in trials] == [6, 2]
    while not trials[1].finished:
        trials[1].advance()
    whole, other = (one.phi for one in trials)
    assert whole and all(torch.equal(value, other[name]) for name, value in whole.items())
    assert trials[0].last_report is not None and trials[1].last_report is not None
    key = "validation_loss"
    assert trials[0].last_report.metrics[key] == trials[1].last_report.metrics[key]


def test_an_episode_is_recorded_with_minus_its_returns(trained: tuple[str, Path]) -> None:
    source, folder = trained
    for row in read_episodes(folder / "whole" / "episodes").to_pylist():
        assert (row["ways"], row["shots"], row["queries"], row["accuracies"]) == (0, 4, 3, [])
        measured = [loss for loss in row["losses"] if loss is not None]
        assert all(loss == pytest.approx(-4.0) for loss in measured) or source == "navigation"  # a cart falls later
        assert len(measured) == (1 if row["phase"] == "train" else len(row["losses"]))


def test_a_bundle_adapts_to_a_task_of_ones_own(trained: tuple[str, Path], bundle: Path) -> None:
    source, _ = trained
    opened, queries = load_bundle(bundle), np.eye(4, dtype=np.float32)[:, : 2 if source == "navigation" else 4]
    starts, task = np.zeros((4, queries.shape[1]), np.float32), np.tile(np.float32(NEW[source]), (4, 1))
    policy, again = (opened.adapt(starts, task, seed=3).predict(queries) for _ in range(2))
    assert policy.shape == (4, 2) and np.array_equal(policy, again)
    assert not np.array_equal(policy, opened.adapt(starts, -task * [1, -1], seed=3).predict(queries))
    with pytest.raises(BundleError, match=r"support_y: got shape \(4, 3\); 4 examples need \[4, 2\] \(.*, .*\)"):
        opened.adapt(starts, np.zeros((4, 3), np.float32))


def test_a_bundle_is_played_again(trained: tuple[str, Path], bundle: Path) -> None:
    _, folder = trained
    assert verify(load_bundle(bundle), cache=folder / CACHE_FOLDER).bit_equal
    assert "- the loss is minus the return, the sum of a trajectory's rewards" in load_bundle(bundle).card
    task = load_bundle(bundle).task
    assert task.parameters and task.environment_settings["horizon"] == 4


def test_a_table_of_states_and_tasks_is_a_support_set(trained: tuple[str, Path], tmp_path: Path) -> None:
    source, folder = trained
    task = Trial(config(source), folder / "whole", cache=folder / CACHE_FOLDER).source.shape
    states = [f"s{place}" for place in range(task.inputs[0])]
    file = tmp_path / "support.csv"
    rows = [",".join(map(str, [*NEW[source], *range(len(states))]))] * 3
    file.write_text("\n".join([",".join([*task.parameters, *states]), *rows]) + "\n")
    reader = Reader(task, TASKS[source])
    read = reader.support(file)
    assert read.y is not None
    assert read.x.tolist() == [list(range(len(states)))] * 3 and read.y.tolist() == [NEW[source]] * 3
    assert reader.query(file).y is None and reader.query(file).x.shape == read.x.shape
    file.write_text(file.read_text().replace(task.parameters[1], "other"))
    with pytest.raises(TaskError, match=rf"no column '{task.parameters[1]}'; a row of the support set is a starting"):
        reader.support(file)


@pytest.mark.parametrize("method", ["first_order_maml", "meta_sgd", "reptile"])
def test_other_methods_learn_from_trajectories(tmp_path: Path, method: str) -> None:
    assert method in METHODS
    if method == "reptile":
        with pytest.raises(Exception, match=r"learner.data: a control task starts from its own states"):
            Trial(config("navigation", method), tmp_path / "trial", cache=tmp_path)
        return
    trial = Trial(config("navigation", method), tmp_path / "trial", cache=tmp_path)
    before = trial.phi
    trial.advance()
    assert any(not torch.equal(value, before[name]) for name, value in trial.phi.items())
