"""A search whose trials start from a stage: trained once, told everywhere, and resumed after kill -9."""

import json
import os
import re
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from mlflow.tracking import MlflowClient

from metaloom.dashboards import stage_rows
from metaloom.dashboards.queries import QueryError, episode_rows, search_record, search_summary
from metaloom.learners.errors import BadInput
from metaloom.orchestrator import housekeeping, stage_folders
from metaloom.orchestrator.api import resume, search
from metaloom.orchestrator.command_line import cli
from metaloom.orchestrator.export import export
from metaloom.orchestrator.hypergradient_check import check_experiment
from metaloom.orchestrator.retraining import experiment_of_bundle
from metaloom.orchestrator.tracking import client
from metaloom.search_spaces.experiment import Experiment
from metaloom.workers.bundle import load_bundle
from metaloom.workers.checkpoint import load_knowledge
from metaloom.workers.heartbeat import process_of
from metaloom.workers.records import names as records
from metaloom.workers.records.journal import Event
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.stages import AtStage, at_stage, note_at_stage, stage_directories
from tests.support.databases import copy_mlflow_database
from tests.support.processes import Process

if TYPE_CHECKING:
    from metaloom.orchestrator.executors.ray_cluster.connection import Connection

SHORT = {"meta_batch": 2, "validate_every": 5, "validation_episodes": 4, "test_episodes": 6, "strategy": "loop"}
NETWORK = {"kind": "mlp", "hidden": [8]}
SINE = {"source": "sinusoid", "shots": 5, "queries": 5}


