"""The recorded test of a trial: its scores, episode by episode, for comparisons; read without torch."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
from safetensors import SafetensorError, safe_open

from metaloom.workers.records.episode_files import rows_of_test
from metaloom.workers.records.names import KNOWLEDGE_ENTRY, META_KNOWLEDGE_FILE, part_of_test
from metaloom.workers.records.trial import read_config

_LOG = logging.getLogger(__name__)
_COMPARED = ["episode", "seed", "source", "class_ids", "sample_ids", "ways", "queries", "accuracy_after", "loss_after"]


def test_scores(directory: Path, *, seed: int | None = None, episodes: int | None = None) -> dict[str, float]:
    """Return a trial's score on each recorded test episode, larger being better, by the episode's identity.

    Args:
        directory: The trial's.
        seed: Seed of the episodes; None takes the search's.
        episodes: The first so many; None: all.
    """
    config = read_config(directory)
    part = part_of_test(directory, config.seed if seed is None else seed)
    if not part.is_file():
        return {}
    try:
        rows = parquet.read_table(str(part), columns=_COMPARED).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        _LOG.warning("%s cannot be read, so that no paired difference is shown: %s", part, error)
        return {}
    taken = [row for row in rows if episodes is None or row["episode"] < episodes]
    return {_identity(row, config.tasks): _score(row) for row in taken}


def is_tested(directory: Path, *, seed: int, episodes: int) -> bool:
    """Return whether a finished trial's records hold so many test episodes of what it has learned at its end."""
    step = _step_of_knowledge(directory / META_KNOWLEDGE_FILE)
    return step is not None and rows_of_test(part_of_test(directory, seed), step) >= episodes


def _step_of_knowledge(path: Path) -> int | None:
    """Return the outer step of a file of knowledge, by its header; None if there is none that can be read."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
        facts = json.loads(metadata[KNOWLEDGE_ENTRY]) if KNOWLEDGE_ENTRY in metadata else metadata
        return int(facts["step"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return None  # it is tested again, which says what is wrong


def _identity(row: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    """Identify an episode by its queries, or by all settings of its source if these are not kept.

    The support set need not be the same: a baseline may train on other samples and be asked the same queries.
    """
    queries = row["queries"] * max(row["ways"], 1)
    asked = row["sample_ids"][-queries:] or sorted(tasks.items())
    return repr((row["episode"], row["seed"], row["source"], row["class_ids"], row["ways"], asked))


def _score(row: Mapping[str, Any]) -> float:
    if row["accuracy_after"] is not None:
        return float(row["accuracy_after"])
    return math.nan if row["loss_after"] is None else -float(row["loss_after"])  # a loss of NaN is stored as null
