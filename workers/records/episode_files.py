"""Every episode is a row: Parquet parts beside the checkpoints of a trial.

A part is named by the outer steps it covers, ``part-00000100-00000200.parquet``, so
that a resumed trial writes the part it had not finished over again, and no row is
ever there twice. What happens at every step is one append of references; rows are
made when a part is written.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from metaloom.learners.base import EpisodeOutcome
from metaloom.workers.durable import remove_asides, written_aside
from metaloom.workers.records.episode import COLUMNS, EPISODE_COLUMNS
from metaloom.workers.records.paths import part_name, parts_of

_TYPES: dict[str, Any] = {
    "text": pa.string(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "int64 list": pa.list_(pa.int64()),
    "float64 list": pa.list_(pa.float64()),
}
EPISODE_SCHEMA: Any = pa.schema([(column.name, _TYPES[column.kind]) for column in COLUMNS])
ROWS_PER_PART = 20_000  # a part is also written when so many rows wait: they are held in memory
_PART = re.compile(r"part-(\d+)-(\d+)\.parquet")


class Drawn(NamedTuple):
    """Which episode it was: enough to draw it again, and to say what was in it.

    A tuple, as one is made for every episode of every step: a frozen dataclass takes five times as long.

    Attributes:
        episode: Its number in the split.
        seed: The seed it was drawn with.
        class_ids: Its classes; empty in regression.
        sample_ids: Its samples, support first.
        ways: Number of classes, 0 in regression.
        shots: Support samples per class (all in regression).
        queries: Query samples per class (all in regression).
    """

    episode: int
    seed: int
    class_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]
    ways: int
    shots: int
    queries: int


@dataclass(frozen=True)
class Seen:
    """Some episodes that were worked on together.

    Attributes:
        phase: ``train``, ``validation`` or ``test``.
        step: Outer steps done before.
        drawn: Which episodes.
        outcomes: How each went.
        seconds: Time per episode.
        hypergradient_norm: Of the outer step, in training.
    """

    phase: str
    step: int
    drawn: Sequence[Drawn]
    outcomes: Sequence[EpisodeOutcome]
    seconds: float
    hypergradient_norm: float | None = None


@dataclass(frozen=True)
class Origin:
    """What all rows of a trial share."""

    search: str
    trial: int
    source: str
    setting: str
    batch_norm: str


class EpisodeRecorder:
    """Collects what was seen and writes it in parts."""

    def __init__(self, folder: Path, origin: Origin) -> None:
        self.folder = folder
        self.origin = origin
        self._seconds = 0.0
        self._waiting: list[Seen] = []
        self._rows = 0
        self._start = 0

    def resume(self, step: int) -> None:
        """Go on from ``step``: parts that reach beyond it belong to work that will be done again."""
        self._start = step
        if self.folder.is_dir():
            remove_asides(self.folder)
            for path, _, end in part_files(self.folder):
                if end > step:
                    path.unlink()

    def add(self, seen: Seen) -> None:
        """Keep what was seen; writes a part at the end of an outer step if many rows wait."""
        started = time.perf_counter()
        if self._rows >= ROWS_PER_PART and seen.step > self._start:
            self._write(seen.step)
        self._waiting.append(seen)
        self._rows += len(seen.drawn)
        self._seconds += time.perf_counter() - started

    def take_seconds(self) -> float:
        """Return the time spent recording since this was last asked."""
        taken, self._seconds = self._seconds, 0.0
        return taken

    def write(self, end: int) -> None:
        """Write the part that ends before outer step ``end``; raises StorageError."""
        started = time.perf_counter()
        self._write(end)
        self._seconds += time.perf_counter() - started

    def _write(self, end: int) -> None:
        write_part(self.folder / part_name(self._start, end), self.origin, self._waiting)
        self._waiting, self._rows, self._start = [], 0, end


def part_files(folder: Path) -> list[tuple[Path, int, int]]:
    """Return the parts of training in order, each with its first step and its end."""
    found = ((path, _PART.fullmatch(path.name)) for path in sorted(folder.iterdir()))
    return [(path, int(match[1]), int(match[2])) for path, match in found if match]


def write_part(path: Path, origin: Origin, seen: Sequence[Seen]) -> None:
    """Write rows as one Parquet file, whole or not at all; raises StorageError."""
    table = to_table(origin, seen)
    with written_aside(path) as aside:
        parquet.write_table(table, str(aside), compression="zstd", use_dictionary=["search", "phase", "source"])


def rows_of_test(path: Path, step: int) -> int:
    """Count the rows of a test's part; 0 if it is absent, damaged, or of another step's knowledge."""
    if not path.exists():
        return 0
    try:
        steps = parquet.read_table(str(path), columns=["step"]).column("step").to_pylist()
    except (pa.ArrowException, OSError):  # to be written again, like an absent one
        return 0
    return len(steps) if set(steps) == {step} else 0


def read_episodes(folder: Path) -> Any:
    """Return all rows of a trial's episode folder as one ``pyarrow.Table`` of ``EPISODE_SCHEMA``."""
    parts = [parquet.read_table(str(path), schema=EPISODE_SCHEMA) for path in parts_of(folder)]
    return pa.concat_tables(parts) if parts else EPISODE_SCHEMA.empty_table()


