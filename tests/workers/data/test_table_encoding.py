"""Missing values, categories, dates and vectors become numbers as scikit-learn's transformers make them."""

import json
import math
from dataclasses import asdict
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler, TargetEncoder

from metaloom.learners.episode import TaskShape
from metaloom.orchestrator.command_line.new_task import Reader
from metaloom.workers.bundle_reading import task_of
from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.table_encoding import FittedColumn, encoded, fit
from metaloom.workers.data.table_kinds import as_feature
from metaloom.workers.errors import BundleError
from metaloom.workers.input_form import InputForm

CLASSES, EACH = 10, 6
ROWS = CLASSES * EACH
LABELS = [f"kind{row // EACH}" for row in range(ROWS)]
SITES = [["north", "south", "east"][(row * row) % 3 if row % 7 else 2] for row in range(ROWS)]
NUMBERS = [None if row % 11 == 3 else 0.25 * row for row in range(ROWS)]


def table(path: Path, **columns: Any) -> Path:
    parquet.write_table(pa.table({"kind": LABELS, **columns}), path)
    return path


def opened(path: Path, cache: Path, **fields: Any) -> Any:
    tasks = {"source": "table", "path": str(path), "label": "kind", "queries": 1}
    tasks |= {} if "episodes" in fields else {"ways": 2, "shots": 1}
    return open_source({**tasks, **fields}, seed=0, cache=cache)


def rows_of(source: Any) -> tuple[Any, Any]:
    """Return the stored features in the file's order, and the rows of the training classes."""
    order = np.argsort(np.array(LABELS), kind="stable")
    x = np.empty_like(source._x)
    x[order] = source._x
    train = [row for row, label in enumerate(LABELS) if label in source.table.names[: source.shape.classes]]
    return x, train


