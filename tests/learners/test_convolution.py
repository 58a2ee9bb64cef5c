"""What a convolution's statistics and its largest outputs are, without its output."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.networks.batch_norm import channels_last
from metaloom.learners.networks.pooled_convolution import FEW_THREADS, Convolution, PooledConvolution
from metaloom.testing.problems import normal

CHANNELS = 4


def leaf(*shape: int, seed: int) -> Tensor:
    return channels_last(normal(*shape, seed=seed) * 2 + 1).requires_grad_()


@pytest.mark.parametrize(("stride", "padding", "size"), [(1, 1, 3), (2, 1, 3), (1, 0, 3), (1, 0, 1), (2, 0, 2)])
@pytest.mark.parametrize("inputs", [1, 3])
def test_statistics_of_a_convolution_follow_from_its_patches(inputs: int, stride: int, padding: int, size: int) -> None:
    images, kernel = channels_last(normal(5, inputs, 7, 8, seed=0) + 1), leaf(CHANNELS, inputs, size, size, seed=1)
    made = Convolution(images, kernel, stride, padding)
    torch.testing.assert_close(made.outputs(), F.conv2d(images, kernel, stride=stride, padding=padding))
    var, mean = torch.var_mean(made.outputs(), (0, 2, 3), correction=0)
    found = made.statistics()
    torch.testing.assert_close(found, (mean, var), rtol=1e-12, atol=1e-12)
    cotangents = [normal(CHANNELS, seed=seed) for seed in (2, 3)]
    slopes = [torch.autograd.grad(pair, kernel, cotangents, create_graph=True)[0] for pair in (found, (mean, var))]
    torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-11)
    second = [torch.autograd.grad(slope.cos().sum(), kernel)[0] for slope in slopes]
    torch.testing.assert_close(*second, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_statistics_of_a_convolution_are_accurate_in_float32(offset: float) -> None:
    made = Convolution((normal(75, 1, 28, 28, seed=0) + offset).float(), normal(16, 1, 3, 3, seed=1).float())
    var, mean = torch.var_mean(
        Convolution(made.images.double(), made.kernel.double()).outputs(), (0, 2, 3), correction=0
    )
    found = made.statistics()
    torch.testing.assert_close(found[0].double(), mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found[1].double(), var, rtol=2e-6, atol=0)


def test_only_constant_images_with_small_patches_take_that_way() -> None:
    image, kernel = normal(2, 1, 4, 4, seed=0), normal(CHANNELS, 1, 3, 3, seed=1)
    wide = normal(2, 2, 4, 4, seed=0), normal(CHANNELS, 2, 3, 3, seed=1)
    assert Convolution(image, kernel.requires_grad_()).has_small_patches
    assert not Convolution(*wide).has_small_patches
    assert not Convolution(image.requires_grad_(), kernel).has_small_patches  # images that are learned: distillation


def test_only_grey_images_are_pooled_as_they_are_convolved(monkeypatch: pytest.MonkeyPatch) -> None:
    image, kernel = normal(2, 1, 6, 6, seed=0), leaf(CHANNELS, 1, 3, 3, seed=1)
    cases = [
        Convolution(image, kernel),
        Convolution(normal(2, 2, 6, 6, seed=0), leaf(CHANNELS, 2, 3, 3, seed=1)),
        Convolution(image, kernel, stride=2),
        Convolution(image, kernel, padding=0),
        Convolution(image, leaf(CHANNELS, 1, 1, 1, seed=1), padding=0),
        Convolution(image.clone().requires_grad_(), kernel),
    ]
    for index, made in enumerate(cases):
        pooled = made.pooled()
        torch.testing.assert_close(pooled, F.max_pool2d(made.outputs(), 2), rtol=1e-12, atol=1e-12)
        in_one_pass = type(pooled.grad_fn).__name__ == f"{PooledConvolution.__name__}Backward"
        assert in_one_pass == (index == 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: FEW_THREADS + 1)  # where torch's own share the work
    assert "MaxPool" in type(Convolution(image, kernel).pooled().grad_fn).__name__