def document(store: Path, steps: int = 20, **settings: Any) -> dict[str, Any]:
    """Return an experiment of two trials after one stage, and give its store MLflow's database."""
    store.mkdir(exist_ok=True)
    if not (store / client.MLFLOW_DATABASE).exists():
        copy_mlflow_database(store / client.MLFLOW_DATABASE)
    update = {"rate": 0.02, "steps": 1}
    rate = {"search": {"low": 0.0001, "high": 0.01, "log": True}}
    start = {"from": "pretrain"}
    return {
        "name": "first",
        "stages": [
            {
                "name": "pretrain",
                "tasks": SINE,
                "learner": {"method": "maml", "architecture": NETWORK, "update": update},
                "outer": {**SHORT, "steps": steps},
            },
            {
                "name": "adapt",
                "tasks": SINE,
                "learner": {"method": "meta_sgd", "architecture": NETWORK, "initialization": start},
                "outer": {**SHORT, "steps": 5, "rate": rate},
            },
        ],
        "search": {"trials": 2, "sampler": "random", **settings},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a finished search, for reading."""
    store = tmp_path_factory.mktemp("store")
    assert search(document(store), store=store, executor="inline").state == "finished"
    return store


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store"))


def test_the_second_trial_reuses_what_the_first_has_trained(finished: Path) -> None:
    summary = search_summary(finished, "first")
    (stage,) = summary["stages"]
    assert stage["name"] == "pretrain" and stage["trials"] == [0, 1] and stage["trained_by"] == 0
    assert stage["steps"] == 20 and stage["seconds"] > 0 and stage["metric"] == "validation_loss"
    ((digest, folder),) = stage_directories(finished)
    assert stage["digest"] == digest and not any((folder / name).exists() for name in (records.HEARTBEAT_FILE,))
    trials = search_record(finished, "first").trials
    assert [one.stages[0]["reused"] for one in trials.values()] == [False, True]
    for number in trials:
        assert not (finished / "searches/first/trials" / f"{number:04d}" / records.AT_STAGE_FILE).exists()


def test_show_and_the_report_list_the_stages(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["show", "first", "--store", str(finished)]) == 0
    assert re.search(r"pretrain +[0-9a-f]{12} +maml +sinusoid +loss \d", capfd.readouterr().out)
    assert cli.run(["show", "first", "--json", "--store", str(finished)]) == 0
    (row,) = json.loads(capfd.readouterr().out)["stages"]
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    assert all(f"stages[].{name}" in page for name in row)


def test_the_episodes_of_a_stage_are_read(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = episode_rows(finished, "first", stage="pretrain", phase="validation", limit=None)
    assert found.total == 16 and {row["step"] for row in found.rows} == {5, 10, 15, 20}
    assert {(row["search"], row["trial"]) for row in found.rows} == {("first", None)}
    begun = stage_rows.stage_folders(finished, finished / "searches" / "first", SearchRecord())  # before any report
    assert begun == {"pretrain": [folder for _, folder in stage_directories(finished)]}
    with pytest.raises(QueryError, match="did you mean 'pretrain'"):
        episode_rows(finished, "first", stage="pretran")
    assert cli.run(["episodes", "first", "--stage", "pretrain", "--trial", "1", "--store", str(finished)]) == 0


def test_mlflow_has_the_stages_of_a_trial(finished: Path) -> None:
    tracked = search_summary(finished, "first")
    connection = MlflowClient(f"sqlite:///{finished / client.MLFLOW_DATABASE}")
    run = connection.get_run(tracked["trials"][1]["run_id"])
    assert run.data.params["stages.pretrain.outer.steps"] == "20"
    assert run.data.params["stages.pretrain.learner.method"] == "maml"
    assert run.data.tags["metaloom.stage.pretrain"].startswith(tracked["stages"][0]["digest"])
    parent = connection.get_run(tracked["parent_run_id"])
    assert parent.data.params["stages.adapt.learner.method"] == "meta_sgd"


def test_a_bundle_tells_its_stages_and_needs_none_of_their_folders(store: Path, tmp_path: Path) -> None:
    shutil.move(store, tmp_path / "moved")  # stages are found in the store, wherever it is
    bundle = export("first", tmp_path / "bundle", store=tmp_path / "moved", episodes=4)
    shutil.rmtree(tmp_path / "moved")
    loaded = load_bundle(bundle)
    assert "## Its stages" in loaded.card and "| pretrain | maml |" in loaded.card
    assert loaded.manifest["origin"]["stages"][0]["name"] == "pretrain"
    model = loaded.adapt(torch.rand(5, 1), torch.rand(5, 1))
    assert model.predict(torch.rand(3, 1)).shape == (3, 1)
    again = experiment_of_bundle(bundle)
    assert [stage["name"] for stage in again.document["stages"]] == ["pretrain", "adapt"]
    start = again.document["stages"][1]["learner"]["initialization"]
    assert (start["kind"], start["from"]) == ("fine_tuned", "pretrain") and "bundle" not in start


def test_another_search_and_a_training_reuse_a_stage(store: Path) -> None:
    search({**document(store), "name": "second"}, store=store, executor="inline", trials=1)
    (stage,) = search_summary(store, "second")["stages"]
    assert stage["trained_by"] is None and len(list(stage_directories(store))) == 1
    assert [one.searches for one in stage_folders.contents(store)] == [("first", "second")]
    assert housekeeping.remove("second", store=store, dry_run=True).stages == ()
    housekeeping.remove("second", store=store)
    assert stage_folders.unused(store) == []
    assert housekeeping.remove("first", store=store).stages == (stage["digest"],)
    assert list(stage_directories(store)) == []


def test_a_stage_that_no_search_uses_is_listed_and_cleaned(store: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ((digest, folder),) = stage_directories(store)
    shutil.copytree(folder, folder.with_name("0" * 32))
    assert cli.run(["cache", "--store", str(store)]) == 0
    told = capfd.readouterr().out
    assert f"stage pretrain {digest}" in told and "no search uses it" in told
    assert cli.run(["cache", "--clean", "--store", str(store)]) == 0
    assert [one for one, _ in stage_directories(store)] == [digest]


def test_a_failed_stage_fails_the_trial_by_its_name(tmp_path: Path) -> None:
    store = tmp_path / "store"
    given = document(store)
    given["stages"][0]["outer"]["rate"] = 1e30
    assert search(given, store=store, executor="inline", trials=1).state == "failed"
    error = search_summary(store, "first")["trials"][0]["error"]
    assert error.startswith("stage pretrain: its training, outer step")
    assert "a smaller stages.pretrain.outer.rate (now 1e+30)" in error


def test_a_spent_time_budget_ends_a_trial_in_its_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metaloom.orchestrator.executors.watching.BUDGET_GRACE_S", 0.5)
    store = tmp_path / "store"
    search(document(store, steps=100_000, time_budget_s=1.0), store=store, executor="inline", trials=1)
    (trial,) = search_summary(store, "first")["trials"]
    assert trial["state"] == "stopped" and trial["steps"] == 0
    ((_, folder),) = stage_directories(store)
    assert not (folder / records.STAGE_FILE).exists()


def test_what_another_process_is_at_is_told(tmp_path: Path) -> None:
    note_at_stage(tmp_path, AtStage("pretrain", 400, 2000))
    assert AtStage("pretrain", 400, 2000).text == "stage pretrain: 400/2,000 outer steps"
    assert AtStage("pretrain", 0, 2000, waits=True).text == "stage pretrain: another trial trains it"


def phi_of(store: Path, trial: int) -> Mapping[str, torch.Tensor]:
    return load_knowledge(store / "searches" / "first" / "trials" / f"{trial:04d}").phi


def assert_same_phi(store: Path, other: Path) -> None:
    for trial in (0, 1):
        ours, theirs = phi_of(store, trial), phi_of(other, trial)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_search_killed_in_a_stage_is_resumed_bit_for_bit(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, file = tmp_path / "store", tmp_path / "first.yaml"
    file.write_text(Experiment(**document(store)).to_yaml())
    process = Process("-m", "metaloom", "search", str(file), "--executor", "inline", "--store", str(store))
    deadline = time.monotonic() + 120
    while not any(any((folder / "checkpoints").glob("*.json")) for _, folder in stage_directories(store)):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    ((digest, folder),) = stage_directories(store)
    assert not (folder / records.STAGE_FILE).exists()
    assert_spared(store, digest, capfd)
    parts = list((folder / "episodes").glob("part-*"))  # none where it was killed before its first checkpoint
    assert bool(episode_rows(store, "first", stage="pretrain", trial=0).total) == bool(parts)
    assert resume("first", store, executor="inline").state == "finished"
    assert_same_phi(store, finished)
    assert values(store) == values(finished)


def assert_spared(store: Path, digest: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Assert that the unfinished stage of an interrupted search is listed as such, and not removed without it."""
    (stage,) = stage_folders.contents(store)
    assert (stage.name, stage.finished, stage.searches, stage.needed_by) == ("pretrain", False, (), ("first",))
    assert stage_folders.unused(store) == []
    assert housekeeping.remove("first", store=store, dry_run=True).stages == (digest,)
    capfd.readouterr()
    assert cli.run(["cache", "--clean", "--store", str(store)]) == 0
    told = capfd.readouterr().out
    assert f"left: stage pretrain (not finished) {digest}" in told and "needed by first to go on" in told


def values(store: Path) -> list[tuple[Any, ...]]:
    """Return the objectives of all reports, by trial and step, as the journal has them."""
    with closing(sqlite3.connect(store / "searches" / "first" / records.JOURNAL_FILE)) as journal:
        rows = journal.execute("SELECT trial, payload FROM events WHERE kind = 'trial_reported' ORDER BY id").fetchall()
    reports = [(trial, json.loads(payload)["report"]) for trial, payload in rows]
    return [(trial, one["step"], one["metrics"]["validation_loss"], one["scores"]) for trial, one in reports]


class KillsAWorker:
    """A progress that kills the worker of the first trial as soon as its stage has a checkpoint."""

    def __init__(self, store: Path) -> None:
        self.store, self.killed = store, 0

    def update(self, event: Event, state: SearchRecord) -> None:
        if event.kind == records.TRIAL_STARTED and not self.killed:
            self.killed = 1
            threading.Thread(target=self.kill, daemon=True).start()

    def kill(self) -> None:
        while not any(any((folder / "checkpoints").glob("*.json")) for _, folder in stage_directories(self.store)):
            time.sleep(0.002)
        folders = (self.store / "searches" / "first" / "trials").glob("*")
        (trainer,) = [one for one in folders if (at := at_stage(one)) is not None and not at.waits]
        os.kill(process_of(trainer).pid, signal.SIGKILL)


def test_trials_of_ray_share_a_stage_whose_worker_is_killed(local_ray: "Connection", tmp_path: Path) -> None:
    store, reference = tmp_path / "store", tmp_path / "reference"
    progress = KillsAWorker(store)
    ended = search(document(store, steps=400), store=store, executor="ray", concurrency=2, progress=progress)
    assert ended.state == "finished" and progress.killed
    assert sum(trial.lost for trial in search_record(store, "first").trials.values()) == 1
    (stage,) = search_summary(store, "first")["stages"]
    assert stage["trials"] == [0, 1] and stage["trained_by"] in (0, 1)
    search(document(reference, steps=400), store=reference, executor="inline")
    assert [one for one, _ in stage_directories(store)] == [one for one, _ in stage_directories(reference)]
    assert_same_phi(store, reference)


def test_the_check_compares_the_knobs_of_every_stage(finished: Path, tmp_path: Path) -> None:
    checked = check_experiment(document(tmp_path / "store"), store=tmp_path / "store")
    assert {"learner.initialization", "learner.update.rate", "stages.pretrain.learner.initialization"} <= set(
        checked["knobs"]
    )
    assert max(checked["knobs"].values()) < 1e-6


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        (
            ("stages", 1, "learner", "architecture"),
            {"kind": "mlp", "hidden": [9]},
            r"stage adapt: learner\.initialization: it",
        ),
        (("stages", 0, "tasks"), {"source": "glyphs", "shots": 9999}, r"stage pretrain: "),
    ],
)
def test_stages_that_do_not_fit_are_refused_before_anything_is_written(
    path: tuple[Any, ...], value: Any, place: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    given: Any = document(store)
    at = given
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    with pytest.raises(BadInput, match=place):
        search(given, store=store, executor="inline")
    assert not list(store.glob("searches/*")) and not list(store.glob("stages/*"))


def test_data_and_networks_of_python_belong_into_a_stage(tmp_path: Path) -> None:
    given = document(tmp_path / "store")
    with pytest.raises(BadInput, match="the experiment has stages, each with its own tasks"):
        search(given, store=tmp_path / "store", tasks=(torch.rand(20, 3), torch.rand(20)), executor="inline")
    with pytest.raises(BadInput, match="the experiment has stages; give each its own"):
        search(given, store=tmp_path / "store", network="tests.support.modules:Perceptron", executor="inline")
