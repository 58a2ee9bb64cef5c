"""What a finished trial's learner shows of an episode is kept beside its knowledge, and in its bundle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom.dashboards.knowledge_figures import pictures, read_knowledge
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import EPISODE_FILE
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.shown import read_shown
from metaloom.workers.trial.runner import Trial
from tests.support.few_shot_images import write_images

CONV = {"kind": "conv4", "channels": 4, "blocks": 2}
LEARNED = {"architecture": CONV, "initialization": {"kind": "learned"}}


def finished(folder: Path, directory: str, learner: Mapping[str, Any]) -> Path:
    tasks = {"source": "arrays", "path": str(folder / "images.npz"), "ways": 3, "shots": 2, "queries": 3}
    outer = {"steps": 2, "meta_batch": 2, "validate_every": 1, "validation_episodes": 3}
    config = TrialConfig("first", 0, 0, tasks, learner, {"batch_norm": "frozen"}, outer, {})
    trial = Trial(config, folder / directory, cache=folder / "cache")
    while not trial.finished:
        trial.advance()
    return folder / directory


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shown")
    write_images(made / "images.npz")
    finished(made, "trial", {**LEARNED, "prediction": {"kind": "prototypes"}})
    return made


def test_a_finished_trial_keeps_what_it_shows_of_its_first_validation_episode(folder: Path) -> None:
    shown = read_shown(folder / "trial" / EPISODE_FILE)
    moved = {name for name in shown if name.startswith("moved/")}
    assert {name.split("/")[1].split(".")[0] for name in moved} == {"conv0", "norm0", "conv1", "norm1"}
    assert {name: tuple(one.shape[:1]) for name, one in shown.items() if name not in moved} == {
        "labels": (6,),
        "query_labels": (9,),
        "support": (6,),
        "queries": (9,),
        "prototypes": (3,),
    }
    right = (torch.cdist(shown["queries"], shown["prototypes"]).argmin(1) == shown["query_labels"]).double().mean()
    scores = evaluate_trial(folder / "trial", cache=folder / "cache", split="validation", episodes=1).scores
    assert scores == (pytest.approx(float(right)),)
    assert "episode-features" in {one.name for one in pictures(read_knowledge(folder / "trial"))}


def test_another_run_leaves_the_same_bytes(folder: Path) -> None:
    again = finished(folder, "again", {**LEARNED, "prediction": {"kind": "prototypes"}})
    assert (again / EPISODE_FILE).read_bytes() == (folder / "trial" / EPISODE_FILE).read_bytes()


def test_a_learner_that_shows_nothing_leaves_no_file(folder: Path) -> None:
    directory = finished(folder, "nearest", {"prediction": {"kind": "nearest_neighbour"}})
    assert not (directory / EPISODE_FILE).exists()
    assert read_shown(directory / EPISODE_FILE) == {}


def test_a_bundle_signs_the_file_and_refuses_a_damaged_one(folder: Path, tmp_path: Path) -> None:
    path = write_bundle(folder / "trial", tmp_path / "bundle", origin={}, evaluation=None)
    assert EPISODE_FILE in json.loads((path / "manifest.json").read_text())["files"]
    load_bundle(path)
    shown, stored = read_shown(path / EPISODE_FILE), read_shown(folder / "trial" / EPISODE_FILE)
    assert all(torch.equal(shown[name], one) for name, one in stored.items())
    content = bytearray((path / EPISODE_FILE).read_bytes())
    content[-1] ^= 1
    (path / EPISODE_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"shown_episode\.safetensors is damaged"):
        load_bundle(path)


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_of_a_trial_is_told_and_leaves_the_rest(
    folder: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = bytearray((folder / "trial" / EPISODE_FILE).read_bytes())
    content[-1] ^= 1
    path = tmp_path / EPISODE_FILE
    path.write_bytes({"flipped": content, "cut": content[:-9], "empty": b""}[damage])
    assert read_shown(path) == {}
    assert "nothing of an episode is drawn" in caplog.text
    assert str(path) in caplog.text
