"""What is found out about a user's module by trying: wrong gradients, strategies that fail, missing second derivatives.

The effect probe moves each parameter a little, and compares the output with the gradient. A parameter that moves
nothing, or whose gradient is not the central difference, would be learned wrongly without a message: merged adapters,
adjoint solvers of differential equations, and layers that write into their weights are such.
"""

import contextlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.prepared import WHERE
from metaloom.learners.tensors import Tensors, as_leaves, derivative, flatten

PROBED = 6
DRAWS = 3  # points at which a parameter may pass: a ReLU or a max may have its kink at one of them
ROUNDED = 1e-7  # float32's relative rounding
JITTER = 0.1  # of a parameter's deviation: away from zeros, where a low-rank adapter's other half has no effect
ADVICE = (
    "compute with it in forward, hold it fixed by requires_grad_(False), or exchange what cuts its gradient off "
    "(merged adapters, torchdiffeq's odeint_adjoint for odeint, .data, .detach(), checkpoint(..., use_reentrant=True))"
)


@dataclass(frozen=True)
class Precision:
    """How finely outputs are compared: displacement of a central difference, and its relative and absolute error."""

    dtype: torch.dtype
    displacement: float
    relative: float
    absolute: float


FINE = Precision(torch.float64, 1e-5, 1e-2, 1e-7)
MIXED = Precision(torch.float64, 1e-3, 1e-2, 3e-4)  # for a module that rounds to float32 on the way, as many norms do
COARSE = Precision(torch.float32, 1e-2, 1e-1, 1e-3)  # for a module that computes in float32 whatever it is given


def check_effects(network: Network, theta: Tensors, names: Mapping[str, str]) -> bool:
    """Refuse a bound module with a parameter that has no effect or a wrong gradient, in train or in eval mode.

    ``names`` are the module's own names of theta's parameters. Returns whether its outputs depend on chance or on the
    mode. Raises LearnerError, which names the parameter, the mode, and what to do.
    """
    generator = torch.Generator().manual_seed(0)
    precision = _precision(network, theta)
    stochastic = False
    for training in (True, False):
        wrong: dict[str, str] = {}
        for index in range(DRAWS):
            point, x = _point(network, theta, generator, precision.dtype)
            call = partial(_outputs, network, x, _noise(training))
            if index == 0:
                stochastic = stochastic or _depends_on_chance(network, point, x)
            wanted = theta if index == 0 else {name: theta[name] for name in wrong}
            wrong = dict(_faults(call, point, wanted, generator, precision))
            if not wrong:
                break
        for name, fault in wrong.items():
            mode = "train" if training else "eval"
            raise LearnerError(f"{WHERE}: parameter {names[name]} {fault} in {mode} mode; {ADVICE}")
    return stochastic


def _noise(training: bool, seed: int = 0) -> Tensors:
    return {"seed": torch.tensor(seed), **({"training": torch.ones(())} if training else {})}


def _outputs(network: Network, x: Tensor, noise: Tensors, theta: Tensors) -> Tensor:
    return network.outputs(theta, x, Normalization(fused=True), {}, noise)


def _precision(network: Network, theta: Tensors) -> Precision:
    """Return the finest precision that the module computes in."""
    point, x = _point(network, theta, torch.Generator().manual_seed(0), FINE.dtype)

    def at(scale: float) -> Tensor:
        with torch.no_grad():
            return network.outputs({name: value * scale for name, value in point.items()}, x, Normalization(), {})

    try:
        middle, ahead, behind = at(1.0), at(1 + ROUNDED), at(1 - ROUNDED)
    except RuntimeError:
        return COARSE
    if middle.dtype != FINE.dtype:
        return COARSE
    # of order ROUNDED squared in float64; a value that is rounded to float32 moves by jumps of ROUNDED
    bend = (ahead - 2 * middle + behind).abs().max()
    return MIXED if bend > ROUNDED / 1000 * middle.abs().max() else FINE


