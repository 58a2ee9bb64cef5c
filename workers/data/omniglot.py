"""Omniglot: 1,623 handwritten characters of 50 alphabets, 20 drawers each.

Lake, Salakhutdinov and Tenenbaum 2015, https://doi.org/10.1126/science.aab3050. Images are 28x28, ink = 1, made by
Lanczos from the 105x105 originals.
"""

import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np

from metaloom.learners.domains import Added
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Queries
from metaloom.workers.data.base import SOURCES, SPLITS, DataError
from metaloom.workers.data.class_table import ClassTable, spans_of
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.data.store import Arrays, cached, fetch, file_facts
from metaloom.workers.data.user_files import read_picture

SIZE = 28
PARTS = ("images_background", "images_evaluation")
MIRROR = "https://github.com/brendenlake/omniglot/raw/master/python"
SHA256 = {
    "images_background.zip": "ad41ab679c8b5d90b271ef46be6987cc81211774a695c29dcc5367b2b26ee640",
    "images_evaluation.zip": "1f61a8f3366785b057fc117d9228e78a16e3d976c8953b2a10fcc74cf0609cee",
}
# Vinyals et al. 2016, https://arxiv.org/abs/1606.04080: 1,028 / 172 / 423 characters. Their files list each character:
# whole alphabets, except for Gurmukhi, which is cut after its 41st.
VINYALS_VALIDATION = frozenset({"Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)"})
VINYALS_TEST = frozenset({"Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian", "Old_Church_Slavonic_(Cyrillic)"})
VINYALS_TEST |= {"Oriya", "Sylheti", "Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG"}
VINYALS_CUT = {"Gurmukhi": 41}


@dataclass(frozen=True)
class OmniglotTasks(FewShotSettings):
    """Omniglot's 1,623 handwritten characters, from a local file or a checked download.

    Attributes:
        path: An .npz file, the original image folders, or their zips; None looks in the cache.
        download: Fetch the images when they are not found.
        split: Vinyals' 1,028/172/423 characters, or Lake's background/evaluation alphabets.
        within: `alphabet` draws the characters of an episode from one alphabet.
        rotations: Rotated characters (by 90, 180, 270 degrees) count as classes of their own.
    """

    path: str | None = None
    download: bool = False
    split: Literal["vinyals", "lake"] = "vinyals"
    rotations: bool = True
    within: Annotated[Literal["alphabet"] | None, Added()] = None
    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 15


@SOURCES.register("omniglot")
class Omniglot(FewShotSource):
    """Classes are characters; with ``rotations`` each quarter turn of a character is a class of its split."""

    name = "omniglot"
    brightest = 255.0
    packages = ("pillow",)
    Config = OmniglotTasks

    @classmethod
    def open(cls, config: OmniglotTasks, *, seed: int, cache: Path) -> Self:
        """Map the images; read the originals first if they have not been read."""
        origin = _find(config, cache)
        key = {"source": cls.name, "files": [file_facts(path) for path in origin]}
        load = _load_npz if len(origin) == 1 else _load_originals
        arrays = cached(cache, cls.name, key, lambda: load(origin))
        spans, evaluation = arrays.about["spans"], set(arrays.about["evaluation"])
        splits: dict[str, list[str]] = {split: [] for split in SPLITS}
        for name in spans:
            splits[split_of(name, config.split, evaluation=name in evaluation)].append(name)
        alphabets = None if config.within is None else {name: name.split("/")[0] for name in spans}
        table = ClassTable.from_splits(splits, spans, alphabets)
        table = table.with_rotations() if config.rotations else table
        return cls(arrays, table, config, seed=seed, scale=cls.brightest, inputs=(1, SIZE, SIZE))


