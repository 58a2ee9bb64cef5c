"""search, train and resume from Python, on the real sine tasks, without Ray; and what they refuse."""

import os
import re
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from metaloom.dashboards.queries import search_summary
from metaloom.learners.errors import BadEnvironment, BadInput
from metaloom.orchestrator import api
from metaloom.orchestrator.api import resume, search, train
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.store import MINIMUM_FREE_BYTES, Store
from metaloom.search_spaces.loading import load_experiment
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.journal import Event
from metaloom.workers.records.results import mean_interval
from metaloom.workers.records.search import SearchRecord
from metaloom.workers.records.trial import read_config
from tests.support import processes
from tests.support.databases import copy_mlflow_database
from tests.support.journals import remove_copies, rewrite

FILE = """\
tasks: {source: sinusoid, shots: 5, queries: 5}
learner:
  method: maml
  architecture: {kind: mlp, hidden: [8]}
  update: {rate: {search: {low: 0.001, high: 0.05, log: true}}, steps: 1}
outer: {steps: 4, meta_batch: 2, validate_every: 2, validation_episodes: 4, test_episodes: 6, strategy: loop}
search: {trials: 2, sampler: random}
tracking: {uri: "sqlite:///%s"}
"""


class CutAfter:
    """A progress that ends the process's search like kill -9 would: from inside, after so many reports."""

    def __init__(self, reports: int) -> None:
        self.left = reports

    def update(self, event: Event, state: SearchRecord) -> None:
        self.left -= event.kind == records.TRIAL_REPORTED
        if self.left == 0:
            raise KilledError


class KilledError(BaseException):
    """Stands for the process's end."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sine.yaml"
    path.write_text(FILE % (tmp_path / "mlflow.db"))
    copy_mlflow_database(tmp_path / "mlflow.db")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the finished search ``first``, which was not interrupted; for reading."""
    folder = tmp_path_factory.mktemp("finished")
    copy_mlflow_database(folder / "mlflow.db")
    (folder / "sine.yaml").write_text(FILE % (folder / "mlflow.db"))
    search(folder / "sine.yaml", store=folder / "store", executor="inline", name="first")
    return folder / "store"


@pytest.fixture
def begun(finished: Path, tmp_path: Path) -> Path:
    """A store with the finished search ``first``."""
    return Path(shutil.copytree(finished, tmp_path / "store"))


def state_of(store: Path, name: str) -> SearchRecord:
    return SearchRecord.replay(Journal(Store(store).folder(name), read_only=True).events())


def values(state: SearchRecord) -> dict[int, Any]:
    return {n: (t.state, t.knobs, t.values, [r.scores for r in t.reports]) for n, t in state.trials.items()}


def test_a_search_is_recorded_tested_compared_and_private(tmp_path: Path, file: Path) -> None:
    overrides = ["search.baselines=[fine_tuning]"]
    summary = search(file, store=tmp_path / "store", executor="inline", overrides=overrides)
    assert (summary.name, summary.state, summary.exit_code) == ("sine", "finished", 0)
    assert summary.tested is not None and summary.tested["trial"] == summary.best
    assert [one["method"] for one in summary.baselines] == ["fine_tuning"]
    assert summary.tested["evaluation"]["episodes"] == summary.baselines[0]["evaluation"]["episodes"] == 6
    assert not summary.backlogs and not summary.notes
    folder = tmp_path / "store" / "searches" / "sine"
    assert (folder / "experiment.yaml").read_text().startswith(file.read_text())
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    again = resume("sine", tmp_path / "store")
    assert again.exit_code == 0 and "nothing to resume" in again.notes[0]


def test_a_search_whose_time_was_too_short_tests_the_best_of_what_it_stopped(tmp_path: Path, file: Path) -> None:
    overrides = ["outer.steps=1000000", "outer.validate_every=2", "search.trials=2", "search.baselines=[fine_tuning]"]
    summary = search(file, store=tmp_path / "store", executor="inline", overrides=overrides, time_budget_s=1.5)
    shown = search_summary(tmp_path / "store", "sine")
    assert {trial["state"] for trial in shown["trials"]} == {"stopped"}
    assert (summary.best, summary.value) == (shown["best"]["id"], shown["best"]["value"])
    assert summary.tested is not None and summary.tested["trial"] == summary.best
    assert summary.baselines[0]["best_better_by"] is not None
    done = processes.run("-m", "metaloom", "show", "sine", "--store", str(tmp_path / "store"), check=True)
    assert re.search(r"The time budget has ended the search: .* of .* are spent, 1 of 2 trials were tried", done.stdout)


