"""Every episode becomes one row, once, with what was seen of it."""

import math
import os
import subprocess
import sys

import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaloom.learners.base import EpisodeOutcome
from metaloom.workers.durable import file_facts
from metaloom.workers.errors import StorageError
from metaloom.workers.records import episode_files as episode_records
from metaloom.workers.records.episode_files import (
    EPISODE_SCHEMA,
    EpisodeBatch,
    EpisodeFacts,
    EpisodeRecorder,
    Origin,
    to_table,
)
from metaloom.workers.records.names import part_name, parts_of
from tests.support.episodes import read_episodes
from tests.support.limits import no_file_above

ORIGIN = Origin("größer", 7, "glyphs", "transductive", "batch")
IDS = st.lists(st.integers(0, 2**40), max_size=5).map(tuple)
LOSSES = st.lists(st.floats(-9, 9), min_size=1, max_size=4).map(tuple)
EPISODES = st.tuples(
    st.builds(
        EpisodeFacts,
        st.integers(0),
        st.integers(0, 2**63 - 1),
        *[IDS] * 2,
        *[st.integers(0, 100)] * 3,
        IDS,
        st.sampled_from(["", "sets:größer"]),
    ),
    st.builds(EpisodeOutcome, LOSSES, st.lists(st.floats(0, 1), max_size=4).map(tuple)),
).filter(lambda pair: pair[0].episode < 2**62)
BATCHES = st.lists(
    st.tuples(
        st.sampled_from(["train", "validation"]),
        st.integers(0, 10**6),
        st.lists(EPISODES, max_size=3),
        st.floats(0, 9),
        st.none() | st.floats(0, 9),
    ),
    max_size=3,
)


def written(recorder, end):
    facts = recorder.begin_part(end)
    recorder.wait()
    return facts


def seen(step, episodes=2, phase="train"):
    drawn = [EpisodeFacts(step * 10 + i, step, (1, 2), (3, 4, 5), 2, 1, 15) for i in range(episodes)]
    outcomes = [EpisodeOutcome((2.0, 1.0), (0.5, 0.75))] * episodes
    return EpisodeBatch(phase, step, drawn, outcomes, 0.25, 1.5 if phase == "train" else None)


@given(BATCHES)
def test_rows_say_what_was_seen(batches):
    given_seen = [
        EpisodeBatch(phase, step, [one for one, _ in pairs], [one for _, one in pairs], seconds, norm)
        for phase, step, pairs, seconds, norm in batches
    ]
    table = to_table(ORIGIN, given_seen)
    table.validate(full=True)
    assert table.schema == EPISODE_SCHEMA
    rows = table.to_pylist()
    expected = [(batch, *pair) for batch in batches for pair in batch[2]]
    assert len(rows) == len(expected)
    for row, ((phase, step, _, seconds, norm), drawn, outcome) in zip(rows, expected, strict=True):
        accuracies = outcome.accuracies or (None,)
        assert row == {
            "search": "größer",
            "trial": 7,
            "setting": "transductive",
            "batch_norm": "batch",
            "phase": phase,
            "step": step,
            "seconds": seconds,
            "hypergradient_norm": norm,
            **drawn._asdict(),
            "source": drawn.source or "glyphs",
            "class_ids": list(drawn.class_ids),
            "sample_ids": list(drawn.sample_ids),
            "query_counts": list(drawn.query_counts),
            "losses": list(outcome.losses),
            "accuracies": list(outcome.accuracies),
            "loss_before": outcome.losses[0],
            "loss_after": outcome.losses[-1],
            "accuracy_before": accuracies[0],
            "accuracy_after": accuracies[-1],
        }


def test_what_was_not_measured_is_absent():
    outcome = EpisodeOutcome((math.nan, 1.0), (math.nan, 0.5))
    table = to_table(ORIGIN, [EpisodeBatch("train", 0, [EpisodeFacts(0, 0, (), (), 0, 1, 1)], [outcome], 0.1)])
    (row,) = table.to_pylist()
    assert row["losses"] == [None, 1.0]
    assert (row["loss_before"], row["accuracy_before"], row["accuracy_after"]) == (None, None, 0.5)


