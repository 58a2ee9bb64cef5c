"""What a gradient learner returns: the network with the parameters of one task."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaloom.learners.base import Adapted
from metaloom.learners.episode import Episode
from metaloom.learners.solvers.inner_loop import InnerLoop
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class AdaptedByGradient(Adapted):
    """A network with the parameters of one task."""

    loop: InnerLoop
    phi: Tensors
    theta: Tensors
    episode: Episode
    taken: int
    losses: tuple[float, ...] = ()

    def support_loss(self, theta: Tensors, taken: int) -> float:
        """Return the outer loss of the support set at some parameters."""
        support = self.episode.support
        asked = replace(self.episode, query_x=support.x, query_y=support.y)
        with torch.no_grad():
            return float(self.loop.outer(self.phi, theta, asked, taken).loss)

    def predict(self, query_x: Tensor) -> Tensor:
        episode = replace(self.episode, query_x=query_x, query_y=query_x[:, 0])
        with torch.no_grad():
            outputs = self.loop.query(self.phi, self.theta, episode, self.taken).outputs
        return self.loop.task.task_kind.predict(outputs)