def split_of(name: str, split: str, *, evaluation: bool) -> str:
    """Return the split (``vinyals``'s or ``lake``'s) that a character, such as ``Greek/character01``, belongs to.

    Args:
        evaluation: Whether the character is of Lake's evaluation set.
    """
    alphabet, character = name.split("/")
    if split == "lake" and evaluation:
        return "test"
    if alphabet in VINYALS_VALIDATION:  # also for Lake's split, which has no validation part of its own
        return "validation"
    if split == "lake":
        return "train"
    number = int(character.removeprefix("character"))
    return "test" if alphabet in VINYALS_TEST or number > VINYALS_CUT.get(alphabet, number) else "train"


def _find(config: OmniglotTasks, cache: Path) -> list[Path]:
    """Return one .npz file, or the background and evaluation parts (folders or zips)."""
    if config.path is not None:
        given = Path(config.path)
        if given.suffix == ".npz" and given.is_file():
            return [given]
        folder = given.parent if given.stem in PARTS else given
        parts = [[p for p in (folder / part, folder / f"{part}.zip") if p.exists()] for part in PARTS]
        if all(parts):
            return [found[0] for found in parts]
        raise DataError(
            f"tasks.path: {given} is neither an .npz file nor a folder with {' and '.join(PARTS)} "
            "(folders or .zip files)"
        )
    if config.download:
        folder = cache / "downloads" / "omniglot"
        return [fetch(f"{MIRROR}/{name}", sha256, folder) for name, sha256 in SHA256.items()]
    raise DataError(
        "tasks.path: omniglot needs an .npz file, or a folder with images_background and images_evaluation; "
        "give it, or set tasks.download: true"
    )


def _load_npz(origin: list[Path]) -> Arrays:
    """Read the packed layout: ``images28``, ``class_id``, ``class_names``, ``evaluation``; raises DataError."""
    (path,) = origin
    try:
        with np.load(path, allow_pickle=False) as file:
            images, ids = file["images28"], file["class_id"].astype(np.int64)
            names, evaluation = [str(name) for name in file["class_names"]], file["evaluation"]
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an Omniglot file ({error})") from error
    if images.shape != (len(ids), SIZE, SIZE) or images.dtype != np.uint8 or len(evaluation) != len(ids):
        raise DataError(f"{path}: images28 is {images.dtype} {images.shape}; uint8 [{len(ids)}, 28, 28] was expected")
    if len(ids) == 0 or ids.min() < 0 or ids.max() >= len(names):
        raise DataError(f"{path}: class_id does not fit the {len(names)} class_names")
    order = np.argsort(ids, kind="stable")
    sizes = dict(zip(names, np.bincount(ids, minlength=len(names)).tolist(), strict=True))
    evaluated = sorted({names[i] for i in ids[evaluation != 0]})
    return Arrays({"x": images[order]}, {"spans": spans_of(sizes), "evaluation": evaluated})


def _load_originals(origin: list[Path]) -> Arrays:
    """Read the published PNG files, ``<part>/<alphabet>/<character>/*.png``."""
    images, sizes, evaluated = [], Counter[str](), dict[str, None]()
    for part, path in zip(PARTS, origin, strict=True):
        for member, content in _members(path):
            name = "/".join(member.split("/")[-3:-1])
            black = read_picture(content, size=SIZE, color=False, where=f"{path}: {member}")[0]
            images.append(255 - black)
            sizes[name] += 1
            if part == PARTS[1]:
                evaluated[name] = None
    if not images:
        raise DataError(f"tasks.path: no <alphabet>/<character>/*.png in {' or '.join(map(str, origin))}")
    return Arrays({"x": np.stack(images)}, {"spans": spans_of(sizes), "evaluation": list(evaluated)})


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each drawing of a folder or zip, characters one after another."""
    if path.is_dir():
        for file in sorted(path.glob("*/*/*.png")):
            yield str(file.relative_to(path.parent)), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            drawings = [n for n in archive.namelist() if n.endswith(".png") and not n.startswith("__MACOSX")]
            for name in sorted(drawings):
                yield name, archive.read(name)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: the zip file is damaged ({error})") from error
