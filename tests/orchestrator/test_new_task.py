"""A user's files become the arrays that a learner takes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import BadInput
from metaloom.learners.task_kinds import CLASSIFICATION, REGRESSION
from metaloom.orchestrator.command_line.new_task import Reader, unseen
from tests.support.series_archive import write_ts

IMAGES = TaskShape(kind=CLASSIFICATION.name, inputs=(1, 28, 28), outputs=5)
CODES = TaskShape(kind=CLASSIFICATION.name, inputs=(2,), outputs=2)
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


@pytest.mark.parametrize(
    ("task", "cells", "labels"),
    [
        (CODES, ["01", "", "2", " "], ["01", "2"]),
        (CODES, ["", "", "", ""], None),
        (ROWS, ["0.5", "", "1.5", ""], [0.5, 1.5]),
        (ROWS, ["", "", "", ""], None),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_queries_without_a_label_are_predicted(
    tmp_path: Path, task: TaskShape, cells: list[str], labels: list[Any] | None, ending: str
) -> None:
    if ending == "parquet":
        values = [None if not cell.strip() else cell if task is CODES else float(cell) for cell in cells]
        pq.write_table(pa.table({"a": [1.0, 2, 3, 4], "b": [0.0] * 4, "label": values}), tmp_path / "q.parquet")
    rows = [f"{place},0,{cell}" for place, cell in enumerate(cells, 1)]
    (tmp_path / "q.csv").write_text("\n".join(["a,b,label", *rows]) + "\n")
    examples = Reader(task, {}).query(tmp_path / f"q.{ending}")
    assert examples.x[:, 0].tolist() == [1, 2, 3, 4]
    assert (None if examples.y is None else examples.y.tolist()) == labels
    if labels:
        assert examples.of_labelled(np.arange(4)).tolist() == [0, 2]
    with pytest.raises(BadInput, match=r"missing|not a number"):  # a support set is nothing without its labels
        Reader(task, {}).support(tmp_path / f"q.{ending}")


def test_labels_that_the_support_set_lacks_are_told() -> None:
    known = np.array([1, 2])
    assert unseen(np.array(["1", "2.0"]), known) == ""
    told = unseen(np.array(["1", "7", "2.0", "7", "x"]), known)
    assert told.startswith("3 of 5 labelled queries have a label that the support set lacks")
    assert "'7' (2), 'x' (1)" in told


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file and no folder"):
        Reader(ROWS, {}).query(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no image in it"):
        Reader(IMAGES, {}).query(tmp_path / "empty")


def series_task(inputs: tuple[int, int], *, observed: bool) -> TaskShape:
    return TaskShape(kind=CLASSIFICATION.name, inputs=inputs, outputs=2, observed=observed)


def test_a_file_of_series_is_read_as_training_read_its_own(tmp_path: Path) -> None:
    path = tmp_path / "new_TRAIN.ts"
    write_ts(path, [([[1, 2, 3]], "up"), ([[3, "?", 1, 0]], "down")], "up down")
    examples = Reader(series_task((2, 5), observed=True), {}).support(path)
    assert examples.y is not None
    assert examples.y.tolist() == ["up", "down"]
    assert examples.x.tolist() == [[[1, 2, 3, 0, 0], [1, 1, 1, 0, 0]], [[3, 0, 1, 0, 0], [1, 0, 1, 1, 0]]]
    scored = Reader(series_task((2, 5), observed=True), {"normalize": "z_score"}).query(path)
    np.testing.assert_allclose(scored.x[0, 0, :3], [-1, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "task", "told"),
    [
        ([[[1, 2, 3]]], series_task((1, 4), observed=False), r"series 1 has 3 steps, and this learner reads 4, as it"),
        ([[[1, 2, 3]]], series_task((2, 2), observed=True), "series 1 has 3 steps, and this learner reads at most 2"),
        ([[[1, "?"]]], series_task((1, 2), observed=False), "series 1 lacks values, and this learner was trained on"),
        ([[[1, 2], [3, 4]]], series_task((1, 2), observed=False), "series 1 has 2 channels, and this learner reads 1"),
    ],
)
def test_series_that_a_learner_does_not_read_are_refused(
    tmp_path: Path, rows: list[Any], task: TaskShape, told: str
) -> None:
    path = tmp_path / "new.ts"
    write_ts(path, [(row, "a") for row in rows], "a b")
    with pytest.raises(BadInput, match=told):
        Reader(task, {}).query(path)
    path.write_text(path.read_text() + "1,2:c\n")
    with pytest.raises(BadInput, match=r"^/.*new.ts: line \d+: "):
        Reader(task, {}).query(path)
