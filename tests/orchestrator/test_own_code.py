"""Code of a user's own that workers of Ray cannot have is refused before Ray starts, and before anything is written."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import metaloom
from metaloom.learners.component import NoConfig
from metaloom.learners.errors import LearnerError, MetaloomError
from metaloom.learners.knowledge.loss import LOSSES, MeanSquaredError
from metaloom.learners.networks.reference import imported, packages_of
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors import EXECUTORS, ExecutorRequest
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.own_code import registered_here
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.bundle_writing import requirements

NETWORK = """
from torch import nn


def made() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))
"""
OUTER = {"steps": 1, "validate_every": 1, "validation_episodes": 2, "test_episodes": 2, "strategy": "loop"}


def experiment(**learner: Any) -> dict[str, Any]:
    return {
        "name": "own",
        "tasks": {"source": "sinusoid", "shots": 5, "queries": 5},
        "learner": {"method": "maml", "architecture": {"kind": "mlp", "hidden": [4]}, **learner},
        "outer": OUTER,
    }


def on_ray(document: Any, store: Path, **options: Any) -> None:
    metaloom.search(document, store=store, executor="ray", **options)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with a module that this process alone finds."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "far_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("far_network", None)


def test_a_module_that_workers_would_not_find_is_refused(elsewhere: Path, tmp_path: Path) -> None:
    document = experiment(architecture={"kind": "module", "of": "far_network:made"})
    with pytest.raises(SearchError, match=r"a worker of Ray cannot import far_network:made \(here it is .*far_network"):
        on_ray(document, tmp_path / "store", trust_code=True)
    assert not list((tmp_path / "store").glob("searches/*"))
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_a_module_in_the_current_folder_or_on_pythonpath_is_found(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = EXECUTORS["ray"].check_imports
    assert check is not None
    request = ExecutorRequest(Interruption())
    check(["far_network:made"], ExecutorRequest(Interruption(), address="head:6379"))  # of whose nodes nothing is known
    with pytest.raises(SearchError, match="far_network"):
        check(["tests.support.modules:Perceptron", "far_network:made"], request)
    with monkeypatch.context() as changed:
        changed.setenv("PYTHONPATH", str(elsewhere))
        check(["far_network:made"], request)
    monkeypatch.chdir(elsewhere)
    check(["far_network:made"], request)


def test_a_package_that_ends_the_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ending").mkdir()
    (tmp_path / "ending" / "__init__.py").write_text("raise SystemExit('no such machine')")
    monkeypatch.chdir(tmp_path)
    check = EXECUTORS["ray"].check_imports
    assert check is not None
    with pytest.raises(SearchError, match="no such machine"):
        check(["ending.network:made"], ExecutorRequest(Interruption()))


class OwnSquaredError(MeanSquaredError):
    """Like the one it is made of."""

    Config = NoConfig


@pytest.fixture
def own_loss() -> Iterator[None]:
    LOSSES.add("own_loss", OwnSquaredError)
    yield
    LOSSES.remove("own_loss")


@pytest.mark.parametrize("loss", ["own_loss", ["mse", "own_loss"], {"search": ["mse", "own_loss"]}])
def test_a_component_of_this_process_is_refused_on_ray(own_loss: None, loss: Any, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"learner\.loss.*: own_loss is registered in this process alone \(by te"):
        on_ray(experiment(loss=loss), tmp_path / "store")
    assert not list((tmp_path / "store").glob("searches/*"))


def test_a_problem_of_this_process_is_refused_on_ray(tmp_path: Path) -> None:
    posed = metaloom.bilevel(
        lambda phi, theta: (theta["w"] - phi["w"]).square().sum(),
        lambda phi, theta: theta["w"].square().sum(),
        phi={"w": torch.ones(2)},
        start={"w": torch.zeros(2)},
        rate=0.1,
        steps=3,
    )
    with pytest.raises(SearchError, match=r"tasks: problem-\d+ is registered in this process alone"):
        on_ray(posed, tmp_path / "store")
    assert not list((tmp_path / "store").glob("searches/*"))


def test_what_is_built_in_or_installed_is_not() -> None:
    for document in ("default", "five-kinds", "learned-augmentation", experiment(loss=["mse", "task"])):
        assert registered_here(load_experiment(document)) == []


def test_a_bundles_requirements_name_the_module(elsewhere: Path) -> None:
    lines = requirements(["sinusoid"], ["far_network:made", "torch.nn:Linear", "pytest:Item"]).splitlines()
    assert "# far_network:made: a module of your own, which must be on the import path" in lines
    assert packages_of(["pytest:Item"])["pytest:Item"] in lines
    assert len([line for line in lines if line.startswith("torch")]) == 1  # which every bundle needs


def test_an_absent_module_is_told_with_what_to_do() -> None:
    with pytest.raises(LearnerError, match=r"cannot import gone\.net: .*; put the folder that holds it on the"):
        imported("gone.net:Net")
    with pytest.raises(MetaloomError, match="no object of"):
        imported("tests.support.modules:Absent")
