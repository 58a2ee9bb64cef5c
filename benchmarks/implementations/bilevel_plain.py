"""W4 to W6 as the papers' own repositories write them: a loop in plain autograd, exact or by a difference quotient."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from benchmarks.bilevel import PHI, THETA, Bilevel, Model, Parameters, only
from benchmarks.implementations import Run, Step
from metaloom.learners.episode import Episode

EPSILON = 0.01  # over the direction's length: the DARTS repository's r


def leaves_of(parameters: Parameters, prefix: str) -> Parameters:
    """Return theta or phi as leaves of the graph."""
    return {name: value.detach().clone().requires_grad_() for name, value in only(parameters, prefix).items()}


def network_of(workload: Bilevel, parameters: Parameters) -> torch.nn.Module:
    """Build the module with theta in it."""
    model = workload.network().to(next(iter(parameters.values())))
    model.load_state_dict(only(parameters, THETA))
    return model


def bound(module: torch.nn.Module, theta: Parameters) -> Model:
    """Return the network with its parameters bound."""
    return lambda x, **options: functional_call(module, theta, (x,), options)


def by_phi(loss: Tensor, phi: Parameters) -> Parameters:
    """Return the loss's gradient by phi alone: nobody needs theta's."""
    grads = torch.autograd.grad(loss, list(phi.values()))
    return {PHI + name: grad for name, grad in zip(phi, grads, strict=True)}


def prepare(workload: Bilevel, parameters: Parameters, episodes: Sequence[Episode]) -> Run:
    """Keep the graph of every inner step, and differentiate through all of them."""
    module, start, phi = network_of(workload, parameters), leaves_of(parameters, THETA), leaves_of(parameters, PHI)
    (episode,) = episodes

    def run() -> Step:
        theta = start
        for _ in range(workload.steps):
            loss = workload.inner(bound(module, theta), phi, episode)
            slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            theta = {n: p - workload.rate * g for (n, p), g in zip(theta.items(), slopes, strict=True)}
        outer = workload.outer(bound(module, theta), phi, episode)
        return Step(outer.item(), by_phi(outer, phi))

    return run


def prepare_finite_difference(workload: Bilevel, parameters: Parameters, episodes: Sequence[Episode]) -> Run | None:
    """Follow the DARTS repository's architect: the mixed second derivative from phi's gradients at theta +- eps v.

    Example weights stay those of the losses at theta: read off the moved losses, as the same loop would for
    Meta-Weight-Net, they are differentiated as well, and the gradient is 80% off.
    """
    if workload.steps > 1:
        return None
    module, theta, phi = network_of(workload, parameters), leaves_of(parameters, THETA), leaves_of(parameters, PHI)
    (episode,) = episodes

    def run() -> Step:
        losses = workload.losses(bound(module, theta), phi, episode)
        seen = losses.detach()
        slopes = torch.autograd.grad((workload.weights(phi, seen) * losses).sum(), list(theta.values()))
        moved = {
            n: (p - workload.rate * g).detach().requires_grad_()
            for (n, p), g in zip(theta.items(), slopes, strict=True)
        }
        outer = workload.outer(bound(module, moved), phi, episode)
        both = torch.autograd.grad(outer, [*moved.values(), *phi.values()], allow_unused=True, materialize_grads=True)
        direction, direct = dict(zip(moved, both, strict=False)), both[len(moved) :]
        epsilon = EPSILON / torch.cat([one.reshape(-1) for one in direction.values()]).norm()

        def slope(sign: int) -> Parameters:
            aside = {n: p.detach() + sign * epsilon * direction[n] for n, p in theta.items()}
            losses = workload.losses(bound(module, aside), phi, episode)
            return by_phi((workload.weights(phi, seen) * losses).sum(), phi)

        up, down = slope(1), slope(-1)
        gradient = {
            name: straight - workload.rate * (up[name] - down[name]) / (2 * epsilon)
            for name, straight in zip(up, direct, strict=True)
        }
        return Step(outer.item(), gradient)

    return run
