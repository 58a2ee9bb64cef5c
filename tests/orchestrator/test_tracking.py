"""MLflow follows the journal: every run once, ended truthfully, whatever the server does."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.journal import Mark
from metaloom.orchestrator.tracking import client as tracking_client
from metaloom.orchestrator.tracking.outbox import first_line
from metaloom.orchestrator.tracking.outboxes import start_projections
from metaloom.orchestrator.tracking.writing import SEARCH_TAG, STATE_TAG
from metaloom.workers.records import names as records
from metaloom.workers.records.episode_schema import EPISODE_SCHEMA
from metaloom.workers.records.trial import TrialConfig
from tests.dashboards.conftest import episode, report, story

tracking_client.quieten()

from mlflow.tracking import MlflowClient  # noqa: E402

from metaloom.orchestrator.tracking.runs import connect  # noqa: E402
from tests.support.databases import make_mlflow_tables  # noqa: E402
from tests.support.processes import Process  # noqa: E402
from tests.support.tracked import ENDED, STARTED, Search  # noqa: E402
from tests.support.tracking_servers import Serve, kill, tracking_server, wait_until  # noqa: E402


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for the module (a fresh MLflow database costs 3 s), at a path that has to be quoted."""
    return tmp_path_factory.mktemp("a store %20 é#1")


@pytest.fixture
def search(store: Path, request: pytest.FixtureRequest) -> Iterator[Search]:
    made = Search(store, request.node.name[:60].strip("_[]"))
    yield made
    made.journal.close()


def test_a_finished_search_is_all_there(search: Search) -> None:
    part = search.folder / "trials" / "0001" / "episodes" / "part-0-20.parquet"
    part.parent.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist([episode(1, "validation", 0, 0.9)], schema=EPISODE_SCHEMA), part)
    outer = {"steps": 20, "clip": None}
    config = {"config": TrialConfig("first", 1, 3, {}, {}, outer=outer).to_json()}
    events = story({0: 0.7, 1: 0.9})
    events[5][2].update(config)
    evaluation = {"metric": "accuracy", "mean": 0.88, "interval": [0.86, 0.9], "episodes": 600}
    tested = (records.BEST_TESTED, None, {"trial": 1, "evaluation": evaluation})
    difference = {"mean": 0.1, "interval": [0.08, 0.12], "episodes": 600}
    near = {"method": "nearest_neighbour", "evaluation": evaluation, "best_better_by": difference}
    old = {"method": "fine_tuning", "evaluation": evaluation}
    baselines = [(records.BASELINE, None, payload) for payload in (near, old)]
    search.tell(STARTED, *events, *baselines)
    assert search.drain() == []
    test_part = part.with_name("part-test-3.parquet")  # written when the trials' folders are in MLflow already
    parquet.write_table(pa.Table.from_pylist([episode(1, "test", 0, 0.9)], schema=EPISODE_SCHEMA), test_part)
    search.tell(tested, ENDED)
    assert search.drain() == []
    parent, trials = search.runs()
    assert search.warnings == []
    assert {run.info.status for run in (parent, *trials.values())} == {"FINISHED"}
    assert parent.data.params["learner.update.rate"] == "learned start=0.1"
    assert parent.data.metrics["baseline.nearest_neighbour.accuracy"] == 0.88
    compared = {name.partition(".best_")[2]: value for name, value in parent.data.metrics.items() if ".best_" in name}
    assert compared == {"better_by": 0.1, "better_by_low": 0.08, "better_by_high": 0.12}
    assert parent.data.metrics["baseline.fine_tuning.accuracy"] == 0.88
    assert parent.data.metrics["test.low"] == 0.86
    best = trials["1"]
    assert best.data.params == {"learner.update.rate": "0.2", "outer.steps": "20", "outer.clip": "None"}
    assert best.data.tags[STATE_TAG] == records.FINISHED
    history = search.client().get_metric_history(best.info.run_id, records.VALIDATION_ACCURACY)
    assert [(one.step, one.value) for one in history] == [(10, 0.45), (20, 0.9)]
    files = {file.path for file in search.client().list_artifacts(parent.info.run_id)}
    assert files == {"experiment.yaml", "experiment_resolved.json", "figures", "report.md", "test.json"}
    rows = search.client().list_artifacts(best.info.run_id, "episodes")
    assert [file.path for file in rows] == ["episodes/part-0-20.parquet", "episodes/part-test-3.parquet"]


