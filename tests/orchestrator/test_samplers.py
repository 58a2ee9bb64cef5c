"""Which sampler a search gets, and the seeds of its suggestions."""

from typing import Any

import pytest

from metaloom.learners.errors import BadInput
from metaloom.orchestrator.proposing.study import build_sampler, trial_seed
from metaloom.search_spaces.sections.strategies import samplers
from metaloom.workers.records.objectives import SearchSettings
from tests.support import bowls, toy


def test_seeds_differ_by_search_and_trial_and_are_stable() -> None:
    assert len({trial_seed(seed, number) for seed in range(20) for number in range(20)}) == 400
    assert trial_seed(0, 0) == 1796802197  # written down: another value would change every recorded search


def test_a_warm_start_changes_the_seeds_by_the_knobs_it_starts_from() -> None:
    starts: list[list[dict[str, Any]]] = [[], [{"rate": 0.1}], [{"rate": 0.2}], [{"rate": 0.1}, {"rate": 0.2}]]
    assert len({trial_seed(0, number, starts=one) for number in range(20) for one in starts}) == 80
    one, turned = {"rate": 0.1, "method": "maml"}, {"method": "maml", "rate": 0.1}
    assert trial_seed(0, 3, starts=[one]) == trial_seed(0, 3, starts=[turned])


@pytest.mark.parametrize("sampler", [{"kind": "tpee"}, {"kind": "tpe", "startups": 3}])
def test_what_does_not_exist_is_refused_with_its_nearest_spelling(sampler: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="did you mean"):
        build_sampler(SearchSettings.from_document(toy.settings(sampler=sampler)))


RANDOM = {"kind": "random"}
SAMPLERS: list[dict[str, Any]] = [
    RANDOM,
    {"kind": "tpe"},
    {"kind": "gp"},
    {"kind": "cmaes"},
    {"kind": "nsga2", "population": 6},
    {"kind": "evolution"},
]


def test_every_sampler_but_the_grid_is_tried_here() -> None:
    assert {sampler["kind"] for sampler in SAMPLERS} == {kind for kind, one in samplers().items() if not one.finite}


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["kind"])
def test_every_proposal_is_in_its_branch_and_in_its_domains(sampler: dict[str, Any]) -> None:
    trials = bowls.Exploration(sampler).run(30)
    assert all(bowls.is_inside(trial.params) for trial in trials)
    assert {trial.params["method"] for trial in trials} == {"flat", "deep"}


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["kind"])
def test_a_search_that_was_killed_proposes_what_the_uninterrupted_one_does(sampler: dict[str, Any]) -> None:
    whole, killed = bowls.Exploration(sampler), bowls.Exploration(sampler)
    for _ in range(5):
        killed.run(6)
        killed.kill()
    assert killed.trials == whole.run(30)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler["kind"])
def test_so_does_one_that_was_killed_while_three_trials_ran(sampler: dict[str, Any]) -> None:
    whole, killed = bowls.Exploration(sampler, seed=2), bowls.Exploration(sampler, seed=2)
    for number in range(30):
        for one in (whole, killed):
            one.begin()
            if number >= 2:
                one.end(number - 2)
        if number % 5 == 4:
            killed.kill()
    assert killed.trials == whole.trials


@pytest.mark.parametrize(
    "sampler", [one for one in SAMPLERS if one["kind"] in ("tpe", "gp", "cmaes")], ids=lambda sampler: sampler["kind"]
)
def test_samplers_that_learn_come_to_the_best_point_under_the_best_choice(sampler: dict[str, Any]) -> None:
    for seed in range(3):
        trials = bowls.Exploration(sampler, seed=seed).run(60)
        assert bowls.late_loss(trials) < 0.15 < 0.25 < bowls.late_loss(bowls.Exploration(RANDOM, seed=seed).run(60))
