"""A replay of a search by its own settings makes the decisions of the search, one by one; others are told apart."""

from pathlib import Path
from typing import Any

import pytest

from metaloom.learners.domains import Choice, Int, Real
from metaloom.learners.errors import BadInput
from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import SearchError
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.simulation.memory import MemoryLog
from metaloom.orchestrator.simulation.running import UNSEEN, simulate
from metaloom.search_spaces.sections.settings import SearchSettings
from metaloom.testing import toy
from metaloom.workers.data.result_tables import LoggedTable
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.search import SearchRecord

DOMAINS = {
    "learner.method": Choice(("plain", "wide")),
    "rate": Real(0.01, 0.9, log=True),
    "wide.width": Int(8, 64),
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "random": {},
    "tpe": {"startup_trials": 3},
    "gp": {"startup_trials": 3},
    "cmaes": {},
    "nsga2": {"population": 3},
    "evolution": {"population": 3},
}
SCHEDULERS: dict[str, dict[str, Any]] = {
    "none": {},
    "asha": {"grace_steps": 2, "reduction_factor": 2},
    "hyperband": {"grace_steps": 1, "brackets": 2},
    "median": {"startup_trials": 2},
    "paired": {"grace_steps": 2},
}


class Log(MemoryLog):
    """A journal without a disk, which takes most of a toy search's time; the trials are real."""

    def __init__(self, folder: Path, **section: Any) -> None:
        super().__init__("first")
        self.folder = folder
        folder.mkdir()
        self.append(records.SEARCH_CREATED, {"seed": 0, "settings": toy.settings(**section)})


def real_search(folder: Path, space: toy.ToySpace | None = None, *, disk: bool = False, **section: Any) -> Director:
    if disk:
        director = toy.direct(folder, space, **section)
    else:
        director = Director(Log(folder, **section), space or toy.ToySpace())
        director.start()
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    director.end()
    return director


def table_of(director: Director, space: toy.ToySpace | None = None) -> LoggedTable:
    return LoggedTable("first", director.state, space or toy.ToySpace(), DOMAINS)


def decisions(state: SearchRecord) -> list[tuple[Any, ...]]:
    """Return all that was decided over each trial, without times."""
    fields = ("number", "state", "params", "distributions", "knobs", "origin", "reason", "repeat_of", "twin", "values")
    return [
        (*(getattr(one, name) for name in fields), [(report.step, report.metrics) for report in one.reports])
        for _, one in sorted(state.trials.items())
    ]


def section(sampler: str, scheduler: str = "none", **others: Any) -> dict[str, Any]:
    return {
        "sampler": {"kind": sampler, **SAMPLERS[sampler]},
        "scheduler": {"kind": scheduler, **SCHEDULERS[scheduler]},
        "trials": 12,
        **others,
    }


def replayed(table: LoggedTable, settings: dict[str, Any], *, seed: int = 0) -> SearchRecord:
    return simulate(table, SearchSettings.from_document(toy.settings(**settings)), seed=seed).record


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_suggests_the_same_trials_in_the_same_order(tmp_path: Path, sampler: str) -> None:
    asked = section(sampler)
    director = real_search(tmp_path / "first", **asked)
    assert decisions(replayed(table_of(director), asked)) == decisions(director.state)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_stops_the_same_trials_at_the_same_step(tmp_path: Path, scheduler: str) -> None:
    asked = section("tpe", scheduler)
    director = real_search(tmp_path / "first", disk=scheduler == "asha", **asked)
    stopped = director.state.in_state(records.STOPPED)
    assert bool(stopped) == (scheduler != "none")
    assert decisions(replayed(table_of(director), asked)) == decisions(director.state)


@pytest.mark.parametrize("others", [{"repeats": 3, "trials": 5}, {"patience": 3}])
def test_repeats_and_patience_are_those_of_the_search(tmp_path: Path, others: dict[str, Any]) -> None:
    asked = section("tpe", "asha", **others)
    director = real_search(tmp_path / "first", **asked)
    assert decisions(replayed(table_of(director), asked)) == decisions(director.state)


