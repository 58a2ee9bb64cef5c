"""An episode: what a learner adapts on, and what it is judged on."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from metaloom.learners.errors import LearnerError


@dataclass(frozen=True)
class TaskShape:
    """What every episode of a task source looks like.

    Attributes:
        kind: ``"classification"`` (int64 labels) or ``"regression"`` (float targets).
        inputs: Shape of one example, such as (1, 28, 28) or (64,).
        outputs: Width of the network's output: the ways, or the target's dimension.
        classes: Number of classes over the whole meta-train split, for joint pre-training; 0 in regression.
        single_task: True if all episodes are batches of one task (``digits``), so that an online
            inner loop may keep its parameters from one outer step to the next.
        features: Names of the inputs, for a table; empty otherwise.
        mean: What each feature of a new task's raw rows is standardized by; empty if they are used as they are.
        deviation: Likewise: an input is (raw - mean) / deviation.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: int
    classes: int = 0
    single_task: bool = False
    features: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()


@dataclass(frozen=True)
class Episode:
    """A task, or one pair of batches of a single task.

    support_x: [support, *features] float32    support_y: [support] int64 in [0, ways), or [support, targets] float32
    query_x:   [queries, *features] float32    query_y:   [queries] int64, or [queries, targets] float32
    class_ids: [ways] int64, the meta-split-wide id of each local label; None in regression

    ``training`` says that the query's labels may be trained on (Reptile trains on the whole of a meta-train
    task); the learner sets it in ``meta_step``, never in ``evaluate``.

    ``noise`` holds the random numbers of its inner loop, which the learner draws before the first step (see
    ``Component.draw_noise``): a step that is computed again, batched or traced then sees the same ones.

    Several episodes of equal shape stack into one with a leading [tasks] dimension
    (``stack_episodes``); ``tasks`` is then their number.

    Raises:
        LearnerError: The number of inputs and targets differ.
    """

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    class_ids: Tensor | None = None
    tasks: int | None = None
    training: bool = False
    noise: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        batch = 1 if self.tasks is None else 2
        for part, x, y in (("support", self.support_x, self.support_y), ("query", self.query_x, self.query_y)):
            if x.shape[:batch] != y.shape[:batch]:
                raise LearnerError(
                    f"episode {part}: {tuple(x.shape[:batch])} inputs but {tuple(y.shape[:batch])} labels"
                )

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "Episode":
        """Move to a device; floating tensors also to ``dtype``."""

        def move(tensor: Tensor) -> Tensor:
            kind = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
            return tensor.to(device=device, dtype=kind)

        return replace(
            self,
            support_x=move(self.support_x),
            support_y=move(self.support_y),
            query_x=move(self.query_x),
            query_y=move(self.query_y),
            class_ids=None if self.class_ids is None else move(self.class_ids),
            noise={name: move(value) for name, value in self.noise.items()},
        )


def stack_episodes(episodes: Sequence[Episode]) -> Episode:
    """Stack episodes of equal shape along a new leading task dimension."""
    ids = [episode.class_ids for episode in episodes]
    return Episode(
        torch.stack([e.support_x for e in episodes]),
        torch.stack([e.support_y for e in episodes]),
        torch.stack([e.query_x for e in episodes]),
        torch.stack([e.query_y for e in episodes]),
        torch.stack([i for i in ids if i is not None]) if all(i is not None for i in ids) else None,
        tasks=len(episodes),
        noise={name: torch.stack([e.noise[name] for e in episodes]) for name in episodes[0].noise},
    )