def test_a_search_that_its_budget_ended_is_told_and_extended(tmp_path: Path, file: Path, finished: Path) -> None:
    store, baselines = tmp_path / "store", ["search.baselines=[fine_tuning]"]
    cut = search(file, store=store, executor="inline", overrides=baselines, time_budget_s=1e-3)
    (note,) = cut.notes
    said = "the time budget of 0.001 s is spent: 1 of 2 trials were tried; extend it by: metaloom resume sine"
    assert note == f"{said} --store {store} --time-budget 0.002"
    assert (cut.state, cut.exit_code) == ("finished", 0) and cut.tested is not None
    assert resume("sine", store).notes == (note,)
    with pytest.raises(BadInput, match=r"has spent [0-9.]+ s, so --time-budget 0.001 is no more time"):
        resume("sine", store, time_budget_s=1e-3)
    command = ["-m", "metaloom", "resume", "sine", "--time-budget", "600", "--store", str(store)]
    shown = processes.run(*command, check=True)
    assert "sine finished" in shown.stdout and "time budget" not in shown.stdout + shown.stderr
    extended = state_of(store, "sine")
    assert values(extended) == values(state_of(finished, "first")) and not extended.out_of_time
    assert extended.tested is not None and [one["method"] for one in extended.baselines] == ["fine_tuning"]
    again = resume("sine", store, time_budget_s=700.0)
    assert "has ended already (finished); there is nothing to resume" in again.notes[0]


def test_the_searched_experiment_with_some_knobs_given_is_a_baseline(tmp_path: Path, file: Path) -> None:
    overrides = ["search.baselines=[{learner.update.rate: 0.05}, {}]", "search.trials=1"]
    store = tmp_path / "store"
    summary = search(file, store=store, executor="inline", overrides=overrides)
    assert [one["method"] for one in summary.baselines] == ["learner.update.rate=0.05", "defaults"]
    folder = store / "searches" / "sine" / "baselines"
    rates = {path.name: read_config(path).learner["update"]["rate"] for path in folder.iterdir()}
    assert set(rates) == {"learner.update.rate=0.05", "defaults"} and rates["learner.update.rate=0.05"] == 0.05
    assert rates["defaults"] != 0.05
    assert summary.baselines[0]["evaluation"]["scores"] != summary.baselines[1]["evaluation"]["scores"]


def test_the_baselines_of_the_sine_preset_are_all_tested(tmp_path: Path) -> None:
    overrides = ["outer.steps=2", "outer.meta_batch=2", "outer.test_episodes=20", "outer.strategy=loop"]
    summary = train("sinusoid-maml", store=tmp_path / "store", overrides=overrides)
    assert [one["method"] for one in summary.baselines] == ["fine_tuning, update=sgd", "joint_pretraining"]


def test_a_baseline_that_diverges_is_no_numbered_trial(tmp_path: Path, file: Path) -> None:
    overrides = ["search.baselines=[{method: fine_tuning, update: {kind: sgd, rate: 1.0e9, steps: 10}}]"]
    summary = train(file, store=tmp_path / "store", overrides=overrides)
    (note,) = (one for one in summary.notes if "could not be tested" in one)
    assert note.startswith("baseline fine_tuning, update=sgd could not be tested: its training, outer step 0: the loss")


def test_the_best_is_compared_with_each_baseline_episode_by_episode(tmp_path: Path, file: Path) -> None:
    overrides = ["search.baselines=[fine_tuning, {tasks.shots: 5}, {tasks.shots: 9}]", "search.trials=1"]
    file.write_text(file.read_text().replace("shots: 5", "shots: {search: [5, 9]}"))
    search(file, store=tmp_path / "store", executor="inline", overrides=overrides)
    summary = search_summary(tmp_path / "store", "sine")
    best, folder = summary["test"]["evaluation"], tmp_path / "store" / "searches" / "sine"
    tasks = read_config(folder / "trials" / "0000").tasks
    assert best["metric"] == "loss"
    for one in summary["baselines"]:
        expected = None
        if read_config(folder / "baselines" / one["method"]).tasks == tasks:  # with other shots, episodes are others
            pairs = zip(best["scores"], one["evaluation"]["scores"], strict=True)
            mean, low, high = mean_interval([theirs - ours for ours, theirs in pairs])
            assert mean == pytest.approx(one["evaluation"]["mean"] - best["mean"])
            expected = {"mean": mean, "interval": [low, high], "episodes": 6}
        assert one["best_better_by"] == expected
    assert {one["best_better_by"] is None for one in summary["baselines"]} == {True, False}


