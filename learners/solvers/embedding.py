"""The body of a network at one phi, as the solvers without inner steps see it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import HEAD, Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.tensors import Tensors, part, under

Outputs = Callable[[Tensor], Tensor]
OWN = "own"  # the part of the running statistics that is of the solver's own networks


def check_held(network: Network | None, learns: bool, solver: str) -> None:
    """Refuse a body of which everything is held, where nothing else is learned; raises LearnerError."""
    if network is None or learns or not network.held:
        return
    if all(name.startswith(HEAD) for name in network.moved(network.parameters(Generator()))):
        raise LearnerError(
            f"learner.initialization.freeze: every layer is taken, and {solver} learns nothing beside them; use "
            "kind: pretrained, fewer layers, or freeze: false"
        )


@dataclass
class Passes:
    """What the passes of an embedding share with those of its copies at other parameters.

    Attributes:
        statistics: Batch norm's of the last pass.
        norm: That of the solver's own networks in the last pass; None where they have none.
        fused: Whether batch norm's own kernels may be used.
    """

    statistics: Tensors = field(default_factory=dict)
    norm: Normalization | None = None
    fused: bool = True


@dataclass
class Embedding:
    """The network's body at one phi: examples [n, *features] to features [n, width].

    ``dataclasses.replace(embed, theta=...)`` is the same body at other parameters.

    Attributes:
        network: Whose body it is; None leaves the inputs as they are, flattened.
        theta: Its parameters.
        knowledge: The network's own part of phi.
        together: Whether support and query are embedded in one batch, whose statistics they share.
        given: Batch norm's statistics; None uses each batch's own.
        computed: The parameters whose features examples have in their place (``AmortizedLearner.on_features``); None
            where examples are examples.
        passes: What its passes share with its copies'.
    """

    network: Network | None
    theta: Tensors
    knowledge: Tensors
    together: bool
    given: Tensors | None = None
    computed: Tensors | None = None
    passes: Passes = field(default_factory=Passes)

    @property
    def statistics(self) -> Tensors:
        """Batch norm's statistics of the last pass."""
        return self.passes.statistics

    @property
    def collected(self) -> Tensors:
        """Batch norm's statistics of the last pass, those of the solver's own networks under ``OWN``."""
        own = {} if self.passes.norm is None else self.passes.norm.collected
        return self.statistics | under(OWN, own)

    def own_norm(self, alone: Callable[[Normalization], object]) -> Normalization:
        """Return the batch norm of the solver's own networks for one pass, by the mode of the network's.

        Args:
            alone: Runs them on the support set by itself, whose statistics queries are then normalized with.
        """
        given = part(self.given or {}, OWN, optional=True)
        if not given and not self.together:
            first = Normalization(fused=self.passes.fused)
            alone(first)
            given = first.collected
        self.passes.norm = Normalization(given or None, fused=self.passes.fused)
        return self.passes.norm

    def __call__(
        self, x: Tensor, given: Tensors | None = None, between: Callable[[int, Tensor], Tensor] | None = None
    ) -> Tensor:
        """Embed examples; with these statistics of batch norm, where some are given.

        ``between`` changes hidden layers (``Normalization.between``).
        """
        if self.computed is not None and self.computed is not self.theta:
            raise LearnerError("learner.prediction: a solver that changes the network must set takes_features = False")
        if self.computed is not None:
            self.passes.statistics = self.given or {}
        if self.network is None or self.computed is not None:
            return x.flatten(1)
        norm = Normalization(self.given if given is None else given, fused=self.passes.fused, between=between)
        features = self.network.features(self.theta, x, norm, self.network.sampled(self.knowledge, {}))
        self.passes.statistics = norm.collected if norm.given is None else norm.given
        return features

    def beside(self, support_x: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """Return queries to the features of the support set and of the queries, as batch norm's mode asks."""
        if not self.together:
            features = self(support_x)
            statistics = self.statistics
            return lambda query_x: (features, self(query_x, statistics))

        def in_one_batch(query_x: Tensor) -> tuple[Tensor, Tensor]:
            both = self(torch.cat([support_x, query_x]))
            return both[: len(support_x)], both[len(support_x) :]

        return in_one_batch

    def fitted(self, support_x: Tensor, fit: Callable[[Tensor], Outputs]) -> Outputs:
        """Return queries to the outputs of what ``fit`` makes of the support set's features.

        It is made once, and only where batch norm sees support and queries together again for each batch of queries.
        """
        if self.together:
            both = self.beside(support_x)

            def outputs(query_x: Tensor) -> Tensor:
                features, queries = both(query_x)
                return fit(features)(queries)

            return outputs
        features = self(support_x)
        statistics, model = self.statistics, fit(features)
        return lambda query_x: model(self(query_x, statistics))
