"""Our batch norm: the formula, accurate in every memory layout, and exact at second order."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.networks.batch_norm import EPSILON, MOMENTUM, Normalization, running_average
from metaloom.testing.problems import normal

CHANNELS = 5


def reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.batch_norm(x.double(), None, None, weight.double(), bias.double(), training=True, eps=EPSILON)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shape", [(8, CHANNELS), (8, CHANNELS, 3), (8, CHANNELS, 4, 4)])
def test_it_is_batch_norm(shape: tuple[int, ...], fused: bool) -> None:
    x, weight, bias = normal(*shape, seed=0), normal(CHANNELS, seed=1), normal(CHANNELS, seed=2)
    norm = Normalization(fused=fused)
    torch.testing.assert_close(norm("a", x, weight, bias), reference(x, weight, bias), rtol=1e-12, atol=1e-12)
    axes = [axis for axis in range(x.ndim) if axis != 1]
    torch.testing.assert_close(norm.collected["a.mean"], x.mean(axes))
    torch.testing.assert_close(norm.collected["a.var"], x.var(axes, correction=0))


def test_given_statistics_are_used_and_not_collected() -> None:
    x, weight, bias = normal(8, CHANNELS, 2, 2, seed=0), normal(CHANNELS, seed=1), normal(CHANNELS, seed=2)
    mean, var = normal(CHANNELS, seed=3), normal(CHANNELS, seed=4).square()
    norm = Normalization({"a.mean": mean, "a.var": var})
    expected = F.batch_norm(x, mean, var, weight, bias, training=False, eps=EPSILON)
    torch.testing.assert_close(norm("a", x, weight, bias), expected, rtol=1e-12, atol=1e-12)
    assert norm.collected == {}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_accurate_in_float32_in_every_layout(layout: torch.memory_format, offset: float, fused: bool) -> None:
    x = (normal(64, 16, 14, 14, seed=0) + offset).float().contiguous(memory_format=layout)
    weight, bias = torch.ones(16), torch.zeros(16)
    error = (Normalization(fused=fused)("a", x, weight, bias).double() - reference(x, weight, bias)).abs().max()
    assert float(error) < 2e-6 * max(offset, 1)  # a mean of 30 costs the digits it takes


def loss_of(weight: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """A smooth network around one batch norm: conv, norm, tanh."""
    hidden = F.conv2d(x, kernel, padding=1)
    return torch.tanh(Normalization()("a", hidden, weight, weight)).cos().sum()


def slope_norm(weight: Tensor, x: Tensor, kernel: Tensor) -> Tensor:
    """The squared length of the first derivative by the kernel: its own derivative is of second order."""
    slope = torch.func.grad(loss_of, argnums=2)(weight, x, kernel)
    return slope.square().sum()


def test_second_order_equals_central_differences() -> None:
    weight, x, kernel = normal(CHANNELS, seed=1), normal(4, 2, 3, 3, seed=0), normal(CHANNELS, 2, 3, 3, seed=2)
    direction = normal(*kernel.shape, seed=3)
    second = torch.func.grad(slope_norm, argnums=2)(weight, x, kernel)
    ends = [slope_norm(weight, x, kernel + sign * 1e-6 * direction) for sign in (1, -1)]
    measured = (ends[0] - ends[1]) / 2e-6
    torch.testing.assert_close((second * direction).sum(), measured, rtol=1e-7, atol=0)


def test_second_order_under_vmap_equals_a_loop() -> None:
    weight, kernel = normal(CHANNELS, seed=1), normal(CHANNELS, 2, 3, 3, seed=2)
    batch = normal(3, 4, 2, 3, 3, seed=0)
    second = torch.func.grad(slope_norm, argnums=2)
    looped = torch.stack([second(weight, x, kernel) for x in batch])
    torch.testing.assert_close(
        torch.func.vmap(second, (None, 0, None))(weight, batch, kernel), looped, rtol=1e-10, atol=1e-10
    )

    def mean(kernel: Tensor) -> Tensor:
        return torch.func.vmap(slope_norm, (None, 0, None))(weight, batch, kernel).mean()

    torch.testing.assert_close(torch.func.grad(mean)(kernel), looped.mean(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_fused_equals_primitive_at_first_and_second_order(layout: torch.memory_format) -> None:
    """Through y and through both statistics, by x, gamma and beta."""
    values = (normal(6, CHANNELS, 3, 3, seed=0), normal(CHANNELS, seed=1), normal(CHANNELS, seed=2))
    found = []
    for fused in (False, True):
        leaves = [one.clone().requires_grad_() for one in values]
        norm = Normalization(fused=fused)
        y = norm("a", leaves[0].contiguous(memory_format=layout), leaves[1], leaves[2])
        loss = y.sin().sum() + (norm.collected["a.mean"] ** 3).sum() + norm.collected["a.var"].log().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        total = sum((one.cos() * normal(*one.shape, seed=5)).sum() for one in first)
        found.append([*first, *torch.autograd.grad(total, leaves)])
    for primitive, fused_one in zip(*found, strict=True):
        torch.testing.assert_close(fused_one, primitive, rtol=1e-9, atol=1e-10)


def test_running_averages_move_by_the_momentum() -> None:
    first, second = {"a.mean": torch.zeros(3)}, {"a.mean": torch.ones(3)}
    assert torch.equal(running_average({}, second)["a.mean"], torch.ones(3))
    torch.testing.assert_close(running_average(first, second)["a.mean"], torch.full((3,), MOMENTUM))
