"""How a task is solved: what a solver declares, and the base of those that take no inner steps."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from metaloom.learners.base import Learner
from metaloom.learners.component import Component
from metaloom.learners.episode import Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.hypergradients.auto import AUTO
from metaloom.learners.hypergradients.problem import Mapper
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.tokens import token_count
from metaloom.learners.registry import Registry
from metaloom.learners.solvers.inner_loop import InnerConfig
from metaloom.learners.task_kinds import ANY_KIND

INDUCTIVE, SEMI_SUPERVISED, TRANSDUCTIVE = SETTINGS = ("inductive", "semi-supervised", "transductive")
DEFAULT_SOLVER = "linear"
UNLABELLED = "unlabelled"  # the part of a support set
CLASS_FEATURES = "class_features"
EVERY_SLOT = frozenset({"architecture", "initialization", "update", "weighting", "loss", "data", "augmentation"})


@dataclass(frozen=True)
class Parts:
    """What a learner is put together from; ``components`` fill the slots that the solver reads."""

    components: Mapping[str, Component]
    inner: InnerConfig
    outer: Mapping[str, Any]
    task: TaskShape
    mapper: Mapper


class Solver(Component, ABC):
    """A way to solve a task. It fills the slot ``prediction``, and builds the learner from the others.

    Class attributes:
        reads: The slots that it uses; one that it does not is refused where it is given.
        reads_support: The optional fields of ``Support`` that it uses, likewise.
        describes: Whether it predicts from features of the classes alone, and takes no labelled examples.
        serves: The kinds of task that it solves, by name; ``labelled`` for all with targets, ``*`` for all.
        needs_classes: Whether it solves the kinds with classes alone.
        any_ways: Whether it takes any number of classes, whatever number it was trained with.
        needs_whole: Whether it compares examples place by place, so that series must be whole and of equal length.
        needs_steps: Whether it takes inner steps, so that there is a slot ``update``.
        estimators: The hypergradient estimators that it takes beside ``auto``; None for all.
        setting: ``inductive``, ``semi-supervised``, or ``transductive`` if a query's outputs depend on other queries.
    """

    slot = "prediction"
    needs_task = True
    reads: ClassVar[frozenset[str]] = EVERY_SLOT
    reads_support: ClassVar[frozenset[str]] = frozenset()
    describes: ClassVar[bool] = False
    serves: ClassVar[frozenset[str]] = frozenset({ANY_KIND})
    needs_classes: ClassVar[bool] = False
    any_ways: ClassVar[bool] = False
    needs_whole: ClassVar[bool] = False
    needs_steps: ClassVar[bool] = False
    estimators: ClassVar[frozenset[str] | None] = None
    setting: str = INDUCTIVE  # of the class, or of one solver where its settings decide

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config)
        self.task = task

    @property
    def sees(self) -> str:
        """Return its setting; ``semi-supervised`` at least where episodes have examples without labels."""
        return max(self.setting, SEMI_SUPERVISED if self.task.unlabelled else INDUCTIVE, key=SETTINGS.index)

    @property
    def name(self) -> str:
        """Return the name under which it is registered."""
        return SOLVERS.name_of(type(self))

    @classmethod
    def takes(cls, hypergradient: str | Mapping[str, Any]) -> bool:
        """Whether it takes an estimator, as ``outer.hypergradient`` names it."""
        kind = hypergradient if isinstance(hypergradient, str) else hypergradient.get("kind", AUTO)
        return kind == AUTO or cls.estimators is None or kind in cls.estimators

    def check(self, hypergradient: str | Mapping[str, Any]) -> None:
        """Refuse a kind of task that it does not solve, and an estimator that it does not take; raises LearnerError."""
        kind = self.task.task_kind
        if self.needs_classes and not kind.has_classes:
            raise LearnerError(f"learner.prediction: {self.name} needs classes, which a {kind.name} task has not")
        if not kind.served_by(self.serves):
            able = ", ".join(name for name, solver in SOLVERS.items() if kind.served_by(solver.serves))
            raise LearnerError(f"learner.prediction: {self.name} does not solve a {kind.name} task; use one of {able}")
        if self.needs_whole and self.task.observed:
            raise LearnerError(
                f"learner.prediction: {self.name} compares series step by step, and these differ in length or lack "
                "values; use time_warping, or a method whose network reads series, such as conv1d or gru"
            )
        if self.needs_whole and token_count(self.task):
            raise LearnerError(
                f"learner.prediction: {self.name} compares examples number by number, and this task's are the token "
                "numbers of texts; use a method whose network reads text, such as prototypical with text_bag"
            )
        if self.task.unlabelled and (wrong := unlabelled_unread(self.name)):
            raise LearnerError(f"tasks.unlabelled: {wrong}")
        if not self.takes(hypergradient):
            given = hypergradient if isinstance(hypergradient, str) else hypergradient["kind"]
            allowed = " or ".join([AUTO, *sorted(self.estimators or ())])
            raise LearnerError(f"outer.hypergradient: prediction {self.name} takes {allowed}, not {given}; remove it")
        self._check_class_features()

    def _check_class_features(self) -> None:
        """Refuse tasks whose classes are described, if it does not use that, and others if it needs it."""
        described = self.task.class_features is not None
        if described and CLASS_FEATURES not in self.reads_support:
            able = ", ".join(name for name, solver in SOLVERS.items() if CLASS_FEATURES in solver.reads_support)
            raise LearnerError(
                f"tasks.class_features: prediction {self.name} does not use what describes the classes; leave it out, "
                f"or use one of {able}"
            )
        if self.describes and not described:
            raise LearnerError(
                f"tasks.class_features: prediction {self.name} predicts from features of each class, and these tasks "
                "have none; give {path: FILE, class: COLUMN}, a table with one row a class, or {names: hashing}"
            )

    def check_support(self, support: Support) -> None:
        """Refuse an optional part of a support set that the solver does not use; raises LearnerError."""
        for name in support.given() - self.reads_support:
            raise LearnerError(f"support.{name}: prediction {self.name} does not use it; leave it out")
        if not self.describes:
            return
        if support.class_features is None:
            raise LearnerError(
                f"support.class_features: prediction {self.name} needs the features of each class, in place of "
                "labelled examples; metaloom adapt takes them by --classes TABLE, bundle.adapt by class_features"
            )
        wanted, given = self.task.class_features, tuple(support.class_features.shape)
        if wanted is not None and given[1:] != wanted.inputs:
            shape = ", ".join(map(str, wanted.inputs))
            raise LearnerError(f"support.class_features: got shape {given}; prediction {self.name} takes [n, {shape}]")
        if len(support.y):
            raise LearnerError(
                f"support.x: prediction {self.name} predicts from the features of each class, and takes no labelled "
                f"examples, but got {len(support.y)}; give none (tasks.shots: 0)"
            )

    @abstractmethod
    def learner(self, parts: Parts) -> Learner:
        """Put the learner together; raises LearnerError if the parts contradict each other."""


SOLVERS: Registry[type[Solver]] = Registry("prediction")


def unlabelled_unread(kind: str) -> str:
    """Say that a solver does not read examples without labels; empty if it does."""
    able = [name for name, solver in SOLVERS.items() if UNLABELLED in solver.reads_support]
    if kind in able:
        return ""
    other = f", or use prediction: {' or '.join(able)}" if able else ""
    return f"prediction {kind} does not use examples without labels; remove it{other}"


def setting_of(solver: str, network: Network | None, batch_norm: str) -> str:
    """Return the setting of a solver with a network: of the two, the one that sees more."""
    return max(solver, INDUCTIVE if network is None else network.setting(batch_norm), key=SETTINGS.index)
