"""Data that are given from Python: every form, written once, and refused with what is wanted."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from metaloom.testing import TaskSourceContract
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.given_objects import holds_objects, section_of
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.data.user_single_task import PARTS, UserTask

ROWS = 60
ONE = {"episodes": "single_task"}


def arrays() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    generator = np.random.default_rng(0)
    return 1e6 + generator.normal(size=(ROWS, 4)), np.arange(ROWS) % 3


def opened(tasks: Any, cache: Path) -> Any:
    return open_source(section_of(tasks, cache), seed=0, cache=cache)


class TestArrays(TaskSourceContract):
    rows: dict[str, dict[str, Any]] = {"arrays": {"path": "", "ways": 2, "shots": 2, "queries": 3}}

    @pytest.fixture(autouse=True)
    def file(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.getbasetemp() / "contract.npz"
        if not path.exists():
            np.savez(path, x=np.random.default_rng(0).normal(size=(120, 4)), y=np.arange(120) % 12)
        self.rows["arrays"]["path"] = str(path)


def test_arrays_of_numpy_and_torch_are_written_once(tmp_path: Path) -> None:
    x, y = arrays()
    one = section_of({"x": x, "y": y, **ONE}, tmp_path)
    other = section_of({"data": (torch.tensor(x), torch.tensor(y)), **ONE}, tmp_path)
    assert one == other == {"source": "arrays", "path": one["path"], **ONE}
    assert len(list((tmp_path / "given").glob("*.arrow"))) == 1
    assert section_of((x + 1, y), tmp_path)["path"] != one["path"]


def test_features_are_standardized_in_float64(tmp_path: Path) -> None:
    x, y = arrays()
    source = opened({"x": x, "y": y, **ONE}, tmp_path)
    assert isinstance(source, UserTask) and source.class_names == ("0", "1", "2")
    train = source.parts["train"]
    inputs, labels = source.examples(train)
    expected = (x[train] - x[train].mean(0)) / x[train].std(0)
    np.testing.assert_allclose(inputs, expected, atol=1e-5)
    assert labels.tolist() == y[train].tolist()


@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        ((ROWS, 8, 8), (1, 8, 8)),
        ((ROWS, 3, 8, 8), (3, 8, 8)),
        ((ROWS, 8, 8, 3), (3, 8, 8)),
        ((ROWS, 8, 8, 1), (1, 8, 8)),
    ],
)
def test_images_of_every_layout_are_pixels(shape: tuple[int, ...], inputs: tuple[int, ...], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    source = opened({"x": pixels, "y": np.arange(ROWS) % 3, **ONE}, tmp_path)
    assert source.shape.inputs == inputs and source.shape.mean == ()
    first = np.moveaxis(pixels, -1, 1) if shape[-1] in (1, 3) else pixels
    got, _ = source.examples(np.arange(3))
    np.testing.assert_allclose(got, first[:3].reshape(3, *inputs) / np.float32(255), atol=1e-7)
    floats = opened({"x": pixels / 255, "y": np.arange(ROWS) % 3, **ONE}, tmp_path)
    np.testing.assert_allclose(floats.examples(np.arange(3))[0], got, atol=1e-6)
    assert opened({"x": pixels, "y": np.arange(ROWS) % 3, "flat": True, **ONE}, tmp_path).shape.inputs == (
        int(np.prod(inputs)),
    )


def test_the_parts_may_be_said(tmp_path: Path) -> None:
    x, y = arrays()
    split = ["train"] * 40 + ["val"] * 10 + ["test"] * 10
    source = opened({"x": x, "y": y, "split": split, **ONE}, tmp_path)
    assert source.parts["test"].tolist() == list(range(50, 60))
    assert {part: len(source.parts[part]) for part in PARTS} == {"train": 36, "meta": 4, "validation": 10, "test": 10}


def test_regression_of_several_targets(tmp_path: Path) -> None:
    x, _ = arrays()
    y = np.stack([x[:, 0], 3 * x[:, 1] + 5], axis=1)
    source = opened({"x": x, "y": y, "kind": "regression", **ONE}, tmp_path)
    assert source.shape.outputs == 2 and len(source.shape.target_deviation) == 2
    _, targets = source.examples(source.parts["train"])
    np.testing.assert_allclose(targets.mean(0), 0, atol=1e-5)


def test_few_shot_classes_keep_their_examples(tmp_path: Path) -> None:
    y = np.array([f"kind {row % 10}" for row in range(100)])
    x = np.stack([np.arange(100) % 10, np.arange(100)], axis=1)
    source = opened({"x": x, "y": y, "standardize": False, "ways": 2, "shots": 2, "queries": 3}, tmp_path)
    assert isinstance(source, FewShotSource)
    sample = source.episode("test", 0)
    for way, class_id in enumerate(sample.class_ids):
        label = int(source.table.names[class_id].removeprefix("kind "))
        assert set(sample.episode.query_x[sample.episode.query_y == way][:, 0].tolist()) == {float(label)}


def test_few_shot_splits_may_be_lists_of_classes(tmp_path: Path) -> None:
    y = np.arange(100) % 10
    x = np.stack([y, np.arange(100)], axis=1)
    lists = {"train": [9, 8, 7, 6], "val": [0, 1], "test": [2, 3]}
    source = opened({"x": x, "y": y, "split": lists, "ways": 2, "shots": 2, "queries": 3}, tmp_path)
    assert [source.table.names[place] for place in source.episode("test", 0).class_ids] in (["2", "3"], ["3", "2"])
    assert "2 of 10 classes left out" in source.notes[-1]


def test_a_torch_data_set_is_its_arrays(tmp_path: Path) -> None:
    x, y = arrays()
    given = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    assert section_of({"data": given, **ONE}, tmp_path) == section_of({"x": x, "y": y, **ONE}, tmp_path)


def frame() -> dict[str, list[Any]]:
    return {"width": [float(row) for row in range(ROWS)], "kind": ["abc"[row % 3] for row in range(ROWS)]}


@pytest.mark.parametrize("library", ["pyarrow", "pandas", "polars"])
def test_data_frames_are_tables(library: str, tmp_path: Path) -> None:
    module = pytest.importorskip(library)
    made = pa.table(frame()) if library == "pyarrow" else module.DataFrame(frame())
    section = section_of({"data": made, "label": "kind", **ONE}, tmp_path)
    assert section["source"] == "table" and section["path"].startswith("given:")
    source = open_source(section, seed=0, cache=tmp_path)
    assert source.shape.features == ("width",) and source.shape.outputs == 3


def saved(folder: Path, rows: range, *, images: bool = True) -> Path:
    """Write what Hugging Face's ``save_to_disk`` writes."""
    label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
    features: dict[str, Any] = {"label": label}
    columns: dict[str, Any] = {"label": [row % 2 for row in rows]}
    if images:
        features = {"image": {"_type": "Image"}, **features}
        columns = {"image": [{"bytes": png(row), "path": None} for row in rows], **columns}
    else:
        columns["width"] = [float(row) for row in rows]
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table(columns).replace_schema_metadata(metadata)
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return folder


