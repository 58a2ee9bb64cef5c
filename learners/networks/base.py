"""Networks as pure functions of a parameter dictionary.

The head is the last linear layer, named ``head``; everything else is the body. Convolutions before a batch norm have no
bias: subtracting the mean would remove it. Max-pooling comes before the ReLU, with which it commutes (both are
monotone), so that the ReLU sees a quarter of the values.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import pairwise
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from metaloom.learners.component import Component, TaskComponent
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


def linear_layers(name: str, widths: Sequence[int], generator: Generator) -> Tensors:
    """Draw linear layers that follow one another, ``NAME0``, ``NAME1`` ..., between layers of these widths."""
    theta: Tensors = {}
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        theta |= linear_parameters(f"{name}{index}", inputs, outputs, generator)
    return theta


def conv_parameters(name: str, inputs: int, outputs: int, size: int, generator: Generator) -> Tensors:
    """Draw a convolution kernel, uniform in +-1/sqrt(fan-in) as torch does.

    Batch norm removes the scale but not its effect on speed: He's kernels are 2.4 times as long, and Adam then rotates
    them 2.4 times as slowly.
    """
    bound = 1 / math.sqrt(inputs * size * size)
    return {f"{name}.weight": torch.empty(outputs, inputs, size, size).uniform_(-bound, bound, generator=generator)}


def affine_parameters(name: str, channels: int) -> Tensors:
    """Return a normalization layer's gamma (ones) and beta (zeros)."""
    return {f"{name}.weight": torch.ones(channels), f"{name}.bias": torch.zeros(channels)}


def conv_norm_parameters(name: str, inputs: int, outputs: int, size: int, generator: Generator) -> Tensors:
    """Draw the convolution ``NAME.conv`` and the normalization ``NAME.norm`` after it."""
    convolution = conv_parameters(f"{name}.conv", inputs, outputs, size, generator)
    return convolution | affine_parameters(f"{name}.norm", outputs)


