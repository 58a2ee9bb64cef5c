"""Samplers over a conditional space, the grid, warm starts, and Optuna's own database."""

import resource
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from metaloom.orchestrator.director import Director
from metaloom.orchestrator.errors import StoreError
from metaloom.orchestrator.executors.hosting import TrialHost
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.journal import Journal
from metaloom.orchestrator.proposing.mirror import OptunaProjection
from metaloom.testing import toy
from metaloom.workers.records import names as records
from metaloom.workers.records import ranking
from metaloom.workers.records.journal import Event


def run(director: Director) -> Director:
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    return director


def params(director: Director) -> list[dict[str, Any]]:
    return [trial.params for trial in director.state.trials.values()]


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes", "nsga2", "evolution", "grid"])
def test_samplers_follow_the_conditions_of_the_space(tmp_path: Path, sampler: str) -> None:
    director = run(toy.direct(tmp_path / "s", sampler={"kind": sampler}, trials=12))
    found = params(director)
    assert {one["learner.method"] for one in found} == {"plain", "wide"}
    assert all(("wide.width" in one) == (one["learner.method"] == "wide") for one in found)
    assert len({tuple(sorted(one.items())) for one in found}) == 12


def test_another_seed_gives_another_search(tmp_path: Path) -> None:
    assert params(run(toy.direct(tmp_path / "a", seed=0))) != params(run(toy.direct(tmp_path / "b", seed=1)))


def test_the_grid_ends_when_every_combination_was_tried(tmp_path: Path) -> None:
    director = run(toy.direct(tmp_path / "s", sampler={"kind": "grid"}, trials=99))
    found = params(director)
    assert len(found) == 5 + 5 * 5 and director.is_over  # plain: 5 rates; wide: 5 rates x 5 widths
    assert len({tuple(sorted(one.items())) for one in found}) == 30
    assert found[0]["rate"] == 0.01 and found[4]["rate"] == 0.9


def test_tpe_does_better_than_its_random_beginning(tmp_path: Path) -> None:
    director = run(toy.direct(tmp_path / "s", sampler={"kind": "tpe", "startup_trials": 5}, trials=25))
    losses = [trial.values[records.VALIDATION_LOSS] for trial in director.state.trials.values()]
    assert sum(losses[15:]) / 10 < sum(losses[:5]) / 5


def test_a_warm_start_tries_the_given_knobs_first_and_says_where_they_come_from(tmp_path: Path) -> None:
    given = [{"origin": "warm_start:old/3", "params": {"learner.method": "plain", "rate": 0.25}}]
    director = run(toy.direct(tmp_path / "s", warm_start=given, trials=2))
    assert director.state.trials[0].params == {"learner.method": "plain", "rate": 0.25}
    assert [trial.origin for trial in director.state.trials.values()] == ["warm_start:old/3", "random"]


def test_a_grid_is_whole_after_a_warm_start(tmp_path: Path) -> None:
    given = [{"origin": "warm_start:old/3", "params": {"learner.method": "plain", "rate": 0.25}}]
    cold = run(toy.direct(tmp_path / "cold", sampler={"kind": "grid"}, trials=3)).state.trials
    warm = run(toy.direct(tmp_path / "warm", sampler={"kind": "grid"}, trials=4, warm_start=given)).state.trials
    assert [warm[number + 1].params for number in range(3)] == [cold[number].params for number in range(3)]


def test_a_warm_start_outside_the_space_is_sampled_instead(tmp_path: Path) -> None:
    given = [{"origin": "warm_start:old/3", "params": {"learner.method": "gone", "rate": 7.0}}]
    director = run(toy.direct(tmp_path / "s", warm_start=given, trials=1))
    assert director.state.trials[0].params["learner.method"] in {"plain", "wide"}


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes", "nsga2", "evolution"])
def test_a_warm_start_goes_on_from_the_earlier_search_and_does_not_repeat_it(tmp_path: Path, sampler: str) -> None:
    """Both have one seed; only the knobs that are given are tried twice."""
    section = {"sampler": {"kind": sampler}, "trials": 5}
    earlier = params(run(toy.direct(tmp_path / "old", **section)))
    given = [{"origin": "warm_start:old/3", "params": earlier[3]}]
    first, second = (run(toy.direct(tmp_path / name, warm_start=given, **section)) for name in ("a", "b"))
    assert params(first)[0] == earlier[3]
    assert not {one["rate"] for one in params(first)[1:]} & {one["rate"] for one in earlier}
    assert toy.outcome(first) == toy.outcome(second)


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "cmaes", "nsga2", "evolution"])
def test_a_warm_started_search_that_was_cut_goes_on_as_if_it_was_not(tmp_path: Path, sampler: str) -> None:
    given = [{"origin": "warm_start:old/3", "params": {"learner.method": "plain", "rate": 0.25}}]
    section = {"sampler": {"kind": sampler}, "warm_start": given, "trials": 5}
    whole, cut = run(toy.direct(tmp_path / "whole", **section)), toy.direct(tmp_path / "cut", **section)
    for _ in range(2):
        host = TrialHost(toy.open_toy)
        host.begin(cut.next_trial())
        while cut.hear(host.step()):
            pass
        host.close()
    cut.journal.close()
    again = Director(Journal(tmp_path / "cut"), toy.ToySpace())
    again.start()
    assert toy.outcome(run(again)) == toy.outcome(whole)


