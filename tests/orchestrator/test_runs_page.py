"""MLflow's runs page shows a search: objectives, interval and knobs as columns, and a report; Optuna has its names."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from PIL import Image

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.command_line import cli, companions, local_server
from metaloom.orchestrator.journal import Mark
from metaloom.orchestrator.proposing import mirror
from metaloom.orchestrator.tracking import columns
from metaloom.orchestrator.tracking.client import FORCED_ON_SERVERS, flattened
from metaloom.orchestrator.tracking.databases import sqlite_uri
from metaloom.orchestrator.tracking.outboxes import synchronize
from metaloom.workers.records import names as records
from tests.dashboards.conftest import story
from tests.support.processes import Process
from tests.support.tracked import ENDED, STARTED, Search
from tests.support.tracking_servers import wait_until

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = "METALOOM_SCREENSHOTS"  # in the environment: the folder that gets those of docs/mlflow.md
KNOBS: list[dict[str, Any]] = [
    {"learner": "maml", "learner[maml].update.rate": 0.1},
    {"learner": "anil"},
    {"learner": "maml", "learner[maml].update.rate": 0.02},
]
DISTRIBUTIONS = {
    "learner": distribution_to_json(CategoricalDistribution(("maml", "anil"))),
    "learner[maml].update.rate": distribution_to_json(FloatDistribution(0.01, 1.0, log=True)),
}
VALUES = {0: 0.6, 1: 0.9, 2: 0.7}
RATE = "learner_maml_.update.rate"  # MLflow takes no brackets


def events(*trials: int) -> list[Any]:
    """Return the events of finished trials with their knobs."""
    told = story({trial: VALUES[trial] for trial in trials})
    for kind, trial, payload in told:
        if kind == records.TRIAL_SUGGESTED and trial is not None:
            knobs = KNOBS[trial]
            payload.update(knobs=knobs, params=knobs, distributions={name: DISTRIBUTIONS[name] for name in knobs})
    return told


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    """A search that is in MLflow and in Optuna's database; its driver was killed and resumed after two trials."""
    made = Search(tmp_path_factory.mktemp("runs") / "store", "first")
    made.tell(STARTED, *events(0, 1))
    assert made.drain() == []
    evaluation = {"metric": "accuracy", "mean": 0.88, "interval": [0.86, 0.9], "episodes": 600}
    made.tell(*events(2), (records.BEST_TESTED, None, {"trial": 1, "evaluation": evaluation}), ENDED)
    made.journal.close()
    assert synchronize(made.store, "first", warn=made.warn, others=mirror.projections) == ([], [])
    assert made.warnings == []
    yield made


def view_of(search: Search) -> tuple[str, dict[str, Any]]:
    """Return the key and the content of the view of the runs page."""
    tags = search.client().get_experiment_by_name("first").tags
    ((key, text),) = [(key, text) for key, text in tags.items() if key.startswith("mlflow.sharedViewState.")]
    return key.removeprefix("mlflow.sharedViewState."), json.loads(text)


def test_the_parent_has_the_best_values_and_the_ranges_of_its_trials_columns(search: Search) -> None:
    parent, trials = search.runs()
    best = trials["1"]
    for metric in (records.VALIDATION_ACCURACY, "validation_low", "validation_high"):
        assert parent.data.metrics[metric] == best.data.metrics[metric]
    assert parent.data.metrics[records.VALIDATION_ACCURACY] == 0.9
    history = search.client().get_metric_history(parent.info.run_id, records.VALIDATION_ACCURACY)
    points = [(point.step, point.value) for point in history]
    assert points == [(1, 0.6), (2, 0.9)]  # the best of so many; trial 2 is not better
    assert parent.data.params["learner"] == "maml, anil"
    assert parent.data.params[RATE] == "0.01 to 1, log"
    assert [trials[str(trial)].data.params.get(RATE) for trial in range(3)] == ["0.1", None, "0.02"]
    assert [trials[str(trial)].data.params["learner"] for trial in range(3)] == ["maml", "anil", "maml"]


def test_the_view_shows_these_columns(search: Search) -> None:
    parent, trials = search.runs()
    key, view = view_of(search)
    assert view["name"] == "Metaloom: first"
    state = json.loads(view["state"])
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`validation_accuracy`", False)
    shown = {"metrics": [], "params": [], "attributes": []} | dict[str, list[str]]()
    for column in state["selectedColumns"]:
        kind, _, name = column.partition(".")
        shown[kind].append(name.strip("`"))
    assert shown["metrics"] == [records.VALIDATION_ACCURACY, "validation_low", "validation_high"]
    assert shown["params"] == ["learner", RATE]
    assert set(shown["metrics"]) <= parent.data.metrics.keys() & trials["0"].data.metrics.keys()
    assert set(shown["params"]) <= parent.data.params.keys() & trials["0"].data.params.keys()
    tags = search.client().get_experiment_by_name("first").tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    assert tags["mlflow.experiment.primaryMetric.name"] == records.VALIDATION_ACCURACY
    assert tags["mlflow.experiment.primaryMetric.greaterIsBetter"] == "true"
    assert companions.runs_page(search.store, "first").endswith(f"/runs?viewStateShareKey={key}")