class Network(TaskComponent, ABC):
    """An architecture: ``init`` gives its meta-knowledge, ``parameters`` what the inner loop moves.

    Here it declares where it has batch norm, which strategies can run it, and what is worth batching over tasks.
    """

    slot = "architecture"
    any_length: ClassVar[bool] = False  # whether features do not depend on how far the series of a batch are padded
    takes_text: ClassVar[bool] = False  # whether it reads token numbers as such, not as quantities
    relaxed: ClassVar[bool] = False  # whether phi holds a relaxed architecture, which ``discretized`` makes discrete
    given: Tensors | None = None  # parameters to start from
    running: Tensors | None = None  # batch norm's running statistics that belong to them, where there are some
    held: frozenset[str] = frozenset()  # the names of those parameters that nothing moves

    def setting(self, batch_norm: str) -> str:
        """Return ``transductive`` if a query's outputs depend on others under a batch-norm mode, else ``inductive``."""
        return "transductive" if self.has_batch_norm and batch_norm in ("batch", "per_step") else "inductive"

    def layers(self) -> Sequence[Sequence[str]]:
        """Return the layers before the head, from the inputs on: of each the names that its parameters begin with.

        By default each name before the first dot is a layer.
        """
        names = [name for name in self.parameters(Generator()) if not name.startswith(HEAD)]
        return [(name,) for name in dict.fromkeys(name.partition(".")[0] for name in names)]

    def starting_at(
        self, start: Tensors, running: Tensors | None = None, *, layers: int | None = None, freeze: bool = False
    ) -> Self:
        """Return the network with these parameters to start from.

        Args:
            start: The parameters of another network.
            running: Batch norm's running statistics that belong to them, where there are some.
            layers: How many layers take them, from the inputs on; the others and the head are drawn. None takes the
                whole body, and the head if it is the same one; any other head is zeros.
            freeze: Whether the parameters of the layers that take them are ``held``.

        Raises:
            LearnerError: They are of another network in what is taken, or there are not so many layers.
        """
        drawn = self.parameters(Generator())
        body = first_layers(self.layers(), [name for name in drawn if not name.startswith(HEAD)], layers)
        check_start(start, {name: drawn[name] for name in body}, layers)
        other = copy(self)
        other.held = frozenset(body if freeze else ())
        if layers is not None:
            other.given = {name: start[name] for name in body} or None
            return other  # the statistics of the layers that are drawn are not there
        heads = {name: value for name, value in drawn.items() if name.startswith(HEAD)}
        same = {name: start[name] for name, own in heads.items() if name in start and start[name].shape == own.shape}
        other.given = {name: start[name] for name in body} | {
            name: same.get(name, torch.zeros_like(value)) for name, value in heads.items()
        }
        other.running = running
        return other

    def moved(self, theta: Tensors) -> Tensors:
        """Return the parameters that are not held."""
        return {name: value for name, value in theta.items() if name not in self.held}

    def begun_running(self, batch_norm: str) -> Tensors:
        """Return the running statistics to begin with under a batch-norm mode: the start's, where read."""
        own = self.running if batch_norm == "frozen" else None
        return {name: value.clone() for name, value in (own or {}).items()}

    def initial(self, generator: Generator) -> Tensors:
        """Return the parameters to start from: those it was given, or a draw."""
        drawn = self.parameters(generator)
        return {name: (self.given or {}).get(name, value).clone() for name, value in drawn.items()}

    def lacks_running(self, batch_norm: str, running: Tensors) -> bool:
        """Whether a batch-norm mode reads running statistics that neither the start nor these have."""
        return batch_norm == "frozen" and self.given is not None and self.has_batch_norm and not running

    @property
    def fixed(self) -> Tensors:
        """Return the tensors that nothing moves, such as the buffers of a module; checkpoints and bundles hold them."""
        return {}

    def holding(self, fixed: Tensors) -> Self:
        """Return the same network with the stored values of ``fixed``; raises LearnerError for another network's."""
        check_same_network("learner.architecture", fixed, self.fixed)
        return self

    def shared(self, fixed: Tensors) -> Tensors:
        """Return its ``fixed``, with the values of another network's where it has them in the same shape."""
        return {
            name: fixed[name] if name in fixed and fixed[name].shape == own.shape else own
            for name, own in self.fixed.items()
        }

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
    def places(self) -> int:
        """How many hidden layers, numbered from 1, a pass may change (``Normalization.between``); 0 by default."""
        return 0

    @property
    def draws_layers(self) -> bool:
        """Whether each pass draws the layers that it runs, so that no running average covers them all."""
        return False

    def refuses(self, strategy: str) -> str:
        """Return why ``vmap``, ``traced`` or ``forward`` mode cannot run it; empty if all three can."""
        return ""

    def batched_width(self) -> int | None:
        """Return the widest layer of a network of matrix products, to be traced if narrow; None for other networks."""
        return None

    def largest_map(self, images: int) -> int | None:
        """Return how many values the largest feature map of ``images`` has; None if batching is never faster."""
        return None

    @classmethod
    def discretized(cls, settings: Mapping[str, Any], phi: Tensors) -> dict[str, Any] | None:
        """Return the settings (with ``kind``) of the discrete architecture that phi has chosen; None if not relaxed."""
        return None

    @abstractmethod
    def parameters(self, generator: Generator) -> Tensors:
        """Draw theta: body and head."""

    def feature_shape(self) -> tuple[int, ...]:
        """Return the shape of one example's features before they are flattened: (features,) by default."""
        return (int(self.parameters(Generator())["head.weight"].shape[1]),)

    @abstractmethod
    def features(self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors) -> Tensor:
        """Map x [n, *inputs] to [n, features], with batch norm by ``norm``; phi is what ``sampled`` returned."""

    def sampled(self, phi: Tensors, noise: Tensors) -> Tensors:
        """Return what ``features`` reads of phi: phi itself, or a sample by this pass's row of the noise."""
        return phi

    def outputs(
        self, theta: Tensors, x: Tensor, norm: Normalization, phi: Tensors, noise: Tensors | None = None
    ) -> Tensor:
        """Map [n, *inputs] to logits or targets [n, outputs]."""
        features = self.features(theta, x, norm, self.sampled(phi, noise or {}))
        return F.linear(features, theta["head.weight"], theta["head.bias"])


