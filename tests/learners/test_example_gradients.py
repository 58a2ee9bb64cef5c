"""Directional derivatives of every example's loss: by dual numbers, exact to any order."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from metaloom.learners.solvers.example_gradients import ExampleGradients, autograd_gradients
from metaloom.learners.solvers.gradient import GradientLearner
from metaloom.learners.tensors import Tensors
from metaloom.testing.problems import IMAGES, SINGLE, SMOOTH, begun, built, episode_of, errors_by_slot, normal, seeded

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden": [5]},
    "conv4": {"kind": "conv4", "channels": 4, "blocks": 2},
    "strided": {"kind": "conv4", "channels": 4, "blocks": 2, "pool": "stride"},
    "convnet": {"kind": "convnet", "channels": 4, "blocks": 2},
    "resnet12": {"kind": "resnet12", "width": 4},  # whose 1x1 convolutions read few channels: small patches that move
    "resnet": {"kind": "resnet", "width": 4, "blocks": 2},
    "genotype": {"kind": "genotype", "genotype": "conv3|avg3|conv1", "channels": 4},
}
WEIGHTINGS: dict[str, dict[str, Any]] = {
    "meta_weight_net": {"kind": "meta_weight_net", "hidden": 5},
    "unnormalized": {"kind": "meta_weight_net", "hidden": 5, "normalize": False},
    "focal": {"kind": "focal", "gamma": {"learn": {"start": 1.5}}},
    "per_sample": {"kind": "per_sample"},
}


def losses_at(theta: Tensors) -> Tensor:
    """Return eight smooth losses of two parameters."""
    return (normal(8, 3, seed=1) @ theta["a"]).tanh() + (normal(8, 2, seed=2) @ theta["b"]).square()


def linearized(*, constant: bool) -> tuple[ExampleGradients, Tensors]:
    theta = {"a": normal(3, seed=3), "b": normal(2, seed=4)}
    return autograd_gradients(losses_at, theta, differentiable=True, constant=constant), theta


def test_the_derivative_by_the_weights_is_the_jacobian() -> None:
    linear, theta = linearized(constant=True)
    weights, direction = normal(8, seed=5).requires_grad_(), {"a": normal(3, seed=6), "b": normal(2, seed=7)}
    pulled = linear.pull(weights)
    jacobian: Any = torch.func.jacrev(losses_at)(theta)
    for name, value in pulled.items():
        torch.testing.assert_close(value, jacobian[name].T @ weights, rtol=1e-12, atol=1e-12)
    (product,) = torch.autograd.grad(list(pulled.values()), [weights], list(direction.values()))
    exact = sum(jacobian[name] @ direction[name] for name in theta)
    torch.testing.assert_close(product, exact, rtol=1e-12, atol=1e-12)


def test_it_is_differentiable_to_any_order() -> None:
    linear, _ = linearized(constant=True)
    assert torch.autograd.gradcheck(lambda w: tuple(linear.pull(w).values()), normal(8, seed=5).requires_grad_())
    assert torch.autograd.gradgradcheck(lambda w: tuple(linear.pull(w).values()), normal(8, seed=5).requires_grad_())


def test_losses_that_are_differentiated_keep_their_graph() -> None:
    linear, _ = linearized(constant=False)
    assert linear.losses.requires_grad and linear.pull(normal(8, seed=5))["a"].requires_grad
    constant, _ = linearized(constant=True)
    assert not constant.losses.requires_grad and not constant.measure(normal(8, seed=5))["a"].requires_grad


def online(network: dict[str, Any], weighting: dict[str, Any], **more: Any) -> GradientLearner:
    task = SINGLE if network["kind"] == "mlp" else IMAGES
    settings = {"architecture": network, "weighting": weighting, "update": {"steps": 1, "rate": 0.3}, **more}
    learner = built(settings, task, inner={"mode": "online"})
    assert isinstance(learner, GradientLearner)
    return learner


def by_phi(learner: GradientLearner, *, whole_graph: bool) -> Tensor:
    """Return the derivative of the inner gradient along a direction, by the weights' own phi."""
    phi, state = begun(learner)
    leaves = {name: value.requires_grad_() for name, value in phi.items()}
    theta = {name: value.requires_grad_(whole_graph) for name, value in state.theta.items()}
    (episode,) = learner._prepared(phi, state, [episode_of(learner.task, 1)], seeded(0))
    slope = learner.loop.gradient(leaves, theta, theta, episode, 0)
    assert whole_graph != any(type(value.grad_fn).__name__ == "PullBackward" for value in slope.values())
    along = torch.stack([(value * normal(*value.shape, seed=9)).sum() for value in slope.values()]).sum()
    return torch.cat([one.flatten() for one in torch.autograd.grad(along, list(leaves.values()))])


@pytest.mark.parametrize("network", NETWORKS)
def test_dual_numbers_agree_with_the_whole_graph(network: str) -> None:
    learner = online(NETWORKS[network], WEIGHTINGS["meta_weight_net"])
    found, exact = by_phi(learner, whole_graph=False), by_phi(learner, whole_graph=True)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_every_weighting_that_is_learned(weighting: str) -> None:
    errors = errors_by_slot(online({**SMOOTH}, WEIGHTINGS[weighting]), [episode_of(SINGLE, 1)])
    assert max(errors.values()) < 1e-8, errors


def test_what_else_is_learned_reaches_the_losses_through_the_whole_graph() -> None:
    """And with them the weights."""
    smoothing = {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}
    learner = online({**SMOOTH}, WEIGHTINGS["meta_weight_net"], loss=smoothing)
    with pytest.raises(AssertionError):
        by_phi(learner, whole_graph=False)
    errors = errors_by_slot(learner, [episode_of(SINGLE, 1)])
    assert max(errors.values()) < 1e-8, errors


def test_a_difference_quotient_shares_the_weights_of_both_ends() -> None:
    """The weights read losses that another slot reaches, so that both ends need one graph."""
    smoothing = {"kind": "cross_entropy", "label_smoothing": {"learn": {"start": 0.1}}}
    settings = {
        "architecture": {**SMOOTH},
        "weighting": WEIGHTINGS["meta_weight_net"],
        "loss": smoothing,
        "update": {"steps": 1, "rate": 0.3},
    }
    steps = []
    for kind in ("unroll", {"kind": "finite_difference", "epsilon": 1e-4}):
        learner = built(settings, SINGLE, inner={"mode": "online"}, estimator=kind)
        phi, state = begun(learner)
        steps.append(learner.meta_step(phi, state, [episode_of(SINGLE, 1)], seeded(0)))
    for name, exact in steps[0].gradient.items():
        torch.testing.assert_close(steps[1].gradient[name], exact, rtol=1e-6, atol=1e-9)


def test_what_the_first_dual_number_compiles_is_compiled_on_import() -> None:
    compiled = "torch._decomp.decompositions_for_jvp"
    program = f"import sys, torch; import %s; sys.exit({compiled!r} not in sys.modules)"
    for module, code in (("metaloom.learners.solvers.example_gradients", 0), ("torch.autograd.forward_ad", 1)):
        assert subprocess.run([sys.executable, "-c", program % module], check=False).returncode == code
