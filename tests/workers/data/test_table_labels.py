"""Labels keep what tells them apart, and what is missing does not depend on a guessed type."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.labels import as_known
from metaloom.workers.data.table_columns import CellRules, read_columns


def opened(path: Path, cache: Path, **fields: Any) -> Any:
    tasks = {"source": "table", "path": str(path), "label": "label", "ways": 2, "shots": 1, "queries": 1}
    return open_source({**tasks, **fields}, seed=0, cache=cache)


def csv_of(path: Path, labels: list[str], each: int = 2) -> Path:
    rows = [f"{label},{number}.5" for number, label in enumerate(label for label in labels for _ in range(each))]
    path.write_text("\n".join(["label,a", *rows]) + "\n")
    return path


def parquet_of(path: Path, labels: list[Any], kind: Any) -> Path:
    numbers = [0.5 * row for row in range(len(labels))]
    parquet.write_table(pa.table({"label": pa.array(labels, kind), "a": numbers}), path)
    return path


def test_labels_of_a_csv_stay_the_text_that_stands_there(tmp_path: Path) -> None:
    names = ["1", "01", "001", "2", "02", "002", "1.0", "1e0", "true", "2020-01-01", "NA", " 1"]
    source = opened(csv_of(tmp_path / "t.csv", names), tmp_path / "cache")
    assert sorted(source.table.names) == sorted(names)
    assert any("taken as classes of their own: 'NA' (2 rows)" in note for note in source.notes)


@pytest.mark.parametrize("blank", ["", "  ", '""'])
def test_an_empty_label_is_missing_in_a_column_of_text_too(blank: str, tmp_path: Path) -> None:
    path = csv_of(tmp_path / "t.csv", [*"abcdefghij", blank])
    with pytest.raises(DataError, match="row 20, column 'label'"):
        opened(path, tmp_path / "cache")
    source = opened(path, tmp_path / "cache", on_error="skip")
    assert sorted(source.table.names) == list("abcdefghij") and "row 20, column 'label'" in source.notes[0]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.dictionary(pa.int8(), pa.int64())])
def test_whole_numbers_stay_whole_beside_a_missing_one(kind: Any, tmp_path: Path) -> None:
    for name, first in (("small", 0), ("big", 2**53)):
        labels = [first + row // 4 for row in range(96)]
        path = parquet_of(tmp_path / f"{name}.parquet", [*labels, None], kind)
        source = opened(path, tmp_path / "cache", on_error="skip")
        assert sorted(map(int, source.table.names)) == sorted(set(labels))
        assert set(source.table.names) == set(map(str, labels))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
def test_an_empty_text_of_a_parquet_file_is_missing(kind: Any, tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "t.parquet", ["a", "", None, "b"], kind)
    with pytest.raises(DataError, match=r"row 1, column 'label' \(''\), row 2, column 'label'"):
        opened(path, tmp_path / "cache")


def test_a_table_without_any_label_says_so(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "t.parquet", [None] * 20, pa.string())
    with pytest.raises(DataError, match="no row is left: each has a value that is missing or no number, as in row 0"):
        opened(path, tmp_path / "cache", on_error="skip")


def test_views_of_text_are_labels(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "t.parquet", [f"c{row // 2}" for row in range(20)], pa.string_view())
    assert len(opened(path, tmp_path / "cache").table.names) == 10


def test_a_list_is_no_label(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "t.parquet", [[1], [2]], pa.list_(pa.int64()))
    with pytest.raises(DataError, match=r"tasks.label: .*column 'label' is list<.*>; a label is a text"):
        opened(path, tmp_path / "cache")


def test_targets_are_numbers_whatever_else_stands_in_their_column(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("label,a\n1,1\n2.5,2\noops,3\n4,4\n")
    with pytest.raises(DataError, match=r"row 2, column 'label' \('oops'\)"):
        read_columns(path, label="label", has_classes=False)
    read = read_columns(path, CellRules(unreadable="skip"), label="label", has_classes=False)
    assert read.label.tolist() == [1.0, 2.5, 4.0] and read.features[0].values.tolist() == [1.0, 2.0, 4.0]


def test_a_large_offset_does_not_cost_the_differences(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "label,t\n" + "".join(f"c{row // 4},{1_700_000_000 + 10 * (row // 4) + row % 2}\n" for row in range(40))
    )
    source = opened(path, tmp_path / "cache")
    assert len(np.unique(source._x)) == 20
    plain = opened(path, tmp_path / "cache", standardize=False)
    assert any("of 20 distinct values of 't' float32 keeps 2" in note for note in plain.notes)


def test_a_constant_feature_becomes_zero(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("label,a,b\n" + "".join(f"c{row // 4},0.1,{row}.5\n" for row in range(40)))
    source = opened(path, tmp_path / "cache")
    assert (source._x[:, 0] == 0).all()


def test_whole_numbers_that_float64_merges_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    labels = [f"c{row // 4}" for row in range(40)]
    table = pa.table({"label": labels, "id": [2**60 + row // 2 for row in range(40)], "a": [0.5] * 40})
    parquet.write_table(table, path)
    notes = opened(path, tmp_path / "cache", features=["id", "a"]).notes
    assert any("column 'id' has whole numbers beyond 2**53: of 20 distinct values float64 keeps 1" in n for n in notes)


def test_labels_of_two_files_are_compared_by_value() -> None:
    known = np.array(["1", "2", "03", "x"])
    assert as_known(["1.0", "2", "3.0", "x", "1e0", "4", "y"], known).tolist() == ["1", "2", "03", "x", "1", "4", "y"]
    assert as_known(np.array([1.0, 2.0]), np.array([1, 2])).tolist() == ["1", "2"]
    assert as_known(["1.0", "01", "1"], ["1", "01"]).tolist() == ["1.0", "01", "1"]  # 1.0 could be either
    big = 2**53
    assert as_known([f"{big + 1}"], [f"{big}", f"{big + 1}.0"]).tolist() == [f"{big + 1}.0"]
