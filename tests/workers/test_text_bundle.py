"""A learner of texts from training to new sentences: bundles, what they adapt to, and how a network is handed on."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from metaloom.learners.errors import LearnerError
from metaloom.orchestrator.command_line import cli
from metaloom.workers.assembly import assemble
from metaloom.workers.bundle import PyFunc, load_adapted, load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data import open_source
from metaloom.workers.data.base import DataError
from metaloom.workers.data.text_encoding import FittedText
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import CACHE_FOLDER
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from metaloom.workers.verification import verify
from tests.support.texts import rows, write_csv

CAUSAL: dict[str, Any] = {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "causal": True}
LEARNERS: dict[str, dict[str, Any]] = {
    "language_model": {"architecture": CAUSAL, "prediction": {"kind": "language_model"}},
    "bag": {"architecture": {"kind": "text_bag", "width": 8, "hidden": 8}, "prediction": {"kind": "prototypes"}},
}
NEW = ["Tell me about rice and soup", "please the bread and the soup", "About the cash and the loan", "a loan, a bank"]
LABELS = ["eat", "eat", "pay", "pay"]


def tasks_of(path: Path, **settings: Any) -> dict[str, Any]:
    return {"source": "text", "path": str(path), "ways": 2, "shots": 2, "queries": 2, "length": 12, **settings}


def config_of(tasks: dict[str, Any], learner: dict[str, Any], steps: int = 6) -> TrialConfig:
    learner = {"initialization": {"kind": "learned"}, **learner}
    return TrialConfig("texts", 0, 3, tasks, learner, {}, {"steps": steps, "rate": 0.02, "validation_episodes": 4})


def trained(folder: Path, name: str, config: TrialConfig) -> Path:
    runner = Trial(config, folder / name, cache=folder / CACHE_FOLDER)
    while not runner.finished:
        runner.advance()
    evaluation = evaluate_trial(folder / name, cache=folder / CACHE_FOLDER, episodes=20)
    return write_bundle(folder / name, folder / f"{name}-bundle", origin={}, evaluation=evaluation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with texts, and a tested bundle of each learner."""
    folder = tmp_path_factory.mktemp("texts")
    path = write_csv(folder / "texts.csv", rows())
    for name, learner in LEARNERS.items():
        trained(folder, name, config_of(tasks_of(path, least_count=1, test_fraction=0.4), learner))
    write_csv(folder / "support.csv", list(zip(NEW, LABELS, strict=True)))
    write_csv(folder / "query.csv", [("the soup", "eat"), ("the bank", "pay"), ("bread", "")])
    return folder


@pytest.fixture(params=sorted(LEARNERS))
def bundle(folder: Path, request: pytest.FixtureRequest) -> Path:
    return folder / f"{request.param}-bundle"


def test_a_bundle_repeats_its_test_and_reads_new_texts(folder: Path, bundle: Path) -> None:
    loaded = load_bundle(bundle)
    assert verify(loaded, cache=folder / CACHE_FOLDER).bit_equal
    model = loaded.adapt(NEW, LABELS)
    expected = model.predict(["some soup", "the bank"])
    text = FittedText.of_task(loaded.task)
    assert text is not None and text.length == 12
    numbers = text.numbers(["some soup", "the bank"])
    forms = (
        pd.DataFrame({"text": ["some soup", "the bank"], "other": [1, 2]}),
        pd.Series(["some soup", "the bank"]),
        pa.table({"text": ["some soup", "the bank"]}),
        np.array(["some soup", "the bank"]),
        ("some soup", "the bank"),
        numbers,
        torch.from_numpy(numbers),
    )
    for form in forms:
        assert model.predict(form).tolist() == expected.tolist()
    assert model.probabilities(["some soup"]).shape == (1, 2)


def test_the_card_says_that_it_reads_texts(bundle: Path) -> None:
    card = (bundle / "card.md").read_text()
    assert re.search(r"- inputs: texts, of which the first 12 words count; it knows \d+, in small letters", card)
    assert "# support_x: [support, 12], or texts themselves;" in card