def test_each_finished_trial_is_drawn_if_that_is_little_beside_its_work(search: Search) -> None:
    for trial in (0, 1, 2):
        part = search.folder / "trials" / f"{trial:04d}" / "episodes" / "part-0-20.parquet"
        part.parent.mkdir(parents=True)
        rows = [{**episode(trial, "validation", n, 0.9), "step": 20} for n in range(3)]
        parquet.write_table(pa.Table.from_pylist(rows, schema=EPISODE_SCHEMA), part)
    events = story({0: 0.7, 1: 0.9, 2: 0.8})
    events[4][2]["seconds"], events[14][2]["seconds"] = 100.0, 0.1
    search.tell(STARTED, *events, ENDED)  # a second in all: no time for those that are neither long nor the best
    assert search.drain() == []
    _, trials = search.runs()
    drawn = {
        trial: [file.path for file in search.client().list_artifacts(run.info.run_id, "figures")]
        for trial, run in trials.items()
    }
    both = ["figures/adaptation.png", "figures/learned.json"]
    assert drawn == {"0": both, "1": both, "2": []}
    assert search.warnings == []


def test_events_applied_twice_leave_the_same_runs(search: Search) -> None:
    search.tell(STARTED, *story({0: 0.7, 1: float("nan")}), ENDED)
    search.drain()
    before, ids = search.content(), search.runs()[0].info.run_id
    mark = search.journal.mark(records.MLFLOW_MARK)
    for event, state in ((0, mark.state), (0, ""), (7, mark.state)):  # killed before the mark moved; mark lost
        search.journal.set_mark(records.MLFLOW_MARK, Mark(event, state))
        search.drain()
        assert repr(search.content()) == repr(before)
        assert search.runs()[0].info.run_id == ids
    assert search.warnings == []


def test_another_database_is_given_everything_from_the_first_event(search: Search, tmp_path: Path) -> None:
    search.tell(STARTED, *story({0: 0.7}))
    search.drain()
    search.uri = f"sqlite:///{tmp_path}/other.db"
    search.tell(ENDED)
    assert search.drain() == []
    parent, trials = search.runs()
    assert (parent.info.status, trials["0"].info.status) == ("FINISHED", "FINISHED")
    assert trials["0"].data.metrics[records.VALIDATION_ACCURACY] == 0.7
    state = json.loads(search.journal.mark(records.MLFLOW_MARK).state)
    assert (state["parent_run_id"], state["runs"]["0"]) == (parent.info.run_id, trials["0"].info.run_id)


def test_an_interrupted_search_is_killed_and_goes_on_in_the_same_runs(search: Search) -> None:
    first = story({0: 0.7, 1: 0.9})
    interrupted = (records.SEARCH_ENDED, None, {"state": "interrupted"})
    search.tell(STARTED, *first[:8], interrupted)
    search.drain()
    parent, trials = search.runs()
    assert [run.info.status for run in (parent, trials["0"], trials["1"])] == ["KILLED", "FINISHED", "KILLED"]
    assert trials["1"].data.tags[STATE_TAG] == records.WAITING
    again = (records.TRIAL_REPORTED, 1, {"report": report(10, 0.45)})  # the step before the kill, repeated
    search.tell(STARTED, first[6], again, *first[8:], ENDED)
    search.drain()
    resumed, after = search.runs()
    assert resumed.info.run_id == parent.info.run_id
    assert {run.info.status for run in (resumed, *after.values())} == {"FINISHED"}
    history = search.client().get_metric_history(trials["1"].info.run_id, records.VALIDATION_ACCURACY)
    assert [one.step for one in history] == [10, 20]


def test_a_failed_trial_has_its_traceback_and_a_stopped_one_its_reason(search: Search) -> None:
    failed = (records.TRIAL_FAILED, 0, {"reason": "loss is nan", "traceback": "Traceback: ..."})
    stopped = (records.TRIAL_STOPPED, 1, {"reason": "worse than half", "value": 0.4, "values": {}})
    warned = (records.TRIAL_WARNED, 0, {"warnings": ["checkpoint 2 is damaged", "went back to checkpoint 1"]})
    search.tell(STARTED, *story({0: 0.7})[:3], warned, failed, *story({1: 0.8})[:3], stopped, ENDED)
    search.drain()
    _, trials = search.runs()
    assert (trials["0"].info.status, trials["0"].data.tags["metaloom.error"]) == ("FAILED", "loss is nan")
    assert trials["0"].data.tags["metaloom.warning"] == "checkpoint 2 is damaged; went back to checkpoint 1"
    folder = Path(search.client().download_artifacts(trials["0"].info.run_id, "traceback.txt"))
    assert folder.read_text() == "Traceback: ..."
    assert (trials["1"].info.status, trials["1"].data.tags[STATE_TAG]) == ("FINISHED", records.STOPPED)
    assert trials["1"].data.tags["metaloom.note"] == "worse than half"


