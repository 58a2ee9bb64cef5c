r"""Graphs over the examples of an episode, and what spreads along their edges: pure functions, batched over episodes.

Zhou et al., 2003, "Learning with local and global consistency", equation 3: with S = D^-1/2 W D^-1/2,

    F = (I - alpha S)^-1 Y

spreads labels, or anything else, from each node to its neighbours, theirs, and so on, damped by alpha < 1.
"""

import torch
from torch import Tensor

from metaloom.learners.solvers.transductive.preparing import squared_distances


def without_loops(weights: Tensor) -> Tensor:
    """Set the diagonal of weights [e, n, n] to 0."""
    return weights * (1 - torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device))


def nearest(similarity: Tensor, neighbours: int) -> Tensor:
    """Mark each node's most similar other nodes: bool [e, n, n]; all of them where there are fewer than asked for."""
    n = similarity.shape[-1]
    loops = torch.eye(n, dtype=torch.bool, device=similarity.device)
    others = similarity.detach().masked_fill(loops, -torch.inf)
    count = min(neighbours, n - 1)
    found = torch.zeros_like(others, dtype=torch.bool)
    return found.scatter(-1, others.topk(count, dim=-1).indices, value=True) if count > 0 else found


def normalized(weights: Tensor) -> Tensor:
    """Return D^-1/2 W D^-1/2 of symmetric weights [e, n, n]; a node without an edge keeps none."""
    degrees = weights.sum(-1)
    roots = torch.where(degrees > 0, degrees, torch.ones_like(degrees)).rsqrt()
    return roots.unsqueeze(-1) * weights * roots.unsqueeze(-2)


def propagator(weights: Tensor, damping: float | Tensor) -> Tensor:
    """Return (I - damping S)^-1 of symmetric weights [e, n, n], S their normalized ones."""
    eye = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    found: Tensor = torch.linalg.solve(eye - damping * normalized(weights), eye.expand_as(weights))
    return found


def powered_similarity(x: Tensor, neighbours: int, exponent: float | Tensor) -> Tensor:
    """Return W + W' of W = max(x_i . x_j, 0)^exponent among each node's nearest: [e, n, n] (iLPC, equation 3)."""
    products = x @ x.mT
    kept = products.clamp_min(TINY_SIMILARITY) ** exponent * nearest(products, neighbours)
    return kept + kept.mT


def gaussian_similarity(x: Tensor, scale: float | Tensor) -> Tensor:
    """Return exp(-scale d^2 / s) without loops, s being the deviation of the squared distances: [e, n, n].

    EPNet's graph (Rodriguez et al., 2020, equations 1 and 2) as its code has it: s is the standard deviation over the
    pairs that are apart, where the paper's text has the variance. One pair or equal distances have no deviation: s is
    then their mean.
    """
    distances = without_loops(squared_distances(x, x))
    apart = (distances > 0).to(distances.dtype)
    count = apart.sum((1, 2), keepdim=True)
    mean = distances.sum((1, 2), keepdim=True) / count.clamp_min(1)
    spread = ((distances - mean).square() * apart).sum((1, 2), keepdim=True) / (count - 1).clamp_min(1)
    deviation = torch.where(spread > NO_SPREAD * mean.square(), spread, mean.square() + TINY_SIMILARITY).sqrt()
    return without_loops(torch.exp(-scale * distances / deviation))


TINY_SIMILARITY = 1e-12  # a power of 0 has no slope
NO_SPREAD = 1e-10  # of the squared mean: below it the deviation is rounding


def local_similarity(x: Tensor, neighbours: int) -> Tensor:
    """Return the mean of W and W', W = exp(-4 d_ij^2 / r_i^2), r_i the distance to the last neighbour: [e, n, n].

    Calder et al., 2020, https://arxiv.org/abs/2006.11184, section 4.
    """
    distances = squared_distances(x, x)
    near = nearest(-distances, neighbours)
    radii = (distances * near).amax(-1, keepdim=True).clamp_min(TINY_SIMILARITY)
    weights = torch.exp(-4 * distances / radii) * near
    return (weights + weights.mT) / 2