def to_table(origin: Origin, seen: Sequence[Seen]) -> Any:
    """Return the rows of ``seen`` as a ``pyarrow.Table`` of ``EPISODE_SCHEMA``."""
    drawn = [one for batch in seen for one in batch.drawn]
    outcomes = [one for batch in seen for one in batch.outcomes]
    batches = [len(batch.drawn) for batch in seen]
    rows = len(drawn)
    fields: list[Sequence[Any]] = [*zip(*drawn, strict=True)] if drawn else [()] * len(Drawn._fields)
    episode, seed, class_ids, sample_ids, ways, shots, queries = fields
    losses = [one.losses for one in outcomes]
    accuracies = [one.accuracies for one in outcomes]
    columns: dict[str, Any] = {
        "search": _texts([origin.search], [rows]),
        "trial": _integers(np.full(rows, origin.trial)),
        "phase": _texts([batch.phase for batch in seen], batches),
        "step": _integers(np.repeat([batch.step for batch in seen], batches)),
        "episode": _integers(episode),
        "seed": _integers(seed),
        "source": _texts([origin.source], [rows]),
        "class_ids": _lists(class_ids, _integers),
        "sample_ids": _lists(sample_ids, _integers),
        "ways": _integers(ways, np.int32),
        "shots": _integers(shots, np.int32),
        "queries": _integers(queries, np.int32),
        "losses": _lists(losses, _numbers),
        "accuracies": _lists(accuracies, _numbers),
        "loss_before": _numbers([one[0] for one in losses]),
        "loss_after": _numbers([one[-1] for one in losses]),
        "accuracy_before": _numbers([one[0] if one else None for one in accuracies]),
        "accuracy_after": _numbers([one[-1] if one else None for one in accuracies]),
        "setting": _texts([origin.setting], [rows]),
        "batch_norm": _texts([origin.batch_norm], [rows]),
        "hypergradient_norm": _numbers(_spread([batch.hypergradient_norm for batch in seen], batches)),
        "seconds": _numbers(np.repeat([batch.seconds for batch in seen], batches)),
    }
    return pa.Table.from_arrays([columns[name] for name in EPISODE_COLUMNS], schema=EPISODE_SCHEMA)


def _spread(values: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """Repeat each value as often as its batch has episodes."""
    return [value for value, count in zip(values, counts, strict=True) for _ in range(count)]


# Columns are made from buffers: ``pa.array`` and ``pa.scalar`` import pandas on their first call,
# which costs half a second in every worker, and are slower row by row.


Values = Sequence[Any] | NDArray[Any]


def _integers(values: Values, kind: type[np.signedinteger[Any]] = np.int64) -> Any:
    content = np.asarray(values, kind)
    arrow = pa.int64() if kind is np.int64 else pa.int32()
    return pa.Array.from_buffers(arrow, len(content), [None, pa.py_buffer(content)])


def _numbers(values: Values) -> Any:
    """Make a column of numbers; None and NaN (a learner's word for what it did not measure) are absent."""
    content = np.asarray(values, np.float64)
    present = ~np.isnan(content)
    valid = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.Array.from_buffers(pa.float64(), len(content), [valid, pa.py_buffer(content)])


def _texts(values: Sequence[str], counts: Sequence[int]) -> Any:
    """Repeat each text as often as it counts."""
    encoded = [value.encode() for value in values]
    content = b"".join(one * count for one, count in zip(encoded, counts, strict=True))
    offsets = _offsets(np.repeat([len(one) for one in encoded], counts))
    return pa.Array.from_buffers(pa.string(), sum(counts), [None, offsets, pa.py_buffer(content)])


def _lists(values: Sequence[Sequence[Any]], column: Callable[[Sequence[Any]], Any]) -> Any:
    """Make a list column from the column of its flat values."""
    flat = column(list(chain.from_iterable(values)))
    offsets = _offsets([len(value) for value in values])
    return pa.Array.from_buffers(pa.list_(flat.type), len(values), [None, offsets], children=[flat])


def _offsets(lengths: Values) -> Any:
    return pa.py_buffer(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
