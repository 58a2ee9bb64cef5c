"""Arrays of another layout, range or type than a learner was trained on are converted and told, or refused."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from metaloom.learners.episode import TaskShape
from metaloom.workers.bundle import Bundle, load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data import SOURCES
from metaloom.workers.errors import BundleError
from metaloom.workers.input_form import InputForm
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.trial.runner import Trial

COLOUR = InputForm(TaskShape("classification", (3, 4, 5), 2), 255.0)
GREY = InputForm(TaskShape("classification", (1, 4, 4), 2), 255.0)
DIGITS = InputForm(TaskShape("classification", (16,), 2), 16.0)
TABLE = InputForm(TaskShape("classification", (2,), 2, features=("a", "b"), mean=(100.0, -3.0), deviation=(20.0, 0.5)))
PLUGIN = InputForm(TaskShape("classification", (3, 4, 5), 2))
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 5), dtype=np.uint8)


def read(form: InputForm, given: Any, caplog: pytest.LogCaptureFixture, told: str = "") -> NDArray[Any]:
    """Read arrays, and hold the form to one warning that says ``told``, or to none."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        tensor, _ = form.read(given, "query_x")
    assert bool(told) == bool(caplog.messages) and told in caplog.text
    return tensor.numpy()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (PIXELS, ""),
        (torch.from_numpy(PIXELS), ""),
        (PIXELS / 255, ""),
        (PIXELS.transpose(0, 2, 3, 1), "[n, height, width, channels]"),
        (PIXELS.transpose(0, 2, 3, 1) / 255, "[n, height, width, channels]"),
        (PIXELS.astype(np.int64), "taken as pixels, and divided by 255"),
        (PIXELS.astype(float).tolist(), "taken as pixels, and divided by 255"),
        ([Image.fromarray(one) for one in PIXELS.transpose(0, 2, 3, 1)], ""),
        ([Image.fromarray(one).convert("RGBA") for one in PIXELS.transpose(0, 2, 3, 1)], ""),
    ],
)
def test_colour_images_are_the_same_however_they_are_given(
    given: Any, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    np.testing.assert_allclose(read(COLOUR, given, caplog, told), PIXELS / 255, rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 4, 4), (6, 1, 4, 4), (6, 4, 4, 1), (6, 16)])
def test_grey_images_need_no_channel(shape: tuple[int, ...], caplog: pytest.LogCaptureFixture) -> None:
    given = np.arange(96, dtype=np.uint8).reshape(shape)
    np.testing.assert_allclose(read(GREY, given, caplog), np.arange(96).reshape(6, 1, 4, 4) / 255, rtol=1e-6)
    flat = read(DIGITS, (given[:1] % 16).astype(float), caplog, "divided by 16")  # scikit-learn's digits go to 16
    np.testing.assert_allclose(flat, np.arange(16)[None] / 16, rtol=1e-6)


@pytest.mark.parametrize(
    ("form", "given", "words"),
    [
        (COLOUR, PIXELS.reshape(6, 60), r"\[n, 3, 4, 5\]: colour images, \[n, channels, height, width\]"),
        (COLOUR, PIXELS.transpose(0, 1, 3, 2), r"got shape \(6, 3, 5, 4\)"),
        (COLOUR, PIXELS[:, :1], r"got shape \(6, 1, 4, 5\)"),
        (GREY, np.zeros((2, 4, 4, 3), np.uint8), r"grey images"),
        (
            COLOUR,
            (PIXELS / 255 - 0.45) / 0.2,
            r"got values from -2\.\d+ to 2\.\d+; this learner takes pixels",
        ),
        (COLOUR, PIXELS / 2.5, r"got values from 0 to 1\d\d"),
        (COLOUR, PIXELS.astype(np.int64) * 256, r"got values from 0 to"),
        (COLOUR, PIXELS.astype(np.int64) - 128, r"got values from -128 to"),
        (COLOUR, [Image.new("RGB", (4, 4))], r"a picture of 4 x 4 pixels; resize it to 5 x 4"),
        (COLOUR, [np.zeros((3, 4, 5)), np.zeros((3, 4, 4))], r"numbers of one shape are needed"),
        (TABLE, np.zeros((2, 2, 2)), r"got shape \(2, 2, 2\); this learner takes \[n, 2\]"),
        (TABLE, np.zeros((2, 3)), r"got shape \(2, 3\)"),
        (TABLE, pd.DataFrame({"A": [1.0], "b": [1.0]}), r"no column is named 'a' \(allowed: A, b\)"),
    ],
)
def test_what_could_be_meant_in_several_ways_is_refused(form: InputForm, given: Any, words: str) -> None:
    with pytest.raises(BundleError, match=f"query_x: .*{words}"):
        form.read(given, "query_x")


