"""The source `ucr`: the archive's files, lengths and missing values beside the data, labels and splits as they are."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaloom.workers.data import DataError, Source, open_source
from metaloom.workers.data.series_files import read_series
from tests.support.series_archive import write_ts, write_waves

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "ucr_len300.npz"
REAL = Path(os.environ.get("METALOOM_UCR", str(SHARED)))


def opened(tmp_path: Path, **tasks: Any) -> Source:
    settings = {"source": "ucr", "path": str(tmp_path), **tasks}
    return open_source(settings, seed=5, cache=tmp_path.parent / f"{tmp_path.name}-cache")


def one_task(tmp_path: Path, name: str = "Set", **tasks: Any) -> Source:
    sizes = {"batch": 2, "meta_batch": 1, "queries": 1}
    return opened(tmp_path, set=name, episodes="single_task", **sizes, **tasks)


def labelled(source: Any, tested: bool) -> list[tuple[str, tuple[float, ...]]]:
    """Return label and values of each series of the archive's test set, or of its training set, sorted."""
    parts = ["test"] if tested else ["train", "meta", "validation"]
    x, y = source.examples(np.concatenate([source.parts[part] for part in parts]))
    names = [source.shape.class_names[label] for label in y.tolist()]
    return sorted(zip(names, map(tuple, x.flatten(1).tolist()), strict=True))


def stored(source: Any) -> np.ndarray:
    return np.asarray(source._x)


def write_set(tmp_path: Path, train: list, test: list | None = None, labels: str = "b a", more: str = "") -> Path:
    """Write the data set `Set`; return its training file."""
    path = tmp_path / "Set" / "Set_TRAIN.ts"
    write_ts(path, train, labels, more)
    write_ts(tmp_path / "Set" / "Set_TEST.ts", test or train, labels, more)
    return path


ROWS = [([[1, 2, 3, 4]], label) for label in "abab" for _ in range(3)]


def test_series_of_unequal_length_keep_it_and_are_padded_beside_the_data(tmp_path: Path) -> None:
    """Item 22: one library cuts the longer ones and another raises; here the last channel holds each length."""
    write_set(tmp_path, [([[1, 2, 3]], "a"), ([[1, 2, 3, 4, 5]], "b")] * 6)
    source = one_task(tmp_path)
    assert source.shape.inputs == (2, 5)
    assert source.shape.observed
    x = stored(source)
    lengths = x[:, 1].sum(-1)
    assert sorted(set(lengths.tolist())) == [3.0, 5.0]
    short = x[lengths == 3][0]
    assert short.tolist() == [[1, 2, 3, 0, 0], [1, 1, 1, 0, 0]]


def test_missing_values_at_the_end_are_missing_and_no_padding(tmp_path: Path) -> None:
    """Item 23: a length never follows from NaN; a row of five cells has five steps, whichever are missing."""
    folder = tmp_path / "Set"
    folder.mkdir()
    lines = ["1\t1\tNaN\t3\t4\tNaN", "2\t5\t6\t7\t8\tNaN"] * 6
    for part in ("TRAIN", "TEST"):
        (folder / f"Set_{part}.tsv").write_text("\n".join(lines))
    assert [one.shape for one in read_series(folder / "Set_TRAIN.tsv").series] == [(1, 5)] * 12
    source = one_task(tmp_path)
    assert source.shape.inputs == (2, 5)
    assert not np.isnan(stored(source)).any()
    first = stored(source)[0]
    assert first.tolist() == [[1, 0, 3, 4, 0], [1, 0, 1, 1, 0]]
    assert any("24 of them lack values" in note for note in source.notes)


def test_labels_and_their_order_are_those_of_the_file_and_the_archives_test_set_stays(tmp_path: Path) -> None:
    """Item 25: labels are texts in the order of the head; the test series are the archive's, in number and content."""
    test = [([[9, 9, 9, 8]], "a"), ([[7, 9, 9, 8]], "b")]
    write_set(tmp_path, ROWS, test)
    source: Any = one_task(tmp_path)
    assert source.shape.class_names == ("b", "a")
    x, y = source.examples(source.parts["test"])
    assert sorted(zip(x[:, 0, 0].tolist(), y.tolist(), strict=True)) == [(7.0, 0), (9.0, 1)]
    trained = np.concatenate([source.parts[part] for part in ("train", "meta", "validation")])
    assert len(trained) == 12
    assert set(stored(source)[trained][:, 0, 0].tolist()) == {1.0}


def test_values_are_not_normalized_again_and_a_set_that_is_not_z_scored_is_noted(tmp_path: Path) -> None:
    """Item 25: values as given by default; on request z-scored with the archive's divisor, length - 1."""
    write_set(tmp_path, ROWS)
    as_given = one_task(tmp_path)
    assert stored(as_given)[0].tolist() == [[1, 2, 3, 4]]
    assert any("not z-scored as given" in note and "Set" in note for note in as_given.notes)
    scored = one_task(tmp_path, normalize="z_score")
    values = stored(scored)[0, 0].astype(np.float64)
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std(ddof=1) == pytest.approx(1, abs=1e-6)
    assert not any("not z-scored" in note for note in scored.notes)


