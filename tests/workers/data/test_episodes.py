"""What holds for the episodes of every source."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metaloom.search_spaces.sections.tasks import TASK_SOURCES
from metaloom.testing import TaskSourceContract
from metaloom.workers.data import SOURCES, SPLITS, DataError, TaskSource, open_source
from metaloom.workers.data.sampler import ClassTable, FewShotSource, episode_generator, split_classes

MADE_HERE: dict[str, dict[str, Any]] = {
    "sinusoid": {},
    "point_mass": {},
    "navigation": {"shots": 4, "queries": 3},
    "quadratics": {},
    "searches": {"tables": ["bowls/1"], "searches": 200, "budget": 2, "portfolio": 2},
    "glyphs": {"ways": 4, "shots": 2, "queries": 3},
    "signals": {"classes": 20, "ways": 3, "shots": 2, "queries": 3},
    "many": {"sources": [{"source": "glyphs", "shots": 2}, {"source": "glyphs", "shots": 3}], "ways": 4, "queries": 3},
    "digits": {"label_noise": 0.3, "queries": 25},
}
NEED_FILES = {"fashion_mnist", "omniglot", "folder", "table", "arrays", "bilevel"}  # tested beside their formats
NEED_FILES |= {"gymnasium"}  # tested where its package is installed
NEED_FILES |= {"cifar_fs", "fc100", "mini_imagenet", "cub", "awa1", "clinc150", "text", "ucr"}
SHARED = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opened(name: str, cache: Path, seed: int = 0) -> TaskSource:
    return open_source({"source": name, **MADE_HERE[name]}, seed=seed, cache=cache)


class TestSources(TaskSourceContract):
    rows = MADE_HERE

    @pytest.fixture
    def source_cache(self, cache: Path) -> Path:
        return cache

    def test_every_source_is_tested_and_configurable(self) -> None:
        assert set(MADE_HERE) | NEED_FILES == set(SOURCES) == set(TASK_SOURCES)
        for name, source in SOURCES.items():
            assert source.name == name and source.Config is TASK_SOURCES[name]

    def test_classes_are_drawn_as_pictures(self, source: str, source_cache: Path) -> None:
        tasks = opened(source, source_cache)
        for split in SPLITS:
            episode = tasks.episode(split, 0).episode
            if tasks.shape.kind == "classification" and len(tasks.shape.inputs) != 2:  # series have any values
                assert all(x.min() >= 0 and x.max() <= 1 for x in (episode.support_x, episode.query_x))


@given(split=st.sampled_from(SPLITS), index=st.integers(0, 10**9))
@SHARED
def test_few_shot_episodes_are_well_formed(cache: Path, split: str, index: int) -> None:
    source = opened("glyphs", cache)
    assert isinstance(source, FewShotSource)
    sample = source.episode(split, index)
    ways, shots, queries = 4, 2, 3
    assert sample.episode.support_y.tolist() == [way for way in range(ways) for _ in range(shots)]
    assert sample.episode.query_y.tolist() == [way for way in range(ways) for _ in range(queries)]
    assert len(set(sample.class_ids)) == ways
    assert len(set(sample.sample_ids)) == ways * (shots + queries)  # support and query share no drawing
    first, last = source.table.ends[split]
    assert all(first <= class_id < last for class_id in sample.class_ids)
    assert sample.episode.class_ids is not None
    assert (sample.episode.class_ids + first).tolist() == list(sample.class_ids)
    rows = np.array(sample.sample_ids)
    labels = torch.cat([sample.episode.support_y, sample.episode.query_y]).numpy()
    assert (rows // 20 == source.table.starts[np.array(sample.class_ids)[labels]] // 20).all()


def test_labels_are_permuted_from_task_to_task(cache: Path) -> None:
    source = opened("glyphs", cache)
    rising = [list(ids) == sorted(ids) for ids in (source.episode("train", i).class_ids for i in range(480))]
    assert 0.01 < np.mean(rising) < 0.08  # 1 of 4! orders


def test_every_class_and_drawing_is_drawn_equally_often(cache: Path) -> None:
    source = opened("glyphs", cache)
    samples = [source.episode("validation", index) for index in range(2000)]
    places = np.bincount(np.concatenate([np.array(s.sample_ids) % 20 for s in samples]), minlength=20)
    assert places.min() > 0.9 * places.mean() and places.max() < 1.1 * places.mean()
    classes = np.unique(np.concatenate([s.class_ids for s in samples]))
    assert source.table.ends["validation"][1] - source.table.ends["validation"][0] == len(classes)  # type: ignore[attr-defined]


@given(counts=st.lists(st.integers(3, 600), min_size=3, max_size=8), index=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_draws_stay_within_classes_of_any_size(counts: list[int], index: int) -> None:
    from metaloom.workers.data.sampler import _draw_within

    drawn = _draw_within(np.array(counts), 3, episode_generator(0, "train", index))
    assert drawn.shape == (len(counts), 3)
    for row, count in zip(drawn, counts, strict=True):
        assert len(set(row.tolist())) == 3 and row.min() >= 0 and row.max() < count


@given(
    names=st.lists(st.text(min_size=1), unique=True, min_size=5, max_size=60),
    validation=st.floats(0, 0.4),
    test=st.floats(0, 0.4),
)
@settings(max_examples=50, deadline=None)
def test_splits_are_disjoint_and_complete(names: list[str], validation: float, test: float) -> None:
    splits = split_classes(names, validation, test)
    assert sorted(name for members in splits.values() for name in members) == sorted(names)
    assert splits == split_classes(names, validation, test)


def test_a_class_in_two_splits_is_refused() -> None:
    spans = {"a": (0, 5), "b": (5, 5)}
    with pytest.raises(DataError, match="class 'a' stands in more than one split"):
        ClassTable.from_splits({"train": ["a"], "validation": ["a"], "test": ["b"]}, spans)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "glyhps"}, "tasks.source: no task source is named 'glyhps'; did you mean 'glyphs'?"),
        ({}, "tasks.source: no task source is named 'None'"),
        ({"source": "glyphs", "wyas": 5}, "tasks.wyas: no setting of glyphs is named 'wyas'; did you mean 'ways'?"),
        ({"source": "glyphs", "ways": "five"}, "tasks.ways: got the text 'five'; allowed: a whole number"),
        ({"source": "glyphs", "ways": True}, "tasks.ways: got true; allowed: a whole number"),
        ({"source": "omniglot", "split": "mine"}, r"tasks.split: no option is named 'mine' \(allowed: lake, vinyals\)"),
        ({"source": "table"}, "tasks.path: not given, .*; give a text\ntasks.label: not given"),
        ({"source": "table", "path": "t", "label": "y", "features": "x"}, "tasks.features: got the text 'x'"),
        ({"source": "table", "path": 3, "label": "y"}, "tasks.path: got 3; allowed: a text"),
        ({"source": "glyphs", "ways": 197}, "tasks.ways: 197 ways need as many classes"),
        ({"source": "glyphs", "shots": 6, "queries": 15}, "6 shots and 15 queries need 21 samples of each class"),
        ({"source": "digits", "test_size": 1700, "meta_size": 97}, "none is left to train on"),
        ({"source": "digits", "meta_batch": 51}, "tasks.meta_batch: 51 samples asked for"),
        ({"source": "digits", "batch": 2000}, "tasks.batch: 2000 samples asked for, but the train set"),
        ({"source": "digits", "queries": 300}, "tasks.queries: 300 samples asked for, but the validation set"),
        ({"source": "digits", "batch": 100, "train_on": "meta"}, "tasks.batch: 100 samples asked for"),
        ({"source": "digits", "meta_size": 0}, "tasks.meta_size: got 0; allowed: a whole number, at least 1"),
        ({"source": "omniglot"}, "tasks.path: omniglot needs an .npz file"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_starts(fields: dict[str, Any], message: str, cache: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_source(fields, seed=0, cache=cache)


def test_streams_of_neighbouring_episodes_are_unrelated() -> None:
    draws = np.array([episode_generator(seed, "train", i).random(8) for seed in range(4) for i in range(500)])
    assert abs(draws.mean() - 0.5) < 0.01
    assert np.abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 0.03
