"""A trial on sequences: trained, gone on with, tested by presentation, exported, adapted to pairs, played again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metaloom.learners.errors import LearnerError
from metaloom.search_spaces.loading import load_experiment
from metaloom.search_spaces.resolve import defaults, resolve
from metaloom.workers.assembly import assemble
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.checking import check_hypergradient
from metaloom.workers.errors import BundleError
from metaloom.workers.records.names import CACHE_FOLDER
from metaloom.workers.records.results import PRESENTATIONS
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.scoring import evaluate_trial
from metaloom.workers.trial.runner import Trial
from metaloom.workers.verification import verify
from tests.support.episodes import read_episodes
from tests.support.registry_rows import MEMORY

WAYS, LENGTH = 3, 12


def table(path: Path) -> None:
    """Write a table of 15 classes of 6 rows."""
    generator = np.random.default_rng(0)
    rows = generator.normal(0, 2, (15, 3)).repeat(6, 0) + generator.normal(0, 0.5, (90, 3))
    lines = [f"{','.join(map(str, row))},k{place // 6}" for place, row in enumerate(rows.tolist())]
    path.write_text("\n".join(["a,b,c,label", *lines]) + "\n")


def config(folder: Path, learner: Any = "mann") -> TrialConfig:
    tasks = {"source": "table", "path": str(folder / "table.csv"), "label": "label", "episodes": "sequences"}
    settings = {"method": "mann", "prediction": {**MEMORY, "strength": {"learn": {"start": 3.0}}}}
    experiment = load_experiment(
        {
            "tasks": {**tasks, "ways": WAYS, "length": LENGTH},
            "learner": settings if learner == "mann" else learner,
            "outer": {"steps": 6, "meta_batch": 3, "validate_every": 2, "validation_episodes": 4},
        }
    )
    found = resolve(experiment, defaults(experiment))
    return TrialConfig("memory", 0, 1, found.tasks, found.learner, found.inner, found.outer, found.resources)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained trial in ``whole``, one that was ended after its first report in ``ended``, and their table."""
    folder = tmp_path_factory.mktemp("memory")
    table(folder / "table.csv")
    for name in ("whole", "ended"):
        trial = Trial(config(folder), folder / name, cache=folder / CACHE_FOLDER)
        while not trial.finished and not (name == "ended" and trial.step):
            trial.advance()
        trial.close()
    return folder


def test_a_trial_that_was_ended_goes_on_bit_for_bit(folder: Path) -> None:
    trials = [Trial(config(folder), folder / name, cache=folder / CACHE_FOLDER) for name in ("whole", "ended")]
    assert [one.step for one in trials] == [6, 2]
    while not trials[1].finished:
        trials[1].advance()
    whole, other = (one.phi for one in trials)
    assert whole and all(torch.equal(value, other[name]) for name, value in whole.items())


def test_its_records_are_by_presentation(folder: Path) -> None:
    rows = read_episodes(folder / "whole" / "episodes").to_pylist()
    assert {row["phase"] for row in rows} == {"train", "validation"}
    for row in rows:
        assert (row["ways"], row["shots"], row["queries"]) == (WAYS, 0, LENGTH // WAYS)
        assert len(row["accuracies"]) == len(row["losses"]) == LENGTH // WAYS
        assert row["accuracy_before"] == row["accuracies"][0] and row["accuracy_after"] == row["accuracies"][-1]
        assert len(row["sample_ids"]) == LENGTH == len(set(row["sample_ids"]))


def test_a_bundle_of_it_is_tested_by_presentation_adapts_to_pairs_and_is_played_again(folder: Path) -> None:
    cache = folder / CACHE_FOLDER
    evaluation = evaluate_trial(folder / "whole", cache=cache, episodes=5)
    assert evaluation.curve == PRESENTATIONS and len(evaluation.per_step) == LENGTH // WAYS
    assert evaluation.to_json()["curve"] == PRESENTATIONS
    write_bundle(folder / "whole", folder / "bundle", origin={}, evaluation=evaluation)
    bundle = load_bundle(folder / "bundle")
    assert f"| {PRESENTATIONS} | accuracy |" in bundle.card
    assert verify(bundle, cache=cache).bit_equal
    x, y = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32), np.array(["p", "q", "p", "q"])
    adapted = bundle.adapt(x, y)
    assert adapted.probabilities(x).shape == (4, 2)
    np.testing.assert_allclose(adapted.probabilities(x)[2:3], adapted.probabilities(x[2:3]), rtol=1e-5)
    with pytest.raises(BundleError, match=r"4 classes, but this learner's head was trained for 3; .*prototypical"):
        bundle.adapt(x, np.arange(4))


def test_its_hypergradient_is_exact(folder: Path) -> None:
    parts = assemble(config(folder), cache=folder / CACHE_FOLDER)
    found = check_hypergradient(parts.learner, parts.source, seed=0)
    assert "learner.prediction.strength" in found.knobs and len(found.knobs) > 1
    assert all(one.norm > 0 and one.relative_error < 1e-6 for one in found.knobs.values())


def test_a_learner_that_needs_a_support_set_says_who_takes_sequences(folder: Path) -> None:
    with pytest.raises(LearnerError, match=r"linear does not solve a sequence task; use one of .*mann"):
        Trial(config(folder, "maml"), folder / "maml", cache=folder / CACHE_FOLDER)
    one = config(folder)
    few_shot = {name: value for name, value in one.tasks.items() if name not in ("episodes", "length")}
    Trial(replace(one, tasks={**few_shot, "shots": 1, "queries": 2}), folder / "few", cache=folder / CACHE_FOLDER)
