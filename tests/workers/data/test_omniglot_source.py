"""Omniglot: the packed file, the original folders and zips, two published splits."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.omniglot import VINYALS_TEST, VINYALS_VALIDATION, Omniglot, split_of

ALPHABETS = {
    "images_background": ("Greek", "Latin", "Hebrew", "Armenian"),
    "images_evaluation": ("Keble", "ULOG", "Angelic"),
}


def opened(fields: dict[str, Any], cache: Path, seed: int = 0) -> Omniglot:
    source = open_source({"source": "omniglot", **fields}, seed=seed, cache=cache)
    assert isinstance(source, Omniglot)
    return source


@pytest.mark.parametrize(("split", "classes"), [("vinyals", (1028, 172, 423)), ("lake", (964 - 172, 172, 659))])
@pytest.mark.parametrize("turns", [1, 4])
def test_the_real_file_has_the_published_splits(
    omniglot: Path, cache: Path, split: str, classes: tuple[int, ...], turns: int
) -> None:
    source = opened({"path": str(omniglot), "split": split, "rotations": turns == 4}, cache)
    assert [last - first for first, last in source.table.ends.values()] == [turns * count for count in classes]
    assert source.shape.classes == turns * classes[0]
    assert source.table.counts.sum() == turns * 32460


def test_the_vinyals_split_is_the_published_list(omniglot: Path, cache: Path) -> None:
    import json

    listed = json.loads((omniglot.parent / "omniglot_splits.json").read_text())["omniglot-vinyals"]
    source = opened({"path": str(omniglot), "rotations": False}, cache)
    for ours, theirs in (("train", "train"), ("validation", "val"), ("test", "test")):
        first, last = source.table.ends[ours]
        assert sorted(source.table.names[first:last]) == sorted(listed[theirs])


def test_rotated_classes_are_quarter_turns_of_the_same_drawings(omniglot: Path, cache: Path) -> None:
    fields = {"path": str(omniglot), "ways": 20}
    source = opened(fields, cache)
    samples = 32460
    for index in range(5):
        sample = source.episode("test", index)
        x = sample.episode.support_x.numpy()[:, 0] * 255
        for image, row in zip(x, sample.sample_ids, strict=False):
            np.testing.assert_array_equal(image, np.rot90(source._x[row % samples], row // samples))
    turned = [class_id % 4 for index in range(20) for class_id in source.episode("test", index).class_ids]
    assert np.bincount(turned).min() > 60


def test_pixels_reach_the_published_floor(omniglot: Path, cache: Path) -> None:
    from torch.nn.functional import normalize

    source = opened({"path": str(omniglot), "rotations": False}, cache)
    scores = []
    for index in range(300):
        episode = source.episode("test", index).episode
        near = normalize(episode.query_x.flatten(1)) @ normalize(episode.support_x.flatten(1)).T
        scores.append((episode.support_y[near.argmax(1)] == episode.query_y).float().mean().item())
    assert 0.45 < np.mean(scores) < 0.515  # 48.2 ± 1.0 over 600 episodes


def test_originals_resized_are_the_packed_images(omniglot: Path, cache: Path, tmp_path: Path) -> None:
    with np.load(omniglot, allow_pickle=False) as file:
        bits, packed, names = file["bits105"][:20], file["images28"][:20], file["class_names"]
    for part in ("images_background", "images_evaluation"):
        folder = tmp_path / part / str(names[0])
        folder.mkdir(parents=True)
    for number, row in enumerate(bits):
        ink = np.unpackbits(row)[:11025].reshape(105, 105).astype(bool)
        Image.fromarray(~ink).save(tmp_path / "images_background" / str(names[0]) / f"0001_{number:02}.png")
    from metaloom.workers.data.omniglot import _load_originals

    read = _load_originals([tmp_path / "images_background", tmp_path / "images_evaluation"])
    assert np.abs(read["x"].astype(int) - packed.astype(int)).max() <= 1


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """A small Omniglot in the published layout: 3 characters of each alphabet, 4 drawings each."""
    generator = np.random.default_rng(0)
    for part, alphabets in ALPHABETS.items():
        for alphabet in alphabets:
            for character in range(1, 4):
                folder = tmp_path / "originals" / part / alphabet / f"character{character:02}"
                folder.mkdir(parents=True)
                for drawer in range(1, 5):
                    paper = generator.random((105, 105)) > 0.1
                    Image.fromarray(paper).save(folder / f"{character:04}_{drawer:02}.png")
    return tmp_path / "originals"


SMALL = {"ways": 3, "shots": 1, "queries": 3}


@pytest.mark.parametrize("split", ["vinyals", "lake"])
def test_zips_and_folders_are_read_alike(originals: Path, tmp_path: Path, split: str) -> None:
    zips = tmp_path / "zips"
    zips.mkdir()
    for part in ALPHABETS:
        shutil.make_archive(str(zips / part), "zip", originals, part)
    fields = {**SMALL, "split": split}
    places = (originals, zips, zips / "images_background.zip", originals / "images_background")
    samples = [opened({**fields, "path": str(place)}, tmp_path / "cache").episode("train", 3) for place in places]
    for sample in samples[1:]:
        assert sample.sample_ids == samples[0].sample_ids
        assert (sample.episode.query_x == samples[0].episode.query_x).all()
    ink = samples[0].episode.query_x.mean()
    assert 0.05 < ink < 0.2  # a tenth of the paper is inked, and ink is 1


def test_splits_follow_alphabets_and_characters() -> None:
    assert split_of("Greek/character01", "vinyals", evaluation=False) == "train"
    assert split_of("Hebrew/character01", "vinyals", evaluation=False) == "validation"
    assert split_of("Gurmukhi/character41", "vinyals", evaluation=True) == "train"
    assert split_of("Gurmukhi/character42", "vinyals", evaluation=True) == "test"
    assert split_of("Angelic/character01", "vinyals", evaluation=True) == "train"
    assert split_of("Angelic/character01", "lake", evaluation=True) == "test"
    assert split_of("Hebrew/character01", "lake", evaluation=False) == "validation"
    assert not VINYALS_TEST & VINYALS_VALIDATION


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "images_evaluation"), "neither an .npz file nor a folder with"),
        (lambda folder: (folder / "images_background" / "Greek" / "character01" / "0001_02.png").write_bytes(b"?"),
         "Greek/character01/0001_02.png: not a readable image"),
    ],
)  # fmt: skip
def test_damaged_originals_are_named(originals: Path, tmp_path: Path, damage: Any, message: str) -> None:
    damage(originals)
    with pytest.raises(DataError, match=message):
        open_source({"source": "omniglot", "path": str(originals), **SMALL}, seed=0, cache=tmp_path / "cache")


def test_a_damaged_zip_is_named(originals: Path, tmp_path: Path) -> None:
    for part in ALPHABETS:
        (tmp_path / f"{part}.zip").write_bytes(b"PK nonsense")
    with pytest.raises(DataError, match=r"images_background.zip: the zip file is damaged"):
        open_source({"source": "omniglot", "path": str(tmp_path), **SMALL}, seed=0, cache=tmp_path / "cache")


@pytest.mark.parametrize("content", [b"nonsense", b""])
def test_another_npz_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "o.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"o.npz: not an Omniglot file"):
        open_source({"source": "omniglot", "path": str(path)}, seed=0, cache=tmp_path / "cache")
    np.savez(path, images=np.zeros(3))
    with pytest.raises(DataError, match="images28"):
        open_source({"source": "omniglot", "path": str(path)}, seed=0, cache=tmp_path / "cache")
