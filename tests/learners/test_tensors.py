"""The vector-Jacobian product of a few numbers, which is a sum of products, is the one that torch computes."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from metaloom.learners.tensors import pullback, pullbacks
from metaloom.testing.problems import seeded


def losses_of(theta: Tensor, x: Tensor) -> Tensor:
    return (x @ theta).tanh().square()  # [n]


@pytest.mark.parametrize("depends", [False, True], ids=["constant weights", "weights of theta"])
def test_a_product_is_torchs_own_to_the_bit_also_differentiated_again(depends: bool) -> None:
    theta = torch.randn(4, 2, generator=seeded(0), requires_grad=True)
    x = torch.randn(7, 4, generator=seeded(1))
    losses = losses_of(theta, x)[:, 0]
    weights = losses.exp() if depends else torch.rand(7, generator=seeded(2))
    (expected,) = torch.autograd.grad(losses, theta, weights, create_graph=True)
    found = pullback({"": losses}, {"": weights}, {"theta": theta}, differentiable=True)["theta"]
    assert torch.equal(found, expected)
    again = [torch.autograd.grad(one.square().sum(), theta, retain_graph=True)[0] for one in (found, expected)]
    assert torch.equal(*again)


def test_several_outputs_and_groups_come_back_in_their_places() -> None:
    a, b = (torch.randn(3, generator=seeded(seed), requires_grad=True) for seed in (0, 1))
    outputs = {"sum": (a * b).sum(), "each": a.square()}
    weights = {"sum": torch.tensor(2.0), "each": torch.tensor([1.0, 0.0, -1.0])}
    by_a, by_b = pullbacks(outputs, weights, {"a": a}, {"b": b})
    torch.testing.assert_close(by_a["a"], 2 * b + 2 * a * weights["each"])
    torch.testing.assert_close(by_b["b"], 2 * a)


def test_the_gradient_of_plain_training_does_not_import_sympy() -> None:
    program = (
        "import sys, torch; from metaloom.learners.tensors import pullback; t = torch.ones(3, requires_grad=True); "
        "pullback({'': t * t}, {'': torch.ones(3)}, {'t': t}); sys.exit('sympy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
