"""Whether torch's transforms can run a network, found out by trying: what they cannot batch, they say only then."""

import contextlib
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.tensors import Tensors, as_leaves, derivative, flatten

TASKS, EXAMPLES = 2, 4
TOLERANCE = 1e-3  # relative: rounding in float32 is below it, torch's known errors under transforms are above


def why_not(network: Network, strategy: str) -> str:
    """Return why a strategy (``vmap``, ``traced``) or ``forward`` mode cannot run a module; empty if it can."""
    if strategy == "loop":
        return ""
    if network.random and strategy != "forward":
        return "it draws random numbers, which no batch of tasks shares"
    generator = torch.Generator().manual_seed(0)
    theta = network.parameters(generator)
    x = torch.rand(TASKS, EXAMPLES, *network.task.inputs, generator=generator)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operations that torch batches slowly, which is no fault
            _second(network, theta, x, strategy)
    except Exception as error:  # torch raises many kinds, and so may the module's own code
        return (str(error).strip().splitlines() or [type(error).__name__])[0]
    if strategy == "forward":
        return ""
    with contextlib.suppress(RuntimeError):  # a module that computes in float32 alone is compared in float32
        double = {name: value.double() for name, value in theta.items()}
        network.outputs(double, x[0].double(), Normalization(), {})
        theta, x = double, x.double()
    found = _second(network, theta, x, "vmap")
    expected = torch.stack([_by_autograd(partial(_inner, network, x=one), theta) for one in x]).mean(0)
    if not torch.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().max())):
        return "torch gives it another second derivative than a loop does"
    return ""


def _inner(network: Network, theta: Tensors, x: Tensor) -> Tensor:
    return network.outputs(theta, x, Normalization(), {}).square().mean()


def _second(network: Network, theta: Tensors, x: Tensor, strategy: str) -> Tensor:
    """Return the gradient of the mean squared slope over a batch of tasks as a strategy computes it, flattened."""
    slope = torch.func.grad(partial(_inner, network))
    if strategy == "forward":
        return flatten(torch.func.jvp(lambda moved: slope(moved, x[0]), (theta,), (theta,))[1])

    def batched(moved: Tensors) -> Tensor:
        return torch.func.vmap(lambda one: flatten(slope(moved, one)).square().sum())(x).mean()

    second = torch.func.grad(batched)
    return flatten((make_fx(second)(theta) if strategy == "traced" else second)(theta))


def _by_autograd(value: Callable[[Tensors], Tensor], theta: Tensors) -> Tensor:
    """Return the gradient of the squared slope of ``value`` at theta, flattened."""
    leaves = as_leaves(theta)
    slopes = torch.autograd.grad(value(leaves), list(leaves.values()), create_graph=True)
    return flatten(derivative(flatten(dict(zip(leaves, slopes, strict=True))).square().sum(), leaves))
