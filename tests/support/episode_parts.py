"""Searches with several parts of drawn episodes, and their index."""

from pathlib import Path
from typing import Any

import numpy as np

from metaloom.dashboards.episodes.index import EpisodeIndex
from metaloom.learners.base import EpisodeOutcome
from metaloom.workers.durable import file_facts
from metaloom.workers.records import names as records
from metaloom.workers.records.episode_files import EpisodeBatch, EpisodeFacts, Origin, encoded
from metaloom.workers.records.search import SearchRecord

ROWS, PARTS, TRIALS = 7, 4, 3


def written(folder: Path, trial: int, part: int, *, rows: int = ROWS) -> dict[str, Any]:
    """Write one part of drawn rows, and return its facts by its name."""
    generator = np.random.default_rng([trial, part])
    batches = []
    for phase in (records.TRAIN, records.VALIDATION):
        drawn = [(generator.integers(0, 6) / 5, generator.random() * 2, generator.permutation(6)) for _ in range(rows)]
        facts = [
            EpisodeFacts(row, int(generator.integers(1 << 62)), tuple(ids[:2].tolist()), (1, 2), 5, 1, 1)
            for row, (_, _, ids) in enumerate(drawn)
        ]
        outcomes = [EpisodeOutcome((1.5, float(loss)), (0.2, float(right))) for right, loss, _ in drawn]
        step = 10 * part + 10 * (phase == records.VALIDATION)
        batches.append(EpisodeBatch(phase, step, facts, outcomes, 0.1, 1.0 if phase == records.TRAIN else None))
    path = (
        records.trial_directory(folder, trial) / records.EPISODES_FOLDER / records.part_name(10 * part, 10 * part + 10)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    content = encoded(Origin("before", trial, "glyphs", "inductive", "batch"), batches)
    path.write_bytes(content)
    return {path.name: file_facts(content)}


def indexed(folder: Path, *, built: bool = True) -> EpisodeIndex:
    """Return an index, whole or as it is before it has read a part."""
    index = EpisodeIndex(folder)
    if not built:
        index._list()
        index.parts = [part for _, parts in index._listed.values() for part in parts]
        index._take(SearchRecord.read(folder))
        return index
    index.refresh(SearchRecord.read(folder))
    assert index.wait(20)
    return index