def test_a_resumed_trial_writes_no_row_twice(tmp_path):
    recorder = EpisodeRecorder(tmp_path, ORIGIN)
    recorder.resume(0)
    for end in (3, 6, 9):
        for step in range(end - 3, end):
            recorder.add(seen(step))
        recorder.add(seen(end, phase="validation"))
        written(recorder, end)
    whole = read_episodes(tmp_path)
    again = EpisodeRecorder(tmp_path, ORIGIN)
    again.resume(3)  # the checkpoint of step 6 was lost
    assert [path.name for path in parts_of(tmp_path)] == ["part-00000000-00000003.parquet"]
    for step in range(3, 9):
        again.add(seen(step))
        if step in (5, 8):
            again.add(seen(step + 1, phase="validation"))
            written(again, step + 1)
    assert read_episodes(tmp_path).equals(whole)


def test_a_part_is_written_when_many_rows_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(episode_records, "ROWS_PER_PART", 5)
    recorder = EpisodeRecorder(tmp_path, ORIGIN)
    recorder.resume(0)
    for step in range(10):
        recorder.add(seen(step))
    written(recorder, 10)
    names = [part_name(*ends) for ends in ((0, 3), (3, 6), (6, 9), (9, 10))]
    assert [path.name for path in parts_of(tmp_path)] == names
    assert read_episodes(tmp_path)["episode"].to_pylist() == [s * 10 + i for s in range(10) for i in range(2)]


def test_time_spent_recording_is_known(tmp_path):
    recorder = EpisodeRecorder(tmp_path, ORIGIN)
    recorder.add(seen(0))
    written(recorder, 1)
    assert recorder.take_seconds() > 0
    assert recorder.take_seconds() == 0


def test_a_full_disk_leaves_the_parts_before(tmp_path):
    recorder = EpisodeRecorder(tmp_path, ORIGIN)
    recorder.add(seen(0))
    written(recorder, 1)
    recorder.add(seen(1))
    with no_file_above(500), pytest.raises(StorageError, match="free some space"):
        written(recorder, 2)
    assert read_episodes(tmp_path).num_rows == 2
    assert len(list(tmp_path.iterdir())) == 1
    again = EpisodeRecorder(tmp_path, ORIGIN)
    again.resume(1)  # as the trial does, from its checkpoint
    again.add(seen(1))
    written(again, 2)
    assert read_episodes(tmp_path).num_rows == 4


def test_the_digests_are_those_of_the_files_and_name_each_part_once(tmp_path):
    recorder = EpisodeRecorder(tmp_path, ORIGIN)
    facts = []
    for end in (1, 2):
        recorder.add(seen(end - 1))
        facts.append(written(recorder, end))
    assert [list(one) for one in facts] == [[part_name(0, 1)], [part_name(1, 2)]]
    for one in facts:
        for name, fact in one.items():
            assert fact == file_facts((tmp_path / name).read_bytes())


def test_no_rows_are_an_empty_table(tmp_path):
    assert read_episodes(tmp_path / "absent").num_rows == 0
    assert read_episodes(tmp_path).schema == EPISODE_SCHEMA


def test_columns_are_readable_by_anyone(tmp_path):
    recorder = EpisodeRecorder(tmp_path, ORIGIN)
    recorder.add(seen(0))
    written(recorder, 1)
    (path,) = tmp_path.iterdir()
    assert parquet.read_schema(path).equals(EPISODE_SCHEMA)
    assert parquet.read_table(path).to_pandas()["losses"][0].tolist() == [2.0, 1.0]


def test_recording_does_not_wait_for_pandas(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from metaloom.learners.base import EpisodeOutcome\n"
        "from metaloom.workers.records.episode_files import *\n"
        "one = EpisodeBatch('train', 0, [EpisodeFacts(0, 0, (), (), 0, 1, 1)], [EpisodeOutcome((1.0,))], 0.1)\n"
        "write_part(Path(sys.argv[1]) / 'part', Origin('s', 0, 'x', 'inductive', 'none'), [one])\n"
        "print('pandas' in sys.modules)"
    )
    command = [sys.executable, "-c", code, os.fspath(tmp_path)]
    assert subprocess.check_output(command, text=True).strip() == "False"
