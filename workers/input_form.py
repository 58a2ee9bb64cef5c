"""The form of a learner's inputs: converts users' arrays to it where that is unambiguous, and refuses the rest.

What is converted is logged as a warning: channels that come last, and whole numbers that must be pixels. A table's
features are never scaled by their type: equal numbers give equal inputs, whatever their dtype.
"""

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import unknown
from metaloom.workers.data.base import DataError
from metaloom.workers.data.table_encoding import encoded_table
from metaloom.workers.data.text_encoding import FittedText
from metaloom.workers.errors import BundleError
from metaloom.workers.text_form import read_texts

_LOG = logging.getLogger("metaloom.bundle")
BYTE = 255.0
LOWEST, HIGHEST = -0.5, 1.5  # of pixels in [0, 1]: smooth resizing overshoots by a tenth or two
# A support set is of a table's unit where its spread around its own means is within this factor of training's.
SAME_SPREAD = 50.0


@dataclass(frozen=True)
class InputForm:
    """What one example of a learner looks like.

    Attributes:
        task: The shape of its tasks.
        brightest: The stored number of a white pixel, where inputs are pixels in [0, 1]; 0 where they are not, or it is
            not known.
        divisor: What the support set's whole numbers were divided by; its queries' are too. None: they were not.
    """

    task: TaskShape
    brightest: float = 0.0
    divisor: float | None = None

    def read(self, given: Any, name: str) -> tuple[Tensor, "InputForm"]:
        """Return examples [n, *inputs], floating-point, and the form with their divisor.

        Args:
            given: numpy or torch arrays, nested lists, pictures of Pillow, a table with named columns, or texts.
            name: How errors and warnings name them.

        Raises:
            BundleError: They have another layout, another range, or are not finite.
        """
        if (text := FittedText.of_task(self.task)) is not None:
            return read_texts(given, name, text), self
        tensor = numbers(self._columns(self._pictures(given, name), name), name)
        is_bytes = tensor.dtype == torch.uint8
        tensor = self._laid_out(tensor if tensor.is_floating_point() else tensor.double(), name)
        check_finite(tensor, name)
        if self.brightest or (is_bytes and len(self.task.inputs) == 3):
            return self._as_pixels(tensor, name, is_bytes)
        return self.standardized(tensor), self

    def _columns(self, given: Any, name: str) -> Any:
        """Put a table's named columns into the order of training; raises BundleError if one is missing."""
        features, columns = self.task.features, getattr(given, "columns", None)
        if columns is None or not features:
            return given
        if self.task.columns:
            return self._encoded(given, name)
        held = [str(column) for column in columns]
        for feature in features:
            if feature not in held:
                raise BundleError(f"{name}: {unknown('column', feature, held)}")
        return given[list(features)]

    def _encoded(self, given: Any, name: str) -> NDArray[np.float64]:
        """Return the features of a data frame as training's columns became them; raises BundleError."""
        frame = given.to_arrow() if hasattr(given, "to_arrow") else pa.Table.from_pandas(given, preserve_index=False)
        try:
            return encoded_table(self.task.columns, frame)
        except (DataError, pa.ArrowException) as problem:
            raise BundleError(f"{name}: {problem}") from problem

    def _pictures(self, given: Any, name: str) -> Any:
        """Turn pictures of Pillow into bytes of the learner's channels; anything else stays."""
        pictures = given if isinstance(given, list | tuple) else [given]
        if len(self.task.inputs) != 3 or not pictures or not all(hasattr(one, "convert") for one in pictures):
            return given
        channels, height, width = self.task.inputs
        if channels not in (1, 3):
            raise BundleError(f"{name}: this learner takes {channels} channels, which no picture has; give an array")
        if wrong := next((one.size for one in pictures if one.size != (width, height)), None):
            raise BundleError(f"{name}: a picture of {wrong[0]} x {wrong[1]} pixels; resize it to {width} x {height}")
        pixels = np.stack([np.asarray(one.convert("L" if channels == 1 else "RGB")) for one in pictures])
        return pixels.reshape(len(pictures), height, width, channels).transpose(0, 3, 1, 2)

    def _laid_out(self, tensor: Tensor, name: str) -> Tensor:
        """Return examples as [n, *inputs]; raises BundleError for a layout that could be meant in several ways."""
        inputs, given = self.task.inputs, tuple(tensor.shape[1:])
        rows = tensor.shape[0] if tensor.ndim else 0
        if rows and _without_ones(given) == _without_ones(inputs):
            return tensor.reshape(rows, *inputs)
        is_image, size = len(inputs) == 3, math.prod(inputs)
        if rows and is_image and given == (*inputs[1:], inputs[0]):
            _LOG.warning("%s: taken as [n, height, width, channels], and turned to [n, channels, height, width]", name)
            return tensor.movedim(-1, 1)
        side = math.isqrt(size)
        unrolled = given == (size,) and (not is_image or inputs[0] == 1)
        to_unroll = self.brightest and inputs == (size,) == (side**2,) and _without_ones(given) == (side, side)
        if rows and (unrolled or to_unroll):
            return tensor.reshape(rows, *inputs)
        raise BundleError(f"{name}: got shape {tuple(tensor.shape)}; this learner takes {self._wanted()}")

    def _wanted(self) -> str:
        inputs = self.task.inputs
        plain = f"[n, {', '.join(map(str, inputs))}]"
        if len(inputs) != 3:
            return plain
        kind = {1: "grey images", 3: "colour images"}.get(inputs[0], "images")
        return f"{plain}: {kind}, [n, channels, height, width]"

    def _as_pixels(self, tensor: Tensor, name: str, is_bytes: bool) -> tuple[Tensor, "InputForm"]:
        """Return pixels in [0, 1]: bytes and other whole numbers divided; raises BundleError for another range."""
        low, high = float(tensor.amin()), float(tensor.amax())
        if is_bytes:
            if 0 < high <= 1 and self.divisor is None:
                told = "%s: 8-bit pixels of 0 and 1 alone are nearly black; give floats where 1 is the brightest"
                _LOG.warning(told, name)
            return tensor.float() / BYTE, replace(self, divisor=self.divisor or BYTE)
        scales = sorted({self.divisor or self.brightest, self.brightest, BYTE})
        divisor = next((scale for scale in scales if high <= scale), None)
        whole = low >= 0 and bool((tensor == tensor.round()).all())
        if whole and divisor is not None and (high > 1 or self.divisor is not None):
            divisor = max(divisor, self.divisor or 0.0)
            _LOG.warning("%s: whole numbers up to %g are taken as pixels, and divided by %g", name, high, divisor)
            return tensor.float() / divisor, replace(self, divisor=divisor)
        if low < LOWEST or high > HIGHEST:
            raise BundleError(
                f"{name}: got values from {low:.4g} to {high:.4g}; this learner takes pixels in [0, 1], or 8-bit ones "
                "(undo a normalization, or divide by the brightest value)"
            )
        return tensor, self

    def standardized(self, tensor: Tensor) -> Tensor:
        """Return a table's features by training's mean and deviation."""
        if not self.task.mean:
            return tensor
        # in float64, as the table itself was standardized, so that the result has the same bits
        mean, deviation = (torch.tensor(one, dtype=torch.float64) for one in (self.task.mean, self.task.deviation))
        scaled = (tensor.double() - mean) / deviation
        return scaled.to(tensor.dtype)

    def raw(self, inputs: Tensor) -> Tensor:
        """Return standardized inputs in the units of the table, in float32; pixels as they are."""
        if not self.task.mean:
            return inputs.float()
        mean, deviation = (torch.tensor(one, dtype=torch.float64) for one in (self.task.mean, self.task.deviation))
        return (inputs.double() * deviation + mean).float()

    def tell_units(self, inputs: Tensor, name: str) -> None:
        """Warn where a table's standardized rows [n, features] cannot be in the units of training."""
        if not self.task.mean or len(inputs) < 2:
            return
        centre = inputs.mean(0)
        spread, away = float((inputs - centre).square().mean().sqrt()), float(centre.abs().amax())
        if 1 / SAME_SPREAD < spread < SAME_SPREAD and away < SAME_SPREAD:
            return
        told = (
            "%s: its features spread %.2g times as far as those of training, and lie up to %.2g deviations away; give "
            "them in the units of the training table, not scaled"
        )
        _LOG.warning(told, name, spread, away)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def numbers(given: Any, name: str) -> Tensor:
    """Return numbers as a tensor on any device: uint8, whole or floating-point; raises BundleError for others."""
    if isinstance(given, Tensor):
        return given.detach()
    try:
        array = np.asarray(given)
    except (TypeError, ValueError) as problem:  # a list of rows of unequal length
        raise BundleError(f"{name}: numbers of one shape are needed ({problem})") from problem
    if array.dtype.kind not in "fiub":
        raise BundleError(f"{name}: numbers are needed, got an array of {array.dtype}")
    return torch.from_numpy(np.ascontiguousarray(array if array.dtype == np.uint8 else array.astype(np.float64)))


def check_finite(tensor: Tensor, name: str) -> None:
    """Refuse a NaN or an infinity; raises BundleError."""
    if not bool(torch.isfinite(tensor).all()):
        raise BundleError(f"{name}: holds a NaN or an infinity")
