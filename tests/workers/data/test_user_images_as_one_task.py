"""A folder of the user's own images as one labelled data set, and every method on it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metaloom.learners import METHODS
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.user_single_task import PARTS, UserTask
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial

SIZES = {"cat": 30, "dog": 20, "owl": 10}
CELLS = {"kind": "cells", "cells": 1, "channels": 4}
OF_ONE_TASK = {  # every method that runs on `digits`, with the network that it is given
    **dict.fromkeys(("cross_entropy", "learned_loss", "meta_weight_net", "learning_to_reweight", "data_cleaning")),
    **dict.fromkeys(("core_set", "distillation", "gradient_matching", "distribution_matching", "dada")),
    **dict.fromkeys(("darts", "darts_first_order", "gdas", "pc_darts"), CELLS),
}


def draw(folder: Path, sizes: dict[str, int], *, first: int = 0) -> Path:
    for number, (name, count) in enumerate(sizes.items()):
        (folder / name).mkdir(parents=True)
        for index in range(first, first + count):
            pixels = np.full((8, 8), 20 * number + index, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("pictures") / "all", SIZES)


def opened(path: Path, cache: Path, **fields: Any) -> UserTask:
    tasks = {"source": "folder", "path": str(path), "size": 8, "episodes": "single_task", **fields}
    source = open_source(tasks, seed=0, cache=cache)
    assert isinstance(source, UserTask)
    return source


def test_images_are_divided_by_class(pictures: Path, tmp_path: Path) -> None:
    source = opened(pictures, tmp_path)
    assert {part: len(source.parts[part]) for part in PARTS} == {"train": 30, "meta": 6, "validation": 12, "test": 12}
    assert source.class_names == ("cat", "dog", "owl") and source.shape.counts == (15, 10, 5)
    assert np.bincount(source.labels[source.parts["test"]]).tolist() == [6, 4, 2]
    x, y = source.examples(source.parts["test"])
    assert x.shape == (12, 1, 8, 8) and float(x.max()) <= 1.0
    assert opened(pictures, tmp_path, flat=True).shape.inputs == (64,)
    for row, label in zip(source.parts["test"], y, strict=True):  # the brightness tells class and number
        first = [0, 30, 50][int(label)]
        assert round(float(source.examples(np.array([row]))[0].max()) * 255) == 20 * int(label) + row - first


def test_folders_say_which_part_an_image_belongs_to(tmp_path: Path) -> None:
    for part, sizes in (
        ("train", {"cat": 20, "dog": 30}),
        ("Val", {"cat": 5, "dog": 5}),
        ("test", {"cat": 6, "dog": 7}),
    ):
        draw(tmp_path / "own" / part, sizes)
    source = opened(tmp_path / "own", tmp_path / "cache")
    assert {part: len(source.parts[part]) for part in PARTS} == {"train": 45, "meta": 5, "validation": 10, "test": 13}
    assert np.bincount(source.labels[source.parts["test"]]).tolist() == [6, 7]
    draw(tmp_path / "own" / "clean", {"cat": 2, "dog": 2})
    assert len(opened(tmp_path / "own", tmp_path / "cache").parts["meta"]) == 4
    (tmp_path / "own" / "val").mkdir()
    draw(tmp_path / "own" / "val" / "more", {"cat": 1})
    with pytest.raises(DataError, match="two folders for one part"):
        opened(tmp_path / "own", tmp_path / "cache")


def test_another_division_is_other_data(pictures: Path, tmp_path: Path) -> None:
    one, other = opened(pictures, tmp_path), opened(pictures, tmp_path, test_fraction=0.3)
    assert one.digest != other.digest == opened(pictures, tmp_path, test_fraction=0.3, batch=5).digest


def test_classes_named_like_parts_without_class_folders_are_classes(tmp_path: Path) -> None:
    source = opened(draw(tmp_path / "own", {"train": 20, "test": 20}), tmp_path / "cache")
    assert source.class_names == ("test", "train")


def test_parts_without_training_images_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "own" / "test", {"cat": 5})
    with pytest.raises(DataError, match=r"tasks.path: .*none for training: name it train"):
        opened(tmp_path / "own", tmp_path / "cache")


@pytest.mark.parametrize("method", OF_ONE_TASK)
def test_every_method_of_digits_runs_on_it(method: str, pictures: Path, tmp_path: Path) -> None:
    learner = {"method": method}
    if "architecture" not in METHODS[method].learner:
        learner["architecture"] = OF_ONE_TASK[method] or {"kind": "mlp", "hidden": [8]}  # type: ignore[assignment]
    experiment = Experiment(
        tasks={"source": "folder", "path": str(pictures), "size": 8, "episodes": "single_task", "label_noise": 0.3},
        learner=learner,
        outer={"steps": 2, "validate_every": 2, "validation_episodes": 2},
    )
    one = resolve(experiment, defaults(experiment))
    config = TrialConfig("methods", 0, 0, one.tasks, one.learner, one.inner, one.outer, {"device": "cpu"})
    trial = Trial(config, tmp_path / "trial", cache=pictures.parent / "cache")
    while not trial.finished:
        trial.advance()
    evaluation = evaluate_trial(tmp_path / "trial", cache=pictures.parent / "cache")
    assert evaluation.episodes == 4 and 0 <= evaluation.mean <= 1
