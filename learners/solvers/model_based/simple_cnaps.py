r"""Simple CNAPs' head: the distance to each class's mean, measured by the class's own regularized covariance.

Bateni et al., 2020, https://arxiv.org/abs/1912.03432, equations 2 and 3:

    p(y = k | x) = softmax_k(-(f(x) - mu_k)^T Q_k^-1 (f(x) - mu_k) / 2)
    Q_k          = lambda_k S_k + (1 - lambda_k) S_task + beta I,    lambda_k = n_k / (n_k + 1)

S_k is the covariance of the class's n_k examples (0 for one example), S_task that of all examples about their mean. It
has no parameters; f is adapted by FiLM. beta I is the paper's, with beta = 1.

Let C [n, d] be the examples less their mean. Both covariances are C^T A_k C for a matrix A_k [n, n] of the labels
alone, and A_k has a square root in closed form, because centring within a class is a projection. So with fewer examples
than features only systems of n unknowns are solved (Woodbury). Either system is at least beta I and is solved by
Cholesky in float64, where features of any size that float32 holds are safe.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from metaloom.learners.domains import Bounds, Learned, Real
from metaloom.learners.episode import Support
from metaloom.learners.solvers.amortized import Outputs
from metaloom.learners.solvers.base import SOLVERS
from metaloom.learners.solvers.metric import class_means
from metaloom.learners.solvers.model_based.adapted_features import AdaptedFeatures, AdaptedFeaturesConfig
from metaloom.learners.tensors import Tensors, one_hot


@dataclass(frozen=True)
class SimpleCnapsConfig(AdaptedFeaturesConfig):
    """How the features are adapted, and the head.

    Attributes:
        ridge: The beta of beta I in every class's covariance.
    """

    ridge: Annotated[float | Learned, Real(1e-3, 1e3, log=True, positive=True), Bounds(above=0)] = 1.0


@SOLVERS.register("simple_cnaps")
class SimpleCnaps(AdaptedFeatures):
    """FiLM, and Mahalanobis distances to the class means; with ``film: false`` it has nothing of its own to learn."""

    config: SimpleCnapsConfig

    @property
    def has_knowledge(self) -> bool:
        return self.config.film or bool(self.learned_knobs())

    def head(self, phi: Tensors, features: Tensor, support: Support) -> Outputs:
        ridge = torch.as_tensor(self.knob(phi, "ridge"), dtype=torch.float64, device=features.device)
        given = features.double()
        means = class_means(given, support.y, self.task.outputs)
        measure = distances(given, one_hot(support.y, self.task.outputs, given), ridge)
        return lambda queries: -0.5 * measure(queries.double() - means[:, None]).to(queries.dtype)


def distances(features: Tensor, members: Tensor, ridge: Tensor) -> Outputs:
    """Return the map of v [ways, q, d], each class's own, to v^T Q_k^-1 v: [q, ways].

    Args:
        features: The support set's [n, d], float64.
        members: 1 where an example is of a class, else 0: [n, ways].
        ridge: beta, [].
    """
    count, size = features.shape
    centred = features - features.mean(0)
    own, common, within = _shares(members)
    if size <= count:
        mixed = common * _eye(count, features) + own * within  # A_k
        covariance = centred.T @ mixed @ centred + ridge * _eye(size, features)
        whitened = _inverse_factor(covariance)  # [ways, d, d]
        return lambda v: (v @ whitened.mT).square().sum(-1).T
    root = common.sqrt() * _eye(count, features) + ((common + own).sqrt() - common.sqrt()) * within
    reach = root @ centred  # [ways, n, d]: Q_k = ridge I + reach^T reach
    system = _eye(count, features) + reach @ reach.mT / ridge
    spanned = _inverse_factor(system) @ reach
    return lambda v: ((v.square().sum(-1) - (v @ spanned.mT).square().sum(-1) / ridge) / ridge).T


def _shares(members: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights of S_k and of S_task [ways, 1, 1], over their numbers of examples, and the projections.

    A projection [n, n] centres the examples of a class, and leaves the others out.
    """
    counts = members.sum(0)[:, None, None]
    share = counts / (counts + 1)
    each = members.T  # [ways, n]
    within = torch.diag_embed(each) - each[:, :, None] * each[:, None, :] / counts.clamp_min(1)
    return share / (counts - 1).clamp_min(1), (1 - share) / max(len(members) - 1, 1), within


def _inverse_factor(matrix: Tensor) -> Tensor:
    """Return L^-1 of matrix = L L^T, [..., m, m], by a triangular solve."""
    factor = torch.linalg.cholesky(matrix)
    inverse: Tensor = torch.linalg.solve_triangular(
        factor, _eye(matrix.shape[-1], matrix).expand_as(matrix), upper=False
    )
    return inverse


def _eye(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)
