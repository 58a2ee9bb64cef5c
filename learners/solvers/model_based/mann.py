r"""A network with an external memory that binds what it sees to labels that come one step late.

Santoro, Bartunov, Botvinick, Wierstra and Lillicrap, 2016, https://arxiv.org/abs/1605.06065:

    o_t = softmax(W [h_t, r_t] + b) of the inputs (x_1, 0), (x_2, y_1), ..., (x_t, y_{t-1})

with h_t the controller's state and r_t what it reads from its memory (``memory.py``). In a sequence every step is an
answer, and the loss is the mean of -log o_t(y_t). Of a support set the pairs are gone through first, one of each class
after the other; each query then is a next step of its own, so that no query sees another.

The labels are one-hot with a place for each class of the training: a task may have fewer classes, not more. Which class
has which label is drawn for each episode, since the weights do distinguish the labels.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Added, Int, Learned, Real
from metaloom.learners.episode import Episode, Episodes, Support, TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding, Judged, Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.model_based.memory import ExternalMemory, MemoryRun, parameters
from metaloom.learners.solvers.model_based.memory_pass import MemoryShape
from metaloom.learners.task_kinds import CLASSIFICATION, SEQUENCE, earlier_of_class
from metaloom.learners.tensors import Tensors, one_hot


@dataclass(frozen=True)
class MannConfig:
    """The controller and its memory; the defaults are the paper's.

    Attributes:
        width: Of the LSTM that controls the memory.
        slots: Places of the memory.
        slot_width: Numbers that a place holds.
        heads: How many places are read, and written, at a step.
        gamma: How much of a place's usage is left after a step; the one used least is written next.
        strength: Multiplies the cosines of reading before their softmax; the paper's is 1, more reads fewer places.
        side: Pictures are averaged down to this many pixels a side; null leaves them (the paper's Omniglot has 20).
    """

    width: Annotated[int, Int(16, 1024, log=True)] = 200
    slots: Annotated[int, Int(8, 1024, log=True)] = 128
    slot_width: Annotated[int, Int(8, 256, log=True)] = 40
    heads: Annotated[int, Int(1, 16)] = 4
    gamma: Annotated[float, Real(0.0, 1.0, per=())] = 0.95
    strength: Annotated[float | Learned, Real(0.1, 100.0, log=True, positive=True)] = 1.0
    side: Annotated[int | None, Int(4, 256), Added()] = None

    def __post_init__(self) -> None:
        if self.heads > self.slots:
            raise LearnerError(f"learner.prediction.heads: {self.heads} heads need as many slots, got {self.slots}")


@SOLVERS.register("mann")
class Mann(AmortizedSolver):
    """A memory-augmented network over the examples themselves, flattened."""

    Config = MannConfig
    config: MannConfig
    reads = frozenset()
    reads_support = frozenset({"mask"})
    serves = frozenset({CLASSIFICATION.name, SEQUENCE.name})
    needs_classes = True
    any_ways = False
    learns = True
    takes_features = False  # examples are made smaller before the network sees them

    def __init__(self, config: MannConfig, task: TaskShape) -> None:
        super().__init__(config, task)
        if config.side is not None and len(task.inputs) != 3:
            given = " x ".join(map(str, task.inputs))
            raise LearnerError(f"learner.prediction.side: got {config.side}, for pictures alone; inputs are {given}")
        self.shape = MemoryShape(config.width, config.heads, config.slots, config.slot_width)

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        side = self.config.side
        width = features[0] if side is None else self.task.inputs[0] * side * side
        return parameters(self.shape, width + self.task.outputs, self.task.outputs, generator)

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        memory, (x, y) = self._memory(phi), in_turn(support, self.task.outputs)
        seen = memory.run(self._given(embed, x, y).unsqueeze(0), memory.empty(1)).state

        def outputs(query_x: Tensor) -> Tensor:
            given = self._after(embed, query_x, y)
            return memory.outputs(memory.run(given.unsqueeze(1), seen.repeated(query_x.shape[0])).rows.squeeze(1))

        return outputs

    def outputs(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        if not self.task.task_kind.in_order:
            return super().outputs(phi, embed, episode)
        return self._memory(phi).outputs(self._over_sequences(phi, embed, [episode]).rows[0])

    def losses_of_batch(self, phi: Tensors, embed: Embedding, episodes: Episodes) -> list[Judged] | None:
        if self.task.task_kind.in_order:
            rows = self._over_sequences(phi, embed, episodes).rows
        elif any(one.support.mask is not None for one in episodes):
            return None  # their support sets differ in length
        else:
            rows = self._over_queries(phi, embed, episodes)
        outputs, kind = self._memory(phi).outputs(rows), self.task.task_kind
        return [Judged.of(kind, one, episode.query_y) for one, episode in zip(outputs, episodes, strict=True)]

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Show how each slot is read at each step, over the heads; of a support set its steps, then each query's."""
        if self.task.task_kind.in_order:
            run = self._over_sequences(phi, embed, [episode])
            _, right = self.task.task_kind.curves(self._memory(phi).outputs(run.rows[0]), episode.query_y)
            by_presentation = torch.tensor(right, dtype=run.rows.dtype, device=run.rows.device)
            return {"reads": run.readings[0].mean(1), "by_presentation": by_presentation}
        memory, (x, y) = self._memory(phi), in_turn(episode.support, self.task.outputs)
        support = memory.run(self._given(embed, x, y).unsqueeze(0), memory.empty(1))
        given = self._after(embed, episode.query_x, y)
        queries = memory.run(given.unsqueeze(1), support.state.repeated(len(given)))
        return {"reads": torch.cat([support.readings[0], queries.readings[:, 0]]).mean(1)}

    def _memory(self, phi: Tensors) -> ExternalMemory:
        return ExternalMemory(phi, self.shape, self.config.gamma, self.knob(phi, "strength"))

    def _over_sequences(self, phi: Tensors, embed: Embedding, episodes: Episodes) -> MemoryRun:
        """Go through sequences of equal length in one pass; the rows are [episodes, steps, width + reads]."""
        memory = self._memory(phi)
        each = [self._given(embed, one.query_x, one.query_y) for one in episodes]
        return memory.run(torch.stack(each), memory.empty(len(episodes)))

    def _over_queries(self, phi: Tensors, embed: Embedding, episodes: Episodes) -> Tensor:
        """Go through the support sets of episodes, then their queries: [episodes, queries, width + reads]."""
        memory = self._memory(phi)
        pairs = [in_turn(one.support, self.task.outputs) for one in episodes]
        each = [self._given(embed, x, y) for x, y in pairs]
        seen = memory.run(torch.stack(each), memory.empty(len(episodes))).state
        queries = len(episodes[0].query_x)
        asked = [self._after(embed, one.query_x, y) for one, (_, y) in zip(episodes, pairs, strict=True)]
        rows = memory.run(torch.cat(asked).unsqueeze(1), seen.repeated(queries)).rows
        return rows.view(len(episodes), queries, -1)

    def _given(self, embed: Embedding, x: Tensor, y: Tensor) -> Tensor:
        """Put beside each example [n, *features] the label of the one before, and zeros beside the first."""
        pixels = self._pixels(embed, x)
        late = one_hot(y, self.task.outputs, pixels)
        return torch.cat([pixels, torch.cat([torch.zeros_like(late[:1]), late[:-1]])], -1)

    def _after(self, embed: Embedding, x: Tensor, y: Tensor) -> Tensor:
        """Put beside each query [n, *features] the last of the support set's labels y; zeros where it is empty."""
        pixels = self._pixels(embed, x)
        last = one_hot(y[-1:], self.task.outputs, pixels).sum(0)
        return torch.cat([pixels, last.expand(x.shape[0], -1)], -1)

    def _pixels(self, embed: Embedding, x: Tensor) -> Tensor:
        side = self.config.side
        return embed(x if side is None else F.adaptive_avg_pool2d(x, side))


def in_turn(support: Support, classes: int) -> tuple[Tensor, Tensor]:
    """Return the examples that are there and their labels, one of each class after the other, then the next of each.

    So the order in which classes are given does not matter, only that of the examples of one class.
    """
    x, y = (support.x, support.y) if support.mask is None else (support.x[support.mask], support.y[support.mask])
    order = (earlier_of_class(y) * classes + y).argsort()
    return x[order], y[order]