@pytest.mark.parametrize("strategy", ["median", "mean", "constant", "indicator"])
def test_missing_values_are_filled_by_the_training_rows(strategy: str, tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", a=NUMBERS, b=[0.5 * (row % 7) for row in range(ROWS)])
    source = opened(path, tmp_path / "cache", missing=strategy, constant=-3.0)
    x, train = rows_of(source)
    cells = np.array([[math.nan if a is None else a, 0.5 * (row % 7)] for row, a in enumerate(NUMBERS)])
    imputer = SimpleImputer(
        strategy="median" if strategy == "indicator" else strategy,
        fill_value=-3.0 if strategy == "constant" else None,
        add_indicator=strategy == "indicator",
    ).fit(cells[train])
    filled = imputer.transform(cells)
    filled = filled[:, [0, 2, 1]] if strategy == "indicator" else filled  # ours stands beside its column
    np.testing.assert_allclose(x, StandardScaler().fit(filled[train]).transform(filled), atol=1e-6)
    assert source.shape.features == (("a", "a is missing", "b") if strategy == "indicator" else ("a", "b"))
    assert any("6 missing values filled by" in note and "'a'" in note for note in source.notes)


def test_missing_values_are_refused_or_skipped_as_before(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", a=NUMBERS)
    for fields in ({}, {"missing": "refuse", "on_error": "skip"}):
        with pytest.raises(DataError, match="row 3, column 'a', row 14, column 'a'"):
            opened(path, tmp_path / "cache", **fields)
    for fields in ({"on_error": "skip"}, {"missing": "skip"}):
        assert opened(path, tmp_path / "cache", **fields).table.counts.sum() == ROWS - 6


def test_filling_covers_neither_text_nor_infinities(tmp_path: Path) -> None:
    numbers = [str(value) for value in range(ROWS)]
    path = table(tmp_path / "t.parquet", a=[*numbers[:5], "oops", "", "NA", *numbers[8:]])
    with pytest.raises(DataError, match=r"in row 5, column 'a' \('oops'\) \(rows"):
        opened(path, tmp_path / "cache", missing="median")
    source = opened(path, tmp_path / "cache", missing="median", on_error="skip")
    assert source.table.counts.sum() == ROWS - 1 and any("2 missing values filled" in note for note in source.notes)


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()])
def test_categories_are_one_hot(kind: Any, tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", site=pa.array(SITES, kind))
    source = opened(path, tmp_path / "cache", categories="one_hot", standardize=False)
    x, train = rows_of(source)
    texts = np.array(SITES, dtype=object)[:, None]
    expected = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(texts[train]).transform(texts)
    np.testing.assert_array_equal(x, expected)
    assert source.shape.features == ("site=east", "site=north", "site=south")
    assert source.notes[-1] == "3 features: 'site' (text of 3 values, one-hot)"


def test_a_target_encoding_is_that_of_scikit_learn_and_does_not_see_its_own_row(tmp_path: Path) -> None:
    prices = [float(len(site) + row % 4) for row, site in enumerate(SITES)]
    path = table(tmp_path / "t.parquet", site=SITES, price=prices)
    fields = {"kind": "regression", "label": "price", "task": "kind", "categories": "target", "standardize": False}
    source = opened(path, tmp_path / "cache", **fields)
    order = np.argsort(np.array(LABELS), kind="stable")
    first, last = source.table.ends["train"]
    spans = zip(source.table.starts[first:last], source.table.counts[first:last], strict=True)
    train = np.concatenate([order[start : start + count] for start, count in spans])
    others = np.setdiff1d(np.arange(ROWS), train)
    texts = np.array(SITES, dtype=object)[:, None]
    encoder = TargetEncoder(target_type="continuous").fit(texts[train], np.array(prices)[train])
    x = np.empty(ROWS)
    x[order] = source._x[:, 0]
    np.testing.assert_allclose(x[others], encoder.transform(texts[others])[:, 0], rtol=1e-6)
    assert (np.abs(x[train] - encoder.transform(texts[train])[:, 0]) > 1e-6).any()
    same = [row for row in train if SITES[row] == "north"]
    assert len(set(np.round(x[same], 6))) > 1  # by the other folds


def test_a_target_encoding_of_classes_has_a_feature_for_each(tmp_path: Path) -> None:
    source = opened(table(tmp_path / "t.parquet", site=SITES), tmp_path / "cache", categories="target")
    assert source.shape.inputs == (6,) and source.shape.features[0] == f"site by {source.table.names[0]}"


def test_a_missing_text_is_a_category_of_its_own_where_it_is_filled(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", site=["" if row % 9 == 0 else site for row, site in enumerate(SITES)])
    with pytest.raises(DataError, match="row 0, column 'site'"):
        opened(path, tmp_path / "cache", categories="one_hot")
    source = opened(path, tmp_path / "cache", categories="one_hot", missing="median")
    assert source.shape.features[0] == "site=missing"


def test_texts_without_a_repetition_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("kind,a,id\n" + "".join(f"{row // 3},{row % 5},x{row}\n" for row in range(150)))
    notes = opened(path, tmp_path / "cache", categories="one_hot").notes
    assert notes[0].startswith("not used as features, since they hold more than 100 different texts: 'id'")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([date(1970, 1, 2)] * 3, 86400.0),
        ([datetime(1970, 1, 1, 0, 1)] * 3, 60.0),
        (pa.array([60] * 3, pa.timestamp("s", tz="Europe/Berlin")), 60.0),
        (pa.array([1500] * 3, pa.duration("ms")), 1.5),
        (pa.array([90] * 3, pa.time32("s")), 90.0),
    ],
)
def test_dates_and_times_are_seconds(values: Any, expected: float) -> None:
    feature = as_feature("t", pa.table({"t": values}).column("t"))
    assert feature.kind == "date" and feature.values.tolist() == [expected] * 3


def test_dates_of_a_csv_are_features_on_request(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    days = "".join(f"{label},2020-01-{1 + row % 28:02},{row % 5}\n" for row, label in enumerate(LABELS))
    path.write_text("kind,taken at,a\n" + days)
    assert opened(path, tmp_path / "cache").shape.features == ("a",)
    source = opened(path, tmp_path / "cache", dates="numbers")
    assert source.shape.features == ("taken at", "a")
    assert source.notes == ("2 features: 'taken at' (date, as seconds), 'a' (whole number)",)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3), pa.large_list(pa.int16())])