def test_a_level_and_a_deviation_are_channels_on_request(tmp_path: Path) -> None:
    write_set(tmp_path, [([[1, 2, 3]], "a"), ([[10, 20, 30, 40, 50]], "b")] * 6)
    source = one_task(tmp_path, normalize="z_score", level=True)
    assert source.shape.inputs == (4, 5)
    values, level, deviation, observed = next(one for one in stored(source) if one[3].sum() == 3)
    np.testing.assert_allclose(values[:3], [-1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(level, [np.arcsinh(2)] * 3 + [0, 0], rtol=1e-6)
    np.testing.assert_allclose(deviation, [0, 0, 0, 0, 0], atol=1e-6)  # the logarithm of 1
    assert observed.tolist() == [1, 1, 1, 0, 0]


def test_several_channels_and_a_constant_series(tmp_path: Path) -> None:
    write_set(tmp_path, [([[1, 2, 3], [5, 5, 5]], "a"), ([[1, "?", 3], [4, 5, 6]], "b")] * 6)
    source = one_task(tmp_path, normalize="z_score")
    gap = next(one for one in stored(source) if one[2].sum() == 2)
    assert gap[:, 1].tolist() == [0, 0, 0]  # a step that lacks the value of one channel was not observed
    whole = next(one for one in stored(source) if one[2].sum() == 3)
    assert whole[1].tolist() == [0, 0, 0]


def test_few_shot_episodes_of_one_set_and_of_several_within_each(tmp_path: Path) -> None:
    write_waves(tmp_path, "Short", classes=6)
    for number, name in enumerate(("One", "Two", "Three", "Four")):
        write_waves(tmp_path, name, classes=3, lengths=(15 + number, 18), seed=number)
    one: Any = opened(tmp_path, set="Short", ways=2, queries=3, validation_fraction=0.3, test_fraction=0.3)
    assert one.shape.inputs == (1, 20)
    assert sorted(one.table.names) == list("abcdef")
    assert one.episode("train", 0).episode.query_x.shape == (6, 1, 20)
    several: Any = opened(tmp_path, sets=["One", "Two", "Three", "Four", "Short"], ways=3)
    assert several.shape.inputs == (2, 20)
    assert several.shape.observed
    owners = {split: {name.split("/")[0] for name in names} for split, names in several.table.splits.items()}
    assert sum(map(len, owners.values())) == 5  # whole sets are divided
    for index in range(5):
        names = [several.table.names[place] for place in several.episode("train", index).class_ids]
        assert len({name.split("/")[0] for name in names}) == 1
    lists = {"train": ["Two", "Short"], "val": ["One"], "test": ["Three"]}
    listed: Any = opened(tmp_path, sets=["One", "Two", "Three", "Short"], ways=3, split=lists)
    assert {name.split("/")[0] for name in listed.table.splits["train"]} == {"Two", "Short"}


def test_the_classes_of_each_set_are_a_group_also_among_many_sources(tmp_path: Path) -> None:
    for number, name in enumerate(("One", "Two", "Three", "Four", "Five", "Six")):
        write_waves(tmp_path, name, classes=3 + number % 2, lengths=(15 + number,), seed=number)
    lists = {"train": ["Two", "Three"], "val": ["Four"], "test": ["Five"]}
    several = {"source": "ucr", "path": str(tmp_path), "sets": ["Two", "Three", "Four", "Five"], "split": lists}
    alone: Any = opened(tmp_path, **several, ways=3)
    assert alone.shape.groups == (4, 3)
    one, six = ({"source": "ucr", "path": str(tmp_path), "set": name} for name in ("One", "Six"))
    sources = {"sources": [several, one], "validation": [six], "test": [six], "ways": 3}
    many: Any = open_source({"source": "many", **sources}, seed=0, cache=tmp_path / "cache")
    assert many.shape.groups == (4, 3, 4, 3, 3)  # trained on as a whole
    assert many.shape.observed
    for index in range(6):
        sampled = many.episode("train", index)
        first, end = many.shape.group_of(sampled.episode.class_ids)
        assert all(first <= number < end for number in sampled.episode.class_ids.tolist())


def test_formats_agree(tmp_path: Path) -> None:
    """The same set as .ts, .tsv and .npz gives the same series and labels."""
    write_waves(tmp_path, "Set", classes=3)
    ts: Any = one_task(tmp_path)
    train, test = (read_series(tmp_path / "Set" / f"Set_{part}.ts") for part in ("TRAIN", "TEST"))
    other = tmp_path / "other"
    (other / "Set").mkdir(parents=True)
    arrays = {}
    for part, held in (("train", train), ("test", test)):
        rows = [
            "\t".join([label, *map(repr, map(float, one[0]))])
            for label, one in zip(held.labels, held.series, strict=True)
        ]
        (other / "Set" / f"Set_{part.upper()}.tsv").write_text("\n".join(rows))
        arrays[f"Set/X_{part}"] = np.stack([one[0] for one in held.series])
        arrays[f"Set/y_{part}"] = np.array(held.labels)
    np.savez(tmp_path / "sets.npz", **arrays)
    for found in (one_task(other), one_task(tmp_path / "sets.npz")):
        assert found.shape.class_names == tuple("abc")  # no head: in their own order
        for tested in (True, False):
            assert labelled(found, tested) == labelled(ts, tested)


WRONG = {
    "abc": ("1,abc,3:a", r"Set_TRAIN.ts: line 19: value 2 is 'abc', and a finite number is expected"),
    "infinite": ("1,2,inf:a", "line 19: value 3 is 'inf', and a finite number is expected"),
    "label": ("1,2,3,4:c", "line 19: no class is named 'c'"),
    "unlabelled": ("1,2,3,4:", "line 19: no label after the last ':'"),
    "nothing": ("?,?,?:a", "line 19: a series without any value"),
    "channels": ("1,2,3,4:1,2,3,4:a", "line 19: 2 channels, and 1 were expected"),
    "dimensions": ("1,2,3:1,2:a", r"line 19: its dimensions have different lengths \(3, 2\)"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_line_is_named(tmp_path: Path, wrong: str) -> None:
    line, message = WRONG[wrong]
    path = write_set(tmp_path, ROWS)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=message):
        one_task(tmp_path)
    assert not list((tmp_path.parent / f"{tmp_path.name}-cache").glob("*.arrow"))


HEADS = {
    "@timeStamps true\n": "line 5: @timestamps true: values without times are read",
    "@targetLabel true\n": "line 5: @targetlabel true: series have classes here",
    "@equalLength true\n@seriesLength 5\n": "line 9: 4 steps, and 5 were expected, since the head says @equalLength",
    "@dimensions two\n": "line 5: @dimensions two is no whole number",
    "1,2,3:a\n": "line 5: a series before the line @data",
}


@pytest.mark.parametrize("more", HEADS)
def test_a_wrong_head_is_named(tmp_path: Path, more: str) -> None:
    write_set(tmp_path, ROWS, more=more)
    with pytest.raises(DataError, match=HEADS[more]):
        one_task(tmp_path)


def test_settings_that_no_data_satisfy_are_refused(tmp_path: Path) -> None:
    write_waves(tmp_path, "Waves", classes=3)
    write_waves(tmp_path, "Others", classes=2)
    write_waves(tmp_path, "More", classes=3)
    write_set(tmp_path, [([[1, 2, 3], [5, 5, 5]], "a"), ([[1, 2, 3], [4, 5, 6]], "b")] * 6)
    refused = [
        ({"set": "Wave"}, "has no data set 'Wave'; did you mean 'Waves'"),
        ({}, "tasks.set: give the name of one data set, or tasks.sets"),
        ({"set": "Waves", "sets": ["More"]}, "not both"),
        ({"sets": ["More", "More"]}, "give at least one name, each once"),
        (
            {"sets": ["Waves", "More", "Others"], "ways": 3},
            r"Others \(.*\) has fewer, at least 2: lower tasks.ways to 2",
        ),
        ({"sets": ["Waves", "Set"], "ways": 2}, "tasks.sets: Waves has 1 channels and Set 2"),
        (
            {"set": "Waves", "episodes": "single_task", "test_fraction": 0.5},
            "the archive's own test set is the test set",
        ),
    ]
    for tasks, message in refused:
        with pytest.raises(DataError, match=message):
            opened(tmp_path, **tasks)
    with pytest.raises(DataError, match=r"there is no .*; give a folder of the archive's data sets"):
        opened(tmp_path / "absent", set="Waves")


def test_a_set_that_has_changed_is_read_again(tmp_path: Path) -> None:
    path = write_set(tmp_path, ROWS)
    before = one_task(tmp_path)
    path.write_text(path.read_text().replace("1,2,3,4:a", "1,2,3,5:a"))
    os.utime(path, ns=(1, 1))
    after = one_task(tmp_path)
    assert before.digest != after.digest
    assert stored(after)[:, 0, 3].max() == 5


def test_episodes_are_the_same_from_equal_seeds(tmp_path: Path) -> None:
    write_waves(tmp_path, "Waves", classes=9, lengths=(15, 18))
    first, again = (opened(tmp_path, set="Waves", ways=2).episode("train", 3).episode for _ in range(2))
    assert torch.equal(first.support_x, again.support_x)
    assert torch.equal(first.query_x, again.query_x)


@pytest.mark.skipif(
    not REAL.is_file(), reason="no archive: set METALOOM_UCR to an .npz file of the sets up to length 300"
)
def test_the_archives_own_sets(tmp_path: Path) -> None:
    """1-NN Euclidean on the archive's test set has the archive's own error."""
    settings = {"source": "ucr", "path": str(REAL), "set": "Coffee", "episodes": "single_task"}
    source: Any = open_source(settings, seed=0, cache=tmp_path)
    train = np.concatenate([source.parts[part] for part in ("train", "meta", "validation")])
    (x, y), (queries, labels) = source.examples(train), source.examples(source.parts["test"])
    nearest = torch.cdist(queries.flatten(1), x.flatten(1)).argmin(1)
    assert (len(train), len(labels)) == (28, 28)
    assert float((y[nearest] != labels).float().mean()) == 0.0