def test_queries_are_scaled_as_their_support_set_was(caplog: pytest.LogCaptureFixture) -> None:
    _, form = COLOUR.read(PIXELS.astype(np.int64), "support_x")
    dark = (PIXELS > 127).astype(np.int64)  # 0 and 1 alone: pixels of 0 to 255 beside this support set
    np.testing.assert_allclose(read(form, dark, caplog, "divided by 255"), dark / 255, rtol=1e-6)
    np.testing.assert_allclose(read(COLOUR, dark, caplog), dark)
    read(COLOUR, dark.astype(np.uint8), caplog, "nearly black")
    read(form, dark.astype(np.uint8), caplog)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32, np.float16, bool])
def test_a_tables_features_are_equal_whatever_their_type(kind: type, caplog: pytest.LogCaptureFixture) -> None:
    rows = np.array([[1, 0], [0, 1], [1, 1]])
    expected = ((rows - np.array([100.0, -3.0])) / np.array([20.0, 0.5])).astype(np.float32)
    np.testing.assert_allclose(read(TABLE, rows.astype(kind), caplog), expected, rtol=1e-3)
    plain = InputForm(TaskShape("classification", (2,), 2))
    assert (read(plain, rows.astype(kind), caplog) == rows).all()
    named = pd.DataFrame({"b": rows[:, 1], "c": 7, "a": rows[:, 0]})  # in another order, with one more
    np.testing.assert_allclose(read(TABLE, named, caplog), expected, rtol=1e-6)


def test_a_source_that_says_nothing_of_its_range_takes_any(caplog: pytest.LogCaptureFixture) -> None:
    np.testing.assert_allclose(read(PLUGIN, PIXELS, caplog), PIXELS / 255, rtol=1e-6)
    assert (read(PLUGIN, PIXELS * 100.0 - 50, caplog) == PIXELS * 100.0 - 50).all()