def test_lists_of_numbers_are_one_vector(kind: Any, tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", embedding=pa.array([[row, 2 * row, row % 5] for row in range(ROWS)], kind))
    source = opened(path, tmp_path / "cache", standardize=False)
    assert source.shape.features == ("embedding[0]", "embedding[1]", "embedding[2]")
    x, _ = rows_of(source)
    assert x.tolist() == [[row, 2 * row, row % 5] for row in range(ROWS)]
    assert source.notes == ("3 features: 'embedding' (3 numbers)",)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([[1.0], [1.0, 2.0]] * 30, "'x' hold lists of unequal length"),
        ([["a"]] * ROWS, "'x' hold lists of other things than numbers"),
        ([{"bytes": b"", "path": "a.png"}] * ROWS, "'x' hold images .* class folders for source: folder"),
        ([None] * ROWS, "'x' have no value in any row"),
    ],
)
def test_columns_that_are_no_features_are_named_with_the_way_out(values: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has no numeric column besides the label and the task: {why}"):
        opened(table(tmp_path / "t.parquet", x=values), tmp_path / "cache")


def test_a_new_table_gets_the_numbers_of_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    columns = {"a": NUMBERS, "site": SITES, "v": [[row, -row] for row in range(ROWS)]}
    columns["day"] = [date(2020, 1, 1 + row % 28) for row in range(ROWS)]
    path = table(tmp_path / "t.parquet", **columns)
    fields = {"categories": "one_hot", "dates": "numbers", "missing": "indicator", "label": "kind"}
    source = opened(path, tmp_path / "cache", **fields)
    task = task_of(json.loads(json.dumps(asdict(source.shape))))
    x, _ = rows_of(source)
    read = Reader(task, fields).support(path)
    scaled = (read.x - np.array(task.mean)) / np.array(task.deviation)
    np.testing.assert_array_equal(scaled.astype(np.float32), x)
    odd = table(tmp_path / "odd.parquet", **{**columns, "site": ["elsewhere"] * ROWS})
    places = [place for place, name in enumerate(task.features) if name.startswith("site=")]
    assert caplog.text == ""
    assert (Reader(task, fields).support(odd).x[:, places] == 0).all()
    assert "column 'site': training did not have 'elsewhere', taken as 0 in each feature" in caplog.text


def test_a_data_frame_gets_the_numbers_of_training_too(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", a=NUMBERS, code=["x7" if row % 3 else "8" for row in range(ROWS)])
    source = opened(path, tmp_path / "cache", categories="one_hot", missing="median")
    frame = parquet.read_table(path).to_pandas()
    x, _ = rows_of(source)
    read, _ = InputForm(source.shape).read(frame, "support_x")
    np.testing.assert_array_equal(read.numpy().astype(np.float32), x)
    eights, _ = InputForm(source.shape).read(frame.assign(a=None, code=8), "query_x")  # a number, and nothing at all
    place = frame["code"].tolist().index("8")
    np.testing.assert_allclose(eights[:, 1:].numpy(), np.repeat(x[place : place + 1, 1:], ROWS, axis=0), atol=1e-6)
    for odd, told in ((frame.drop(columns="a"), "no column is named 'a'"), (frame.assign(a="x"), "is a category")):
        with pytest.raises(BundleError, match=f"query_x: .*{told}"):
            InputForm(source.shape).read(odd, "query_x")


def test_an_empty_column_of_a_new_csv_is_filled(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", a=NUMBERS, code=["x" if row % 3 else "7" for row in range(ROWS)])
    source = opened(path, tmp_path / "cache", categories="one_hot", missing="median")
    query = tmp_path / "query.csv"
    query.write_text("code,a\n07,\n7,\n")
    read = Reader(source.shape, {"label": "kind"}).query(query)
    assert read.x[0, 0] == read.x[1, 0] and read.x[:, 1:].tolist() == [[0, 0], [1, 0]]  # 07 is not 7
    query.write_text("code,a\n7,x\n")
    with pytest.raises(DataError, match="'a'"):
        Reader(source.shape, {"label": "kind"}).query(query)


def test_a_target_encoding_would_see_the_labels_that_noise_hides(tmp_path: Path) -> None:
    path = table(tmp_path / "t.parquet", site=SITES)
    with pytest.raises(DataError, match=r"tasks.categories: target would read the labels that tasks.label_noise hides"):
        opened(path, tmp_path, episodes="single_task", categories="target", label_noise=0.2)


@pytest.mark.parametrize("document", [{}, {"column": "a"}, {"column": "a", "kind": "code", "names": []}, [], {"x": 1}])
def test_odd_columns_of_a_bundle_are_refused(document: Any) -> None:
    with pytest.raises(DataError, match="not what this metaloom can read"):
        FittedColumn.of(document)


def test_what_was_fitted_survives_json() -> None:
    texts = as_feature("site", pa.table({"site": ["x", "y", "z"]}).column("site"))
    fitted = FittedColumn(
        "site", "category", ("p", "q"), True, (), False, ("x", "y"), ((1.0, 2.0), (3.0, 4.0)), (5.0, 6.0)
    )
    assert FittedColumn.of(fitted.to_json()) == fitted
    assert encoded([fitted], [texts]).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert TaskShape("classification", (2,), 2).columns == ()


def test_a_target_encoding_of_few_rows_is_finite_or_refused() -> None:
    texts = as_feature("s", pa.table({"s": ["a", "b", "a", "c", "a"]}).column("s"))
    for labels in (np.array(list("xyzwv")), np.ones(5)):
        for rows in (5, 2):
            _, x = fit([texts], np.arange(rows), labels, missing="refuse", constant=0.0, by="target")
            assert np.isfinite(x).all()
        with pytest.raises(DataError, match=r"tasks.categories: target needs two training rows or more"):
            fit([texts], np.arange(1), labels, missing="refuse", constant=0.0, by="target")


def test_declared_categories_of_numbers_are_categories(tmp_path: Path) -> None:
    codes = pa.array([[7, 8, 11][row % 3] for row in range(ROWS)]).dictionary_encode()
    feather.write_feather(pa.table({"kind": LABELS, "code": codes, "a": [0.5] * ROWS}), tmp_path / "t.feather")
    assert opened(tmp_path / "t.feather", tmp_path / "cache").shape.features == ("a",)
    source = opened(tmp_path / "t.feather", tmp_path / "cache", categories="one_hot")
    assert source.shape.features == ("code=11", "code=7", "code=8", "a")


@pytest.mark.parametrize("episodes", ["few_shot", "single_task", "regression"])
def test_another_table_is_evaluated_in_the_numbers_of_training(episodes: str, tmp_path: Path) -> None:
    forms = {
        "few_shot": {},
        "single_task": {"episodes": "single_task"},
        "regression": {"kind": "regression", "label": "b", "task": "kind"},
    }
    fields = {"categories": "one_hot", "missing": "mean", **forms[episodes]}
    b = [0.5 * (row % 7) for row in range(ROWS)]
    trained = opened(table(tmp_path / "t.parquet", a=NUMBERS, b=b, site=SITES), tmp_path / "cache", **fields)
    columns = {"a": [None if one is None else 3 * one for one in NUMBERS], "b": [2 * one + 1 for one in b]}
    other = opened(table(tmp_path / "o.parquet", **columns, site=["west", *SITES[1:]]), tmp_path / "cache", **fields)
    assert other.shape.mean != trained.shape.mean
    again = other.as_trained(trained.shape)
    assert again.shape == trained.shape and trained.as_trained(trained.shape) is trained
    raw = other._x * np.array(other.shape.deviation)[: other._x.shape[1]] + np.array(other.shape.mean)
    place = other.shape.features.index("site=south")
    kept = trained.shape.features.index("site=south")
    x = again._x * np.array(trained.shape.deviation) + np.array(trained.shape.mean)
    np.testing.assert_allclose(x[:, kept], raw[:, place], atol=1e-6)
    filled = np.isclose(x[:, 0], trained.shape.columns[0]["fill"][0])
    assert filled.sum() == 6  # by training's mean, not by its own
    with pytest.raises(DataError, match=r"tasks.features: .*no column is named 'site'"):
        opened(table(tmp_path / "l.parquet", a=NUMBERS, b=b), tmp_path / "cache", **fields).as_trained(trained.shape)
