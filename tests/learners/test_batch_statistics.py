"""The fast batch norm outside of transforms: the same numbers as primitive operations, exact to second order."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from metaloom.learners.networks.batch_norm import (
    SMALL,
    Mapped,
    Normalization,
    Normalized,
    batch_statistics,
    channels_last,
)
from metaloom.learners.networks.pooled_convolution import Convolution
from metaloom.testing.problems import normal

CHANNELS = 4
SHAPES = [(6, CHANNELS), (6, CHANNELS, 3), (3, CHANNELS, 4, 4)]


def leaf(*shape: int, seed: int) -> Tensor:
    return channels_last(normal(*shape, seed=seed) * 2 + 1).requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
def test_normalization_is_differentiated_rightly_twice(shape: tuple[int, ...]) -> None:
    leaves = (leaf(*shape, seed=0), leaf(CHANNELS, seed=1), leaf(CHANNELS, seed=2))

    def normalize(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return Normalization(fused=True)("a", x, weight, bias)

    assert torch.autograd.gradcheck(normalize, leaves)
    assert torch.autograd.gradgradcheck(normalize, leaves)
    torch.testing.assert_close(normalize(*leaves), Normalization()("a", *leaves), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "other"), [*((shape, False) for shape in SHAPES), (SHAPES[-1], True)])
def test_values_and_statistics_together_are_differentiated_rightly_twice(shape: tuple[int, ...], other: bool) -> None:
    """Backwards, and forwards by dual numbers; the map of x itself, or of other values that hang on it."""
    leaves = (leaf(*shape, seed=0), leaf(CHANNELS, seed=1), leaf(CHANNELS, seed=2))

    def normalize(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return Normalized.apply(x, x[..., :3, ::2].exp() if other else None, weight, bias)

    assert torch.autograd.gradcheck(normalize, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(normalize, leaves, check_fwd_over_rev=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_map_by_given_statistics_is_differentiated_rightly_twice(shape: tuple[int, ...]) -> None:
    variance = (normal(CHANNELS, seed=2).square() + 0.5).requires_grad_()
    leaves = (leaf(*shape, seed=0), leaf(CHANNELS, seed=1), variance, leaf(CHANNELS, seed=3), leaf(CHANNELS, seed=4))

    assert torch.autograd.gradcheck(Mapped.apply, leaves, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(Mapped.apply, leaves, check_fwd_over_rev=True)


@pytest.mark.parametrize("moving", [(0,), (1,), (2,), (1, 2)])
def test_dual_numbers_of_some_of_the_inputs(moving: tuple[int, ...]) -> None:
    values = [normal(5, CHANNELS, 6, 6, seed=0), normal(CHANNELS, seed=1), normal(CHANNELS, seed=2)]
    tangents = [normal(*value.shape, seed=3 + i) * (i in moving) for i, value in enumerate(values)]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(values[i], tangents[i]) if i in moving else values[i] for i in range(3)]
        found = [forward_ad.unpack_dual(one).tangent for one in Normalized.apply(duals[0], None, *duals[1:])]

    def plain(*given: Tensor) -> tuple[Tensor, ...]:
        norm = Normalization()
        return norm("a", *given), norm.collected["a.mean"], norm.collected["a.var"]

    expected = torch.func.jvp(plain, tuple(values), tuple(tangents))[1]
    for one, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(torch.zeros_like(exact) if one is None else one, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_gradients_are_accurate_in_float32(offset: float) -> None:
    values = channels_last(normal(64, 16, 14, 14, seed=0) + offset), normal(16, seed=1), normal(16, seed=2)
    cotangent = channels_last(normal(64, 16, 14, 14, seed=3))

    def slopes(dtype: torch.dtype) -> tuple[Tensor, ...]:
        leaves = [value.to(dtype).requires_grad_() for value in values]
        return torch.autograd.grad(Normalized.apply(leaves[0], None, *leaves[1:])[0], leaves, cotangent.to(dtype))

    for single, double in zip(slopes(torch.float32), slopes(torch.float64), strict=True):
        error = (single.double() - double).norm() / double.norm()
        assert float(error) < 2e-6 * max(offset, 1)


@pytest.mark.parametrize("gamma", [(0.5, 1.0, 2.0, 3.0), (0.5, -1.0, 2.0, 3.0), (0.5, 0.0, 2.0, 3.0)])
def test_pooling_first_changes_nothing(gamma: tuple[float, ...]) -> None:
    weight = torch.tensor(gamma, dtype=torch.float64, requires_grad=True)
    leaves = (leaf(5, CHANNELS, 6, 6, seed=0), weight, leaf(CHANNELS, seed=2))
    fast = Normalization(fused=True)("a", *leaves, pool=True)
    slow = F.max_pool2d(Normalization()("a", *leaves), 2)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    cotangent = normal(*fast.shape, seed=3)
    found, expected = (torch.autograd.grad(y, leaves, cotangent) for y in (fast, slow))
    if 0.0 not in gamma:  # all four values of a window tie there
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


def test_second_order_with_pooling_equals_primitive_operations() -> None:
    x, kernel = normal(4, 1, 8, 8, seed=0), normal(CHANNELS, 1, 3, 3, seed=1).requires_grad_()
    weight, bias = normal(CHANNELS, seed=2).square() + 0.1, normal(CHANNELS, seed=3)

    def second_order(fused: bool) -> Tensor:
        norm = Normalization(fused=fused)
        made = Convolution(norm.arrange(x), kernel)
        hidden = F.relu(norm("a", made, weight, bias, pool=True))
        (slope,) = torch.autograd.grad(hidden.square().mean(), kernel, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), kernel)[0]

    torch.testing.assert_close(second_order(True), second_order(False), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("images", [64, 128])
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_statistics_are_accurate_in_float32(offset: float, images: int) -> None:
    """Of few values and of many, whose ways differ."""
    x = channels_last((normal(images, 16, 14, 14, seed=0) + offset).float())
    assert (x.numel() > SMALL) == (images == 128)
    mean, var = batch_statistics(x)
    torch.testing.assert_close(mean.double(), x.double().mean((0, 2, 3)), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(var.double(), x.double().var((0, 2, 3), correction=0), rtol=2e-6, atol=0)


def test_one_channel_is_laid_out_channels_innermost() -> None:
    x = normal(3, 1, 5, 5, seed=0)
    assert channels_last(x).stride() == (25, 1, 5, 1)
    torch.testing.assert_close(channels_last(x), x)