def test_a_baseline_that_trains_on_other_samples_is_asked_the_same(tmp_path: Path) -> None:
    experiment = {
        "name": "digits",
        "tasks": {"source": "digits", "batch": 50, "queries": 100, "train_on": {"search": ["both", "meta"]}},
        "learner": {"method": "cross_entropy", "architecture": {"kind": "mlp", "hidden": [8]}},
        "outer": {"steps": 20, "validate_every": 20},
        "search": {"trials": 1, "baselines": [{"tasks.train_on": "meta"}, {"tasks.train_on": "both"}]},
    }
    search(experiment, store=tmp_path / "store", executor="inline")
    summary = search_summary(tmp_path / "store", "digits")
    best = summary["test"]["evaluation"]
    assert best["metric"] == "accuracy" and len(summary["baselines"]) == 2
    for one in summary["baselines"]:
        pairs = zip(best["scores"], one["evaluation"]["scores"], strict=True)
        mean, low, high = mean_interval([ours - theirs for ours, theirs in pairs])
        told = one["best_better_by"]
        assert (told["mean"], *told["interval"]) == pytest.approx((mean, low, high)) and told["episodes"] == 5


def test_a_search_killed_and_resumed_equals_the_uninterrupted_one(tmp_path: Path, file: Path, finished: Path) -> None:
    with pytest.raises(KilledError):
        search(file, store=tmp_path / "cut", executor="inline", progress=CutAfter(2))
    with pytest.raises(KilledError):
        resume("sine", tmp_path / "cut", progress=CutAfter(1))
    summary = resume("sine", tmp_path / "cut")
    assert summary.state == "finished"
    assert values(state_of(tmp_path / "cut", "sine")) == values(state_of(finished, "first"))


@pytest.mark.parametrize("copies", [True, False], ids=["with copies", "without"])
def test_a_search_whose_journal_is_damaged_is_resumed_to_the_same_end(
    tmp_path: Path, file: Path, finished: Path, copies: bool
) -> None:
    with pytest.raises(KilledError):
        search(file, store=tmp_path / "cut", executor="inline", progress=CutAfter(3))
    folder = Store(tmp_path / "cut").folder("sine")
    if not copies:
        remove_copies(folder)
    with closing(sqlite3.connect(folder / records.JOURNAL_FILE)) as database, database:
        database.execute("UPDATE events SET payload = payload || ' ' WHERE kind = 'trial_reported'")
    done = processes.run("-m", "metaloom", "resume", "sine", "--store", str(tmp_path / "cut"), check=True)
    assert "the journal was damaged: " in done.stdout and ("lost: event " in done.stdout) != copies
    assert values(state_of(tmp_path / "cut", "sine")) == values(state_of(finished, "first"))


def test_a_search_that_left_no_record_is_begun_by_the_same_command(tmp_path: Path, file: Path) -> None:
    folder = Store(tmp_path / "store").create().new_folder("mine")
    (folder / records.JOURNAL_FILE).write_bytes(b"SQLite format 3" + bytes(100))
    with pytest.raises(BadInput, match=r"search 'mine' has no records: .*begin it by the same command"):
        resume("mine", tmp_path / "store")
    assert search(file, store=tmp_path / "store", name="mine", executor="inline").state == "finished"
    assert (folder / f"{records.JOURNAL_FILE}.damaged-1").is_file()


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.faults)])
def test_a_damaged_checkpoint_is_told_and_recorded(tmp_path: Path, file: Path, finished: Path, executor: str) -> None:
    with pytest.raises(KilledError):
        search(file, store=tmp_path / "cut", executor="inline", progress=CutAfter(1))
    trial = Store(tmp_path / "cut").folder("sine") / "trials" / "0000"
    (newest,) = (trial / records.CHECKPOINTS_FOLDER).glob("*.safetensors")
    newest.write_bytes(b"")
    command = ["-m", "metaloom", "resume", "sine", "--executor", executor]
    done = processes.run(*command, "--store", str(tmp_path / "cut"), check=True)
    assert "trial 0: checkpoint 1 is damaged" in done.stderr and "started again from step 0" in done.stderr
    first, second = search_summary(tmp_path / "cut", "sine")["trials"]
    # so short a trial may learn nothing, which is told too
    told = [[text for text in one["warnings"] if "nothing that helps" not in text] for one in (first, second)]
    assert told[0][-1] == "no checkpoint is left: started again from step 0" and not told[1]
    assert values(state_of(tmp_path / "cut", "sine")) == values(state_of(finished, "first"))


