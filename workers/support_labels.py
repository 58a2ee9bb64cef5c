"""The labels of a support set: checked, numbered, and compared with the classes that a bundle knows."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from numbers import Number
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.errors import unknown
from metaloom.workers.data.base import some
from metaloom.workers.data.labels import as_known
from metaloom.workers.errors import BundleError

_LOG = logging.getLogger("metaloom.bundle")


def distinct_labels(given: Any, rows: int) -> tuple[NDArray[Any], Tensor]:
    """Return the distinct labels [ways], sorted, and each example's index in them [rows]; raises BundleError."""
    given = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    if isinstance(given, list | tuple):
        _check_labels(given)  # an array would turn a number beside texts into a text
    try:
        array = np.asarray(given)
    except ValueError as problem:
        raise BundleError(f"support_y: one label for each example is needed ({problem})") from problem
    if array.shape != (rows,):
        raise BundleError(f"support_y: got shape {array.shape} for {rows} examples; give one label each")
    if array.dtype.kind in "Of":
        _check_labels(array.tolist())
    try:
        labels, numbered = np.unique(array, return_inverse=True)
    except TypeError as problem:
        raise BundleError(f"support_y: labels that cannot be sorted ({problem}); give texts or numbers") from problem
    if len(labels) < 2:
        raise BundleError(f"support_y: all {rows} labels are {labels[0]}; a task needs two classes or more")
    return labels, torch.from_numpy(numbered.astype(np.int64))


def as_classes(labels: NDArray[Any], numbered: Tensor, known: tuple[str, ...]) -> tuple[NDArray[Any], Tensor]:
    """Return the classes that the bundle was trained on, and each example's number among them.

    Labels none of which is one of them are a new task, numbered in their own order.

    Args:
        labels: The distinct labels as given [ways].
        numbered: Each example's place among them.
        known: The names of a single task's classes; empty where a bundle takes any.

    Raises:
        BundleError: Some labels are of these classes, and others are not.
    """
    texts = as_known(labels.tolist(), known).tolist()
    strange = [label for label in texts if label not in known]
    if not known or len(strange) == len(texts):
        if known:
            _LOG.warning("support_y: none of %s is a class of this bundle (%s): a new task", some(texts), some(known))
        return labels, numbered
    if strange:
        raise BundleError(f"support_y: {unknown('class of this bundle', strange[0], known)}")
    places = torch.tensor([known.index(label) for label in texts])
    names: NDArray[Any] = np.array(known)
    with suppress(ValueError):
        names = names.astype(labels.dtype) if labels.dtype.kind in "iu" else names
    return names, places[numbered]


def _check_labels(labels: Iterable[Any]) -> None:
    """Refuse a missing label, and texts beside numbers; raises BundleError with the label's place, from 0."""
    first: dict[str, int] = {}
    for place, label in enumerate(labels):
        if label is None or (str(label) in ("nan", "<NA>", "NaT") and not isinstance(label, str)):
            raise BundleError(f"support_y: label {place} is missing ({label}); leave such examples out of the support")
        kind = "text" if isinstance(label, str) else "number" if isinstance(label, Number | np.bool_) else "other"
        first.setdefault(kind, place)
    if len(first) > 1:
        mixed = " and ".join(f"label {place} is a {kind}" for kind, place in first.items())
        raise BundleError(f"support_y: {mixed.replace('a other', 'of another type')}; give labels of one type")