def png(row: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((9, 9), 4 * row, dtype=np.uint8)).save(content, "png")
    return content.getvalue()


def test_a_saved_data_set_with_images(tmp_path: Path) -> None:
    folder = saved(tmp_path / "saved", range(40))
    source = opened({"data": folder, "size": 8, **ONE}, tmp_path / "cache")
    assert source.class_names == ("cat", "dog") and source.shape.inputs == (1, 8, 8)
    got, labels = source.examples(np.array([7]))
    assert labels.tolist() == [1] and float(got.max()) == pytest.approx(28 / 255)
    tasks = {"source": "arrays", "path": str(folder), "size": 8, "color": True, **ONE}
    assert open_source(tasks, seed=0, cache=tmp_path / "cache").shape.inputs == (3, 8, 8)


def test_the_splits_of_a_saved_data_set_are_the_parts(tmp_path: Path) -> None:
    names = {"train": range(20), "validation": range(20, 30), "test": range(30, 40)}
    for images in (True, False):
        folder = tmp_path / f"images-{images}"
        for name, rows in names.items():
            saved(folder / name, rows, images=images)
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(names)}))
        source = opened({"data": folder, **({"size": 8} if images else {}), **ONE}, tmp_path / "cache")
        assert source.parts["test"].tolist() == list(range(30, 40))
        assert len(source.parts["train"]) == 18 and source.class_names == ("cat", "dog")


