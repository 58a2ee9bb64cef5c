"""The command line, command by command, on one small real search."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metaloom.orchestrator.command_line import cli, registry
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.journal import Journal
from metaloom.workers.records import names as records
from metaloom.workers.records.episode import EPISODE_COLUMNS
from tests.support.journals import rewrite
from tests.support.processes import Process

SMALL = [
    *("--set", "outer.steps=4", "--set", "outer.validate_every=2", "--set", "outer.meta_batch=2"),
    *("--set", "outer.validation_episodes=4", "--set", "outer.test_episodes=6", "--set", "outer.strategy=loop"),
]
SHOW = {"name", "state", "tracking_uri", "experiment_id", "parent_run_id", "objectives", "best", "trials"}
TRIAL = {"id", "state", "value", "interval", "episodes", "knobs", "steps", "seconds", "run_id", "error"}


class Outcome:
    """What a command printed and returned."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Any


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command here, and captures the file descriptors themselves."""

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the finished search ``first``."""
    folder = tmp_path_factory.mktemp("store")
    command = ["search", "quick", "--name", "first", "--trials", "2", "--executor", "inline", *SMALL]
    assert cli.run([*command, "--store", str(folder), "--json"]) == 0
    return folder


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from metaloom.orchestrator.command_line import cli, registry\n"
        "cli.run(['--help']); [cli.run([name, '--help']) for name in registry.built_in()]\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pyarrow', 'pandas', 'matplotlib', 'rich', 'numpy'};"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "set()"


def test_the_command_is_also_a_module() -> None:
    ended = subprocess.run([sys.executable, "-m", "metaloom", "show", "x", "--store", "nowhere"], capture_output=True)
    assert ended.returncode == 2 and b"no search is named 'x'" in ended.stderr


@pytest.mark.parametrize("command", registry.built_in())
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    told = run(command, "--help")
    assert told.code == 0
    assert f"  metaloom {command}" in told.out.partition("Example:")[2]
    assert ("--store DIR" in told.out) == (command not in ("data", "serve", "simulate"))  # which need no store
    assert "--json" in told.out


def test_a_search_ends_with_its_best_trial_and_how_to_go_on(run: Run, tmp_path: Path) -> None:
    told = run("search", "quick", "--trials", "1", "--executor", "inline", *SMALL, "--store", tmp_path)
    assert told.code == 0
    assert "trial 0 (best)" in told.out
    assert str(tmp_path / "searches" / "quick") in told.out
    assert f"metaloom ui --store {tmp_path}" in told.out
    assert f"metaloom export quick --trial best --out quick-bundle --store {tmp_path}" in told.out
    assert "metaloom adapt quick-bundle --support SUPPORT.csv" in told.out
    assert "[1/1] trial 0 finished" in told.err
    again = run("search", "quick", "--name", "quick", "--store", tmp_path)
    assert (again.code, again.out) == (2, "")
    assert "metaloom resume quick" in again.err


def test_show_is_the_documented_document(run: Run, store: Path) -> None:
    document = run("show", "first", "--store", store, "--json").document
    assert set(document) >= SHOW
    assert all(set(trial) >= TRIAL for trial in document["trials"])
    assert [trial["state"] for trial in document["trials"]] == ["finished", "finished"]
    assert all(len(trial["run_id"]) == 32 for trial in document["trials"])
    assert document["best"]["steps"] == 4
    told = run("show", "first", "--store", store)
    assert "finished" in told.out
    assert "learner" in told.out


def test_runs_lists_the_search(run: Run, store: Path) -> None:
    (row,) = run("runs", "--store", store, "--json").document["searches"]
    assert (row["name"], row["state"], row["trials"]["finished"]) == ("first", "finished", 2)
    assert "2/2" in run("runs", "--store", store).out
    assert "no search yet" in run("runs", "--store", store / "nowhere").out


def test_episodes_are_rows_and_a_total(run: Run, store: Path) -> None:
    document = run("episodes", "first", "--phase", "validation", "--limit", "3", "--store", store, "--json").document
    assert (len(document["rows"]), document["total"]) == (3, 2 * 2 * 4)
    assert set(document["rows"][0]) == set(EPISODE_COLUMNS)
    where = ["--where", "phase == 'train' and trial == 1"]
    assert run("episodes", "first", *where, "--store", store, "--json").document["total"] == 4 * 2
    assert "of 8 episodes" in run("episodes", "first", *where, "--store", store).out


