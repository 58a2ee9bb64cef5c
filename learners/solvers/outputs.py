"""What solvers without inner steps make of queries: outputs, judged while training, or asked of an adapted model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from metaloom.learners.base import Adapted
from metaloom.learners.solvers.embedding import Embedding, Outputs
from metaloom.learners.task_kinds import TaskKind
from metaloom.learners.tensors import Tensors


class Judged(NamedTuple):
    """How an episode went while training.

    Attributes:
        loss: What is minimized, [].
        accuracy: Of its queries, []; NaN where there is none.
        curves: Its losses and accuracies in the record, where they are not these two (``TaskKind.curves``).
    """

    loss: Tensor
    accuracy: Tensor
    curves: tuple[Sequence[float], Sequence[float]] | None = None

    @classmethod
    def of(cls, kind: TaskKind, outputs: Tensor, targets: Tensor) -> "Judged":
        """Judge the outputs [queries, outputs] of an episode's queries, as its kind of task has it."""
        answers = outputs.detach()
        curves = kind.curves(answers, targets) if kind.in_order else None
        return cls(kind.outer(outputs, targets), kind.score(answers, targets), curves)


@dataclass(frozen=True)
class AdaptedByOutputs(Adapted):
    """A function from queries to outputs, and the kind of task that turns outputs into predictions."""

    outputs: Outputs
    kind: TaskKind
    embed: Embedding

    def plain(self) -> tuple[Callable[[Tensors, Tensor], Tensor], Tensors]:
        """Return the outputs by plain operations; the support set's features are constants of the function."""

        def forward(_: Tensors, query_x: Tensor) -> Tensor:
            self.embed.passes.fused = False
            try:
                return self.kind.predict(self.outputs(query_x))
            finally:
                self.embed.passes.fused = True

        return forward, {}

    def predict(self, query_x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.kind.predict(self.outputs(query_x))