@pytest.mark.parametrize(("factor", "told"), [(1.0, False), (0.001, True), (1000.0, True)])
def test_a_support_set_of_other_units_is_told(factor: float, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    rows = np.random.default_rng(0).normal([100.0, -3.0], [20.0, 0.5], (8, 2)) * factor
    tensor, form = TABLE.read(rows, "support_x")
    form.tell_units(tensor, "support_x")
    assert ("in the units of the training table" in caplog.text) == told


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten colours, four pictures each."""
    folder, generator = tmp_path_factory.mktemp("pictures") / "classes", np.random.default_rng(0)
    for colour in range(10):
        (folder / f"k{colour}").mkdir(parents=True)
        for number in range(4):
            pixels = pictures(np.array([colour]), generator)[0].transpose(1, 2, 0)
            Image.fromarray(pixels).save(folder / f"k{colour}" / f"{number}.png")
    return folder


def exported(classes: Path, folder: Path, learner: dict[str, Any], inner: dict[str, Any], **settings: Any) -> Bundle:
    """Train for one step, and return the bundle."""
    tasks = {"source": "folder", "path": str(classes), "ways": 2, "shots": 2, "queries": 2, **settings}
    config = TrialConfig("colours", 0, 0, tasks, learner, inner, {"steps": 1, "validation_episodes": 2})
    trial = Trial(config, folder / "trial", cache=folder / "cache")
    while not trial.finished:
        trial.advance()
    return load_bundle(write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=None))


@pytest.fixture(scope="module")
def bundle(classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of the nearest neighbour on colour pictures, which needs no training."""
    learner = {"method": "nearest_neighbour", "prediction": {"kind": "nearest_neighbour"}}
    return exported(classes, tmp_path_factory.mktemp("bundle"), learner, {}, color=True, size=6)


def pictures(colours: NDArray[Any], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw pictures of these colours, 0 to 9, with noise: [n, 3, 6, 6]."""
    angles = colours[:, None] * 0.6 + np.array([0.0, 2.1, 4.2])
    centres = 128 + 100 * np.sin(angles)[:, :, None, None] + np.zeros((1, 1, 6, 6))
    return np.clip(centres + generator.integers(-20, 20, centres.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("turn", [lambda x: x, lambda x: x.transpose(0, 2, 3, 1)])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_predictions_do_not_depend_on_how_pictures_are_given(bundle: Bundle, kind: Any, turn: Any) -> None:
    labels, generator = np.repeat([0, 3, 6], 3), np.random.default_rng(1)
    support, query = pictures(labels, generator), pictures(labels, generator)
    expected = bundle.adapt(support, labels).probabilities(query)
    assert (labels == np.array([0, 3, 6])[expected.argmax(1)]).all()
    given = bundle.adapt(support, labels).probabilities(turn(query.astype(kind)))
    np.testing.assert_allclose(given, expected, atol=1e-5)
    turned = bundle.adapt(turn(support), labels).probabilities(query)
    np.testing.assert_allclose(turned, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "settings", "mean", "brightest"),
    [((3, 4, 5), {}, (), 255.0), ((60,), {"flat": True}, (), 255.0), ((60,), {}, (), 0.0), ((2,), {}, (0.0,), 0.0)],
)
def test_arrays_of_the_users_own_are_pixels_where_they_are_images(
    inputs: tuple[int, ...], settings: dict[str, Any], mean: tuple[float, ...], brightest: float
) -> None:
    shape = TaskShape("classification", inputs, 2, mean=mean)
    assert SOURCES["arrays"].brightest_of(shape, {"source": "arrays", **settings}) == brightest
    assert SOURCES["folder"].brightest_of(shape, settings) == 255.0


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 0, 1, None], "label 3 is missing"),
        (np.array(["a", "b", None, "b"], dtype=object), "label 2 is missing"),
        ([0.0, float("nan"), 1.0, 1.0], "label 1 is missing"),
        (pd.Series(["a", pd.NA, "b", "b"]), "label 1 is missing"),
        ([1, "a", "a", 1], "label 0 is a number and label 1 is a text"),
        (np.array([1, "a", "a", 1], dtype=object), "label 0 is a number and label 1 is a text"),
        ([[1], [2, 3], [1], [2]], "one label for each example"),
        ([{}, {}, {}, {}], "cannot be sorted"),
    ],
)
def test_labels_that_are_missing_or_of_several_types_are_refused(bundle: Bundle, labels: Any, words: str) -> None:
    support = pictures(np.array([0, 0, 3, 3]), np.random.default_rng(2))
    with pytest.raises(BundleError, match=f"support_y: .*{words}"):
        bundle.adapt(support, labels)


def test_too_few_queries_of_a_transductive_bundle_are_told(
    classes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    update = {"kind": "sgd", "rate": 0.1, "steps": 1}
    learner = {"method": "maml", "initialization": {"kind": "learned"}, "update": update}
    learner |= {"architecture": {"kind": "conv4", "channels": 2}}
    found = {}
    for mode in ("batch", "support"):
        opened = exported(classes, tmp_path / mode, learner, {"batch_norm": mode}, size=16)
        found[mode] = opened.adapt(np.random.default_rng(0).random((2, 16, 16)), [0, 1])
    queries = np.random.default_rng(1).random((4, 16, 16))
    assert str(found["batch"].setting) == (
        "transductive: predictions depend on all queries together, batch norm: batch"
    )
    assert found["support"].setting.name == "inductive"
    for model, told in ((found["batch"], 1), (found["support"], 0)):
        caplog.clear()
        together = model.probabilities(queries)
        assert not caplog.messages
        alone = np.concatenate([model.probabilities(queries[[place]]) for place in range(4)])
        assert len(caplog.messages) == told
        assert bool(np.allclose(alone, together, atol=1e-5)) is not bool(told)
    assert "1 query is predicted at once" in found["batch"].setting.warning(1)
    assert "4 queries of all classes" in found["batch"].setting.warning(3)
    assert found["batch"].setting.warning(4) == ""
