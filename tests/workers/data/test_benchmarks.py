"""CIFAR-FS, FC100, mini-ImageNet and CUB: published splits over the user's own copies."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.published import SUPERCLASS_OF, cifar_fs, cub, fc100, mini_imagenet

SHARED = Path(__file__).parents[4] / "shared" / "data"
NAMES = sorted(SUPERCLASS_OF)
EACH = 3
PUBLISHED = {"cifar_fs": cifar_fs, "fc100": fc100, "mini_imagenet": mini_imagenet}


def opened(source: str, path: Path, cache: Path, **fields: Any) -> Any:
    tasks = {"source": source, "path": str(path), "ways": 5, "shots": 1, "queries": 2, **fields}
    return open_source(tasks, seed=0, cache=cache)


@pytest.mark.parametrize(
    ("name", "sizes"), [("cifar_fs", (64, 16, 20)), ("fc100", (60, 20, 20)), ("mini_imagenet", (64, 16, 20))]
)
def test_a_published_split_uses_each_class_once(name: str, sizes: tuple[int, ...]) -> None:
    lists = PUBLISHED[name]()
    assert tuple(map(len, lists.values())) == sizes
    assert len({one for classes in lists.values() for one in classes}) == 100


def test_superclasses_are_20_of_5_and_fc100_keeps_them_whole() -> None:
    assert sorted(list(SUPERCLASS_OF.values()).count(group) for group in set(SUPERCLASS_OF.values())) == [5] * 20
    owners = [{SUPERCLASS_OF[name] for name in names} for names in fc100().values()]
    assert list(map(len, owners)) == [12, 4, 4] and len(set.union(*owners)) == 20


def test_cub_is_split_by_the_order_of_its_classes() -> None:
    folders = [f"{number:03}.Bird_{number}" for number in range(1, 201)]
    lists = cub(reversed(folders))
    assert list(map(len, lists.values())) == [100, 50, 50]
    assert [names[0] for names in lists.values()] == ["001.Bird_1", "002.Bird_2", "004.Bird_4"]
    assert lists["test"] == folders[3::4] and lists["validation"] == folders[1::4]


def test_the_lists_are_the_published_ones() -> None:
    path = SHARED / "image_splits.json"
    if not path.exists():
        pytest.skip("the lists are not beside the repository")
    given = json.loads(path.read_text())
    assert given["cifar100_superclass"] == SUPERCLASS_OF
    for name in ("cifar_fs", "fc100"):
        ours = PUBLISHED[name]()
        assert [sorted(ours[one]) for one in ("train", "validation", "test")] == [
            sorted(given[name][one]) for one in ("train", "val", "test")
        ]


@pytest.mark.parametrize(("source", "floor"), [("cifar_fs", 0.396), ("fc100", 0.356)])
def test_pixels_reach_the_published_floor(source: str, floor: float, tmp_path: Path) -> None:
    path = SHARED / "cifar100_test10k.npz"
    if not path.exists():
        pytest.skip("the images of CIFAR-100 are not beside the repository")
    tasks = opened(source, path, tmp_path, shots=5, queries=15)
    assert tasks.notes == ("100 images a class; CIFAR-100 has 600",)
    scores = []
    for index in range(200):
        episode = tasks.episode("test", index).episode
        means = episode.support_x.flatten(1).view(5, 5, -1).mean(1)
        near = torch.cdist(episode.query_x.flatten(1), means).argmin(1)
        scores.append((near == episode.query_y).float().mean().item())
    assert abs(np.mean(scores) - floor) < 0.025  # ± 0.007 over 600 episodes, and ± 0.012 over these 200


def pixels() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return images whose red channel is their class, in a mixed order, [n, 32, 32, 3], and their labels."""
    labels = np.tile(np.arange(100), EACH)
    images = np.zeros((len(labels), 32, 32, 3), dtype=np.uint8)
    images[..., 0] = labels[:, None, None]
    images[:, 0, 0, 1] = np.repeat(np.arange(EACH), 100)
    return images, labels


