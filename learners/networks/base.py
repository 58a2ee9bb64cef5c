"""Networks as pure functions of a parameter dictionary.

The head is the last linear layer, named ``head``; everything else is the body.
Convolutions before a batch norm have no bias: the mean would take it away again.
Max-pooling stands before the ReLU, with which it commutes (both are monotone), so
that the ReLU sees a quarter of the values.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.component import Component
from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.registry import Registry
from metaloom.learners.tensors import Tensors, part

HEAD = "head."
ARCHITECTURES: Registry[type[Component]] = Registry("architecture")


def linear_parameters(name: str, inputs: int, outputs: int, generator: Generator) -> Tensors:
    """Draw a linear layer, uniform in +-1/sqrt(inputs) as torch does."""
    bound = 1 / math.sqrt(inputs)
    weight = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(outputs).uniform_(-bound, bound, generator=generator)
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def conv_parameters(name: str, inputs: int, outputs: int, size: int, generator: Generator) -> Tensors:
    """Draw a convolution kernel, uniform in +-1/sqrt(fan-in) as torch does.

    Batch norm takes the scale away but not its effect on speed: He's kernels are 2.4 times as long, and
    Adam then turns them 2.4 times as slowly.
    """
    bound = 1 / math.sqrt(inputs * size * size)
    return {f"{name}.weight": torch.empty(outputs, inputs, size, size).uniform_(-bound, bound, generator=generator)}


def affine_parameters(name: str, channels: int) -> Tensors:
    """Return a normalization layer's gamma (ones) and beta (zeros)."""
    return {f"{name}.weight": torch.ones(channels), f"{name}.bias": torch.zeros(channels)}


class Network(Component, ABC):
    """An architecture: ``init`` brings what of it is meta-knowledge, ``parameters`` what the inner loop moves.

    Its facts are declared here and asked nowhere else: where it has batch norm, which strategies can run it, what of
    it is worth batching over tasks, and the discrete network that a relaxed one is replaced by.

    Class attributes:
        relaxed: Whether phi holds a relaxed architecture, which ``discretized`` makes discrete.
    """

    slot = "architecture"
    needs_task = True
    relaxed: ClassVar[bool] = False

    def __init__(self, config: object, task: TaskShape) -> None:
        super().__init__(config)
        self.task = task
        self.given: Tensors | None = None

    def setting(self, batch_norm: str) -> str:
        """Return whether a query's outputs depend on the other queries under a batch-norm mode.

        Args:
            batch_norm: The mode, or ``none``.

        Returns:
            ``transductive`` if they do, else ``inductive``.
        """
        shared = self.has_batch_norm and batch_norm in ("batch", "per_step")
        return "transductive" if shared else "inductive"

    def starting_at(self, start: Tensors) -> Self:
        """Return the same network with these parameters to start from; without a head it starts from a head of zeros.

        Raises:
            LearnerError: They are of another network.
        """
        drawn = self.parameters(Generator())
        body = {name: value for name, value in drawn.items() if name in start or not name.startswith(HEAD)}
        check_same_network("learner.initialization.bundle", start, body)
        other = copy(self)
        other.given = {name: start.get(name, torch.zeros_like(value)) for name, value in drawn.items()}
        return other

    def initial(self, generator: Generator) -> Tensors:
        """Return the parameters to start from: those it was given, or a draw."""
        drawn = self.parameters(generator)
        return drawn if self.given is None else {name: value.clone() for name, value in self.given.items()}

    @property
    def fixed(self) -> Tensors:
        """Return the tensors that nothing moves, such as the buffers of a module; checkpoints and bundles hold them."""
        return {}

    def holding(self, fixed: Tensors) -> Self:
        """Return the same network with the stored values of ``fixed``; raises LearnerError for another network's."""
        check_same_network("learner.architecture", fixed, self.fixed)
        return self

    def check_head(self, reason: str) -> None:
        """Refuse a network without a head where one is needed, for this reason; raises LearnerError."""
        return

    def norm_layers(self) -> Sequence[str]:
        """Return the batch-norm layers by the names that ``features`` gives them; none by default."""
        return ()

    @property
    def has_batch_norm(self) -> bool:
        """Whether predictions may depend on the statistics of a batch."""
        return bool(self.norm_layers())

    def norm_parameters(self) -> frozenset[str]:
        """Return the names of batch norm's gamma and beta, which ``inner.batch_norm: per_step`` learns per step."""
        return frozenset(f"{layer}.{part}" for layer in self.norm_layers() for part in ("weight", "bias"))

    @property
    def draws_layers(self) -> bool:
        """Whether chance decides which layers a pass runs, so that no running average covers them all."""
        return False

    def refuses(self, strategy: str) -> str:
        """Return why ``vmap``, ``traced`` or an estimator in ``forward`` mode cannot run it; empty where they can.

        Operations on tensors alone, without choices by a tensor's value, can be run by all.
        """
        return ""

    def batched_width(self) -> int | None:
        """Return the widest layer of a network of matrix products, worth tracing while narrow; None if it is none."""
        return None

    def largest_map(self, images: int) -> int | None:
        """Return how many values the largest feature map of so many images has; None if batching never pays."""
        return None

    @classmethod
    def discretized(cls, settings: Mapping[str, Any], phi: Tensors) -> dict[str, Any] | None:
        """Return the settings (with ``kind``) of the discrete architecture that phi has chosen; None if not relaxed.

        Args:
            settings: The settings of this architecture.
            phi: Its own part of phi.
        """
        return None

    @abstractmethod
    def parameters(self, generator: Generator) -> Tensors:
        """Draw theta: body and head."""

    @abstractmethod
    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        """Map [n, *inputs] to [n, features].

        Args:
            theta: The parameters.
            x: The examples.
            norm: Where batch norm finds its statistics.
            phi: The architecture's own part of phi (relaxed cells), as ``sampled`` returns it; empty otherwise.
        """

    def sampled(self, phi: Tensors, noise: Tensors) -> Tensors:
        """Return what ``features`` reads of phi in one pass: phi itself, or what chance has made of it.

        Args:
            phi: The architecture's own part of phi.
            noise: This pass's row of what ``draw_noise`` gave; empty where nothing was drawn.
        """
        return phi

    def outputs(
        self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors, noise: Tensors | None = None
    ) -> Tensor:
        """Map [n, *inputs] to logits or targets [n, outputs]."""
        features = self.features(theta, x, norm, self.sampled(phi, noise or {}))
        return F.linear(features, theta["head.weight"], theta["head.bias"])


