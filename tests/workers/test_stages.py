"""A stage is trained once in a store, whoever asks for it; a trial starts from what it has learned."""

import multiprocessing
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metaloom.learners.errors import MetaloomError
from metaloom.learners.tensors import Tensors
from metaloom.workers.activity import present
from metaloom.workers.bundle import load_bundle
from metaloom.workers.bundle_writing import write_bundle
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.heartbeat import Heartbeat, last_beat
from metaloom.workers.records import names
from metaloom.workers.records.stages import at_stage, read_stage, stage_directories
from metaloom.workers.records.trial import TrialConfig
from metaloom.workers.stages import config_of, data_digest, digest_of
from metaloom.workers.trial.beginning import Beginning
from metaloom.workers.trial.runner import Trial
from tests.support.staged import FINAL, config, opened, run, stage


def finished(trial: Trial) -> Trial:
    while not trial.finished:
        trial.advance()
    return trial


def stages_of(trial: Trial) -> list[dict[str, Any]]:
    report = trial.advance()
    return [dict(one) for one in report.stages]


def folders(store: Path) -> list[Path]:
    return [folder for _, folder in stage_directories(store)]


def phi_of(directory: Path) -> Tensors:
    return load_knowledge(directory).phi


def assert_equal(ours: Tensors, theirs: Tensors) -> None:
    assert ours.keys() == theirs.keys() and ours
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a finished trial after one stage, for reading."""
    store = tmp_path_factory.mktemp("done")
    run(config(), store)
    return store


@pytest.fixture
def store(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "store"))


def test_a_trial_starts_as_from_the_bundle_of_the_stage_alone(done: Path, tmp_path: Path) -> None:
    alone = config(main=stage("pretrain"), trial=-1_000_000)
    finished(Trial(alone, tmp_path / "alone", cache=tmp_path / "cache"))
    (folder,) = folders(done)
    assert_equal(phi_of(tmp_path / "alone"), phi_of(folder))
    bundle = write_bundle(tmp_path / "alone", tmp_path / "bundle", origin={}, evaluation=None)
    main = stage("adapt", steps=10)
    main["learner"]["initialization"] = {"kind": "fine_tuned", "bundle": str(bundle)}
    finished(Trial(config(main=main), tmp_path / "next", cache=tmp_path / "cache"))
    assert_equal(phi_of(tmp_path / "next"), phi_of(done / "searches" / "first" / "trials" / "0000"))


class Looks(Heartbeat):
    """A heartbeat that notes what the process is at, and since when."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.seen = list[tuple[str, float]]()

    def beat(self) -> None:
        activity = present()
        assert activity is not None
        self.seen.append((activity.text, time.monotonic() - activity.begun))


def test_the_progress_of_a_resumed_stage_has_the_time_of_its_steps(tmp_path: Path) -> None:
    alone, folder = config(main=stage("pretrain"), trial=-1_000_000), tmp_path / "alone"
    first = Trial(alone, folder, cache=tmp_path / "cache")
    first.advance()
    spent = first.advance().seconds
    first.close()
    looks = Looks(folder)
    resumed = Trial(alone, folder, cache=tmp_path / "cache", after=Beginning(heartbeat=looks, label="stage pretrain"))
    resumed.advance()
    text, seconds = looks.seen[0]
    assert text == "stage pretrain: 11 of 20 outer steps" and seconds >= spent > 0


def test_a_second_trial_takes_the_finished_stage(store: Path) -> None:
    (folder,) = folders(store)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != "lock"}
    trial = opened(config(trial=1, main=stage("other", steps=5, start="pretrain", rate=0.02)), store)
    (record,) = stages_of(trial)
    assert record["reused"] and record["digest"] == folder.name and record["name"] == "pretrain"
    assert {path: path.stat().st_mtime_ns for path in before} == before and folders(store) == [folder]


def test_the_first_report_alone_names_the_stages(tmp_path: Path) -> None:
    trial = opened(config(), tmp_path)
    (record,) = stages_of(trial)
    facts = read_stage(folders(tmp_path)[0])
    assert facts is not None and {**facts.to_json(), "starts": {}} == record
    assert not record["reused"] and record["steps"] == 20 and record["seconds"] > 0
    assert record["metric"] == "validation_loss" and record["method"] == "maml" and record["source"] == "sinusoid"
    assert not trial.advance().stages


def asked(one: TrialConfig, tmp_path: Path) -> str:
    """Return the digest of a trial's first stage."""
    (section, *_) = one.stages
    own = config_of(one, section)
    return digest_of(own, {}, data_digest(own, tmp_path / "cache"))


def test_what_decides_its_result_names_a_stage_and_nothing_else(tmp_path: Path) -> None:
    usual = asked(config(), tmp_path)
    for same in (
        config(stage("another_name")),
        config(main=stage("adapt", steps=15, start="pretrain", rate=0.5)),
        config(trial=7),
        replace(config(), search="second", repeat=2),
    ):
        assert asked(same, tmp_path) == usual
    for other in (
        config(stage("pretrain", steps=25)),
        config(stage("pretrain", rate=0.02)),
        replace(config(), seed=1),
        replace(config(), seeds=1),
    ):
        assert asked(other, tmp_path) != usual


