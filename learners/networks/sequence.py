"""Networks of sequences, which have features at every place beside those of the whole example."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.series.observed import split_observed
from metaloom.learners.networks.tokens import PADDING, averaged, token_count
from metaloom.learners.tensors import Tensors


class SequenceNetwork(Network, ABC):
    """A network of text [length], or of series [channels, length]; its features are the average of its states."""

    @property
    def reads_text(self) -> bool:
        """Whether examples are token numbers."""
        return bool(token_count(self.task))

    @property
    def causal(self) -> bool:
        """Whether the state of a place depends on this and earlier places alone."""
        return False

    @property
    def length(self) -> int:
        """How many places an example has."""
        return self.task.inputs[-1]

    @abstractmethod
    def tokens(self, theta: Tensors) -> Tensor:
        """Return the embedding of the tokens, [tokens, features]; of a network of text."""

    @abstractmethod
    def states(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        """Map x [n, *inputs] to the features of each place [n, length, features]."""

    def observed(self, x: Tensor) -> Tensor:
        """Return which places of examples [n, *inputs] hold something: bool [n, length]."""
        if self.reads_text:
            return x != PADDING
        values, seen = split_observed(x, self.task)
        return torch.ones_like(values[:, 0] if values.ndim == 3 else values, dtype=torch.bool) if seen is None else seen

    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        return averaged(self.states(theta, x, norm, phi), self.observed(x))
