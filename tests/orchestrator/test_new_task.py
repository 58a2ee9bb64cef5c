"""A user's files become the arrays that a learner takes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import BadInput
from metaloom.learners.task_kinds import CLASSIFICATION, REGRESSION
from metaloom.orchestrator.command_line.new_task import Reader

IMAGES = TaskShape(kind=CLASSIFICATION.name, inputs=(1, 28, 28), outputs=5)
ROWS = TaskShape(kind=REGRESSION.name, inputs=(2,), outputs=1)


def picture(path: Path, brightness: int, size: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), brightness, dtype=np.uint8)).save(path)


def test_class_folders_are_labelled_images(tmp_path: Path) -> None:
    for label, brightness in (("b", 200), ("a", 100)):
        picture(tmp_path / label / "1.png", brightness)
    examples = Reader(IMAGES, {}).support(tmp_path)
    assert examples.x.shape == (2, 1, 28, 28)
    assert examples.y is not None
    assert examples.y.tolist() == ["a", "b"]
    assert examples.x[:, 0, 0, 0].tolist() == [100, 200]
    assert examples.names == ["a/1.png", "b/1.png"]
    assert Reader(IMAGES, {}, invert=True).support(tmp_path).x[0, 0, 0, 0] == 155


def test_queries_need_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "x.png", 9)
    assert Reader(IMAGES, {}).query(tmp_path).y is None
    assert Reader(IMAGES, {}).query(tmp_path / "x.png").names == ["x.png"]
    with pytest.raises(BadInput, match="one folder per class"):
        Reader(IMAGES, {}).support(tmp_path)


def test_a_table_has_its_label_by_name(tmp_path: Path) -> None:
    path = tmp_path / "task.csv"
    path.write_text("a,b,label\n1,2,0.5\n3,4,1.5\n")
    examples = Reader(ROWS, {}).support(path)
    assert examples.x.tolist() == [[1, 2], [3, 4]]
    assert examples.y is not None
    assert examples.y.tolist() == [0.5, 1.5]
    swapped = Reader(replace(ROWS, features=("b", "label")), {"label": "y"}, label="a").support(path)
    assert (swapped.x.tolist(), list(swapped.y if swapped.y is not None else [])) == ([[2, 0.5], [4, 1.5]], [1, 3])


@pytest.mark.parametrize(
    ("name", "text", "task", "told"),
    [
        ("task.csv", "a,label\n1,2\n", ROWS, "1 feature columns; this learner takes 2"),
        ("task.csv", "a,b,y\n1,2,3\n", ROWS, "takes 2, and no column 'label': --label names another one as the label"),
        ("task.csv", "a,b,label\n1,2,2\n1,nan,2\n", ROWS, "row 1"),
        ("task.xml", "<x/>", ROWS, "give a folder of images, or a table"),
        ("task.png", "no image", IMAGES, "not a readable image"),
        ("task.png", "no image", ROWS, "not images; give a table"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, text: str, task: Any, told: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=told):
        Reader(task, {}).support(tmp_path / name)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file and no folder"):
        Reader(ROWS, {}).query(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no image in it"):
        Reader(IMAGES, {}).query(tmp_path / "empty")
