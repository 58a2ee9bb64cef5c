"""CIFAR-FS and FC100: the 100 classes of CIFAR-100 with a published split, from the user's own copy.

Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html: 32x32 colour images, 600 of each class.
"""

import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.domains import Added
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Queries
from metaloom.workers.data import published, sampler
from metaloom.workers.data.base import SOURCES, DataError
from metaloom.workers.data.image_benchmarks import check_complete
from metaloom.workers.data.splits import Lists
from metaloom.workers.data.store import Arrays, cached, file_facts

SIZE = 32
PIXELS = 3 * SIZE * SIZE
NAMES, PARTS = "fine_label_names.txt", ("train.bin", "test.bin")
WANTED = (
    "CIFAR-100's binary version (cifar-100-binary.tar.gz, or its folder with train.bin, test.bin and "
    "fine_label_names.txt), or an .npz file with images [n, 32, 32, 3] of bytes, labels [n] and class_names. The "
    "Python version is a pickle, which is not read"
)
Images = NDArray[np.uint8]


@dataclass(frozen=True)
class CifarTasks(FewShotSettings):
    """CIFAR-100 as a few-shot benchmark.

    Attributes:
        path: CIFAR-100's binary version, the archive or its folder, or an .npz file with ``images``, ``labels`` and
            ``class_names``.
        within: `superclass` draws the classes of an episode from one of the 20 superclasses.
    """

    path: str
    ways: WaysOrRange = 5
    shots: ShotsOrRange = 1
    queries: Queries = 15
    within: Annotated[Literal["superclass"] | None, Added()] = None


@dataclass(frozen=True)
class CifarFSTasks(CifarTasks):
    """CIFAR-FS, classes of CIFAR-100 divided at random: Bertinetto et al. 2019."""


@dataclass(frozen=True)
class FC100Tasks(CifarTasks):
    """FC100, CIFAR-100 divided by whole superclasses: Oreshkin et al. 2018."""


class Cifar(sampler.FewShotSource):
    """32x32 colour images; a class has its name in CIFAR-100."""

    brightest = 255.0
    lists: ClassVar[Any]

    @classmethod
    def open(cls, config: CifarTasks, *, seed: int, cache: Path) -> Self:
        """Map the images; read the files first if they have not been read."""
        path = Path(config.path)
        files = _files(path)
        arrays = cached(cache, "cifar100", {"files": [file_facts(one) for one in files]}, lambda: _load(files))
        lists: Lists = cls.lists()
        check_complete(cls.name, path, arrays.about["spans"], lists, WANTED)
        groups = published.SUPERCLASS_OF if config.within else None
        table = sampler.ClassTable.from_splits(lists, arrays.about["spans"], groups)
        source = cls(arrays, table, config, seed=seed, scale=cls.brightest, inputs=(3, SIZE, SIZE))
        each = len(arrays["x"]) // len(arrays.about["spans"])
        source.notes += (f"{each} images a class; CIFAR-100 has 600",) if each < 600 else ()
        return source


@SOURCES.register("cifar_fs")
class CifarFS(Cifar):
    """Bertinetto's 64, 16 and 20 classes."""

    name = "cifar_fs"
    Config = CifarFSTasks
    lists = staticmethod(published.cifar_fs)


@SOURCES.register("fc100")
class FC100(Cifar):
    """Oreshkin's 60, 20 and 20 classes, of superclasses that no two splits share."""

    name = "fc100"
    Config = FC100Tasks
    lists = staticmethod(published.fc100)


def _files(path: Path) -> list[Path]:
    """Return the .npz file, the archive, or the names and the parts of a folder."""
    if path.is_file() and path.name.endswith((".npz", ".tar.gz", ".tgz", ".tar")):
        return [path]
    for folder in (path, path / "cifar-100-binary"):
        found = [folder / part for part in PARTS if (folder / part).is_file()]
        if found and (folder / NAMES).is_file():
            return [folder / NAMES, *found]
    raise DataError(f"tasks.path: {path} is no copy of CIFAR-100; give {WANTED}")


def _load(files: list[Path]) -> Arrays:
    """Read the images, those of a class one after another; raises DataError."""
    path = files[0]
    if path.suffix == ".npz":
        images, labels, names = _read_npz(path)
    elif len(files) == 1:
        images, labels, names = _read_archive(path)
    else:
        names = path.read_text(encoding="utf-8").split()
        images, labels = _records([(str(part), part.read_bytes()) for part in files[1:]])
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= len(names):
        raise DataError(f"{path}: its labels do not fit its {len(names)} class names")
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=len(names)).tolist()
    spans = sampler.spans_of(dict(zip(names, sizes, strict=True)))
    return Arrays({"x": np.ascontiguousarray(images[order])}, {"spans": spans})


def _read_npz(path: Path) -> tuple[Images, NDArray[np.int64], list[str]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            images, labels, names = file["images"], file["labels"].astype(np.int64), file["class_names"].tolist()
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a file of CIFAR-100 ({error}); give {WANTED}") from error
    if images.shape != (len(labels), SIZE, SIZE, 3) or images.dtype != np.uint8:
        raise DataError(
            f"{path}: images is {images.dtype} {images.shape}; uint8 [{len(labels)}, 32, 32, 3] is expected"
        )
    return images.transpose(0, 3, 1, 2), labels, [str(name) for name in names]


def _read_archive(path: Path) -> tuple[Images, NDArray[np.int64], list[str]]:
    parts, names = [], ""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                base = Path(member.name).name
                if file is not None and base == NAMES:
                    names = file.read().decode("utf-8")
                elif file is not None and base in PARTS:
                    parts.append((f"{path}: {member.name}", file.read()))
    except (tarfile.TarError, OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the archive cannot be read ({error}); give {WANTED}") from error
    if not names or not parts:
        raise DataError(f"{path}: no {NAMES} or no {' or '.join(PARTS)} in it; give {WANTED}")
    return *_records(parts), names.split()


def _records(parts: list[tuple[str, bytes]]) -> tuple[Images, NDArray[np.int64]]:
    """Take records apart: a byte of the superclass, one of the class, and 3,072 of the image, channel by channel."""
    images, labels = [], []
    for name, content in parts:
        if not content or len(content) % (PIXELS + 2):
            raise DataError(f"{name}: {len(content)} bytes are no whole number of {PIXELS + 2}-byte records")
        records = np.frombuffer(content, dtype=np.uint8).reshape(-1, PIXELS + 2)
        labels.append(records[:, 1].astype(np.int64))
        images.append(records[:, 2:].reshape(-1, 3, SIZE, SIZE))
    return np.concatenate(images), np.concatenate(labels)