def test_what_mlflow_refuses_is_told_and_holds_nothing_back(search: Search) -> None:
    odd = report(10, 0.5, **{"acc@val": 0.5, "x" * 300: 1.0, "huge": float("inf")})
    suggested = story({0: 0.5})[0]
    suggested[2]["knobs"] = {"text": "y" * 10_000, "odd@knob": 1}
    search.tell(STARTED, suggested, (records.TRIAL_REPORTED, 0, {"report": odd}))
    config = TrialConfig("first", 0, 0, {}, {}).to_json()
    exchange = {"donor": 1, "generation": 1, "params": {}, "distributions": {}, "config": config}
    moved = (records.TRIAL_EXPLOITED, 0, {"knobs": {"rate": 0.3, "kind": "adam"}, **exchange})
    search.tell(moved, ("a_kind_of_the_future", 0, {}), ENDED)
    assert search.drain() == []
    metrics = search.runs()[1]["0"].data.metrics
    assert (metrics["acc_val"], metrics["knob.rate"]) == (0.5, 0.3)
    assert search.warnings == []


FULL = """\
(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)
(sqlite3.OperationalError) database or disk is full
[SQL: INSERT INTO metrics ...]"""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError(FULL), "(sqlite3.OperationalError) database or disk is full"),
        (RuntimeError("refused\nand more"), "refused"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_outage_is_told_in_the_line_that_says_what_went_wrong(error: Exception, told: str) -> None:
    assert first_line(error) == told


def test_two_searches_at_once_share_a_fresh_database(tmp_path: Path) -> None:
    names = ["one", "two"]
    for name in names:
        search = Search(tmp_path, name)
        search.tell(STARTED, *story({0: 0.7}), ENDED)
        search.journal.close()
    code = (
        "import sys; from pathlib import Path; "
        "from metaloom.orchestrator.tracking.outboxes import start_projections; "
        "store, name = Path(sys.argv[1]), sys.argv[2]; "
        "outboxes = start_projections(store / 'searches' / name, store=store, tracking={}, warn=print); "
        "sys.exit(len(outboxes.close(100.0)))"
    )
    running = [Process("-c", code, str(tmp_path), name) for name in names]
    assert [process.wait(120) for process in running] == [0, 0]
    client = MlflowClient(tracking_uri=tracking_client.tracking_uri(tmp_path, None))
    experiments = [client.get_experiment_by_name(name).experiment_id for name in names]
    runs = client.search_runs(experiments)
    assert sorted(run.data.tags[SEARCH_TAG] for run in runs) == sorted(names * 2)


@pytest.mark.parametrize("folder", ["with space ü #1", "50% sure?"])
def test_a_store_of_any_name_holds_its_own_database(folder: str, tmp_path: Path) -> None:
    store = tmp_path / folder
    store.mkdir()
    made = store / tracking_client.MLFLOW_DATABASE
    make_mlflow_tables(made)  # as in a user's store
    connect(store, tracking_client.tracking_uri(store, None), "one", None)
    assert made.is_file()
    if "%" not in folder:  # MLflow makes the folder of the quoted name too
        assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_tables_that_cannot_be_made_leave_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StoreError, match=r"the tables of MLflow could not be made: exit status 1"):
        make_mlflow_tables(tmp_path / tracking_client.MLFLOW_DATABASE)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Serve]]:
    """Yield the address of an MLflow server, and what starts it there."""
    with tracking_server(tmp_path) as address_and_start:
        yield address_and_start


def test_an_absent_server_is_caught_up_with(tmp_path: Path, server: tuple[str, Serve]) -> None:
    uri, serve = server
    search = Search(tmp_path / "store", "remote", uri)
    search.tell(STARTED, *story({0: 0.7}))

    before = time.monotonic()
    outboxes = start_projections(search.folder, **search.arguments())
    assert time.monotonic() - before < 0.1  # the search does not wait
    wait_until(lambda: bool(search.warnings))
    process = serve()
    wait_until(lambda: search.journal.mark(records.MLFLOW_MARK).event > 0)
    kill(process)
    search.tell(*story({1: 0.8}))
    wait_until(lambda: len(search.warnings) == 2)
    before = time.monotonic()
    (backlog,) = outboxes.close(timeout_s=10.0)
    assert time.monotonic() - before < 10.0
    assert (backlog.name, backlog.events) == ("mlflow", 5)
    assert len(search.warnings) == 2  # one line for each outage
    send = f"by 'metaloom sync remote --store {tmp_path / 'store'}'"
    assert all("The search goes on" in warning and send in warning for warning in search.warnings)
    assert [one.events for one in search.drain()] == [5]
    assert f"Its records are kept, and sent {send}" in search.warnings[2]  # no search goes on

    serve()
    search.tell(ENDED)
    assert search.drain() == []
    parent, trials = search.runs()
    assert {run.info.status for run in (parent, *trials.values())} == {"FINISHED"}
    for trial, value in (("0", 0.7), ("1", 0.8)):
        history = search.client().get_metric_history(trials[trial].info.run_id, records.VALIDATION_ACCURACY)
        assert [(one.step, one.value) for one in history] == [(10, value / 2), (20, value)]