def test_a_data_set_of_hugging_face(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    columns = {"image": [{"bytes": png(row), "path": None} for row in range(40)], "label": [0, 1] * 20}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    given = datasets.Dataset.from_dict(columns, features=features).shuffle(seed=0)
    source = opened({"data": given, "size": 8, **ONE}, tmp_path / "cache")
    assert source.class_names == ("cat", "dog") and len(source.labels) == 40


class Fails(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, place: int) -> Any:
        raise KeyError("no file")


X, Y = arrays()
SPOILT = np.where(np.arange(ROWS)[:, None] == 7, np.nan, X)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((X, Y[:5]), "x holds 60 examples, and y 5 labels"),
        ((X, np.eye(3)[Y]), r"y has shape \(60, 3\); give the class of each example, such as one_hot.argmax"),
        ((X, Y + 0.5), "y holds 0.5, 1.5, 2.5, and a class is a whole number or a text"),
        ((SPOILT, Y), "x holds a NaN or an infinity in 1 examples: 7"),
        ((X, ["a", None] * 30), "y lacks the label of 30 examples: 1, 3"),
        ((X, [""] * ROWS), "y lacks the label of 60"),
        ((X, ["a"] * ROWS), "all 60 labels are 'a'; give two classes or more"),
        ((X[:, 0], Y), r"x has shape \(60,\); give rows"),
        ((X.reshape(ROWS, 2, 2), Y), "images with values from .*; give 8-bit ones, or floats in"),
        ((np.zeros((ROWS, 5, 7, 9)), Y), "images have 1 or 3 channels"),
        (([[1, 2], [3]], [0, 1]), "x is no array"),
        ((X.astype(str), Y), "examples must be numbers"),
        ({"x": X}, "'x' and 'y' belong together"),
        ({"x": X, "y": Y, "data": X}, "give 'data', or 'x' and 'y'"),
        ({"x": X, "y": Y, "split": ["trian"] * ROWS}, "no part is named 'trian'; did you mean 'train'"),
        ({"x": X, "y": Y, "split": ["train"]}, "split has shape"),
        ({"x": X, "y": Y, "source": "folder"}, "tasks.source: these data are given as arrays, not as folder"),
        ({"x": X, "y": Y, "kind": "regresion"}, "tasks.kind: .*did you mean 'regression'"),
        ({"x": X, "y": ["a"] * ROWS, "kind": "regression"}, "regression needs numbers"),
        ([1, 2, 3], "got list; give arrays"),
        ({"data": pa.table(frame())}, r"tasks.label: name the column of the labels \(columns: width, kind\)"),
        ({"data": Fails()}, "the data set fails: KeyError: 'no file'"),
        ({"data": Path("nowhere")}, "no saved data set"),
    ],
)
def test_what_cannot_be_used_is_refused(tasks: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        section_of(tasks, tmp_path)


@pytest.mark.parametrize(
    ("held", "message"),
    [({"x": X}, "has no array y"), ({"x": X, "y": Y, "split": Y}, "no part is named '0'")],
)
def test_a_file_of_other_arrays_is_refused(held: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **held)
    with pytest.raises(DataError, match=message):
        open_source({"source": "arrays", "path": str(tmp_path / "t.npz"), **ONE}, seed=0, cache=tmp_path / "cache")
    (tmp_path / "t.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match="not readable as arrays of numpy"):
        open_source({"source": "arrays", "path": str(tmp_path / "t.npz"), **ONE}, seed=0, cache=tmp_path / "cache")


def test_given_data_that_are_gone_are_named(tmp_path: Path) -> None:
    for tasks in ({"x": X, "y": Y, **ONE}, {"data": pa.table(frame()), "label": "kind", **ONE}):
        section = section_of(tasks, tmp_path)
        for path in (tmp_path / "given").glob("*.arrow"):
            path.unlink()
        with pytest.raises(
            DataError, match=r"tasks.path: the data that were given from Python \(given:.*give the same"
        ):
            open_source(section, seed=0, cache=tmp_path)


def test_settings_alone_are_no_data() -> None:
    assert not holds_objects("sinusoid") and not holds_objects({"source": "table", "path": "t.csv"})
    assert holds_objects((X, Y)) and holds_objects({"x": X, "y": Y}) and holds_objects(pa.table(frame()))