def binary(folder: Path) -> Path:
    folder.mkdir()
    (folder / "fine_label_names.txt").write_text("\n".join(NAMES) + "\n")
    images, labels = pixels()
    records = np.concatenate(
        [np.zeros((len(labels), 1)), labels[:, None], images.transpose(0, 3, 1, 2).reshape(-1, 3072)], 1
    )
    (folder / "train.bin").write_bytes(records[:200].astype(np.uint8).tobytes())
    (folder / "test.bin").write_bytes(records[200:].astype(np.uint8).tobytes())
    return folder


def copy_of(kind: str, folder: Path) -> Path:
    if kind == "npz":
        images, labels = pixels()
        np.savez(folder / "c.npz", images=images, labels=labels.astype(np.int16), class_names=np.array(NAMES))
        return folder / "c.npz"
    if kind == "folder":
        return binary(folder / "any name")
    if kind == "parent":
        binary(folder / "cifar-100-binary")
        return folder
    with tarfile.open(folder / "cifar-100-binary.tar.gz", "w:gz") as archive:
        archive.add(binary(folder / "cifar-100-binary"), "cifar-100-binary")
    return folder / "cifar-100-binary.tar.gz"


@pytest.mark.parametrize("kind", ["npz", "folder", "parent", "archive"])
@pytest.mark.parametrize("source", ["cifar_fs", "fc100"])
def test_each_copy_of_cifar_100_is_read(kind: str, source: str, tmp_path: Path) -> None:
    tasks = opened(source, copy_of(kind, tmp_path), tmp_path / "cache")
    assert tasks.table.splits == PUBLISHED[source]()
    assert tasks.shape.inputs == (3, 32, 32)
    for split in ("train", "validation", "test"):
        sample = tasks.episode(split, 0)
        for way, place in enumerate(sample.class_ids):
            x = sample.episode.query_x[sample.episode.query_y == way] * 255
            assert (x[:, 0].round() == NAMES.index(tasks.table.names[place])).all() and (x[:, 2] == 0).all()


def test_classes_of_cifar_within_a_superclass(tmp_path: Path) -> None:
    path = copy_of("npz", tmp_path)
    tasks = opened("fc100", path, tmp_path / "cache", within="superclass")
    for index in range(20):
        names = [tasks.table.names[place] for place in tasks.episode("test", index).class_ids]
        assert len({SUPERCLASS_OF[name] for name in names}) == 1
    with pytest.raises(DataError, match=r"tasks\.within: 5 ways .* has \d \("):  # CIFAR-FS cuts superclasses
        opened("cifar_fs", path, tmp_path / "cache", within="superclass")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("absent", r"is no copy of CIFAR-100; give CIFAR-100's binary version .* a pickle, which is not read"),
        ("cut", r"test\.bin: \d+ bytes are no whole number of 3074-byte records"),
        ("names", r"labels do not fit its 50 class names"),
        ("classes", r"lacks 1 of the 100 classes of cifar_fs \(apple\)"),
        ("archive", r"the archive cannot be read"),
        ("empty archive", r"no fine_label_names\.txt or no train\.bin or test\.bin in it"),
        ("npz", r"not a file of CIFAR-100"),
    ],
)
def test_a_wrong_copy_of_cifar_100_is_refused(damage: str, message: str, tmp_path: Path) -> None:
    path = binary(tmp_path / "c") if damage in ("cut", "names", "classes") else tmp_path / "absent"
    if damage == "cut":
        (path / "test.bin").write_bytes((path / "test.bin").read_bytes()[:-1])
    elif damage == "names":
        (path / "fine_label_names.txt").write_text("\n".join(NAMES[:50]))
    elif damage == "classes":
        (path / "fine_label_names.txt").write_text(
            "\n".join(["pear", *NAMES[1:], "apples"][:100]).replace("pear\n", "a\n", 1)
        )
    elif damage != "absent":
        path = tmp_path / ("c.npz" if damage == "npz" else "c.tar.gz")
        path.write_bytes(b"no archive")
    if damage == "empty archive":
        with tarfile.open(path, "w:gz") as archive:
            archive.addfile(tarfile.TarInfo("cifar-100-binary/readme"), io.BytesIO())
    with pytest.raises(DataError, match=message):
        opened("cifar_fs", path, tmp_path / "cache")


