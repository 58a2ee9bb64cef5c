"""An ensemble of bundles: the features of its members stand side by side, whichever head reads them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom.learners import build_learner
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.solvers.amortized import AmortizedLearner
from metaloom.testing.problems import SMOOTH
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.errors import BundleError
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from tests.support.few_shot_images import write_images

CONV = {"kind": "conv4", "channels": 4, "blocks": 2}
OUTER = {"steps": 2, "meta_batch": 1, "validate_every": 1, "validation_episodes": 3, "precision": "float64"}
SHAPE = TaskShape("classification", (1, 8, 8), 3)


def config(folder: Path, architecture: Any, initialization: Any, *, seed: int = 0) -> TrialConfig:
    learner = {"architecture": architecture, "initialization": initialization, "prediction": {"kind": "prototypes"}}
    tasks = {"source": "arrays", "path": str(folder / "images.npz"), "ways": 3, "shots": 2, "queries": 3}
    return TrialConfig("first", 0, seed, tasks, learner, {"batch_norm": "frozen"}, OUTER, {})


def finished(settings: TrialConfig, directory: Path) -> Trial:
    trial = Trial(settings, directory, cache=directory.parent / "cache")
    while not trial.finished:
        trial.advance()
    return trial


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("members")
    write_images(folder / "images.npz", classes=20)
    for seed in (0, 1):
        finished(config(folder, CONV, {"kind": "learned"}, seed=seed), folder / f"trained{seed}")
        write_bundle(folder / f"trained{seed}", folder / f"bundle{seed}", origin={}, evaluation=None)
    return folder, [str(folder / f"bundle{seed}") for seed in (0, 1)]


def test_the_features_of_an_ensemble_are_those_of_its_bundles(members: Any, tmp_path: Path) -> None:
    folder, bundles = members
    ensemble = {"kind": "ensemble", "member": CONV, "members": 2}
    settings = config(folder, ensemble, {"kind": "pretrained", "bundle": bundles})
    trial = finished(settings, tmp_path / "n")
    assert trial.last_report is not None
    assert [note for note in trial.last_report.notes if note.startswith("features of")]  # computed once, as for one
    body = trial.learner.body(trial.phi, trial.state)  # type: ignore[attr-defined]
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each = []
    for number, bundle in enumerate(bundles):
        one = config(folder, CONV, {"kind": "pretrained", "bundle": bundle})
        single = Trial(one, tmp_path / str(number), cache=tmp_path / "cache")
        assert isinstance(single.learner, AmortizedLearner)
        alone = single.learner.body(single.phi, single.state)
        assert alone is not None
        each.append(replace(alone, computed=None)(x))
    torch.testing.assert_close(replace(body, computed=None)(x), torch.cat(each, -1), rtol=1e-12, atol=1e-12)
    scored = evaluate_trial(tmp_path / "n", cache=tmp_path / "cache", episodes=3)
    exported = load_bundle(write_bundle(tmp_path / "n", tmp_path / "out", origin={}, evaluation=None))
    assert exported.evaluate(cache=tmp_path / "cache", episodes=3).scores == scored.scores  # its bundles are not needed


@pytest.mark.parametrize(
    ("architecture", "count", "message"),
    [
        ({"kind": "ensemble", "member": CONV, "members": 3}, 2, "got 2 bundles for 3 networks"),
        (CONV, 2, r"got 2 bundles for 1 network; .*kind: ensemble"),
    ],
)
def test_there_are_as_many_bundles_as_members(
    architecture: Any, count: int, message: str, members: Any, tmp_path: Path
) -> None:
    folder, bundles = members
    settings = config(folder, architecture, {"kind": "pretrained", "bundle": bundles[:count]})
    with pytest.raises(BundleError, match=message):
        Trial(settings, tmp_path / "n", cache=tmp_path / "cache")


def test_an_ensemble_is_of_networks_whose_parameters_are_all_of_them() -> None:
    for kind in ({"kind": "cells", "channels": 4}, {"kind": "ensemble", "member": CONV}):
        settings = {"architecture": {"kind": "ensemble", "member": kind}, "prediction": {"kind": "prototypes"}}
        with pytest.raises(LearnerError, match=r"architecture\.member: .* cannot be a member of an ensemble"):
            build_learner(learner=settings, inner={}, outer={}, task=SHAPE)


def test_members_that_are_trained_together_move_apart() -> None:
    settings = {
        "architecture": {"kind": "ensemble", "member": SMOOTH, "members": 2},
        "initialization": {"kind": "learned"},
        "prediction": {"kind": "prototypes"},
    }
    learner = build_learner(learner=settings, inner={}, outer={}, task=replace(SHAPE, inputs=(6,)))
    phi = learner.init(torch.Generator().manual_seed(0))
    first, second = (phi[f"initialization/{index}.layer0.weight"] for index in (0, 1))
    assert first.shape == second.shape
    assert not torch.equal(first, second)
