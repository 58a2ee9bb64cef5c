"""Finds and reads the data sets of a time-series archive: a folder, one ``.npz`` file, or those that aeon ships."""

import difflib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.given_arrays import distinct
from metaloom.workers.data.labels import as_known
from metaloom.workers.data.series_files import ENDINGS, SeriesFile, Values, read_series
from metaloom.workers.data.store import file_facts

PARTS = ("TRAIN", "TEST")
WANTED = (
    "a folder of the archive's data sets (NAME/NAME_TRAIN.ts and NAME_TEST.ts, or .tsv), or an .npz file with the "
    "arrays NAME/X_train, NAME/y_train, NAME/X_test and NAME/y_test"
)


@dataclass(frozen=True)
class SeriesSet:
    """One data set, as it is given: the archive's training series, then its test series.

    Attributes:
        name: The set's.
        series: Each [channels, length], NaN where a value is missing.
        labels: The class of each series, a number in the order of ``classes``: [n].
        classes: Their labels as they are written: in the order of a .ts file's head, else numbers in their order.
        tested: Whether a series is of the archive's test set: [n].
        levels: Mean and deviation of each series before the file z-scored it: [n, 2]; None where it did not.
    """

    name: str
    series: Sequence[NDArray[Any]]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    tested: NDArray[np.bool_]
    levels: Values | None = None


@dataclass(frozen=True)
class Archive:
    """Where data sets are: one ``.npz`` file, or a folder."""

    path: Path

    @classmethod
    def at(cls, path: str | None) -> "Archive":
        """Return the archive at a path, or the one that aeon ships; raises DataError if there is none."""
        if path is None:
            spec = find_spec("aeon")
            if spec is None or not spec.submodule_search_locations:
                raise DataError(
                    f"tasks.path: ucr needs {WANTED}; or install metaloom[series] for the sets that aeon ships"
                )
            return cls(Path(spec.submodule_search_locations[0]) / "datasets" / "data")
        if not Path(path).exists():
            raise DataError(f"tasks.path: there is no {path}; give {WANTED}")
        return cls(Path(path))

    @property
    def names(self) -> list[str]:
        """The names of its data sets."""
        if self.path.is_file():
            return sorted({key.split("/")[0] for key in self._keys() if key.endswith("/X_train")})
        if not (folders := [one for one in sorted(self.path.iterdir()) if one.is_dir() and _pair(one, one.name)]):
            return [self.path.name] if _pair(self.path, self.path.name) else []
        return [one.name for one in folders]

    def files(self, name: str) -> list[Path]:
        """Return the files of a data set, training first; raises DataError if there is no such set."""
        if name not in (names := self.names):
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            holds = f"it has {len(names)}: {some(names)}" if names else f"it has none; give {WANTED}"
            raise DataError(f"tasks.set: {self.path} has no data set '{name}'{hint} ({holds})")
        if self.path.is_file():
            return [self.path]
        return _pair(self.path / name if (self.path / name).is_dir() else self.path, name)

    def facts(self, names: Sequence[str]) -> list[Any]:
        """Return what tells these versions of the files from others, for a cache's key."""
        return [file_facts(file) for name in names for file in self.files(name)]

    def read(self, name: str) -> SeriesSet:
        """Read a data set; raises DataError, which names the file and the line."""
        files = self.files(name)
        if self.path.is_file():
            return self._read_npz(name)
        train, test = (read_series(file) for file in files)
        return _joined(name, files, train, test)

    def _keys(self) -> list[str]:
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return list(arrays.files)
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"tasks.path: {self.path}: not readable as .npz ({error}); give {WANTED}") from error

    def _read_npz(self, name: str) -> SeriesSet:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                held = {key.partition("/")[2]: file[key] for key in file.files if key.startswith(f"{name}/")}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"tasks.path: {self.path}: {name} cannot be read ({error})") from error
        series, labels, tested = _parts_of(f"tasks.path: {self.path}: {name}", held)
        classes, numbers = distinct(labels)
        levels = None
        if all(f"{one}_{part.lower()}" in held for one in ("mean", "std") for part in PARTS):
            rows = [np.concatenate([held[f"{one}_{part.lower()}"] for part in PARTS]) for one in ("mean", "std")]
            levels = np.stack(rows, 1).astype(np.float64)
        return SeriesSet(name, list(series), numbers, tuple(classes), tested, levels)


def _parts_of(where: str, held: Mapping[str, NDArray[Any]]) -> tuple[Values, NDArray[np.str_], NDArray[np.bool_]]:
    """Return series [n, channels, length], labels [n] as text and whether each is of the test set; raises DataError."""
    parts = []
    for part in ("train", "test"):
        x, y = held.get(f"X_{part}"), held.get(f"y_{part}")
        if x is None or y is None or x.ndim not in (2, 3) or y.shape != (len(x),) or not len(x):
            raise DataError(f"{where}: X_{part} and y_{part} must be series [n, length] and their labels [n]")
        if np.isinf(x).any() or np.isnan(x).reshape(len(x), -1).all(1).any():
            raise DataError(f"{where}: X_{part} has an infinite value, or a series without any value")
        values = x.astype(np.float64)
        parts.append((values[:, None] if x.ndim == 2 else values, y))
    if parts[0][0].shape[1:] != parts[1][0].shape[1:]:
        raise DataError(
            f"{where}: series of shape {parts[0][0].shape[1:]} in X_train and {parts[1][0].shape[1:]} in X_test"
        )
    tested = np.repeat([False, True], [len(y) for _, y in parts])
    labels = np.array([str(one) for _, y in parts for one in y.tolist()])
    return np.concatenate([x for x, _ in parts]), labels, tested


def _pair(folder: Path, name: str) -> list[Path]:
    """Return the two files of a data set in a folder, of one format; empty where there are none."""
    for ending in ENDINGS:
        files = [folder / f"{name}_{part}{ending}" for part in PARTS]
        if all(file.is_file() for file in files):
            return files
    return []


def _joined(name: str, files: Sequence[Path], train: SeriesFile, test: SeriesFile) -> SeriesSet:
    """Put the archive's two parts together, the training one first."""
    channels = {one.shape[0]: file for part, file in zip((train, test), files, strict=True) for one in part.series}
    if len(channels) > 1:
        found = " and ".join(f"{number} in {file.name}" for number, file in channels.items())
        raise DataError(f"tasks.path: {files[0].parent}: {name} has series of {found} channels")
    if train.classes:
        if set(train.classes) != set(test.classes):
            raise DataError(
                f"tasks.path: {files[1]}: its @classLabel names {some(test.classes)}, and {files[0].name} "
                f"{some(train.classes)}"
            )
        classes, written = train.classes, [*train.labels, *test.labels]
    else:
        written = [*train.labels, *map(str, as_known(test.labels, sorted(set(train.labels))))]
        classes = tuple(distinct(np.array(written))[0])
    labels = np.array([classes.index(label) for label in written], dtype=np.int64)
    tested = np.repeat([False, True], [len(train.labels), len(test.labels)])
    return SeriesSet(name, [*train.series, *test.series], labels, classes, tested)
