"""Fashion-MNIST, 70,000 pictures of clothes (Xiao et al. 2017, https://arxiv.org/abs/1708.07747), as one task.

The official test set is the test split; meta and validation samples are taken out of the official training set.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metaloom.search_spaces.sections.tasks import Batch
from metaloom.workers.data.base import SOURCES, DataError
from metaloom.workers.data.single_task import SingleTaskSettings, SingleTaskSource, divide
from metaloom.workers.data.store import Arrays, cached, fetch, file_facts

MIRROR = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
SHA256 = {
    "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
USUAL_PLACES = (Path("/usr/share/datasets/fashion-mnist"),)  # Debian's dataset-fashion-mnist
SIZE = 28


@dataclass(frozen=True)
class FashionMNISTTasks(SingleTaskSettings):
    """Fashion-MNIST as one task, from local IDX files or a checked download.

    Attributes:
        path: Folder with the four IDX files (plain or .gz); None looks in the usual places.
        download: Fetch the files when they are not found.
        flat: 784 features instead of an image.
    """

    meta_batch: Batch = 100
    queries: Batch = 100
    meta_size: Batch = 1000
    validation_size: Batch = 5000
    path: str | None = None
    download: bool = False
    flat: bool = False


@SOURCES.register("fashion_mnist")
class FashionMNIST(SingleTaskSource):
    """Ten classes of 28x28 grey images."""

    name = "fashion_mnist"
    brightest = 255.0
    Config = FashionMNISTTasks

    @classmethod
    def open(cls, config: FashionMNISTTasks, *, seed: int, cache: Path) -> Self:
        """Map the images; read the IDX files first if they have not been read."""
        files = _find(config, cache)
        key = {"source": cls.name, "files": [file_facts(path) for path in files]}
        arrays = cached(cache, cls.name, key, lambda: _load(files))
        official = arrays.about["train"]
        parts = divide(official, {"meta": config.meta_size, "validation": config.validation_size}, cls.name)
        parts["test"] = np.arange(official, len(arrays["x"]))
        inputs = (SIZE * SIZE,) if config.flat else (1, SIZE, SIZE)
        source = cls(arrays["x"], arrays["y"], parts, config, seed=seed, scale=cls.brightest, inputs=inputs)
        source.digest = arrays.digest
        return source


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, plain or gzipped; raises DataError if it is none, or cut short."""
    content = path.read_bytes()
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: the gzip file is damaged ({error})") from error
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path}: not an IDX file of bytes (it begins with {content[:4].hex(' ')}, not 00 00 08)")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").astype(int).tolist())
    values = np.frombuffer(content, dtype=np.uint8, offset=min(start, len(content)))
    if len(shape) != content[3] or values.size != np.prod(shape, dtype=np.int64):
        raise DataError(f"{path}: its header promises {shape} bytes, but {values.size} follow: cut short or damaged")
    return values.reshape(shape)


def _find(config: FashionMNISTTasks, cache: Path) -> list[Path]:
    """Return the four files: train images and labels, test images and labels."""
    places = (Path(config.path),) if config.path is not None else USUAL_PLACES
    for place in places:
        existing = [[path for path in (place / name, place / f"{name}.gz") if path.is_file()] for name in SHA256]
        if all(existing):
            return [paths[0] for paths in existing]
    if config.download:
        folder = cache / "downloads" / "fashion_mnist"
        return [fetch(f"{MIRROR}/{name}.gz", sha256, folder) for name, sha256 in SHA256.items()]
    where = " or ".join(str(place) for place in places)
    raise DataError(
        f"tasks.path: fashion_mnist needs {', '.join(SHA256)} (plain or .gz), and {where} lacks some. Install Debian's "
        f"dataset-fashion-mnist, give tasks.path, or set tasks.download: true"
    )


def _load(files: list[Path]) -> Arrays:
    x, y, test_x, test_y = map(read_idx, files)
    for images, labels, path in ((x, y, files[0]), (test_x, test_y, files[2])):
        if images.shape[1:] != (SIZE, SIZE) or labels.shape != images.shape[:1]:
            raise DataError(f"{path}: {images.shape} images, {labels.shape} labels; [n, 28, 28] and [n] were expected")
    labels = np.concatenate([y, test_y]).astype(np.int64)
    return Arrays({"x": np.concatenate([x, test_x]), "y": labels}, {"train": len(x)})
