"""An episode: what a learner adapts on, and what it is judged on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from metaloom.learners.errors import LearnerError
from metaloom.learners.task_kinds import TASK_KINDS, TaskKind
from metaloom.learners.tensors import part, under


@dataclass(frozen=True)
class TaskShape:
    """What every episode of a task source looks like.

    Attributes:
        kind: Name of the kind of task: ``classification``, ``regression``, ``control`` or an installed package's.
        inputs: Shape of one example, such as (1, 28, 28) or (64,).
        outputs: Width of the network's output: the ways, or the target's dimension.
        classes: Number of classes over the whole meta-train split, for joint pre-training; 0 without classes.
        single_task: True if all episodes are batches of one task (``digits``), so that an online
            inner loop may keep its parameters from one outer step to the next.
        features: Names of the inputs, for a table; empty otherwise.
        mean: What each feature of a new task's raw rows is standardized by; empty if they are used as they are.
        deviation: Likewise: an input is (raw - mean) / deviation.
        target_mean: What each target is standardized by, where there are no classes; empty if targets are as given.
        target_deviation: Likewise: a target is (raw - mean) / deviation.
        class_names: The classes of a user's single task, in the order of their numbers; empty elsewhere.
        columns: How the columns of a new table become these features, as JSON values, where they are not the features
            themselves: what fills a missing cell, the values of a category.
        counts: Training examples of each class as labelled, where episodes name them (``Episode.sample_ids``);
            empty otherwise. Their sum is how many training examples there are.
        environment: The control task that examples are starting states of; empty for labelled examples.
        environment_settings: What it is built with, as JSON values.
        parameters: Names of what makes one control task differ from another, such as a goal: the examples' targets.
        problem: The bilevel problem (in ``PROBLEMS``) that episodes are the data of; empty for examples.
        varying: Whether the number of classes or examples differs from one outer step to the next.
        unlabelled: Whether episodes have examples without labels (``Support.unlabelled``).
        class_features: What describes each class of an episode, as a task whose examples are classes: ``inputs`` is the
            shape of ``Support.class_features``' rows. None where nothing does.
        observed: Whether examples are series [channels, length] whose last channel says which steps were observed (1)
            and which are missing or past the end (0); the other channels are 0 there.
        groups: Training classes of each data set, where episodes come from several (source ``many``), in their order;
            empty otherwise. Their sum is ``classes``. A training episode's ``class_ids`` count through them, so that
            those of data set g are the ones from ``sum(groups[:g])`` on (``group_of``).
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: int
    classes: int = 0
    single_task: bool = False
    features: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    target_mean: tuple[float, ...] = ()
    target_deviation: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()
    columns: tuple[Mapping[str, Any], ...] = ()
    counts: tuple[int, ...] = ()
    environment: str = ""
    environment_settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    parameters: tuple[str, ...] = ()
    problem: str = ""
    varying: bool = False
    unlabelled: bool = False
    class_features: "TaskShape | None" = None
    observed: bool = False
    groups: tuple[int, ...] = ()

    def group_of(self, class_ids: Tensor) -> tuple[int, int]:
        """Return the first and the end of the training classes of an episode's data set, from its ``class_ids``.

        A head over the classes of each data set is that part of a head over all of them. Without ``groups`` there is
        one data set, of all classes.
        """
        first, end, of_episode = 0, self.classes, int(class_ids[0])
        for size in self.groups:
            end = first + size
            if of_episode < end:
                break
            first = end
        return first, end

    @property
    def task_kind(self) -> TaskKind:
        """The kind of task; raises NotRegistered if the package that brings it is not installed."""
        return TASK_KINDS[self.kind]

    @property
    def targets(self) -> int:
        """The numbers in a target: the network's outputs, or a control task's parameters."""
        return len(self.parameters) or self.outputs


