"""Converts users' arrays to the tensors that a learner takes, and its answers back."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.base import Adapted
from metaloom.learners.episode import Support, TaskShape
from metaloom.workers.device import Device
from metaloom.workers.errors import BundleError


@dataclass(frozen=True)
class AdaptedModel:
    """A model adapted to one task.

    ``labels`` are as they were given, in the order of ``probabilities``' columns; empty in regression.
    """

    labels: NDArray[Any]
    _adapted: Adapted
    _task: TaskShape
    _device: Device
    _as_torch: bool
    _flat: bool = False

    def predict(self, query_x: Any) -> Any:
        """Return the queries' labels [queries], as given in the support set, or targets; raises BundleError.

        The result is a torch tensor if ``adapt`` was given torch tensors (labels that are no numbers are always numpy),
        otherwise a numpy array. Targets are [queries] if the support set's were flat, otherwise [queries, targets].
        """
        out = self._run(query_x)
        if self._task.task_kind.has_classes:
            chosen = self.labels[out.argmax(1).cpu().numpy()]
            return torch.as_tensor(chosen) if self._as_torch and chosen.dtype.kind in "iufb" else chosen
        out = out[:, 0] if self._flat else out
        return out if self._as_torch else out.cpu().numpy()

    def probabilities(self, query_x: Any) -> Any:
        """Return the classes' probabilities [queries, ways], in the order of ``labels``; raises BundleError."""
        if not self._task.task_kind.has_classes:
            raise BundleError(f"probabilities: a {self._task.kind} task has none; use predict")
        out = self._run(query_x)
        return out if self._as_torch else out.cpu().numpy()

    def _run(self, query_x: Any) -> Tensor:
        inputs = _inputs(query_x, self._task, "query_x").to(self._device.torch, self._device.dtype)
        with self._device.precision():
            out = self._adapted.predict(inputs).detach()
        if not self._task.task_kind.has_classes or out.shape[1] == len(self.labels):
            return out
        own = out[:, : len(self.labels)]  # the head also has classes that this task does not have
        return own / own.sum(1, keepdim=True)


@dataclass(frozen=True)
class GivenSupport:
    """A support set on the CPU, in the precision that it was given in.

    ``labels`` are as they were given, in the order of their numbers; ``flat`` says whether targets were given flat.
    """

    support: Support
    labels: NDArray[Any]
    flat: bool = False


def read_support(support_x: Any, support_y: Any, class_features: Any, unlabelled: Any, task: TaskShape) -> GivenSupport:
    """Convert users' arrays to a support set; raises BundleError for arrays that do not fit."""
    given = _labelled(support_x, support_y, class_features, task)
    if unlabelled is None:
        return given
    return replace(given, support=replace(given.support, unlabelled=_inputs(unlabelled, task, "unlabelled")))


def _labelled(support_x: Any, support_y: Any, class_features: Any, task: TaskShape) -> GivenSupport:
    features = None if class_features is None else _real(class_features, "class_features", scale_bytes=False)
    if features is not None and (features.ndim < 2 or not bool(torch.isfinite(features).all())):
        raise BundleError(f"class_features: finite numbers [ways, features] are needed, got {tuple(features.shape)}")
    if support_x is None and support_y is None and features is not None:
        empty = Support(torch.zeros(0, *task.inputs), torch.zeros(0, dtype=torch.int64), features)
        return GivenSupport(empty, np.arange(len(features)))
    if support_x is None or support_y is None:
        raise BundleError("adapt: give support_x and support_y, or class_features alone")
    inputs = _inputs(support_x, task, "support_x")
    if not task.task_kind.has_classes:
        targets, flat = _targets(support_y, len(inputs), task)
        return GivenSupport(Support(inputs, targets, features), np.empty(0), flat)
    labels, numbers = _labels(support_y, len(inputs))
    if features is not None and len(features) != len(labels):
        raise BundleError(f"class_features: got {len(features)} rows for {len(labels)} classes; give one row each")
    return GivenSupport(Support(inputs, numbers, features), labels)


def _inputs(given: Any, task: TaskShape, name: str) -> Tensor:
    """Return examples as a float tensor [n, *inputs]; raises BundleError for another size or values not finite.

    8-bit images are scaled to [0, 1], and a table's features standardized, as the task sources' are. Rows of the right
    size but another shape (flat pixels, images without their channel) are reshaped.
    """
    tensor = _real(given, name)
    rows = tensor.shape[0] if tensor.ndim else 0
    if not rows or tensor[0].numel() != math.prod(task.inputs):
        raise BundleError(
            f"{name}: got shape {tuple(tensor.shape)}; this learner takes [n, {', '.join(map(str, task.inputs))}]"
        )
    _check_finite(tensor, name)
    tensor = tensor.reshape(rows, *task.inputs)
    if not task.mean:
        return tensor
    # in float64, as the table itself was standardized, so that the result has the same bits
    mean, deviation = (torch.tensor(one, dtype=torch.float64) for one in (task.mean, task.deviation))
    return ((tensor.double() - mean) / deviation).to(tensor.dtype)


def _labels(given: Any, rows: int) -> tuple[NDArray[Any], Tensor]:
    """Return the distinct labels [ways], sorted, and each example's index in them [rows]; raises BundleError."""
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if array.shape != (rows,):
        raise BundleError(f"support_y: got shape {array.shape} for {rows} examples; give one label each")
    labels, numbers = np.unique(array, return_inverse=True)
    if len(labels) < 2:
        raise BundleError(f"support_y: all {rows} labels are {labels[0]}; a task needs two classes or more")
    return labels, torch.from_numpy(numbers.astype(np.int64))


def _targets(given: Any, rows: int, task: TaskShape) -> tuple[Tensor, bool]:
    """Return regression targets [rows, targets], and whether they were given flat; raises BundleError."""
    tensor = _real(given, "support_y", scale_bytes=False)
    flat = tensor.ndim == 1 and task.outputs == 1
    tensor = tensor[:, None] if flat else tensor
    if tuple(tensor.shape) != (rows, task.outputs):
        raise BundleError(f"support_y: got shape {tuple(tensor.shape)}; {rows} examples need [{rows}, {task.outputs}]")
    _check_finite(tensor, "support_y")
    return tensor, flat


def _real(given: Any, name: str, *, scale_bytes: bool = True) -> Tensor:
    """Return numbers as a floating-point tensor; raises BundleError for anything else."""
    if isinstance(given, Tensor):
        tensor = given.detach()
    else:
        array = np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise BundleError(f"{name}: numbers are needed, got an array of {array.dtype}")
        tensor = torch.from_numpy(np.ascontiguousarray(array if array.dtype == np.uint8 else array.astype(np.float64)))
    if tensor.dtype == torch.uint8 and scale_bytes:
        return tensor.to(torch.float32) / 255
    return tensor if tensor.is_floating_point() else tensor.to(torch.float32)


def _check_finite(tensor: Tensor, name: str) -> None:
    if not bool(torch.isfinite(tensor).all()):
        raise BundleError(f"{name}: holds a NaN or an infinity")
