"""Plays a bundle's test again, and compares it with what the bundle was signed with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from metaloom.workers.bundle import Bundle
from metaloom.workers.bundle_writing import TEST_EPISODES_FILE
from metaloom.workers.errors import BundleError
from metaloom.workers.records.episode_files import EpisodeFacts
from metaloom.workers.records.names import TEST
from metaloom.workers.records.results import Verification

_IDENTITY = ["seed", "class_ids", "sample_ids"]


def verify(bundle: Bundle, *, cache: Path) -> Verification:
    """Play the test of a bundle again, on the data that it was trained on.

    Args:
        bundle: An opened bundle.
        cache: Where task sources keep their prepared data.

    Raises:
        BundleError: It was exported without a test.
        DataError: Its data are not here.
    """
    signed = bundle.manifest["evaluation"]
    if signed is None:
        raise BundleError(f"{bundle.path}: it was exported without a test (--episodes 0); 'metaloom evaluate' tests it")
    rows = parquet.read_table(str(bundle.path / TEST_EPISODES_FILE), columns=[*_IDENTITY, "loss_after"]).to_pylist()
    again = bundle.evaluate(cache=cache, split=TEST, episodes=len(rows))
    low, high = signed["interval"]
    pairs = list(zip(again.scores, signed["scores"], again.losses, (row["loss_after"] for row in rows), strict=True))
    different = sum(score != was or loss != had for score, was, loss, had in pairs)
    return Verification(
        metric=again.metric,
        exported=signed["mean"],
        interval=(low, high),
        mean=again.mean,
        episodes=again.episodes,
        other_episodes=_others(again.facts, rows),
        inside=low <= again.mean <= high,
        bit_equal=not different,
        different=different,
        largest_difference=max(abs(score - was) for score, was, _, _ in pairs),
    )


def _others(facts: Sequence[EpisodeFacts], rows: Sequence[Mapping[str, Any]]) -> int:
    """Count the episodes that are not those of the bundle's test."""
    now = [(one.seed, list(one.class_ids), list(one.sample_ids)) for one in facts]
    return sum(one != tuple(row[name] for name in _IDENTITY) for one, row in zip(now, rows, strict=True))
