"""What the settings of all task sources share. Each source declares its own in its file in ``metaloom.workers.data``.

The sources are in a folder above this one and are loaded as plugins, so that an experiment is checked before any data
is opened.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from metaloom.learners.domains import Added, Bounds, Int, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import check_values, fields_of
from metaloom.learners.registry import Registry
from metaloom.learners.task_kinds import CLASSIFICATION

TASK_SOURCES: Registry[type[Any]] = Registry("task source")  # the settings of each source, which registers them
ONE_TASK_SOURCES: Registry[type[Any]] = Registry("task source")  # of few-shot sources: with ``episodes: single_task``
# other episodes that any few-shot source makes, by name: of its settings those of these episodes, None where it cannot
DERIVED: dict[str, Callable[[type], type | None]] = {}

Ways = Annotated[int, Int(2, 1000), Bounds(at_least=2)]
Shots = Annotated[int, Int(1, 1000)]
Queries = Annotated[int, Int(1, 1000)]
Batch = Annotated[int, Int(1, 100_000)]
Fraction = Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0, below=1)]
Imbalance = Annotated[float, Real(1.0, 1000.0, log=True, per=()), Bounds(at_least=1)]
NoiseOver = Literal["others", "all"]
TrainOn = Literal["train", "meta", "both"]
Part = Annotated[float, Real(0.01, 0.9, per=()), Bounds(above=0, below=1)]
FewOrNone = Annotated[int | None, Int(1, 100_000)]
EPISODES, FEW_SHOT, SINGLE_TASK = "episodes", "few_shot", "single_task"
OneTask = Literal["single_task"]
Split = Annotated[str | Mapping[str, Any] | None, Added()]


class TaskSettings:
    """Base of all: settings that no data can satisfy are refused before any data is opened.

    Attributes:
        task_kind: The kind of task that it makes. A source that makes several has a field ``kind``.
        makes: The episodes that it makes: ``few_shot``, each of other classes, or ``single_task``, batches of one task.
        ways: Classes of an episode, where it has any.
        shots: Support examples of an episode; where it has classes, of each class.
        queries: Query examples of an episode; where it has classes, of each class.
        split: Which classes are in ``train``, ``validation`` and ``test``: a list for each, or the path of a JSON or
            CSV file of such lists; null divides them by the fractions. Other classes are left out.
    """

    task_kind: ClassVar[str] = CLASSIFICATION.name
    makes: ClassVar[str] = FEW_SHOT
    members: ClassVar[tuple[str, ...]] = ()  # settings that are lists of tasks sections, where it is made of others
    weighed: ClassVar[str] = ""  # likewise, the setting that is a list of their weights
    shared: ClassVar[tuple[str, ...]] = ()  # likewise, the settings of its own that all of them have in common

    def __post_init__(self) -> None:
        check_values(self, "tasks")
        held_out = getattr(self, "validation_fraction", 0) + getattr(self, "test_fraction", 0)
        if held_out >= 1:
            raise LearnerError(
                f"tasks.validation_fraction: with tasks.test_fraction it holds out {held_out:g} of the classes: "
                "nothing is left to train on"
            )
        config: Any = self
        declared = fields_of(config.__class__)
        given = self.makes == FEW_SHOT and getattr(self, "split", None) is not None
        for name in declared if given else ():
            if name.endswith("_fraction") and getattr(self, name) != declared[name].default:
                raise LearnerError(f"tasks.{name}: tasks.split says which classes are held out; remove one of both")


@dataclass(frozen=True)
class OneTaskSettings(TaskSettings):
    """What all sources of a single task have.

    Attributes:
        label_noise: Fraction of training labels replaced by a uniformly drawn one.
        noise_over: What it is drawn from: the ``others``, so that every replaced label is wrong, or ``all`` classes,
            the right one among them, as "uniform noise" is in Zhang et al. 2017 and Shu et al. 2019: 36% wrong at 0.4.
        imbalance: Size of the largest class over that of the smallest, in the training set.
        train_on: The (noisy) training set, the clean meta set alone, or both together: the controls that
            meta-learning must beat.
    """

    label_noise: Fraction = 0.0
    noise_over: NoiseOver = "others"
    imbalance: Imbalance = 1.0
    train_on: TrainOn = "train"

    makes: ClassVar[str] = SINGLE_TASK


@dataclass(frozen=True)
class UserTaskSettings(OneTaskSettings):
    """One labelled data set of the user's own, whose examples are divided among four parts, by class.

    Attributes:
        episodes: ``single_task``; without it the same source makes few-shot episodes of its classes.
        batch: Training examples in an episode's support set; null is 100, or all where there are fewer.
        meta_batch: Clean examples in the query set of a meta-training episode; null is 50, or all where there are
            fewer.
        queries: Examples in the query set of an evaluation episode; null is about 10, or more of large held-out sets,
            so many that they divide the held-out sets evenly. The episodes share these out.
        meta_fraction: Fraction of the examples for the clean meta set, which judges what is learned in training.
        validation_fraction: Fraction of the examples for the validation.
        test_fraction: Fraction of the examples for the test. Training gets the rest.
    """

    episodes: OneTask = "single_task"
    batch: FewOrNone = None
    meta_batch: FewOrNone = None
    queries: FewOrNone = None
    meta_fraction: Part = 0.1
    validation_fraction: Part = 0.2
    test_fraction: Part = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        held_out = self.meta_fraction + self.validation_fraction + self.test_fraction
        if held_out >= 1:
            raise LearnerError(
                f"tasks.meta_fraction: with tasks.validation_fraction and tasks.test_fraction it holds out "
                f"{held_out:g} of the examples: nothing is left to train on"
            )

    def sizes(self, parts: Mapping[str, int]) -> dict[str, int]:
        """Return the examples of a ``batch``, of a ``meta_batch`` and of an evaluation's ``queries``.

        Args:
            parts: The number of examples of each part.
        """
        batch = self.batch or min(100, parts[self.train_on])
        meta_batch = self.meta_batch or min(50, parts["meta"])
        held_out = (parts["validation"], parts["test"])
        return {"batch": batch, "meta_batch": meta_batch, "queries": self.queries or _even_share(*held_out)}


def _even_share(validation: int, test: int) -> int:
    """Return how many queries an episode has so that few held-out examples are left over: 5 to 20 of small sets.

    A large set is scored whole by the 100 validation episodes that are the default; a small one fills at least four
    episodes, without which an interval says little.
    """
    least = max(5, -(-validation // 100))
    most = max(1, min(validation, test) // 4)
    shares = range(min(least, most), min(max(20, 2 * least), most) + 1)
    return min(shares, key=lambda share: (validation % share + test % share, abs(share - 10)))


def settings_of(source: str, episodes: Any = None) -> type | None:
    """Return the settings of a source with these ``episodes``; None if there is no such source, or it makes others."""
    plain = TASK_SOURCES.get(source)
    if plain is None or episodes is None or episodes == episodes_of(plain):
        return plain
    if isinstance(episodes, str) and episodes in DERIVED:
        return DERIVED[episodes](plain)
    return ONE_TASK_SOURCES.get(source) if episodes == SINGLE_TASK else None


def kinds_of_episodes() -> tuple[str, ...]:
    """Return what ``episodes`` may be."""
    return FEW_SHOT, SINGLE_TASK, *DERIVED


def episodes_of(config: type | None) -> str:
    """Return the episodes that a source with these settings makes."""
    return str(getattr(config, "makes", FEW_SHOT))


def able(episodes: str) -> list[str]:
    """Return the names of the sources that make these episodes."""
    return [name for name in TASK_SOURCES if settings_of(name, episodes) is not None]