@pytest.mark.parametrize(
    ("arguments", "column"),
    [
        (["--phase", "validation", "--where", "hypergradient_norm > 0"], "hypergradient_norm"),
        (["--where", "phase == 'validation' and not hypergradient_norm > 0"], "hypergradient_norm"),
        (["--where", "accuracy_after > 0.5 and trial == 0"], "accuracy_after"),
        (["--where", "hypergradient_norm < 0"], None),  # train rows have one
        (["--where", "phase == 'test' and accuracy_after > 0.5 and trial > 7"], None),  # there are no such rows
        (["--where", "accuracy_after is None"], None),
    ],
)
def test_a_condition_on_a_column_that_is_empty_there_is_told(
    run: Run, store: Path, arguments: list[str], column: str | None
) -> None:
    told = run("episodes", "first", *arguments, "--store", store, "--json")
    assert told.code == 0
    assert (told.document["total"] == 0) == ("is None" not in arguments[-1])
    expected = f"--where: {column} is empty (null) in every row that the other conditions keep\n" if column else ""
    assert told.err == expected


def test_a_trial_and_a_bundle_are_evaluated_with_other_sizes(run: Run, tmp_path: Path) -> None:
    labels = [f"c{label:02}" for label in range(20) for _ in range(8)]
    rows = [f"{label},{label[1:]}.{place % 8},{place % 3}" for place, label in enumerate(labels)]
    (tmp_path / "t.csv").write_text("\n".join(["label,a,b", *rows]) + "\n")
    tasks = {"source": "table", "path": str(tmp_path / "t.csv"), "label": "label", "ways": 3, "queries": 3}
    learner = {"method": "prototypical", "architecture": {"kind": "mlp", "hidden": [8]}}
    outer = {"steps": 2, "validate_every": 2, "validation_episodes": 3, "test_episodes": 3}
    (tmp_path / "t.json").write_text(json.dumps({"tasks": tasks, "learner": learner, "outer": outer}))
    store = tmp_path / "store"
    trained = run("train", tmp_path / "t.json", "--name", "t", "--executor", "inline", "--store", store)
    assert trained.code == 0, trained.err
    sizes = ["--ways", "4", "--shots", "5", "--queries", "2", "--episodes", "8", "--seed", "1"]
    evaluated = run("evaluate", "t", *sizes, "--store", store, "--json").document
    assert evaluated["episodes"] == 8 and all((8 * score) % 1 == 0 for score in evaluated["scores"])  # of 4 x 2 queries
    rows = run("episodes", "t", "--phase", "test", "--where", "ways == 4", "--store", store, "--json").document["rows"]
    assert {(row["shots"], row["queries"]) for row in rows} == {(5, 2)} and len(rows) == 8
    assert run("export", "t", "--out", tmp_path / "bundle", "--store", store).code == 0
    again = run("evaluate", tmp_path / "bundle", *sizes, "--store", store, "--json").document
    assert again["scores"] == evaluated["scores"]
    for wrong, message in (
        ("--ways=5", "tasks.evaluation: 5 ways need"),
        ("--shots=9", "need 12 samples of each class"),
    ):
        refused = run("evaluate", "t", wrong, "--store", store)
        assert refused.code == 2 and message in refused.err


def test_sizes_are_refused_where_episodes_have_none(run: Run, store: Path) -> None:
    refused = run("evaluate", "first", "--ways", "5", "--store", store)
    assert refused.code == 2 and "ways: sinusoid has test episodes of one kind; those of " in refused.err


def test_a_trial_is_evaluated_exported_and_adapted(run: Run, store: Path, tmp_path: Path) -> None:
    evaluated = run("evaluate", "first", "--episodes", "6", "--store", store, "--json").document
    assert set(evaluated) >= {"mean", "interval", "episodes", "per_step", "setting"}
    exported = run("export", "first", "--out", tmp_path / "bundle", "--store", store, "--json")
    assert exported.code == 0
    assert exported.document["evaluation"]["mean"] == evaluated["mean"]  # bit for bit
    again = run("evaluate", tmp_path / "bundle", "--episodes", "6", "--store", store, "--json").document
    assert again["scores"] == evaluated["scores"]
    assert run("export", "first", "--out", tmp_path / "bundle", "--store", store).code == 2

    x = np.linspace(-4, 4, 10)
    lines = [f"{value},{2 * np.sin(value)}" for value in x]
    (tmp_path / "support.csv").write_text("\n".join(["x,label", *lines]) + "\n")
    (tmp_path / "query.csv").write_text("x\n0.5\n1.5\n")
    paths = ["--support", tmp_path / "support.csv", "--query", tmp_path / "query.csv"]
    document = run("adapt", tmp_path / "bundle", *paths, "--json").document
    assert [row["query"] for row in document["predictions"]] == ["row 0", "row 1"]
    assert (document["setting"], document["batch_norm"], document["warnings"]) == ("inductive", "none", [])
    shown = run("adapt", tmp_path / "bundle", *paths).out
    assert "row 1" in shown
    assert "inductive: each query is predicted on its own" in shown