@pytest.mark.parametrize("outer", [{"fail_at": 5}, {"nan_at": 4}])
def test_failed_trials_and_contradictory_knobs_fail_again(tmp_path: Path, outer: dict[str, Any]) -> None:
    space = toy.ToySpace({**outer}, broken="wide")
    asked = section("random")
    director = real_search(tmp_path / "first", space, **asked)
    trials = director.state.trials.values()
    assert {one.config is None for one in trials} == {True, False}
    assert {one.state for one in trials} == {records.FAILED}
    with pytest.raises(BadInput, match="no trial of search 'first' has a value"):
        table_of(director, space)
    mixed = toy.ToySpace(broken="wide")
    director = real_search(tmp_path / "second", mixed, **asked)
    assert {one.state for one in director.state.trials.values()} == {records.FAILED, records.FINISHED}
    assert decisions(replayed(table_of(director, mixed), asked)) == decisions(director.state)


def test_another_sampler_takes_each_logged_trial_once(tmp_path: Path) -> None:
    director = real_search(tmp_path / "first", **section("random"))
    table = table_of(director)
    found = simulate(table, SearchSettings.from_document(toy.settings(**section("tpe", trials=40))), seed=3)
    assert found.exhausted
    assert sorted(found.places.values()) == list(range(12))
    assert list(found.places.values()) != list(range(12))
    for number, place in found.places.items():
        assert found.record.trials[number].params == director.state.trials[place].params
        assert found.record.trials[number].values == director.state.trials[place].values
    best, logged = ranking.best(found.record), ranking.best(director.state)
    assert best is not None and logged is not None
    assert best.values == logged.values and found.ends[-1].value == table.best


def test_a_curve_that_was_cut_is_extended_no_further_and_counted(tmp_path: Path) -> None:
    director = real_search(tmp_path / "first", **section("random", "asha"))
    cut = {one.number: one for one in director.state.in_state(records.STOPPED)}
    assert cut
    settings = SearchSettings.from_document(toy.settings(**section("random", "none")))
    found = simulate(table_of(director), settings)
    assert found.unseen == {number: toy.STEPS - one.step for number, one in cut.items()}
    for number in cut:
        mine = found.record.trials[number]
        assert (mine.state, mine.reason, mine.step) == (records.STOPPED, UNSEEN, cut[number].step)
    again = simulate(table_of(director), SearchSettings.from_document(toy.settings(**section("random", "asha"))))
    assert not again.unseen  # the scheduler itself stops them


def test_the_best_keeps_the_constraints_and_was_trained_to_its_end(tmp_path: Path) -> None:
    small = [{"metric": records.PARAMETERS, "max": 8}]
    director = real_search(tmp_path / "first", **section("random", constraints=small))
    table, trials = table_of(director), director.state.trials
    wide = {one.number for one in trials.values() if one.params["learner.method"] == "wide" and one.values}
    assert {number for number in trials if table.value(number) is None} >= wide - {
        number for number in wide if trials[number].params["wide.width"] == 8
    }
    best = ranking.best(director.state)
    assert best is not None and best.params["learner.method"] == "plain"
    assert table.best == best.values[records.VALIDATION_LOSS]
    stopping = real_search(tmp_path / "second", **section("random", "asha"))
    best = ranking.best(stopping.state)
    assert best is not None and table_of(stopping).best == best.values[records.VALIDATION_LOSS]
    assert all(table_of(stopping).regret(one or 0.0) >= 0 for one in table_of(stopping).worth)


def test_a_repeat_that_was_not_trained_shows_nothing(tmp_path: Path) -> None:
    director = real_search(tmp_path / "first", **section("random", trials=3))
    found = simulate(
        table_of(director), SearchSettings.from_document(toy.settings(**section("random", trials=3, repeats=2)))
    )
    assert found.unseen == {1: toy.STEPS, 3: toy.STEPS, 5: toy.STEPS}


def test_what_cannot_be_replayed_is_refused_with_its_reason(tmp_path: Path) -> None:
    begun = toy.direct(tmp_path / "begun")
    with pytest.raises(BadInput, match="search 'first' is running; let it end first: metaloom resume first"):
        table_of(begun)
    population = {"kind": "pbt", "interval_steps": 3}
    moved = real_search(tmp_path / "moved", scheduler=population, trials=4)
    with pytest.raises(BadInput, match="scheduler pbt: its trials changed knobs"):
        table_of(moved)
    ended = table_of(real_search(tmp_path / "ended", trials=4))
    with pytest.raises(SearchError, match="pbt trains on from copies with other knobs, which no table shows"):
        simulate(ended, SearchSettings.from_document(toy.settings(scheduler=population)))