def check_same_network(where: str, stored: Tensors, own: Tensors, advice: str = "") -> None:
    """Refuse stored tensors of another network than the one that they are for; raises LearnerError."""
    for name in (*own, *stored):
        given, wanted = (tuple(one[name].shape) if name in one else "absent" for one in (stored, own))
        if given != wanted:
            raise LearnerError(
                f"{where}: it holds another network: {name} is {given} there and {wanted} here; "
                f"give the architecture, the ways and the inputs that it was trained with{advice}"
            )


def check_start(start: Tensors, body: Tensors, layers: int | None) -> None:
    """Refuse to start the body of a network, or of its first layers, at parameters of another one."""
    if layers is not None:
        start = {name: value for name, value in start.items() if name in body}
    stored = {name: value for name, value in start.items() if not name.startswith(HEAD)}
    fewer = " (or fewer learner.initialization.layers)" if layers is None or layers > 1 else ""
    check_same_network("learner.initialization", stored, body, fewer)


def first_layers(layers: Sequence[Sequence[str]], names: Sequence[str], count: int | None) -> list[str]:
    """Return the names of the parameters of the first layers, by default of all; raises LearnerError for too many."""
    if count is not None and count > len(layers):
        raise LearnerError(
            f"learner.initialization.layers: got {count}, and the network has {len(layers)} before its head; give at "
            f"most {len(layers)}"
        )
    parts = [part for layer in layers[:count] for part in layer]
    return [name for name in names if count is None or any(name == one or name.startswith(f"{one}.") for one in parts)]


def image_channels(task: TaskShape, network: str) -> int:
    """Return the channels of an image task; raises LearnerError for anything but images."""
    if len(task.inputs) != 3:
        raise LearnerError(
            f"learner.architecture: {network} reads images [channels, height, width], "
            f"but this task's examples have shape {task.inputs}; use mlp"
        )
    return task.inputs[0]


def image_shape(task: TaskShape) -> tuple[int, int, int] | None:
    """Return channels, height and width of an image task; flat examples may be square images of one channel."""
    match task.inputs:
        case (channels, height, width):
            return channels, height, width
        case (size,) if math.isqrt(size) ** 2 == size:
            return 1, math.isqrt(size), math.isqrt(size)
    return None


def check_halvings(field: str, halvings: int, image: Sequence[int], pixels: int) -> None:
    """Refuse as many halvings of an image (height, width) as leave no pixels; raises LearnerError for the field."""
    if pixels == 0:
        size = f"{image[0]}x{image[1]}"
        raise LearnerError(
            f"learner.architecture.{field}: {halvings} halvings leave nothing of {size} images; use fewer"
        )


def relaxed_network(learner: Mapping[str, Any]) -> type[Network] | None:
    """Return the architecture of a resolved learner section if it is relaxed, so that it can be made discrete."""
    network = ARCHITECTURES.get(learner.get("architecture", {}).get("kind", ""))
    return network if network is not None and issubclass(network, Network) and network.relaxed else None


def discretized(learner: Mapping[str, Any], phi: Tensors) -> dict[str, Any]:
    """Return a resolved learner section with the discrete architecture that phi has chosen; raises LearnerError."""
    settings, network = learner.get("architecture", {}), relaxed_network(learner)
    found = network.discretized(settings, part(phi, "architecture", optional=True)) if network else None
    if found is None:
        raise LearnerError("outer.retrain_steps: only a relaxed architecture (such as cells) is made discrete")
    return {**learner, "architecture": found}
