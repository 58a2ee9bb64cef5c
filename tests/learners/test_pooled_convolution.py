"""The one-pass convolution and pooling: torch's own two layers, to any order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import forward_ad

from metaloom.learners.networks import pooled_convolution as module
from metaloom.learners.networks.pooled_convolution import pooled_convolution
from metaloom.testing.problems import normal


def two_layers(images: Tensor, kernel: Tensor) -> Tensor:
    return F.max_pool2d(F.conv2d(images, kernel, padding=1), 2)


@given(
    images=st.integers(1, 4),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    outputs=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30, deadline=None)
def test_it_is_a_convolution_and_a_pooling(images: int, height: int, width: int, outputs: int, seed: int) -> None:
    x, kernel = normal(images, 1, height, width, seed=seed), normal(outputs, 1, 3, 3, seed=seed + 1).requires_grad_()
    found, expected = pooled_convolution(x, kernel), two_layers(x, kernel)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    slope = normal(*expected.shape, seed=seed + 2)
    slopes = [torch.autograd.grad(y, kernel, slope)[0] for y in (found, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-11, atol=1e-12)


def test_it_is_differentiated_rightly_to_third_order() -> None:
    x = normal(3, 1, 6, 7, seed=0)

    def derivatives(layers: object) -> list[Tensor]:
        kernel = normal(5, 1, 3, 3, seed=1).requires_grad_()
        total, found = layers(x, kernel).sin().sum(), []  # type: ignore[operator]
        for order in range(3):
            (slope,) = torch.autograd.grad(total, kernel, create_graph=True)
            found.append(slope)
            total = (slope.cos() * normal(*slope.shape, seed=2 + order)).sum()
        return found

    torch.testing.assert_close(derivatives(pooled_convolution), derivatives(two_layers), rtol=1e-10, atol=1e-11)


def test_its_forward_mode_is_the_slope_along_a_direction() -> None:
    x, kernel, direction = normal(3, 1, 6, 6, seed=0), normal(4, 1, 3, 3, seed=1), normal(4, 1, 3, 3, seed=2)
    cotangent = normal(3, 4, 3, 3, seed=3)

    def tangent(layers: object) -> Tensor:
        """Of the outputs, and of the slope by the kernel: through all three functions."""
        with forward_ad.dual_level():
            leaf = forward_ad.make_dual(kernel.clone().requires_grad_(), direction)
            y = layers(x, leaf)  # type: ignore[operator]
            (slope,) = torch.autograd.grad((y.sin() * cotangent).sum(), leaf, create_graph=True)
            return torch.cat([forward_ad.unpack_dual(one).tangent.flatten() for one in (y, slope)])

    torch.testing.assert_close(tangent(pooled_convolution), tangent(two_layers), rtol=1e-11, atol=1e-12)


def test_gradients_are_accurate_in_float32() -> None:
    x, kernel = normal(75, 1, 28, 28, seed=0), normal(64, 1, 3, 3, seed=1)
    slope = normal(75, 64, 14, 14, seed=2)
    found, exact = (
        torch.autograd.grad(pooled_convolution(x.to(kind), leaf), leaf, slope.to(kind))[0]
        for kind in (torch.float32, torch.float64)
        for leaf in [kernel.to(kind).requires_grad_()]
    )
    assert float((found.double() - exact).abs().max() / exact.abs().max()) < 3e-6


def test_of_equal_values_the_first_is_taken_as_torch_does() -> None:
    kernel = normal(3, 1, 3, 3, seed=1).requires_grad_()
    flat = torch.ones(2, 1, 6, 6, dtype=torch.float64)
    flat[:, :, :, 4:] = 0.5
    slopes = [torch.autograd.grad(layers(flat, kernel).sum(), kernel)[0] for layers in (pooled_convolution, two_layers)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pixel", [(0, 0), (2, 3), (3, 2), (5, 5)])
def test_what_is_not_a_number_is_not_hidden(pixel: tuple[int, int]) -> None:
    x, kernel = normal(1, 1, 6, 6, seed=0), normal(2, 1, 3, 3, seed=1)
    x[0, 0, *pixel] = torch.nan
    torch.testing.assert_close(pooled_convolution(x, kernel), two_layers(x, kernel), equal_nan=True)
    bad = torch.full_like(kernel, torch.nan)
    assert bool(pooled_convolution(normal(1, 1, 6, 6, seed=0), bad).isnan().all())


def test_it_works_where_nothing_can_be_written(tmp_path: Path) -> None:
    """A package that another user installed, and no home: every process compiles its own loops."""
    (tmp_path / "loops.py").write_text(Path(module.__file__).read_text())
    (tmp_path / "__pycache__").write_text("no folder")
    code = "import torch, loops; print(float(loops.pooled_convolution(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3))))"
    nowhere = {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null", "PYTHONPATH": str(tmp_path)}
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | nowhere
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "4.0"), done.stderr


def test_without_numba_the_two_layers_of_torch_do_it() -> None:
    """Serving a bundle does not need numba; the output and the gradient are the same up to rounding."""
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from metaloom.learners.networks.pooled_convolution import pooled_convolution\n"
        "x = torch.arange(32., dtype=torch.float64).sin().view(2, 1, 4, 4)\n"
        "kernel = torch.arange(27., dtype=torch.float64).cos().view(3, 1, 3, 3).requires_grad_()\n"
        "total = pooled_convolution(x, kernel).pow(2).sum()\n"
        "print(total.item(), torch.autograd.grad(total, kernel)[0].abs().sum().item())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    x = torch.arange(32.0, dtype=torch.float64).sin().view(2, 1, 4, 4)
    kernel = torch.arange(27.0, dtype=torch.float64).cos().view(3, 1, 3, 3).requires_grad_()
    total = pooled_convolution(x, kernel).pow(2).sum()
    here = [total.item(), torch.autograd.grad(total, kernel)[0].abs().sum().item()]
    assert [float(one) for one in there.stdout.split()] == pytest.approx(here, rel=1e-12)