def test_a_resume_after_the_file_changed_says_what_changed(tmp_path: Path, file: Path) -> None:
    with pytest.raises(KilledError):
        search(file, store=tmp_path / "store", executor="inline", progress=CutAfter(1))
    file.write_text(file.read_text().replace("steps: 4", "steps: 6"))
    with pytest.raises(BadInput, match=r"outer\.steps was 4, is 6") as refused:
        resume("sine", tmp_path / "store")
    assert "learner" not in str(refused.value)
    file.unlink()
    assert resume("sine", tmp_path / "store").state == "finished"  # the search has its own copy


def test_a_resume_on_other_data_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    rows = [f"{row % 20 + row / 100},k{row % 20}\n" for row in range(200)]
    table.write_text("x,kind\n" + "".join(rows))
    tasks = {"source": "table", "path": str(table), "label": "kind", "ways": 2, "shots": 1, "queries": 1}
    small = {"steps": 4, "validate_every": 2, "validation_episodes": 3, "test_episodes": 3}
    experiment = {"name": "own", "tasks": tasks, "learner": "prototypical", "outer": small}
    with pytest.raises(KilledError):
        search(experiment, store=tmp_path / "store", trials=1, executor="inline", progress=CutAfter(1))
    table.write_text("x,kind\n" + "".join(["0.5,k0\n", *rows[1:]]))
    with pytest.raises(BadInput, match=r"the data of .*table\.csv have changed since search 'own' was begun"):
        resume("own", tmp_path / "store")
    table.unlink()
    with pytest.raises(BadInput, match=r"there is no file .*table\.csv"):
        resume("own", tmp_path / "store")
    table.write_text("x,kind\n" + "".join(rows))  # the same again, at another time
    assert resume("own", tmp_path / "store").state == "finished"


@pytest.mark.parametrize(
    ("baselines", "message"),
    [
        ([{"learner.update.rate": "learn-2"}], "update.rate cannot be learn-2: it is searched in .*learn.per=scalar"),
        ([], "for which its file means something else; resume it with that version, or begin a new search"),
    ],
)
def test_a_search_begun_when_labels_were_others_is_refused(
    tmp_path: Path, file: Path, baselines: list[Any], message: str
) -> None:
    rate = "learner.update.rate={search: [{learn: {per: layer}}, {learn: {per: scalar}}]}"
    with pytest.raises(KilledError):
        search(file, store=tmp_path / "store", executor="inline", overrides=[rate], progress=CutAfter(1))

    def changed(events: list[Event]) -> list[Event]:
        events[0].payload["experiment"]["search"]["baselines"] = baselines
        events[0].payload["fingerprint"] = "of a version in which they were learn and learn-2"
        return events

    rewrite(tmp_path / "store" / "searches" / "sine", changed)
    with pytest.raises(BadInput, match=f"was begun by another version of metaloom.*{message}"):
        resume("sine", tmp_path / "store")


def test_train_takes_defaults_and_says_so(tmp_path: Path, file: Path) -> None:
    summary = train(file, store=tmp_path / "store")
    assert "1 searched knob took the default" in summary.notes[0]
    (trial,) = state_of(tmp_path / "store", "sine").trials.values()
    assert trial.origin == "defaults" and trial.state == records.FINISHED


def test_a_warm_start_takes_the_best_of_an_earlier_search(begun: Path, file: Path) -> None:
    warm = ["search.warm_start={search: first, trials: 1}"]
    search(file, store=begun, executor="inline", name="second", overrides=warm, trials=1)
    first, second = state_of(begun, "first"), state_of(begun, "second")
    best = ranking.best(first)
    assert best is not None
    assert second.trials[0].params == best.params and second.trials[0].origin == f"warm_start:first/{best.number}"


def test_a_warm_start_takes_a_knob_recorded_under_its_old_name(tmp_path: Path, file: Path) -> None:
    document = load_experiment(file).document
    rest = {name: value for name, value in document["outer"].items() if name not in ("tasks", "meta_batch")}
    for name, knob in (("first", "tasks"), ("second", "meta_batch")):
        outer = {**rest, knob: {"search": [1, 2]}}
        given = {**document, "outer": outer, "search": {"warm_start": "first"} if name == "second" else {}}
        search(given, store=tmp_path / "store", executor="inline", trials=1, name=name)
    first, second = (state_of(tmp_path / "store", name).trials[0].params for name in ("first", "second"))
    assert second["outer.meta_batch"] == first["outer.tasks"]


def test_what_a_warm_start_cannot_take_is_said(begun: Path, file: Path) -> None:
    elsewhere = ["learner.update.rate={search: {low: 0.5, high: 0.6}}", "search.warm_start=first"]
    summary = search(file, overrides=elsewhere, store=begun, executor="inline", trials=1)
    (note,) = summary.notes
    assert "warm_start leaves out values that this search cannot take" in note
    assert re.search(r"learner\.update\.rate \(0\.\d+ is outside its range here\)", note)
    fixed = ["learner.update.rate=0.01", "search.warm_start=first"]
    summary = search(file, overrides=fixed, store=begun, executor="inline", trials=1)
    assert "learner.update.rate (no searched knob here)" in summary.notes[0]