def test_a_stage_after_a_stage_starts_from_it(store: Path) -> None:
    chain = config(stage("pretrain"), stage("middle", steps=5, start="pretrain"), trial=1)
    first, second = stages_of(opened(chain, store))
    assert first["reused"] and not second["reused"] and second["starts"] == {"pretrain": first["digest"]}
    phi = {digest: phi_of(folder) for digest, folder in stage_directories(store)}
    weight = next(name for name in phi[first["digest"]] if name.endswith("weight"))
    assert (phi[first["digest"]][weight] - phi[second["digest"]][weight]).abs().max() < 0.5


def test_layers_are_taken_from_a_stage_and_freeze(tmp_path: Path) -> None:
    main = stage("adapt", steps=5, start="pretrain")
    start = {**main["learner"]["initialization"], "layers": 1, "freeze": True}
    before, main["learner"]["architecture"] = stage("pretrain"), {"kind": "mlp", "hidden": [6, 5]}
    main["learner"]["initialization"] = start
    trial = finished(opened(config(before, main=main), tmp_path))
    taken = {name: value for name, value in phi_of(folders(tmp_path)[0]).items() if "layer0" in name}
    assert taken
    for name, value in taken.items():
        held = {**trial.phi, **trial.state.theta, **trial.state.fixed}
        assert torch.equal(next(one for key, one in held.items() if key.endswith(name.split("/")[-1])), value)


def test_only_what_a_trial_starts_from_is_trained(tmp_path: Path) -> None:
    trial = opened(config(stage("unused", steps=5), stage("pretrain", steps=5)), tmp_path)
    assert [one["name"] for one in stages_of(trial)] == ["pretrain"] and len(folders(tmp_path)) == 1


def test_a_stage_that_fails_is_named(tmp_path: Path) -> None:
    wild = stage("wild", rate=1e300)
    with pytest.raises(MetaloomError, match=r"^stage wild: its training, outer step \d+: .* is (nan|inf)"):
        opened(config(wild), tmp_path)
    assert not any((folder / names.STAGE_FILE).exists() for folder in folders(tmp_path))
    directory = tmp_path / "searches" / "first" / "trials" / "0000"
    assert at_stage(directory) is None


def test_a_damaged_stage_is_exported_again_from_its_checkpoint(store: Path) -> None:
    (folder,) = folders(store)
    kept = phi_of(folder)
    path = folder / names.STAGE_BUNDLE / names.META_KNOWLEDGE_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    (record,) = stages_of(opened(config(trial=1), store))
    assert not record["reused"]
    assert_equal(phi_of(folder), kept)
    assert load_bundle(folder / names.STAGE_BUNDLE).manifest["origin"]["stage"] == "pretrain"


def test_a_trial_with_a_checkpoint_needs_its_stages_no_more(store: Path) -> None:
    directory = store / "searches" / "first" / "trials" / "0000"
    uninterrupted = phi_of(directory)
    shutil.rmtree(directory)
    trial = opened(config(), store)
    trial.advance()
    trial.close()
    shutil.rmtree(store / names.STAGES_FOLDER)
    finished(opened(config(), store))
    assert_equal(phi_of(directory), uninterrupted)
    assert not (store / names.STAGES_FOLDER).exists()


@pytest.fixture(scope="module")
def processes() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["metaloom.workers.stages"])
    return context


def wait_until(true: Any, process: Any) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.002)


def test_a_trial_that_is_killed_in_a_stage_goes_on_from_its_checkpoint(
    done: Path, tmp_path: Path, processes: Any
) -> None:
    directory = tmp_path / "searches" / "first" / "trials" / "0000"
    process = processes.Process(target=run, args=(config(), tmp_path))
    process.start()
    wait_until(lambda: any(any((folder / "checkpoints").glob("*.json")) for folder in folders(tmp_path)), process)
    process.kill()
    process.join(60)
    assert not (directory / FINAL).exists() and not (folders(tmp_path)[0] / names.STAGE_FILE).exists()
    run(config(), tmp_path)
    assert [folder.name for folder in folders(tmp_path)] == [folder.name for folder in folders(done)]
    assert_equal(phi_of(folders(tmp_path)[0]), phi_of(folders(done)[0]))
    assert_equal(phi_of(directory), phi_of(done / "searches" / "first" / "trials" / "0000"))


def test_two_trials_at_once_train_a_stage_once(tmp_path: Path, processes: Any) -> None:
    long = stage("pretrain", steps=150)
    first = processes.Process(target=run, args=(config(long), tmp_path))
    first.start()
    trials = tmp_path / "searches" / "first" / "trials"
    wait_until(lambda: at_stage(trials / "0000") is not None, first)
    second = processes.Process(target=run, args=(config(long, trial=1), tmp_path))
    second.start()
    wait_until(lambda: (at := at_stage(trials / "0001")) is not None and at.waits, second)
    beats = {last_beat(trials / "0001")}
    while first.is_alive() and len(beats) < 3:
        beats.add(last_beat(trials / "0001"))
        time.sleep(0.05)
    assert len(beats) == 3  # the hang watch sees that it lives
    for process in (first, second):
        process.join(60)
        assert process.exitcode == 0
    assert [(trials / name / FINAL).exists() for name in ("0000", "0001")] == [True, True]
    (folder,) = folders(tmp_path)
    assert_equal(phi_of(folder), load_bundle(folder / names.STAGE_BUNDLE)._knowledge.phi)