@dataclass(frozen=True)
class Support:
    """What a learner adapts to. A solver declares which of the optional parts it uses; others are refused.

    Attributes:
        x: [support, *features] float32; no rows where a solver needs ``class_features`` alone.
        y: [support] int64 in [0, ways), or [support, targets] float32.
        class_features: [ways, *features] float32: features of each class itself, such as attributes.
        mask: [support] bool: the examples that are there; others fill up episodes of varying shots.
        unlabelled: [n, *features] float32: examples of the task without their labels, for semi-supervised learning.
    """

    x: Tensor
    y: Tensor
    class_features: Tensor | None = None
    mask: Tensor | None = None
    unlabelled: Tensor | None = None

    def given(self) -> frozenset[str]:
        """Return the names of the optional parts that it has."""
        return frozenset([name for name in OPTIONAL_PARTS if getattr(self, name) is not None])

    def kept(self) -> "Support":
        """Return it without the examples that ``mask`` leaves out."""
        if self.mask is None:
            return self
        return replace(self, x=self.x[self.mask], y=self.y[self.mask], mask=None)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that it has, by field."""
        optional = {name: value for name in OPTIONAL_PARTS if (value := getattr(self, name)) is not None}
        return {"x": self.x, "y": self.y, **optional}


# read once: an episode is taken apart several times in each outer step
OPTIONAL_PARTS = tuple(one.name for one in fields(Support) if one.default is None)


@dataclass(frozen=True)
class Episode:
    """A task, or one pair of batches of a single task; raises LearnerError if inputs and targets differ in number.

    Several episodes of equal shape stack into one with a leading [tasks] dimension (``stack_episodes``).

    Attributes:
        support: What is adapted to.
        query_x: [queries, *features] float32.
        query_y: [queries] int64, or [queries, targets] float32.
        class_ids: [ways] int64, the meta-split-wide id of each local label; None without classes.
        sample_ids: [support] int64, each example's id in the training set of a single task; None elsewhere.
        tasks: The number of stacked episodes; None for one that is not stacked.
        training: Whether the query's labels may be trained on (Reptile trains on the whole of a meta-train task); the
            learner sets it in ``meta_step``, never in ``evaluate``.
        noise: The random numbers of its inner loop, which the learner draws before the first step (see
            ``Component.draw_noise``): a step that is computed again, batched or traced then sees the same ones.
    """

    support: Support
    query_x: Tensor
    query_y: Tensor
    class_ids: Tensor | None = None
    sample_ids: Tensor | None = None
    tasks: int | None = None
    training: bool = False
    noise: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        batch = 1 if self.tasks is None else 2
        for name, x, y in (("support", self.support_x, self.support_y), ("query", self.query_x, self.query_y)):
            if x.shape[:batch] != y.shape[:batch]:
                raise LearnerError(
                    f"episode {name}: {tuple(x.shape[:batch])} inputs but {tuple(y.shape[:batch])} labels"
                )

    @property
    def support_x(self) -> Tensor:
        """The support set's inputs."""
        return self.support.x

    @property
    def support_y(self) -> Tensor:
        """The support set's targets."""
        return self.support.y

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that it has: by field, the support's as ``support/NAME``, its noise as ``noise/NAME``."""
        sets = {name: value for name in TENSOR_FIELDS if (value := getattr(self, name)) is not None}
        return under("support", self.support.tensors()) | sets | under("noise", self.noise)

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], **settings: Any) -> "Episode":
        """Put an episode together from what ``tensors`` returned."""
        sets: dict[str, Any] = {name: value for name, value in tensors.items() if "/" not in name}
        support, noise = part(dict(tensors), "support"), part(dict(tensors), "noise", optional=True)
        return cls(Support(**support), **sets, noise=noise, **settings)

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Episode":
        """Move to a device; floating tensors also to ``dtype``."""
        moved = {
            name: value.to(device, dtype if dtype is not None and value.is_floating_point() else value.dtype)
            for name, value in self.tensors().items()
        }
        return Episode.of(moved, tasks=self.tasks, training=self.training)


TENSOR_FIELDS = tuple(one.name for one in fields(Episode) if "Tensor" in str(one.type) and one.name != "noise")
Episodes = Sequence[Episode]


def alike(episodes: Episodes) -> bool:
    """Whether the tensors of all episodes have equal shapes, so that they stack."""
    shapes = [{name: value.shape for name, value in one.tensors().items()} for one in episodes]
    return all(one == shapes[0] for one in shapes)


def stack_episodes(episodes: Episodes) -> Episode:
    """Stack episodes of equal shape along a new leading task dimension; what one of them lacks is left out."""
    each = [episode.tensors() for episode in episodes]
    shared = [name for name in each[0] if all(name in one for one in each)]
    return Episode.of({name: torch.stack([one[name] for one in each]) for name in shared}, tasks=len(episodes))
