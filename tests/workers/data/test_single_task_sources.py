"""digits and fashion_mnist: one task, noisy to train on, clean to judge by."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.fashion_mnist import SHA256
from metaloom.workers.data.single_task import SingleTaskSource, add_label_noise, long_tail


def digits(cache: Path, seed: int = 0, **fields: Any) -> SingleTaskSource:
    source = open_source({"source": "digits", **fields}, seed=seed, cache=cache)
    assert isinstance(source, SingleTaskSource)
    return source


def test_sizes_are_those_asked_for_and_parts_are_disjoint(cache: Path) -> None:
    parts = digits(cache).parts
    assert {name: len(rows) for name, rows in parts.items()} == {
        "test": 500,
        "meta": 50,
        "validation": 200,
        "train": 1047,
        "both": 1097,
    }
    assert sorted(parts["both"]) == sorted(np.concatenate([parts["train"], parts["meta"]]))
    disjoint = [rows for name, rows in parts.items() if name != "both"]
    assert sorted(np.concatenate(disjoint)) == list(range(1797))


def test_no_seed_moves_a_sample_from_test_to_train(cache: Path) -> None:
    first, second = digits(cache, 0, label_noise=0.4), digits(cache, 1, label_noise=0.4)
    for name, rows in first.parts.items():
        np.testing.assert_array_equal(rows, second.parts[name])
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.4, 0.6, 0.95])
def test_noise_hits_its_fraction_of_train_and_nothing_else(cache: Path, fraction: float) -> None:
    source = digits(cache, label_noise=fraction)
    train = source.parts["train"]
    expected, spread = fraction * len(train), np.sqrt(len(train) * fraction * (1 - fraction))
    assert abs(source.noisy[train].sum() - expected) <= 4 * spread
    assert source.noisy.sum() == source.noisy[train].sum()


def test_wrong_labels_are_uniform_over_the_other_classes() -> None:
    labels = np.full(90_000, 3)
    noisy = np.bincount(add_label_noise(labels, 1.0, 10), minlength=10)
    assert noisy[3] == 0
    assert np.abs(np.delete(noisy, 3) - 10_000).max() < 500


def test_uniform_noise_over_all_classes_leaves_some_labels_right(cache: Path) -> None:
    labels = np.full(100_000, 3)
    noisy = np.bincount(add_label_noise(labels, 1.0, 10, "all"), minlength=10)
    assert np.abs(noisy - 10_000).max() < 500
    source = digits(cache, label_noise=0.6, noise_over="all")
    train = source.parts["train"]
    expected, spread = 0.54 * len(train), np.sqrt(len(train) * 0.54 * 0.46)
    assert abs(source.noisy[train].sum() - expected) <= 4 * spread
    assert source.noisy.sum() == source.noisy[train].sum()


@pytest.mark.parametrize("factor", [1.0, 10.0, 50.0])
def test_the_long_tail_falls_geometrically(cache: Path, factor: float) -> None:
    source = digits(cache, imbalance=factor, batch=50)
    sizes = np.bincount(source.labels[source.parts["train"]], minlength=10)
    if factor == 1.0:
        assert sizes.sum() == 1047
    else:
        assert sizes[0] / sizes[-1] == pytest.approx(factor, rel=0.35)
        assert (np.diff(sizes) <= 0).all()
        np.testing.assert_allclose(sizes, sizes[0] * factor ** (-np.arange(10) / 9), atol=0.51)
    assert len(source.parts["test"]) == 500


def test_the_long_tail_keeps_one_of_each_class() -> None:
    labels = np.repeat(np.arange(3), 5)
    assert set(labels[long_tail(labels, 1000.0, 3)]) == {0, 1, 2}


def test_training_pairs_noisy_support_with_clean_query(cache: Path) -> None:
    source = digits(cache, label_noise=0.5)
    sample = source.episode("train", 3)
    support, query = np.array(sample.sample_ids[:100]), np.array(sample.sample_ids[100:])
    assert set(support) <= set(source.parts["train"]) and set(query) <= set(source.parts["meta"])
    assert len(set(support)) == 100 and len(set(query)) == 50
    assert source.noisy[support].any() and not source.noisy[query].any()
    assert sample.episode.support_y.tolist() == source.labels[support].tolist()


def test_training_on_the_meta_set_alone(cache: Path) -> None:
    source = digits(cache, label_noise=0.5, train_on="meta", batch=30)
    assert set(source.episode("train", 0).sample_ids) <= set(source.parts["meta"])


def test_evaluation_scores_each_sample_once(cache: Path) -> None:
    source = digits(cache, queries=25, label_noise=0.4)
    assert (source.available("train"), source.available("validation"), source.available("test")) == (None, 8, 20)
    samples = [source.episode("test", index) for index in range(20)]
    asked = [row for sample in samples for row in sample.sample_ids[100:]]
    assert sorted(asked) == sorted(source.parts["test"])
    assert len({sample.sample_ids[:100] for sample in samples}) == 1  # one fixed training batch
    with pytest.raises(DataError, match="test episode 20: episodes are numbered from 0 to 19"):
        source.episode("test", 20)


def test_what_fills_no_episode_is_said(cache: Path) -> None:
    source = open_source({"source": "digits", "queries": 60, "label_noise": 0.4}, seed=0, cache=cache)
    assert "validation: the last 20 samples fill no episode of 60 queries" in source.notes
    assert "training labels are wrong" in source.notes[0]


def test_digits_are_flat_or_images(cache: Path) -> None:
    flat, image = digits(cache), digits(cache, flat=False)
    assert flat.shape.inputs == (64,) and image.shape.inputs == (1, 8, 8)
    x = image.episode("train", 0).episode.support_x
    assert (x.flatten(1) == flat.episode("train", 0).episode.support_x).all() and x.max() == 1.0
    assert flat.shape.single_task and flat.shape.classes == 10


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    content = header + values.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


@pytest.fixture(params=["", ".gz"])
def idx_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "usr" / "share" / "datasets" / "fashion-mnist"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in SHA256:
        size = 300 if name.startswith("train") else 100
        shape = (size, 28, 28) if "images" in name else (size,)
        values = generator.integers(0, 256, shape) if "images" in name else np.arange(size) % 10
        write_idx(folder / f"{name}{request.param}", values.astype(np.uint8))
    return folder


def fashion(folder: Path, **fields: Any) -> dict[str, Any]:
    small = {"meta_size": 50, "validation_size": 50, "meta_batch": 20, "batch": 20, "queries": 10}
    return {"source": "fashion_mnist", "path": str(folder), **small, **fields}


def test_fashion_mnist_is_read_from_idx_files(idx_folder: Path, tmp_path: Path) -> None:
    source = open_source(fashion(idx_folder), seed=0, cache=tmp_path / "cache")
    assert source.shape.inputs == (1, 28, 28) and source.available("test") == 10
    assert isinstance(source, SingleTaskSource)
    assert {name: len(rows) for name, rows in source.parts.items()} == {
        "meta": 50,
        "validation": 50,
        "train": 200,
        "both": 250,
        "test": 100,
    }
    assert source.parts["test"].tolist() == list(range(300, 400))  # the official test set
    assert (source.labels[:300] == np.arange(300) % 10).all()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "needs train-images-idx3-ubyte.* lacks some.*dataset-fashion-mnist"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "cut short or damaged|gzip file is damaged"),
        (lambda path: path.write_bytes(b"P5 28 28"), "not an IDX file of bytes .it begins with 50 35 20 32"),
        (lambda path: write_idx(path, np.zeros((300, 27, 28), np.uint8)), r"\(300, 27, 28\) images"),
    ],
)  # fmt: skip
def test_wrong_idx_files_are_named(idx_folder: Path, tmp_path: Path, damage: Any, message: str) -> None:
    (path,) = idx_folder.glob("train-images-*")
    damage(path)
    with pytest.raises(DataError, match=message) as error:
        open_source(fashion(idx_folder), seed=0, cache=tmp_path / "cache")
    assert str(idx_folder) in str(error.value)
