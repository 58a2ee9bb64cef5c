"""Series of one or several data sets as one array: padded to the longest, with what was observed beside them.

Rules. A step is observed where every channel has a value. Where lengths differ, or a value is missing, one more last
channel is 1 at observed steps and 0 at the others, at which all values are 0; otherwise there is no such channel.
Values are used as they are given, unless ``normalize`` or ``level`` asks for more; both read observed steps.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaloom.learners.episode import TaskShape
from metaloom.workers.data.base import DataError, some
from metaloom.workers.data.series_files import Values
from metaloom.workers.data.series_sets import SeriesSet
from metaloom.workers.data.store import Arrays

Z_SCORE = "z_score"
SMALLEST = 1e-8  # deviation of a series that counts as constant
TOLERANCE = 0.02  # of a z-scored series' mean and deviation, which float16 and a divisor of length or length - 1 move


def as_arrays(sets: Sequence[SeriesSet], normalize: str, level: bool) -> Arrays:
    """Put the series of data sets into one array, those of a class one after another.

    Args:
        sets: The data sets.
        normalize: ``as_given``, or ``z_score``: each channel of a series less its mean, over its deviation.
        level: Whether two more channels hold the level and the deviation of each channel.

    Returns:
        Columns ``x`` float32 [series, channels, length], ``y`` int64 (the class within its set) and ``tested`` bool,
        each [series]; about: the ``classes`` and ``sizes`` of each set, whether there is a channel of what was
        ``observed``, and the ``notes``.

    Raises:
        DataError: Two data sets have different numbers of channels.
    """
    first = sets[0]
    for one in sets[1:]:
        if one.series[0].shape[0] != first.series[0].shape[0]:
            raise DataError(
                f"tasks.sets: {first.name} has {first.series[0].shape[0]} channels and {one.name} "
                f"{one.series[0].shape[0]}; put sets of equally many together"
            )
    every = [series for one in sets for series in one.series]
    lengths = sorted({series.shape[1] for series in every})
    masked = len(lengths) > 1 or any(bool(np.isnan(series).any()) for series in every)
    channels = every[0].shape[0] * (3 if level else 1) + int(masked)
    x = np.zeros((len(every), channels, lengths[-1]), dtype=np.float32)
    labels, tested, row = [], [], 0
    for one in sets:
        order = np.argsort(one.labels, kind="stable")
        for place in order.tolist():
            given = None if one.levels is None else one.levels[place]
            _fill(x[row], one.series[place].astype(np.float64), normalize, level, given, masked)
            row += 1
        labels.append(one.labels[order])
        tested.append(one.tested[order])
    about = {
        "classes": {one.name: list(one.classes) for one in sets},
        "sizes": {one.name: np.bincount(one.labels, minlength=len(one.classes)).tolist() for one in sets},
        "observed": masked,
        "notes": list(_notes(sets, lengths, masked, normalize)),
    }
    return Arrays({"x": x, "y": np.concatenate(labels), "tested": np.concatenate(tested)}, about)


def as_inputs(series: Sequence[Values], task: TaskShape, normalize: str, level: bool, where: str) -> NDArray[Any]:
    """Return new series, each [channels, length], in the form of a learner's tasks: float32 [n, *inputs].

    Raises DataError, which begins with ``where``, for another number of channels, for a series that is too long, and,
    of a learner of whole series, for one that is too short or lacks values.
    """
    channels, length = task.inputs
    own = (channels - int(task.observed)) // (3 if level else 1)
    x = np.zeros((len(series), channels, length), dtype=np.float32)
    for row, one in enumerate(series):
        at = f"{where}: series {row + 1}"
        if one.shape[0] != own:
            raise DataError(f"{at} has {one.shape[0]} channels, and this learner reads {own}")
        if one.shape[1] > length or (one.shape[1] < length and not task.observed):
            wanted = f"at most {length}" if task.observed else f"{length}, as it was trained on series of equal length"
            raise DataError(f"{at} has {one.shape[1]} steps, and this learner reads {wanted}")
        if np.isnan(one).any() and not task.observed:
            raise DataError(f"{at} lacks values, and this learner was trained on series that lack none; fill them in")
        _fill(x[row], one, normalize, level, None, task.observed)
    return x


def _fill(row: NDArray[Any], series: Values, normalize: str, level: bool, given: Values | None, masked: bool) -> None:
    """Write a series into its row [channels, length] of zeros; ``given``: mean and deviation before z-scoring [2]."""
    seen = np.flatnonzero(~np.isnan(series).any(0))
    values, channels = series[:, seen], len(series)
    mean, deviation = moments(values)
    shown = (values - mean) / np.where(deviation > SMALLEST, deviation, 1.0) if normalize == Z_SCORE else values
    row[:channels, seen] = shown
    if level:
        mean, deviation = (mean, deviation) if given is None else (given[:1, None], given[1:, None])
        row[channels : 2 * channels, seen] = np.arcsinh(mean)
        row[2 * channels : 3 * channels, seen] = np.log(np.maximum(deviation, SMALLEST))
    if masked:
        row[-1, seen] = 1.0


def moments(values: Values) -> tuple[Values, Values]:
    """Return the mean and the deviation of each channel [channels, steps], each [channels, 1]; divisor steps - 1."""
    mean = values.mean(1, keepdims=True) if values.shape[1] else np.zeros((len(values), 1))
    spread = np.square(values - mean).sum(1, keepdims=True) / max(values.shape[1] - 1, 1)
    return mean, np.sqrt(spread)


def _notes(sets: Sequence[SeriesSet], lengths: Sequence[int], masked: bool, normalize: str) -> Iterator[str]:
    total, classes = sum(len(one.series) for one in sets), sum(len(one.classes) for one in sets)
    names = some([one.name for one in sets])
    reach = f"length {lengths[0]}" if len(lengths) == 1 else f"lengths {lengths[0]} to {lengths[-1]}"
    yield f"{names}: {total:,} series of {classes} classes, {reach}"
    if masked:
        gaps = sum(bool(np.isnan(series).any()) for one in sets for series in one.series)
        missing = f"{gaps:,} of them lack values; " if gaps else ""
        yield f"{missing}the last channel says which steps were observed"
    undone = [one.name for one in sets if one.levels is not None and not _all_z_scored(one.levels)]
    if undone:
        yield f"z-scored by the file, and not as the archive gives them: {some(undone)} (tasks.level keeps the level)"
    other = [one.name for one in sets if one.levels is None and not _all_z_scored(_levels_of(one))]
    if other and normalize != Z_SCORE:
        yield f"not z-scored as given, and used as they are: {some(other)} (tasks.normalize: z_score)"


def _levels_of(one: SeriesSet) -> Values:
    """Return the mean and deviation furthest from 0 and 1 among the channels of each series: [n, 2]."""
    found = []
    for series in one.series:
        values = series[:, ~np.isnan(series).any(0)].astype(np.float64)
        mean, deviation = moments(values)
        steps = max(values.shape[1], 2)
        # a divisor of the length counts as z-scored too
        nearest = np.where(np.abs(deviation - 1) < TOLERANCE, 1.0, deviation * np.sqrt((steps - 1) / steps))
        nearest = np.where(deviation < SMALLEST, 1.0, nearest)
        found.append([mean.flat[np.abs(mean).argmax()], nearest.flat[np.abs(nearest - 1).argmax()]])
    return np.array(found)


def _all_z_scored(levels: Values) -> bool:
    return bool((np.abs(levels[:, 0]) < TOLERANCE).all() and (np.abs(levels[:, 1] - 1) < TOLERANCE).all())
