"""``resume --trials``: a search that has ended goes on to more trials, and comes to the end of one begun so."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from metaloom.orchestrator.api import resume, search
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors.hosting import TrialHost
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.extending import Extension, extend
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.journal import Journal
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records.search import SearchRecord
from tests.support import processes
from tests.support.databases import copy_mlflow_database

SAMPLERS = {
    "random": {},
    "tpe": {"startup_trials": 2},
    "gp": {"startup_trials": 2},
    "cmaes": {},
    "nsga2": {"population": 3},
    "evolution": {"population": 3, "tournament": 2},
    "grid": {},
}
FILE = """\
tasks: {source: sinusoid, shots: 5, queries: 5}
learner:
  method: maml
  architecture: {kind: mlp, hidden: [8]}
  update: {rate: {search: {low: 0.001, high: 0.05, log: true}}, steps: 1}
outer: {steps: 4, meta_batch: 2, validate_every: 2, validation_episodes: 4, test_episodes: 6, strategy: loop}
search: {trials: 2, sampler: random, baselines: [fine_tuning]}
tracking: {uri: "sqlite:///%s"}
"""


def run(director: Director) -> Director:
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    return director


def go_on(folder: Path) -> Director:
    director = Director(Journal(folder), toy.ToySpace())
    director.start()
    return director


def ended(folder: Path, **section: Any) -> Director:
    director = run(toy.direct(folder, **section))
    director.end()
    return director


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_extended_search_is_the_search_begun_with_as_many_trials(tmp_path: Path, sampler: str) -> None:
    section = {
        "sampler": {"kind": sampler, **SAMPLERS[sampler]},
        "scheduler": {"kind": "asha", "grace_steps": 1},
    }
    whole = run(toy.direct(tmp_path / "whole", **section, trials=11))
    ended(tmp_path / "cut", **section, trials=4).journal.close()
    for trials in (7, 11):
        with Journal(tmp_path / "cut") as journal:
            extend(journal, Extension(trials=trials))
        director = go_on(tmp_path / "cut")
        _run_some(director, 3)  # and is killed then, with a report that the journal lacks
        director.journal.close()
        director = run(go_on(tmp_path / "cut"))
        director.end()
        director.journal.close()
    assert toy.outcome(director) == toy.outcome(whole)
    assert director.state.settings is not None and director.state.settings.trials == 11


def _run_some(director: Director, count: int) -> None:
    assignment = director.next_trial()
    assert assignment is not None
    host = TrialHost(toy.open_toy)
    host.begin(assignment)
    for _ in range(count):
        if not director.hear(host.step()):
            host.close()
            return
    host.step()
    host.close()


def test_an_extension_that_was_killed_before_it_began_is_not_lost(tmp_path: Path) -> None:
    ended(tmp_path / "s", trials=2).journal.close()
    with Journal(tmp_path / "s") as journal:
        extend(journal, Extension(trials=3))
        state = SearchRecord.replay(journal.events())
        assert (state.state, state.tested) == (records.INTERRUPTED, None)
    assert len(run(go_on(tmp_path / "s")).state.trials) == 3


def test_a_grid_that_is_extended_beyond_its_end_stays_whole(tmp_path: Path) -> None:
    director = ended(tmp_path / "s", sampler={"kind": "grid"}, trials=28)
    extend(director.journal, Extension(trials=99))
    director.journal.close()
    again = run(go_on(tmp_path / "s"))
    assert again.exhausted and len(again.state.trials) == 30
    assert len({tuple(sorted(trial.params.items())) for trial in again.state.trials.values()}) == 30


@pytest.mark.parametrize(
    ("section", "wanted", "wrong"),
    [
        ({}, Extension(trials=2), "has 3 trials already, so --trials 2 is no more; give the number of all"),
        ({}, Extension(trials=3), "has 3 trials already, so --trials 3 is no more"),
        ({"time_budget_s": 1e-9}, Extension(trials=9), "of its time budget of 1e-09 s; give --time-budget too"),
        ({"time_budget_s": 1e-9}, Extension(1e-9, 9), "so --time-budget 1e-09 is no more time"),
    ],
)
def test_what_is_no_more_is_refused(tmp_path: Path, section: dict[str, Any], wanted: Extension, wrong: str) -> None:
    director = ended(tmp_path / "s", trials=3, **section)
    before = director.journal.events()
    with pytest.raises(SearchError, match=wrong):
        extend(director.journal, wanted)
    assert director.journal.events() == before


def test_a_population_does_not_grow(tmp_path: Path) -> None:
    director = ended(tmp_path / "s", trials=4, scheduler={"kind": "pbt"})
    with pytest.raises(SearchError, match=r"one population .pbt., which cannot grow; .* search.warm_start: s"):
        extend(director.journal, Extension(trials=9))


def test_a_search_that_has_not_ended_takes_another_number_too(tmp_path: Path) -> None:
    director = toy.direct(tmp_path / "s", trials=5)
    director.next_trial()
    extend(director.journal, Extension(trials=5))  # its own: nothing is journalled
    assert SearchRecord.replay(director.journal.events()).state == records.RUNNING
    extend(director.journal, Extension(trials=2))
    director.journal.close()
    assert len(run(go_on(tmp_path / "s")).state.trials) == 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sine.yaml"
    path.write_text(FILE % (tmp_path / "mlflow.db"))
    copy_mlflow_database(tmp_path / "mlflow.db")
    return path


def values(store: Path, name: str) -> dict[int, Any]:
    state = SearchRecord.read(store / "searches" / name)
    assert state.tested is not None
    trials = {n: (t.state, t.knobs, t.values, [r.scores for r in t.reports]) for n, t in state.trials.items()}
    tests = [state.tested["evaluation"]["mean"], *(one["evaluation"]["mean"] for one in state.baselines)]
    return {**trials, -1: (state.tested["trial"], tests)}


def test_real_trials_from_the_command_line_killed_and_resumed_plainly(tmp_path: Path, file: Path) -> None:
    store = tmp_path / "store"
    search(file, store=store, executor="inline", name="whole", trials=5)
    search(file, store=store, executor="inline", name="cut")
    command = ["-m", "metaloom", "resume", "cut", "--store", str(store)]
    refused = processes.run(*command, "--trials", "1")
    assert refused.returncode == 2 and "has 2 trials already, so --trials 1 is no more" in refused.stderr
    process = processes.Process(*command, "--trials", "5")
    for line in process.stderr:
        if "trial 2 finished" in line:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    assert resume("cut", store).state == "finished"
    assert values(store, "cut") == values(store, "whole")
    again = resume("cut", store, trials=5)
    assert "nothing to resume" in again.notes[0]
