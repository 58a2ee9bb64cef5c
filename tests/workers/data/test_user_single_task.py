"""The user's own labelled data set as one task: how it is divided, scaled and refused."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.experiment import Experiment
from metaloom.search_spaces.sections.tasks import UserTaskSettings
from metaloom.testing import TaskSourceContract
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.user_single_task import PARTS, UserTask, divide_examples

ROWS = 120
KINDS = [("a", "b", "b", "c")[row % 4] for row in range(ROWS)]


def write(path: Path, **columns: Any) -> Path:
    generator = np.random.default_rng(0)
    kind = np.array(["abc".index(one) for one in KINDS])
    table: dict[str, Any] = {
        "width": generator.normal(size=ROWS) + 3.0 * kind,
        "height": 1e6 + generator.normal(size=ROWS),
        "kind": KINDS,
        "note": ["text"] * ROWS,
    }
    csv.write_csv(pa.table({**table, **columns}), path)
    return path


def opened(path: Path, cache: Path, seed: int = 0, **fields: Any) -> UserTask:
    tasks = {"source": "table", "path": str(path), "label": "kind", "episodes": "single_task", **fields}
    source = open_source(tasks, seed=seed, cache=cache)
    assert isinstance(source, UserTask)
    return source


class TestSingleTasks(TaskSourceContract):
    @pytest.fixture(autouse=True)
    def table(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.getbasetemp() / "contract.csv"
        if not path.exists():
            write(path)
        self.rows["table"]["path"] = str(path)

    rows: dict[str, dict[str, Any]] = {"table": {"path": "", "label": "kind", "episodes": "single_task", "queries": 4}}


@pytest.mark.parametrize("seed", range(3))
def test_each_class_is_in_each_part_in_its_proportion(seed: int) -> None:
    strata = np.random.default_rng(seed).choice(4, 500, p=[0.1, 0.2, 0.3, 0.4])
    parts = divide_examples(strata, UserTaskSettings())
    assert {part: len(rows) for part, rows in parts.items()} == {
        "test": 100,
        "validation": 100,
        "meta": 50,
        "train": 250,
    }
    assert sorted(np.concatenate(list(parts.values()))) == list(range(500))
    for rows in parts.values():
        shares = np.bincount(strata[rows]) - np.bincount(strata) * len(rows) / 500
        assert np.abs(shares).max() <= 1


def test_a_class_of_one_example_is_trained_on() -> None:
    strata = np.array([0] * 50 + [1])
    assert 50 in divide_examples(strata, UserTaskSettings())["train"]


def test_no_seed_moves_an_example(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv")
    one, other = (opened(path, tmp_path / "cache", seed, label_noise=0.3) for seed in (0, 1))
    for part in PARTS:
        np.testing.assert_array_equal(one.parts[part], other.parts[part])
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one.noisy[one.parts["train"]].any() and not one.noisy[one.parts["meta"]].any()


def test_features_are_standardized_by_the_training_rows_in_float64(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "t.csv"), tmp_path / "cache")
    x, _ = source.examples(source.parts["train"])
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0, correction=0), 1, atol=0.05)  # the reader may have rounded 1e6 to float32
    everything, _ = source.examples(np.arange(ROWS))
    assert abs(float(everything[:, 0].mean())) > 1e-4
    assert source.shape.features == ("width", "height") and len(source.shape.mean) == 2
    assert source.shape.single_task and source.shape.outputs == source.shape.classes == 3
    assert sum(source.shape.counts) == len(source.parts["train"])


def test_a_column_says_which_part_a_row_belongs_to(tmp_path: Path) -> None:
    given = [("train", "Val", "test", "train", "train")[row % 5] for row in range(ROWS)]
    source = opened(write(tmp_path / "t.csv", part=given), tmp_path / "cache", split="part")
    assert source.parts["validation"].tolist() == [row for row in range(ROWS) if given[row] == "Val"]
    assert source.parts["test"].tolist() == [row for row in range(ROWS) if given[row] == "test"]
    free = [row for row in range(ROWS) if given[row] == "train"]
    assert sorted([*source.parts["train"], *source.parts["meta"]]) == free
    assert len(source.parts["meta"]) == round(0.1 * len(free))
    assert source.shape.features == ("width", "height")


@pytest.mark.parametrize(
    ("validation", "test", "queries"), [(36, 36, 9), (12, 12, 3), (2, 2, 1), (100, 100, 10), (10_000, 10_000, 100)]
)
def test_queries_divide_the_held_out_sets(validation: int, test: int, queries: int) -> None:
    parts = {"train": 500, "meta": 30, "validation": validation, "test": test}
    assert UserTaskSettings().sizes(parts) == {"batch": 100, "meta_batch": 30, "queries": queries}


def test_each_held_out_example_is_scored_once(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "t.csv"), tmp_path / "cache")
    for split in ("validation", "test"):
        count = source.available(split)
        assert count is not None and count > 1
        asked = [
            row for index in range(count) for row in source.episode(split, index).sample_ids[-source.sizes["queries"] :]
        ]
        assert sorted(asked) == sorted(source.parts[split])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "prt"}, "tasks.split: .*no column is named 'prt'"),
        ({"split": "note"}, r"tasks.split: .*column 'note': no part is named 'text'; did you mean 'test'\?"),
        ({"split": "kind"}, "tasks.split: 'kind' is the label"),
        ({"split": "note", "features": ["note"]}, "tasks.features: 'note' is the label or the split"),
        ({"batch": 100}, "tasks.batch: 100 samples asked for, but the train set of table has 60"),
        ({"meta_batch": 13}, "tasks.meta_batch: 13 samples asked for, but the meta set of table has 12"),
        ({"meta_fraction": 0.6}, "tasks.meta_fraction: .*nothing is left to train on"),
        ({"ways": 3}, "no setting of table is named 'ways'"),
    ],
)
def test_what_cannot_be_is_refused_with_its_setting(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        opened(write(tmp_path / "t.csv"), tmp_path / "cache", **fields)


def test_a_class_without_a_training_example_is_named(tmp_path: Path) -> None:
    given = ["test" if KINDS[row] == "c" else ("train", "validation")[row % 2] for row in range(ROWS)]
    with pytest.raises(DataError, match=r"tasks.label: the train set has no example of c"):
        opened(write(tmp_path / "t.csv", part=given), tmp_path / "cache", split="part")


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"source": "table", "episodes": "single_task", "ways": 3}, "tasks.ways: a setting of few_shot episodes"),
        ({"source": "table", "episodes": "single_task", "task": "kind"}, "tasks.task: a setting of few_shot episodes"),
        ({"source": "table", "meta_fraction": 0.2}, "tasks.meta_fraction: a setting of single_task episodes"),
        ({"source": "table", "episodes": "few_shot", "batch": 3}, "tasks.batch: a setting of single_task episodes"),
        ({"source": "table", "episodes": "singel_task"}, "'singel_task'; did you mean 'single_task'?"),
        ({"source": "table", "episodes": {"search": ["few_shot", "single_task"]}}, "tasks.episodes: "),
        ({"source": "glyphs", "episodes": "single_task"}, "glyphs makes no single_task episodes; .*table"),
    ],
)
def test_settings_of_other_episodes_are_refused(tasks: dict[str, Any], message: str) -> None:
    needed = {"path": "t.csv", "label": "kind"} if tasks["source"] == "table" else {}
    with pytest.raises(ExperimentError) as error:
        Experiment(tasks={**needed, **tasks}, learner="prototypical")
    (only,) = error.value.problems
    assert re.search(message, f"{'.'.join(map(str, only.path))}: {only.message}")


def test_few_shot_is_the_default_and_may_be_named() -> None:
    table = {"source": "table", "path": "t.csv", "label": "kind"}
    one, other = (
        Experiment(tasks={**table, **more}, learner="prototypical") for more in ({}, {"episodes": "few_shot"})
    )
    assert one.fingerprint() == other.fingerprint()
    digits = Experiment(tasks={"source": "digits", "episodes": "single_task"}, learner="prototypical")
    assert digits.fingerprint() == Experiment(tasks="digits", learner="prototypical").fingerprint()


def priced(path: Path, **columns: Any) -> Path:
    prices = [50_000.0 + 1_000.0 * (row % 7) for row in range(ROWS)]
    return write(path, **{"price": prices, **columns})


def test_targets_are_standardized_by_the_training_rows(tmp_path: Path) -> None:
    fields = {"label": "price", "kind": "regression", "features": ["width"]}
    source = opened(priced(tmp_path / "t.csv"), tmp_path / "cache", **fields)
    _, y = source.examples(source.parts["train"])
    assert (source.shape.kind, source.shape.outputs, source.shape.classes) == ("regression", 1, 0)
    assert source.shape.counts == (len(source.parts["train"]),)
    assert float(y.mean()) == pytest.approx(0, abs=1e-5) and float(y.std(correction=0)) == pytest.approx(1, rel=1e-5)
    _, everything = source.examples(np.arange(ROWS))
    back = everything.double() * source.shape.target_deviation[0] + source.shape.target_mean[0]
    assert back.ravel().tolist() == pytest.approx([50_000.0 + 1_000.0 * (row % 7) for row in range(ROWS)], rel=1e-6)
    plain = opened(tmp_path / "t.csv", tmp_path / "cache", standardize=False, **fields)
    assert plain.shape.target_mean == () and float(plain.examples(np.arange(3))[1][2]) == 52_000.0


def test_noise_gives_training_rows_the_targets_of_others(tmp_path: Path) -> None:
    numbers = [float(row) for row in range(ROWS)]
    fields = {"label": "price", "kind": "regression", "standardize": False, "label_noise": 0.5}
    source = opened(priced(tmp_path / "t.csv", price=numbers), tmp_path / "cache", **fields)
    train = source.parts["train"]
    assert 20 < source.noisy[train].sum() < 40 and source.noisy.sum() == source.noisy[train].sum()
    assert set(source.labels[train].ravel().tolist()) <= set(map(float, train))


@pytest.mark.parametrize(
    ("columns", "fields", "message"),
    [
        ({"price": [7.0] * ROWS}, {}, "tasks.label: 'price' is 7 in every training row: there is nothing to learn"),
        ({}, {"imbalance": 10.0}, "tasks.imbalance: regression has no classes of other sizes"),
        ({}, {"label": "note"}, "tasks.label: .*column 'note' is not a number"),
    ],
)
def test_a_regression_that_cannot_be_is_refused(
    columns: dict[str, Any], fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        opened(
            priced(tmp_path / "t.csv", **columns), tmp_path / "c", **{"label": "price", "kind": "regression", **fields}
        )
