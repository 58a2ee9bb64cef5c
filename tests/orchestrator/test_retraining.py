"""From a trial or a bundle back to an experiment file, which trains the same."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from metaloom.dashboards.trial_file import experiment_of
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.api import search, train
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.export import export
from metaloom.orchestrator.rehearsal import members
from metaloom.search_spaces.loading import load_experiment, preset_names
from metaloom.search_spaces.resolve import Given, defaults, resolve, searched_knobs
from metaloom.search_spaces.sections.starts import needed_stages
from metaloom.workers.records import names as records
from metaloom.workers.records.trial import TrialConfig, read_config

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
FILE = """\
name: first
seed: 7
tasks: {source: sinusoid, shots: 5, queries: 5}
learner:
  search:
  - {method: maml, architecture: {kind: mlp, hidden: [8]}, update: {rate: {search: [0.01, 0.02]}, steps: 1}}
  - {method: anil, architecture: {kind: mlp, hidden: [8]}, update: {rate: learn, steps: 1}}
outer: {steps: 4, meta_batch: 2, validate_every: 2, validation_episodes: 4, test_episodes: 6, strategy: loop}
search: {trials: 3, sampler: grid, constraints: [{metric: parameters, max: 10000}]}
"""
SECTIONS = ("seed", "tasks", "learner", "inner", "outer", "resources")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("retraining")
    (folder / "first.yaml").write_text(FILE)
    search(folder / "first.yaml", store=folder / "store", executor="inline")
    export("first", folder / "bundle", trial="2", store=folder / "store", episodes=0)
    return folder / "store"


def sections(config: TrialConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in SECTIONS}


def shown(store: Path, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    capfd.readouterr()
    assert cli.run(["show", "first", "--store", str(store), "--yaml", *arguments]) == 0
    return capfd.readouterr().out


def trial_config(store: Path, name: str, trial: int = 0) -> TrialConfig:
    return read_config(records.trial_directory(store / "searches" / name, trial))


@pytest.mark.parametrize("trial", ["0", "2", "best"])
def test_a_shown_trial_is_an_experiment_that_train_takes(
    store: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], trial: str
) -> None:
    text = shown(store, capfd, "--trial", trial)
    assert text.startswith("# trial ") and text.count("\n# ") == 0
    (tmp_path / "best.yaml").write_text(text)
    experiment = load_experiment(tmp_path / "best.yaml")
    assert not searched_knobs(experiment)
    summary = train(tmp_path / "best.yaml", store=tmp_path / "store")
    number = int(text.split()[2])
    assert sections(trial_config(tmp_path / "store", summary.name)) == sections(trial_config(store, "first", number))
    assert summary.name == f"first-{number}" and not summary.notes
    kept = yaml.safe_load(text)["search"]
    assert kept["objectives"] == [{"metric": "validation_loss", "direction": "minimize"}]
    assert kept["constraints"] == [{"metric": "parameters", "min": None, "max": 10000.0}]


def test_a_bundle_is_trained_again(store: Path, tmp_path: Path) -> None:
    bundle = store.parent / "bundle"
    summary = train(bundle, store=tmp_path / "store")
    assert sections(trial_config(tmp_path / "store", summary.name)) == sections(trial_config(store, "first", 2))
    longer = train(str(bundle), store=tmp_path / "store", overrides=["outer.steps=6"])
    assert (summary.name, longer.name) == ("first-2", "first-2-2")
    assert trial_config(tmp_path / "store", longer.name).outer["steps"] == 6


def test_a_damaged_bundle_and_another_folder_are_refused(store: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(store.parent / "bundle", tmp_path / "damaged")
    (damaged / "config.yaml").write_text("trial: {}\n")
    with pytest.raises(BadInput, match=r"config.yaml .*again from where it was exported"):
        train(damaged, store=tmp_path / "store")
    with pytest.raises(BadInput, match="is a folder, and no bundle"):
        train(tmp_path, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (["--yaml", "--trial", "9"], "search 'first' has no trial 9; it has 0, 1, 2"),
        (["--trial", "1"], "give --yaml too"),
        (["--yaml", "--json"], "give one"),
    ],
)
def test_what_cannot_be_shown_is_said(
    store: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], wrong: str
) -> None:
    assert cli.run(["show", "first", "--store", str(store), *arguments]) == 2
    assert wrong in capfd.readouterr().err


@pytest.mark.parametrize("preset", preset_names())
def test_every_member_of_every_preset_comes_back_as_it_was(preset: str) -> None:
    experiment = load_experiment(preset)
    for chosen in members(experiment):
        one = resolve(experiment, Given(chosen, defaults(experiment)))
        parts = {name: getattr(one, name) for name in SECTIONS[1:]}
        config = TrialConfig(search="s", trial=0, seed=0, **parts, stage=one.stage, stages=one.stages)
        again = experiment_of(config, "s-0")
        other = resolve(again, defaults(again))
        assert {name: getattr(other, name) for name in SECTIONS[1:]} == parts
        assert list(other.stages) == list(needed_stages(one.stages, one.learner))  # a random start needs none
        assert load_experiment(yaml.safe_load(again.to_yaml())).fingerprint() == again.fingerprint()


@pytest.mark.parametrize("version", ["0_1", "0_2"])
def test_the_trials_of_earlier_versions_keep_their_meaning(version: str, tmp_path: Path) -> None:
    store = shutil.copytree(FIXTURES / f"stored_{version}" / "store", tmp_path / "store")
    for directory in sorted((store / "searches").glob("*/trials/*")):
        if not (directory / records.CONFIG_FILE).is_file():
            continue
        config = read_config(directory)
        one = experiment_of(config, "old")
        settled = resolve(one, defaults(one))
        for slot, given in config.learner.items():
            if isinstance(given, dict) and slot in settled.learner:
                assert given.items() <= settled.learner[slot].items()
        assert replace(config, learner={}, tasks={}).seed == one.seed
