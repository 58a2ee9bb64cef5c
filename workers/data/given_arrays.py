"""Arrays of the user's own, numpy or torch, checked and put into one form."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.user_single_task import part_named

CHANNELS = (1, 3)
WANTED = "give rows [n, features] or images [n, height, width], [n, channels, height, width]"


@dataclass(frozen=True)
class GivenArrays:
    """Examples with their targets.

    Attributes:
        x: Features [n, features] in float64; or images [n, channels, height, width], 8-bit, or float32 in [0, 1].
        y: The classes as text [n], or targets [n, targets] in float64.
        parts: The part that each example belongs to; None where it was not said.
        notes: What was converted.
    """

    x: NDArray[Any]
    y: NDArray[Any]
    parts: list[str] | None = None
    notes: tuple[str, ...] = ()


def check_arrays(x: Any, y: Any, split: Any = None, *, has_classes: bool) -> GivenArrays:
    """Check arrays and put them into one form.

    Args:
        x: Examples.
        y: Labels [n] of any kind, or targets [n] or [n, targets].
        split: The name of the part of each example.
        has_classes: Whether ``y`` are classes.

    Raises:
        DataError: They have another layout, a value that is missing or not finite, or differ in length.
    """
    examples, notes = _examples(as_array(x, "x"))
    targets = _classes(as_array(y, "y")) if has_classes else _numbers(as_array(y, "y"))
    if len(examples) != len(targets):
        raise DataError(f"tasks: x holds {len(examples)} examples, and y {len(targets)} labels; give one label each")
    if not len(examples):
        raise DataError("tasks: x holds no example")
    parts = None
    if split is not None:
        names = as_array(split, "split")
        if names.shape != (len(examples),):
            raise DataError(f"tasks: split has shape {names.shape}; name one part for each of {len(examples)} examples")
        parts = [part_named(str(name), "tasks: split") for name in names.tolist()]
    return GivenArrays(examples, targets, parts, notes)


def as_array(given: Any, name: str) -> NDArray[Any]:
    """Return numpy or torch arrays, or nested lists, as a numpy array; raises DataError for ragged ones."""
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    try:
        return np.asarray(given)
    except ValueError as error:
        raise DataError(f"tasks: {name} is no array: {error}") from error


def _examples(x: NDArray[Any]) -> tuple[NDArray[Any], tuple[str, ...]]:
    if x.dtype.kind not in "fiub":
        raise DataError(
            f"tasks: x is an array of {x.dtype}, and examples must be numbers; texts are read from a "
            "file, by tasks: {source: text, path: FILE}"
        )
    if x.ndim not in (2, 3, 4):
        raise DataError(f"tasks: x has shape {x.shape}; {WANTED}")
    bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(1))
    if len(bad):
        raise DataError(f"tasks: x holds a NaN or an infinity in {len(bad)} examples: {some(list(bad))}")
    if x.ndim == 2:
        return x.astype(np.float64), ()
    notes: tuple[str, ...] = ()
    if x.ndim == 3:
        x = x[:, None]
    elif x.shape[1] not in CHANNELS and x.shape[3] in CHANNELS:
        x, notes = np.moveaxis(x, 3, 1), (f"x [n, height, width, channels] {x.shape}: the channels are put first",)
    if x.shape[1] not in CHANNELS:
        raise DataError(f"tasks: x has shape {x.shape}, and images have 1 or 3 channels; {WANTED}")
    return _pixels(x), notes


def _pixels(x: NDArray[Any]) -> NDArray[Any]:
    """Return pixels as bytes, or as float32 in [0, 1]; raises DataError for others."""
    low, high = float(x.min(initial=0)), float(x.max(initial=0))
    if x.dtype == np.uint8 or (x.dtype.kind in "iu" and 1 < high <= 255 and low >= 0):
        return x.astype(np.uint8)
    if low < 0 or high > 1:
        raise DataError(
            f"tasks: x holds images with values from {low:.4g} to {high:.4g}; give 8-bit ones, or floats in [0, 1] "
            "(undo a normalization, or divide by the brightest value)"
        )
    return x.astype(np.float32)


def _classes(y: NDArray[Any]) -> NDArray[Any]:
    """Return classes as text [n]; whole numbers that are floats are written without a point."""
    if y.ndim != 1:
        advice = "give the class of each example, such as one_hot.argmax(1)" if y.ndim == 2 else "give [n]"
        raise DataError(f"tasks: y has shape {y.shape}; {advice}, or tasks.kind: regression")
    missing = [place for place, label in enumerate(y.tolist()) if _is_missing(label)]
    if missing:
        raise DataError(f"tasks: y lacks the label of {len(missing)} examples: {some(missing)}")
    if y.dtype.kind == "f":
        if fractions := np.unique(y[y != np.round(y)])[:3].tolist():
            raise DataError(
                f"tasks: y holds {some(fractions)}, and a class is a whole number or a text; "
                "for numbers give tasks.kind: regression"
            )
        y = y.astype(np.int64)
    return np.asarray([str(label) for label in y.tolist()], dtype=str)


def _is_missing(label: Any) -> bool:
    return label is None or (isinstance(label, float) and math.isnan(label)) or str(label).strip() == ""


def _numbers(y: NDArray[Any]) -> NDArray[np.float64]:
    """Return targets [n, targets]."""
    if y.dtype.kind not in "fiub" or y.ndim not in (1, 2):
        raise DataError(f"tasks: y is an array {y.shape} of {y.dtype}; regression needs numbers, [n] or [n, targets]")
    targets = y.astype(np.float64).reshape(len(y), -1)
    bad = np.flatnonzero(~np.isfinite(targets).all(1))
    if len(bad):
        raise DataError(f"tasks: y holds a NaN or an infinity in {len(bad)} examples: {some(list(bad))}")
    return targets


def distinct(labels: NDArray[Any]) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes, numbers in their order and texts in theirs, and each example's place among them."""
    names, places = np.unique(labels, return_inverse=True)
    order = sorted(range(len(names)), key=lambda place: _in_order(str(names[place])))
    rank = np.empty(len(names), dtype=np.int64)
    rank[order] = np.arange(len(names))
    return [str(names[place]) for place in order], rank[places]


def _in_order(name: str) -> tuple[int, int, str]:
    is_number = name.lstrip("-").isascii() and name.lstrip("-").isdigit()
    return (0, int(name), name) if is_number else (1, 0, name)


def joined(parts: Sequence[GivenArrays]) -> GivenArrays:
    """Put several sets of arrays one after another; raises DataError if their examples differ in shape."""
    shapes = {one.x.shape[1:] for one in parts}
    if len(shapes) > 1:
        raise DataError(f"tasks: examples of different shapes: {', '.join(map(str, sorted(shapes)))}")
    said = [part for one in parts for part in one.parts or ()]
    x, y = np.concatenate([one.x for one in parts]), np.concatenate([one.y for one in parts])
    return GivenArrays(x, y, said or None, parts[0].notes)
