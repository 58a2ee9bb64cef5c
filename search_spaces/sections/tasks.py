"""The settings of each task source: what the `tasks` section of an experiment may say.

The sources themselves live in ``metaloom.workers.data``, which reads these classes;
they stand here because an experiment must be checked before any data is opened.
A new source is one class in :data:`TASK_SOURCES` and one file beside the sources.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from metaloom.learners.domains import Int, Real
from metaloom.learners.errors import unknown
from metaloom.learners.registry import Registry
from metaloom.learners.solvers.control import CONTROL
from metaloom.learners.task_kinds import CLASSIFICATION, REGRESSION, TASK_KINDS
from metaloom.search_spaces.errors import ExperimentError, Problem

TASK_SOURCES: Registry[type] = Registry("task source")

Ways = Annotated[int, Int(2, 1000)]
Shots = Annotated[int, Int(1, 1000)]
Queries = Annotated[int, Int(1, 1000)]
Batch = Annotated[int, Int(1, 100_000)]
Fraction = Annotated[float, Real(0.0, 1.0, per=())]

AT_LEAST = {
    "dimensions": 1,
    "ways": 2,
    "shots": 1,
    "queries": 1,
    "batch": 1,
    "meta_batch": 1,
    "imbalance": 1,
    "size": 4,
}
FRACTIONS = ("label_noise", "validation_fraction", "test_fraction")  # in [0, 1)


class TaskSettings:
    """Base of all: what no data could serve is refused at birth, before any data is opened.

    Attributes:
        task_kind: The kind of task that it makes. A source that makes several has a field ``kind``.
    """

    task_kind: ClassVar[str] = CLASSIFICATION.name

    def __post_init__(self) -> None:
        values = vars(self)
        for name in AT_LEAST.keys() & values.keys():
            if values[name] < AT_LEAST[name]:
                raise ExperimentError(
                    [Problem(("tasks", name), f"must be at least {AT_LEAST[name]}, got {values[name]}")]
                )
        for name in values.keys() & set(FRACTIONS):
            if not 0 <= values[name] < 1:
                raise ExperimentError([Problem(("tasks", name), f"must be at least 0 and below 1, got {values[name]}")])
        held_out = values.get("validation_fraction", 0) + values.get("test_fraction", 0)
        if held_out >= 1:
            message = f"with tasks.test_fraction it holds out {held_out:g} of the classes: nothing is left to train on"
            raise ExperimentError([Problem(("tasks", "validation_fraction"), message)])


@TASK_SOURCES.register("sinusoid")
@dataclass(frozen=True)
class SinusoidTasks(TaskSettings):
    """Regression of y = A sin(x - b), A in [0.1, 5], b in [0, pi], x in [-5, 5] (Finn et al. 2017).

    Attributes:
        noise: Standard deviation of the noise added to the targets of the support set.
    """

    task_kind: ClassVar[str] = REGRESSION.name
    shots: Shots = 10
    queries: Queries = 10
    noise: Annotated[float, Real(0.0, 10.0, per=())] = 0.0


@TASK_SOURCES.register("bilevel")
@dataclass(frozen=True)
class BilevelTasks(TaskSettings):
    """A bilevel problem of one's own, posed with ``metaloom.bilevel`` (docs/bilevel.md).

    Attributes:
        problem: Its name in ``metaloom.learners.PROBLEMS``, where a plugin package registers it.
    """

    task_kind: ClassVar[str] = REGRESSION.name
    problem: str


@TASK_SOURCES.register("quadratics")
@dataclass(frozen=True)
class QuadraticTasks(TaskSettings):
    """Minimizing f(x) = |W x - y|^2 with W and y from N(0, 1), for learned optimizers (Andrychowicz et al. 2016).

    Attributes:
        dimensions: Of x and of y.
        functions: How many are minimized side by side, as one sum over their own x: a batch of functions.
    """

    task_kind: ClassVar[str] = REGRESSION.name
    dimensions: Annotated[int, Int(1, 1000, log=True)] = 10
    functions: Annotated[int, Int(1, 1000, log=True)] = 1


@TASK_SOURCES.register("point_mass")
@dataclass(frozen=True)
class PointMassTasks(TaskSettings):
    """Starting states of a point mass that a policy is to bring to the origin; each task is a region to start from.

    Attributes:
        shots: Trajectories of an inner step.
        queries: Starts that the policy is judged from.
    """

    task_kind: ClassVar[str] = CONTROL.name
    shots: Annotated[int, Int(2, 1000)] = 16
    queries: Queries = 16


@TASK_SOURCES.register("glyphs")
@dataclass(frozen=True)
class GlyphTasks(TaskSettings):
    """Characters of many scripts drawn with matplotlib's fonts: the embedded few-shot data."""

    ways: Ways = 5
    shots: Shots = 1
    queries: Queries = 15