def test_commands_read_sentences(folder: Path, bundle: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "model"
    support, query = str(folder / "support.csv"), str(folder / "query.csv")
    assert cli.run(["adapt", str(bundle), "--support", support, "--query", query, "--out", str(out), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert [row["query"] for row in answer["predictions"]] == [f"row {row}" for row in range(3)]
    assert answer["labelled"] == 2 and 0 <= answer["accuracy"] <= 1
    assert cli.run(["adapt", str(out), "--query", query, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["predictions"] == answer["predictions"]
    rows_of_json = tmp_path / "support.json"
    rows_of_json.write_text(json.dumps([[text, label] for text, label in zip(NEW, LABELS, strict=True)]))
    assert cli.run(["adapt", str(bundle), "--support", str(rows_of_json), "--query", query, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["predictions"] == answer["predictions"]


def test_a_server_and_a_saved_model_read_sentences(bundle: Path, tmp_path: Path) -> None:
    model = load_bundle(bundle).adapt(NEW, LABELS)
    expected = model.predict(["the soup", "the bank"]).tolist()
    given = {"support_x": np.array(NEW), "support_y": np.array(LABELS), "query_x": np.array(["the soup", "the bank"])}
    assert PyFunc(load_bundle(bundle)).predict(given).tolist() == expected
    model.save(tmp_path / "saved")
    assert load_adapted(tmp_path / "saved").predict(["the soup", "the bank"]).tolist() == expected


def test_an_export_takes_the_token_numbers_that_it_says(bundle: Path, tmp_path: Path) -> None:
    model = load_bundle(bundle).adapt(NEW, LABELS)
    program = torch.export.load(model.export(tmp_path / "model.pt2"), extra_files=(files := {"labels.json": ""}))
    text = FittedText.of(json.loads(files["labels.json"])["text"][0])
    answers, is_finite = program.module()(torch.from_numpy(text.numbers(["the soup", "the bank"])).float())
    assert is_finite.all()
    np.testing.assert_allclose(answers, model.probabilities(["the soup", "the bank"]), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], r"query_x: a text is needed in each row, and row 0 \(1\.0\), row 1 \(2\.0\) has none"),
        (["fine", "  "], r"row 1 \('  '\) has none"),
        ("one text", r"got one text; give a list of texts"),
        ([], r"no text is given"),
        ([[1, 2, 3]], r"numbers of shape \(1, 3\); this learner reads texts"),
        ([[0.5] * 12], r"whole ones from 0 to \d+"),
        ([[1e6] * 12], r"whole ones from 0 to \d+"),
        ([["a", "b"]], r"this learner reads texts: give a list of them"),
        (pd.DataFrame({"txt": ["a"]}), r"no column is named 'txt'|no column is named 'text'; did you mean 'txt'"),
        (7, r"got int; this learner reads texts"),
    ],
)
def test_what_is_no_text_is_refused(folder: Path, given: Any, message: str) -> None:
    model = load_bundle(folder / "bag-bundle").adapt(NEW, LABELS)
    with pytest.raises(BundleError, match=message):
        model.predict(given)


def test_texts_of_unknown_words_are_warned_of(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_bundle(folder / "bag-bundle").adapt(NEW, LABELS).predict(["quantum entanglement"])
    assert "query_x: 100% of the words were not in the training texts" in caplog.text


def test_an_unlabelled_support_is_refused(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for content, message in (
        ([(NEW[0], "eat"), (NEW[1], "")], "no label in row 1"),
        ([(NEW[0], "")], "no labels"),
    ):
        support = write_csv(tmp_path / "s.csv", content)
        arguments = ["--support", str(support), "--query", str(folder / "query.csv")]
        assert cli.run(["adapt", str(folder / "bag-bundle"), *arguments]) == 2
        assert message in capfd.readouterr().err.replace("\n", " ")


def test_a_file_that_holds_no_texts_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--support", str(folder / "support.csv"), "--query", __file__]
    assert cli.run(["adapt", str(folder / "bag-bundle"), *arguments]) == 2
    told = capfd.readouterr().err
    assert "texts are read from tables" in told and "tasks.path" not in told


def test_a_network_is_handed_on_with_its_vocabulary(folder: Path) -> None:
    bundle = folder / "language_model-bundle"
    other = write_csv(folder / "other.csv", rows(seed=4))
    learner = {
        "architecture": {**CAUSAL, "causal": False},
        "initialization": {"kind": "fine_tuned", "bundle": str(bundle)},
        "update": {"kind": "sgd", "steps": 2, "rate": 0.1},
    }
    tasks = tasks_of(other, vocabulary=str(bundle), test_fraction=0.4)
    config = config_of(tasks, learner, steps=1)
    parts = assemble(config, cache=folder / CACHE_FOLDER)
    assert parts.source.shape.columns == load_bundle(bundle).task.columns
    assert load_bundle(trained(folder, "tuned", config)).adapt(NEW, LABELS).predict(["soup"]).shape == (1,)
    with pytest.raises(LearnerError, match=r"another vocabulary.*tasks\.vocabulary: BUNDLE|holds another network"):
        assemble(config_of(tasks_of(other, test_fraction=0.4), learner), cache=folder / CACHE_FOLDER)


def test_a_vocabulary_of_equal_size_is_another_one_all_the_same(folder: Path) -> None:
    """Whose embedding would fit, while each of its numbers means another word."""
    bundle = folder / "language_model-bundle"
    words = load_bundle(bundle).task.columns[0]["vocabulary"]
    given = [(f"{one}x {one}x", label) for one in words for label in "abcdefghij"]
    tasks, cache = tasks_of(write_csv(folder / "swapped.csv", given)), folder / CACHE_FOLDER
    assert len(open_source(tasks, seed=0, cache=cache).shape.columns[0]["vocabulary"]) == len(words)
    learner = {"architecture": CAUSAL, "initialization": {"kind": "fine_tuned", "bundle": str(bundle)}}
    with pytest.raises(LearnerError, match=r"has learned another vocabulary, .* tasks\.vocabulary: BUNDLE"):
        assemble(config_of(tasks, learner), cache=cache)


def test_a_bundle_without_a_vocabulary_gives_none(folder: Path, tmp_path: Path) -> None:
    digits = {"source": "digits", "batch": 20, "meta_batch": 10, "queries": 10}
    learner = {"architecture": {"kind": "mlp", "hidden": [4]}, "prediction": {"kind": "prototypes"}}
    bundle = trained(tmp_path, "digits", config_of(digits, learner, steps=1))
    with pytest.raises(DataError, match=r"tasks\.vocabulary: .*reads no text, and has no vocabulary"):
        open_source(tasks_of(folder / "texts.csv", vocabulary=str(bundle)), seed=0, cache=tmp_path / "cache")
