"""Episodes with examples without labels: which they are, what stays as it was, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch

from metaloom.learners.build import build_learner
from metaloom.learners.errors import LearnerError
from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.sections.few_shot import Protocol
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.class_table import ClassTable, spans_of
from metaloom.workers.data.streams import unlabelled_generator
from metaloom.workers.data.unlabelled import draw_unlabelled

SHOTS, QUERIES, WAYS = 2, 3, 4


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """30 classes of 12 rows, of which feature ``a`` is the row's number and ``b`` its class's."""
    path = tmp_path / "t.csv"
    rows = np.arange(360)
    labels = [f"c{row // 12:02}" for row in rows]
    pyarrow.csv.write_csv(pa.table({"label": labels, "a": rows, "b": rows // 12, "group": rows // 120}), str(path))
    return path


def opened(path: Path, **fields: Any) -> Any:
    sizes = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES}
    tasks = {"source": "table", "path": str(path), "label": "label", "features": ["a", "b"], "standardize": False}
    return open_source({**tasks, **sizes, **fields}, seed=3, cache=path.parent / "cache")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_rest_of_an_episode_is_as_without_them(classes: Path, split: str) -> None:
    plain, other = opened(classes), opened(classes, unlabelled=3, distractors=1)
    for index in range(5):
        one, two = plain.episode(split, index), other.episode(split, index)
        assert (one.seed, one.class_ids) == (two.seed, two.class_ids)
        shared = {name: value for name, value in two.episode.tensors().items() if name != "support/unlabelled"}
        assert all(torch.equal(value, shared[name]) for name, value in one.episode.tensors().items())
        labelled, queries = WAYS * SHOTS, WAYS * QUERIES
        assert two.sample_ids[:labelled] + two.sample_ids[-queries:] == one.sample_ids
    assert plain.episode(split, 0).episode.support.unlabelled is None
    assert (plain.shape.unlabelled, other.shape.unlabelled) == (False, True)


def test_they_are_other_examples_of_the_classes_and_of_distractors(classes: Path) -> None:
    source = opened(classes, unlabelled=5, distractors=2, evaluation={"unlabelled": 7, "distractors": 0})
    for index in range(30):
        sampled = source.episode("train", index)
        others = sampled.episode.support.unlabelled
        assert others.shape == (5 * (WAYS + 2), 2)
        ids = sampled.sample_ids
        assert len(set(ids)) == len(ids) == WAYS * (SHOTS + QUERIES) + len(others)
        assert torch.equal(source.gather(np.array(ids)[:, None], np.zeros(len(ids), int)).flatten(0, 1)[8:-12], others)
        numbers = {start // 12: number for number, start in enumerate(source.table.starts.tolist())}
        belongs = np.array([numbers[one // 12] for one in ids[8:-12]])
        found, counts = np.unique(belongs, return_counts=True)
        first, last = source.table.ends["train"]
        assert set(counts) == {5} and {*sampled.class_ids} < {*found.tolist()} <= {*range(first, last)}
        assert len(set(belongs[:5])) > 1  # in mixed order
    assert source.episode("test", 0).episode.support.unlabelled.shape == (7 * WAYS, 2)


def test_distractors_come_from_the_group_of_the_episode(classes: Path) -> None:
    source = opened(classes, ways=2, unlabelled=1, distractors=3, within="group", evaluation={"distractors": 0})
    for index in range(20):
        sampled = source.episode("train", index)
        assert len({one // 120 for one in sampled.sample_ids}) == 1


def test_each_example_is_turned_as_its_class() -> None:
    spans = spans_of({"a": 6, "b": 6, "c": 6, "d": 6})
    table = ClassTable.from_splits({"train": ["a", "b"], "validation": ["c"], "test": ["d"]}, spans).with_rotations()
    protocol = Protocol((2, 2), (1, 1), 1, unlabelled=4, distractors=1)
    ids, taken = np.array([1, 7]), np.array([[0, 1], [6, 7]])
    rows, turns = draw_unlabelled(table, ids, taken, np.arange(8), protocol, unlabelled_generator(0, "train", 0))
    assert len(rows) == len(turns) == 12
    assert sorted(rows[(turns == 1) & (rows < 6)].tolist()) == [2, 3, 4, 5]  # class 1, of which two are taken
    assert sorted(rows[(turns == 3) & (rows >= 6)].tolist())[:4] == [8, 9, 10, 11]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unlabelled": 8}, r"tasks\.unlabelled: 2 shots, 3 queries and 8 unlabelled need 13 samples"),
        ({"unlabelled": 1, "distractors": 99}, r"tasks\.ways: 4 ways and 99 distractors need as many classes"),
        ({"evaluation": {"unlabelled": 8}}, r"tasks\.evaluation: 2 shots, 3 queries and 8 unlabelled need 13"),
    ],
)
def test_too_few_examples_or_classes_are_refused(classes: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        opened(classes, **fields)


def test_regression_has_none(classes: Path) -> None:
    fields = {"kind": "regression", "task": "label", "label": "b", "features": ["a"], "unlabelled": 1}
    with pytest.raises(DataError, match=r"tasks\.unlabelled: only episodes of classes"):
        opened(classes, **fields)


def experiment(learner: Any = "prototypical", baselines: Any = (), **tasks: Any) -> Any:
    search = {"baselines": list(baselines)}
    return load_experiment({"tasks": {"source": "glyphs", "ways": 3, **tasks}, "learner": learner, "search": search})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unlabelled": 2}, r"tasks\.unlabelled: prototypical: prediction prototypes does not use examples without"),
        ({"unlabelled": {"search": [0, 2]}}, r"tasks\.unlabelled: prototypical: prediction prototypes does not use"),
        ({"evaluation": {"unlabelled": 2}}, r"tasks\.evaluation\.unlabelled: prototypical: prediction prototypes"),
        ({"unlabelled": 2, "learner": "maml"}, r"tasks\.unlabelled: maml: prediction linear does not use"),
        ({"unlabelled": 2, "learner": {"search": ["graph", "relation"]}}, r"unlabelled: relation: prediction relation"),
        ({"unlabelled": 2, "learner": "graph", "baselines": ["knn"]}, r"tasks\.unlabelled: knn: prediction knn does"),
        ({"distractors": 2}, r"tasks\.distractors: 2 classes without a label have tasks\.unlabelled examples each"),
        ({"evaluation": {"distractors": 2}}, r"tasks\.evaluation: distractors: 2 classes without a label"),
        ({"evaluation": {"unlabeled": 2}}, r"tasks\.evaluation: no setting of it is named 'unlabeled'; did you mean"),
    ],
)
def test_settings_without_a_use_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        experiment(**fields)


@pytest.mark.parametrize("given", [2, {"search": [0, 2]}])
def test_learners_that_use_them_take_them(given: Any) -> None:
    assert experiment("graph", unlabelled=given, distractors=0, baselines=["soft_k_means"]) is not None


def test_a_learner_that_does_not_use_them_is_refused_before_it_trains(classes: Path) -> None:
    with pytest.raises(LearnerError, match=r"tasks\.unlabelled: prediction linear does not use examples without"):
        build_learner(learner={}, inner={}, outer={}, task=opened(classes, unlabelled=1).shape)


def test_experiments_without_them_keep_their_digest() -> None:
    assert experiment().fingerprint() == experiment(unlabelled=0, distractors=0).fingerprint()
