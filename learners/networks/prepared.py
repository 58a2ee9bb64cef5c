"""A user's ``nn.Module`` made ready to be called as a pure function of its parameters.

Layers that torch 2.13 computes wrongly, or that keep state from one call to the next, are replaced in a copy of the
module, or refused by name: batch norm and weight norm are ours, right at second order; embeddings have dense gradients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.nn.utils.weight_norm import WeightNorm as OldWeightNorm

from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.batch_norm import EPSILON, Normalization

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
WHERE = "learner.architecture"


class BatchNorm(nn.Module):
    """Replaces a layer of torch's batch norm: its statistics are given, or collected, by the current pass."""

    def __init__(self, layer: nn.Module, name: str) -> None:
        super().__init__()
        self.name, self.eps, self.channels = name, float(layer.eps), int(layer.num_features)  # type: ignore[arg-type]
        self.register_parameter("weight", layer.weight)  # type: ignore[arg-type]
        self.register_parameter("bias", layer.bias)  # type: ignore[arg-type]
        self._norm, self._calls = Normalization(), 0

    def enter(self, norm: Normalization) -> None:
        """Begin a pass."""
        self._norm, self._calls = norm, 0

    def forward(self, x: Tensor) -> Tensor:
        """Normalize [n, channels, *space]; a layer that is called twice in a pass has statistics for each call."""
        name = self.name if self._calls == 0 else f"{self.name}#{self._calls}"
        self._calls += 1
        weight = self.weight if isinstance(self.weight, Tensor) else x.new_ones(self.channels)
        bias = self.bias if isinstance(self.bias, Tensor) else x.new_zeros(self.channels)
        # scaled so that our epsilon has the effect of the layer's own: x, its mean and its deviation scale alike
        return self._norm(name, x if self.eps == EPSILON else x * (EPSILON / self.eps) ** 0.5, weight, bias)


def prepared(module: nn.Module) -> nn.Module:
    """Return a copy in which batch norm is ours and no gradient is sparse.

    Raises LearnerError for a layer that cannot be a pure function, with its name and what to do.
    """
    refuse_impure(module)
    detach_graph(graph_tensors(module))  # which deepcopy refuses
    copy, replaced = deepcopy(module), dict[int, BatchNorm]()
    names = {id(layer): name for name, layer in copy.named_modules()}
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BATCH_NORMS):
                parent._modules[name] = replaced.setdefault(id(child), BatchNorm(child, names[id(child)]))
            elif isinstance(child, nn.modules.batchnorm._BatchNorm):
                raise LearnerError(
                    f"{WHERE}: {names[id(child)]} is a {type(child).__name__}, whose statistics would move from task "
                    "to task; use nn.BatchNorm1d, 2d or 3d"
                )
    for layer in copy.modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag):
            layer.sparse = False  # update rules, norms and clipping need dense gradients
        if isinstance(layer, parametrizations._WeightNorm):
            layer.forward = partial(weight_normalized, dim=layer.dim)  # type: ignore[method-assign]
        for hook in layer._forward_pre_hooks.values():
            if isinstance(hook, OldWeightNorm):
                hook.compute_weight = partial(_old_weight, hook)  # type: ignore[method-assign]
    return copy


def weight_normalized(magnitude: Tensor, direction: Tensor, *, dim: int) -> Tensor:
    """Return magnitude * direction / |direction|, the norm taken over all axes but ``dim`` (-1: over all).

    torch 2.13's own takes the norm as a constant in its second derivative, which is then silently wrong.
    """
    axes = [axis for axis in range(direction.ndim) if dim == -1 or axis != dim % direction.ndim]
    return direction * (magnitude / direction.square().sum(axes, keepdim=True).sqrt())


def _old_weight(hook: OldWeightNorm, layer: nn.Module) -> Tensor:
    magnitude, direction = getattr(layer, f"{hook.name}_g"), getattr(layer, f"{hook.name}_v")
    return weight_normalized(magnitude, direction, dim=hook.dim)


def refuse_impure(module: nn.Module) -> None:
    """Refuse layers that write into their parameters, or have no parameters yet; raises LearnerError."""
    for name, layer in module.named_modules():
        at = f"{WHERE}: {name or 'the module'}"
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.max_norm is not None:
            raise LearnerError(
                f"{at} has max_norm={layer.max_norm}, which overwrites the fast weights and is missing from their "
                "gradient; leave max_norm out, and divide by the norm in forward"
            )
        if getattr(layer, "merged_adapters", None):
            raise LearnerError(f"{at} has merged adapters, which get no gradient; call unmerge_adapter() first")
        if any(nn.parameter.is_lazy(one) for one in layer.parameters(recurse=False)):
            raise LearnerError(f"{at} has lazy parameters, without a shape; give sizes, or use the class without Lazy")


def places(module: nn.Module) -> dict[str, list[str]]:
    """Map each parameter and buffer, by the first of its names, to one name for each layer that holds it.

    A tied weight has several. A layer that is listed twice counts once: torch 2.13's ``functional_call`` with both of
    its names leaves the tensor of the call in the module.
    """
    found: dict[int, list[str]] = {}
    for prefix, layer in module.named_modules():
        for name, tensor in (*layer._parameters.items(), *layer._buffers.items()):
            if tensor is not None:
                found.setdefault(id(tensor), []).append(f"{prefix}.{name}" if prefix else name)
    return {names[0]: names for names in found.values()}


def graph_tensors(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return the attributes in which a call has left a tensor of its graph, as the old ``weight_norm`` does."""
    return [
        (layer, name)
        for layer in module.modules()
        for name, value in vars(layer).items()
        if isinstance(value, Tensor) and value.grad_fn is not None
    ]


def detach_graph(places: list[tuple[nn.Module, str]]) -> None:
    """Free the graphs that ``graph_tensors`` found: the next call computes those tensors again."""
    for layer, name in places:
        setattr(layer, name, getattr(layer, name).detach())


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Choose the attention that has second and forward derivatives: torch's fused kernels on CPU have neither."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators within, and restore them afterwards; None leaves them as they are."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
