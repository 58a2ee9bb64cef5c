"""By how much one trial is better than another: the differences on the same test episodes.

Two means whose intervals overlap may still differ clearly. Most of each interval is that some episodes are harder
than others, which is the same for both, and is not in their difference, episode by episode.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from metaloom.workers.records.paths import part_of_test
from metaloom.workers.records.trial import read_config
from metaloom.workers.scoring import mean_interval

_LOG = logging.getLogger("metaloom.pairing")
IDENTIFYING = ("episode", "seed", "source", "class_ids", "sample_ids", "ways", "queries")
MEASURED = ("accuracy_after", "loss_after")


@dataclass(frozen=True)
class PairedDifference:
    """By how much a trial is better than another on the same episodes.

    Attributes:
        mean: Of accuracy, or of minus the loss in regression: above 0 where the trial is better.
        interval: 95% interval of the mean.
        episodes: Number of pairs.
    """

    mean: float
    interval: tuple[float, float]
    episodes: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"mean": self.mean, "interval": list(self.interval), "episodes": self.episodes}


def paired_difference(directory: Path, other: Path) -> PairedDifference | None:
    """Compare two tested trials, episode by episode.

    Args:
        directory: The trial that counts as better where the difference is above 0.
        other: The one that it is compared with.

    Returns:
        None if their test episodes are not the same ones, or fewer than two.
    """
    ours, theirs = _scores(directory), _scores(other)
    if ours.keys() != theirs.keys() or len(ours) < 2:
        return None
    mean, low, high = mean_interval([ours[episode] - theirs[episode] for episode in ours])
    return PairedDifference(mean, (low, high), len(ours))


def _scores(directory: Path) -> dict[str, float]:
    """Return what a trial scored on each test episode, larger being better, by what tells the episodes apart."""
    config = read_config(directory)
    part = part_of_test(directory, config.seed)
    if not part.is_file():
        return {}
    try:
        rows = parquet.read_table(str(part), columns=[*IDENTIFYING, *MEASURED]).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        _LOG.warning("%s cannot be read, so that no paired difference is shown: %s", part, error)
        return {}
    return {_identity(row, config.tasks): _score(row) for row in rows}


def _identity(row: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    """Say which episode a row is of: by its queries, or by all settings of its source if these are not kept.

    What is adapted to need not be the same: a baseline may train on other samples, and be asked the same.
    """
    queries = row["queries"] * max(row["ways"], 1)
    asked = row["sample_ids"][-queries:] or sorted(tasks.items())
    return repr((row["episode"], row["seed"], row["source"], row["class_ids"], row["ways"], asked))


def _score(row: Mapping[str, Any]) -> float:
    accuracy, loss = row["accuracy_after"], row["loss_after"]
    if accuracy is not None:
        return float(accuracy)
    return math.nan if loss is None else -float(loss)  # a loss that is no number is absent from the rows