def test_a_warm_start_from_no_search_names_its_place(begun: Path, file: Path) -> None:
    with pytest.raises(
        BadInput, match=r"^--set search\.warm_start=frist: search\.warm_start: no search is named 'frist'"
    ):
        search(file, overrides=["search.warm_start=frist"], store=begun, executor="inline")


def test_a_name_in_use_is_refused_and_one_from_the_files_name_is_numbered(begun: Path, file: Path) -> None:
    with pytest.raises(BadInput, match=r"exists already.*metaloom resume first.*--name"):
        search(file, store=begun, executor="inline", name="first")
    assert search(file, store=begun, executor="inline", trials=1).name == "sine"
    assert search(file, store=begun, executor="inline", trials=1).name == "sine-2"


@pytest.mark.parametrize("name", ["../evil", "/abs", "a/b", ".hidden", "", "x" * 81, "a\nb"])
def test_a_name_cannot_leave_the_store(tmp_path: Path, file: Path, name: str) -> None:
    with pytest.raises(BadInput, match="cannot be named"):
        search(file, store=tmp_path / "store", executor="inline", name=name)
    with pytest.raises(BadInput, match="cannot be named"):
        resume(name, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_bad_input_leaves_nothing_behind(tmp_path: Path, file: Path) -> None:
    for bad in (["search.warm_start={search: absent}"], ["search.trials=0"]):
        with pytest.raises(BadInput):
            search(file, store=tmp_path / "store", executor="inline", overrides=bad)
    with pytest.raises(BadInput, match="did you mean 'inline'"):
        search(file, store=tmp_path / "store", executor="inlin")
    with pytest.raises(BadInput, match="no search"):
        resume("absent", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_store_that_cannot_be_written_is_the_environments_fault(tmp_path: Path, file: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(BadEnvironment) as refused:
        search(file, store=tmp_path / "occupied" / "store", executor="inline")
    assert refused.value.exit_code == 3
    if os.path.ismount("/proc"):
        with pytest.raises(BadEnvironment):
            search(file, store="/proc/metaloom-store", executor="inline")


def test_a_nearly_full_disk_is_said_before_anything_starts(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("metaloom.orchestrator.store.MINIMUM_FREE_BYTES", 2**60)
    with pytest.raises(BadEnvironment, match="are free on the disk"):
        search(file, store=tmp_path / "store", executor="inline")
    assert MINIMUM_FREE_BYTES < 2**30


def test_the_public_names_are_these() -> None:
    import metaloom

    assert metaloom.search is api.search and metaloom.train is api.train and metaloom.resume is resume
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = metaloom.serach


def test_a_search_is_read_by_its_name(tmp_path: Path, file: Path) -> None:
    import metaloom

    summary = metaloom.train(file, name="read", store=tmp_path / "store")
    read = metaloom.load_search("read", store=tmp_path / "store")
    assert (read.state, len(read.trials)) == (summary.state, 1)
    with pytest.raises(BadInput, match="did you mean 'read'"):
        metaloom.load_search("raed", store=tmp_path / "store")


def test_a_cluster_without_a_token_is_joined_only_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(BadInput, match="RAY_AUTH_MODE=token, or pass --insecure-cluster"):
        api.RunOptions(address="10.0.0.1:6379")
    assert api.RunOptions(address="10.0.0.1:6379", insecure_cluster=True).address
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert api.RunOptions(address="10.0.0.1:6379").address


def test_a_machine_at_fault_is_told_with_the_command_that_resumes(tmp_path: Path, file: Path) -> None:
    with pytest.raises(BadEnvironment, match=r"cannot reach a Ray cluster at 127\.0\.0\.1:9") as caught:
        search(file, store=tmp_path / "a store", address="127.0.0.1:9", insecure_cluster=True)
    resuming = f"metaloom resume sine --store '{tmp_path / 'a store'}'"
    assert caught.value.__notes__ == [f"what was recorded is intact; go on with: {resuming}"]
    assert resume("sine", tmp_path / "a store", executor="inline").state == "finished"


def test_a_ray_clients_address_is_refused_with_what_to_give_in_its_place() -> None:
    with pytest.raises(BadInput, match="--address HOST:PORT of its head"):
        api.RunOptions(address="ray://10.0.0.1:10001", insecure_cluster=True)
