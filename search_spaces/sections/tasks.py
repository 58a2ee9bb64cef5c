"""What the settings of all task sources share. Each source declares its own in its file in ``metaloom.workers.data``.

The sources are in a folder above this one and are loaded as plugins, so that an experiment is checked before any data
is opened.
"""

from typing import Annotated, Any, ClassVar, Literal

from metaloom.learners.domains import Bounds, Int, Real
from metaloom.learners.errors import LearnerError
from metaloom.learners.fields import check_values
from metaloom.learners.registry import Registry
from metaloom.learners.task_kinds import CLASSIFICATION

TASK_SOURCES: Registry[type[Any]] = Registry("task source")  # the settings of each source, which registers them

Ways = Annotated[int, Int(2, 1000), Bounds(at_least=2)]
Shots = Annotated[int, Int(1, 1000)]
Queries = Annotated[int, Int(1, 1000)]
Batch = Annotated[int, Int(1, 100_000)]
Fraction = Annotated[float, Real(0.0, 1.0, per=()), Bounds(at_least=0, below=1)]
Imbalance = Annotated[float, Real(1.0, 1000.0, log=True, per=()), Bounds(at_least=1)]
NoiseOver = Literal["others", "all"]
TrainOn = Literal["train", "meta", "both"]


class TaskSettings:
    """Base of all: settings that no data can satisfy are refused before any data is opened.

    Attributes:
        task_kind: The kind of task that it makes. A source that makes several has a field ``kind``.
        ways: Classes of an episode, where it has any.
        shots: Support examples of an episode; where it has classes, of each class.
        queries: Query examples of an episode; where it has classes, of each class.
    """

    task_kind: ClassVar[str] = CLASSIFICATION.name

    def __post_init__(self) -> None:
        check_values(self, "tasks")
        held_out = getattr(self, "validation_fraction", 0) + getattr(self, "test_fraction", 0)
        if held_out >= 1:
            raise LearnerError(
                f"tasks.validation_fraction: with tasks.test_fraction it holds out {held_out:g} of the classes: "
                "nothing is left to train on"
            )