def picture(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 9), (red, 0, 0)).save(path)


@pytest.mark.parametrize("layout", ["class folders", "split folders", "images", "flat"])
def test_each_layout_of_mini_imagenet_is_read(layout: str, tmp_path: Path) -> None:
    lists = mini_imagenet()
    names = sorted(name for classes in lists.values() for name in classes)
    owners = {name: split for split, classes in lists.items() for name in classes}
    places = {
        "class folders": lambda name: tmp_path / "d" / name,
        "split folders": lambda name: tmp_path / "d" / owners[name].replace("validation", "val") / name,
        "images": lambda name: tmp_path / "d" / "images",
        "flat": lambda name: tmp_path / "d",
    }
    for place, name in enumerate(names):
        for number in range(EACH):
            picture(places[layout](name) / f"{name}{number:08}.png", 2 * place)
    tasks = opened("mini_imagenet", tmp_path / "d", tmp_path / "cache", size=8)
    assert tasks.table.splits == lists and tasks.shape.inputs == (3, 8, 8)
    sample = tasks.episode("test", 0)
    for way, place in enumerate(sample.class_ids):
        x = sample.episode.query_x[sample.episode.query_y == way] * 255
        assert (x[:, 0].round() == 2 * names.index(tasks.table.names[place])).all()


def test_a_wrong_copy_of_mini_imagenet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*; mini_imagenet needs a folder with class folders"):
        opened("mini_imagenet", tmp_path / "absent", tmp_path / "cache")
    picture(tmp_path / "d" / "n01532829" / "0.png", 0)
    with pytest.raises(DataError, match=r"lacks 99 of the 100 classes of mini_imagenet \(n01558993, .*no pickle is re"):
        opened("mini_imagenet", tmp_path / "d", tmp_path / "cache")
    picture(tmp_path / "d" / "more" / "n01532829" / "0.png", 0)
    with pytest.raises(DataError, match=r"has two folders of class n01532829"):
        opened("mini_imagenet", tmp_path / "d", tmp_path / "cache")


@pytest.mark.parametrize("above", ["CUB_200_2011/images", "images", ""])
def test_cub_is_read_from_its_folder_or_one_above(above: str, tmp_path: Path) -> None:
    for number in range(1, 201):
        for place in range(EACH):
            picture(tmp_path / "d" / above / f"{number:03}.Bird" / f"{place}.png", number)
    tasks = opened("cub", tmp_path / "d", tmp_path / "cache", size=4)
    assert [last - first for first, last in tasks.table.ends.values()] == [100, 50, 50]
    for split, remainders in (("train", {1, 3}), ("validation", {2}), ("test", {0})):
        assert {int(name[:3]) % 4 for name in tasks.table.splits[split]} == remainders
    for file in (tmp_path / "d" / above / "007.Bird").iterdir():
        file.unlink()
    (tmp_path / "d" / above / "007.Bird").rmdir()
    with pytest.raises(DataError, match=r"has 199 of the 200 classes \(no folder begins with 007\.\)"):
        opened("cub", tmp_path / "d", tmp_path / "cache", size=4)


def test_the_published_split_cannot_be_replaced() -> None:
    for source in (*PUBLISHED, "cub"):
        with pytest.raises(ExperimentError, match=rf"no setting of {source} is named 'split'"):
            load_experiment({"tasks": {"source": source, "path": "x", "split": "a.json"}, "learner": "maml"})
