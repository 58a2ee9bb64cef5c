"""The user's own division of classes: lists, files of lists, and folders of splits."""

import json
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

NAMES = [f"class{number}" for number in range(8)]
LISTS = {"train": ["class1", "class6", "class3"], "validation": ["class0", "class7"], "test": ["class2", "class4"]}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for label, name in enumerate(NAMES):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((8, 8), 20 * label + number, dtype=np.uint8)).save(folder / name / f"{number}.png")
    return folder


def opened(folder: Path, **fields: Any) -> Any:
    tasks = {"source": "folder", "path": str(folder), "ways": 2, "shots": 1, "queries": 2, "size": 8, **fields}
    return open_source(tasks, seed=0, cache=folder.parent / "cache")


def sorted_lists(lists: dict[str, list[str]]) -> dict[str, list[str]]:
    return {split: sorted(names) for split, names in lists.items()}


def test_lists_say_which_classes_a_split_has(pictures: Path) -> None:
    source = opened(pictures, split=LISTS)
    assert source.table.splits == sorted_lists(LISTS)
    for split, names in LISTS.items():
        for index in range(5):
            sample = source.episode(split, index)
            for way, class_id in enumerate(sample.class_ids):
                assert source.table.names[class_id] in names
                label = int(source.table.names[class_id].removeprefix("class"))
                values = (sample.episode.query_x[sample.episode.query_y == way] * 255).round()
                assert ((values >= 20 * label) & (values < 20 * label + 3)).all()


