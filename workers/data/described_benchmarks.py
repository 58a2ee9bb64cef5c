"""Benchmarks of zero-shot learning, whose classes are described: animals by attributes, and intents by their names."""

import json
import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.domains import Bounds, Int
from metaloom.search_spaces.sections.few_shot import FewShotSettings, ShotsOrRange, WaysOrRange
from metaloom.search_spaces.sections.tasks import Queries
from metaloom.workers.data import sampler
from metaloom.workers.data.base import SOURCES, SPLITS, DataError, some
from metaloom.workers.data.class_features import Described, DescribedClasses, HashedNames, table_of
from metaloom.workers.data.splits import Lists, digest_of
from metaloom.workers.data.store import Arrays, cached, file_facts
from metaloom.workers.data.streams import DIVISION, fixed_generator
from metaloom.workers.data.table_features import standardized
from metaloom.workers.data.table_settings import TableSettings

HASHED_WIDTH = 512
_UNREADABLE = (KeyError, ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile)


@dataclass(frozen=True)
class DescribedTasks(FewShotSettings):
    """A benchmark whose examples are features, and whose classes are described.

    Attributes:
        path: The benchmark's file.
        standardize: Scale the features of examples to mean 0 and deviation 1, by the training ones.
        standardize_classes: Scale what describes a class likewise, by the training classes.
    """

    path: str | None = None
    standardize: bool = True
    standardize_classes: bool = True
    ways: WaysOrRange = 5
    shots: ShotsOrRange = 0
    queries: Queries = 15

    @property
    def built_in(self) -> bool:
        """Whether the source describes the classes itself."""
        return True

    @property
    def describes_classes(self) -> bool:
        """Whether episodes say what describes each class."""
        return self.built_in or super().describes_classes


@dataclass(frozen=True)
class AwA1Tasks(DescribedTasks):
    """Animals with Attributes: 40 seen and 10 unseen classes of animals (Lampert et al. 2009).

    Attributes:
        path: An .npz file with ``features`` [n, d], ``labels`` [n], ``class_names``, ``seen_classes``,
            ``unseen_classes``, ``attribute_names``, ``attributes_continuous`` and ``attributes_binary`` [classes, 85].
        attributes: What describes a class; null for learners from examples, which then need shots.
        validation: How many of the seen classes are for meta-validation.
    """

    attributes: Literal["continuous", "binary"] | None = "continuous"
    validation: Annotated[int, Int(2, 20), Bounds(at_least=2)] = 10
    ways: WaysOrRange = 10

    @property
    def built_in(self) -> bool:
        """Whether the source describes the classes itself."""
        return self.attributes is not None


@dataclass(frozen=True)
class ClincTasks(DescribedTasks):
    """CLINC150: 150 intents of 10 domains, as embeddings of their sentences (Larson et al. 2019).

    Attributes:
        path: A folder with ``clinc150.json`` (``domains``, ``domain_split``) and ``clinc150_embeddings.npz`` (``test``,
            ``test_intent``, ``train``, ``train_intent``, ``intents``, ``intent_names``), or one of the two beside the
            other.
        names: What describes an intent: its name, embedded as the sentences are (``encoder``) or hashed; null for
            learners from examples, which then need shots.
    """

    names: Literal["encoder", "hashing"] | None = "encoder"

    @property
    def built_in(self) -> bool:
        """Whether the source describes the classes itself."""
        return self.names is not None


