"""What describes the classes of few-shot episodes: tables of classes, vectors, and names."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from metaloom.workers.data import DataError, open_source
from metaloom.workers.data.class_features import hashed
from metaloom.workers.data.given_objects import section_of

KINDS = [f"kind{number}" for number in range(10)]
WINGS = [float(number) for number in range(10)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of ten classes of four rows each."""
    lines = [f"{row * 0.5},{row % 7},kind{row % 10}" for row in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["a,b,kind", *lines]) + "\n")
    return tmp_path / "t.csv"


def classes(path: Path, **columns: Any) -> Path:
    held = {"name": KINDS[::-1], "wings": WINGS[::-1], "legs": [float(n % 3) for n in range(10)], **columns}
    pq.write_table(pa.table(held), path)
    return path


def opened(table: Path, described: Any, **settings: Any) -> Any:
    fields = {"source": "table", "path": str(table), "label": "kind", "ways": 2, "shots": 0, "queries": 3, **settings}
    return open_source({**fields, "class_features": described}, seed=0, cache=table.parent / "cache")


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_rows_stand_in_the_order_of_an_episodes_labels(table: Path, tmp_path: Path, split: str) -> None:
    given = {"path": str(classes(tmp_path / "c.parquet")), "class": "name", "columns": ["wings"], "standardize": False}
    source = opened(table, given)
    assert source.shape.class_features.inputs == (1,)
    assert source.shape.class_features.features == ("wings",)
    for index in range(5):
        sampled = source.episode(split, index)
        described = sampled.episode.support.class_features
        wings = [WINGS[KINDS.index(source.table.names[place])] for place in sampled.class_ids]
        assert described[:, 0].tolist() == wings
        assert len(sampled.episode.support_y) == 0 and len(sampled.episode.query_y) == 6


