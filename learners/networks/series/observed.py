"""Which steps of a series were observed, and how a network reads no others.

A series is [channels, length]. Where a data set has unequal lengths or missing values (``TaskShape.observed``), its
last channel is 1 at the steps that were observed and 0 at the others, at which the values are 0. A network's features
do not depend on how far a series is padded.
"""

import torch
from torch import Tensor

from metaloom.learners.episode import TaskShape
from metaloom.learners.errors import LearnerError


def series_channels(task: TaskShape, network: str) -> int:
    """Return the channels of a task's series, without the one that says what was observed.

    Raises LearnerError for examples that are no series.
    """
    if len(task.inputs) != 2:
        raise LearnerError(
            f"learner.architecture: {network} reads series [channels, length], but this task's examples have shape "
            f"{task.inputs}; use {'mlp' if len(task.inputs) == 1 else 'conv4'}"
        )
    return task.inputs[0] - int(task.observed)


def split_observed(x: Tensor, task: TaskShape) -> tuple[Tensor, Tensor | None]:
    """Split series [n, channels, length] into their values and what was observed, bool [n, length]; None for all."""
    if not task.observed:
        return x, None
    return x[:, :-1], x[:, -1] > 0.5


def observed_length(x: Tensor, task: TaskShape) -> int:
    """Return the steps up to the last one that any of the series [n, channels, length] has observed; at least 1."""
    if not task.observed:
        return x.shape[-1]
    seen = (x[:, -1] > 0.5).any(0).nonzero()
    return int(seen.max()) + 1 if len(seen) else 1


def mean_over_time(hidden: Tensor, observed: Tensor | None) -> Tensor:
    """Average [n, channels, length] over the steps that were observed: [n, channels]; zeros where none was."""
    if observed is None:
        return hidden.mean(-1)
    weight = observed.to(hidden.dtype)[:, None]  # [n, 1, length]
    return (hidden * weight).sum(-1) / weight.sum(-1).clamp_min(1)


def masked_statistics(x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the uncorrected variance of each channel of [n, channels, length] over observed steps."""
    weight = observed.to(x.dtype)[:, None]
    count = weight.sum().clamp_min(1)
    mean = (x * weight).sum((0, 2)) / count
    centred = (x - mean[None, :, None]) * weight
    return mean, centred.square().sum((0, 2)) / count


def only_observed(x: Tensor, observed: Tensor | None) -> Tensor:
    """Set [n, channels, length] to 0 at the steps that were not observed, as the padding of a convolution is."""
    return x if observed is None else torch.where(observed[:, None], x, torch.zeros_like(x))
