"""The difference between two trials on the same episodes, against its definition."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloom.learners.base import EpisodeOutcome
from metaloom.workers.records.episode_files import EpisodeBatch, EpisodeFacts, Origin, write_part
from metaloom.workers.records.names import CONFIG_FILE, TEST, part_of_test
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import PairedDifference, paired_difference

DIGITS = {"source": "digits", "queries": 2}
SINES = {"source": "sinusoid", "shots": 5}


def episodes(count: int, *, first: int = 0, support: int = 90, seed: int = 10) -> list[EpisodeFacts]:
    """Return test episodes of two classes with one query each, of samples of their own."""
    return [
        EpisodeFacts(n, seed + n, (0, 1), (support, support + 1, 2 * n, 2 * n + 1), 2, 1, 1)
        for n in range(first, first + count)
    ]


def generated(count: int) -> list[EpisodeFacts]:
    """Return episodes whose samples are not kept."""
    return [EpisodeFacts(n, 10 + n, (n,), (), 0, 5, 5) for n in range(count)]


def scored_trial(folder: Path, drawn: list[EpisodeFacts], scores: list[float], tasks: dict[str, Any] = DIGITS) -> Path:
    """Make the folder of a trial that has been tested: accuracies of the digits, losses of the sines."""
    folder.mkdir(parents=True)
    (folder / CONFIG_FILE).write_text(json.dumps(TrialConfig("s", 0, 3, tasks, {}).to_json()))
    if tasks["source"] == "digits":
        outcomes = [EpisodeOutcome((2.0, 1.0), (0.1, score)) for score in scores]
    else:
        outcomes = [EpisodeOutcome((2.0, score)) for score in scores]
    origin = Origin("s", 0, tasks["source"], "inductive", "none")
    write_part(part_of_test(folder, 3), origin, [EpisodeBatch(TEST, 5, drawn, outcomes, 0.1)])
    return folder


@settings(deadline=None, max_examples=25)  # it writes files
@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
def test_it_is_the_interval_of_the_differences(tmp_path_factory, pairs):
    folder, (ours, theirs) = tmp_path_factory.mktemp("trials"), map(list, zip(*pairs, strict=True))
    drawn = episodes(len(pairs))
    found = paired_difference(scored_trial(folder / "a", drawn, ours), scored_trial(folder / "b", drawn, theirs))
    mean, low, high = mean_interval([a - b for a, b in pairs])
    assert found == PairedDifference(mean, (low, high), len(pairs))
    assert found.to_json() == {"mean": mean, "interval": [low, high], "episodes": len(pairs)}
    opposite = paired_difference(folder / "b", folder / "a")
    assert (opposite.mean, *opposite.interval) == pytest.approx((-mean, -high, -low))


def test_it_sees_what_overlapping_intervals_hide(tmp_path):
    hard = [0.1, 0.9, 0.5, 0.3, 0.7, 0.2, 0.8, 0.4]
    better = [score + 0.05 + 0.01 * (n % 2) for n, score in enumerate(hard)]
    (_, low, _), (_, _, high) = mean_interval(better), mean_interval(hard)
    assert low < high
    drawn = episodes(8)
    found = paired_difference(scored_trial(tmp_path / "a", drawn, better), scored_trial(tmp_path / "b", drawn, hard))
    assert found.mean == pytest.approx(0.055) and 0.05 < found.interval[0] < found.interval[1] < 0.06


def test_a_smaller_loss_is_better(tmp_path):
    ours = scored_trial(tmp_path / "a", generated(3), [0.1, 0.2, 0.3], SINES)
    theirs = scored_trial(tmp_path / "b", generated(3), [0.2, 0.4, 0.6], SINES)
    assert paired_difference(ours, theirs).mean == pytest.approx(0.2)


def test_rows_are_paired_by_their_episodes_not_by_their_order(tmp_path):
    drawn = episodes(3)
    ours = scored_trial(tmp_path / "a", drawn, [0.1, 0.2, 0.3])
    theirs = scored_trial(tmp_path / "b", drawn[::-1], [0.3, 0.2, 0.1])
    assert paired_difference(ours, theirs) == PairedDifference(0.0, (0.0, 0.0), 3)


def test_what_is_adapted_to_may_differ(tmp_path):
    ours = scored_trial(tmp_path / "a", episodes(2), [0.5, 0.6])
    theirs = scored_trial(tmp_path / "b", episodes(2, support=70), [0.5, 0.6], {**DIGITS, "train_on": "meta"})
    assert paired_difference(ours, theirs) is not None


@pytest.mark.parametrize(
    ("drawn", "tasks"),
    [
        (episodes(3), DIGITS),  # one more
        (episodes(2, first=1), DIGITS),  # other queries
        (episodes(2, seed=11), DIGITS),  # another seed
        (generated(2), SINES),
    ],
)
def test_other_episodes_are_not_compared(tmp_path, drawn, tasks):
    ours = scored_trial(tmp_path / "a", episodes(2), [0.5, 0.6])
    assert paired_difference(ours, scored_trial(tmp_path / "b", drawn, [0.5] * len(drawn), tasks)) is None


def test_generated_episodes_are_the_same_where_their_source_is(tmp_path):
    ours = scored_trial(tmp_path / "a", generated(2), [0.5, 0.6], SINES)
    assert paired_difference(ours, scored_trial(tmp_path / "b", generated(2), [0.5, 0.7], SINES)) is not None
    noisy = scored_trial(tmp_path / "c", generated(2), [0.5, 0.7], {**SINES, "noise": 1.0})
    assert paired_difference(ours, noisy) is None


def test_one_episode_or_none_cannot_be_compared(tmp_path):
    ours, theirs = (scored_trial(tmp_path / name, episodes(1), [0.5]) for name in "ab")
    assert paired_difference(ours, theirs) is None
    part_of_test(ours, 3).write_bytes(b"damaged")
    part_of_test(theirs, 3).unlink()
    assert paired_difference(ours, theirs) is None


def test_a_score_that_is_no_number_leaves_no_number(tmp_path):
    ours, theirs = (scored_trial(tmp_path / name, generated(2), [0.5, math.nan], SINES) for name in "ab")
    found = paired_difference(ours, theirs)
    assert found.episodes == 2 and all(map(math.isnan, (found.mean, *found.interval)))
