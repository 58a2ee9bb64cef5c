"""Classes of an episode drawn within one group: alphabets, parent folders, the values of a column."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from PIL import Image

from metaloom.search_spaces.errors import ExperimentError
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.data import DataError, open_source

KINDS = {f"kind{kind}": [f"c{kind}{place}" for place in range(3 + kind % 2)] for kind in range(9)}  # 3 or 4 classes


def tabled(folder: Path, kinds: dict[str, list[str]] = KINDS, **fields: Any) -> Any:
    rows = [(kind, name) for kind, names in kinds.items() for name in names for _ in range(3)]
    squares = np.arange(len(rows)) ** 2.0
    columns = {
        "kind": [kind for kind, _ in rows],
        "label": [name for _, name in rows],
        "a": squares,
    }
    pyarrow.csv.write_csv(pa.table(columns), str(folder / "t.csv"))
    tasks = {"source": "table", "path": str(folder / "t.csv"), "label": "label", "ways": 3, "queries": 2, **fields}
    return open_source({"within": "kind", **tasks}, seed=0, cache=folder / "cache")


def groups_drawn(source: Any, split: str, episodes: int = 60) -> set[str]:
    """Return the groups that episodes are drawn from; each episode must be from one."""
    drawn = set()
    for index in range(episodes):
        groups = {source.table.groups[place] for place in source.episode(split, index).class_ids}
        assert len(groups) == 1
        drawn |= groups
    return drawn


def test_classes_are_drawn_within_the_values_of_a_column(tmp_path: Path) -> None:
    source = tabled(tmp_path)
    assert source.shape.features == ("a",)
    found = [groups_drawn(source, split) for split in ("train", "validation", "test")]
    assert set.union(*found) == set(KINDS) and sum(map(len, found)) == 9  # every group, each in one split
    assert [len(groups) for groups in found] == [5, 2, 2]
    for split in ("train", "test"):
        drawn = {place for index in range(60) for place in source.episode(split, index).class_ids}
        assert drawn == set(range(*source.table.ends[split]))


def test_without_groups_nothing_changes(tmp_path: Path) -> None:
    plain = tabled(tmp_path, within=None, features=["a"])
    assert len({plain.table.names[place][1] for place in plain.episode("train", 0).class_ids}) > 1
    assert not plain.table.groups


def test_a_group_with_too_few_classes_is_refused_or_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.within: 4 ways .* '(kind\d)' \(train split of table\) has 3 \(5 such"):
        tabled(tmp_path, ways=4)
    kinds = {**KINDS, "kind0": ["c00"]}
    source = tabled(tmp_path, kinds, on_too_few="leave_out")
    assert "kind0" not in source.table.groups and len(set(source.table.groups)) == 8
    assert source.notes[0].startswith("1 groups of classes left out, with fewer classes than an episode draws of one")
    with pytest.raises(DataError, match=r"split of table has 0"):
        tabled(tmp_path, ways=9, on_too_few="leave_out")


def test_a_class_in_two_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.within: .* rows of class 'c00' are in 'kind0' and in 'kind1'"):
        tabled(tmp_path, {**KINDS, "kind1": ["c00", *KINDS["kind1"]]})


def test_regression_has_no_groups(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tasks\.within: .* regression has none"):
        tabled(tmp_path, kind="regression", label="a", task="label")


def test_lists_may_cut_groups(tmp_path: Path) -> None:
    lists = {"train": KINDS["kind0"], "val": KINDS["kind1"][:3], "test": [KINDS["kind1"][3], *KINDS["kind2"]]}
    with pytest.raises(DataError, match=r"'kind1' \(test split of table\) has 1"):
        tabled(tmp_path, split=lists)
    source = tabled(tmp_path, split=lists, on_too_few="leave_out")
    assert groups_drawn(source, "validation") == {"kind1"} and groups_drawn(source, "test") == {"kind2"}


def pictures(folder: Path, kinds: dict[str, list[str]]) -> Path:
    for place, (kind, name) in enumerate((kind, name) for kind, names in kinds.items() for name in names):
        (folder / kind / name).mkdir(parents=True)
        for number in range(3):
            grey = np.full((8, 8), 5 * place + number, dtype=np.uint8)
            Image.fromarray(grey).save(folder / kind / name / f"{number}.png")
    return folder


def test_classes_are_drawn_within_their_parent_folder(tmp_path: Path) -> None:
    same = {kind: ["one", "two", "three"] for kind in KINDS}  # names that repeat from folder to folder
    tasks = {"source": "folder", "size": 8, "ways": 3, "queries": 2, "within": "parent_folder"}
    source: Any = open_source({**tasks, "path": str(pictures(tmp_path / "p", same))}, seed=0, cache=tmp_path / "cache")
    assert set(source.table.names) == {f"{kind}/{name}" for kind, names in same.items() for name in names}
    assert [len(groups_drawn(source, split)) for split in ("train", "validation", "test")] == [5, 2, 2]
    for split, kinds in (("train", ("kind0", "kind1")), ("val", ("kind2",)), ("test", ("kind3",))):
        pictures(tmp_path / "s" / split, {kind: KINDS[kind] for kind in kinds})
    source = open_source({**tasks, "path": str(tmp_path / "s")}, seed=0, cache=tmp_path / "cache")
    assert groups_drawn(source, "train") == {"kind0", "kind1"} and groups_drawn(source, "test") == {"kind3"}


def test_an_empty_class_folder_is_left_out_on_request(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", {"all": [f"c{number}" for number in range(9)]}) / "all"
    (folder / "empty").mkdir()
    tasks = {"source": "folder", "path": str(folder), "size": 8, "ways": 2, "queries": 2}
    with pytest.raises(DataError, match="empty"):
        open_source(tasks, seed=0, cache=tmp_path / "cache")
    source: Any = open_source({**tasks, "on_too_few": "leave_out"}, seed=0, cache=tmp_path / "cache")
    assert source.notes[0] == "1 of 10 classes left out, with fewer examples than an episode takes: 'empty' has 0"


@pytest.mark.parametrize("rotations", [False, True])
def test_omniglot_within_alphabets(rotations: bool, omniglot: Path, cache: Path) -> None:
    tasks = {"source": "omniglot", "path": str(omniglot), "split": "lake", "within": "alphabet", "rotations": rotations}
    source: Any = open_source({**tasks, "ways": 10, "queries": 1}, seed=0, cache=cache)
    assert len(groups_drawn(source, "test", 400)) == 20  # Lake's evaluation alphabets
    assert len(groups_drawn(source, "train", 400)) == 25 and len(groups_drawn(source, "validation", 200)) == 5


def test_another_word_is_refused_before_the_data_are_opened() -> None:
    for source, word in (("omniglot", "alphabets"), ("folder", "genus")):
        with pytest.raises(ExperimentError, match=rf"tasks\.within: no option is named '{word}'"):
            load_experiment({"tasks": {"source": source, "path": "x", "within": word}, "learner": "maml"})