class ReadBenchmark(NamedTuple):
    """A benchmark as it was read: features [n, d], the class of each [n], all classes, and those of each split."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]
    names: list[str]
    lists: Lists


class DescribedBenchmark(sampler.FewShotSource):
    """Features of examples, by class. A subclass reads them, and says what describes the classes."""

    wanted: ClassVar[str]

    @classmethod
    @abstractmethod
    def files(cls, config: Any) -> list[Path]:
        """Return the files of the benchmark; raises DataError where they are not there."""

    @classmethod
    @abstractmethod
    def read(cls, config: Any, files: list[Path]) -> ReadBenchmark:
        """Read the examples."""

    @classmethod
    @abstractmethod
    def described(cls, config: Any, files: list[Path], names: list[str]) -> Described | None:
        """Return what describes the classes; None where nothing is asked for."""

    @classmethod
    def open(cls, config: DescribedTasks, *, seed: int, cache: Path) -> Self:
        """Map the features; read them first if the files or the settings have changed."""
        if config.path is None:
            raise DataError(f"tasks.path: {cls.name} needs {cls.wanted}")
        files = cls.files(config)
        settings = [config.standardize, getattr(config, "validation", None)]
        key = {"source": cls.name, "files": [file_facts(file) for file in files], "settings": settings}
        try:
            arrays = cached(cache, cls.name, key, lambda: _by_class(cls.read(config, files), config))
            own = None if config.class_features else cls.described(config, files, arrays.about["names"])
        except _UNREADABLE as error:
            raise DataError(f"tasks.path: {files[0]}: not a file of {cls.name} ({error}); give {cls.wanted}") from error
        about, x = arrays.about, arrays["x"]
        table = sampler.ClassTable.from_splits(about["lists"], about["spans"])
        source = cls(arrays, table, config, seed=seed, scale=1.0, inputs=x.shape[1:], classes=own)
        mean, deviation = (tuple(about["scaling"].get(name, ())) for name in ("mean", "deviation"))
        source.shape = replace(source.shape, mean=mean, deviation=deviation)
        source.digest = digest_of(source.digest, about["lists"])
        return source


def _by_class(given: ReadBenchmark, config: DescribedTasks) -> Arrays:
    """Put the examples into the order of their classes; scale them by those of meta-train."""
    counts = np.bincount(given.y, minlength=len(given.names)).tolist()
    listed = [name for split in SPLITS for name in given.lists[split]]
    if absent := [name for name in listed if not counts[given.names.index(name)]]:
        raise ValueError(f"{len(absent)} classes have no example: {some(absent)}")
    order = np.argsort(given.y, kind="stable")
    x, scaling = given.x[order], dict[str, list[float]]()
    if config.standardize:
        train = np.isin(given.y[order], [given.names.index(name) for name in given.lists["train"]])
        x, scaling = standardized(x, np.flatnonzero(train))
    spans = sampler.spans_of(dict(zip(given.names, counts, strict=True)))
    return Arrays({"x": x}, {"spans": spans, "names": given.names, "lists": given.lists, "scaling": scaling})


def _table(config: DescribedTasks, names: list[str], columns: Mapping[str, NDArray[Any]], **own: Any) -> Described:
    settings = TableSettings(str(config.path), "class", standardize=config.standardize_classes, missing="mean")
    return DescribedClasses(settings, columns=table_of(names, columns), **own)


def _texts(array: NDArray[Any]) -> list[str]:
    return [str(one) for one in array]


@SOURCES.register("awa1")
class AwA1(DescribedBenchmark):
    """The unseen classes are the test; a fixed part of the seen ones is meta-validation."""

    name = "awa1"
    Config = AwA1Tasks
    wanted = "an .npz file with features, labels, class_names, seen_classes, unseen_classes and attributes"

    @classmethod
    def files(cls, config: AwA1Tasks) -> list[Path]:
        """Return the one file."""
        file = Path(str(config.path))
        if not file.is_file():
            raise DataError(f"tasks.path: there is no file {file}; give {cls.wanted}")
        return [file]

    @classmethod
    def read(cls, config: AwA1Tasks, files: list[Path]) -> ReadBenchmark:
        """Read the features, and divide the seen classes, always equally for the same names."""
        with np.load(files[0], allow_pickle=False) as held:
            x, y, names = held["features"].astype(np.float32), held["labels"].astype(np.int64), held["class_names"]
            seen, unseen = _texts(held["seen_classes"]), _texts(held["unseen_classes"])
        if x.ndim != 2 or len(x) != len(y):
            raise ValueError(f"features are {x.shape}, and labels {y.shape}")
        if config.validation >= len(seen):
            raise DataError(f"tasks.validation: {config.validation} of {len(seen)} seen classes leave none to train on")
        order = [seen[place] for place in fixed_generator(0, DIVISION).permutation(len(seen))]
        held_out = sorted(order[: config.validation])
        train = sorted(order[config.validation :])
        return ReadBenchmark(x, y, _texts(names), {"train": train, "validation": held_out, "test": unseen})

    @classmethod
    def described(cls, config: AwA1Tasks, files: list[Path], names: list[str]) -> Described | None:
        """Return the attributes; -1 stands for a missing one, which gets the mean of the training classes."""
        if config.attributes is None:
            return None
        with np.load(files[0], allow_pickle=False) as held:
            values, columns = held[f"attributes_{config.attributes}"], _texts(held["attribute_names"])
        return _table(config, names, dict(zip(columns, values.astype(np.float64).T, strict=True)), absent=-1.0)


@SOURCES.register("clinc150")
class Clinc150(DescribedBenchmark):
    """Whole domains are divided among the splits. Intents of training have 50 sentences, the others the 30 of test."""

    name = "clinc150"
    Config = ClincTasks
    wanted = "a folder with clinc150.json and clinc150_embeddings.npz"

    @classmethod
    def files(cls, config: ClincTasks) -> list[Path]:
        """Return the embeddings' file and that of the domains."""
        given = Path(str(config.path))
        folder = given if given.is_dir() else given.parent
        found = [folder / "clinc150_embeddings.npz", folder / "clinc150.json"]
        if missing := [file.name for file in found if not file.is_file()]:
            raise DataError(f"tasks.path: {folder} has no {' and no '.join(missing)}; give {cls.wanted}")
        return found

    @classmethod
    def read(cls, config: ClincTasks, files: list[Path]) -> ReadBenchmark:
        """Read the embeddings of the sentences, and the intents of each domain."""
        with np.load(files[0], allow_pickle=False) as held:
            parts = {part: (held[part].astype(np.float32), held[f"{part}_intent"]) for part in ("train", "test")}
            names = _texts(held["intents"])
        document = json.loads(files[1].read_text(encoding="utf-8"))
        domains, divided = document["domains"], document["domain_split"]
        spelt = {"train": "train", "val": "validation", "test": "test"}
        lists = {spelt[part]: [one for domain in divided[part] for one in domains[domain]] for part in spelt}
        of_training = np.isin(parts["train"][1], [names.index(one) for one in lists["train"]])
        x = np.concatenate([parts["train"][0][of_training], parts["test"][0]])
        y = np.concatenate([parts["train"][1][of_training], parts["test"][1]]).astype(np.int64)
        return ReadBenchmark(x, y, names, lists)

    @classmethod
    def described(cls, config: ClincTasks, files: list[Path], names: list[str]) -> Described | None:
        """Return the names of the intents, embedded or hashed."""
        if config.names is None:
            return None
        if config.names == "hashing":
            return HashedNames(HASHED_WIDTH)
        with np.load(files[0], allow_pickle=False) as held:
            return _table(config, names, {"name": held["intent_names"].astype(np.float64)})
