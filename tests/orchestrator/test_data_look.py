"""``metaloom data`` shows what is in a user's data, and how an experiment would read them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from metaloom.dashboards.data_rows import DataRow
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.command_line.data_look import look, yaml_line
from metaloom.search_spaces.reading.document import read_yaml
from metaloom.workers.data import open_source
from tests.support.texts import rows, write_csv

HEAD = "id;species;width;site;taken;note;bad"


def flowers(path: Path, *, classes: int = 12, each: int = 6) -> Path:
    rows = [HEAD]
    for row in range(classes * each):
        width = "" if row == 4 else f"{row % 7},5"
        site, bad = ["north", "south"][row % 2], "oops" if row == 9 else f"{row % 3},5"
        species = f"s{row // each}" if row != 11 else ""
        rows.append(f"{1000 + row};{species};{width};{site};2024-01-{1 + row % 28:02};text {row};{bad}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-16")
    return path


def test_each_column_is_shown_with_its_type_and_use(tmp_path: Path) -> None:
    found = look(flowers(tmp_path / "t.csv"), label="species")
    assert (found.kind, found.examples) == ("table", 72)
    assert found.form == {"separator": ";", "decimal": ",", "encoding": "utf-16-le"}
    shown = {one.name: (one.type, one.distinct, one.missing, one.use) for one in found.columns}
    assert shown == {
        "id": ("whole number", 72, 0, "left out"),
        "species": ("text of 12 values", 13, 1, "label"),
        "width": ("number", 7, 1, "feature"),
        "site": ("text of 2 values", 2, 0, "left out"),
        "taken": ("date", 28, 0, "left out"),
        "note": ("text of 72 values", 72, 0, "left out"),
        "bad": ("number", 4, 1, "feature"),
    }
    by_name = {one.name: one for one in found.columns}
    assert by_name["id"].examples == ("1000", "1001", "1002")
    assert "tasks.features takes them" in str(by_name["id"].why) and "one_hot" in str(by_name["site"].why)
    assert [(one.name, one.examples) for one in found.classes][:3] == [("s0", 6), ("s1", 5), ("s10", 6)]


def test_a_table_of_sentences_is_read_by_the_source_of_texts(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "s.csv", [("", "food"), *rows(each=6)], ("sentence", "intent"))
    found = look(path, label="intent")
    assert {one.name: one.use for one in found.columns} == {"sentence": "text", "intent": "label"}
    wanted = {"source": "text", "path": str(path), "label": "intent", "text": "sentence", "on_error": "skip"}
    assert found.tasks is not None and wanted.items() <= found.tasks.items()
    source = open_source(found.tasks, seed=0, cache=tmp_path / "cache")
    assert source.episode("train", 0).episode.support_x.shape[1] == 24


def test_the_tasks_that_it_names_can_be_opened(tmp_path: Path) -> None:
    found = look(flowers(tmp_path / "t.csv"), label="species")
    wanted = {"ways": 2, "shots": 1, "queries": 3, "missing": "median", "on_error": "skip"}
    assert found.tasks == {"source": "table", "path": str(tmp_path / "t.csv"), "label": "species", **wanted}
    source = open_source(found.tasks, seed=0, cache=tmp_path / "cache")
    used = [one.name for one in found.columns if one.use == "feature"]
    assert list(source.shape.features) == used
    line = read_yaml(yaml_line(found.tasks), "t.yaml")
    assert line.data == {"tasks": found.tasks}  # a line of an experiment file


@pytest.mark.parametrize(
    ("label", "values", "fields"),
    [
        ("label", lambda row: row % 3, {"episodes": "single_task"}),
        ("label", lambda row: f"{row}.25", {"kind": "regression", "episodes": "single_task"}),
    ],
)
def test_few_classes_and_targets_are_a_single_task(label: str, values: Any, fields: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"{label},a\n" + "".join(f"{values(row)},{row % 5}.5\n" for row in range(60)))
    found = look(path)
    assert found.tasks == {"source": "table", "path": str(path), "label": label, **fields}
    assert open_source(found.tasks, seed=0, cache=tmp_path / "cache").shape.single_task


def test_labels_that_are_not_known_are_suggested(tmp_path: Path) -> None:
    found = look(flowers(tmp_path / "t.csv"))
    assert found.tasks is None and found.classes == ()
    assert found.notes[0].startswith("no column is called 'label': --label names it, such as 'site' (2 values)")


def pictures(folder: Path) -> Path:
    for label in range(10):
        (folder / f"c{label}").mkdir(parents=True)
        for number in range(4):
            pixels = np.full((8 + label % 2, 8, 3), 20 * label, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"c{label}" / f"{number}.png")
    (folder / "c0" / "phone.heic").write_bytes(b"")
    (folder / "c1" / "3.png").write_bytes(b"no image")
    return folder


def test_a_folder_is_shown_with_what_it_leaves_out(tmp_path: Path) -> None:
    found = look(pictures(tmp_path / "letters"))
    assert (found.kind, found.examples, len(found.classes)) == ("folder", 40, 10)
    assert found.form == {"endings": {".png": 40}, "sizes": {"8 x 8": 20, "8 x 9": 19}, "modes": {"RGB": 39}}
    assert found.notes[0].startswith("1 file left out: 1 .heic") and "1 of the sampled images" in found.notes[1]
    assert found.tasks is not None and found.tasks["color"] and found.tasks["queries"] == 3
    (tmp_path / "letters" / "c1" / "3.png").unlink()
    again = look(tmp_path / "letters").tasks
    assert again is not None and open_source(again, seed=0, cache=tmp_path / "cache").shape.inputs[0] == 3


def test_folders_of_splits_are_counted(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        pictures(tmp_path / "letters" / split)
    found = look(tmp_path / "letters")
    assert "folders of splits: 10 classes in train, 10 classes in validation, 10 classes in test" in found.notes
    assert len(found.classes) == 30 and found.tasks is not None and found.tasks["ways"] == 5


def test_the_command_prints_it_and_the_same_as_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = flowers(tmp_path / "t.csv")
    assert cli.run(["data", str(path), "--label", "species"]) == 0
    shown = capfd.readouterr().out
    assert "72 rows (separator ';'; decimal ','; encoding 'utf-16-le')" in shown
    assert "12 classes of 5 to 6 rows: s0 (6)" in shown and "tasks: {source: table," in shown
    assert cli.run(["data", str(path), "--label", "species", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert set(document) == set(DataRow.__dataclass_fields__) - {"sets"}
    assert document["columns"][0]["why"].startswith("number the rows")


@pytest.mark.parametrize(
    ("name", "fields", "told"),
    [
        ("absent", {}, "there is no file and no folder"),
        ("t.csv", {"label": "specie"}, "--label: no column is named 'specie'; did you mean 'species'?"),
        ("t.csv", {"separator": "ab"}, "--separator: got the text 'ab'; allowed: one character, or tab"),
        ("t.csv", {"encoding": "latin9000"}, "--encoding: got the text 'latin9000'"),
        ("t.xlsx", {}, "no table format ends in '.xlsx'"),
        ("empty", {}, "has no class folders"),
        ("none.csv", {}, "the table has no row"),
    ],
)
def test_what_cannot_be_looked_at_is_named(name: str, fields: dict[str, str], told: str, tmp_path: Path) -> None:
    flowers(tmp_path / "t.csv")
    (tmp_path / "t.xlsx").write_bytes(b"")
    (tmp_path / "none.csv").write_text("a,b\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput) as error:
        look(tmp_path / name, **fields)
    assert told in str(error.value)


MANY = """\
tasks:
  source: many
  sources: [{source: signals, set: [chirps-0, walks-0]}, {source: signals, length: 32, classes: 4}]
  weights: [1, 3]
  test: {source: signals, set: pulses-0}
