"""Generalized zero-shot learning: training classes and new ones together, with a penalty chosen on validation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaloom.orchestrator.command_line import cli
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.data import DataError, open_source
from metaloom.workers.errors import BundleError
from metaloom.workers.generalized import generalized_of_trial
from metaloom.workers.records.names import CACHE_FOLDER
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial

LEARNER: dict[str, Any] = {
    "method": "zero_shot_prototypical",
    "architecture": {"kind": "linear"},
    "initialization": {"kind": "learned"},
    "prediction": {"kind": "zero_shot_prototypical", "unit": False},
}
CLASSES, EACH = 20, 12


def tasks_of(folder: Path, **settings: Any) -> dict[str, Any]:
    described = {"path": str(folder / "classes.csv"), "class": "name"}
    fields = {"source": "table", "path": str(folder / "table.csv"), "label": "kind", "class_features": described}
    return {**fields, "ways": 4, "shots": 0, "queries": 4, "seen_fraction": 0.25, **settings}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a trained trial, and its bundle."""
    folder = tmp_path_factory.mktemp("generalized")
    generator = np.random.default_rng(2)
    attributes = generator.normal(0, 1, (CLASSES, 3))
    rows = (attributes @ generator.normal(0, 1, (3, 4))).repeat(EACH, 0) + generator.normal(0, 0.7, (CLASSES * EACH, 4))
    lines = [f"{','.join(map(repr, row))},k{place // EACH}" for place, row in enumerate(rows.tolist())]
    (folder / "table.csv").write_text("\n".join(["a,b,c,d,kind", *lines]) + "\n")
    described = [f"k{place},{','.join(map(repr, row))}" for place, row in enumerate(attributes.tolist())]
    (folder / "classes.csv").write_text("\n".join(["name,x,y,z", *described]) + "\n")
    outer = {"steps": 80, "rate": 0.05, "validation_episodes": 4, "validate_every": 80}
    config = TrialConfig("own", 0, 1, tasks_of(folder), LEARNER, {}, outer)
    trial = Trial(config, folder / "trial", cache=folder / CACHE_FOLDER)
    while not trial.finished:
        trial.advance()
    evaluation = evaluate_trial(folder / "trial", cache=folder / CACHE_FOLDER, episodes=8)
    write_bundle(folder / "trial", folder / "bundle", origin={}, evaluation=evaluation)
    return folder


def test_the_penalty_is_the_best_one_on_validation_and_the_scores_are_plain_counts(folder: Path) -> None:
    bundle = load_bundle(folder / "bundle")
    source: Any = open_source(bundle.config.tasks, seed=1, cache=folder / CACHE_FOLDER)
    names, splits, shape = source.table.names, source.table.splits, source.shape

    def raw(values: Any, task: Any) -> Any:
        return np.asarray(values) * np.asarray(task.deviation) + np.asarray(task.mean)

    held = source.held.examples(source.table)[0].tolist()
    starts = dict(zip(names, source.table.starts.tolist(), strict=True))

    def accuracies(split: str, penalties: list[float]) -> list[tuple[float, float]]:
        listed = [*splits["train"], *splits[split]]
        described = {
            name: raw(source.class_features.values[list(names).index(name)], shape.class_features) for name in listed
        }
        model = bundle.adapt(class_features=described)
        found = []
        for penalty in penalties:
            means: dict[bool, list[float]] = {True: [], False: []}
            for name in listed:
                seen = name in splits["train"]
                rows = [row for row in range(starts[name], starts[name] + EACH) if not seen or row in held]
                scores = np.log(model.probabilities(raw(source.stored[rows], shape)).astype(np.float64))
                scores -= penalty * np.isin(listed, splits["train"])
                means[seen].append(float(np.mean([listed[one] == name for one in scores.argmax(1)])))
            found.append((float(np.mean(means[True])), float(np.mean(means[False]))))
        return found

    score = bundle.evaluate_generalized(cache=folder / CACHE_FOLDER)
    (seen, unseen), (plain_seen, plain_unseen) = accuracies("test", [score.penalty, 0.0])
    assert (score.seen, score.unseen) == (pytest.approx(seen), pytest.approx(unseen))
    assert (score.plain_seen, score.plain_unseen) == (pytest.approx(plain_seen), pytest.approx(plain_unseen))
    assert score.harmonic == pytest.approx(2 * seen * unseen / (seen + unseen))
    tried = np.linspace(-4, 8, 60).tolist()
    means = [2 * a * b / (a + b) if a + b else 0.0 for a, b in accuracies("validation", [score.penalty, *tried])]
    assert means[0] >= max(means) - 0.02 and score.penalty > 0
    assert generalized_of_trial(folder / "trial", cache=folder / CACHE_FOLDER) == score


def test_training_never_sees_what_is_held_out(folder: Path) -> None:
    source: Any = open_source(tasks_of(folder), seed=0, cache=folder / CACHE_FOLDER)
    rows, turns = source.held.examples(source.table)
    assert len(rows) == 3 * len(source.table.splits["train"]) and not turns.any()
    drawn = {row for index in range(150) for row in source.episode("train", index).sample_ids}
    assert not drawn & set(rows.tolist())
    assert len(drawn) == 9 * len(source.table.splits["train"])
    again: Any = open_source(tasks_of(folder), seed=5, cache=folder / CACHE_FOLDER)
    assert again.held.examples(again.table)[0].tolist() == rows.tolist()
    without = open_source(tasks_of(folder, seen_fraction=0.0), seed=0, cache=folder / CACHE_FOLDER)
    assert without.episode("test", 3).sample_ids == source.episode("test", 3).sample_ids


def test_the_command_prints_both_accuracies(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["evaluate", str(folder / "bundle"), "--episodes", "4", "--generalized", "--store", str(folder)]
    assert cli.run([*command, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)["generalized"]
    assert set(document) == {"penalty", "seen", "unseen", "harmonic", "plain_seen", "plain_unseen", "plain_harmonic"}
    assert cli.run(command) == 0
    assert f"harmonic mean {document['harmonic']:.4f}" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"seen_fraction": 0.7},
            r"tasks\.seen_fraction: 0\.7 leaves 4 examples of 'k\d+', and a training episode takes 6",
        ),
        ({"query_balance": {"dirichlet": 2}}, r"tasks\.seen_fraction: tasks\.query_balance draws from all examples"),
        ({"class_features": None, "shots": 1}, r"tasks\.seen_fraction: got 0\.25; .* takes tasks\.class_features"),
    ],
)
def test_what_cannot_be_held_out_is_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_source(tasks_of(folder, queries=6, **settings), seed=0, cache=folder / CACHE_FOLDER)


def test_a_bundle_whose_training_held_nothing_out_is_refused(folder: Path, tmp_path: Path) -> None:
    outer = {"steps": 1, "validation_episodes": 2, "validate_every": 1}
    config = TrialConfig("own", 0, 1, tasks_of(folder, seen_fraction=0.0), LEARNER, {}, outer)
    trial = Trial(config, tmp_path / "trial", cache=folder / CACHE_FOLDER)
    trial.advance()
    with pytest.raises(BundleError, match=r"--generalized: .* held out by tasks\.seen_fraction"):
        generalized_of_trial(tmp_path / "trial", cache=folder / CACHE_FOLDER)
