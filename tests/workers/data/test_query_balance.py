"""Episodes with unequally many queries of each class: their numbers, what stays as it was, records, and refusals."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metaloom.learners.base import EpisodeOutcome
from metaloom.learners.build import build_learner
from metaloom.learners.episode import stack_episodes
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.query_balance import draw_counts
from metaloom.workers.records.episode_files import EpisodeBatch, EpisodeFacts, Origin, write_part
from metaloom.workers.scoring import evaluate_learner
from metaloom.workers.ways import describe, query_counts
from tests.support.episodes import read_episodes

SHOTS, QUERIES, WAYS = 2, 6, 4
DIRICHLET = {"dirichlet": 2}


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """30 classes of 20 rows, of which feature ``a`` is the row's number and ``b`` its class's."""
    path = tmp_path / "t.csv"
    rows = np.arange(600)
    pyarrow.csv.write_csv(
        pa.table({"label": [f"c{row // 20:02}" for row in rows], "a": rows, "b": rows // 20}), str(path)
    )
    return path


def opened(path: Path, **fields: Any) -> Any:
    sizes = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES}
    tasks = {"source": "table", "path": str(path), "label": "label", "features": ["a", "b"], "standardize": False}
    return open_source({**tasks, **sizes, **fields}, seed=3, cache=path.parent / "cache")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_classes_support_set_and_seed_stay_and_the_total_of_queries(classes: Path, split: str) -> None:
    plain, other = opened(classes), opened(classes, query_balance=DIRICHLET)
    unequal = 0
    for index in range(20):
        one, two = plain.episode(split, index), other.episode(split, index)
        assert (one.seed, one.class_ids) == (two.seed, two.class_ids)
        assert torch.equal(one.episode.support_x, two.episode.support_x)
        assert len(two.episode.query_y) == WAYS * QUERIES
        assert len(set(two.sample_ids)) == len(two.sample_ids) == len(one.sample_ids)
        unequal += query_counts(two.episode.query_y, WAYS) != ()
        again = other.episode(split, index)
        assert torch.equal(again.episode.query_x, two.episode.query_x)
        for label in range(WAYS):  # a class's queries are the balanced episode's, then others of it
            was, now = (one_.episode.query_x[one_.episode.query_y == label] for one_ in (one, two))
            shared = min(len(was), len(now))
            assert torch.equal(was[:shared], now[:shared])
            assert len(set(now[:, 1].tolist()) | set(was[:, 1].tolist())) == 1  # feature b is the class
    assert unequal > 15


def test_queries_belong_to_their_ids_and_never_to_the_support_set(classes: Path) -> None:
    source = opened(classes, query_balance={"dirichlet": 0.3}, unlabelled=3)
    for index in range(20):
        sampled = source.episode("train", index)
        ids = np.array(sampled.sample_ids)
        assert len(set(ids)) == len(ids)
        x = source.gather(ids[:, None], np.zeros(len(ids), int)).flatten(0, 1)
        assert torch.equal(x[-WAYS * QUERIES :], sampled.episode.query_x)
        assert len(sampled.episode.support.unlabelled) == 3 * WAYS


def test_training_and_evaluation_have_their_own(classes: Path) -> None:
    source = opened(classes, evaluation={"query_balance": DIRICHLET})
    counts = {
        split: [query_counts(source.episode(split, index).episode.query_y, WAYS) for index in range(8)]
        for split in ("train", "test")
    }
    assert set(counts["train"]) == {()}
    assert sum(one != () for one in counts["test"]) > 5
    back = opened(classes, query_balance=DIRICHLET, evaluation={"query_balance": None})
    assert query_counts(back.episode("test", 0).episode.query_y, WAYS) == ()


def test_episodes_of_an_outer_step_stack(classes: Path) -> None:
    source = opened(classes, query_balance=DIRICHLET)
    stacked = stack_episodes([source.episode("train", index).episode for index in range(3)])
    assert stacked.query_x.shape == (3, WAYS * QUERIES, 2)


@settings(max_examples=200, deadline=None)
@given(
    alpha=st.sampled_from([0.01, 0.5, 2.0, 1000.0]),
    most=st.lists(st.integers(3, 30), min_size=2, max_size=8),
    seed=st.integers(0, 10_000),
)
def test_counts_add_up_and_keep_to_what_there_is(alpha: float, most: list[int], seed: int) -> None:
    total = 3 * len(most)
    counts = draw_counts(alpha, total, np.array(most), np.random.default_rng(seed))
    assert counts.sum() == total
    assert (counts >= 0).all()
    assert (counts <= most).all()


def test_the_counts_are_those_of_a_dirichlet_distribution() -> None:
    """Of shares with alpha 2 and five classes the deviation is sqrt(a (A - a) / (A^2 (A + 1))), A = 10."""
    generator = np.random.default_rng(0)
    counts = np.stack([draw_counts(2.0, 75, np.full(5, 75), generator) for _ in range(4000)])
    assert np.abs(counts.mean(0) - 15).max() < 0.6
    assert counts.std() == pytest.approx(75 * np.sqrt(2 * 8 / (100 * 11)), rel=0.03)
    equal = draw_counts(1e6, 75, np.full(5, 75), generator)
    assert np.abs(equal - 15).max() <= 1


def test_the_record_says_how_many_of_each_class(classes: Path, tmp_path: Path) -> None:
    source = opened(classes, query_balance=DIRICHLET)
    learner = build_learner(
        learner={"prediction": {"kind": "nearest_neighbour"}}, inner={}, outer={}, task=source.shape
    )
    facts = [describe(source.episode("test", index), index, learner) for index in range(4)]
    generator = torch.Generator().manual_seed(0)
    phi = learner.init(generator)
    evaluation = evaluate_learner(learner, phi, learner.begin(phi, generator), source, "test", 4)
    assert evaluation.facts == tuple(facts)
    folder = tmp_path / "episodes"
    folder.mkdir()
    batch = EpisodeBatch("test", 0, facts, evaluation.outcomes, 0.1)
    write_part(folder / "part-00000000-00000001.parquet", Origin("s", 0, "table", "inductive", "none"), [batch])
    rows = read_episodes(folder).to_pylist()
    for row, sampled in zip(rows, (source.episode("test", index) for index in range(4)), strict=True):
        counts = torch.bincount(sampled.episode.query_y, minlength=WAYS).tolist()
        assert row["query_counts"] in (counts, [])
        assert row["queries"] == QUERIES
        assert row["ways"] * row["queries"] == len(sampled.episode.query_y)
    assert any(row["query_counts"] for row in rows)


def test_parts_of_an_earlier_version_are_read_without_them(tmp_path: Path) -> None:
    path = tmp_path / "part-00000000-00000001.parquet"
    fact = EpisodeFacts(0, 1, (1, 2), (3, 4, 5, 6), 2, 1, 1, (2, 0))
    batch = EpisodeBatch("test", 0, [fact], [EpisodeOutcome((1.0,), (0.5,))], 0.1)
    write_part(path, Origin("s", 0, "table", "inductive", "none"), [batch])
    parquet.write_table(parquet.read_table(str(path)).drop_columns(["query_counts"]), str(path))
    assert read_episodes(tmp_path)["query_counts"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"query_balance": {"dirichlt": 2}}, r"tasks\.query_balance: .*'dirichlt'.*did you mean 'dirichlet'"),
        ({"query_balance": {"dirichlet": 0}}, r"tasks\.query_balance: dirichlet: got 0; allowed: a number above 0"),
        ({"query_balance": {}}, r"tasks\.query_balance: dirichlet: got null; allowed"),
        ({"evaluation": {"query_balance": {"dirichlet": "two"}}}, r"tasks\.evaluation: query_balance: dirichlet: got"),
        ({"evaluation": {"query_balance": 2}}, r"tasks\.evaluation: query_balance: got 2; allowed: a mapping"),
    ],
)
def test_other_settings_are_refused(classes: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(classes, **fields)


def test_regression_has_no_queries_of_each_class(classes: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.query_balance: only episodes of classes"):
        opened(classes, kind="regression", label="a", task="label", features=["b"], query_balance=DIRICHLET)


def test_queries_that_take_every_example_of_their_classes_are_not_divided_unequally_in_name_alone(
    classes: Path,
) -> None:
    message = "tasks.query_balance: 2 shots and 18 queries take all 20 samples of a class .*; lower tasks.queries"
    with pytest.raises(DataError, match=message):
        opened(classes, queries=18, query_balance=DIRICHLET)
    with pytest.raises(DataError, match=r"(test|validation) split"):
        opened(classes, evaluation={"queries": 18, "query_balance": DIRICHLET})
    assert query_counts(opened(classes, queries=17, query_balance=DIRICHLET).episode("test", 0).episode.query_y, WAYS)
