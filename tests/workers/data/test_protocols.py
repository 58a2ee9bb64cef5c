"""Few-shot protocols: sizes of validation and test of their own, ranges, classes with too few examples."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.class_table import split_classes
from metaloom.workers.data.enough import fractions_for


def table(path: Path, sizes: Mapping[str, int]) -> Path:
    names = [name for name, size in sizes.items() for _ in range(size)]
    rows = np.arange(len(names), dtype=np.float64)
    pyarrow.csv.write_csv(pa.table({"label": names, "a": rows, "b": rows[::-1]}), str(path))
    return path


def opened(path: Path, **fields: Any) -> Any:
    tasks = {"source": "table", "path": str(path), "label": "label", "ways": 2, "shots": 1, "queries": 2, **fields}
    return open_source(tasks, seed=3, cache=path.parent / "cache")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return table(tmp_path / "t.csv", {f"c{number:02}": 12 for number in range(30)})


def counts(source: Any, split: str, index: int) -> tuple[int, int, int]:
    """Return ways, support examples of each class and query examples of each class."""
    episode = source.episode(split, index).episode
    ways = int(episode.query_y.max()) + 1
    support, queries = np.bincount(episode.support_y), np.bincount(episode.query_y)
    assert len(set(support)) == len(set(queries)) == 1 and len(support) == len(queries) == ways
    return ways, int(support[0]), int(queries[0])


def test_validation_and_test_have_sizes_of_their_own(classes: Path) -> None:
    source = opened(classes, ways=10, queries=4, evaluation={"ways": 3, "shots": 5})
    assert source.shape.outputs == 10
    assert {counts(source, "train", index) for index in range(4)} == {(10, 1, 4)}
    assert {counts(source, split, index) for split in ("validation", "test") for index in range(4)} == {(3, 5, 4)}


def test_training_episodes_are_those_without_an_evaluation(classes: Path) -> None:
    plain, other = opened(classes), opened(classes, evaluation={"ways": 3})
    assert plain.episode("train", 7).sample_ids == other.episode("train", 7).sample_ids
    assert opened(classes, ways=3).episode("test", 7).sample_ids == other.episode("test", 7).sample_ids


def test_ranges_are_drawn_for_each_outer_step(classes: Path) -> None:
    fields: dict[str, Any] = {"ways": [2, 5], "shots": [1, 3], "evaluation": {"ways": 2, "shots": 1}}
    source = opened(classes, **fields)
    source.meta_batch = 4
    sizes = [counts(source, "train", index) for index in range(400)]
    steps = [sizes[first : first + 4] for first in range(0, 400, 4)]
    assert all(len(set(step)) == 1 for step in steps)
    drawn = {step[0] for step in steps}
    assert drawn == {(ways, shots, 2) for ways in range(2, 6) for shots in range(1, 4)}  # 100 draws of 12 pairs
    assert {counts(source, "test", index) for index in range(5)} == {(2, 1, 2)}
    again = opened(classes, **fields)
    again.meta_batch = 4
    assert counts(again, "train", 399) == sizes[399]
    assert again.episode("train", 399).sample_ids == source.episode("train", 399).sample_ids
    assert source.shape.outputs == 5


def test_regression_has_an_evaluation_too(tmp_path: Path) -> None:
    rows = np.arange(90, dtype=np.float64)
    tasks = [f"t{row // 9}" for row in range(90)]
    pyarrow.csv.write_csv(pa.table({"label": rows, "a": rows, "task": tasks}), str(tmp_path / "r.csv"))
    fields: dict[str, Any] = {"kind": "regression", "task": "task", "evaluation": {"shots": 5, "queries": 4}}
    source = opened(tmp_path / "r.csv", **fields)
    assert [len(source.episode(split, 0).episode.support_y) for split in ("train", "test")] == [1, 5]
    assert [len(source.episode(split, 0).episode.query_y) for split in ("train", "test")] == [2, 4]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"evaluation": {"way": 5}}, r"tasks\.evaluation: no setting of it is named 'way'; did you mean 'ways'\?"),
        ({"evaluation": {"ways": 1}}, r"tasks\.evaluation: ways: got 1; allowed: a whole number, at least 2"),
        (
            {"evaluation": {"shots": [1, 5]}},
            r"tasks\.evaluation: shots: got the list \[1, 5\]; allowed: a whole number",
        ),
        ({"evaluation": 5}, r"tasks\.evaluation: got 5; .* a mapping of names to values or null"),
        ({"ways": [2, 5]}, r"tasks\.evaluation: tasks\.ways is a range, .*: evaluation: \{ways: 2\}"),
        ({"shots": [5, 1], "evaluation": {"shots": 1}}, r"tasks\.shots: got the list \[5, 1\]; a range is \[least, mo"),
        ({"shots": [1, 2, 3], "evaluation": {"shots": 1}}, r"tasks\.shots: got the list \[1, 2, 3\]; a range is"),
        ({"ways": [1, 5], "evaluation": {"ways": 2}}, r"tasks\.ways\[0\]: got 1; allowed: a whole number, at least 2"),
        ({"on_too_few": "skip"}, r"tasks\.on_too_few: no option is named 'skip'"),
    ],
)
def test_wrong_sizes_are_refused_before_the_data_are_opened(fields: dict[str, Any], message: str) -> None:
    tasks = {"source": "folder", "path": "absent", **fields}
    with pytest.raises(ExperimentError, match=message):
        load_experiment({"tasks": tasks, "learner": "maml"})


def test_no_new_setting_is_part_of_the_meaning_of_earlier_experiments() -> None:
    given = {"evaluation": None, "on_too_few": "refuse"}
    plain, same = (
        load_experiment({"tasks": {"source": "glyphs", **fields}, "learner": "maml"}) for fields in ({}, given)
    )
    other = load_experiment({"tasks": {"source": "glyphs", "evaluation": {"ways": 5}}, "learner": "maml"})
    assert plain.fingerprint() == same.fingerprint() != other.fingerprint()


def test_classes_with_too_few_examples_are_left_out_on_request(tmp_path: Path) -> None:
    sizes = {f"c{number:02}": 2 if number % 5 == 0 else 4 for number in range(30)}
    path = table(tmp_path / "t.csv", sizes)
    with pytest.raises(DataError, match=r"need 3 samples of each class, but 'c\d\d' .* has 2, and .* leave_out leaves"):
        opened(path)
    source = opened(path, on_too_few="leave_out")
    assert source.notes[0].startswith("6 of 30 classes left out, with fewer examples than an episode takes: ")
    assert sorted(source.table.names) == [name for name, size in sizes.items() if size == 4]
    whole = opened(table(tmp_path / "whole.csv", dict.fromkeys(sizes, 4)))
    for split, names in whole.table.splits.items():  # the others stay in their splits
        assert source.table.splits[split] == [name for name in names if sizes[name] == 4]
        drawn = {name for index in range(50) for name in source.episode(split, index).class_ids}
        first, last = source.table.ends[split]
        assert drawn == set(range(first, last))


def test_each_split_leaves_out_by_its_own_sizes(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", {f"c{number:02}": 4 for number in range(30)})
    with pytest.raises(
        DataError, match=r"tasks\.evaluation: 3 shots and 2 queries need 5 samples .*\(validation split"
    ):
        opened(path, evaluation={"shots": 3})
    message = r"tasks\.evaluation: 2 ways .* the validation split of table has 0; .*; 12 of 30 classes left out"
    with pytest.raises(DataError, match=message):
        opened(path, evaluation={"shots": 3}, on_too_few="leave_out")


@pytest.mark.parametrize(
    ("classes", "fields", "message"),
    [
        (
            3,
            {"ways": 3},
            r"tasks\.ways: 3 ways need as many classes, but the train split of table has 1; at least 9 classes are "
            r"needed \(3 for the training, 3 for validation, 3 for the test\), and there are 3: take fewer ways, or "
            r"tasks\.episodes: single_task",
        ),
        (
            10,
            {"ways": 3},
            r"validation split of table has 2; of its 10 classes 3 for the training, .* 0\.3 and .* 0\.3 fit",
        ),
        (
            12,
            {"ways": 6, "evaluation": {"ways": 3}},
            r"tasks\.evaluation: .* 0\.25 and tasks\.test_fraction: 0\.25 fit",
        ),
        (
            9,
            {"ways": 4, "evaluation": {"ways": 2}, "validation_fraction": 0.5},
            r"train split .* 0\.2 and .*: 0\.2 fit",
        ),
    ],
)
def test_too_few_classes_name_the_fewest_and_fractions_that_fit(
    classes: int, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        opened(table(tmp_path / "t.csv", {f"c{number}": 3 for number in range(classes)}), **fields)


@pytest.mark.parametrize("total", [3, 7, 10, 64, 100, 365, 1623])
def test_the_fractions_named_give_every_split_enough(total: int) -> None:
    names = [str(number) for number in range(total)]
    for needed in range(1, total // 3 + 1, max(1, total // 7)):
        wanted = {"train": total - 2 * needed, "validation": needed, "test": needed}
        present = {split: len(classes) for split, classes in split_classes(names, 0.1, 0.1).items()}
        found = fractions_for(present, wanted)
        splits = split_classes(names, found["validation"], found["test"])
        assert all(len(splits[split]) >= wanted[split] for split in wanted), (needed, found)
