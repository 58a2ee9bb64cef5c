r"""Distilled examples that are judged by what they do to a network, not by the network that they train.

Zhao, Mopuri and Bilen, 2021 (DC), https://arxiv.org/abs/2006.05929, equations 9 and 10: their gradients match

    sum_t sum_c D(grad l(S_c, theta_t), grad l(T_c, theta_t)),    D = sum_layers sum_rows (1 - cos)

where S_c and T_c are the learned and the real examples of class c, and a row is what leads to one output of a
layer. Zhao and Bilen, 2023 (DM), https://arxiv.org/abs/2110.04181, equation 4: the means of their features match

    sum_c |mean psi(S_c) - mean psi(T_c)|^2,    psi the body of a random network

The theta_t are constants: no gradient passes through the inner loop, which memory and time do not feel, and
nothing else can be learned beside the examples. ``solvers/matching.py`` takes the sums.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from metaloom.learners.knowledge.distilled_data import DATA, DistilledData
from metaloom.learners.tensors import Tensors

SMALLEST = 1e-6  # beside the lengths' product, as in the reference code: a row without a gradient counts 1


class MatchedData(DistilledData, ABC):
    """Learned examples of every class with a distance of their own to the real ones."""

    solver = "matching"

    @property
    @abstractmethod
    def compares_gradients(self) -> bool:
        """Whether ``distance`` compares gradients by theta, or else mean features under ``features``."""

    @abstractmethod
    def distance(self, own: Tensors, real: Tensors) -> Tensor:
        """Return how far the learned examples of a class are from the real ones: []."""

    def of_class(self, label: int) -> slice:
        """Return where the examples of a class stand."""
        first = label * self.config.per_class
        return slice(first, first + self.config.per_class)


@DATA.register("gradient_matching")
class GradientMatchedData(MatchedData):
    """Examples whose gradients point where those of the real data do."""

    compares_gradients = True

    def distance(self, own: Tensors, real: Tensors) -> Tensor:
        """Sum 1 - cosine over the rows of every weight; biases and norms, of one dimension, are left out."""
        rows = [(own[name].flatten(1), real[name].flatten(1)) for name in own if own[name].ndim > 1]
        return torch.stack([(1 - cosines(left, right)).sum() for left, right in rows]).sum()


@DATA.register("distribution_matching")
class DistributionMatchedData(MatchedData):
    """Examples whose mean features under random networks are those of the real data."""

    compares_gradients = False

    def distance(self, own: Tensors, real: Tensors) -> Tensor:
        """Sum the squared differences of the mean features."""
        return torch.stack([(own[name] - real[name]).square().sum() for name in own]).sum()


def cosines(left: Tensor, right: Tensor) -> Tensor:
    """Return the cosine of each pair of rows: [rows, d] to [rows]."""
    lengths = torch.linalg.vector_norm(left, dim=-1) * torch.linalg.vector_norm(right, dim=-1)
    products: Tensor = (left * right).sum(-1)
    found: Tensor = products / (lengths + SMALLEST)
    return found
