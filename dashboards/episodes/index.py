"""A small index of the parts of a search, in memory: it is made in the background, and follows new parts.

Pages work without it: a part that is not in it yet is read. With it a part that cannot hold what is asked is not read,
and the rows of a search or a phase are counted without reading any. Each part is checked while it is read.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from metaloom.dashboards.episodes.bounds import PartFacts
from metaloom.dashboards.episodes.part_reading import Part, facts_of
from metaloom.workers.records import names as records
from metaloom.workers.records.parts import MISSING, DamagedPart
from metaloom.workers.records.search import SearchRecord

KEPT = 8  # searches whose index stays in memory
PAUSE_S = 0.01  # between two looks whether a page is being read
SETTLED_NS = 2_000_000_000  # a folder may change twice within one tick of its file system's clock
UNSURE = -1  # as a folder's time of change: it is read again


class IndexProgress(NamedTuple):
    """How many parts the index knows, of how many."""

    known: int
    parts: int

    @property
    def complete(self) -> bool:
        """Whether it knows all."""
        return self.known >= self.parts


class EpisodeIndex:
    """The parts of one search, in the order of their rows, and what is known of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[Part] = []
        self._facts: dict[Part, PartFacts] = {}
        self._listed: dict[int, tuple[int, list[Part]]] = {}  # of each trial: its folder's time of change, its parts
        self._written: dict[Path, Mapping[str, Any]] = {}
        self._missing: list[DamagedPart] = []
        self.changes = 0  # how often the parts have changed
        self._version = ""
        self._readers, self._lock = 0, threading.Lock()
        self._builder: threading.Thread | None = None

    def refresh(self, search: SearchRecord, version: str = "") -> None:
        """Look for new parts, and begin to read those that are not known yet.

        Args:
            search: The present record, whose trials have the digests of their parts.
            version: Of the record; an equal one means that the record has not changed.
        """
        with self._lock:
            if self._list():
                self.parts = [part for _, parts in self._listed.values() for part in parts]
                self.changes += 1
                present = set(self.parts)
                self._facts = {part: facts for part, facts in self._facts.items() if part in present}
                self._version = ""
            if not version or version != self._version:
                self._version = version
                self._take(search)
            if not self.progress.complete and (self._builder is None or not self._builder.is_alive()):
                self._builder = threading.Thread(target=self._build, name="episode-index", daemon=True)
                self._builder.start()

    def facts(self, part: Part) -> PartFacts | None:
        """Return what is known of a part; None before it was read."""
        return self._facts.get(part)

    def written(self, part: Part) -> Mapping[str, Any] | None:
        """Return the size and digest of a part by the journal; None where it does not know it."""
        return self._written.get(part.path)

    @property
    def progress(self) -> IndexProgress:
        """How far it is."""
        return IndexProgress(len(self._facts), len(self.parts))

    @property
    def damaged(self) -> list[DamagedPart]:
        """The parts that are known to be damaged or missing, in the order of their trials."""
        found = [(part, facts) for part in self.parts if (facts := self._facts.get(part)) and facts.damage]
        broken = [DamagedPart(part.trial, part.path, facts.damage) for part, facts in found]
        return sorted([*self._missing, *broken], key=lambda one: (one.trial, one.path.name))

    def count(self, trial: int | None, phase: str | None) -> int | None:
        """Return the number of rows of a trial and a phase; None before all their parts are known."""
        total = 0
        for part in self.parts:
            if trial is not None and part.trial != trial:
                continue
            facts = self._facts.get(part)
            if facts is None:
                return None
            total += facts.rows if phase is None else dict(facts.phases).get(phase, 0)
        return total

    def wait(self, seconds: float) -> bool:
        """Wait until all parts are known, at most so long, and return whether they are."""
        builder = self._builder
        if builder is not None:
            builder.join(seconds)
        return self.progress.complete

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold the background reading up while a page is made."""
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    def _list(self) -> bool:
        """List the parts, and return whether any has changed; a folder that has not changed is not read again."""
        listed, is_same, now = dict[int, tuple[int, list[Part]]](), True, time.time_ns()
        for trial, directory in records.trial_directories(self.folder).items():
            episodes = directory / records.EPISODES_FOLDER
            try:
                changed = episodes.stat().st_mtime_ns
            except FileNotFoundError:
                continue  # it has not begun
            before = self._listed.get(trial, (UNSURE, []))
            if before[0] != changed:
                found = _parts_in(trial, episodes)
                is_same &= found == before[1]
                before = (changed if now - changed > SETTLED_NS else UNSURE, found)
            listed[trial] = before
        is_same &= listed.keys() == self._listed.keys()
        self._listed = listed
        return not is_same

    def _take(self, search: SearchRecord) -> None:
        """Take the digests of the record, and note which parts are missing."""
        self._written, self._missing = {}, []
        known = records.trial_directories(self.folder)
        for number, trial in search.trials.items():
            if not trial.parts or number not in known:
                continue
            folder = known[number] / records.EPISODES_FOLDER
            here = {part.path.name for part in self._listed.get(number, (0, []))[1]}
            self._written |= {folder / name: facts for name, facts in trial.parts.items()}
            lost = sorted(trial.parts.keys() - here)
            self._missing += [DamagedPart(number, folder / name, MISSING) for name in lost]

    def _build(self) -> None:
        """Read the parts that are not known, in order, until there are none."""
        import pyarrow as pa

        while waiting := [part for part in self.parts if part not in self._facts]:
            for part in waiting:
                while self._readers:
                    time.sleep(PAUSE_S)
                self._facts[part] = facts_of(part, self.written(part))
        pa.default_memory_pool().release_unused()


def _parts_in(trial: int, folder: Path) -> list[Part]:
    with os.scandir(folder) as found:
        named = [one for one in found if one.name.startswith("part-") and one.name.endswith(".parquet")]
        stated = [(one.name, one.stat()) for one in named]
    return [Part(trial, folder / name, state.st_size, state.st_mtime_ns) for name, state in sorted(stated)]


class Indexes:
    """The indexes of the searches that were looked at last."""

    def __init__(self) -> None:
        self._indexes: OrderedDict[Path, EpisodeIndex] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, folder: Path) -> EpisodeIndex:
        """Return the index of the search in ``folder``."""
        with self._lock:
            index = self._indexes.setdefault(folder, EpisodeIndex(folder))
            self._indexes.move_to_end(folder)
            while len(self._indexes) > KEPT:
                self._indexes.popitem(last=False)
            return index


INDEXES = Indexes()
