"""A loss that is a network, learned with the other meta-knowledge."""

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.domains import Int, Learned, Real
from metaloom.learners.knowledge.loss import LOSSES, Loss, expected
from metaloom.learners.networks.base import linear_layers
from metaloom.learners.task_kinds import LABELLED
from metaloom.learners.tensors import Tensors, one_hot

FLOOR = -10.0  # the smallest log probability that the network reads


@dataclass(frozen=True)
class ML3Config:
    """The loss network's size, and what is added to its output.

    Attributes:
        hidden: Width of each hidden layer.
        layers: Hidden layers.
        hand: Coefficient of cross entropy, or of the squared error.
    """

    hidden: Annotated[int, Int(4, 256, log=True)] = 40
    layers: Annotated[int, Int(1, 4)] = 2
    hand: Annotated[float | Learned, Real(0.0, 2.0)] = 0.0


@LOSSES.register("ml3")
class ML3(Loss):
    r"""ML3: the loss of the inner loop is a network, learned from what its steps do to the true loss.

    Bechtle, Molchanov, Chebotar, Grefenstette, Righetti, Sukhatme and Meier, 2021, https://arxiv.org/abs/1906.05374,
    equations 1 to 3 and algorithm 1:

        theta_t+1 = theta_t - rate * grad_theta mean_i M_phi(f_theta(x_i), y_i)
        phi      <- phi - beta * grad_phi L_task(theta_T)

    M ends in a softplus, so that it is bounded below. Here one small network is shared by all coordinates of an output:
    M = mean_k m_phi(a_k, b_k), in regression of a target's dimension (prediction, target), in classification of a class
    (its log probability, its share of the label), so that a loss learned on one number of classes serves any other, and
    all classes are treated alike. ``hand`` adds the task's own loss, so that learning starts from a loss that works.
    Any error in M is an error in the direction of every step: M is as good as the outer loop that trained it, and only
    near the tasks and the steps that it was trained on.
    """

    config: ML3Config
    learns = True
    serves = frozenset({LABELLED})

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        """Draw the network; its first layer reads the two numbers and a third made of them."""
        widths = [3, *[self.config.hidden] * self.config.layers, 1]
        return linear_layers("layer", widths, generator) | super().init(theta, generator)

    def losses(self, phi: Tensors, outputs: Tensor, targets: Tensor) -> Tensor:
        if not self.task.task_kind.has_classes:
            given, wanted = outputs, targets
            features = torch.stack([given, wanted, given - wanted], -1)
            hand = (outputs - targets).square().mean(-1)
        else:
            given = F.log_softmax(outputs, dim=-1)
            share = targets if targets.is_floating_point() else one_hot(targets, outputs.shape[-1], outputs)
            features = torch.stack([given.clamp_min(FLOOR), share, given.exp()], -1)
            hand = -expected(given, targets)
        learned = self._network(phi, features).mean(-1)
        return learned if self.config.hand == 0.0 else learned + self.knob(phi, "hand") * hand

    def _network(self, phi: Tensors, features: Tensor) -> Tensor:
        """Map [n, outputs, 3] to [n, outputs]; smooth, because its third derivative is needed."""
        for index in range(self.config.layers):
            features = F.silu(F.linear(features, phi[f"layer{index}.weight"], phi[f"layer{index}.bias"]))
        last = self.config.layers
        return F.softplus(F.linear(features, phi[f"layer{last}.weight"], phi[f"layer{last}.bias"])).squeeze(-1)
