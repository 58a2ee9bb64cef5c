"""Answers to a sequence by a solver of support sets: each example is a query of what came before it."""

import torch
from torch import Tensor

from metaloom.learners.episode import Episode, Support
from metaloom.learners.solvers.amortized import AmortizedSolver, Embedding
from metaloom.learners.task_kinds import LABELLED, SEQUENCE
from metaloom.learners.tensors import Tensors


class SequentialSolver(AmortizedSolver):
    """A solver whose support set may be empty or lack classes: it is adapted again at every step of a sequence."""

    serves = frozenset({LABELLED, SEQUENCE.name})

    def outputs(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        if not self.task.task_kind.in_order:
            return super().outputs(phi, embed, episode)
        x, y = episode.query_x, episode.query_y
        before = [Support(x[:step], y[:step]) for step in range(len(y))]
        return torch.cat([self.adapt(phi, embed, one)(x[len(one.y) : len(one.y) + 1]) for one in before])
