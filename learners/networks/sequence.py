"""Networks of sequences, which have features at every place beside those of the whole example."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor

from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import ARCHITECTURES, Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.series.observed import split_observed
from metaloom.learners.networks.tokens import PADDING, averaged, token_count, vocabulary_digest
from metaloom.learners.tensors import Tensors


def check_text(network: Network) -> None:
    """Refuse a network that would read the token numbers of texts as quantities; raises LearnerError."""
    if not token_count(network.task) or network.takes_text:
        return
    able = " or ".join(name for name, one in ARCHITECTURES.items() if getattr(one, "takes_text", False))
    raise LearnerError(
        f"learner.architecture: {ARCHITECTURES.name_of(type(network))} reads quantities, but this task's examples are "
        f"the token numbers of texts; use {able}"
    )


class TextNetwork(Network, ABC):
    """A network that may read text: it belongs to a vocabulary, by whose token numbers its embedding has learned."""

    takes_text = True

    @property
    def fixed(self) -> Tensors:
        """Return the digest of the vocabulary of a network of text."""
        known = vocabulary_digest(self.task)
        return {} if known is None else {"vocabulary": known}

    def holding(self, fixed: Tensors) -> Self:
        other, own = super().holding(fixed), self.fixed
        if any(not torch.equal(own[name], value.to(own[name])) for name, value in fixed.items()):
            raise LearnerError(
                "learner.architecture: the network that it starts from has learned another vocabulary, so that its "
                "token numbers mean other words; tasks.vocabulary: BUNDLE reads the texts by that of its bundle"
            )
        return other


class SequenceNetwork(TextNetwork, ABC):
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