learner: prototypical
"""


def test_the_data_sets_of_an_experiment_are_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "many.yaml"
    path.write_text(MANY.replace("classes: 4", "classes: 7"))
    assert cli.run(["data", str(path), "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    rows = {row["name"]: row for row in document["sets"]}
    assert {name: row["share"] for name, row in rows.items()} == {
        "signals:chirps-0": 0.125,
        "signals:walks-0": 0.125,
        "signals:harmonics-0": 0.75,
        "signals:pulses-0": None,
    }
    assert rows["signals:harmonics-0"]["splits"] == ["train", "validation"] and rows["signals:pulses-0"]["splits"] == [
        "test"
    ]
    assert (
        rows["signals:harmonics-0"]["classes"],
        rows["signals:harmonics-0"]["examples"],
        rows["signals:harmonics-0"]["inputs"],
    ) == (7, 140, [1, 32])
    assert document["examples"] == 500 and any("padded to length 48" in note for note in document["notes"])
    assert cli.run(["data", str(path)]) == 0
    assert "share of training" in capfd.readouterr().out
    path.write_text(MANY)
    assert cli.run(["data", str(path)]) == 2
    assert "tasks.sources[1].ways: 2 ways need as many classes" in capfd.readouterr().err


def test_an_experiment_of_one_source_has_one_data_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("tasks: sinusoid\nlearner: maml\n")
    assert cli.run(["data", str(path)]) == 0
    assert "without end" in capfd.readouterr().out


def test_the_data_sets_of_every_stage_are_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "stages.yaml"
    maml = "learner: {method: maml, architecture: conv1d"
    path.write_text(
        f"stages:\n- {{name: first, tasks: {{source: signals, set: chirps-0}}, {maml}}}}}\n"
        f"- {{name: then, tasks: {{source: signals, set: walks-0}}, {maml}, initialization: {{from: first}}}}}}\n"
    )
    assert cli.run(["data", str(path), "--json"]) == 0
    sets = json.loads(capfd.readouterr().out)["sets"]
    assert [one["name"] for one in sets] == ["stage first: signals", "stage then: signals"]
    path.write_text(path.read_text().replace("chirps-0", "chirps-0, classes: 2"))
    assert cli.run(["data", str(path)]) == 2
    assert "stage first: tasks.validation_fraction" in capfd.readouterr().err


def test_the_data_sets_of_a_preset_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["data", "sinusoid-maml"]) == 0
    assert "sinusoid-maml: data sets" in capfd.readouterr().out
    assert cli.run(["data", "sinusoid-mam"]) == 2
    told = capfd.readouterr().err
    assert "no file and no folder sinusoid-mam, and no preset" in told and "did you mean 'sinusoid-maml'" in told
    (tmp_path / "sinusoid-maml").mkdir()  # what is there comes first
    assert cli.run(["data", "sinusoid-maml"]) == 2
    assert "has no class folders" in capfd.readouterr().err