def test_what_no_list_has_is_left_out_and_told(pictures: Path) -> None:
    assert opened(pictures, split=LISTS).notes == (
        "1 of 8 classes left out, since tasks.split does not list them: class5",
    )


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"train": LISTS["train"], "val": LISTS["validation"], "test": LISTS["test"]}),
        "class,split\n" + "".join(f"{name},{split}\n" for split, names in LISTS.items() for name in names),
        "\ufefflabel, Split\r\n" + "".join(f"{n}, {s.upper()}\r\n" for s, names in LISTS.items() for n in names),
        "train,val,test\nclass1,class0,class2\nclass6,class7,class4\nclass3,,\n",
    ],
)
def test_a_file_holds_the_lists(text: str, pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / ("split.json" if text[0] == "{" else "split.csv")
    path.write_text(text, encoding="utf-8")
    assert opened(pictures, split=str(path)).table.splits == sorted_lists(LISTS)


def test_another_file_of_lists_is_other_data(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(LISTS))
    before = opened(pictures, split=str(path)).digest
    path.write_text(json.dumps({**LISTS, "test": ["class2", "class5"]}))
    assert len({before, opened(pictures, split=str(path)).digest, opened(pictures).digest}) == 3


@pytest.mark.parametrize("validation", ["val", "validation", "Valid"])
def test_folders_of_splits(validation: str, pictures: Path, tmp_path: Path) -> None:
    for split, names in LISTS.items():
        for name in names:
            new = tmp_path / "data" / (validation if split == "validation" else split) / name
            new.parent.mkdir(parents=True, exist_ok=True)
            (pictures / name).rename(new)
    source = opened(tmp_path / "data")
    assert source.table.splits == sorted_lists(LISTS)
    label = int(source.table.names[source.episode("test", 0).class_ids[0]].removeprefix("class"))
    assert (source.episode("test", 0).episode.support_x[0] * 255).round().max() in range(20 * label, 20 * label + 3)
    with pytest.raises(DataError, match=r"tasks\.split: the folders of .*data are the splits; remove it"):
        opened(tmp_path / "data", split=LISTS)


def moved(pictures: Path, places: dict[str, str]) -> Path:
    for name, place in places.items():
        (pictures / place).mkdir(exist_ok=True)
        (pictures / name).rename(pictures / place / name)
    return pictures


def test_folders_of_some_splits_are_refused(pictures: Path) -> None:
    folder = moved(pictures, {name: "test" if name < "class4" else "train" for name in NAMES})
    with pytest.raises(DataError, match=r"tasks\.path: .* folders of splits \(test, train\), and has none for valid"):
        opened(folder)


def test_class_folders_beside_folders_of_splits_are_refused(pictures: Path) -> None:
    folder = moved(pictures, {"class0": "test", "class1": "train", "class2": "val"})
    with pytest.raises(DataError, match=r"\(test, train, val\), and has others beside them \(class3, class4, .*\)"):
        opened(folder)


def test_a_class_in_two_folders_of_splits_is_refused(pictures: Path) -> None:
    folder = moved(pictures, {name: ("test", "train", "val")[number % 3] for number, name in enumerate(NAMES)})
    (folder / "test" / "class1").mkdir()
    (folder / "train" / "class1" / "0.png").rename(folder / "test" / "class1" / "0.png")
    with pytest.raises(DataError, match=r"1 classes are in folders of two splits \(class1\)"):
        opened(folder)


def test_a_class_may_be_called_train(pictures: Path) -> None:
    (pictures / "class0").rename(pictures / "train")
    assert "train" in opened(pictures).table.names


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({**LISTS, "tset": []}, r"tasks\.split: no split is named 'tset'; did you mean 'test'\?"),
        ({"train": ["class1"], "val": ["class2"]}, r"tasks\.split: no class is listed for test"),
        ({**LISTS, "test": []}, r"tasks\.split: no class is listed for test"),
        ({**LISTS, "val": ["class5"]}, r"tasks\.split: validation is given twice, once as 'val'"),
        ({**LISTS, "test": "class2"}, r"tasks\.split: test must be a list of classes"),
        ({**LISTS, "test": ["class2", "class1"]}, r"tasks\.split: class 'class1' stands in train and in test"),
        ({**LISTS, "test": ["class2", "class2"]}, r"tasks\.split: class 'class2' stands twice in test"),
        ({**LISTS, "test": ["class2", "clas4"]}, r"no example of class 'clas4'; did you mean 'class4'\? \(its 8 cl"),
        ("absent.json", r"tasks\.split: there is no file absent\.json; give a JSON file"),
        ("split.yaml", r"tasks\.split: 'split\.yaml' ends in neither \.json nor \.csv"),
    ],
)
def test_wrong_lists_are_refused(split: Any, message: str, pictures: Path) -> None:
    with pytest.raises(DataError, match=message):
        opened(pictures, split=split)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.json", b"{", "not readable as JSON"),
        ("s.json", b"[1]", "got list; give the classes of train, validation and test"),
        ("s.json", b"[" * 100_000, "not readable as JSON"),
        ("s.csv", b"", "its columns are none; give"),
        ("s.csv", b"class,part\na,train\n", "its columns are class, part; give"),
        ("s.csv", b"class,split\na\n", "line 2 has 1 cells, and the head 2"),
        ("s.csv", b"class,split\n\xe4,train\n", "not readable as CSV"),
        ("s.csv", b"class,split\nclass1,training set\n", "no split is named 'training set'"),
    ],
)
def test_a_wrong_file_of_lists_is_refused(
    name: str, content: bytes, message: str, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"tasks\.split: .*{name}: {message}"):
        opened(pictures, split=str(tmp_path / name))


def test_lists_and_fractions_together_are_refused(pictures: Path) -> None:
    document = {"tasks": {"source": "folder", "path": str(pictures), "split": LISTS, "test_fraction": 0.5}}
    with pytest.raises(ExperimentError, match=r"tasks\.test_fraction: tasks\.split says which classes are held out"):
        load_experiment({**document, "learner": "maml"})


def test_lists_are_part_of_the_meaning_of_an_experiment() -> None:
    tasks = {"source": "folder", "path": "x"}
    plain = load_experiment({"tasks": tasks, "learner": "maml"})
    unset = load_experiment({"tasks": {**tasks, "split": None}, "learner": "maml"})
    listed = load_experiment({"tasks": {**tasks, "split": LISTS}, "learner": "maml"})
    assert plain.fingerprint() == unset.fingerprint() != listed.fingerprint()
    # as it was before there was the setting, so that stored searches are resumed
    assert plain.fingerprint() == "8893375edf97e46671b541734925db4e19c18d69c9baf63778f3a6e9654be13c"