def test_runs_are_described_and_the_search_has_a_report(search: Search) -> None:
    parent, trials = search.runs()
    description = parent.data.tags["mlflow.note.content"]
    assert description.startswith(
        "# Search first\n\nfinished: 3 of 3 trials ended; maximize validation_accuracy; seed 3"
    )
    assert "**Best: trial 1**, finished after 20 steps; validation_accuracy 0.9000 [0.8500, 0.9500]." in description
    assert "| trial 1 (best) | 0.8800 [0.8600, 0.9000] |" in description
    listed = description.partition("## Trials")[2].splitlines()[4:]
    assert [line[:3] for line in listed if line] == ["| 1", "| 2", "| 0"]  # the best first
    told = trials["2"].data.tags["mlflow.note.content"]
    assert told.startswith("finished after 20 steps; validation_accuracy 0.7000 [0.6500, 0.7500]. Knobs: `learner=maml")
    file = search.client().download_artifacts(parent.info.run_id, "report.md")
    assert Path(file).read_text() == description


def test_a_thorough_comparison_finds_nothing_to_send_again(search: Search) -> None:
    before = search.content()
    assert synchronize(search.store, "first", warn=search.warn, others=mirror.projections) == ([], [])
    assert repr(search.content()) == repr(before)


def test_the_study_has_the_names_of_the_objectives(search: Search) -> None:
    storage = optuna.storages.RDBStorage(sqlite_uri(search.store / "optuna.db"))
    study = optuna.load_study(study_name="first", storage=storage)
    assert study.metric_names == [records.VALIDATION_ACCURACY]
    assert [trial.values for trial in study.trials] == [[0.6], [0.9], [0.7]]
    storage.engine.dispose()


def shorthand(store: Path, name: str) -> Search:
    """Return a search whose file says ``search`` for a knob, as many do; nothing is sent yet."""
    (store / "searches" / name).mkdir()
    made = Search(store, name, begun=True)
    settings = {"trials": 3, "objectives": [{"metric": records.VALIDATION_ACCURACY, "direction": "maximize"}]}
    experiment = {"name": "search", "learner": {"method": "maml", "update": {"rate": "search"}}}
    made.tell((records.SEARCH_CREATED, None, {"settings": settings, "experiment": experiment}), STARTED)
    return made


def rates(*trials: int) -> list[Any]:
    """Return the events of finished trials that differ in the rate."""
    told = story({trial: VALUES[trial] for trial in trials})
    for kind, _, payload in told:
        if kind == records.TRIAL_SUGGESTED:
            payload["distributions"] = {"learner.update.rate": DISTRIBUTIONS["learner[maml].update.rate"]}
    return told


def test_a_knob_whose_range_is_its_default_one_gets_the_range_in_any_session(search: Search) -> None:
    first = shorthand(search.store, "shorthand")
    assert first.drain() == []
    first.tell((records.SEARCH_ENDED, None, {"state": "interrupted"}), STARTED, *rates(0, 1, 2), ENDED)
    assert first.drain() == [] and first.warnings == []
    first.journal.close()
    whole = shorthand(search.store, "whole")
    whole.tell(*rates(0, 1, 2), ENDED)
    assert whole.drain() == [] and whole.warnings == []
    whole.journal.close()
    parents = [one.runs()[0] for one in (first, whole)]
    for parent in parents:
        assert parent.data.params["learner.update.rate"] == "0.01 to 1, log"
        assert parent.data.params["name"] == "search"
    for name in (records.VALIDATION_ACCURACY, "validation_low", "validation_high"):
        histories = [search.client().get_metric_history(parent.info.run_id, name) for parent in parents]
        resumed, undisturbed = [[(point.step, point.value) for point in history] for history in histories]
        assert resumed == undisturbed and [step for step, _ in resumed] == [1, 2]