def check_same_network(where: str, stored: Tensors, own: Tensors) -> None:
    """Refuse stored tensors of another network than the one that they are for; raises LearnerError."""
    for name in (*own, *stored):
        there, here = (tuple(one[name].shape) if name in one else "absent" for one in (stored, own))
        if there != here:
            raise LearnerError(
                f"{where}: it holds another network: {name} is {there} there and {here} here; "
                "give the architecture, the ways and the inputs that the bundle was trained with"
            )


def image_channels(task: TaskShape, network: str) -> int:
    """Return the channels of an image task; raises LearnerError for anything but images."""
    if len(task.inputs) != 3:
        raise LearnerError(
            f"learner.architecture: {network} reads images [channels, height, width], "
            f"but this task's examples have shape {task.inputs}; use mlp"
        )
    return task.inputs[0]


def is_relaxed(learner: Mapping[str, Any]) -> bool:
    """Whether the architecture of a resolved learner section is relaxed, so that it can be made discrete."""
    network = ARCHITECTURES.get(learner.get("architecture", {}).get("kind", ""))
    return network is not None and issubclass(network, Network) and network.relaxed


def discretized(learner: Mapping[str, Any], phi: Tensors) -> dict[str, Any]:
    """Return a resolved learner section with its relaxed architecture made the discrete one that phi has chosen.

    Args:
        learner: The section.
        phi: The whole of the meta-knowledge that it learned.

    Raises:
        LearnerError: Its architecture is not relaxed.
    """
    settings = learner.get("architecture", {})
    network = ARCHITECTURES[settings["kind"]] if is_relaxed(learner) else Network
    found = (
        network.discretized(settings, part(phi, "architecture", optional=True))
        if issubclass(network, Network)
        else None
    )
    if found is None:
        raise LearnerError("outer.retrain_steps: only a relaxed architecture (such as cells) is made discrete")
    return {**learner, "architecture": found}
