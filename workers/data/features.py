"""Features of all examples of a few-shot source, computed once by a network that nothing moves, and kept in the cache.

An example has the same features in every episode, so that a search over ten heads on one body costs one pass of the
network over each example. The file's name has a digest of everything that features depend on: the examples, the
network, batch norm's statistics, the precision and the kind of device. The code of a network of the user's own may
change under the same name: the first examples are therefore computed again, and compared, when a file is opened.
"""

from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metaloom.workers.activity import doing
from metaloom.workers.data.base import SPLITS
from metaloom.workers.data.sampler import FewShotSource, Rows
from metaloom.workers.data.store import Arrays, cached
from metaloom.workers.durable import digest

NAME = "features"
BATCH = 256  # examples that the network sees at once
PROBED = 2  # examples that are computed again to see whether a file is of this network
TOLERANCE = 1e-3  # of the largest feature: far above rounding, far below another network's
Embed = Callable[[Tensor], Tensor]  # examples [n, *inputs] to features [n, width], on any device


class Features:
    """The features of a source's examples, split by split: computed or opened when first asked for.

    Args:
        source: Whose examples.
        embed: Computes features.
        cache: Folder of the cache.
        key: What identifies the network; JSON-able.
    """

    def __init__(self, source: FewShotSource, embed: Embed, *, cache: Path, key: Mapping[str, Any]) -> None:
        self._source, self._embed, self._cache = source, embed, cache
        data = source.digest or digest(np.ascontiguousarray(source.stored).tobytes())
        self._key = {"source": source.name, "data": data, "scale": source.scale, **key}
        self._opened: dict[str, NDArray[Any]] = {}
        self._places = np.full(4 * len(source.stored), -1, dtype=np.int64)  # within the split, by row and turn
        self._splits = np.full(4 * len(source.stored), -1, dtype=np.int8)
        for number, split in enumerate(SPLITS):
            ids = self._ids(*source.examples(split))
            self._places[ids], self._splits[ids] = np.arange(len(ids)), number

    def open(self, split: str) -> str:
        """Compute or open the features of a split, and say which; empty if it is open, or has no examples."""
        rows, turns = self._source.examples(split)
        if split in self._opened or not len(rows):
            return ""
        built = False

        def computed() -> Arrays:
            nonlocal built
            built = True
            return Arrays({"features": self._computed(rows, turns)}, {"split": split})

        probe = self._batch(rows[:PROBED], turns[:PROBED])
        examples = digest(rows.tobytes() + turns.tobytes())
        for attempt in count():
            key = {**self._key, "examples": examples, "attempt": attempt}
            found = cached(self._cache, NAME, key, computed)["features"]
            if is_same(probe, found[:PROBED]):
                break
        self._opened[split] = found
        computed_or_not = "computed once, and kept in the cache" if built else "from the cache"
        return f"features of {len(rows):,} {split} examples {computed_or_not}"

    def __call__(self, rows: Rows, turns: Rows) -> Tensor:
        """Return the features [ways, examples, width] of rows [ways, examples], turned as ``turns`` [ways] says."""
        ids = self._ids(rows, turns[:, None])
        split = SPLITS[self._splits[ids.flat[0]]]  # an episode's examples are of one split
        self.open(split)
        return torch.from_numpy(self._opened[split][self._places[ids]])

    def _ids(self, rows: Rows, turns: Rows) -> Rows:
        return rows + turns * len(self._source.stored)

    def _batch(self, rows: Rows, turns: Rows) -> NDArray[Any]:
        examples = self._source.gather(rows[:, None], turns).flatten(0, 1)
        return np.asarray(self._embed(examples).cpu().numpy())

    def _computed(self, rows: Rows, turns: Rows) -> NDArray[Any]:
        what = f"computing the features of {self._source.name}"
        with doing(what, total=len(rows), noun="examples", done=0) as activity:
            batches = []
            for first in range(0, len(rows), BATCH):
                batches.append(self._batch(rows[first : first + BATCH], turns[first : first + BATCH]))
                activity.done = min(first + BATCH, len(rows))
        return np.concatenate(batches)


def is_same(computed: NDArray[Any], kept: NDArray[Any]) -> bool:
    """Return whether kept features are those of the network that computes these ones, up to rounding."""
    if computed.shape != kept.shape or computed.dtype != kept.dtype:
        return False
    largest = float(np.abs(computed).max(initial=0.0))
    return bool(np.abs(computed - kept).max(initial=0.0) <= TOLERANCE * largest)
