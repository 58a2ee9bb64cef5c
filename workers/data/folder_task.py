"""The user's own images as one labelled data set: class folders, or folders of the parts with class folders in them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from metaloom.search_spaces.sections.tasks import UserTaskSettings
from metaloom.workers.data.base import ONE_TASK_SOURCES, DataError
from metaloom.workers.data.folder import FolderSettings, folder_notes, read_images
from metaloom.workers.data.picture_files import class_files
from metaloom.workers.data.store import Arrays
from metaloom.workers.data.user_files import is_hidden
from metaloom.workers.data.user_single_task import UserTask, digest_with, divide_examples, part_called, stored


@dataclass(frozen=True)
class FolderAsOneTask(UserTaskSettings, FolderSettings):
    """The user's own images as one labelled data set: one folder per class.

    Attributes:
        path: The folder that holds the class folders; or folders named ``train``, ``meta``, ``validation`` (or
            ``val``) and ``test``, with class folders in each. Parts without a folder are taken out of the training
            images, by their fractions.
        flat: Rows of pixels instead of images.
    """

    flat: bool = False


@ONE_TASK_SOURCES.register("folder")
class FolderTask(UserTask):
    """Batches of images."""

    name = "folder"
    brightest = 255.0
    packages = ("pillow",)
    Config = FolderAsOneTask

    @classmethod
    def open(cls, config: FolderAsOneTask, *, seed: int, cache: Path) -> Self:
        """Map the images, and divide them; read them first if they, or the settings, have changed."""
        root = Path(config.path)
        files = {
            f"{part}/{name}": paths
            for part, folder in part_folders(root).items()
            for name, paths in class_files(folder).items()
        }
        images = read_images(files, config, cache, "folder_task")
        arrays = _divided(images, config)
        shape = images["x"].shape[1:]
        inputs = (int(np.prod(shape)),) if config.flat else shape
        source = cls(arrays, config, seed=seed, scale=cls.brightest, inputs=inputs)
        source.notes = (*source.notes, *folder_notes(images, files, root))
        return source


def part_folders(folder: Path) -> dict[str, Path]:
    """Return the folders of the parts, by the part; under no name the folder itself, where its subfolders are classes.

    Raises:
        DataError: There is no such folder, it has two folders for one part, or none for training.
    """
    if not folder.is_dir():
        raise DataError(f"tasks.path: there is no folder {folder}")
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
    named = [(part_called(path.name), path) for path in below]
    if not below or not all(part and any(one.is_dir() for one in path.iterdir()) for part, path in named):
        return {"": folder}
    found = {part: path for part, path in named if part}
    names = ", ".join(path.name for path in below)
    if len(found) < len(below):
        raise DataError(f"tasks.path: {folder} has two folders for one part ({names})")
    if "train" not in found:
        raise DataError(f"tasks.path: {folder} has folders of parts ({names}), and none for training: name it train")
    return found


def _divided(images: Arrays, config: FolderAsOneTask) -> Arrays:
    """Return the images with their classes, and the rows of each part."""
    spans = {name: span for name, span in images.about["spans"].items() if span[1]}
    classes = sorted({name.partition("/")[2] for name in spans})
    y, given = np.zeros(len(images["x"]), dtype=np.int64), np.full(len(images["x"]), "", dtype=object)
    for name, (start, count) in spans.items():
        part, _, label = name.partition("/")
        y[start : start + count], given[start : start + count] = classes.index(label), part
    parts = divide_examples(y, config, None if "" in given else given.tolist())
    arrays = stored({"x": images["x"], "y": y}, parts, {"classes": classes})
    return replace(arrays, digest=digest_with(images.digest, parts))
