"""The task source text: its files, its vocabulary, its parts and splits, and what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaloom.learners.errors import LearnerError
from metaloom.testing import TaskSourceContract
from metaloom.workers.data import Source, open_source
from metaloom.workers.data.base import DataError
from metaloom.workers.data.sampler import FewShotSource
from metaloom.workers.data.text_encoding import FittedText, fit_vocabulary, tokens_of
from metaloom.workers.data.user_single_task import UserTask
from tests.support.texts import TOPICS, rows, write_clinc, write_csv

SIZES: dict[str, Any] = {"ways": 2, "shots": 1, "queries": 2}


def opened(path: Path, **settings: Any) -> Source:
    sizes = {} if "episodes" in settings else SIZES
    cache = (path if path.is_dir() else path.parent).parent / "cache"
    return open_source({"source": "text", "path": str(path), **sizes, **settings}, seed=0, cache=cache)


def few_shot(path: Path, **settings: Any) -> FewShotSource:
    source = opened(path, **settings)
    assert isinstance(source, FewShotSource)
    return source


def fitted(source: Any) -> FittedText:
    found = FittedText.of_task(source.shape)
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def texts(folder: Path) -> Path:
    return write_csv(folder / "texts.csv", rows())


class TestTexts(TaskSourceContract):
    rows = {"text": {"path": "", **SIZES, "shots": 2}}

    @pytest.fixture(autouse=True)
    def _with_file(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        path = tmp_path_factory.getbasetemp() / "contract_of_texts.csv"
        type(self).rows["text"]["path"] = str(path if path.exists() else write_csv(path, rows()))


def test_a_text_is_divided_into_words_or_characters() -> None:
    text = "  What's  the\tFee,\nplease? "
    assert tokens_of(text, "words", lower=True) == ["what", "'", "s", "the", "fee", ",", "please", "?"]
    assert "".join(tokens_of(text, "characters", lower=False)) == "What's the Fee, please?"
    assert tokens_of("Cafe\u0301", "words", lower=True) == tokens_of("CAFÉ", "words", lower=True) == ["café"]


def test_the_vocabulary_has_the_frequent_tokens_in_a_fixed_order() -> None:
    texts = ["b a", "a b c", "a d"]
    assert fit_vocabulary(texts, "words", lower=True, least=1, most=9) == ("a", "b", "c", "d")
    assert fit_vocabulary(texts, "words", lower=True, least=2, most=9) == ("a", "b")
    assert fit_vocabulary(texts, "words", lower=True, least=1, most=3) == ("a", "b", "c")
    with pytest.raises(DataError, match=r"tasks\.least_count: none of the 4 words .* 4 times or more .*: a, b, c, d"):
        fit_vocabulary(texts, "words", lower=True, least=4, most=9)


def test_an_example_is_the_numbers_of_its_tokens_cut_off_and_filled_up() -> None:
    text = FittedText("text", 3, ("a", "b"))
    assert text.numbers(["B a", "a b a b", "a x", ""]).tolist() == [[3, 2, 0], [2, 3, 2], [2, 1, 0], [0, 0, 0]]
    assert FittedText.of(json.loads(json.dumps(text.to_json()))) == text


def test_the_vocabulary_is_that_of_the_training_classes_alone(texts: Path) -> None:
    source = few_shot(texts, least_count=1)
    trained = set(source.table.splits["train"])
    words = {word for topic in trained for word in TOPICS[topic].split()}
    others = {word for topic in set(TOPICS) - trained for word in TOPICS[topic].split()} - words
    known = set(fitted(source).vocabulary)
    assert words & known and not others & known
    episode = source.episode("test", 0).episode
    assert episode.support_x.shape == (2, 24) and (episode.support_x == 1).sum() == 4  # two words of each are unknown
    assert re.search(r"80 texts, \d+ different words of the training texts; .* cut off there", source.notes[-1])


def test_the_same_text_has_the_same_numbers_in_every_form(folder: Path) -> None:
    given = rows()
    objects = [{"text": text, "label": label} for text, label in given]
    forms = {
        "a.csv": None,
        "b.json": json.dumps(objects),
        "c.json": json.dumps(given),
        "d.jsonl": "\n".join(json.dumps(one) for one in objects),
        "e.json": json.dumps({"train": given[:40], "test": given[40:]}),
    }
    drawn = []
    for name, content in forms.items():
        path = write_csv(folder / name, given) if content is None else folder / name
        if content is not None:
            path.write_text(content)
        source = few_shot(path)
        drawn.append((fitted(source).vocabulary, source.table.splits, source.stored.tolist()))
    assert all(one == drawn[0] for one in drawn)


def test_a_folder_has_a_file_for_each_part(folder: Path) -> None:
    write_csv(folder / "train.csv", rows(each=6, seed=1), ("sentence", "intent"))
    (folder / "test.json").write_text(json.dumps([{"sentence": t, "intent": i} for t, i in rows(each=3, seed=2)]))
    (folder / "notes.md").write_text("not read")
    columns = {"text": "sentence", "label": "intent"}
    assert few_shot(folder, **columns).table.counts.tolist() == [9] * len(TOPICS)
    assert few_shot(folder, **columns, parts=["train"]).table.counts.tolist() == [6] * len(TOPICS)
    whole = opened(folder, **columns, episodes="single_task")
    assert isinstance(whole, UserTask) and len(whole.parts["test"]) == 30
    assert fitted(whole).column == "sentence"


def test_the_parts_of_one_task_are_those_of_the_file(folder: Path) -> None:
    source = opened(write_clinc(folder / "clinc.json"), episodes="single_task")
    assert isinstance(source, UserTask)
    sizes = {part: len(source.parts[part]) for part in ("train", "meta", "validation", "test")}
    assert sizes == {"train": 54, "meta": 6, "validation": 30, "test": 40}
    assert source.shape.class_names == tuple(sorted(TOPICS))
    table = write_csv(
        folder / "t.csv",
        [(*row, part) for row, part in zip(rows(), ["train", "dev"] * 40, strict=True)],
        ("text", "label", "part"),
    )
    by_column = opened(table, episodes="single_task", split="part")
    assert isinstance(by_column, UserTask) and len(by_column.parts["validation"]) == 40


def test_domains_divide_the_classes_and_group_them(folder: Path) -> None:
    path = write_clinc(folder / "clinc.json")
    names = list(TOPICS)
    source = few_shot(path, split="domain_split")
    assert source.table.splits == {
        "train": sorted(names[:6]),
        "validation": sorted(names[6:8]),
        "test": sorted(names[8:]),
    }
    assert source.table.counts.tolist() == [13] * len(names)
    grouped = few_shot(path, within="domains")
    for index in range(5):
        drawn = {names.index(grouped.table.names[one]) // 2 for one in grouped.episode("train", index).class_ids}
        assert len(drawn) == 1
    assert few_shot(path, split="domain_split", parts=["train", "val"]).table.counts.tolist() == [9] * len(names)


def test_columns_of_a_table_say_split_and_group(folder: Path) -> None:
    names = list(TOPICS)
    parts = dict(zip(names, ["train"] * 6 + ["validation"] * 2 + ["test"] * 2, strict=True))
    given = [(text, label, parts[label], parts[label]) for text, label in rows()]
    path = write_csv(folder / "t.csv", given, ("text", "label", "part", "group"))
    assert few_shot(path, split="part", within="group").table.splits["test"] == sorted(names[8:])


def test_another_vocabulary_is_taken_from_texts(folder: Path, texts: Path) -> None:
    other = write_csv(folder / "other.csv", rows(["food", "house"]))
    words = fitted(few_shot(texts, vocabulary=str(other))).vocabulary
    of_frame = {"please", "tell", "me", "about", "the", "and", "now"}
    assert set(words) <= {word for topic in ("food", "house") for word in TOPICS[topic].split()} | of_frame
    with pytest.raises(DataError, match=r"tasks\.vocabulary: there is no file .*absent; give texts, or a bundle"):
        few_shot(texts, vocabulary=str(folder / "absent"))


def test_the_texts_are_read_again_where_they_have_changed(folder: Path, texts: Path) -> None:
    before = fitted(few_shot(texts)).vocabulary
    write_csv(texts, [(f"{text} indeed", label) for text, label in rows()])
    assert "indeed" in set(fitted(few_shot(texts)).vocabulary) - set(before)


def test_texts_are_numbered_as_in_training(folder: Path, texts: Path) -> None:
    trained = few_shot(texts).shape
    more = write_csv(folder / "more.csv", [(f"indeed {text}", label) for text, label in rows(seed=5)])
    for settings in ({}, {"episodes": "single_task"}):
        source = opened(more, **settings)
        again = source.as_trained(trained)
        assert again.shape.columns == trained.columns and source.shape.columns != trained.columns
        assert again.as_trained(trained) is again or again.as_trained(trained).shape == again.shape
    drawn = again.episode("train", 0).episode.support_x
    assert (drawn[:, 0] == 1).all()  # indeed, which training has not


def test_bad_rows_are_refused_or_skipped_with_a_note(folder: Path) -> None:
    given = rows()
    bad = write_csv(folder / "bad.csv", [("", "food"), *given, ("about this", " ")])
    with pytest.raises(DataError, match=r"nothing stands in row 0, column 'text', row 81, column"):
        few_shot(bad)
    source = few_shot(bad, on_error="skip")
    assert len(source.stored) == len(given)
    assert source.notes[-2].startswith("2 of 82 rows skipped, without a text or a label: row 0")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"train": [["a", "b", "c"]]}', r"train, row 0 is a list of 3; give a list of"),
        ('[{"txt": "a", "label": "b"}]', r"tasks\.text: .*no column is named 'text'; did you mean 'txt'"),
        ('[{"text": ["a"], "label": "b"}]', r"row 0 holds list where a text or a label stands"),
        ('"text"', r"got str; give a list of"),
        ('{"a": {"b": []}}', r"none of its keys \(a\) has a list of rows"),
        ("[", r"not readable as JSON"),
        ("[]", r"no row in it"),
    ],
)
def test_a_file_of_another_form_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "t.json").write_text(content)
    with pytest.raises(DataError, match=message):
        few_shot(folder / "t.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": "txt"}, r"tasks\.text: .*no column is named 'txt'; did you mean 'text'"),
        ({"label": "intent"}, r"tasks\.label: .*no column is named 'intent'"),
        ({"parts": ["train"]}, r"tasks\.parts: .*no part is named 'train'"),
        ({"split": "part"}, r"tasks\.split: .*no column is named 'part'"),
        ({"ways": 9}, r"9 ways need as many classes"),
        ({"path": "absent.csv"}, r"tasks\.path: there is no file and no folder absent\.csv"),
        ({"path": __file__}, r"texts are read from tables .*\.json and \.jsonl"),
    ],
)
def test_settings_that_the_texts_cannot_satisfy_are_named(texts: Path, settings: Any, message: str) -> None:
    tasks = {"source": "text", "path": str(texts), **SIZES, **settings}
    with pytest.raises(DataError, match=message):
        open_source(tasks, seed=0, cache=texts.parent.parent / "cache")


def test_settings_that_contradict_each_other_are_named(texts: Path) -> None:
    with pytest.raises((DataError, LearnerError), match=r"tasks\.text: 'label' is tasks\.label too"):
        few_shot(texts, text="label")
    with pytest.raises(DataError, match=r"tasks\.split: 'x'|column 'part'"):
        opened(
            write_csv(texts.parent / "p.csv", [(*r, "x") for r in rows()], ("text", "label", "part")),
            episodes="single_task",
            split="part",
        )
    missing = texts.parent / "m.json"
    missing.write_text(json.dumps({"domains": {"one": list(TOPICS)[:3]}, "train": rows()}))
    with pytest.raises(DataError, match=r"tasks\.within: .*'domains' has no group for class '\w+'"):
        few_shot(missing, within="domains")
    assert np.all(few_shot(texts).table.counts == 8)