def test_a_grid_with_fewer_points_than_trials_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(
        "tasks: sinusoid\nlearner: {method: maml, update: {rate: {search: [0.01, 0.02]}}}\n"
        "search: {sampler: grid, trials: 5, baselines: []}\n"
    )
    ended = run("search", tmp_path / "grid.yaml", "--executor", "inline", *SMALL, "--store", tmp_path / "s", "--json")
    assert (ended.code, len(ended.document["trials"])) == (0, 2)
    assert "the grid has no further combination: 2 trials, of the 5 asked for" in ended.err


def test_train_says_which_knobs_took_their_default(run: Run, tmp_path: Path) -> None:
    told = run("train", "quick", *SMALL, "--set", "outer.rate=search", "--store", tmp_path, "--json")
    assert told.code == 0
    assert len(told.document["trials"]) == 1
    assert "outer.rate" in told.err
    assert "default" in told.err


def test_check_compares_each_learned_knob(run: Run, tmp_path: Path) -> None:
    told = run("check", "sinusoid-meta-sgd", "--store", tmp_path, "--json")
    assert set(told.document["knobs"]) == {"learner.initialization", "learner.update.rate"}
    assert max(told.document["knobs"].values()) < 1e-6
    first_order = run("check", "sinusoid-maml", "--set", "outer.hypergradient=first_order", "--store", tmp_path)
    assert first_order.code == 0
    assert "Not exact: learner.initialization" in first_order.out


def test_a_search_whose_trials_all_break_a_constraint_has_no_best(run: Run, tmp_path: Path) -> None:
    limit = ("--set", "search.constraints=[{metric: parameters, max: 1}]", "--set", "search.baselines=[]")
    told = run("search", "quick", *limit, "--trials", "2", "--executor", "inline", "--store", tmp_path, "--name", "big")
    assert told.code == 0
    assert "No trial keeps the constraints (parameters <= 1): the nearest is trial " in told.out
    assert "infeasible" in told.out and "Go on with" not in told.out
    assert run("show", "big", "--store", tmp_path, "--json").document["best"] is None
    refused = run("export", "big", "--store", tmp_path, "--out", tmp_path / "bundle")
    assert refused.code == 2 and "No trial keeps the constraints (parameters <= 1)" in refused.err
    assert run("export", "big", "--trial", "0", "--store", tmp_path, "--out", tmp_path / "bundle").code == 0


def test_check_looks_at_every_member_of_a_choice(run: Run, tmp_path: Path) -> None:
    learner = "{search: [{method: maml, architecture: {kind: mlp, hidden: [4]}}, "
    learner += (
        "{method: first_order_maml, architecture: {kind: mlp, hidden: [4], activation: {search: [relu, tanh]}}}]}"
    )
    changes = ("--set", f"learner={learner}", "--store", tmp_path)
    document = run("check", "quick", *changes, "--json").document
    assert list(document["knobs"]) == [
        "learner[maml].initialization",
        "learner[first_order_maml].initialization",
        "learner[first_order_maml].initialization where learner[first_order_maml].architecture.activation is tanh",
    ]
    exact, *inexact = document["knobs"].values()
    assert exact < 1e-6 < 1e-4 < min(inexact)
    assert [one["estimator"] for one in document["details"].values()] == ["unroll", "first_order", "first_order"]
    assert len(document["members"]) == 3
    told = run("check", "quick", *changes)
    assert "hypergradient by unroll, first_order" in told.out
    assert "Not exact: learner[first_order_maml].initialization, " in told.out
    assert "learner[maml].initialization" not in told.out.partition("Not exact")[2]


def test_train_minds_the_default_of_a_choice_alone(run: Run, tmp_path: Path) -> None:
    learner = "learner={search: [{method: maml}, {method: maml, architecture: conv4}]}"  # sines are no images
    changes = ("--set", learner, *SMALL, "--store", tmp_path)
    assert run("train", "quick", *changes).code == 0
    refused = run("search", "quick", "--executor", "inline", *changes)
    assert refused.code == 2
    assert "use mlp" in refused.err


