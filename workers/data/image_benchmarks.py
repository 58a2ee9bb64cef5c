"""mini-ImageNet and CUB with their published splits, from the user's own copy of the images."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from metaloom.learners.domains import Bounds, Int
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Queries
from metaloom.workers.data import published, sampler
from metaloom.workers.data.base import SOURCES, SPLITS, DataError, some
from metaloom.workers.data.enough import usable
from metaloom.workers.data.folder import FolderSettings, folder_notes, read_images
from metaloom.workers.data.picture_files import Pictures, class_files, pictures_of
from metaloom.workers.data.splits import Lists
from metaloom.workers.data.user_files import is_hidden

WORDNET_ID = re.compile(r"n\d{8}")
CUB_CLASSES = 200


@dataclass(frozen=True)
class BenchmarkTasks(FewShotSettings, FolderSettings):
    """A benchmark of images with its published split.

    Attributes:
        path: The folder of the images, as it was extracted.
        size: Images are resized to size x size.
        color: Three channels instead of one.
    """

    size: Annotated[int, Int(4, 512), Bounds(at_least=4)] = 84
    color: bool = True
    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 15


@dataclass(frozen=True)
class MiniImageNetTasks(BenchmarkTasks):
    """mini-ImageNet, 100 classes of 600 images, with the split of Ravi and Larochelle 2017."""


@dataclass(frozen=True)
class CubTasks(BenchmarkTasks):
    """CUB-200-2011, 200 species of birds, with the split of Chen et al. 2019."""


class Benchmark(sampler.FewShotSource):
    """Class folders, divided by published lists. A subclass finds the classes, and says their split."""

    brightest = 255.0
    packages = ("pillow",)
    wanted: ClassVar[str]

    @classmethod
    @abstractmethod
    def find(cls, folder: Path) -> dict[str, Pictures]:
        """Return the image files of each class."""

    @classmethod
    @abstractmethod
    def lists(cls, names: Iterable[str]) -> Lists:
        """Return the classes of each split."""

    @classmethod
    def open(cls, config: BenchmarkTasks, *, seed: int, cache: Path) -> Self:
        """Map the images; read them first if they, or the settings, have changed."""
        folder = Path(config.path)
        if not folder.is_dir():
            raise DataError(f"tasks.path: there is no folder {folder}; {cls.name} needs {cls.wanted}")
        found = cls.find(folder)
        lists = cls.lists(found)
        check_complete(cls.name, folder, found, lists, cls.wanted)
        files = {name: found[name] for split in SPLITS for name in lists[split]}
        spans = sampler.spans_of({name: len(pictures) for name, pictures in files.items()})
        usable(cls.name, sampler.ClassTable.from_splits(lists, spans), config)
        arrays = read_images(files, config, cache, cls.name)
        table = sampler.ClassTable.from_splits(lists, arrays.about["spans"])
        source = cls(arrays, table, config, seed=seed, scale=cls.brightest, inputs=arrays["x"].shape[1:])
        source.notes += tuple(folder_notes(arrays, files, folder))
        return source


def check_complete(source: str, path: Path, found: Iterable[str], lists: Mapping[str, list[str]], wanted: str) -> None:
    """Refuse data without all classes of a published split; raises DataError."""
    names, known = [name for split in SPLITS for name in lists[split]], set(found)
    if missing := [name for name in names if name not in known]:
        raise DataError(
            f"tasks.path: {path} lacks {len(missing)} of the {len(names)} classes of {source} ({some(missing)}); give "
            f"{wanted}"
        )


def folders_below(folder: Path, depth: int = 3) -> Iterator[Path]:
    """Yield a folder and those below it, to a depth."""
    yield folder
    if depth:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not is_hidden(path.name):
                yield from folders_below(path, depth - 1)


@SOURCES.register("mini_imagenet")
class MiniImageNet(Benchmark):
    """100 classes of ImageNet; a class is a WordNet id."""

    name = "mini_imagenet"
    Config = MiniImageNetTasks
    wanted = (
        "a folder with class folders (n01532829, ...), with train, val and test folders of such, or with images named "
        "n0153282900000005.jpg, extracted: no pickle is read"
    )

    @classmethod
    def find(cls, folder: Path) -> dict[str, Pictures]:
        """Return the images of class folders at any depth down to three; else of file names that begin with the id."""
        found: dict[str, Pictures] = {}
        for path in folders_below(folder):
            if WORDNET_ID.fullmatch(path.name):
                if path.name in found:
                    raise DataError(f"tasks.path: {folder} has two folders of class {path.name}; keep one")
                found[path.name] = pictures_of(path)
        return found or cls._by_name(folder)

    @classmethod
    def _by_name(cls, folder: Path) -> dict[str, Pictures]:
        for path in folders_below(folder):
            pictures = pictures_of(path)
            ids = [match[0] for name in pictures.names if (match := WORDNET_ID.match(name))]
            if ids:
                return {one: pictures.named(one) for one in sorted(set(ids))}
        return {}

    @classmethod
    def lists(cls, names: Iterable[str]) -> Lists:
        """Return Ravi and Larochelle's split."""
        return published.mini_imagenet()


@SOURCES.register("cub")
class Cub(Benchmark):
    """200 species of birds; a class is a folder such as ``001.Black_footed_Albatross``."""

    name = "cub"
    Config = CubTasks
    wanted = "CUB_200_2011, or its folder images with the 200 class folders (001.Black_footed_Albatross, ...)"

    @classmethod
    def find(cls, folder: Path) -> dict[str, Pictures]:
        """Return the images of the class folders, in the folder or in one below it."""
        for path in folders_below(folder, 2):
            if any(one.is_dir() and re.match(r"\d{3}\.", one.name) for one in path.iterdir()):
                found = {name: files for name, files in class_files(path).items() if re.match(r"\d{3}\.", name)}
                numbers = {int(name[:3]) for name in found}
                if numbers != set(range(1, CUB_CLASSES + 1)):
                    lacking = sorted(set(range(1, CUB_CLASSES + 1)) - numbers)
                    raise DataError(
                        f"tasks.path: {path} has {len(found)} of the {CUB_CLASSES} classes (no folder begins with "
                        f"{some([f'{number:03}.' for number in lacking])}); the split needs all"
                    )
                return found
        raise DataError(f"tasks.path: {folder} has no class folders of CUB; give {cls.wanted}")

    @classmethod
    def lists(cls, names: Iterable[str]) -> Lists:
        """Return the split of Chen et al."""
        return published.cub(names)
