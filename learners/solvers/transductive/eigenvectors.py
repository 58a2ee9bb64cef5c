r"""The leading eigenvectors of symmetric matrices, with a derivative where others of their eigenvalues are equal.

For A = V diag(l) V' and a gradient G of V's leading columns (0 for the others),

    dA = V ((V'G) o K) V',  symmetrized,    K_ij = 1 / (l_j - l_i) for l_i != l_j, 0 elsewhere

``torch.linalg.eigh`` divides by the differences of all eigenvalues, also of those whose vectors are not used: its
gradient is NaN for a matrix of less than full rank, such as that of more examples than features.
"""

from typing import Any

import torch
from torch import Tensor

EQUAL = 1e-9  # of the largest eigenvalue: nearer ones count as equal


class LeadingEigenvectors(torch.autograd.Function):
    """Of symmetric matrices [e, n, n], the eigenvectors [e, n, k] of the k largest eigenvalues, largest first."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, count: int) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        # the sign of an eigenvector is free: its largest entry is positive
        largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
        vectors = vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors.dtype)
        values, vectors = values.flip(-1), vectors.flip(-1)
        ctx.save_for_backward(values, vectors)
        ctx.count = count
        leading: Tensor = vectors[..., :count].clone()
        return leading

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        values, vectors = ctx.saved_tensors
        gaps = values.unsqueeze(-2)[..., : ctx.count] - values.unsqueeze(-1)  # [e, n, k]: l_j - l_i
        apart = gaps.abs() > EQUAL * values[..., :1].abs().unsqueeze(-1)
        factors = torch.where(apart, 1 / torch.where(apart, gaps, torch.ones_like(gaps)), torch.zeros_like(gaps))
        found = vectors @ ((vectors.mT @ gradients[0]) * factors) @ vectors[..., : ctx.count].mT
        return (found + found.mT) / 2, None


def leading_eigenvectors(matrix: Tensor, count: int) -> Tensor:
    """Return the eigenvectors [e, n, k] of the k largest eigenvalues of symmetric matrices [e, n, n]."""
    found: Tensor = LeadingEigenvectors.apply(matrix, count)  # type: ignore[no-untyped-call]
    return found
