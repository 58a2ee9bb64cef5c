r"""Pre-training as a solver: the body of a network learns by an objective of its own, over all examples of an episode.

    F(phi)         = objective(phi, body, all examples of the episode, support and queries)
    outputs(query) = - |f(query) - mean of f over a class|^2 / temperature

The first line is what the outer loop minimizes. The second is how validation, test and an exported bundle solve a task:
by the nearest class mean on the features (``prototypes``; Snell et al., 2017, https://arxiv.org/abs/1703.05175), which
trains nothing. So a pre-training run is an ordinary trial: its training loss is the objective, and its validation
accuracy says how well the features tell new classes apart.

A solver of this kind defines ``objective``, and ``parameters`` for the networks that the objective needs beside the
body, such as a decoder. Cost: the passes of the objective, and one pass over the clean examples without a gradient,
whose batch-norm statistics are kept and whose accuracy is recorded.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Generator, Tensor

from metaloom.learners.domains import Real
from metaloom.learners.episode import Episode
from metaloom.learners.networks.base import Network
from metaloom.learners.solvers.amortized import Embedding, Judged
from metaloom.learners.solvers.metric.prototypes import Prototypes, PrototypesConfig
from metaloom.learners.tensors import Tensors


@dataclass(frozen=True)
class PretrainingConfig(PrototypesConfig):
    """How a task is solved on the features.

    Attributes:
        metric: Between a query and the class means.
        temperature: What the scores are divided by before the softmax; the objective does not read it.
    """

    temperature: Annotated[float, Real(0.01, 100.0, log=True, per=())] = 1.0


class PretrainingSolver(Prototypes):
    """Trains the body by ``objective``; a task is solved by the nearest class mean on the features."""

    config: PretrainingConfig
    learns = True
    takes_features = False  # an objective changes the examples

    @property
    def random(self) -> bool:
        return True

    @abstractmethod
    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        """Draw the solver's own networks, such as a decoder or a head; see ``AmortizedSolver.parameters``."""

    @abstractmethod
    def objective(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensor:
        """Return what the outer loop minimizes, [].

        Args:
            phi: The solver's own part of phi.
            embed: The network's body: examples [n, *inputs] to features [n, width].
            episode: The episode, whose support set has only examples that are there; ``noise`` holds the random
                numbers of ``draw_loss``.
        """

    def loss(self, phi: Tensors, embed: Embedding, episode: Episode) -> Judged:
        """Return the objective, and the accuracy of the queries by the class means on the features before the step."""
        there = replace(episode, support=episode.support.kept())
        loss = self.objective(phi, embed, there)
        with torch.no_grad():  # last: batch norm keeps the statistics of the clean examples
            outputs = self.outputs(phi, embed, there)
        return Judged(loss, self.task.task_kind.score(outputs, episode.query_y))


def all_examples(episode: Episode) -> Tensor:
    """Return the support examples that are there, then the queries: [n, *inputs]."""
    return torch.cat([episode.support.kept().x, episode.query_x])
