"""The user's own images: one folder per class, in one folder or in folders of the splits."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.domains import Added, Bounds, Int
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Fraction, Queries, Split, TaskSettings
from metaloom.workers.data import sampler, splits
from metaloom.workers.data.base import SOURCES, DataError, some
from metaloom.workers.data.enough import LEAVE_OUT, usable
from metaloom.workers.data.picture_files import Pictures, class_files, read_all
from metaloom.workers.data.store import Arrays, cached
from metaloom.workers.data.user_files import holds_several, is_hidden, left_out

_LOG = logging.getLogger("metaloom.data")


@dataclass(frozen=True)
class FolderSettings(TaskSettings):
    """How the user's own images are read.

    Attributes:
        path: The folder that holds the class folders, or the folders ``train``, ``val`` (or ``validation``) and
            ``test`` with each split's class folders.
        size: Images are resized to size x size.
        color: Three channels instead of one.
        on_error: What to do with an unreadable image: refuse to start, or skip it and say so.
    """

    path: str
    size: Annotated[int, Int(4, 512), Bounds(at_least=4)] = 28
    color: bool = False
    on_error: Literal["refuse", "skip"] = "refuse"


@dataclass(frozen=True)
class FolderTasks(FewShotSettings, FolderSettings):
    """The user's own images: one folder per class, split into disjoint classes.

    Attributes:
        validation_fraction: Fraction of the classes for meta-validation.
        test_fraction: Fraction of the classes for the test.
        within: `parent_folder` draws the classes of an episode from one folder of class folders: the class folders
            then stand one level deeper, and a class is called ``FOLDER/CLASS``.
    """

    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 15
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2
    split: Split = None
    within: Annotated[Literal["parent_folder"] | None, Added()] = None


@SOURCES.register("folder")
class Folder(sampler.FewShotSource):
    """Classes are the folder's subfolders; without splits of one's own, a class's split depends on the names alone."""

    name = "folder"
    brightest = 255.0
    packages = ("pillow",)
    Config = FolderTasks

    @classmethod
    def open(cls, config: FolderTasks, *, seed: int, cache: Path) -> Self:
        """Map the images; read them first if they, or the settings, have changed."""
        found = find_classes(
            Path(config.path), grouped=config.within is not None, may_be_empty=config.on_too_few == LEAVE_OUT
        )
        files = found.files
        lists, notes = _splits(found, config)
        is_own = bool(found.splits) or config.split is not None
        spans = sampler.spans_of({name: len(paths) for name, paths in files.items()})
        groups = {name: parent_of(name) for name in files} if config.within else None
        table = sampler.ClassTable.from_splits(lists, spans, groups, by_fraction=not is_own)
        usable(cls.name, table, config)
        arrays = read_images(files, config, cache)
        table = sampler.ClassTable.from_splits(lists, arrays.about["spans"], groups, by_fraction=not is_own)
        source = cls(arrays, table, config, seed=seed, scale=cls.brightest, inputs=arrays["x"].shape[1:])
        source.notes += (*notes, *folder_notes(arrays, files, Path(config.path)))
        if is_own:
            source.digest = splits.digest_of(source.digest, lists)
        return source


@dataclass(frozen=True)
class FoundClasses:
    """The image files of each class; with the classes of each split where their folders stand in folders of splits."""

    files: dict[str, Pictures]
    splits: splits.Lists


def parent_of(name: str) -> str:
    """Return the folder that a grouped class stands in."""
    return name.partition("/")[0]


def _grouped_files(folder: Path, *, may_be_empty: bool) -> dict[str, Pictures]:
    """Return the image files of each class folder in the folders of a folder, named ``FOLDER/CLASS``."""
    parents = sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    if not parents:
        raise DataError(f"tasks.path: {folder} has no folders of class folders, as tasks.within: parent_folder needs")
    found = {parent.name: class_files(parent, may_be_empty=may_be_empty) for parent in parents}
    return {f"{parent}/{name}": files for parent, classes in found.items() for name, files in classes.items()}