def test_a_table_from_training_to_predictions(run: Run, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = ["kind,long,wide"]
    for label in range(12):
        centre = generator.normal(size=2) * 9
        lines += [",".join([f"k{label}", *map(str, centre + generator.normal(size=2))]) for _ in range(6)]
    (tmp_path / "plants.csv").write_text("\n".join(lines))
    (tmp_path / "plants.yaml").write_text(
        f"tasks: {{source: table, path: {tmp_path}/plants.csv, label: kind, ways: 2, shots: 2, queries: 2}}\n"
        "learner: {method: prototypical, architecture: {kind: mlp, hidden: [4]}}\n"
    )
    trained = run("train", tmp_path / "plants.yaml", *SMALL, "--store", tmp_path / "store")
    assert trained.code == 0
    assert "--support SUPPORT.csv --query QUERY.csv" in trained.out  # accuracy is no sign of images
    bundle = tmp_path / "bundle"
    assert run("export", "plants", "--out", bundle, "--episodes", 0, "--store", tmp_path / "store").code == 0
    (tmp_path / "support.csv").write_text("\n".join([lines[0], *lines[1:4], *lines[7:10]]))
    pq.write_table(pa.table({"wide": [1.0, 2.0], "long": [3.0, 4.0]}), tmp_path / "query.parquet")
    told = run(*adapting(bundle, tmp_path / "support.csv", tmp_path / "query.parquet"), "--json")
    assert told.code == 0
    assert {one["prediction"] for one in told.document["predictions"]} <= {"k0", "k1"}
    (tmp_path / "support.csv").write_text("kind,long,wide\nk0,1,nan\nk1,1,2\n")
    refused = run(*adapting(bundle, tmp_path / "support.csv", tmp_path / "query.parquet"))
    assert refused.code == 2
    assert "row 0, column 'wide'" in refused.err
    assert "fill them in" in refused.err
    assert "tasks." not in refused.err  # 'adapt' has no such settings


def adapting(bundle: Path, support: Path, query: Path) -> tuple[str | Path, ...]:
    return ("adapt", bundle, "--support", support, "--query", query)


def test_presets_and_schema_are_documents(run: Run) -> None:
    names = {row["name"] for row in run("presets", "--json").document["presets"]}
    assert {"default", "quick"} <= names
    assert "properties" in run("schema").document


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["serach", "quick"], "Did you mean 'search'"),
        (["search", "qick"], "did you mean 'quick'"),
        (["search", "sinusoid-maml", "--set", "learner.update.rat=0.1"], "rate"),
        (["search", "quick", "--trials", "0"], "greater than or equal to 1"),
        (["search", "quick", "--name", "../evil"], "../evil"),
        (["search", "quick", "--executor", "slurm"], "slurm"),
        (["search", "quick", "--address", "127.0.0.1:1"], "--insecure-cluster"),
        (["show", "frist"], "did you mean 'first'"),
        (["episodes", "first", "--where", "acuracy_after > 1"], "did you mean 'accuracy_after'"),
        (["export", "first", "--trial", "9", "--out", "x"], "no trial 9"),
        (["adapt", "no-bundle", "--support", "a", "--query", "b"], "there is no folder no-bundle"),
        (["evaluate", "bundles/absent"], "there is no folder bundles/absent"),
        (["resume", "frist"], "did you mean 'first'"),
        (["ui", "--port", "99999999"], "65535"),
    ],
)
def test_bad_input_is_explained_and_exits_with_2(run: Run, store: Path, arguments: list[str], told: str) -> None:
    ended = run(*arguments, "--store", store, "--json")
    assert ended.code == 2
    assert told in ended.err
    assert told in ended.document["error"]
    assert "Traceback" not in ended.err


