r"""How much each example of the inner loop counts: fixed, by its loss, its class or its number, or by a learned net.

The inner gradient is sum_i w_i grad l_i / n: the weight multiplies the example's gradient and is not differentiated
inside the step, as the papers define it. The hypergradient includes the weight, and its dependence on theta through the
loss, so it stays exact over several steps together with other learned components (with the usual ``.detach()`` on the
loss it is wrong there by 2% to 76%).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.component import Component, Composite, TaskComponent
from metaloom.learners.domains import Bounds, Int, Learned, Real
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import linear_parameters
from metaloom.learners.registry import Registry
from metaloom.learners.task_kinds import ANY_KIND, LABELLED
from metaloom.learners.tensors import Tensors

WEIGHTINGS: Registry[type[Component]] = Registry("weighting")


class Examples(NamedTuple):
    """What a weighting may read of the inner loop's examples.

    Attributes:
        losses: [n].
        targets: [n] int64 labels, [n, ways] label distributions, or [n, targets] values.
        sample_ids: [n] int64, each example's id in the training set; None where they have none.
        alignment: Returns <grad l_i, grad L_query> of each example, [n], differentiable in phi and theta; None
            where the query set may not be used, as in evaluation.
    """

    losses: Tensor
    targets: Tensor
    sample_ids: Tensor | None = None
    alignment: Callable[[], Tensor] | None = None


class Weighting(TaskComponent, ABC):
    """A weight per example.

    Class attributes:
        numbered: Whether it needs ``Examples.sample_ids`` while training.
        serves: The kinds of task it can weigh the examples of, by name; ``labelled`` for all that have targets.
    """

    slot = "weighting"
    reaches_losses = False
    numbered: ClassVar[bool] = False
    serves: ClassVar[frozenset[str]] = frozenset({LABELLED})

    @property
    def normalizes(self) -> bool:
        """Whether a batch's weights are divided by their sum, rather than by their number."""
        return False

    def scaled(self, phi: Tensors, examples: Examples) -> Tensor:
        """Return the factor of each example's gradient, [n]: its weight over n, or over the sum of the weights."""
        weights = self.checked_weights(phi, examples)
        total = weights.sum().clamp_min(torch.finfo(weights.dtype).tiny) if self.normalizes else weights.shape[0]
        return weights / total

    def checked_weights(self, phi: Tensors, examples: Examples) -> Tensor:
        """Return ``weights``; raises LearnerError if they are not one number per example."""
        weights = self.weights(phi, examples)
        if weights.shape != examples.losses.shape:
            kind, given, wanted = WEIGHTINGS.name_of(type(self)), list(weights.shape), list(examples.losses.shape)
            raise LearnerError(
                f"learner.weighting: {kind} returned weights of shape {given}; wanted {wanted}, one per example"
            )
        return weights

    @abstractmethod
    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        """Return one weight per example, [n]."""


class ProductOfWeights(Composite, Weighting):
    """w = w_1 w_2 ...; divided by the batch's sum where a member divides its own."""

    members: tuple[Weighting, ...]

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        parts = zip(self.members, self.parts(phi), strict=True)
        each = (member.checked_weights(own, examples) for member, own in parts)
        return math.prod(each, start=examples.losses.new_ones(()))

    @property
    def normalizes(self) -> bool:
        return any(member.normalizes for member in self.members)


@WEIGHTINGS.register("uniform")
class Uniform(Weighting):
    """Every example counts 1."""

    serves = frozenset({ANY_KIND})

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        return torch.ones_like(examples.losses)


@dataclass(frozen=True)
class FocalConfig:
    """How strongly well-classified examples are turned down."""

    gamma: Annotated[float | Learned, Real(0.0, 5.0)] = 2.0


@WEIGHTINGS.register("focal")
class Focal(Weighting):
    """(1 - p)^gamma with p = exp(-loss): Lin et al., 2017, https://arxiv.org/abs/1708.02002, equation 4.

    The weight multiplies the gradient and is constant within the step, where the paper differentiates through it: the
    same fixed points, a slightly smaller step.
    """

    config: FocalConfig

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        # the smallest base is 1e-6: below it the power's gradient in gamma would be infinite
        missed = (1 - torch.exp(-examples.losses)).clamp_min(1e-6)
        return torch.pow(missed, self.knob(phi, "gamma"))


@dataclass(frozen=True)
class MetaWeightNetConfig:
    """Size and scale of the weight net.

    Attributes:
        hidden: Width of its hidden layer.
        normalize: Whether a batch's weights are divided by their mean. Otherwise all weights can grow together, which
            early in training lowers the clean loss; the sigmoid then saturates at 1 and stays there.
    """

    hidden: Annotated[int, Int(4, 512, log=True)] = 100
    normalize: bool = True


@WEIGHTINGS.register("meta_weight_net")
class MetaWeightNet(Weighting):
    """V(loss) = sigmoid(W2 relu(W1 loss)): Shu et al., 2019, https://arxiv.org/abs/1902.07379, section 3.1."""

    config: MetaWeightNetConfig
    learns = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        hidden = self.config.hidden
        net = linear_parameters("layer0", 1, hidden, generator) | linear_parameters("layer1", hidden, 1, generator)
        # He-normal first layer and a zero output bias: the net starts near weight 1/2 for every loss
        net["layer0.weight"] = torch.randn(hidden, 1, generator=generator) * math.sqrt(2 / hidden)
        net["layer1.bias"] = torch.zeros(1)
        return net

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        hidden = F.relu(F.linear(examples.losses.unsqueeze(-1), phi["layer0.weight"], phi["layer0.bias"]))
        return torch.sigmoid(F.linear(hidden, phi["layer1.weight"], phi["layer1.bias"])).squeeze(-1)

    @property
    def normalizes(self) -> bool:
        return self.config.normalize


