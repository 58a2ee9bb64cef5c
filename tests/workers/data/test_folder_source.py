"""The user's class folders."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.picture_files import class_files

CLASSES, EACH = 8, 4


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(EACH):
            grey = np.full((10, 14), 20 * label + number, dtype=np.uint8)
            Image.fromarray(grey).save(folder / f"class{label}" / f"{number}.{'png' if number else 'jpg'}")
    return folder


def tasks(folder: Path, **fields: Any) -> dict[str, Any]:
    small = {"ways": 2, "shots": 1, "queries": 3, "size": 12, "validation_fraction": 0.25, "test_fraction": 0.25}
    return {"source": "folder", "path": str(folder), **small, **fields}


def test_class_folders_become_episodes(pictures: Path, tmp_path: Path) -> None:
    source = open_source(tasks(pictures), seed=0, cache=tmp_path / "cache")
    assert source.shape.inputs == (1, 12, 12) and source.shape.classes == 4
    for split in ("train", "validation", "test"):
        sample = source.episode(split, 0)
        for way, class_id in enumerate(sample.class_ids):
            label = int(source.table.names[class_id].removeprefix("class"))  # type: ignore[attr-defined]
            values = sample.episode.query_x[sample.episode.query_y == way] * 255
            assert ((values >= 20 * label - 1) & (values < 20 * label + EACH + 1)).all()


def test_colour_gives_three_channels(pictures: Path, tmp_path: Path) -> None:
    red = np.zeros((9, 9, 3), dtype=np.uint8)
    red[..., 0] = 255
    for file in pictures.glob("*/*.png"):
        Image.fromarray(red).save(file)
    source = open_source(tasks(pictures, color=True), seed=0, cache=tmp_path / "cache")
    x = source.episode("train", 0).episode.query_x
    assert x.shape[1:] == (3, 12, 12)
    assert any((image[0] == 1).all() and (image[1:] == 0).all() for image in x)


def test_strokes_on_a_transparent_ground_are_seen(pictures: Path, tmp_path: Path) -> None:
    strokes = np.zeros((12, 12, 4), dtype=np.uint8)  # black everywhere, and opaque in the upper half only
    strokes[:6, :, 3] = 255
    for file in pictures.glob("*/*.png"):
        Image.fromarray(strokes).save(file)
    x = open_source(tasks(pictures), seed=0, cache=tmp_path / "cache").episode("train", 0).episode.query_x
    assert any((image[0, :5] == 0).all() and (image[0, 7:] == 1).all() for image in x)


def test_sixteen_bits_are_scaled_not_clipped(pictures: Path, tmp_path: Path) -> None:
    for file in pictures.glob("*/*.png"):
        Image.fromarray(np.full((9, 9), 0x8000, dtype=np.uint16)).save(file)
    x = open_source(tasks(pictures), seed=0, cache=tmp_path / "cache").episode("train", 0).episode.query_x
    assert (x * 255 == 128).any() and x.max() < 0.9


@pytest.mark.parametrize("ending", ["bmp", "gif", "tif", "webp"])
def test_other_usual_formats_are_read_too(ending: str, pictures: Path, tmp_path: Path) -> None:
    for file in pictures.glob("*/*.png"):
        Image.open(file).save(file.with_suffix(f".{ending.upper()}"))
        file.unlink()
    assert open_source(tasks(pictures), seed=0, cache=tmp_path / "cache").shape.inputs == (1, 12, 12)


def test_floating_point_pixels_are_refused_and_named(pictures: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((9, 9), 0.5, dtype=np.float32)).save(pictures / "class0" / "scan.tiff")
    with pytest.raises(DataError, match=r"scan\.tiff.*floating-point"):
        open_source(tasks(pictures), seed=0, cache=tmp_path / "cache")


def test_corrupt_images_are_all_named(pictures: Path, tmp_path: Path) -> None:
    whole = (pictures / "class3" / "1.png").read_bytes()
    (pictures / "class3" / "1.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "class5" / "2.png").write_bytes(b"not a picture")
    with pytest.raises(DataError) as error:
        open_source(tasks(pictures), seed=0, cache=tmp_path / "cache")
    message = str(error.value)
    assert "2 of 32 images cannot be read (tasks.on_error: skip leaves them out)" in message
    assert str(pictures / "class3" / "1.png") in message and str(pictures / "class5" / "2.png") in message


def test_corrupt_images_can_be_skipped_and_are_counted(pictures: Path, tmp_path: Path) -> None:
    (pictures / "class3" / "1.png").write_bytes(b"not a picture")
    fields = tasks(pictures, on_error="skip", queries=2)
    for _ in range(2):  # built, then from the cache
        source: Any = open_source(fields, seed=0, cache=tmp_path / "cache")
        assert "1 unreadable images skipped" in source.notes[0] and "1.png" in source.notes[0]
        assert source.table.counts.sum() == CLASSES * EACH - 1


def test_files_are_found_in_the_order_of_their_names(pictures: Path) -> None:
    (pictures / "class0" / "nested.png").mkdir()
    (pictures / "class0" / "._1.png").write_bytes(b"")
    found = class_files(pictures)
    assert list(found) == [f"class{label}" for label in range(CLASSES)]
    assert [path.name for path in found["class0"]] == ["0.jpg", "1.png", "2.png", "3.png"]
    assert found["class0"][1:3] == [found["class0"][1], found["class0"][2]]
    assert list(found["class0"].texts()) == [str(path) for path in found["class0"]]


def test_too_few_images_name_the_class(pictures: Path, tmp_path: Path) -> None:
    (pictures / "class6" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1 shots and 3 queries need 4 samples of each class, but 'class6' .* has 3"):
        open_source(tasks(pictures), seed=0, cache=tmp_path / "cache")


def test_skipping_may_leave_too_few(pictures: Path, tmp_path: Path) -> None:
    for file in (pictures / "class6").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"'class6' .* has 0"):
        open_source(tasks(pictures, on_error="skip"), seed=0, cache=tmp_path / "cache")


def test_too_few_classes_name_the_split(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.ways: 3 ways .* the validation split of folder has 2"):
        open_source(tasks(pictures, ways=3), seed=0, cache=tmp_path / "cache")


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "flat", "hollow"])
def test_folders_of_another_kind_are_refused(kind: str, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / kind
    if kind == "file":
        folder.write_text("")
    elif kind != "absent":
        folder.mkdir()
    if kind == "flat":
        Image.new("L", (8, 8)).save(folder / "a.png")
    if kind == "hollow":
        folder = pictures
        (folder / "nothing_here").mkdir()
    expected = {
        "absent": "there is no folder",
        "file": "there is no folder",
        "empty": "has no class folders",
        "flat": "has no class folders",
        "hollow": r"no .png, .jpg, .jpeg, .* file in .*nothing_here",
    }
    with pytest.raises(DataError, match=expected[kind]):
        open_source(tasks(folder), seed=0, cache=tmp_path / "cache")


def test_a_changed_image_is_read_again(pictures: Path, tmp_path: Path) -> None:
    before = open_source(tasks(pictures), seed=0, cache=tmp_path / "cache").episode("train", 0).episode.query_x
    for file in pictures.glob("*/*.png"):
        Image.new("L", (8, 8), 255).save(file)
    after = open_source(tasks(pictures), seed=0, cache=tmp_path / "cache").episode("train", 0).episode.query_x
    assert not (before == after).all()


def test_the_split_of_a_class_does_not_follow_the_seed(pictures: Path, tmp_path: Path) -> None:
    sources = [open_source(tasks(pictures), seed=seed, cache=tmp_path / "cache") for seed in (0, 1)]
    assert sources[0].table.names == sources[1].table.names  # type: ignore[attr-defined]


def test_what_is_left_out_is_told_with_counts_by_reason(pictures: Path, tmp_path: Path) -> None:
    for number in range(3):
        (pictures / f"class{number}" / "phone.HEIC").write_bytes(b"")
    (pictures / "class1" / "notes.txt").write_text("")
    (pictures / "class1" / "deeper").mkdir()
    (pictures / "class1" / "deeper" / "1.png").write_bytes(b"")
    (pictures / "loose.png").write_bytes(b"")
    for hidden in (".DS_Store", "class2/._1.png", "class2/Thumbs.db", ".cache/1.png"):
        (pictures / hidden).parent.mkdir(exist_ok=True)
        (pictures / hidden).write_bytes(b"")
    notes = open_source(tasks(pictures), seed=0, cache=tmp_path / "cache").notes
    assert notes[0].startswith("4 files left out: 3 .heic, 1 .txt (no format that is read: .png")
    assert notes[1:] == ("2 files left out: images that are not directly inside a class folder",)


def test_nothing_is_told_where_all_is_used(pictures: Path, tmp_path: Path) -> None:
    assert open_source(tasks(pictures), seed=0, cache=tmp_path / "cache").notes == ()


def test_a_file_of_several_pictures_is_told(pictures: Path, tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), shade) for shade in (0, 100)]
    pages[0].save(pictures / "class0" / "scan.tiff", save_all=True, append_images=pages[1:])
    pages[0].save(pictures / "class0" / "one.tiff")
    for _ in range(2):  # built, then from the cache
        (note,) = open_source(tasks(pictures), seed=0, cache=tmp_path / "cache").notes
        assert note.startswith("1 files hold several pictures") and note.endswith("scan.tiff")
