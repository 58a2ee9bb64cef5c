"""Each image operation against PIL or a loop over pixels, at magnitude 0, and its derivatives."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from metaloom.learners.knowledge.image_operations import OPERATIONS, STANDARD, Chance, affine, covered

DOUBLE = torch.float64
AFFINE = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
STEPPED = ("equalize", "solarize", "posterize")


def images(n: int = 4, channels: int = 3, height: int = 20, width: int = 24, seed: int = 0) -> Tensor:
    """Draw images of whole 8-bit levels, smooth enough that their levels repeat."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 4, 4, generator=generator, dtype=DOUBLE)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return (smooth * 255).round() / 255


def chance(n: int, sign: float = 1.0) -> Chance:
    generator = torch.Generator().manual_seed(9)
    place = torch.rand(n, 2, generator=generator, dtype=DOUBLE)
    return Chance(torch.full((n,), sign, dtype=DOUBLE), place, torch.arange(n).roll(1))


def apply(name: str, x: Tensor, magnitude: float, sign: float = 1.0) -> Tensor:
    return OPERATIONS[name].function(x, torch.full((len(x),), magnitude, dtype=x.dtype), chance(len(x), sign))


def pil(x: Tensor) -> list[Image.Image]:
    eight = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(one.squeeze(-1) if one.shape[-1] == 1 else one) for one in eight]


def back(pictures: list[Image.Image]) -> Tensor:
    arrays = [np.asarray(picture, dtype=np.float64) / 255 for picture in pictures]
    return torch.stack([torch.from_numpy(a).reshape(*a.shape[:2], -1).permute(2, 0, 1) for a in arrays])


PIL_SAYS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "auto_contrast": lambda picture: ImageOps.autocontrast(picture),
    "invert": ImageOps.invert,
    "equalize": lambda picture: ImageOps.equalize(picture),
    "solarize": lambda picture: ImageOps.solarize(picture, 128),
    "posterize": lambda picture: ImageOps.posterize(picture, 6),
    "contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.45),
    "color": lambda picture: ImageEnhance.Color(picture).enhance(1.45),
    "brightness": lambda picture: ImageEnhance.Brightness(picture).enhance(1.45),
    "sharpness": lambda picture: ImageEnhance.Sharpness(picture).enhance(1.45),
    "flip": ImageOps.mirror,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PIL_SAYS)
def test_an_operation_does_what_pil_does(name: str, channels: int) -> None:
    """PIL rounds to whole levels (auto_contrast and the kernel before the factor), so two levels are allowed."""
    x = images(channels=channels)
    magnitude = 127 / 255 if name == "solarize" else 0.5
    expected = back([PIL_SAYS[name](picture) for picture in pil(x)])
    found = apply(name, x, magnitude)
    exact = name in ("invert", "equalize", "solarize", "posterize", "flip")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 if exact else 2.01 / 255)
    if name != "color" or channels == 3:
        assert float((found - x).abs().max()) > 0.01


def read(picture: Tensor, row: float, column: float) -> float:
    """Interpolate one channel [height, width] at a position, by hand."""
    top, left, total = math.floor(row), math.floor(column), 0.0
    for r, c in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= r < picture.shape[0] and 0 <= c < picture.shape[1]:
            total += float(picture[r, c]) * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


def moved(name: str, row: float, column: float, height: int, width: int, amount: float) -> tuple[float, float]:
    """Say where an operation reads for a pixel that is at (row, column) from the middle."""
    if name == "rotate":
        angle = math.radians(30 * amount)
        return (
            row * math.cos(angle) + column * math.sin(angle),
            column * math.cos(angle) - row * math.sin(angle),
        )
    return {
        "shear_x": (row, column + 0.3 * amount * row),
        "shear_y": (row + 0.3 * amount * column, column),
        "translate_x": (row, column + 0.45 * width * amount),
        "translate_y": (row + 0.45 * height * amount, column),
    }[name]


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("name", AFFINE)
def test_an_affine_operation_reads_where_a_loop_reads(name: str, sign: float) -> None:
    height, width, magnitude = 5, 6, 0.7
    x = images(2, 1, height, width)
    found = apply(name, x, magnitude, sign)
    for picture, one in zip(x, found, strict=True):
        for i in range(height):
            for j in range(width):
                middle = ((height - 1) / 2, (width - 1) / 2)
                at = moved(name, i - middle[0], j - middle[1], height, width, sign * magnitude)
                assert float(one[0, i, j]) == pytest.approx(
                    read(picture[0], at[0] + middle[0], at[1] + middle[1]), abs=1e-12
                )


def test_affine_is_torchs_own_sampling() -> None:
    x = images(3, 2, 6, 6)
    angle = torch.tensor([0.1, -0.3, 0.7], dtype=DOUBLE)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros(3, dtype=DOUBLE)
    theta = torch.stack([torch.stack([cosine, -sine, zero], -1), torch.stack([sine, cosine, zero], -1)], 1)
    grid = torch.nn.functional.affine_grid(theta, [3, 2, 6, 6], align_corners=False)
    expected = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    torch.testing.assert_close(affine(x, (cosine, sine, -sine, cosine), (zero, zero)), expected)


