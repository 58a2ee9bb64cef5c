"""Makes the inputs of several data sets agree in shape: series are padded, images resized and greyed on request.

Series [channels, length] of other lengths end in zeros, and one more last channel says what was observed (1) and what
was not (0). Images [channels, height, width] are resized and greyed only where the settings say so, since both change
what a picture shows. Everything else must have one shape.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from metaloom.learners.episode import TaskShape
from metaloom.workers.data.base import DataError

Fit = Callable[[Tensor], Tensor]
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in a grey picture (ITU-R BT.601)


@dataclass(frozen=True)
class Fitting:
    """What is done to the inputs of all data sets.

    Attributes:
        inputs: The shape that all have afterwards.
        observed: Whether a last channel of series says what was observed.
        size: Images are resized to size x size; None leaves them.
        grey: Whether images get a single channel.
        told: What to tell the user.
    """

    inputs: tuple[int, ...]
    observed: bool = False
    size: int | None = None
    grey: bool = False
    told: tuple[str, ...] = ()

    def of(self, task: TaskShape) -> Fit | None:
        """Return what makes examples [n, *inputs] of a data set fit; None where they do already."""
        if task.inputs == self.inputs and task.observed == self.observed:
            return None
        if len(self.inputs) == 2:
            return lambda x: padded(x, self.inputs[1], marked=self.observed and not task.observed)
        return lambda x: pictured(x, self.size, grey=self.grey)


def fitting(names: Sequence[str], shapes: Sequence[TaskShape], *, size: int | None, grey: bool) -> Fitting:
    """Return how the inputs of data sets are made to agree; raises DataError, with both shapes, where they cannot."""
    kinds = {len(one.inputs) for one in shapes}
    if kinds == {3} and (size is not None or grey):
        return _pictures(names, shapes, size, grey=grey)
    if size is not None or grey:
        setting = "size" if size is not None else "grey"
        raise DataError(f"tasks.{setting}: {_shown(names[0], shapes[0])}, which are no images; leave it out")
    if len({(one.inputs, one.observed) for one in shapes}) == 1:
        return Fitting(shapes[0].inputs, shapes[0].observed)
    if kinds == {2}:
        return _series(names, shapes)
    other = next(i for i, one in enumerate(shapes) if one.inputs != shapes[0].inputs)
    raise DataError(_differ(names, shapes, other))


def _series(names: Sequence[str], shapes: Sequence[TaskShape]) -> Fitting:
    channels = [one.inputs[0] - one.observed for one in shapes]
    for i, count in enumerate(channels):
        if count != channels[0]:
            raise DataError(f"{_differ(names, shapes, i)}: series of one number of channels are mixed")
    lengths = [one.inputs[1] for one in shapes]
    longest, short = max(lengths), sum(length < max(lengths) for length in lengths)
    told = (
        f"series of {short} of {len(shapes)} data sets are padded to length {longest}; the last channel says what was "
        "observed",
    )
    return Fitting((channels[0] + 1, longest), observed=True, told=told if short else ())


def _pictures(names: Sequence[str], shapes: Sequence[TaskShape], size: int | None, *, grey: bool) -> Fitting:
    made: list[tuple[int, ...]] = []
    for one in shapes:
        channels, height, width = one.inputs
        if grey and channels not in (1, len(LUMA)):
            raise DataError(f"tasks.grey: {_shown(names[len(made)], one)}; images of 1 or 3 channels are greyed")
        made.append((1 if grey else channels, *((height, width) if size is None else (size, size))))
    for i, inputs in enumerate(made):
        if inputs != made[0]:
            raise DataError(_differ(names, shapes, i))
    changed = sum(after != one.inputs for after, one in zip(made, shapes, strict=True))
    told = (f"images of {changed} of {len(shapes)} data sets are resized or greyed to {list(made[0])}",)
    return Fitting(made[0], size=size, grey=grey, told=told if changed else ())


def _shown(name: str, task: TaskShape) -> str:
    return f"{name} has examples of shape {list(task.inputs)}"


def _differ(names: Sequence[str], shapes: Sequence[TaskShape], other: int) -> str:
    advice = ""
    if {len(shapes[0].inputs), len(shapes[other].inputs)} == {3}:
        advice = "; tasks.size and tasks.grey make images agree"
    return f"tasks.sources: {_shown(names[0], shapes[0])}, and {_shown(names[other], shapes[other])}{advice}"


def padded(x: Tensor, length: int, *, marked: bool) -> Tensor:
    """Return series [n, channels, steps] of this length, zeros at the end.

    ``marked`` adds the channel of what was observed. One that is there already is 0 in the added steps like the others.
    """
    if marked:
        x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    return F.pad(x, (0, length - x.shape[-1])).contiguous()


def pictured(x: Tensor, size: int | None, *, grey: bool) -> Tensor:
    """Return images [n, channels, height, width] of this size, with one channel if ``grey``."""
    if grey and x.shape[1] == len(LUMA):
        x = (x * torch.tensor(LUMA, dtype=x.dtype)[:, None, None]).sum(1, keepdim=True)
    if size is not None and x.shape[2:] != (size, size) and len(x):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return x.contiguous()
