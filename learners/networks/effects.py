"""The effect probe: move each parameter of a user's module a little, and compare the output with the gradient.

A parameter that moves nothing, or whose gradient is not the central difference, would be learned wrongly without a
word: merged adapters, adjoint solvers of differential equations, and layers that write into their weights are such.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from metaloom.learners.errors import LearnerError
from metaloom.learners.networks.base import Network
from metaloom.learners.networks.batch_norm import Normalization
from metaloom.learners.networks.prepared import WHERE
from metaloom.learners.tensors import Tensors

EXAMPLES = 6
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
    """Refuse a module with a parameter that has no effect or a wrong gradient, in train or in eval mode.

    Args:
        network: The module, bound.
        theta: Its parameters.
        names: What the module itself calls each of them.

    Returns:
        Whether its outputs depend on chance or on the mode.

    Raises:
        LearnerError: The message names the parameter, the mode, and what to do.
    """
    generator = torch.Generator().manual_seed(0)
    precision = _precision(network, theta)
    stochastic = False
    for training in (True, False):
        wrong: dict[str, str] = {}
        for index in range(DRAWS):
            point, x = _point(network, theta, generator, precision.dtype)
            call = _caller(network, x, training)
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


Call = Callable[[Tensors], Tensor]


def _noise(training: bool, seed: int = 0) -> Tensors:
    marks = {"training": torch.ones(())} if training else {}
    return {"seed": torch.tensor(seed), **marks}


def _caller(network: Network, x: Tensor, training: bool) -> Call:
    return lambda theta: network.outputs(theta, x, Normalization(fused=True), {}, _noise(training))


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
    x = torch.rand(EXAMPLES, *network.task.inputs, generator=generator, dtype=dtype)
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
    call: Call, point: Tensors, wanted: Mapping[str, Tensor], generator: Generator, precision: Precision
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
