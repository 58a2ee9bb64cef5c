"""Every episode is a row: Parquet parts beside the checkpoints of a trial.

A part is named by the outer steps it covers, ``part-00000100-00000200.parquet``: a resumed trial overwrites the part
that it had not finished, so no row is duplicated. An outer step only appends references; rows are made when a part is
written.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from metaloom.workers.durable import file_facts, remove_asides, write_bytes
from metaloom.workers.records.episode import EPISODE_COLUMNS
from metaloom.workers.records.episode_schema import EPISODE_SCHEMA
from metaloom.workers.records.names import PART, part_name

if TYPE_CHECKING:
    from metaloom.learners.base import EpisodeOutcome  # torch, which readers need not load

if TYPE_CHECKING:
    from metaloom.learners.base import EpisodeOutcome

ROWS_PER_PART = 20_000  # a part is also written when so many rows wait in memory
Values = Sequence[Any] | NDArray[Any]


class EpisodeFacts(NamedTuple):
    """The facts that identify an episode, as its columns document them (``records/episode.py``).

    A tuple, as one is made for every episode of every step: a frozen dataclass takes five times as long.
    """

    episode: int
    seed: int
    class_ids: tuple[int, ...]
    sample_ids: tuple[int, ...]
    ways: int
    shots: int
    queries: int
    query_counts: tuple[int, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class EpisodeBatch:
    """Episodes that were computed together after ``step`` outer steps; ``seconds`` is the time per episode."""

    phase: str
    step: int
    facts: Sequence[EpisodeFacts]
    outcomes: "Sequence[EpisodeOutcome]"
    seconds: float
    hypergradient_norm: float | None = None


@dataclass(frozen=True)
class Origin:
    """The columns that are equal in all rows of a trial; ``source`` only where no episode names its data set."""

    search: str
    trial: int
    source: str
    setting: str
    batch_norm: str


class EpisodeRecorder:
    """Collects batches of episodes and writes them in parts.

    A thread waits for the disk, while the trial goes on to its checkpoint; ``wait`` returns when all is on the disk.
    """

    def __init__(self, folder: Path, origin: Origin) -> None:
        self.folder, self.origin = folder, origin
        self._seconds = 0.0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="episodes")
        self._written: list[Future[None]] = []
        self._facts: dict[str, dict[str, Any]] = {}
        self._waiting: list[EpisodeBatch] = []
        self._rows = self._start = 0

    def resume(self, step: int) -> None:
        """Go on from ``step``; remove the parts that reach beyond it, whose steps will be done again."""
        self._start = step
        if self.folder.is_dir():
            remove_asides(self.folder)
            for path in self.folder.iterdir():
                match = PART.fullmatch(path.name)
                if match and int(match[2]) > step:
                    path.unlink()

    def add(self, batch: EpisodeBatch) -> None:
        """Keep a batch; begins a part at the end of an outer step if many rows wait."""
        with self._timed():
            if self._rows >= ROWS_PER_PART and batch.step > self._start:
                self._write(batch.step)
            self._waiting.append(batch)
            self._rows += len(batch.facts)

    def take_seconds(self) -> float:
        """Return the time spent recording since the last call."""
        taken, self._seconds = self._seconds, 0.0
        return taken

    def begin_part(self, end: int) -> dict[str, dict[str, Any]]:
        """Begin to write the part that ends before outer step ``end``.

        Returns the size and digest of all parts since the last call, by file name.
        """
        with self._timed():
            self._write(end)
        facts, self._facts = self._facts, {}
        return facts

    def wait(self) -> None:
        """Wait until all parts are on the disk; raises StorageError for one that could not be written."""
        written, self._written = self._written, []
        with self._timed():
            for one in written:
                one.result()

    def close(self) -> None:
        """Wait for the thread, and end it."""
        self._writer.shutdown()

    def _write(self, end: int) -> None:
        name, content = part_name(self._start, end), encoded(self.origin, self._waiting)
        self._facts[name] = file_facts(content)
        self._written.append(self._writer.submit(write_bytes, self.folder / name, content))
        self._waiting, self._rows, self._start = [], 0, end

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - started


def encoded(origin: Origin, batches: Sequence[EpisodeBatch]) -> bytes:
    """Return rows as the content of a Parquet file, each page with a checksum.

    For 250 rows, 1.2 ms of a processor: a third of ``parquet.write_table`` to a path, which looks up its file system.
    Snappy, and no statistics of parts that are read whole anyway, take a quarter less than zstd with statistics.
    """
    sink = pa.BufferOutputStream()
    options = {"compression": "snappy", "use_dictionary": ["search", "phase", "source"], "write_statistics": False}
    with parquet.ParquetWriter(sink, EPISODE_SCHEMA, **options, write_page_checksum=True) as writer:
        writer.write_table(to_table(origin, batches))
    return bytes(sink.getvalue())


def write_part(path: Path, origin: Origin, batches: Sequence[EpisodeBatch]) -> None:
    """Write rows as one Parquet file, whole or not at all; raises StorageError."""
    write_bytes(path, encoded(origin, batches))


def rows_of_test(path: Path, step: int) -> int:
    """Count the rows of a test's part; 0 if it is absent, damaged, or of another step's knowledge."""
    if not path.exists():
        return 0
    try:
        steps = parquet.read_table(str(path), page_checksum_verification=True).column("step").to_pylist()
    except (pa.ArrowException, OSError):  # a damaged part is written again, like an absent one
        return 0
    return len(steps) if set(steps) == {step} else 0


def to_table(origin: Origin, batches: Sequence[EpisodeBatch]) -> Any:
    """Return the rows of ``batches`` as a ``pyarrow.Table`` of ``EPISODE_SCHEMA``."""
    facts = [episode for batch in batches for episode in batch.facts]
    outcomes = [outcome for batch in batches for outcome in batch.outcomes]
    counts, rows = [len(batch.facts) for batch in batches], len(facts)
    fields: list[Sequence[Any]] = [*zip(*facts, strict=True)] if facts else [()] * len(EpisodeFacts._fields)
    episode, seed, class_ids, sample_ids, ways, shots, queries, query_counts, named = fields
    losses = [outcome.losses for outcome in outcomes]
    accuracies = [outcome.accuracies for outcome in outcomes]
    norms = [batch.hypergradient_norm for batch in batches for _ in batch.facts]
    columns: dict[str, Any] = {
        "search": _texts([origin.search], [rows]),
        "trial": _integers(np.full(rows, origin.trial)),
        "phase": _texts([batch.phase for batch in batches], counts),
        "step": _integers(np.repeat([batch.step for batch in batches], counts)),
        "episode": _integers(episode),
        "seed": _integers(seed),
        "source": _texts(*_sources(named, origin.source)),
        "class_ids": _lists(class_ids, _integers),
        "sample_ids": _lists(sample_ids, _integers),
        "ways": _integers(ways, np.int32),
        "shots": _integers(shots, np.int32),
        "queries": _integers(queries, np.int32),
        "query_counts": _lists(query_counts, _integers),
        "losses": _lists(losses, _numbers),
        "accuracies": _lists(accuracies, _numbers),
        "loss_before": _numbers([values[0] for values in losses]),
        "loss_after": _numbers([values[-1] for values in losses]),
        "accuracy_before": _numbers([values[0] if values else None for values in accuracies]),
        "accuracy_after": _numbers([values[-1] if values else None for values in accuracies]),
        "setting": _texts([origin.setting], [rows]),
        "batch_norm": _texts([origin.batch_norm], [rows]),
        "hypergradient_norm": _numbers(norms),
        "seconds": _numbers(np.repeat([batch.seconds for batch in batches], counts)),
    }
    return pa.Table.from_arrays([columns[name] for name in EPISODE_COLUMNS], schema=EPISODE_SCHEMA)


def _sources(named: Sequence[str], source: str) -> tuple[list[str], list[int]]:
    """Return the data set of each row, or the task source once with the number of rows."""
    return ([one or source for one in named], [1] * len(named)) if any(named) else ([source], [len(named)])


# Columns are made from buffers: ``pa.array`` and ``pa.scalar`` import pandas on their first call,
# which costs half a second in every worker, and are slower row by row.


def _integers(values: Values, kind: type[np.signedinteger[Any]] = np.int64) -> Any:
    content = np.asarray(values, kind)
    arrow = pa.int64() if kind is np.int64 else pa.int32()
    return pa.Array.from_buffers(arrow, len(content), [None, pa.py_buffer(content)])


def _numbers(values: Values) -> Any:
    """Make a column of numbers; None and NaN (a learner's mark of a value that it did not measure) are null."""
    content = np.asarray(values, np.float64)
    present = ~np.isnan(content)
    valid = None if present.all() else pa.py_buffer(np.packbits(present, bitorder="little"))
    return pa.Array.from_buffers(pa.float64(), len(content), [valid, pa.py_buffer(content)])


def _texts(values: Sequence[str], counts: Sequence[int]) -> Any:
    """Repeat each text as often as its count says."""
    encoded = [value.encode() for value in values]
    content = b"".join(text * count for text, count in zip(encoded, counts, strict=True))
    offsets = _offsets(np.repeat([len(text) for text in encoded], counts))
    return pa.Array.from_buffers(pa.string(), sum(counts), [None, offsets, pa.py_buffer(content)])


def _lists(values: Sequence[Sequence[Any]], column: Callable[[Sequence[Any]], Any]) -> Any:
    """Make a list column from the column of its flat values."""
    flat = column(list(chain.from_iterable(values)))
    offsets = _offsets([len(value) for value in values])
    return pa.Array.from_buffers(pa.list_(flat.type), len(values), [None, offsets], children=[flat])


def _offsets(lengths: Values) -> Any:
    return pa.py_buffer(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