def test_running_trials_are_running_in_the_study(tmp_path: Path) -> None:
    """What the constant liar needs: two suggestions without an end between them differ."""
    director = toy.direct(tmp_path / "s", sampler={"kind": "tpe", "startup_trials": 1}, trials=4)
    for _ in range(3):
        director.next_trial()
    states = [trial.state for trial in director._proposer._study.get_trials(deepcopy=False)]
    assert states == [TrialState.RUNNING] * 3
    assert len({one["rate"] for one in params(director)}) == 3


def connected(folder: Path, director: Director) -> OptunaProjection:
    projection = OptunaProjection(folder / "optuna.db", search="s", settings=director.settings)
    assert projection.database.prepare() == ""
    assert projection.connect(director.journal, thorough=False) == []
    return projection


def database(tmp_path: Path, director: Director, events: list[Event]) -> list[optuna.trial.FrozenTrial]:
    path = tmp_path / "optuna.db"
    connected(tmp_path, director).apply(events)
    return optuna.load_study(study_name="s", storage=f"sqlite:///{path}").trials


def test_the_database_tells_the_truth_of_every_trial(tmp_path: Path) -> None:
    constraints = [{"metric": records.PARAMETERS, "max": 20}]
    section = {"scheduler": {"kind": "asha", "grace_steps": 2}, "constraints": constraints, "trials": 8}
    director = run(toy.direct(tmp_path / "s", toy.ToySpace(broken="wide"), **section))
    stored = database(tmp_path, director, director.journal.events())
    known = {records.FINISHED: TrialState.COMPLETE, records.STOPPED: TrialState.PRUNED, records.FAILED: TrialState.FAIL}
    assert {trial.state for trial in stored} == set(known.values())
    for trial in stored:
        ours = director.state.trials[trial.number]
        assert trial.state == known[ours.state] and trial.params == ours.params
        if ours.state == records.STOPPED:
            assert trial.user_attrs["stopped_at_step"] == ours.step == max(trial.intermediate_values)
            assert "best 1/3" in trial.user_attrs["reason"]
        elif ours.state == records.FAILED:
            assert "cannot be put together" in trial.user_attrs["reason"]
        else:
            assert trial.value == ours.values[records.VALIDATION_LOSS]
            assert trial.constraints == {"parameters<=20": ours.reports[-1].metrics[records.PARAMETERS] - 20}


def test_the_databases_path_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20#?"
    folder.mkdir()
    director = run(toy.direct(tmp_path / "s", trials=1))
    connected(folder, director).apply(director.journal.events())
    assert (folder / "optuna.db").stat().st_size > 0


def test_events_projected_twice_and_in_pieces_change_nothing(tmp_path: Path) -> None:
    director = run(toy.direct(tmp_path / "s", scheduler={"kind": "asha", "grace_steps": 2}, trials=3))
    events = director.journal.events()
    once = database(tmp_path, director, events)
    again = connected(tmp_path, director)
    for first in range(0, len(events), 4):
        again.apply(events[first : first + 7])
    twice = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'optuna.db'}").trials
    assert [(t.state, t.values, t.intermediate_values) for t in twice] == [
        (t.state, t.values, t.intermediate_values) for t in once
    ]


def test_a_full_disk_is_called_so_and_not_invalid_data(tmp_path: Path) -> None:
    director = run(toy.direct(tmp_path / "s", trials=2))
    projection = connected(tmp_path, director)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"optuna\.db.*(full|I/O)"):
            projection.apply(director.journal.events())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    projection.apply(director.journal.events())  # there is space again


def test_several_objectives_reach_the_database(tmp_path: Path) -> None:
    objectives = [
        {"metric": records.VALIDATION_LOSS, "direction": "minimize"},
        {"metric": records.PARAMETERS, "direction": "minimize"},
    ]
    section = {"objectives": objectives, "sampler": {"kind": "tpe", "startup_trials": 3}, "trials": 6}
    director = run(toy.direct(tmp_path / "s", scheduler={"kind": "asha", "grace_steps": 2}, **section))
    stored = database(tmp_path, director, director.journal.events())
    assert all(len(trial.values or []) == 2 for trial in stored if trial.state == TrialState.COMPLETE)
    best = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'optuna.db'}").best_trials
    assert {trial.number for trial in best} == {trial.number for trial in ranking.pareto_front(director.state)}