def find_classes(folder: Path, *, grouped: bool = False, may_be_empty: bool = False) -> FoundClasses:
    """Find the class folders of a folder, or of the folders of splits in it; one level deeper where ``grouped``.

    Raises DataError where there are none, where one is empty, or where two splits have a class of the same name.
    """
    if not folder.is_dir():
        raise DataError(f"tasks.path: there is no folder {folder}")
    read = partial(_grouped_files if grouped else class_files, may_be_empty=may_be_empty)
    by_split = {split: read(path) for split, path in splits.split_folders(folder).items()}
    if not by_split:
        return FoundClasses(read(folder), {})
    times = Counter(name for classes in by_split.values() for name in classes)
    if shared := [name for name, count in times.items() if count > 1]:
        raise DataError(
            f"tasks.path: {folder}: {len(shared)} classes are in folders of two splits ({some(shared)}); few-shot "
            "episodes need splits with classes of their own"
        )
    files = {name: paths for classes in by_split.values() for name, paths in classes.items()}
    return FoundClasses(files, {split: list(classes) for split, classes in by_split.items()})


def _splits(found: FoundClasses, config: FolderTasks) -> tuple[splits.Lists, tuple[str, ...]]:
    """Return the classes of each split, and notes about classes that are left out."""
    names = list(found.files)
    if found.splits and config.split is not None:
        raise DataError(f"tasks.split: the folders of {config.path} are the splits; remove it")
    if config.split is not None:
        return splits.chosen(splits.class_lists(config.split), names, config.path)
    fractions = config.validation_fraction, config.test_fraction
    if config.within and not found.splits:
        return sampler.split_groups({name: parent_of(name) for name in names}, *fractions), ()
    return found.splits or sampler.split_classes(names, *fractions), ()


def folder_notes(arrays: Arrays, files: Mapping[str, Pictures], folder: Path) -> Iterator[str]:
    """Say which files of a folder are not used, and what else the user should know."""
    if skipped := arrays.about["skipped"]:
        yield f"{len(skipped)} unreadable images skipped: {some(skipped)}"
    yield from arrays.remarks
    yield from left_out(folder, chain.from_iterable(pictures.texts() for pictures in files.values()))


def read_images(files: dict[str, Pictures], config: FolderSettings, cache: Path, source: str = "folder") -> Arrays:
    """Map the images of each class, uint8 ``x`` [images, channels, size, size] in its order; read changed ones.

    Args:
        files: The image files of each class.
        config: The settings.
        cache: Where the images are kept.
        source: The name that they are kept under: other classes of the same files need another one.
    """
    key = {
        "source": source,
        "reader": 2,
        "files": [pictures.facts for pictures in files.values()],
        "settings": [config.size, config.color, config.on_error],
    }
    return cached(cache, source, key, lambda: _load(files, config))


def _load(files: dict[str, Pictures], config: FolderSettings) -> Arrays:
    """Decode every image; raises DataError that names all unreadable ones if ``on_error`` is ``refuse``."""
    images: list[NDArray[np.uint8]] = []
    sizes, problems, several = dict.fromkeys(files, 0), list[str](), list[str]()
    for name, path, image in read_all(files, size=config.size, color=config.color):
        if isinstance(image, DataError):
            problems.append(str(image))
            continue
        images.append(image)
        sizes[name] += 1
        several += [str(path)] if holds_several(path) else []
    if problems and config.on_error == "refuse":
        raise DataError(
            f"tasks.path: {len(problems)} of {len(images) + len(problems)} images cannot be read "
            f"(tasks.on_error: skip leaves them out):\n" + "\n".join(problems)
        )
    for problem in problems:
        _LOG.info("skipped %s", problem)
    shape = (0, 3 if config.color else 1, config.size, config.size)
    x = np.stack(images) if images else np.empty(shape, dtype=np.uint8)
    told = f"{len(several)} files hold several pictures (pages, frames), and the first one is used: {some(several)}"
    about = {"spans": sampler.spans_of(sizes), "skipped": problems}
    return Arrays({"x": x}, about, remarks=(told,) if several else ())