def test_a_search_that_an_earlier_version_has_sent_gets_the_columns_when_it_is_resumed(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = shorthand(search.store, "old")
    with monkeypatch.context() as patched:
        patched.setattr(columns, "settings_of", flattened)
        for method in ("suggested", "reported", "finished", "show"):
            patched.setattr(columns.RunColumns, method, lambda *_: None)
        old.tell(*rates(0, 1), (records.SEARCH_ENDED, None, {"state": "interrupted"}))
        assert old.drain() == []
    assert old.runs()[0].data.params["learner.update.rate"] == "search"
    mark = old.journal.mark(records.MLFLOW_MARK)
    state = json.loads(mark.state or "")
    for later in ("knobs", "scores", "best", "finished", "last_finish"):
        del state[later]
    old.journal.set_mark(records.MLFLOW_MARK, Mark(mark.event, json.dumps(state)))
    old.tell(STARTED, *rates(2), ENDED)
    assert old.drain() == [] and old.warnings == []
    old.journal.close()
    parent, _ = old.runs()
    assert parent.data.params["learner.update.rate"] == "search"  # MLflow changes none
    history = search.client().get_metric_history(parent.info.run_id, records.VALIDATION_ACCURACY)
    assert [(point.step, point.value) for point in history] == [(1, 0.6), (2, 0.9)]


def test_a_companion_listens_where_other_pages_do_not_look_for_a_port() -> None:
    looked_at = range(local_server.FIRST_PORT, local_server.FIRST_PORT + local_server.PORTS_TRIED)
    ports = [local_server.kernel_port() for _ in range(20)]
    assert not set(ports) & set(looked_at)
    with socket.socket() as listening:
        listening.bind((local_server.HOST, ports[0]))


def test_a_page_of_runs_that_are_not_there_is_refused(
    search: Search, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Search(tmp_path, "unsent").journal.close()
    unsent = "the store's own MLflow does not have search 'unsent': send it by 'metaloom sync'"
    with pytest.raises(BadInput, match=unsent):
        companions.runs_page(tmp_path, "unsent")
    with pytest.raises(BadInput, match="does not have trial 7 of search 'first'"):
        companions.runs_page(search.store, "first", 7)
    assert re.fullmatch("/#/experiments/\\w+/runs/\\w+", companions.runs_page(search.store, "first", 1))
    assert companions.study_page(search.store, "first") == "/dashboard/studies/1"
    assert companions.study_page(search.store, "first", 2) == "/dashboard/studies/1/trials?numbers=2"
    with pytest.raises(BadInput, match="no database of Optuna yet"):
        companions.study_page(tmp_path, "unsent")
    assert cli.run(["ui", "frist", "--store", str(search.store), "--no-browser"]) == 2
    assert "did you mean 'first'" in capfd.readouterr().err


def page_of(url: str, profile: Path, *, picture: str, box: tuple[int, int, int, int]) -> str:
    """Return what a browser shows at an address, as HTML; keep a screenshot of a part of it."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=2200,700"]
    options += ["--virtual-time-budget=30000", "--timeout=60000", f"--user-data-dir={profile}"]
    command = [str(BROWSER), *options]
    file = Path(os.environ[SCREENSHOTS]) / picture
    subprocess.run([*command, f"--screenshot={file}", url], capture_output=True, timeout=120, check=True)
    with Image.open(file) as image:
        part = image.crop(box).convert("RGB")
    part.quantize(dither=Image.Dither.NONE).save(file, optimize=True)
    return subprocess.run([*command, "--dump-dom", url], capture_output=True, text=True, timeout=120).stdout


def free_port() -> int:
    """Return a port that no process uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(BROWSER is None or SCREENSHOTS not in os.environ, reason=f"no chromium here, or no {SCREENSHOTS}")
def test_a_browser_shows_the_columns(search: Search, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://{local_server.HOST}:{port}{companions.runs_page(search.store, 'first')}"
    with local_server.running(companions.mlflow_command(search.store, port), port, env=FORCED_ON_SERVERS):
        page = page_of(url, tmp_path, picture="mlflow-runs.png", box=(0, 0, 1630, 450))
    for shown in (records.VALIDATION_ACCURACY, "validation_low", "validation_high", "learner", RATE, "first-0001"):
        assert re.search(f">\\s*{re.escape(shown)}\\s*<", page), shown


@pytest.mark.skipif(
    BROWSER is None or SCREENSHOTS not in os.environ or not find_spec("optuna_dashboard"),
    reason=f"no chromium here, no optuna-dashboard, or no {SCREENSHOTS}",
)
def test_optuna_dashboard_shows_the_study_with_the_name_of_its_metric(search: Search, tmp_path: Path) -> None:
    port, storage = free_port(), sqlite_uri(search.store / "optuna.db")
    code = f"from optuna_dashboard import run_server; run_server({storage!r}, host='127.0.0.1', port={port})"
    process = Process("-c", code)
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 60.0)
        url = f"http://127.0.0.1:{port}/dashboard/studies/1"
        page = page_of(url, tmp_path, picture="optuna-dashboard.png", box=(0, 0, 2200, 650))
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert f">{records.VALIDATION_ACCURACY}<" in page and "first (id=1)" in page
