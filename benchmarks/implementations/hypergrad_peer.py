"""hypergrad 0.0.1: Hataya, 2023, https://github.com/moskomule/hypergrad."""

import warnings
from collections.abc import Sequence

import torch
from hypergrad.approx_hypergrad import neumann
from torch import Tensor
from torch.func import functional_call

from benchmarks.bilevel import PHI, THETA, Bilevel, Model, Parameters, only
from benchmarks.implementations import Run, Step
from benchmarks.implementations.bilevel_plain import network_of
from metaloom.learners.episode import Episode

Values = tuple[Tensor, ...]
warnings.filterwarnings("ignore", "We've integrated functorch", FutureWarning)  # it calls torch.func by its old name


def prepare_bilevel(workload: Bilevel, parameters: Parameters, episodes: Sequence[Episode]) -> Run | None:
    """Take its Neumann series of no terms, which is one inner step, exactly.

    It takes both gradients at the same parameters, so the step from theta to theta^ stands in the outer objective,
    as a constant.
    """
    if workload.steps > 1:
        return None
    module, theta, phi = network_of(workload, parameters), only(parameters, THETA), only(parameters, PHI)
    leaves, known = tuple(theta.values()), tuple(phi.values())
    (episode,) = episodes

    def model(values: Values) -> Model:
        return lambda x, **options: functional_call(module, dict(zip(theta, values, strict=True)), (x,), options)

    def inner(values: Values, learned: Values) -> Tensor:
        return workload.inner(model(values), dict(zip(phi, learned, strict=True)), episode)

    def run() -> Step:
        slopes = torch.func.grad(inner)(leaves, known)
        losses: list[float] = []

        def outer(values: Values, learned: Values) -> Tensor:
            moved = tuple(value - workload.rate * slope for value, slope in zip(values, slopes, strict=True))
            loss = workload.outer(model(moved), dict(zip(phi, learned, strict=True)), episode)
            losses.append(float(torch.func.debug_unwrap(loss)))
            return loss

        gradient = neumann(inner, outer, leaves, known, 0, workload.rate)
        return Step(losses[0], {PHI + name: value for name, value in zip(phi, gradient, strict=True)})

    return run