def test_a_store_that_cannot_be_made_is_the_environments_fault(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = run("search", "quick", "--executor", "inline", "--store", tmp_path / "file" / "store")
    assert ended.code == 3
    assert "choose another folder" in ended.err or "cannot use" in ended.err


def test_an_unexpected_error_is_one_line_and_a_stack_on_request(
    run: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any, **named: Any) -> Any:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("metaloom.dashboards.queries.search_summary", broken)
    ended = run("show", "first", "--store", store)
    assert ended.code == 1
    assert "unexpected ZeroDivisionError: a mistake of ours" in ended.err
    assert "Traceback" not in ended.err
    with pytest.raises(ZeroDivisionError):
        cli.run(["show", "first", "--store", str(store)], debug=True)


def test_a_disk_that_is_full_for_a_file_of_a_library_is_told(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_room(*arguments: Any, **named: Any) -> Any:
        raise OSError(errno.EFBIG, "File too large", "/tmp/session/state.json")

    monkeypatch.setattr("metaloom.dashboards.queries.search_summary", without_room)
    ended = run("show", "first", "--store", store)
    assert ended.code == 3
    assert "the disk of /tmp/session/state.json is full (File too large): free some space" in ended.err


def test_what_libraries_print_is_kept_off_stdout(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from metaloom.dashboards import queries

    listed = queries.list_searches

    def noisy(folder: Path) -> Any:
        print("printed")
        os.write(1, b"written\n")
        subprocess.run(["echo", "from a child"], check=True)
        return listed(folder)

    monkeypatch.setattr(queries, "list_searches", noisy)
    ended = run("runs", "--store", store, "--json")
    assert set(ended.document) == {"searches"}
    assert {"printed", "written", "from a child"} <= set(ended.err.split("\n"))


def test_sync_gives_a_killed_search_its_end(run: Run, tmp_path: Path) -> None:
    run("search", "quick", "--trials", "1", "--executor", "inline", *SMALL, "--store", tmp_path)
    ends = ("search_ended", "trial_finished")  # as a kill -9 would have left it
    rewrite(tmp_path / "searches" / "quick", lambda events: [event for event in events if event.kind not in ends])
    ended = run("sync", "quick", "--store", tmp_path, "--json")
    assert (ended.code, ended.document) == (0, {"name": "quick", "left": {}, "rebuilt": []})
    document = run("show", "quick", "--store", tmp_path, "--json").document
    assert (document["state"], document["trials"][0]["state"]) == ("interrupted", "waiting")

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=document["tracking_uri"])
    runs = client.search_runs([document["experiment_id"]])
    assert sorted(one.info.status for one in runs) == ["KILLED", "KILLED"]


def test_sigterm_ends_with_complete_records_and_resume_goes_on(run: Run, tmp_path: Path) -> None:
    process = searching(tmp_path)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert f"metaloom resume quick --store {tmp_path}" in out
    ended = run("resume", "quick", "--store", tmp_path, "--json")
    assert (ended.code, ended.document["state"]) == (0, "finished")
    assert ended.document["trials"][0]["steps"] == 150
    again = run("resume", "quick", "--store", tmp_path)
    assert again.code == 0
    assert "nothing to resume" in again.err


def test_with_json_the_command_that_resumes_is_told_on_stderr(tmp_path: Path) -> None:
    once = searching(tmp_path / "once", "--json")
    once.send_signal(signal.SIGTERM)
    out, errors = once.communicate(timeout=60)
    assert json.loads(out)["state"] == "interrupted"
    assert f"Resume it with: metaloom resume quick --store {tmp_path / 'once'}" in errors
    twice = searching(tmp_path / "twice", "--json")
    while twice.poll() is None:  # two that come together are one
        twice.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    out, errors = twice.communicate(timeout=60)
    assert twice.returncode == 143
    assert f"ended at once; what was recorded is intact; go on with: metaloom resume quick --store {tmp_path}" in errors
    assert out.strip() == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_ended_by_a_signal_says_so_in_its_document(number: signal.Signals, tmp_path: Path) -> None:
    process = Process("-m", "metaloom", "check", "five-kinds", "--json", "--store", str(tmp_path / "s"))
    # Python itself catches SIGINT before the command does, which then catches SIGTERM
    while not _catches(process.pid, signal.SIGTERM if number == signal.SIGINT else number):
        time.sleep(0.01)
    process.send_signal(number)
    out, errors = process.communicate(timeout=60)
    text = f"interrupted by {number.name}"
    assert process.returncode == 128 + number
    assert json.loads(out) == {"error": text, "exit_code": 128 + number}
    assert errors.splitlines()[-1] == f"metaloom: {text}"


def _catches(pid: int, number: signal.Signals) -> bool:
    """Say whether a process has a handler for a signal."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = [line.split()[1] for line in lines if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (number - 1) & 1)


def searching(store: Path, *more: str) -> Process:
    """Begin a long trial of a search and wait for its first report."""
    changes = ["--set", "outer.steps=150", "--set", "outer.validate_every=5", "--set", "outer.validation_episodes=4"]
    command = ["-m", "metaloom.orchestrator.command_line.cli", "search", "quick", "--executor", "inline", *changes]
    process = Process(*command, "--trials", "1", "--store", str(store), *more)
    journal = store / "searches" / "quick" / records.JOURNAL_FILE
    deadline = time.monotonic() + 100
    while not (journal.exists() and _reports(journal)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    return process


def _reports(journal: Path) -> bool:
    """Say whether a trial has reported; the journal may be just being made."""
    events = Journal(journal.parent, read_only=True)
    try:
        return any(event.kind == records.TRIAL_REPORTED for event in events.events())
    except StoreError:
        return False
    finally:
        events.close()