@TASK_SOURCES.register("digits")
@dataclass(frozen=True)
class DigitTasks(TaskSettings):
    """scikit-learn's handwritten digits as one task, for single-task meta-learning.

    Attributes:
        batch: Training samples in an episode's support set.
        meta_batch: Clean samples in the query set of a meta-training episode.
        queries: Samples in the query set of an evaluation episode. The episodes share the held-out samples out, so
            that fewer samples make more episodes, and a surer interval.
        label_noise: Fraction of training labels replaced by a uniformly drawn one.
        noise_over: What it is drawn from: the ``others``, so that every replaced label is wrong, or ``all`` classes,
            the right one among them, as "uniform noise" is in Zhang et al. 2017 and Shu et al. 2019: 36% wrong at 0.4.
        imbalance: Size of the largest class over that of the smallest, in the training set.
        meta_size: Clean samples held out for meta-training.
        train_on: The (noisy) training set, the clean meta set alone, or both together: the controls that
            meta-learning must beat.
        validation_size: Samples held out for meta-validation.
        test_size: Samples held out for the test.
        flat: 64 features instead of an image.
    """

    batch: Batch = 100
    meta_batch: Batch = 50
    queries: Batch = 10
    label_noise: Fraction = 0.0
    noise_over: Literal["others", "all"] = "others"
    imbalance: Annotated[float, Real(1.0, 1000.0, log=True, per=())] = 1.0
    meta_size: Batch = 50
    train_on: Literal["train", "meta", "both"] = "train"
    validation_size: Batch = 200
    test_size: Batch = 500
    flat: bool = True


@TASK_SOURCES.register("fashion_mnist")
@dataclass(frozen=True)
class FashionMNISTTasks(TaskSettings):
    """Fashion-MNIST as one task, from local IDX files or a checked download.

    Attributes:
        path: Folder with the four IDX files (plain or .gz); None looks in the usual places.
        download: Fetch the files when they are not found.
        batch, meta_batch, queries, label_noise, noise_over, imbalance, meta_size, train_on: As for ``digits``.
        validation_size: Samples held out of the training set for meta-validation.
        flat: 784 features instead of an image.
    """

    path: str | None = None
    download: bool = False
    batch: Batch = 100
    meta_batch: Batch = 100
    queries: Batch = 100
    label_noise: Fraction = 0.0
    noise_over: Literal["others", "all"] = "others"
    imbalance: Annotated[float, Real(1.0, 1000.0, log=True, per=())] = 1.0
    meta_size: Batch = 1000
    train_on: Literal["train", "meta", "both"] = "train"
    validation_size: Batch = 5000
    flat: bool = False


@TASK_SOURCES.register("omniglot")
@dataclass(frozen=True)
class OmniglotTasks(TaskSettings):
    """Omniglot's 1,623 handwritten characters, from a local file or a checked download.

    Attributes:
        path: An .npz file, the original image folders, or their zips; None looks in the cache.
        download: Fetch the images when they are not found.
        split: Vinyals' 1,028/172/423 characters, or Lake's background/evaluation alphabets.
        rotations: Rotated characters (by 90, 180, 270 degrees) count as classes of their own.
    """

    path: str | None = None
    download: bool = False
    split: Literal["vinyals", "lake"] = "vinyals"
    rotations: bool = True
    ways: Ways = 5
    shots: Shots = 1
    queries: Queries = 15


@TASK_SOURCES.register("folder")
@dataclass(frozen=True)
class FolderTasks(TaskSettings):
    """The user's own images: one folder per class, split into disjoint classes.

    Attributes:
        path: The folder that holds the class folders.
        size: Images are resized to size x size.
        color: Three channels instead of one.
        on_error: What to do with an unreadable image: refuse to start, or skip it and say so.
        validation_fraction: Fraction of the classes for meta-validation.
        test_fraction: Fraction of the classes for the test.
    """

    path: str
    ways: Ways = 5
    shots: Shots = 1
    queries: Queries = 15
    size: Annotated[int, Int(4, 512)] = 28
    color: bool = False
    on_error: Literal["refuse", "skip"] = "refuse"
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2


@TASK_SOURCES.register("table")
@dataclass(frozen=True)
class TableTasks(TaskSettings):
    """The user's own table: Parquet, CSV or Arrow, one example a row.

    Attributes:
        path: The table's file.
        label: Column of the class, or of the target of a kind of task without classes.
        features: Feature columns; empty takes every column of numbers but the label and the task, and names the others.
        task: Column that says which task a row belongs to; required where the label is no class.
        kind: The kind of task: few-shot classification of classes, or regression (or another kind without classes) of
            one task per value of ``task``.
        standardize: Scale the features to mean 0 and deviation 1, by the meta-train rows.
        on_error: What to do with a row with a missing or unreadable number: refuse to start, or skip it and say so.
        validation_fraction: Fraction of the classes (or tasks) for meta-validation.
        test_fraction: Fraction of the classes (or tasks) for the test.
    """

    path: str
    label: str
    features: tuple[str, ...] = field(default=())
    task: str | None = None
    kind: str = CLASSIFICATION.name
    ways: Ways = 5
    shots: Shots = 1
    queries: Queries = 15
    standardize: bool = True
    on_error: Literal["refuse", "skip"] = "refuse"
    validation_fraction: Fraction = 0.2
    test_fraction: Fraction = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        labelled = [name for name, kind in TASK_KINDS.items() if kind.labelled]
        if self.kind not in labelled:
            raise ExperimentError([Problem(("tasks", "kind"), unknown("kind of task in a table", self.kind, labelled))])
