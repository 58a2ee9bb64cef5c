r"""Prototypes of classes without examples: Snell et al., 2017, https://arxiv.org/abs/1703.05175, section 2.6.

    c_k = g(v_k) / |g(v_k)|,    p(k | x) = softmax_k(-|f(x) - c_k|^2)

v_k are features of class k itself, such as attributes. g is linear, or has one hidden layer. f is the network's body;
with ``width`` a linear layer after it takes the queries into a space of that width, in which the prototypes lie too, as
in the paper's section 3.3. With ``architecture: linear`` there is no body, and f is that layer alone.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Bounds, Int
from metaloom.learners.episode import Episode, Support
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network, linear_layers
from metaloom.learners.solvers.amortized import AmortizedLearner, Embedding, Outputs
from metaloom.learners.solvers.base import CLASS_FEATURES, SOLVERS, Parts
from metaloom.learners.solvers.metric.prototypes import Prototypes, PrototypesConfig
from metaloom.learners.tensors import Tensors

CLASSES, QUERIES = "classes", "queries"  # names of the layers of g, and of that after f


@dataclass(frozen=True)
class ZeroShotPrototypesConfig(PrototypesConfig):
    """How features of classes become prototypes, and how a query is compared with these.

    Attributes:
        metric: Between a query and the prototypes.
        temperature: What the scores are divided by before the softmax.
        unit: Whether a prototype is scaled to length 1.
        unit_classes: Whether the features of a class are scaled to length 1 first.
        hidden: Units of a hidden layer of g; 0: g is linear.
        width: Width of a space that a linear layer takes the queries into too; 0: the prototypes lie in the space of
            the network's features.
        start: Whether the linear layers start at random, or as the identity, where all widths are equal.
    """

    unit: bool = True
    unit_classes: bool = False
    hidden: Annotated[int, Int(8, 512, log=True), Bounds(at_least=0)] = 0
    width: Annotated[int, Int(8, 1024, log=True), Bounds(at_least=0)] = 0
    start: Literal["random", "identity"] = "random"


@SOLVERS.register("zero_shot_prototypical")
class ZeroShotPrototypes(Prototypes):
    """The softmax over negative squared distances to g(v_k); its support set is the features of the classes."""

    Config = ZeroShotPrototypesConfig
    config: ZeroShotPrototypesConfig
    learns = True
    describes = True
    reads_support = frozenset({CLASS_FEATURES})

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        described = self.task.class_features
        assert described is not None  # ``check`` has refused other tasks
        own, given, config = math.prod(features), math.prod(described.inputs), self.config
        widths = [given, *([config.hidden] if config.hidden else []), config.width or own]
        drawn = linear_layers(CLASSES, widths, generator)
        drawn |= linear_layers(QUERIES, [own, config.width], generator) if config.width else {}
        if config.start == "random":
            return drawn
        if len({*widths, own}) > 1 or config.hidden:
            raise LearnerError(
                f"learner.prediction.start: identity needs one width, without a hidden layer, but classes have {given} "
                f"features, queries {own}, and prototypes {widths[-1]}; use random"
            )
        return {name: torch.eye(own) if one.ndim == 2 else torch.zeros(own) for name, one in drawn.items()}

    def adapt(self, phi: Tensors, embed: Embedding, support: Support) -> Outputs:
        prototypes = self._prototypes(phi, support)

        def outputs(query_x: Tensor) -> Tensor:
            return self.logits(phi, self._queries(phi, embed(query_x)), prototypes)

        return outputs

    def inspect(self, phi: Tensors, embed: Embedding, episode: Episode) -> Tensors:
        """Return the prototypes, the embedded queries, and how long the column of g's first layer of each feature is.

        ``prototypes`` [ways, width], ``queries`` [queries, width], ``attribute_weights`` [class features].
        """
        return {
            "prototypes": self._prototypes(phi, episode.support),
            "queries": self._queries(phi, embed(episode.query_x)),
            "attribute_weights": phi[f"{CLASSES}0.weight"].norm(dim=0),
        }

    def learner(self, parts: Parts) -> "ZeroShotLearner":
        return ZeroShotLearner(self, parts)

    def _prototypes(self, phi: Tensors, support: Support) -> Tensor:
        assert support.class_features is not None  # ``check_support`` has refused others
        hidden = support.class_features.flatten(1)
        hidden = F.normalize(hidden, dim=-1) if self.config.unit_classes else hidden
        layers = 1 + bool(self.config.hidden)
        for index in range(layers):
            hidden = F.relu(hidden) if index else hidden
            hidden = F.linear(hidden, phi[f"{CLASSES}{index}.weight"], phi[f"{CLASSES}{index}.bias"])
        return F.normalize(hidden, dim=-1) if self.config.unit else hidden

    def _queries(self, phi: Tensors, features: Tensor) -> Tensor:
        if not self.config.width:
            return features
        return F.linear(features, phi[f"{QUERIES}0.weight"], phi[f"{QUERIES}0.bias"])


class ZeroShotLearner(AmortizedLearner):
    """The learner of a solver without support examples, whose batch norm can take no statistics of them."""

    def __init__(self, solver: ZeroShotPrototypes, parts: Parts) -> None:
        super().__init__(solver, parts)
        if self.batch_norm == "support":
            raise LearnerError(
                f"inner.batch_norm: {solver.name} has no support examples to take statistics of; use frozen or batch"
            )

    def inductive(self) -> None:
        return None