SPLIT_OF = {name: split for split, names in LISTS.items() for name in names}


def tabled(path: Path, columns: dict[str, Any] | None = None, **fields: Any) -> Any:
    """Open a table of four rows for each class that a list has."""
    labels = [name for name in sorted(SPLIT_OF) for _ in range(4)]
    rows = np.arange(len(labels), dtype=np.float64)
    given = {"label": labels, "a": rows, "b": rows[::-1] ** 2, **(columns or {})}
    pyarrow.csv.write_csv(pa.table(given), str(path))
    tasks = {"source": "table", "path": str(path), "label": "label", "ways": 2, "shots": 1, "queries": 2, **fields}
    return open_source(tasks, seed=0, cache=path.parent / "cache")


def test_a_column_of_a_table_says_the_split_of_a_row(tmp_path: Path) -> None:
    words = {"train": "Train", "validation": "val", "test": "TEST"}
    column = [words[SPLIT_OF[name]] for name in sorted(SPLIT_OF) for _ in range(4)]
    source = tabled(tmp_path / "t.csv", {"part": column}, split="part")
    assert source.table.splits == sorted_lists(LISTS)
    assert source.shape.features == ("a", "b")
    train = np.concatenate([source._x[start : start + 4] for start in source.table.starts[:3]])
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)  # standardized by the training rows of these splits
    np.testing.assert_allclose(train.std(0), 1, rtol=1e-6)


def test_lists_and_files_of_lists_divide_a_table_too(tmp_path: Path) -> None:
    fewer = {**LISTS, "train": ["class1", "class6"]}
    source = tabled(tmp_path / "t.csv", split=fewer)
    assert source.table.splits == sorted_lists(fewer)
    assert any(note.startswith("1 of 7 classes left out") and "class3" in note for note in source.notes)
    for lists in (LISTS, fewer):  # the second one under the same name: the file is read again
        (tmp_path / "lists.json").write_text(json.dumps(lists, indent=len(lists["train"])))
        assert tabled(tmp_path / "t.csv", split=str(tmp_path / "lists.json")).table.splits == sorted_lists(lists)


def test_a_column_divides_the_tasks_of_a_regression(tmp_path: Path) -> None:
    rows = [name for name in sorted(SPLIT_OF) for _ in range(4)]
    columns = {"label": np.arange(28.0), "task": rows, "part": [SPLIT_OF[name] for name in rows]}
    source = tabled(tmp_path / "t.csv", columns, kind="regression", task="task", split="part")
    assert source.table.splits == sorted_lists(LISTS)


@pytest.mark.parametrize(
    ("column", "split", "message"),
    [
        (lambda name: SPLIT_OF[name], "prat", r"tasks\.split: .*no column is named 'prat'; did you mean 'part'\?"),
        (lambda name: "trainn", "part", r"column 'part': no split is named 'trainn'; did you mean 'train'\?"),
        (lambda name: "train", "part", r"column 'part' has no row for validation and test"),
        (lambda name: SPLIT_OF[name], "label", r"tasks\.split: 'label' is the label or the task; name another column"),
    ],
)
def test_a_wrong_column_is_refused(column: Any, split: str, message: str, tmp_path: Path) -> None:
    cells = [column(name) for name in sorted(SPLIT_OF) for _ in range(4)]
    with pytest.raises(DataError, match=message):
        tabled(tmp_path / "t.csv", {"part": cells}, split=split)


def test_rows_of_a_class_in_two_splits_are_refused(tmp_path: Path) -> None:
    cells = ["train", "train", "train", "test"] * 7
    with pytest.raises(DataError, match=r"column 'part': rows of 'class0' are in train and in test; .* of their own"):
        tabled(tmp_path / "t.csv", {"part": cells}, split="part")
