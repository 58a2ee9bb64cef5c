"""What a gradient learner returns: the network with the parameters of one task."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metaloom.learners.base import Adapted
from metaloom.learners.episode import Episode
from metaloom.learners.solvers.inner_loop import InnerLoop
from metaloom.learners.solvers.slots import noise_of
from metaloom.learners.tensors import Tensors, part, under


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

    def plain(self) -> tuple[Callable[[Tensors, Tensor], Tensor], Tensors]:
        """Return the forward pass with batch norm's statistics computed once, of the support set or in training."""
        loop, last = replace(self.loop, functional=True), max(self.taken - 1, 0)
        noise = noise_of(self.episode, "architecture", self.taken)
        statistics = loop.running
        if not statistics and loop.slots.architecture.has_batch_norm:
            with torch.no_grad():
                statistics = loop.forward(self.phi, self.theta, self.episode.support_x, last, noise=noise).statistics

        def forward(tensors: Tensors, query_x: Tensor) -> Tensor:
            theta, given = part(tensors, "theta"), part(tensors, "statistics", optional=True)
            outputs = loop.forward(self.phi, theta, query_x, last, given or None, noise).outputs
            return loop.kind.predict(outputs)

        return forward, under("theta", self.theta) | under("statistics", statistics)

    def predict(self, query_x: Tensor) -> Tensor:
        episode = replace(self.episode, query_x=query_x, query_y=query_x[:, 0])
        with torch.no_grad():
            outputs = self.loop.query(self.phi, self.theta, episode, self.taken).outputs
        return self.loop.task.task_kind.predict(outputs)
