"""Which classes are hard, and which pairs: by the scores of the episodes that hold them.

An episode's record has its classes and its score, and not the prediction of each query. So a class has the mean score
of the episodes that hold it: of a class that is often mistaken it is low, and the other classes of these episodes make
it less so. A pair has that of the episodes that hold both. The confusions themselves are found by playing episodes
again (``workers/replay.py``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from metaloom.dashboards.episodes.asked import EpisodeQuestion
from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.dashboards.episodes.paging import parts_asked
from metaloom.dashboards.episodes.part_reading import Part
from metaloom.dashboards.episodes.scanning import selected
from metaloom.workers.records import names as records
from metaloom.workers.records.results import ACCURACY, mean_interval

MOST_EPISODES = 20_000  # that are read
FEWEST = 5  # episodes of a pair that is listed
LISTED = 20  # classes, and pairs
LOSS = "loss"


@dataclass(frozen=True)
class ClassScore:
    """The mean score of the episodes that hold one class, or both classes of a pair, with its 95% interval."""

    class_ids: tuple[int, ...]
    episodes: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ClassScores:
    """The classes and pairs of a trial's episodes, the hardest first.

    Attributes:
        metric: ``accuracy``, or ``loss`` where episodes have no accuracy.
        episodes: How many were read.
        step: Of these episodes; None: of all steps. The validation episodes are the same at every validation.
        of_classes: How many classes they have.
    """

    metric: str
    episodes: int
    step: int | None
    of_classes: int
    classes: tuple[ClassScore, ...]
    pairs: tuple[ClassScore, ...]


def class_scores(index: EpisodeIndex, question: EpisodeQuestion) -> ClassScores | None:
    """Return the hardest classes and pairs among the episodes that are asked for; None where none has classes."""
    parts = parts_asked(index, question)
    step = None
    if question.phase == records.VALIDATION:
        step = max((end for part in parts for end in _validations(index, part)), default=None)
        question = question if step is None else question.with_condition(f"step == {step}")
    found = list(_read(index, parts, question))
    if not found:
        return None
    ids, counts = np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])
    has_accuracy = not all(np.isnan(one[2]).all() for one in found)
    scores = np.concatenate([one[2 if has_accuracy else 3] for one in found])
    rows = np.repeat(np.arange(len(counts)), counts)
    is_scored = ~np.isnan(scores[rows])
    ids, rows = ids[is_scored], rows[is_scored]
    if not len(ids):
        return None
    metric = ACCURACY if has_accuracy else LOSS
    pairs = _pairs(ids, rows)
    return ClassScores(
        metric,
        len(np.unique(rows)),
        step,
        len(np.unique(ids)),
        _hardest(ids[:, None], scores[rows], metric, 1),
        _hardest(pairs[0], scores[pairs[1]], metric, FEWEST),
    )


def _validations(index: EpisodeIndex, part: Part) -> Iterator[int]:
    """Give the step of a part's validation: its greatest one."""
    facts = index.facts(part)
    if facts is None:
        match = records.PART.fullmatch(part.path.name)
        if match:
            yield int(match[2])
    elif records.VALIDATION in dict(facts.phases):
        yield int(facts.ends[0][1])


def _read(index: EpisodeIndex, parts: list[Part], question: EpisodeQuestion) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Give the class ids, how many each row has, and the accuracies and losses, the newest parts first."""
    read = 0
    for part in reversed(parts):
        facts = index.facts(part)
        if facts is not None and not question.may_hold(part.trial, facts):
            continue
        table = selected([part], question, ("class_ids", "accuracy_after", "loss_after"))
        if not len(table):
            continue
        lists = table.column("class_ids").combine_chunks()
        values = [table.column(name).to_numpy() for name in ("accuracy_after", "loss_after")]
        yield lists.flatten().to_numpy(), lists.value_lengths().fill_null(0).to_numpy(), *values
        read += len(table)
        if read >= MOST_EPISODES:
            return


def _pairs(ids: Any, rows: Any) -> tuple[Any, Any]:
    """Return every pair of classes of each row [pairs, 2], the smaller id first, and the pairs' rows [pairs]."""
    order = np.lexsort((ids, rows))
    ids, rows = ids[order], rows[order]
    found, of = [], []
    for apart in range(1, int(np.bincount(rows).max(initial=0))):
        same = rows[apart:] == rows[:-apart]
        found.append(np.stack([ids[:-apart][same], ids[apart:][same]], 1))
        of.append(rows[apart:][same])
    empty = np.empty((0, 2), dtype=np.int64)
    return np.concatenate([empty, *found]), np.concatenate([np.empty(0, dtype=np.int64), *of])


def _hardest(keys: Any, scores: Any, metric: str, fewest: int) -> tuple[ClassScore, ...]:
    """Return the keys with the worst mean scores, of those that have enough."""
    if not len(keys):
        return ()
    unique, inverse, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    inverse = inverse.ravel()
    means = np.bincount(inverse, scores) / counts
    worst = np.lexsort((np.arange(len(means)), means if metric == ACCURACY else -means))
    rows = []
    for place in [place for place in worst.tolist() if counts[place] >= fewest][:LISTED]:
        mean, low, high = mean_interval(scores[inverse == place].tolist(), metric=metric)
        rows.append(ClassScore(tuple(unique[place].tolist()), int(counts[place]), mean, low, high))
    return tuple(sorted(rows, key=lambda row: row.mean if metric == ACCURACY else -row.mean))
