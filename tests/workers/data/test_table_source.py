"""The user's tables: CSV, Parquet and Arrow; classes or regression tasks."""

import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, feather, parquet

from metaloom.workers.data import DataError, open_source

CLASSES, EACH = 10, 6


def columns() -> dict[str, list[Any]]:
    labels = [f"kind{row % CLASSES}" for row in range(CLASSES * EACH)]
    return {
        "width": [10.0 * (row % CLASSES) + row // CLASSES for row in range(CLASSES * EACH)],
        "count": list(range(CLASSES * EACH)),
        "kind": labels,
        "note": ["free text"] * len(labels),
        "price": [0.5 * row for row in range(CLASSES * EACH)],
    }


def write(path: Path, **changes: Any) -> Path:
    table = pa.table({**columns(), **changes})
    if path.suffix == ".csv":
        csv.write_csv(table, path)
    elif path.suffix == ".parquet":
        parquet.write_table(table, path)
    elif path.suffix == ".feather":
        feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return path


def tasks(path: Path, **fields: Any) -> dict[str, Any]:
    return {"source": "table", "path": str(path), "label": "kind", "ways": 2, "shots": 2, "queries": 4, **fields}


@pytest.mark.parametrize("ending", ["csv", "parquet", "feather", "arrow"])
def test_every_format_gives_the_same_episodes(ending: str, tmp_path: Path) -> None:
    features = ["width", "count", "price"]
    source = open_source(tasks(write(tmp_path / f"t.{ending}"), features=features), seed=0, cache=tmp_path / "cache")
    reference = open_source(tasks(write(tmp_path / "r.parquet"), features=features), seed=0, cache=tmp_path / "cache")
    assert source.shape.inputs == (3,) and source.shape.classes == 6
    one, other = source.episode("train", 5), reference.episode("train", 5)
    assert one.sample_ids == other.sample_ids
    assert (one.episode.query_x == other.episode.query_x).all()


def test_rows_keep_their_class_and_their_values(tmp_path: Path) -> None:
    fields = tasks(write(tmp_path / "t.csv"), features=["width"], standardize=False)
    source = open_source(fields, seed=0, cache=tmp_path / "cache")
    sample = source.episode("test", 1)
    for way, class_id in enumerate(sample.class_ids):
        label = int(source.table.names[class_id].removeprefix("kind"))  # type: ignore[attr-defined]
        values = sample.episode.query_x[sample.episode.query_y == way].flatten()
        assert set(values.tolist()) <= {10.0 * label + number for number in range(EACH)}


def test_features_are_standardized_by_the_training_rows(tmp_path: Path) -> None:
    constant = {"count": [7] * (CLASSES * EACH)}
    fields = tasks(write(tmp_path / "t.csv", **constant), features=["width", "count"])
    source: Any = open_source(fields, seed=0, cache=tmp_path / "cache")
    train = np.concatenate([source._x[s : s + c] for s, c in zip(source.table.starts[:6], source.table.counts[:6])])  # noqa: B905
    np.testing.assert_allclose(train.mean(0), [0, 0], atol=1e-5)
    np.testing.assert_allclose(train.std(0), [1, 0], atol=1e-5)
    assert source.shape.features == ("width", "count") and source.shape.deviation[1] == 1.0
    restored = source._x[:, 0] * source.shape.deviation[0] + source.shape.mean[0]
    assert sorted(np.round(restored, 3)) == pytest.approx(sorted(columns()["width"]), abs=1e-2)


def test_regression_keeps_a_task_in_one_split(tmp_path: Path) -> None:
    fields = tasks(write(tmp_path / "t.parquet"), kind="regression", task="kind", label="price", features=["count"])
    source: Any = open_source({**fields, "standardize": False}, seed=0, cache=tmp_path / "cache")
    assert (source.shape.kind, source.shape.outputs, source.shape.classes) == ("regression", 1, 0)
    seen = {split: set() for split in ("train", "validation", "test")}  # type: ignore[var-annotated]
    for split, found in seen.items():
        for index in range(60):
            sample = source.episode(split, index)
            assert (sample.episode.query_y == 0.5 * sample.episode.query_x).all()
            rows = sample.episode.support_x.flatten().int().tolist() + sample.episode.query_x.flatten().int().tolist()
            assert len(set(rows)) == 6 and len({row % CLASSES for row in rows}) == 1
            found.add(rows[0] % CLASSES)
    assert [len(found) for found in seen.values()] == [6, 2, 2] and len(set().union(*seen.values())) == CLASSES


def spoil(name: str, row: int, value: Any) -> dict[str, Any]:
    values = list(columns()[name])
    values[row] = value
    return {name: values}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        (spoil("width", 17, math.nan), "row 17, column 'width'"),
        (spoil("width", 3, None), "row 3, column 'width'"),
        (spoil("width", 3, math.inf), "row 3, column 'width'"),
        (spoil("kind", 59, None), "row 59, column 'kind'"),
        ({**spoil("count", 2, None), **spoil("width", 1, math.nan)}, "row 1, column 'width', row 2, column 'count'"),
    ],
)
def test_missing_values_are_named_or_their_rows_skipped(changes: dict[str, Any], where: str, tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", **changes)
    with pytest.raises(DataError) as error:
        open_source(tasks(path), seed=0, cache=tmp_path / "cache")
    assert where in str(error.value) and str(path) in str(error.value)
    source: Any = open_source(tasks(path, on_error="skip", queries=2), seed=0, cache=tmp_path / "cache")
    assert where.split(",")[0] in source.notes[0]
    assert source.table.counts.sum() == CLASSES * EACH - len(changes)


def test_an_empty_cell_of_a_csv_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 4, column 'width'"):
        open_source(tasks(write(tmp_path / "t.csv", **spoil("width", 4, None))), seed=0, cache=tmp_path / "cache")


def test_one_cell_of_text_does_not_take_its_column_away(tmp_path: Path) -> None:
    widths = [str(value) for value in columns()["width"]]
    path = write(tmp_path / "t.csv", width=[*widths[:4], "oops", *widths[5:]])
    with pytest.raises(DataError, match=r"not a number or infinite in row 4, column 'width' \('oops'\)"):
        open_source(tasks(path), seed=0, cache=tmp_path / "cache")
    with pytest.raises(DataError, match="row 4, column 'width'"):
        open_source(tasks(path, features=["width"]), seed=0, cache=tmp_path / "cache")
    summary = open_source(tasks(path, on_error="skip", queries=2), seed=0, cache=tmp_path / "cache")
    assert "row 4, column 'width' ('oops')" in summary.notes[0]
    source = open_source(tasks(path, on_error="skip", queries=2), seed=0, cache=tmp_path / "cache")
    assert source.shape.features == ("width", "price")


def test_what_is_used_and_what_is_not_is_told(tmp_path: Path) -> None:
    changes = {
        "": range(100, 160),
        "lid": [True, False] * 30,
        "made": [date(2020, 1, 1 + row % 9) for row in range(60)],
    }
    notes = open_source(tasks(write(tmp_path / "t.parquet", **changes)), seed=0, cache=tmp_path / "cache").notes
    assert notes == (
        "not used as features, since they hold no numbers: 'note' (tasks.categories: one_hot or target takes text)",
        "not used as features, since they hold no numbers: 'made' (tasks.dates: numbers takes dates)",
        "not used as features, since they number the rows: '', 'count' (unnamed, or whole numbers of which no two are "
        "equal; tasks.features takes them)",
        "3 features: 'width' (number), 'price' (number), 'lid' (true or false)",
    )
    named = open_source(
        tasks(write(tmp_path / "t.parquet"), features=["width", "count"]), seed=0, cache=tmp_path / "cache"
    )
    assert named.notes == ("2 features: 'width' (number), 'count' (whole number)",)


def test_a_numbering_is_used_where_there_is_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("kind,t\n" + "".join(f"{row // 6},{row}\n" for row in range(60)))
    assert open_source(tasks(path), seed=0, cache=tmp_path / "cache").shape.features == ("t",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": "knid"}, "tasks.label: .*no column is named 'knid'; did you mean 'kind'?"),
        ({"features": ["widht"]}, "tasks.features: .*no column is named 'widht'; did you mean 'width'?"),
        ({"features": ["note"]}, "column 'note' is string, and a feature must be a number"),
        ({"features": ["kind"]}, "'kind' is the label or the task; it cannot be a feature too"),
        ({"kind": "regression", "label": "price"}, "tasks.task: a table for regression needs a column"),
        ({"kind": "regression", "task": "kidn", "label": "price"}, "tasks.task: .*no column is named 'kidn'"),
        ({"kind": "regression", "task": "kind", "label": "note"}, "tasks.label: .*'note' is not a number"),
        (
            {"kind": "regression", "task": "kind", "label": "price", "test_fraction": 0.0},
            "the test split of table has no task",
        ),
        ({"task": "note"}, "tasks.task: only regression has a task column"),
        ({"ways": 3}, "tasks.ways: 3 ways need as many classes, but the validation split of table has 2"),
        ({"queries": 5}, "2 shots and 5 queries need 7 samples of each class, but 'kind"),
    ],
)
def test_settings_that_do_not_fit_the_table_are_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_source(tasks(write(tmp_path / "t.parquet"), **fields), seed=0, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "there is no file"),
        ("t.xlsx", b"", "no table format ends in '.xlsx'"),
        ("t.parquet", b"PAR1 nonsense", "cannot be read as a table"),
        ("t.arrow", b"nonsense", "cannot be read as a table"),
        ("t.csv", b"", "cannot be read as a table"),
    ],
)
def test_files_that_are_no_tables_are_named(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_source(tasks(tmp_path / name), seed=0, cache=tmp_path / "cache")