def test_the_squares_and_the_pair_by_hand() -> None:
    x = images(3, 1, 8, 8)
    decided = chance(3)._replace(place=torch.tensor([[0.5, 0.5]] * 3, dtype=DOUBLE))
    half = torch.full((3,), 0.5, dtype=DOUBLE)  # a square of 2 x 2 pixels in the middle
    cut = OPERATIONS["cutout"].function(x, half, decided)
    erased = OPERATIONS["erase"].function(x, half, decided)
    for i in range(8):
        for j in range(8):
            inside = i in (3, 4) and j in (3, 4)
            torch.testing.assert_close(cut[:, 0, i, j], x[:, 0, i, j] * (not inside))
            torch.testing.assert_close(erased[:, 0, i, j], x.mean((1, 2, 3)) if inside else x[:, 0, i, j])
    assert float(covered(x, torch.full((3,), 0.6, dtype=DOUBLE), decided.place).sum()) == pytest.approx(3 * 2.4**2)
    paired = apply("sample_pairing", x, 0.5)
    torch.testing.assert_close(paired, 0.8 * x + 0.2 * x[torch.tensor([2, 0, 1])])


@pytest.mark.parametrize("name", OPERATIONS)
def test_magnitude_0_changes_nothing_and_shapes_stay(name: str) -> None:
    for channels in (1, 3):
        x = torch.rand(3, channels, 8, 8, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
        found = apply(name, x, 0.0)
        assert found.shape == x.shape
        assert found.dtype == x.dtype
        if OPERATIONS[name].amount:
            torch.testing.assert_close(found, x, rtol=0, atol=1e-12)
        strong = apply(name, x, 1.0, -1.0)
        assert float(strong.min()) >= -1e-12
        assert float(strong.max()) <= 1 + 1e-12


@pytest.mark.parametrize("name", [n for n in OPERATIONS if OPERATIONS[n].amount and n not in STEPPED])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_derivative_by_the_magnitude_is_exact(name: str, sign: float) -> None:
    """By central differences, and again of the derivative: a learned policy needs no more than the first."""
    x = images(3, 3, 8, 8, seed=3) * 0.9 + 0.05
    mixed = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)

    def value(m: Tensor) -> Tensor:
        return (OPERATIONS[name].function(x, m, chance(3, sign)) * mixed).sum((1, 2, 3))

    m = torch.tensor([0.31, 0.57, 0.83], dtype=DOUBLE, requires_grad=True)
    (slope,) = torch.autograd.grad(value(m).sum(), m)
    step = 1e-6
    with torch.no_grad():
        difference = (value(m + step) - value(m - step)) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-7)
    assert float(slope.abs().min()) > 0


@pytest.mark.parametrize("name", AFFINE)
def test_affine_operations_differentiate_twice(name: str) -> None:
    x = images(1, 1, 3, 3, seed=4).requires_grad_()
    m = torch.tensor([0.4], dtype=DOUBLE, requires_grad=True)

    def function(image: Tensor, magnitude: Tensor) -> Tensor:
        return OPERATIONS[name].function(image, magnitude, chance(1)).square()

    assert torch.autograd.gradcheck(function, (x, m))
    assert torch.autograd.gradgradcheck(function, (x, m))


@pytest.mark.parametrize("name", STEPPED)
def test_a_stepped_operation_declares_its_stand_in(name: str) -> None:
    one = OPERATIONS[name]
    assert one.derivative == "straight_through"
    x = images(2, 1, 16, 16).requires_grad_()
    m = torch.tensor([0.4, 0.7], dtype=DOUBLE, requires_grad=True)
    total = one.function(x, m, chance(2)).sum()
    by_x, by_m = torch.autograd.grad(total, (x, m), allow_unused=True)
    assert float(by_x.abs().sum()) > 0
    if one.amount:
        assert torch.isfinite(by_m).all()
        assert float(by_m.abs().min()) > 0
    else:
        assert by_m is None


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_batches(name: str) -> None:
    x = torch.stack([images(3, 1, 8, 8, seed=s) for s in range(2)])
    m = torch.tensor([[0.2, 0.5, 0.9], [0.1, 0.6, 0.7]], dtype=DOUBLE)
    decided = Chance(*(torch.stack([one, one.roll(1, 0)]) for one in chance(3)))
    function = OPERATIONS[name].function
    found = torch.func.vmap(function)(x, m, decided)
    each = [function(x[i], m[i], Chance(*(part[i] for part in decided))) for i in range(2)]
    torch.testing.assert_close(found, torch.stack(each))


def test_the_standard_fifteen_are_there_and_say_what_they_do() -> None:
    assert len(set(STANDARD)) == 15
    assert set(STANDARD) <= set(OPERATIONS)
    assert OPERATIONS["rotate"].describe(0.3) == "turned by +-9 degrees"
    assert OPERATIONS["invert"].describe(0.3) == ""