def _point(network: Network, theta: Tensors, generator: Generator, dtype: torch.dtype) -> tuple[Tensors, Tensor]:
    """Draw parameters near theta, and examples in [0, 1), as images and indices of an embedding's first row are."""
    x = torch.rand(PROBED, *network.task.inputs, generator=generator, dtype=dtype)
    moved = {
        name: value.to(dtype) + JITTER * _scale(value) * torch.randn(value.shape, generator=generator, dtype=dtype)
        for name, value in theta.items()
    }
    return moved, x


def _scale(value: Tensor) -> float:
    return max(float(value.std()) if value.numel() > 1 else 0.0, 0.1)


def _depends_on_chance(network: Network, point: Tensors, x: Tensor) -> bool:
    noises = (_noise(True, 0), _noise(True, 1), _noise(False, 0), _noise(False, 1))
    with torch.no_grad():
        first, *others = (network.outputs(point, x, Normalization(), {}, noise) for noise in noises)
    return any(not torch.equal(first, one) for one in others)


def _faults(
    call: Callable[[Tensors], Tensor],
    point: Tensors,
    wanted: Mapping[str, Tensor],
    generator: Generator,
    precision: Precision,
) -> Iterator[tuple[str, str]]:
    """Yield each parameter that is at fault, and what is wrong with it."""
    leaves = {name: value.detach().requires_grad_() for name, value in point.items()}
    try:
        outputs = call(leaves)
        weights = torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
        slopes = torch.autograd.grad((outputs * weights).sum(), list(leaves.values()), allow_unused=True)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[0]
        yield next(iter(wanted)), f"has no gradient ({first})"
        return
    gradient, plain = dict(zip(leaves, slopes, strict=True)), {name: one.detach() for name, one in leaves.items()}
    rounding = precision.absolute * (1 + abs(float((outputs * weights).sum().detach())))
    for name in wanted:
        direction = torch.randn(point[name].shape, generator=generator, dtype=precision.dtype)
        if direction.numel() == 0:
            continue

        def moved(by: float, name: str = name, direction: Tensor = direction) -> Tensor:
            with torch.no_grad():
                return call({**plain, name: plain[name] + by * direction})

        ahead, behind = moved(precision.displacement), moved(-precision.displacement)
        difference = float(((ahead - behind) * weights).sum()) / (2 * precision.displacement)
        slope = gradient[name]
        estimate = 0.0 if slope is None else float((slope.to_dense() * direction).sum())
        if slope is None and torch.equal(ahead, behind) and torch.equal(moved(1.0), moved(-1.0)):
            yield name, "has no effect on the output"
        elif slope is None or (not slope.to_dense().any() and abs(difference) > precision.absolute):
            yield name, "moves the output but has no gradient"
        elif abs(difference - estimate) > precision.relative * max(abs(difference), abs(estimate)) + rounding:
            yield name, f"has a gradient of {estimate:.4g} where the output moves by {difference:.4g}"


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


MISSING = re.compile(r"derivative for '?(?:aten::)?_?(\w+?)(?:_backward)?'? is not implemented")
OWN_FUNCTIONS = {  # torch's message for a torch.autograd.Function whose backward pass cannot be differentiated
    "modified by an inplace operation": "a function whose backward pass writes in place",
    "marked with @once_differentiable": "a function that is marked with once_differentiable",
}


@contextmanager
def named_operation() -> Iterator[None]:
    """Raise LearnerError, which names the operation and the way out, for torch's error about a second derivative."""
    try:
        yield
    except RuntimeError as error:
        found = MISSING.search(str(error))
        own = (name for message, name in OWN_FUNCTIONS.items() if message in str(error))
        operation = found[1] if found else next(own, None)
        if operation is None:
            raise
        raise LearnerError(
            f"learner.architecture: {operation} has no second derivative in torch, which this "
            "hypergradient needs; use another operation, or outer.hypergradient: first_order"
        ) from error
