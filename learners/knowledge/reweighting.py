r"""Learning to reweight: weigh an example by how far its gradient points where the clean loss falls.

Ren, Zeng, Yang and Urtasun, 2018, https://arxiv.org/abs/1803.09050, equations 4 to 9 and algorithm 1. With
one virtual step theta^(eps) = theta - rate * sum_i eps_i grad l_i(theta) from eps = 0:

    u_i = -d L_clean(theta^(eps)) / d eps_i at 0 = rate * <grad l_i(theta), grad L_clean(theta)>
    w_i = max(u_i, 0) / sum_j max(u_j, 0)

The rate cancels, and the inner products of all examples are one transposed vector-Jacobian product: no
virtual step is taken and no per-example gradient made. Nothing persists: the weights are computed again for every batch
from the episode's query set, which stands for the clean samples. An evaluated task's query set is not looked
at: there every example counts alike. Costs about three more passes a step. Where no example of a batch
helps, the step is zero.
"""

import torch
from torch import Tensor

from metaloom.learners.knowledge.sample_weights import WEIGHTINGS, Examples, Weighting
from metaloom.learners.tensors import Tensors


@WEIGHTINGS.register("reweight")
class Reweight(Weighting):
    """L2RW: recomputed at every step, so there is nothing to learn and nothing to tune."""

    normalizes = True

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        if examples.alignment is None:
            return torch.ones_like(examples.losses)
        return examples.alignment().clamp_min(0)
