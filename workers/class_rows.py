"""The classes of a new task as users describe them: arrays, a mapping, a data frame, names, or the path of a table."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaloom.learners.episode import TaskShape
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.class_features import CLASS, hashed, is_hashed, read_new
from metaloom.workers.errors import BundleError
from metaloom.workers.input_form import InputForm, numbers

NAME = "class_features"


def read_classes(given: Any, task: TaskShape | None, settings: Mapping[str, Any]) -> tuple[Tensor, NDArray[Any]]:
    """Return features of classes [ways, *features], floating-point, and the label of each class.

    Args:
        given: Rows of numbers as arrays, whose labels are 0, 1, ...; a mapping from label to row; a data frame, or the
            path of a table, with a column of labels; the names of classes, for a learner that reads these.
        task: What a class is to the learner; None takes any numbers as they are.
        settings: How the classes of training were described (``tasks.class_features``).

    Raises:
        BundleError: They have another width, are not finite, or a class is there twice.
    """
    if task is None:
        features = _plain(given)
        return features, np.arange(len(features))
    if isinstance(given, str | Path):
        try:
            labels, rows = read_new(Path(given), task, settings)
        except DataError as problem:
            raise BundleError(f"{NAME}: {problem}") from problem
        return _checked(rows, labels, task)
    if is_hashed(task):
        return _checked(*_names(given, task), task)
    if isinstance(given, Mapping):
        return _checked(np.array(list(given.values())), np.array(list(given)), task)
    column = str(settings.get(CLASS, CLASS))
    if column in map(str, getattr(given, "columns", ())):
        return _checked(given, np.array(given[column]), task)
    return _checked(given, None, task)


def _names(given: Any, task: TaskShape) -> tuple[NDArray[np.float32], NDArray[Any]]:
    names = np.array(given.tolist() if isinstance(given, Tensor) else given)
    if names.ndim != 1 or names.dtype.kind not in "UO" or not all(isinstance(one, str) for one in names.tolist()):
        raise BundleError(f"{NAME}: this learner reads the names of classes; give a list of texts, or a table's path")
    return hashed(names.tolist(), task.inputs[0]), names


def _checked(rows: Any, labels: NDArray[Any] | None, task: TaskShape) -> tuple[Tensor, NDArray[Any]]:
    features, _ = InputForm(task).read(rows, NAME)
    labels = np.arange(len(features)) if labels is None else labels
    if twice := sorted(str(label) for label, count in Counter(labels.tolist()).items() if count > 1):
        raise BundleError(f"{NAME}: {some(twice)} stand there more than once; give one row a class")
    if len(labels) < 2:
        raise BundleError(f"{NAME}: got {len(labels)} class; a task needs two classes or more")
    return features.to(torch.float32), labels


def _plain(given: Any) -> Tensor:
    tensor = numbers(given, NAME)
    features = tensor if tensor.is_floating_point() else tensor.to(torch.float32)
    if features.ndim < 2 or not bool(torch.isfinite(features).all()):
        raise BundleError(f"{NAME}: finite numbers [ways, features] are needed, got {tuple(features.shape)}")
    return features