@dataclass(frozen=True)
class ClassRatiosConfig:
    """How much each class counts.

    Attributes:
        ratios: One number per class; empty for all equal.
        balance: The power of the class size that is divided by, where the source counts its classes.
        ratio: A factor on every class; learned per class, it is one number for each of them.
    """

    ratios: tuple[Annotated[float, Bounds(at_least=0)], ...] = ()
    balance: Annotated[float | Learned, Real(0.0, 1.5)] = 1.0
    ratio: Annotated[float | Learned, Real(0.01, 100.0, log=True, per=("class",), positive=True)] = 1.0

    def __post_init__(self) -> None:
        if self.ratios and not sum(self.ratios):
            raise LearnerError("learner.weighting.ratios must not all be 0")


@WEIGHTINGS.register("class_ratios")
class ClassRatios(Weighting):
    """One weight per class: given, from the class sizes, or learned.

        w_i = v_{y_i},    v_c = r_c * rho_c * N_c^-balance / mean over the training examples

    with N_c the training examples labelled c, r_c the ratios given by hand, and rho_c the learned ones. With
    ``balance`` 1 all classes count alike (inverse frequency), with 0 all examples do; in between are the smoothed
    weights of Cui et al., 2019, https://arxiv.org/abs/1901.05555, section 3. Dividing by the mean keeps the size of the
    inner step. Learned ratios have the hypergradient that a net of the loss lacks where a rare class is not a hard one.
    """

    config: ClassRatiosConfig
    serves = frozenset({"classification"})

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config, task)
        given = len(self.config.ratios)
        if given not in (0, task.outputs):
            raise LearnerError(f"learner.weighting.ratios: {given} given, but the task has {task.outputs} classes")

    def init_knob(self, name: str, theta: Tensors, generator: Generator) -> Tensor:
        start = super().init_knob(name, theta, generator)
        return start.repeat(self.task.outputs) if name == "ratio" else start

    def class_weights(self, phi: Tensors, like: Tensor) -> Tensor:
        """Return one weight per class, [ways], of the dtype and device of ``like``."""
        ways = self.task.outputs
        counts = torch.tensor(self.task.counts if len(self.task.counts) == ways else (1,) * ways).to(like).clamp_min(1)
        ratios = torch.tensor(self.config.ratios or (1.0,) * ways).to(like)
        raw = ratios * self.knob(phi, "ratio") * torch.exp(-self.knob(phi, "balance") * torch.log(counts))
        return raw * counts.sum() / (raw * counts).sum()

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        each, targets = self.class_weights(phi, examples.losses), examples.targets
        return targets @ each if targets.is_floating_point() else each[targets]


@dataclass(frozen=True)
class PerSampleConfig:
    """What bounds the weights, and how a batch's are scaled.

    Attributes:
        squash: ``sigmoid`` keeps a weight in (0, 1), from 1/2; ``softplus`` above 0, from log 2.
        normalize: Divide a batch's weights by their sum, so that they cannot all shrink together.
    """

    squash: Literal["sigmoid", "softplus"] = "sigmoid"
    normalize: bool = True


@WEIGHTINGS.register("per_sample")
class PerSample(Weighting):
    """One learned weight for each training example: data cleaning.

    Maclaurin, Duvenaud and Adams pose the bilevel problem; Franceschi et al., 2017, https://arxiv.org/abs/1703.01785,
    section 5.1 (data hyper-cleaning), learn a weight per example of a noisy training set from a clean one:

        w_i = squash(lambda_i)    with lambda one number per training example

    An example gets a hypergradient of zero from a batch without it, so this needs many more outer steps, or a larger
    outer rate, than a net of the loss; unlike that net it can weigh two examples of equal loss differently. An example
    without a number (a new task's) has the weight that all have at the start.
    """

    config: PerSampleConfig
    learns = True
    numbered = True

    def init(self, theta: Tensors, generator: Generator) -> Tensors:
        return {"sample": torch.zeros(sum(self.task.counts))}

    def sample_weights(self, phi: Tensors) -> Tensor:
        """Return the weight of every training example, [examples]."""
        return torch.sigmoid(phi["sample"]) if self.config.squash == "sigmoid" else F.softplus(phi["sample"])

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        ids = examples.sample_ids
        return torch.ones_like(examples.losses) if ids is None else self.sample_weights(phi)[ids]

    @property
    def normalizes(self) -> bool:
        return self.config.normalize


@WEIGHTINGS.register("reweight")
class Reweight(Weighting):
    """L2RW, learning to reweight: weigh an example by the agreement of its gradient with the clean samples'.

    Ren, Zeng, Yang and Urtasun, 2018, https://arxiv.org/abs/1803.09050, equations 4 to 9 and algorithm 1. With one
    virtual step theta^(eps) = theta - rate * sum_i eps_i grad l_i(theta) from eps = 0:

        u_i = -d L_clean(theta^(eps)) / d eps_i at 0 = rate * <grad l_i(theta), grad L_clean(theta)>
        w_i = max(u_i, 0) / sum_j max(u_j, 0)

    The rate cancels, and the inner products of all examples are one transposed vector-Jacobian product: no virtual step
    is taken and no per-example gradient made. Nothing persists: the weights are computed again for each batch from the
    episode's query set, which serves as the clean samples. An evaluated task's query set may not be used: all its
    examples count alike. Costs about three more passes a step. Where no example of a batch helps, the step is zero.
    """

    normalizes = True

    def weights(self, phi: Tensors, examples: Examples) -> Tensor:
        alignment = examples.alignment
        return torch.ones_like(examples.losses) if alignment is None else alignment().clamp_min(0)
