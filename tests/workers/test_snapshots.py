"""Snapshots of what a trial has learned on its way: few, small, equal over a resume, and without an effect on it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom.dashboards.knowledge_facts.episode_features import plane
from metaloom.testing.problems import normal
from metaloom.workers.errors import CheckpointError
from metaloom.workers.records.names import EPISODE_FILE, META_KNOWLEDGE_FILE, SNAPSHOTS_FOLDER, snapshot_steps
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.shown import read_shown
from metaloom.workers.snapshots import (
    MOST_BYTES,
    MOST_VALUES,
    Snapshot,
    flattened,
    is_due,
    read_snapshot,
    stride,
    thinned,
    write_snapshot,
)
from metaloom.workers.trial.runner import Trial

MLP = {"kind": "mlp", "hidden": [3]}
RATES = {"architecture": MLP, "initialization": {"kind": "learned"}, "update": {"rate": {"learn": {"per": "layer"}}}}
NOISY = {"source": "digits", "batch": 40, "meta_batch": 20, "label_noise": 0.4}


def trial(folder: Path, learner: Mapping[str, Any], *, tasks: Any = None, steps: int = 6, **resources: Any) -> Trial:
    outer = {"steps": steps, "meta_batch": 1, "validate_every": 1, "validation_episodes": 2, "rate": 0.05}
    config = TrialConfig("first", 0, 0, tasks or {"source": "sinusoid"}, learner, {}, outer, resources)
    return Trial(config, folder, cache=folder.parent / "cache")


def run(folder: Path, learner: Mapping[str, Any], **settings: Any) -> Trial:
    one = trial(folder, learner, **settings)
    while not one.finished:
        one.advance()
    return one


def digests(folder: Path) -> dict[str, str]:
    files = (folder / SNAPSHOTS_FOLDER).glob("*")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("most", [2, 3, 5, 20])
def test_their_number_is_bounded_and_depends_on_the_step_alone(most: int) -> None:
    kept: set[int] = set()
    for validation in range(200):
        if is_due(10 * validation, 10, most):
            apart = stride(validation, most)
            kept = {one for one in kept | {validation} if one % apart == 0}
            assert kept == set(range(0, validation + 1, apart)), "evenly apart, from the start on"
        assert len(kept) <= most
    assert len(kept) > most // 2 or most == 2


def test_none_are_kept_where_none_are_wanted_nor_between_validations() -> None:
    assert not is_due(0, 10, 0)
    assert not is_due(15, 10, 20)


def test_many_values_of_a_learned_setting_become_quantiles() -> None:
    values = normal(40, 100, seed=0)
    phi = {"rate/layer0": values, "momentum/layer0": values[:2], "net/weight": values}
    found = thinned(phi, ["rate", "momentum"])
    assert found["rate/layer0"].shape == (MOST_VALUES,)
    assert (found["rate/layer0"].min(), found["rate/layer0"].max()) == (values.min(), values.max())
    assert float(found["rate/layer0"].mean()) == pytest.approx(float(values.mean()), abs=0.002)
    assert found["momentum/layer0"] is phi["momentum/layer0"]
    assert found["net/weight"] is values, "the weights of a learned optimizer have an order"


def test_features_are_turned_into_few_directions_without_a_change_of_their_distances() -> None:
    shown = {"support": normal(4, 200, seed=0), "queries": normal(6, 200, seed=1), "labels": torch.arange(4)}
    small = flattened(shown)
    assert (small["support"].shape, small["queries"].shape) == ((4, 10), (6, 10))
    assert small["labels"] is shown["labels"]
    before, after = (torch.cat([one["support"], one["queries"]]).double() for one in (shown, small))
    torch.testing.assert_close(torch.cdist(after, after), torch.cdist(before, before), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(plane(after)[0].abs(), plane(before)[0].abs(), rtol=1e-4, atol=1e-4)
    wide = {"support": normal(12, 4, seed=0), "queries": normal(3, 4, seed=1)}
    assert flattened(wide) is wide


def test_what_is_large_is_left_out_and_named(tmp_path: Path) -> None:
    large, small = torch.zeros(MOST_BYTES), torch.ones(3)
    phi = {"data/examples": large, "update/rate": small, "initialization/layer0.weight": small}
    write_snapshot(tmp_path, Snapshot(5, {}, phi, {"support": large, "labels": small}), every=5, most=20)
    found = read_snapshot(tmp_path, 5)
    assert (set(found.phi), set(found.shown), set(found.left_out)) == ({"update/rate"}, {"labels"}, {"data", "support"})
    assert (tmp_path / SNAPSHOTS_FOLDER / "step-00000005.safetensors").stat().st_size < MOST_BYTES


def test_a_damaged_or_missing_one_is_refused(tmp_path: Path) -> None:
    write_snapshot(tmp_path, Snapshot(5, {}, {"update/rate": torch.ones(3)}, {}), every=5, most=20)
    path = tmp_path / SNAPSHOTS_FOLDER / "step-00000005.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="digest"):
        read_snapshot(tmp_path, 5)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_snapshot(tmp_path, 6)


def test_a_trial_keeps_its_start_and_its_way_and_forgets_a_course_that_it_left(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "trial", Snapshot(9, {}, {}, {"labels": torch.ones(1)}), every=1, most=20)
    run(tmp_path / "trial", RATES)
    assert snapshot_steps(tmp_path / "trial") == (0, 1, 2, 3, 4, 5)  # the end is in the file of meta-knowledge
    start, later = read_snapshot(tmp_path / "trial", 0), read_snapshot(tmp_path / "trial", 5)
    assert set(start.phi) == {
        f"update/rate/{name}" for name in ("head.bias", "head.weight", "layer0.bias", "layer0.weight")
    }
    assert not torch.equal(start.phi["update/rate/head.weight"], later.phi["update/rate/head.weight"])
    moved, whole = start.shown["moved/layer0.weight"].tolist()
    assert moved == 0.0 and whole > 0.0
    assert 0.0 < float(later.shown["moved/layer0.weight"][0]) <= 5 * 0.05 * 3**0.5 * 1.01  # Adam moves each by its rate
    end = read_shown(tmp_path / "trial" / EPISODE_FILE)["moved/layer0.weight"]
    assert float(end[1]) == whole


def test_a_resumed_trial_leaves_the_same_files(tmp_path: Path) -> None:
    run(tmp_path / "whole", RATES, steps=3, snapshots=2)
    for _ in range(3):
        one = trial(tmp_path / "resumed", RATES, steps=3, snapshots=2)
        one.advance()
        one.close()
    assert snapshot_steps(tmp_path / "whole") == (0, 2)
    assert digests(tmp_path / "resumed") == digests(tmp_path / "whole")


def test_the_trial_is_the_same_without_them(tmp_path: Path) -> None:
    with_some = run(tmp_path / "with", RATES)
    without = run(tmp_path / "without", RATES, snapshots=0)
    assert not (tmp_path / "without" / SNAPSHOTS_FOLDER).exists()
    assert with_some.last_report and without.last_report
    assert with_some.last_report.scores == without.last_report.scores
    stored = [(tmp_path / name / META_KNOWLEDGE_FILE).read_bytes() for name in ("with", "without")]
    assert stored[0] == stored[1]


def test_images_are_kept_for_a_learned_augmentation(tmp_path: Path) -> None:
    augmentation = {"kind": "dada", "operations": ["invert", "flip"]}
    tasks = {"source": "digits", "batch": 10, "meta_batch": 10}
    run(tmp_path / "trial", {"architecture": MLP, "augmentation": augmentation}, tasks=tasks, steps=1)
    images = read_snapshot(tmp_path / "trial", 0).shown["images"]
    assert (images.shape, images.dtype) == ((6, 1, 8, 8), torch.uint8)
    assert torch.equal(images, read_shown(tmp_path / "trial" / EPISODE_FILE)["images"])


def test_the_losses_of_training_examples_are_kept_with_the_labels_that_are_known_to_be_wrong(tmp_path: Path) -> None:
    one = run(tmp_path / "trial", {"architecture": MLP, "weighting": {"kind": "per_sample"}}, tasks=NOISY, steps=2)
    shown = read_shown(tmp_path / "trial" / EPISODE_FILE)
    assert shown["example_losses"].shape == shown["example_noisy"].shape == (40,)
    assert shown["training_noisy"].shape == one.phi["weighting/sample"].shape
    assert float(shown["training_noisy"].double().mean()) == pytest.approx(0.4, abs=0.05)
    assert 5 < int(shown["example_noisy"].sum()) < 30
