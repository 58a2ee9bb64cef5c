"""A start from a bundle has batch norm's running statistics, so that ``frozen`` holds from the first episode."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data import open_source
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from tests.support.few_shot_images import write_images

CONV = {"kind": "conv4", "channels": 4, "blocks": 2}
OUTER = {"steps": 3, "meta_batch": 2, "validate_every": 1, "validation_episodes": 3, "precision": "float64"}
PROTOTYPES = {"prediction": {"kind": "prototypes"}}
LEARNED = {"prediction": {"kind": "prototypes", "temperature": {"learn": {"start": 2.0}}}}
STEPS = {"update": {"rate": {"learn": {"start": 0.02}}, "steps": 1}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("statistics")
    write_images(folder / "images.npz")
    return folder


def config(folder: Path, initialization: Any, slots: Mapping[str, Any], batch_norm: str = "frozen") -> TrialConfig:
    learner = {"architecture": CONV, "initialization": initialization, **slots}
    tasks = {"source": "arrays", "path": str(folder / "images.npz"), "ways": 3, "shots": 2, "queries": 3}
    return TrialConfig("first", 0, 0, tasks, learner, {"batch_norm": batch_norm}, OUTER, {})


def finished(config: TrialConfig, folder: Path) -> Trial:
    trial = Trial(config, folder, cache=folder.parent / "cache")
    while not trial.finished:
        trial.advance()
    return trial


def bundle_of(folder: Path, batch_norm: str) -> tuple[Path, Trial]:
    """Train prototypes under a batch-norm mode, and export them."""
    where = folder / f"origin-{batch_norm}"
    trial = finished(config(folder, {"kind": "learned"}, PROTOTYPES, batch_norm), where)
    return write_bundle(where, folder / f"bundle-{batch_norm}", origin={}, evaluation=None), trial


@pytest.fixture(scope="module")
def frozen(folder: Path) -> tuple[Path, Trial]:
    return bundle_of(folder, "frozen")


@pytest.fixture(scope="module")
def without(folder: Path) -> tuple[Path, Trial]:
    return bundle_of(folder, "batch")


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return (
        bool(one) and one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    )


def test_the_same_head_on_a_bundles_body_scores_as_the_bundle(frozen: Any, folder: Path, tmp_path: Path) -> None:
    bundle, origin = frozen
    trial = finished(config(folder, {"kind": "pretrained", "bundle": str(bundle)}, PROTOTYPES), tmp_path / "next")
    assert same(trial.state.running, origin.state.running)
    ours, theirs = (
        evaluate_trial(one.directory, cache=tmp_path / "cache", episodes=8, record=False) for one in (trial, origin)
    )
    assert ours.losses == theirs.losses
    assert ours.setting == "inductive"


def test_a_fixed_body_keeps_its_statistics_while_its_head_learns(frozen: Any, folder: Path, tmp_path: Path) -> None:
    bundle, origin = frozen
    trial = finished(config(folder, {"kind": "pretrained", "bundle": str(bundle)}, LEARNED), tmp_path / "next")
    assert set(trial.phi) == {"prediction/temperature"}
    assert same(trial.state.running, origin.state.running)
    again = load_bundle(write_bundle(tmp_path / "next", tmp_path / "second", origin={}, evaluation=None))
    assert same(again._knowledge.state.running, origin.state.running)


@pytest.mark.parametrize(
    "slots", [PROTOTYPES, STEPS, {"prediction": {"kind": "joint"}}], ids=["metric", "steps", "joint"]
)
def test_a_learned_body_moves_the_statistics_on_from_the_bundles(
    slots: Any, frozen: Any, folder: Path, tmp_path: Path
) -> None:
    bundle, origin = frozen
    trial = Trial(config(folder, {"kind": "fine_tuned", "bundle": str(bundle)}, slots), tmp_path / "n", cache=tmp_path)
    assert same(trial.state.running, origin.state.running)
    trial.advance()
    assert trial.state.running.keys() == origin.state.running.keys()
    assert not same(trial.state.running, origin.state.running)


def test_inner_steps_from_a_fixed_start_have_the_bundles_statistics(frozen: Any, folder: Path, tmp_path: Path) -> None:
    bundle, origin = frozen
    trial = Trial(config(folder, {"kind": "pretrained", "bundle": str(bundle)}, STEPS), tmp_path / "n", cache=tmp_path)
    assert same(trial.state.running, origin.state.running)


@pytest.mark.parametrize("slots", [PROTOTYPES, LEARNED, STEPS], ids=["nothing", "temperature", "steps"])
def test_statistics_that_a_bundle_lacks_are_measured_and_the_user_is_told(
    slots: Any, without: Any, folder: Path, tmp_path: Path
) -> None:
    bundle, origin = without
    assert not origin.state.running
    trial = Trial(config(folder, {"kind": "pretrained", "bundle": str(bundle)}, slots), tmp_path / "n", cache=tmp_path)
    assert set(trial.state.running) == {f"norm{block}.{part}" for block in (0, 1) for part in ("mean", "var")}
    report = trial.advance()
    (note,) = [one for one in report.notes if one.startswith("batch norm:")]
    assert "lacks running statistics" in note
    assert "32 meta-train episodes" in note
    # the first layer's are those of the images themselves, whatever comes after it
    source = open_source(trial.config.tasks, seed=0, cache=tmp_path)
    episodes = [source.episode("train", index).episode for index in range(32)]
    x = torch.cat([torch.cat([one.support_x, one.query_x]) for one in episodes]).double()
    weight = origin.phi["initialization/conv0.weight"]
    made = torch.nn.functional.conv2d(x, weight, padding=1)
    measured = Trial(
        config(folder, {"kind": "pretrained", "bundle": str(bundle)}, slots), tmp_path / "again", cache=tmp_path
    ).state.running
    torch.testing.assert_close(measured["norm0.mean"], made.mean((0, 2, 3)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(measured["norm0.var"], made.var((0, 2, 3), correction=0), rtol=1e-9, atol=1e-9)


def test_measured_statistics_make_a_start_without_them_inductive(without: Any, folder: Path, tmp_path: Path) -> None:
    settings = config(folder, {"kind": "pretrained", "bundle": str(without[0])}, PROTOTYPES)
    trial = Trial(settings, tmp_path / "n", cache=tmp_path)
    episode = trial.source.episode("test", 0).episode.to(torch.device("cpu"), torch.float64)
    adapted = trial.learner.adapt(trial.phi, trial.state, episode.support, torch.Generator())
    together = adapted.predict(episode.query_x)
    alone = torch.cat([adapted.predict(one[None]) for one in episode.query_x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_measured_statistics_resume_bit_for_bit(without: Any, folder: Path, tmp_path: Path) -> None:
    settings = config(folder, {"kind": "pretrained", "bundle": str(without[0])}, LEARNED)
    whole = finished(settings, tmp_path / "whole")
    Trial(settings, tmp_path / "next", cache=tmp_path / "cache").advance()
    resumed = finished(settings, tmp_path / "next")
    assert same(resumed.phi, whole.phi)
    assert same(resumed.state.running, whole.state.running)


def test_a_solvers_own_batch_norm_learns_its_statistics_beside_those_of_the_bundle(
    frozen: Any, folder: Path, tmp_path: Path
) -> None:
    relation = {"prediction": {"kind": "relation"}}
    initialization = {"kind": "pretrained", "bundle": str(frozen[0])}
    trial = finished(config(folder, initialization, relation), tmp_path / "next")
    running = trial.state.running
    own = {name for name in running if name.startswith("own/")}
    assert own
    assert same({name: value for name, value in running.items() if name not in own}, frozen[1].state.running)
    bundle = write_bundle(tmp_path / "next", tmp_path / "second", origin={}, evaluation=None)
    again = config(folder, {"kind": "pretrained", "bundle": str(bundle)}, LEARNED)
    assert same(finished(again, tmp_path / "again").state.running, running)  # what another solver does not read, stays