def test_numbers_are_standardized_by_the_classes_of_meta_train(table: Path, tmp_path: Path) -> None:
    source = opened(table, {"path": str(classes(tmp_path / "c.parquet")), "class": "name"})
    first, last = source.table.ends["train"]
    values = source._class_features.values
    assert values.shape == (10, 2) and last - first == 6
    np.testing.assert_allclose(values[first:last].mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(values[first:last].std(0), 1, atol=1e-6)
    assert abs(values[last:].mean(0)).max() > 0.05


def test_shots_may_be_there_too(table: Path, tmp_path: Path) -> None:
    source = opened(table, {"path": str(classes(tmp_path / "c.parquet")), "class": "name"}, shots=1)
    support = source.episode("train", 0).episode.support
    assert len(support.y) == 2 and support.class_features.shape == (2, 2)


def test_a_column_of_vectors_is_the_features(table: Path, tmp_path: Path) -> None:
    vectors = [[float(number), 1.0, 2.0] for number in range(10)][::-1]
    path = classes(tmp_path / "c.parquet", embedding=vectors)
    source = opened(table, {"path": str(path), "class": "name", "columns": ["embedding"], "standardize": False})
    sampled = source.episode("test", 1)
    expected = [[float(KINDS.index(source.table.names[place])), 1.0, 2.0] for place in sampled.class_ids]
    assert sampled.episode.support.class_features.tolist() == expected


def test_names_are_hashed_and_are_alike_where_they_share_pieces(table: Path) -> None:
    source = opened(table, {"names": "hashing", "width": 64})
    described = source.episode("train", 0).episode.support.class_features
    assert described.shape == (2, 64)
    np.testing.assert_allclose(described.square().sum(-1), 1, rtol=1e-5)
    cards, card, oven = hashed(["credit_cards", "credit card", "preheat oven"], 256)
    assert cards @ card > 0.6 > 0.3 > cards @ oven
    assert (hashed(["oil_change"], 64) == hashed(["oil change"], 64)).all()


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ({"path": "c.parquet"}, r"tasks\.class_features: class not given; give \{path: FILE, class: COLUMN\}"),
        ({"path": "none.csv", "class": "name"}, r"tasks\.class_features: there is no file .*none\.csv"),
        ({"path": "c.parquet", "class": "nam"}, r"class_features\.class: .*c\.parquet: .*'nam'; did you mean 'name'"),
        (
            {"path": "c.parquet", "class": "name", "columns": ["wing"]},
            r"\.columns: .*c\.parquet: .*did you mean 'wings'",
        ),
        ({"path": "c.parquet", "class": "name", "colums": ["wings"]}, r"'colums'; did you mean 'columns'"),
        ({"path": "few.parquet", "class": "name"}, r"column 'name' has no row for 1 of 10 classes \(kind3\)"),
        ({"path": "twice.parquet", "class": "name"}, r"class 'kind4' has 2 rows"),
        ({"path": "gap.parquet", "class": "name"}, r"missing.* row 2, column 'wings'.*missing: median fills"),
        (
            {"path": "c.parquet", "class": "name", "absent": 0},
            r"missing \(0 or empty\) in .*class 'kind9', column 'legs'.*missing: median fills it",
        ),
        ({"path": "c.parquet", "class": "name", "absent": "x"}, r"class_features\.absent: got the text 'x'"),
        ({"path": "c.parquet", "class": "name", "missing": "medan"}, r"class_features\.missing: .*'medan'"),
        ({"names": "hash"}, r"class_features\.names: .*'hash'.*hashing"),
        ({"names": "hashing", "width": 0}, r"class_features\.width: got 0; allowed: a whole number"),
        ({"names": "hashing", "path": "c.csv"}, r"class_features: .*'path'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(
    table: Path, tmp_path: Path, described: dict[str, Any], message: str
) -> None:
    classes(tmp_path / "c.parquet")
    classes(tmp_path / "few.parquet", name=[*KINDS[:3], "other", *KINDS[4:]])
    classes(tmp_path / "twice.parquet", name=[*KINDS[:3], "kind4", *KINDS[4:]])
    classes(tmp_path / "gap.parquet", wings=[0.0, 1.0, None, *WINGS[3:]])
    if "path" in described:
        described = {**described, "path": str(tmp_path / described["path"])}
    with pytest.raises(DataError, match=message):
        opened(table, described)


def test_a_marked_number_is_missing_and_filled_by_the_training_classes(table: Path, tmp_path: Path) -> None:
    path = classes(tmp_path / "c.parquet", wings=[-1.0, *WINGS[1:]])
    given = {"path": str(path), "class": "name", "columns": ["wings"], "absent": -1, "standardize": False}
    source = opened(table, {**given, "missing": "mean"})
    held = dict(zip(source.table.names, source._class_features.values[:, 0].tolist(), strict=True))
    known = [held[name] for name in source.table.splits["train"] if name != "kind9"]
    assert held["kind9"] == pytest.approx(np.mean(known))
    assert source.shape.class_features.columns[0]["fill"] == [pytest.approx(np.mean(known))]


def test_another_table_of_classes_is_other_data(table: Path, tmp_path: Path) -> None:
    first, other = classes(tmp_path / "c.parquet"), classes(tmp_path / "d.parquet", legs=[1.0, *WINGS[:9]])
    digests = {opened(table, {"path": str(path), "class": "name"}).digest for path in (first, first, other)}
    assert len(digests) == 2


def test_classes_are_described_in_the_numbers_of_training(table: Path, tmp_path: Path) -> None:
    path = classes(tmp_path / "c.parquet")
    trained = opened(table, {"path": str(path), "class": "name"})
    classes(path, wings=[10 * one for one in WINGS[::-1]])
    source = opened(table, {"path": str(path), "class": "name"})
    as_then = source.as_trained(trained.shape)
    wings = trained.shape.class_features.features.index("wings")
    mean, deviation = (getattr(trained.shape.class_features, name)[wings] for name in ("mean", "deviation"))
    sampled = as_then.episode("test", 0)
    expected = [(10 * KINDS.index(source.table.names[place]) - mean) / deviation for place in sampled.class_ids]
    np.testing.assert_allclose(sampled.episode.support.class_features[:, wings], expected, rtol=1e-5)
    assert source.as_trained(source.shape) is source


@pytest.mark.parametrize("shots", [0, [0, 3]])
def test_no_shots_need_something_that_describes_the_classes(table: Path, shots: Any) -> None:
    with pytest.raises(DataError, match=r"tasks\.shots: got .* shots; allowed: .* 0 where tasks\.class_features"):
        opened(table, None, shots=shots, evaluation={"shots": 1})


def test_targets_that_are_numbers_have_no_classes(table: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.class_features: they describe classes, and regression has none"):
        opened(table, {"names": "hashing"}, label="a", task="kind", kind="regression")


def test_glyphs_are_described_by_their_names(tmp_path: Path) -> None:
    source = open_source(
        {"source": "glyphs", "ways": 3, "shots": 0, "queries": 2, "class_features": {"names": "hashing"}},
        seed=0,
        cache=tmp_path,
    )
    assert source.episode("train", 0).episode.support.class_features.shape == (3, 512)


def test_turned_characters_have_the_features_of_the_character(tmp_path: Path) -> None:
    names = [f"{alphabet}/character{number:02}" for alphabet in ("Greek", "Armenian", "ULOG") for number in (1, 2)]
    ids = np.repeat(np.arange(6), 4)
    images = np.zeros((24, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "o.npz", images28=images, class_id=ids, class_names=np.array(names), evaluation=np.zeros(24))
    path = classes(tmp_path / "c.parquet", name=names, wings=WINGS[:6], legs=WINGS[:6])
    described = {"path": str(path), "class": "name", "columns": ["wings"], "standardize": False}
    source = open_source(
        {"source": "omniglot", "path": str(tmp_path / "o.npz"), "ways": 8, "shots": 0, "queries": 2}
        | {"class_features": described},
        seed=0,
        cache=tmp_path / "cache",
    )
    sampled = source.episode("train", 0)
    held = [source.table.names[place].split("°")[0].removesuffix(" 90").removesuffix(" 180").removesuffix(" 270")
            for place in sampled.class_ids]  # fmt: skip
    assert sampled.episode.support.class_features[:, 0].tolist() == [WINGS[names.index(name)] for name in held]


def test_folders_of_images_are_described_by_a_table(tmp_path: Path) -> None:
    for name in KINDS:
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(tmp_path / "images" / name / f"{number}.png")
    path = classes(tmp_path / "c.parquet")
    source = open_source(
        {"source": "folder", "path": str(tmp_path / "images"), "size": 8, "ways": 2, "shots": 0, "queries": 2}
        | {"class_features": {"path": str(path), "class": "name", "columns": ["wings"], "standardize": False}},
        seed=0,
        cache=tmp_path / "cache",
    )
    sampled = source.episode("test", 4)
    wings = [WINGS[KINDS.index(source.table.names[place])] for place in sampled.class_ids]
    assert sampled.episode.support.class_features[:, 0].tolist() == wings
    assert sampled.episode.query_x.shape == (4, 1, 8, 8)


def test_arrays_and_a_data_frame_of_classes_are_given_from_python(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"name": KINDS, "wings": WINGS})
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.array(KINDS * 4)
    described = {"data": frame, "class": "name", "standardize": False}
    section = section_of({"x": x, "y": y, "shots": 0, "ways": 2, "queries": 2, "class_features": described}, tmp_path)
    source = open_source(section, seed=0, cache=tmp_path)
    sampled = source.episode("train", 0)
    wings = [WINGS[KINDS.index(source.table.names[place])] for place in sampled.class_ids]
    assert sampled.episode.support.class_features[:, 0].tolist() == wings
