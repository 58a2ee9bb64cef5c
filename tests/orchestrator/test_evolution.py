"""Regularized evolution: what becomes a parent, what changes, and that a replayed study suggests the same."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from metaloom.orchestrator.director import Director
from metaloom.orchestrator.executors.inline import InlineExecutor
from metaloom.orchestrator.interruption import Interruption
from metaloom.orchestrator.proposing.samplers.evolution import RegularizedEvolution
from metaloom.testing import toy
from metaloom.workers.records import names as records

SPACE: dict[str, BaseDistribution] = {
    **{f"edge{edge}": CategoricalDistribution(("none", "skip", "conv")) for edge in range(4)},
    "rate": FloatDistribution(1e-3, 1.0, log=True),
    "width": IntDistribution(4, 9),
    "fixed": CategoricalDistribution(("only",)),
}


def study_of(trials: list[tuple[dict[str, Any], float | None]], direction: str = "maximize") -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for params, value in trials:
        state = optuna.trial.TrialState.RUNNING if value is None else optuna.trial.TrialState.COMPLETE
        distributions = {name: SPACE[name] for name in params}
        study.add_trial(optuna.trial.create_trial(state=state, params=params, distributions=distributions, value=value))
    return study


def suggested(study: optuna.Study, seed: int, names: list[str], **settings: int) -> dict[str, Any]:
    study.sampler = RegularizedEvolution(seed=seed, **settings)
    trial = study.ask()
    found = {name: trial._suggest(name, SPACE[name]) for name in names}
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return found


def point(operation: str, rate: float = 0.1, width: int = 6) -> dict[str, Any]:
    return {**{f"edge{edge}": operation for edge in range(4)}, "rate": rate, "width": width, "fixed": "only"}


@pytest.mark.parametrize(("direction", "parent"), [("maximize", "conv"), ("minimize", "skip")])
def test_a_child_is_the_best_of_the_tournament_with_one_knob_changed(direction: str, parent: str) -> None:
    study = study_of([(point("none"), 0.5), (point("conv"), 0.9), (point("skip"), 0.1)], direction)
    changed = set()
    for seed in range(40):
        child = suggested(study, seed, list(SPACE), population=3, tournament=3)
        different = [name for name, value in child.items() if value != point(parent)[name]]
        assert len(different) == 1
        assert child["fixed"] == "only" and 1e-3 <= child["rate"] <= 1.0 and 4 <= child["width"] <= 9
        changed |= set(different)
    assert changed == set(SPACE) - {"fixed"}


def test_the_oldest_die_however_good_they_were() -> None:
    study = study_of([(point("none"), 1.0), (point("conv"), 0.2), (point("skip"), 0.1)])
    for seed in range(20):
        child = suggested(study, seed, ["edge0", "edge1", "edge2"], population=2, tournament=2)
        assert list(child.values()).count("conv") >= 2


def test_a_tournament_of_one_takes_any_of_the_population() -> None:
    study = study_of([(point("conv"), 0.9), (point("skip"), 0.1)])
    parents = {
        max(("conv", "skip"), key=list(child.values()).count)
        for seed in range(20)
        if (child := suggested(study, seed, ["edge0", "edge1", "edge2"], population=2, tournament=1))
    }
    assert parents == {"conv", "skip"}


def test_the_first_trials_are_random_and_running_ones_are_no_parents() -> None:
    study = study_of([(point("conv"), 0.9), (point("skip"), None)])
    drawn = [tuple(suggested(study, seed, list(SPACE), population=2, tournament=2).values()) for seed in range(20)]
    assert len(set(drawn)) == 20
    assert {one[0] for one in drawn} == {"none", "skip", "conv"}


def test_a_knob_that_the_parent_lacks_is_drawn() -> None:
    study = study_of([({"edge0": "conv"}, 0.9), ({"edge0": "skip"}, 0.8)])
    widths = {suggested(study, seed, ["edge0", "width"], population=2, tournament=2)["width"] for seed in range(60)}
    assert widths == set(range(4, 10))


def test_a_number_at_the_edge_of_its_range_moves_inside_it() -> None:
    study = study_of([({"rate": 1.0, "width": 9}, 0.9), ({"rate": 1.0, "width": 9}, 0.8)])
    children = [suggested(study, seed, ["rate", "width"], population=2, tournament=2) for seed in range(40)]
    moved = [one["rate"] for one in children if one["rate"] != 1.0]
    assert moved and all(1e-3 <= rate < 1.0 for rate in moved)
    assert {one["width"] for one in children if one["rate"] == 1.0} <= {7, 8}


def run(director: Director) -> Director:
    InlineExecutor(Interruption()).run(director, toy.open_toy)
    return director


def test_a_search_resumed_half_way_suggests_what_the_whole_one_does(tmp_path: Path) -> None:
    sampler = {"kind": "evolution", "population": 4, "tournament": 2}
    whole = run(toy.direct(tmp_path / "whole", sampler=sampler, trials=14))
    begun = run(toy.direct(tmp_path / "part", sampler=sampler, trials=14))
    again = Director(begun.journal, toy.ToySpace())  # rebuilt from the journal alone
    for number in range(14):
        assert again.state.trials[number].params == whole.state.trials[number].params
    proposed = [one._proposer.propose(14) for one in (whole, again)]
    assert proposed[0].params == proposed[1].params


def test_it_does_better_than_its_random_beginning(tmp_path: Path) -> None:
    sampler = {"kind": "evolution", "population": 6, "tournament": 3}
    director = run(toy.direct(tmp_path / "s", sampler=sampler, trials=30))
    losses = [trial.values[records.VALIDATION_LOSS] for trial in director.state.trials.values()]
    assert sum(losses[-10:]) / 10 < sum(losses[:6]) / 6
