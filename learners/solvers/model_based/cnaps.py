r"""CNAPs' head: a network maps each class's mean feature to the class's row of a linear classifier.

Requeima et al., 2019, https://arxiv.org/abs/1906.07697, section 3.2:

    p(y = k | x) = softmax_k(w_k . f(x) + b_k),    (w_k, b_k) = psi(mu_k),    mu_k = mean of f over the class

f is adapted by FiLM; psi is the same network for every class, so that any number of classes will do. It is residual:
w_k = mu_k + g(mu_k). The last layers have no bias: what is added to every class alike cancels in the softmax.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int
from metaloom.learners.episode import Support
from metaloom.learners.networks.base import Network, linear_layers
from metaloom.learners.solvers.amortized import Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric import class_means
from metaloom.learners.solvers.model_based.adapted_features import AdaptedFeatures, AdaptedFeaturesConfig
from metaloom.learners.tensors import Tensors, part, under

CLASSIFIER = "classifier"
LAYERS = 3  # of the networks that generate the classifier


@dataclass(frozen=True)
class CnapsConfig(AdaptedFeaturesConfig):
    """How the features are adapted, and how the classifier is generated.

    Attributes:
        hidden: Width of the networks that map a class's mean feature to its weights and to its bias.
    """

    hidden: Annotated[int, Int(4, 1024, log=True)] = 64


@SOLVERS.register("cnaps")
class Cnaps(AdaptedFeatures):
    """FiLM, and generated linear weights; without its autoregressive variant."""

    config: CnapsConfig

    def parameters(self, network: Network | None, features: tuple[int, ...], generator: Generator) -> Tensors:
        count, hidden = math.prod(features), [self.config.hidden] * (LAYERS - 1)
        weights = linear_layers("weights", [count, *hidden, count], generator)
        own = weights | linear_layers("bias", [count, *hidden, 1], generator)
        for name in ("weights", "bias"):
            del own[f"{name}{LAYERS - 1}.bias"]
        return super().parameters(network, features, generator) | under(CLASSIFIER, own)

    def head(self, phi: Tensors, features: Tensor, support: Support) -> Outputs:
        means = class_means(features, support.y, self.task.outputs)
        own = part(phi, CLASSIFIER)
        weights = means + generated(own, "weights", means)  # [ways, d]
        bias = generated(own, "bias", means).squeeze(-1)  # [ways]
        return lambda queries: F.linear(queries, weights, bias)


def generated(phi: Tensors, name: str, x: Tensor) -> Tensor:
    """Apply the layers ``NAME0`` ..., with ELU between them."""
    for layer in range(LAYERS):
        x = F.linear(x if layer == 0 else F.elu(x), phi[f"{name}{layer}.weight"], phi.get(f"{name}{layer}.bias"))
    return x
